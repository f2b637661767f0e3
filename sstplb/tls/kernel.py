"""kTLS: the kernel seals and opens the records of a connection after its handshake.

Then plaintext need not enter this process at all: ``splice`` moves it from a plain socket into a
TLS one, and the kernel encrypts on the way. OpenSSL shakes hands and gives the kernel the keys
when it was asked to (``SSL_OP_ENABLE_KTLS``), the socket was prepared (``attach``), and kernel and
library both can: OpenSSL 3.0 hands over both directions of TLS 1.2 and the sending one of TLS 1.3,
newer ones more. What really happens is found out by ``trial``: one handshake per version.

What the kernel has taken over for sending, OpenSSL must not send on any more, for they would
disagree about the sequence of records; so its side of the socket is closed off (``native.py``),
and the end is said here. A KeyUpdate that asks for another in return gets none: kernels before
6.14 cannot change keys, and nobody checks that they do (RFC 8446, 4.6.3, has the sender's own keys
change with the sender's own message only).

Sources: Documentation/networking/tls.rst of Linux; ``linux/tls.h`` for the numbers.
"""

import contextlib
import datetime as dt
import select
import socket

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from sstplb.config.schema import ListenerTls, PoolTls, TlsVersion, Verify
from sstplb.tls.certificate import Certificate, Identity
from sstplb.tls.native import NativeConnection, NativeContext, WouldBlockError
from sstplb.tls.openssl import OpenSsl

TCP_ULP = 31
SOL_TLS = 282
TLS_SET_RECORD_TYPE = 1
ALERT = b"\x15"
CLOSE_NOTIFY = b"\x01\x00"
"""A warning that nothing more will be sent (RFC 8446, 6.1)."""
TRIAL_S = 5.0
"""How long our own other side may take to answer."""


def attach(sock: socket.socket) -> None:
    """Prepare a connected socket to be given keys. Raises OSError where there is no kTLS.

    Until it is given some, it works as before.
    """
    sock.setsockopt(socket.IPPROTO_TCP, TCP_ULP, b"tls")


def close_notify(sock: socket.socket) -> bool:
    """Say that nothing more will be sent; return whether TCP has that, and all that came before.

    The kernel also takes a record that TCP has no room for: it says nothing of that, and passes
    it on later. A FIN that is sent meanwhile cuts it off. To be given something more is what makes
    the kernel try again at once; if there is room afterwards, a third of the send buffer, then it
    did not stop for lack of it. So, False: call this again when the socket is writable. A second
    close_notify does no harm, for what follows the first is ignored (RFC 8446, 6.1; RFC 5246,
    7.2.1). Never raises.
    """
    try:
        sock.sendmsg([CLOSE_NOTIFY], [(SOL_TLS, TLS_SET_RECORD_TYPE, ALERT)])
    except BlockingIOError:
        return False
    except OSError:  # nobody is there any more
        return True
    room = select.poll()
    room.register(sock, select.POLLOUT)
    return bool(room.poll(0))


def why_not() -> str | None:
    """Return why this kernel cannot do it, in words; None: it can."""
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.create_connection(server.getsockname()) as client,
    ):
        try:
            attach(client)
        except FileNotFoundError:
            return "the kernel has no TLS module, or it is not loaded (modprobe tls)"
        except OSError as error:
            return f"the kernel refuses: {error.strerror}"
    return None


def trial(openssl: OpenSsl) -> str:
    """Shake hands with ourselves, and return what the kernel took over, in words; "": nothing.

    ``openssl`` must offer its connections to the kernel. Raises OSError or TlsError when not even
    the handshake works.
    """
    identity = _throw_away_identity()
    found = []
    for version in TlsVersion:
        settings = ListenerTls(min_version=version, max_version=version)
        server = NativeContext.for_clients(openssl, settings, identity)
        client = NativeContext.for_backends(openssl, PoolTls(verify=Verify.OFF))
        sends, receives = _hand_over(server, client)
        ways = [word for word, does in (("sending", sends), ("receiving", receives)) if does]
        if ways:
            found.append(f"{' and '.join(ways)} with TLS {version}")
    return ", ".join(found)


def _hand_over(server: NativeContext, client: NativeContext) -> tuple[bool, bool]:
    """Return what the kernel does for a server after a handshake: sending, receiving."""
    with contextlib.ExitStack() as stack:
        listening = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        near = stack.enter_context(socket.create_connection(listening.getsockname()))
        far = stack.enter_context(listening.accept()[0])
        for sock in (near, far):
            attach(sock)
            sock.setblocking(False)
        ends = {
            sock: stack.enter_context(contextlib.closing(NativeConnection(context, sock.fileno())))
            for context, sock in ((client, near), (server, far))
        }
        unfinished = {near, far}
        acting = [near]
        while unfinished and acting:
            for sock in unfinished.intersection(acting):
                with contextlib.suppress(WouldBlockError):
                    ends[sock].handshake()
                    unfinished.discard(sock)
            acting, _, _ = select.select(unfinished, (), (), TRIAL_S)
        return ends[far].kernel_sends, ends[far].kernel_receives


def _throw_away_identity() -> Identity:
    """Return a key, and a certificate for it that is valid for an hour."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "trial")])
    now = dt.datetime.now(dt.UTC)
    leaf = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(minutes=1))
        .not_valid_after(now + dt.timedelta(hours=1))
        .sign(key, hashes.SHA256())
    )
    return Identity(Certificate(leaf), key)

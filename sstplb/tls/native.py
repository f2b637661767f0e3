"""The native TLS engine: OpenSSL on the socket itself, through cffi (``openssl.py``: which one).

What makes it cheap is that the bytes cross into Python once per *batch*: ``BIO_f_buffer`` pushed
on ``BIO_f_ssl`` (here: the *batch reader*) reads and decrypts every record that is waiting in one
call, where ``SSL_read`` returns after each. It costs 8 KiB, so a connection has one only from the
moment that a second record is waiting behind the first, until it has ``rest``. Writing,
``SSL_write`` of a whole chunk makes all its records in one call.

Ownership, so that everything is freed exactly once: a ``NativeContext`` owns its SSL_CTX; a
``NativeConnection`` owns its SSL and the batch reader above it; the SSL owns the socket BIOs
(``SSL_set0_rbio``), which do not own the descriptor. ``close`` frees a connection; one that nobody
closed (a handshake that failed) is freed with the object.

OpenSSL's queue of errors must be empty before a call whose failure is to be understood. It is
emptied after each failure of ours; what somebody else may have left there (Python's ``ssl`` shares
the library) is found out when a call seems to fail: the queue is emptied and the call made again.

The ClientHello has been read off the socket before there is an SSL (its server name chooses the
context); a memory BIO holds those bytes, and is swapped for the socket once they are used up.
"""

import os
import ssl
import sys
from collections import OrderedDict
from typing import Any

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from sstplb.config.schema import ListenerTls, PoolTls, TlsVersion, Verify
from sstplb.errors import CertificateError, TlsError
from sstplb.tls import openssl as numbers
from sstplb.tls.certificate import Identity
from sstplb.tls.info import TlsInfo
from sstplb.tls.openssl import OpenSsl
from sstplb.tls.report import RAGGED_END, after_handshake, sentence_for, translate_verify

_VERSIONS = ((TlsVersion.TLS12, numbers.TLS12), (TlsVersion.TLS13, numbers.TLS13))
VERIFY_FAILED = "certificate verify failed"
BATCH_BYTES_MIN = 4096
"""``BIO_f_buffer`` reads into the caller's memory when that is larger, else into its own."""
TICKET_KEYS_BYTES = 80
"""A name, an HMAC key and an AES key, as OpenSSL takes them in one piece."""
SESSIONS_MAX = 1000
"""Places a pool keeps a session with; backends are fewer."""
_LATER = (numbers.WANT_READ, numbers.WANT_WRITE)


class NativeContext:
    """An SSL_CTX: shared by all connections of one certificate, or of one pool."""

    def __init__(self, openssl: OpenSsl, *, server: bool) -> None:
        lib, ffi = openssl.lib, openssl.ffi
        method = lib.TLS_server_method() if server else lib.TLS_client_method()
        self.openssl = openssl
        self.is_server = server
        self.pointer = ffi.gc(lib.SSL_CTX_new(method), lib.SSL_CTX_free)
        offer = numbers.ENABLE_KTLS if openssl.offers_kernel else 0
        lib.SSL_CTX_set_options(self.pointer, numbers.OPTIONS | offer)
        self._control(numbers.SET_MODE, numbers.MODES)
        self._control(numbers.SET_READ_AHEAD, 1)
        lib.SSL_CTX_set_default_read_buffer_len(self.pointer, numbers.READ_AHEAD_BYTES)

    @classmethod
    def for_clients(
        cls,
        openssl: OpenSsl,
        settings: ListenerTls,
        identity: Identity,
        ticket_keys: bytes = b"",
    ) -> "NativeContext":
        """Return the context that shows one certificate. Raises CertificateError.

        ``ticket_keys``, ``TICKET_KEYS_BYTES`` of them: what tickets are sealed with, so that other
        processes can open them; without, the context makes its own.
        """
        context = cls(openssl, server=True)
        lib, pointer = openssl.lib, context.pointer
        lib.ERR_clear_error()
        versions = dict(_VERSIONS)
        ok = context._control(numbers.SET_MIN_VERSION, versions[settings.min_version]) == 1
        ok &= context._control(numbers.SET_MAX_VERSION, versions[settings.max_version]) == 1
        ok = ok and lib.SSL_CTX_set_cipher_list(pointer, settings.ciphers.encode()) == 1
        ok = ok and lib.SSL_CTX_set_ciphersuites(pointer, settings.ciphersuites.encode()) == 1
        if not (ok and context._use(identity)):
            reasons = "; ".join(openssl.reasons()) or "no reason given"
            raise CertificateError(
                f"OpenSSL refuses certificate {identity.certificate.subject} or the listener's "
                f"tls settings: {reasons}"
            )
        # A session is only resumed under the certificate it began with: the client binds its call
        # to the one it remembers, and the backend must be one that accepts it.
        sha256 = identity.certificate.sha256
        lib.SSL_CTX_set_session_id_context(pointer, sha256, len(sha256))
        if settings.session_resumption:
            context._control(numbers.SET_SESSION_CACHE_MODE, numbers.SESSION_CACHE_SERVER)
            lib.SSL_CTX_set_timeout(pointer, round(settings.session_lifetime))
            # Each costs CPU, and a client gets another with each call it resumes.
            lib.SSL_CTX_set_num_tickets(pointer, 1)
            if ticket_keys:
                keys = openssl.ffi.new("unsigned char[]", ticket_keys)
                context._control(numbers.SET_TICKET_KEYS, TICKET_KEYS_BYTES, keys)
        else:
            context._control(numbers.SET_SESSION_CACHE_MODE, numbers.SESSION_CACHE_OFF)
            lib.SSL_CTX_set_options(pointer, numbers.NO_TICKET)
        return context

    @classmethod
    def for_backends(cls, openssl: OpenSsl, settings: PoolTls) -> "NativeContext":
        """Return the context towards a pool. Raises CertificateError for a bad CA file."""
        context = cls(openssl, server=False)
        lib, pointer = openssl.lib, context.pointer
        versions = dict(_VERSIONS)
        context._control(numbers.SET_MIN_VERSION, versions[settings.min_version])
        context._control(numbers.SET_MAX_VERSION, versions[settings.max_version])
        groups = openssl.ffi.new("char[]", numbers.GROUPS_TO_BACKENDS)
        context._control(numbers.SET_GROUPS_LIST, 0, groups)
        if (settings.verify or Verify.CA) is Verify.CA:
            lib.ERR_clear_error()
            if settings.ca_file is None:
                context._trust_the_systems()
            elif not context._trust(str(settings.ca_file)):
                raise CertificateError(
                    f"{settings.ca_file}: no CA certificates could be read; expected a PEM file"
                )
            lib.SSL_CTX_set_verify(pointer, numbers.VERIFY_PEER, openssl.ffi.NULL)
        return context

    def _trust_the_systems(self) -> None:
        """Trust whom this machine trusts; its own library knows who, for others Python does."""
        if self.openssl.name == numbers.SYSTEM:
            self.openssl.lib.SSL_CTX_set_default_verify_paths(self.pointer)
            return
        paths = ssl.get_default_verify_paths()
        # As OpenSSL does: each for itself, so that one that cannot be read costs nothing else.
        self._trust(os.environ.get(paths.openssl_cafile_env, paths.openssl_cafile))
        self._trust(None, os.environ.get(paths.openssl_capath_env, paths.openssl_capath))

    def _trust(self, file: str | None, directory: str | None = None) -> bool:
        """Trust the CAs in a file and a directory; return whether they could be read."""
        openssl = self.openssl
        names = [openssl.ffi.NULL if name is None else name.encode() for name in (file, directory)]
        if openssl.lib.SSL_CTX_load_verify_locations(self.pointer, *names) == 1:
            return True
        openssl.reasons()
        return False

    def _use(self, identity: Identity) -> bool:
        """Load certificate, intermediates and key."""
        lib, ffi = self.openssl.lib, self.openssl.ffi
        leaf = identity.certificate.leaf_der
        if lib.SSL_CTX_use_certificate_ASN1(self.pointer, len(leaf), leaf) != 1:
            return False
        for intermediate in identity.certificate.intermediates:
            der = intermediate.public_bytes(serialization.Encoding.DER)
            held = ffi.from_buffer("unsigned char[]", der)
            parsed = lib.d2i_X509(ffi.NULL, ffi.new("const unsigned char **", held), len(der))
            # On success the context owns it.
            if not parsed or self._control(numbers.SET_EXTRA_CHAIN_CERT, 0, parsed) != 1:
                lib.X509_free(parsed)
                return False
        key = identity.key.private_bytes(
            serialization.Encoding.DER,
            serialization.PrivateFormat.TraditionalOpenSSL,
            serialization.NoEncryption(),
        )
        kind = numbers.KEY_RSA if isinstance(identity.key, rsa.RSAPrivateKey) else numbers.KEY_EC
        return bool(lib.SSL_CTX_use_PrivateKey_ASN1(kind, self.pointer, key, len(key)) == 1)

    def _control(self, command: int, number: int, pointer: Any = None) -> int:
        null = self.openssl.ffi.NULL
        return int(
            self.openssl.lib.SSL_CTX_ctrl(
                self.pointer, command, number, null if pointer is None else pointer
            )
        )


class Sessions:
    """Sessions that may be resumed, one for each place that was connected to."""

    def __init__(self) -> None:
        self._held: OrderedDict[object, Any] = OrderedDict()

    def get(self, place: object) -> Any:
        """Return the session with ``place``, or None."""
        return self._held.get(place)

    def put(self, place: object, session: Any) -> None:
        """Keep the latest session with ``place``."""
        self._held[place] = session
        self._held.move_to_end(place)
        if len(self._held) > SESSIONS_MAX:
            self._held.popitem(last=False)

    def clear(self) -> None:
        """Forget them all."""
        self._held.clear()


class WouldBlockError(Exception):
    """The socket has nothing, or takes nothing, at the moment."""

    def __init__(self, *, for_writing: bool) -> None:
        super().__init__()
        self.for_writing = for_writing


class NativeConnection:
    """One side of one TLS connection, on a non-blocking descriptor it does not own."""

    __slots__ = (
        "_batch_reader", "_context", "_descriptor", "_early", "_ended", "_failure", "_ffi", "_lib",
        "_memory", "_openssl", "_ssl", "kernel_receives", "kernel_sends",
    )  # fmt: skip

    def __init__(
        self,
        context: NativeContext,
        descriptor: int,
        *,
        early: bytes = b"",
        server_name: str | None = None,
        session: Any = None,
    ) -> None:
        """Prepare for the handshake.

        ``early`` was read off the descriptor before; ``session`` is one to resume.
        """
        openssl = context.openssl
        lib, ffi = openssl.lib, openssl.ffi
        self._openssl, self._lib, self._ffi = openssl, lib, ffi
        self._descriptor = descriptor
        self._failure: TlsError | None = None
        self._ended = False
        self.kernel_sends = False
        """Whether the kernel seals what is sent: then it is written to the socket as it is."""
        self.kernel_receives = False
        """Whether the kernel opens what is received."""
        self._ssl = lib.SSL_new(context.pointer)
        # Freeing the filter BIO "shuts down" the SSL: never onto a descriptor that may by then
        # be somebody else's. Only ``close_notify`` speaks.
        lib.SSL_set_quiet_shutdown(self._ssl, 1)
        self._context = context  # must not be freed before its connections
        self._batch_reader: Any = None
        self._early = early
        if early:
            memory = lib.BIO_new_mem_buf(ffi.from_buffer(early), len(early))
            lib.BIO_ctrl(memory, numbers.BIO_SET_EOF_RETURN, -1, ffi.NULL)
            self._memory = memory
            lib.SSL_set0_rbio(self._ssl, memory)
            lib.SSL_set0_wbio(self._ssl, lib.BIO_new_socket(descriptor, 0))
        else:
            self._memory = None
            lib.SSL_set0_wbio(self._ssl, lib.BIO_new_socket(descriptor, 0))
            self._read_from_socket()
        if context.is_server:
            lib.SSL_set_accept_state(self._ssl)
        else:
            lib.SSL_set_connect_state(self._ssl)
            if server_name:
                lib.SSL_ctrl(self._ssl, numbers.SET_SERVER_NAME, 0, server_name.encode("ascii"))
            if session is not None:
                lib.SSL_set_session(self._ssl, session)

    def handshake(self) -> None:
        """Go on shaking hands. Raises WouldBlockError, or TlsError."""
        lib = self._lib
        while True:
            lib.ERR_clear_error()
            result = lib.SSL_do_handshake(self._ssl)
            if result == 1:
                if self._memory is not None and not self._memory_pending():
                    self._use_socket()
                if self._openssl.offers_kernel:
                    self._note_kernel()
                return
            error = lib.SSL_get_error(self._ssl, result)
            if error == numbers.WANT_READ and self._memory is not None:
                self._use_socket()
                continue
            self._raise_blocked(error)
            reasons = self._openssl.reasons()
            # The result is filled in when nobody asked to verify, too: only the reason counts.
            if VERIFY_FAILED in reasons:
                raise translate_verify(lib.SSL_get_verify_result(self._ssl))
            raise sentence_for(reasons)

    def _note_kernel(self) -> None:
        """Note what the kernel has taken over (``kernel.py``)."""
        lib, null = self._lib, self._ffi.NULL
        reading, writing = lib.SSL_get_rbio(self._ssl), lib.SSL_get_wbio(self._ssl)
        self.kernel_receives = lib.BIO_ctrl(reading, numbers.BIO_KERNEL_RECEIVES, 0, null) > 0
        self.kernel_sends = lib.BIO_ctrl(writing, numbers.BIO_KERNEL_SENDS, 0, null) > 0
        if self.kernel_sends:
            lib.SSL_set0_wbio(self._ssl, lib.BIO_new(lib.BIO_s_null()))

    @property
    def holds_plaintext(self) -> bool:
        """Whether bytes that were received are in here, and not on the socket any more."""
        held = self._batch_reader is not None and self._lib.BIO_ctrl(
            self._batch_reader, numbers.BIO_PENDING, 0, self._ffi.NULL
        )
        return bool(held or self._memory is not None or self._lib.SSL_has_pending(self._ssl))

    def read(self, into: memoryview) -> int | None:
        """Move every plaintext byte that is there, as far as it fits, into ``into``.

        Returns how many bytes; None: none yet; 0: the end. ``into`` holds more than
        BATCH_BYTES_MIN, for otherwise the batch reader would keep bytes back.
        Raises TlsError when a record is damaged.
        """
        # The cdata of a buffer is never kept in a variable: a traceback would keep it, and CPython
        # 3.11 crashes when a memoryview that is lent out is collected as part of a cycle.
        lib, borrow, size = self._lib, self._ffi.from_buffer, len(into)
        if self._batch_reader is not None:
            count: int = lib.BIO_read(self._batch_reader, borrow(into), size)
        else:
            count = lib.SSL_read(self._ssl, borrow(into), size)
            if 0 < count < size - BATCH_BYTES_MIN and lib.SSL_has_pending(self._ssl):
                self._make_batch_reader()
                more = lib.BIO_read(self._batch_reader, borrow(into) + count, size - count)
                count += max(0, more)
        return count if count > 0 else self._why_no_bytes(count, into)

    def _why_no_bytes(self, count: int, into: memoryview) -> int | None:
        """Say what a read that brought nothing means: as ``read``."""
        lib = self._lib
        if self._ended:
            return 0
        if self._failure is not None:
            raise self._failure
        if lib.SSL_get_error(self._ssl, count) not in _LATER:
            reasons = self._openssl.reasons()
            count = lib.SSL_read(self._ssl, self._ffi.from_buffer(into), len(into))
            if count > 0:
                return count
            if lib.SSL_get_error(self._ssl, count) not in _LATER:
                return self._note_end(reasons or self._openssl.reasons())
        if self._memory is None:
            return None
        self._use_socket()
        count = lib.SSL_read(self._ssl, self._ffi.from_buffer(into), len(into))
        return count if count > 0 else self._why_no_bytes(count, into)

    def _note_end(self, reasons: list[str]) -> int:
        """Nothing will ever come again: return 0, or raise TlsError when a record is damaged."""
        self._openssl.reasons()
        failure = after_handshake(sentence_for(reasons))
        if failure.reason != RAGGED_END:
            self._failure = failure
            raise failure
        self._ended = True
        return 0

    def write(self, data: memoryview) -> int:
        """Write all of ``data``, and return its length; 0 when the socket is full.

        Then part of it may be on its way: write the same bytes again when the socket is writable.
        Raises OSError when the other side is gone.
        """
        lib, borrow, size = self._lib, self._ffi.from_buffer, len(data)
        count: int = lib.SSL_write(self._ssl, borrow(data), size)
        if count > 0:
            return count
        if lib.SSL_get_error(self._ssl, count) in _LATER:
            return 0
        reasons = self._openssl.reasons()
        count = lib.SSL_write(self._ssl, borrow(data), size)
        if count > 0:
            return count
        if lib.SSL_get_error(self._ssl, count) in _LATER:
            return 0
        raise ConnectionResetError(str(sentence_for(reasons or self._openssl.reasons())))

    def rest(self) -> None:
        """Give back the batch reader, if no record is waiting."""
        if self._batch_reader is not None and not self._lib.SSL_has_pending(self._ssl):
            # Freeing it marks the SSL as shut down both ways, without a word on the wire.
            was_shut_down = self._lib.SSL_get_shutdown(self._ssl)
            self._free_batch_reader()
            self._lib.SSL_set_shutdown(self._ssl, was_shut_down)

    def close_notify(self) -> bool:
        """Say that nothing more will be sent; False: say it again when the socket is writable."""
        lib = self._lib
        lib.ERR_clear_error()
        lib.SSL_set_quiet_shutdown(self._ssl, 0)
        result = lib.SSL_shutdown(self._ssl)
        is_full = result < 0 and lib.SSL_get_error(self._ssl, result) == numbers.WANT_WRITE
        lib.SSL_set_quiet_shutdown(self._ssl, 1)
        lib.ERR_clear_error()
        return not is_full

    @property
    def session(self) -> Any:
        """A session that can be resumed, or None.

        In TLS 1.3 there is one once the server's ticket has been read, after the handshake.
        """
        session = self._lib.SSL_get1_session(self._ssl)
        if not session:
            return None
        held = self._ffi.gc(session, self._lib.SSL_SESSION_free)
        return held if self._lib.SSL_SESSION_is_resumable(held) else None

    @property
    def is_resumed(self) -> bool:
        """Whether an earlier session was resumed; after the handshake."""
        return bool(self._lib.SSL_session_reused(self._ssl))

    @property
    def info(self) -> TlsInfo:
        """What was agreed; after the handshake."""
        lib, ffi = self._lib, self._ffi
        cipher = lib.SSL_CIPHER_get_name(lib.SSL_get_current_cipher(self._ssl))
        # Interned: the record of each call keeps these two names, out of a dozen.
        words = (lib.SSL_get_version(self._ssl), cipher)
        version, cipher_name = (sys.intern(ffi.string(word).decode()) for word in words)
        return TlsInfo(version, cipher_name, self._peer_leaf())

    def close(self) -> None:
        """Free everything now. The connection must not be used again."""
        if self._ssl is not None:
            self._free_batch_reader()  # first: it still looks at the SSL
            # Else OpenSSL takes the abrupt end for an attack, and never resumes the session.
            self._lib.SSL_set_shutdown(self._ssl, numbers.SHUTDOWN_BOTH)
            self._lib.SSL_free(self._ssl)
            self._ssl = None

    def __del__(self) -> None:
        self.close()

    def _peer_leaf(self) -> bytes | None:
        lib = self._lib
        certificate = lib.SSL_get1_peer_certificate(self._ssl)
        if not certificate:
            # One that was refused is in the chain alone, and still belongs to it.
            refused = lib.OPENSSL_sk_value(lib.SSL_get_peer_cert_chain(self._ssl), 0)
            return self._der(refused) if refused else None
        try:
            return self._der(certificate)
        finally:
            lib.X509_free(certificate)

    def _der(self, certificate: Any) -> bytes:
        lib, ffi = self._lib, self._ffi
        length = lib.i2d_X509(certificate, ffi.NULL)
        out = ffi.new("unsigned char[]", length)
        lib.i2d_X509(certificate, ffi.new("unsigned char **", out))
        return bytes(ffi.buffer(out, length))

    def _make_batch_reader(self) -> None:
        lib = self._lib
        tls = lib.BIO_new(lib.BIO_f_ssl())
        lib.BIO_ctrl(tls, numbers.BIO_SET_SSL, 0, self._ffi.cast("void *", self._ssl))
        self._batch_reader = lib.BIO_push(lib.BIO_new(lib.BIO_f_buffer()), tls)

    def _free_batch_reader(self) -> None:
        if self._batch_reader is not None:
            self._lib.BIO_free_all(self._batch_reader)
            self._batch_reader = None

    def _memory_pending(self) -> int:
        pending = self._lib.BIO_ctrl(self._memory, numbers.BIO_PENDING, 0, self._ffi.NULL)
        return int(pending)

    def _use_socket(self) -> None:
        """Read from the socket from now on; the SSL frees the memory BIO it owned."""
        self._memory, self._early = None, b""
        self._read_from_socket()

    def _read_from_socket(self) -> None:
        """Read through the BIO that is written to: one is enough for both, as with SSL_set_fd.

        But where the kernel seals there is none to write to any more.
        """
        lib = self._lib
        if self.kernel_sends:
            bio = lib.BIO_new_socket(self._descriptor, 0)
        else:
            bio = lib.SSL_get_wbio(self._ssl)
            lib.BIO_up_ref(bio)
        lib.SSL_set0_rbio(self._ssl, bio)

    def _raise_blocked(self, error: int) -> None:
        if error in (numbers.WANT_READ, numbers.WANT_WRITE):
            raise WouldBlockError(for_writing=error == numbers.WANT_WRITE)

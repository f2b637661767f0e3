"""Our TLS against the standard library's, in both roles and versions, in any chunking."""

import contextlib
import os
import ssl
from collections.abc import Callable
from datetime import timedelta

import pytest
from OpenSSL import SSL

from sstplb.config.schema import ListenerTls, PoolTls, TlsVersion, Verify
from sstplb.errors import TlsError
from sstplb.lab.pki import Issued, LabPki
from sstplb.tls.certificate import load_identity, now_utc
from sstplb.tls.engine import Engine
from sstplb.tls.policy import ClientPolicy, Context, ServerPolicy

NAME = "vpn.example.test"
VERSIONS = [TlsVersion.TLS12, TlsVersion.TLS13]


class Library:
    """The other side: the standard library's TLS over memory BIOs."""

    def __init__(self, context: ssl.SSLContext, server_side: bool, name: str | None = None) -> None:
        self.into, self.out = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self.into, self.out, server_side, name)

    def shake(self) -> bool:
        try:
            self.tls.do_handshake()
        except ssl.SSLWantReadError:
            return False
        return True

    def read_all(self) -> bytes:
        got = bytearray()
        with contextlib.suppress(ssl.SSLWantReadError, ssl.SSLZeroReturnError):
            while piece := self.tls.read(65536):
                got += piece
        return bytes(got)


def library_client(pki: LabPki, version: TlsVersion | None = None, name: str = NAME) -> Library:
    context = ssl.create_default_context(cafile=str(pki.root_path))
    pin_version(context, version)
    return Library(context, server_side=False, name=name)


def library_server(issued: Issued, version: TlsVersion | None = None) -> Library:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(issued.chain, issued.key)
    pin_version(context, version)
    return Library(context, server_side=True)


def pin_version(context: ssl.SSLContext, version: TlsVersion | None) -> None:
    if version is not None:
        number = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}[version]
        context.minimum_version = context.maximum_version = number


def portable(context: Context) -> SSL.Context:
    assert isinstance(context, SSL.Context)
    return context


def our_server(issued: Issued, settings: ListenerTls | None = None) -> Engine:
    policy = ServerPolicy(settings or ListenerTls(), [load_identity(issued.files)])
    return Engine.server(portable(policy.choose(None).context))


def our_client(pki: LabPki, **settings: object) -> tuple[Engine, ClientPolicy]:
    policy = ClientPolicy(PoolTls(**{"verify": Verify.CA, "ca_file": pki.root_path, **settings}))
    return Engine.client(portable(policy.context), NAME), policy


def carry(engine: Engine, library: Library, size: int = 1 << 20) -> None:
    """Move ciphertext both ways, ``size`` bytes at a time."""
    out = engine.ciphertext_to_send()
    for at in range(0, len(out), size):
        library.into.write(out[at : at + size])
    while back := library.out.read(size):
        engine.receive_ciphertext(back)


def shake(engine: Engine, library: Library, size: int = 1 << 20) -> None:
    for _ in range(20):
        done = [engine.handshake()]
        carry(engine, library, size)
        done.append(library.shake())
        carry(engine, library, size)
        if all(done):
            return
    raise AssertionError("no handshake within 20 turns")


def converse(engine: Engine, library: Library, size: int = 1 << 20) -> None:
    """A megabyte each way, whole and in order."""
    up, down = os.urandom(1 << 20), os.urandom(1 << 20)
    engine.write(down)
    library.tls.write(up)
    out, back = engine.ciphertext_to_send(), library.out.read()
    got_down, got_up = bytearray(), bytearray()
    for at in range(0, max(len(out), len(back)), size):
        library.into.write(out[at : at + size])
        got_down += library.read_all()
        engine.receive_ciphertext(back[at : at + size])
        while piece := engine.read(262144):
            got_up += piece
    assert bytes(got_down) == down
    assert bytes(got_up) == up


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("size", [1 << 20, 1000])
def test_our_server_and_the_librarys_client(
    pki: LabPki, served: Issued, version: TlsVersion, size: int
) -> None:
    engine, library = our_server(served), library_client(pki, version)
    shake(engine, library, size)
    assert engine.info.version == f"TLSv{version}"
    converse(engine, library, size)


@pytest.mark.parametrize("version", VERSIONS)
def test_our_client_and_the_librarys_server(
    pki: LabPki, served: Issued, version: TlsVersion
) -> None:
    (engine, policy), library = our_client(pki), library_server(served, version)
    shake(engine, library, 1000)
    policy.check(engine.info, NAME)
    assert engine.info.peer_leaf_der == served.certificate.leaf_der
    converse(engine, library)


@pytest.mark.parametrize("version", VERSIONS)
def test_our_client_offers_no_newer_version_than_it_may(
    pki: LabPki, served: Issued, version: TlsVersion
) -> None:
    (engine, _), library = our_client(pki, max_version=version), library_server(served)
    shake(engine, library)
    assert engine.info.version == f"TLSv{version}"


def test_a_handshake_byte_by_byte(pki: LabPki, served: Issued) -> None:
    engine, library = our_server(served), library_client(pki)
    shake(engine, library, 1)


@pytest.mark.parametrize("version", VERSIONS)
def test_half_close_still_receives(pki: LabPki, served: Issued, version: TlsVersion) -> None:
    engine, library = our_server(served), library_client(pki, version)
    shake(engine, library)
    engine.write(b"last words")
    engine.close_notify()
    library.tls.write(b"still talking")
    carry(engine, library)
    assert library.read_all() == b"last words"
    assert engine.read(100) == b"still talking"


@pytest.mark.parametrize("version", VERSIONS)
def test_a_ragged_end_is_an_end(pki: LabPki, served: Issued, version: TlsVersion) -> None:
    engine, library = our_server(served), library_client(pki, version)
    shake(engine, library)
    library.tls.write(b"bye")
    carry(engine, library)
    engine.receive_eof()
    assert engine.read(100) == b"bye"
    assert engine.read(100) == b""
    assert engine.read(100) == b""


def test_close_notify_is_an_end(pki: LabPki, served: Issued) -> None:
    engine, library = our_server(served), library_client(pki)
    shake(engine, library)
    with contextlib.suppress(ssl.SSLWantReadError):
        library.tls.unwrap()
    carry(engine, library)
    assert engine.read(100) == b""


def test_a_damaged_record_is_an_error_after_what_was_whole(pki: LabPki, served: Issued) -> None:
    engine, library = our_server(served), library_client(pki)
    shake(engine, library)
    library.tls.write(b"whole")
    carry(engine, library)
    library.tls.write(b"damaged")
    damaged = bytearray(library.out.read())
    damaged[-1] ^= 1
    engine.receive_ciphertext(bytes(damaged))
    assert engine.read(100) == b"whole"
    with pytest.raises(TlsError, match="damaged") as caught:
        engine.read(100)
    assert caught.value.reason == "damaged_record"


def test_an_end_in_the_handshake_is_an_error(served: Issued) -> None:
    engine = our_server(served)
    engine.receive_eof()
    with pytest.raises(TlsError) as caught:
        engine.handshake()
    assert caught.value.reason == "tls_closed"


def failure(engine: Engine, library: Library) -> tuple[TlsError | None, ssl.SSLError | None]:
    """Shake hands until one side fails; return both sides' errors."""
    ours: TlsError | None = None
    theirs: ssl.SSLError | None = None
    for _ in range(10):
        for side in ("engine", "library"):
            try:
                engine.handshake() if side == "engine" else library.shake()
                if side == "engine":
                    engine.read(1)
            except TlsError as error:
                ours = ours or error
            except ssl.SSLError as error:
                theirs = theirs or error
            carry(engine, library)
    return ours, theirs


def weak_library_client(pki: LabPki) -> Library:
    context = ssl.create_default_context(cafile=str(pki.root_path))
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers("AES128-SHA:@SECLEVEL=0")
    return Library(context, server_side=False, name=NAME)


def distrusting_library_client(_pki: LabPki) -> Library:
    return Library(ssl.create_default_context(), server_side=False, name=NAME)


@pytest.mark.parametrize(
    ("client", "reason"),
    [(weak_library_client, "no_shared_cipher"), (distrusting_library_client, "untrusted_by_peer")],
)
def test_what_a_client_does_wrong_is_said(
    pki: LabPki, served: Issued, client: Callable[[LabPki], Library], reason: str
) -> None:
    ours, _ = failure(our_server(served), client(pki))
    assert ours is not None
    assert ours.reason == reason


def test_a_client_of_old_versions_is_told(pki: LabPki, served: Issued) -> None:
    settings = ListenerTls(min_version=TlsVersion.TLS13)
    ours, _ = failure(our_server(served, settings), library_client(pki, TlsVersion.TLS12))
    assert ours is not None
    assert ours.reason == "version_unsupported"


def test_a_visitor_without_tls_is_told(served: Issued) -> None:
    engine = our_server(served)
    engine.receive_ciphertext(b"GET / HTTP/1.1\r\n\r\n")
    with pytest.raises(TlsError) as caught:
        engine.handshake()
    assert caught.value.reason == "not_tls"


def test_an_expired_certificate_is_refused_with_the_reason(pki: LabPki) -> None:
    expired = pki.issue("expired", (NAME,), not_after=now_utc() - timedelta(days=1))
    (engine, _), library = our_client(pki), library_server(expired)
    ours, _ = failure(engine, library)
    assert ours is not None
    assert ours.reason == "certificate_expired"


def test_a_self_signed_certificate_is_refused_with_the_reason(pki: LabPki) -> None:
    lonely = pki.issue("lonely", (NAME,), self_signed=True)
    (engine, _), library = our_client(pki), library_server(lonely)
    ours, _ = failure(engine, library)
    assert ours is not None
    assert ours.reason in ("certificate_self_signed", "certificate_untrusted")


def test_a_server_without_tls_is_said(pki: LabPki) -> None:
    engine, _ = our_client(pki)
    engine.handshake()
    engine.receive_ciphertext(b"HTTP/1.1 400 Bad Request\r\n\r\n")
    with pytest.raises(TlsError, match="plain HTTP") as caught:
        engine.handshake()
    assert caught.value.reason == "not_tls"


def test_a_name_that_does_not_match_is_refused(pki: LabPki, served: Issued) -> None:
    (engine, policy), library = our_client(pki), library_server(served)
    shake(engine, library)
    policy.check(engine.info, "127.0.0.1")
    with pytest.raises(TlsError, match=r"vpn\.example\.test") as caught:
        policy.check(engine.info, "rras1.example.test")
    assert caught.value.reason == "certificate_name_mismatch"


def test_pins_and_no_verification(pki: LabPki, served: Issued, other: Issued) -> None:
    pin = served.certificate.sha256.hex()
    for issued, verify, refused in (
        (served, Verify.PIN, False),
        (other, Verify.PIN, True),
        (other, Verify.OFF, False),
    ):
        engine, policy = our_client(pki, verify=verify, pins=(pin,), ca_file=None)
        shake(engine, library_server(issued))
        if refused:
            with pytest.raises(TlsError) as caught:
                policy.check(engine.info, NAME)
            assert caught.value.reason == "certificate_not_pinned"
        else:
            policy.check(engine.info, NAME)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("resumption", [True, False])
def test_sessions_resume_when_allowed(
    pki: LabPki, served: Issued, version: TlsVersion, resumption: bool
) -> None:
    policy = ServerPolicy(ListenerTls(session_resumption=resumption), [load_identity(served.files)])
    context = ssl.create_default_context(cafile=str(pki.root_path))
    pin_version(context, version)
    session: ssl.SSLSession | None = None
    for turn in range(2):
        engine = Engine.server(portable(policy.choose(None).context))
        library = Library(context, server_side=False, name=NAME)
        if session is not None:
            library.tls.session = session
        shake(engine, library)
        engine.write(b"x")
        carry(engine, library)
        assert library.read_all() == b"x"
        session = library.tls.session
        assert library.tls.session_reused == (resumption and turn == 1)


def test_the_certificate_follows_the_server_name(served: Issued, rsa: Issued) -> None:
    policy = ServerPolicy(ListenerTls(), [load_identity(i.files) for i in (served, rsa)])
    subjects = {
        name: policy.choose(name).certificate.subject
        for name in (None, "nobody.test", "rsa.example.test", "RSA.example.test:443")
    }
    assert subjects == {
        None: "CN=vpn.example.test",
        "nobody.test": "CN=vpn.example.test",
        "rsa.example.test": "CN=rsa.example.test",
        "RSA.example.test:443": "CN=rsa.example.test",
    }

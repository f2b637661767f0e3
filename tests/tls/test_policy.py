"""Which certificate for whom, whom to believe, and what of a session may be resumed or redone."""

import contextlib
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID
from OpenSSL import SSL

from sstplb.config.schema import ListenerTls, PoolTls, Verify
from sstplb.errors import CertificateError, TlsError
from sstplb.lab.pki import Issued, KeyKind, LabPki
from sstplb.tls.certificate import load_identity, now_utc
from sstplb.tls.engine import Engine
from sstplb.tls.info import TlsInfo
from sstplb.tls.policy import ClientPolicy, ServerPolicy
from tests.tls.test_engine import NAME, carry, library_client, our_server, shake


def test_the_name_itself_goes_before_a_wildcard_in_any_order(pki: LabPki, served: Issued) -> None:
    wild = pki.issue("policy-wild", ("*.example.test",))
    for order in ((wild, served), (served, wild)):
        policy = ServerPolicy(ListenerTls(), [load_identity(i.files) for i in order])
        assert policy.choose(NAME).certificate.names[0] == NAME
        assert policy.choose(f"{NAME.upper()}:443").certificate.names[0] == NAME
        assert policy.choose("new.example.test").certificate.names == ("*.example.test",)
        assert policy.choose("a.b.test").certificate == order[0].certificate


def test_all_that_fit_a_name_are_found_and_a_renewal_for_those_who_ask_for_none(
    pki: LabPki, served: Issued, other: Issued, rsa: Issued
) -> None:
    wild = pki.issue("policy-wilder", ("*.example.test",))
    more = pki.issue("policy-more", (*served.certificate.names, "more.example.test"))
    order = (served, wild, rsa, other, more)
    policy = ServerPolicy(ListenerTls(), [load_identity(i.files) for i in order])

    def fitting(name: str | None) -> list[Issued]:
        found = [shown.certificate.sha256 for shown in policy.fitting(name)]
        return sorted(
            (i for i in order if i.certificate.sha256 in found),
            key=lambda i: found.index(i.certificate.sha256),
        )

    assert fitting(NAME) == [served, other, more, wild]
    assert fitting("new.example.test") == [wild]
    assert fitting("rsa.example.test") == [rsa, wild]
    for unknown in (None, "", "a.b.test"):
        assert fitting(unknown) == [served, more], "what holds all the names of the first"


@pytest.mark.parametrize("settings", [{"ciphers": "NOPE"}, {"ciphersuites": "NOPE"}])
def test_a_setting_openssl_refuses_is_said_at_once(
    served: Issued, settings: dict[str, str]
) -> None:
    with pytest.raises(CertificateError, match="refuses"):
        ServerPolicy(ListenerTls.model_validate(settings), [load_identity(served.files)])


def test_a_ca_file_without_cas_is_named(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("nothing")
    with pytest.raises(CertificateError, match=r"ca\.pem"):
        ClientPolicy(PoolTls(verify=Verify.CA, ca_file=tmp_path / "ca.pem"))


@pytest.mark.parametrize(
    "names",
    [
        (),
        (x509.RFC822Name("someone@example.test"),),
        (x509.DNSName("*"),),
        (x509.DNSName("*.*.test"), x509.DNSName(NAME)),
    ],
    ids=["none", "mail", "star", "stars"],
)
def test_a_backend_whose_names_cannot_be_compared_is_refused_in_words(
    pki: LabPki, names: tuple[x509.GeneralName, ...]
) -> None:
    key, now = KeyKind.P256.generate(), now_utc()
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, NAME)])
    builder = x509.CertificateBuilder().subject_name(subject).issuer_name(subject)
    builder = builder.public_key(key.public_key()).serial_number(1)
    builder = builder.not_valid_before(now).not_valid_after(now + timedelta(days=1))
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    der = builder.sign(key, hashes.SHA256()).public_bytes(Encoding.DER)
    policy = ClientPolicy(PoolTls(verify=Verify.CA, ca_file=pki.root_path))
    with pytest.raises(TlsError, match="cannot be compared") as caught:
        policy.check(TlsInfo("TLSv1.3", "TLS_AES_128_GCM_SHA256", der), NAME)
    assert caught.value.reason == "certificate_name_mismatch"


def test_sessions_live_as_long_as_the_configuration_says(pki: LabPki, served: Issued) -> None:
    engine = our_server(served, ListenerTls.model_validate({"session_lifetime": "1234s"}))
    library = library_client(pki)
    shake(engine, library)
    engine.write(b"x")
    carry(engine, library)
    library.read_all()
    session = library.tls.session
    assert session is not None
    assert session.ticket_lifetime_hint == 1234


def test_a_client_that_asks_for_renegotiation_is_refused(served: Issued) -> None:
    context = SSL.Context(SSL.TLS_CLIENT_METHOD)
    context.set_max_proto_version(SSL.TLS1_2_VERSION)
    client, engine = SSL.Connection(context, None), our_server(served)
    client.set_connect_state()
    for _ in range(4):
        with contextlib.suppress(SSL.WantReadError):
            client.do_handshake()
        swap(client, engine)
        engine.handshake()
        swap(client, engine)
    client.renegotiate()
    with contextlib.suppress(SSL.WantReadError):
        client.do_handshake()
    swap(client, engine)
    assert engine.read(100) is None
    swap(client, engine)
    with pytest.raises(SSL.Error, match="no renegotiation"):
        client.do_handshake()


def swap(client: SSL.Connection, engine: Engine) -> None:
    """Carry what each side has for the other."""
    with contextlib.suppress(SSL.WantReadError):
        engine.receive_ciphertext(client.bio_read(1 << 20))
    if back := engine.ciphertext_to_send():
        client.bio_write(back)

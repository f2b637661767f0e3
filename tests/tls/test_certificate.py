"""Certificates: read, matched, judged; and every file that is not one says so."""

import hashlib
import stat
from datetime import timedelta
from functools import partial
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.x509.oid import NameOID

from sstplb.config.schema import CertificateFiles, Secret
from sstplb.errors import CertificateError
from sstplb.lab.pki import Issued, KeyKind, LabPki
from sstplb.tls.certificate import (
    Certificate,
    PrivateKey,
    certificate_from_der,
    key_warnings,
    load_certificate,
    load_identity,
    now_utc,
    read_secret,
    warnings,
)


def test_the_hashes_are_of_the_leafs_der(served: Issued) -> None:
    certificate = served.certificate
    der = certificate.leaf.public_bytes(serialization.Encoding.DER)
    assert certificate.sha256 == hashlib.sha256(der).digest()
    assert certificate.sha1 == hashlib.sha1(der).digest()
    assert certificate.names == ("vpn.example.test", "127.0.0.1", "::1")
    assert certificate.key_type == "secp256r1"


def test_a_good_certificate_gives_no_warning(served: Issued) -> None:
    assert warnings(served.certificate, now_utc()) == []


def test_names_are_covered_as_rfc_9525_has_it(pki: LabPki) -> None:
    certificate = pki.issue("wild", ("*.example.test",)).certificate
    assert certificate.covers("VPN.example.test")
    assert not certificate.covers("a.vpn.example.test")
    assert not certificate.covers("example.test")


def test_expiry_is_warned_of(pki: LabPki) -> None:
    certificate = pki.issue("soon", ("soon.test",), days=10).certificate
    assert "expires in 9 days" in warnings(certificate, now_utc())[0]
    later = now_utc() + timedelta(days=11)
    assert "expired on" in warnings(certificate, later)[0]
    assert "not valid before" in warnings(certificate, now_utc() - timedelta(days=30))[0]


def test_a_chain_in_the_wrong_order_is_warned_of(
    served: Issued, other: Issued, tmp_path: Path
) -> None:
    path = tmp_path / "chain.pem"
    path.write_bytes(served.chain.read_bytes() + other.chain.read_bytes())
    assert "wrong order" in warnings(load_certificate(path), now_utc())[0]


def signed(subject: str, issuer: str, key: PrivateKey, days: int = 90) -> x509.Certificate:
    now, name = now_utc(), partial(x509.NameAttribute, NameOID.COMMON_NAME)
    return (
        x509.CertificateBuilder()
        .subject_name(x509.Name([name(subject)]))
        .issuer_name(x509.Name([name(issuer)]))
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=100))
        .not_valid_after(now + timedelta(days=days))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(subject)]), critical=False)
        .sign(key, hashes.SHA256())
    )


def test_a_ca_that_expired_or_did_not_sign_is_warned_of() -> None:
    ours, other = KeyKind.P256.generate(), KeyKind.P256.generate()
    leaf = signed("leaf", "CA", ours)
    assert warnings(Certificate(leaf, (signed("CA", "CA", ours),)), now_utc()) == []
    expired = warnings(Certificate(leaf, (signed("CA", "CA", ours, days=-1),)), now_utc())
    assert "comes with a CA that expired" in expired[0]
    renewed = warnings(Certificate(leaf, (signed("CA", "CA", other),)), now_utc())
    assert "was the CA renewed" in renewed[0]


def test_a_sha1_signature_is_warned_of(rsa: Issued) -> None:
    # No library signs with SHA-1 any more, so the name of the algorithm is changed afterwards.
    leaf = signed("leaf", "CA", load_identity(rsa.files).key)
    sha256, sha1 = (bytes.fromhex(f"06092a864886f70d0101{end}") for end in ("0b", "05"))
    der = leaf.public_bytes(serialization.Encoding.DER).replace(sha256, sha1)
    assert "SHA-1" in warnings(certificate_from_der(der), now_utc())[0]


def test_the_root_is_no_server_certificate(pki: LabPki) -> None:
    found = " ".join(warnings(load_certificate(pki.root_path), now_utc()))
    assert "subject alternative name" in found


def test_a_key_that_does_not_match_is_named(served: Issued, other: Issued) -> None:
    with pytest.raises(CertificateError, match="does not belong"):
        load_identity(CertificateFiles(chain=served.chain, key=other.key))


def test_chain_and_key_in_one_file(served: Issued, tmp_path: Path) -> None:
    path = tmp_path / "both.pem"
    path.write_bytes(served.chain.read_bytes() + served.key.read_bytes())
    identity = load_identity(CertificateFiles(chain=path))
    assert identity.certificate.sha256 == served.certificate.sha256


def test_a_passphrase_comes_from_a_file_or_the_environment(
    served: Issued, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = load_identity(served.files).key
    locked = tmp_path / "locked.key"
    locked.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"opensesame"),
        )
    )
    (tmp_path / "pass").write_text("opensesame\n")
    monkeypatch.setenv("SSTPLB_TEST_PASS", "opensesame")
    for secret in (Secret(file=tmp_path / "pass"), Secret(env="SSTPLB_TEST_PASS")):
        files = CertificateFiles(chain=served.chain, key=locked, key_passphrase=secret)
        assert load_identity(files).certificate.names[0] == "vpn.example.test"
    with pytest.raises(CertificateError, match="set key_passphrase"):
        load_identity(CertificateFiles(chain=served.chain, key=locked))
    (tmp_path / "pass").write_text("wrong")
    with pytest.raises(CertificateError, match="wrong passphrase"):
        load_identity(
            CertificateFiles(
                chain=served.chain, key=locked, key_passphrase=Secret(file=tmp_path / "pass")
            )
        )
    with pytest.raises(CertificateError, match="SSTPLB_NOT_SET is not set"):
        read_secret(Secret(env="SSTPLB_NOT_SET"))


def test_a_secret_that_cannot_be_one_is_refused_without_quoting_it(tmp_path: Path) -> None:
    (tmp_path / "binary").write_bytes(b"hush\xff")
    with pytest.raises(CertificateError, match="expected UTF-8") as caught:
        read_secret(Secret(file=tmp_path / "binary"))
    assert "hush" not in str(caught.value)
    assert caught.value.__context__ is None
    (tmp_path / "long").write_text("a" * 5000)
    with pytest.raises(CertificateError, match="long: expected at most 4096 bytes"):
        read_secret(Secret(file=tmp_path / "long"))


def test_a_key_others_can_read_is_warned_of(served: Issued, tmp_path: Path) -> None:
    path = tmp_path / "open.key"
    path.write_bytes(served.key.read_bytes())
    path.chmod(0o644)
    files = CertificateFiles(chain=served.chain, key=path)
    assert "0644: chmod 600" in key_warnings(files)[0]
    assert key_warnings(served.files) == []


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b" \n", "is empty"),
        (b"hello", "no certificate is in it"),
        (b"-----BEGIN CERTIFICATE-----\nAAAA\n", "a certificate in it is damaged"),
    ],
)
def test_a_file_that_is_no_certificate_says_what_it_is(
    content: bytes, words: str, tmp_path: Path
) -> None:
    path = tmp_path / "odd.pem"
    path.write_bytes(content)
    assert_named(path, words)


@pytest.mark.parametrize("kept", [1.0, 0.4], ids=["whole", "cut off"])
@pytest.mark.parametrize(
    "form", [serialization.PrivateFormat.PKCS8, serialization.PrivateFormat.TraditionalOpenSSL]
)
def test_a_key_in_the_place_of_a_certificate_is_named(
    form: serialization.PrivateFormat, kept: float, tmp_path: Path
) -> None:
    pem = KeyKind.P256.generate().private_bytes(
        serialization.Encoding.PEM, form, serialization.NoEncryption()
    )
    path = tmp_path / "odd.pem"
    path.write_bytes(pem[: round(len(pem) * kept)])
    assert_named(path, "is a private key")


def assert_named(path: Path, words: str) -> None:
    """A file that is no certificate is refused by its name, saying what it is."""
    with pytest.raises(CertificateError) as caught:
        load_certificate(path)
    assert f"{path}: " in str(caught.value)
    assert f"{words}; expected certificates in PEM" in str(caught.value)


def test_a_missing_file_says_so(tmp_path: Path) -> None:
    with pytest.raises(CertificateError, match=r"gone\.pem: no such file"):
        load_certificate(tmp_path / "gone.pem")


def test_lab_keys_are_private_and_renewals_keep_or_change_them(pki: LabPki) -> None:
    first = pki.issue("renewed", ("r.test",), KeyKind.P256)
    assert stat.S_IMODE(first.key.stat().st_mode) == 0o600
    key, sha256 = first.key.read_bytes(), first.certificate.sha256
    again = pki.issue("renewed", ("r.test",), same_key=True)
    assert again.key.read_bytes() == key
    assert again.certificate.sha256 != sha256
    assert pki.issue("renewed", ("r.test",)).key.read_bytes() != key
    assert "renewed.pem" in {issued.chain.name for issued in pki.issued()}
    assert LabPki(pki.directory).issue("same-root", ("s.test",)).certificate.leaf.issuer == (
        load_certificate(pki.root_path).leaf.subject
    )

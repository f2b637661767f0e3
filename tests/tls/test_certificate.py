"""Certificates: read, matched, judged; and every file that is not one says so."""

import hashlib
import stat
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization

from sstplb.config.schema import CertificateFiles, Secret
from sstplb.errors import CertificateError
from sstplb.lab.pki import Issued, KeyKind, LabPki
from sstplb.tls.certificate import (
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


def test_a_key_others_can_read_is_warned_of(served: Issued, tmp_path: Path) -> None:
    path = tmp_path / "open.key"
    path.write_bytes(served.key.read_bytes())
    path.chmod(0o644)
    files = CertificateFiles(chain=served.chain, key=path)
    assert "0644: chmod 600" in key_warnings(files)[0]
    assert key_warnings(served.files) == []


@pytest.mark.parametrize("content", [b"", b"hello", b"-----BEGIN CERTIFICATE-----\nAAAA\n"])
def test_a_file_that_is_no_certificate_says_so(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "odd.pem"
    path.write_bytes(content)
    with pytest.raises(CertificateError, match=r"odd\.pem"):
        load_certificate(path)


def test_a_missing_file_says_so(tmp_path: Path) -> None:
    with pytest.raises(CertificateError, match=r"gone\.pem: No such file"):
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

"""The lab CA: what it issues is what strict clients take, and its own files are safe."""

import ssl
import stat
from pathlib import Path

import pytest

from sstplb.errors import CertificateError
from sstplb.lab.pki import Issued, KeyKind, LabPki
from sstplb.tls.certificate import load_certificate, now_utc, warnings
from tests.tls.test_engine import Library, our_server, shake


@pytest.mark.parametrize("which", ["served", "rsa"])
def test_strict_clients_take_the_labs_certificates(
    pki: LabPki, which: str, request: pytest.FixtureRequest
) -> None:
    issued: Issued = request.getfixturevalue(which)
    context = ssl.create_default_context(cafile=str(pki.root_path))
    context.verify_flags |= ssl.VERIFY_X509_STRICT  # Python 3.13's default
    library = Library(context, server_side=False, name=issued.certificate.names[0])
    shake(our_server(issued), library)
    assert library.tls.getpeercert(binary_form=True) == issued.certificate.leaf_der


@pytest.mark.parametrize("kind", KeyKind)
def test_keys_are_of_the_kind_asked_for_and_for_their_owner_only(
    pki: LabPki, kind: KeyKind
) -> None:
    issued = pki.issue(f"kind-{kind}", ("kind.test",), kind)
    assert issued.certificate.key_type == {"rsa-2048": "RSA-2048", "p-256": "secp256r1"}[kind]
    assert stat.S_IMODE(issued.key.stat().st_mode) == 0o600
    assert stat.S_IMODE((pki.directory / "root.key").stat().st_mode) == 0o600
    assert warnings(issued.certificate, now_utc()) == []


@pytest.mark.parametrize("name", ["root", "../outside", "/tmp/outside", "a/b", ""])
def test_a_name_that_would_leave_the_directory_or_replace_the_root_is_refused(
    tmp_path: Path, name: str
) -> None:
    pki = LabPki(tmp_path / "pki")
    root = load_certificate(pki.root_path).sha256
    with pytest.raises(CertificateError, match="file name"):
        pki.issue(name, ("a.test",))
    assert load_certificate(pki.root_path).sha256 == root
    assert {path.name for path in tmp_path.rglob("*.*")} == {"root.pem", "root.key"}


def test_a_key_that_was_open_to_others_is_closed_by_a_renewal(pki: LabPki) -> None:
    issued = pki.issue("opened", ("opened.test",))
    issued.key.chmod(0o644)
    again = pki.issue("opened", ("opened.test",), same_key=True)
    assert stat.S_IMODE(again.key.stat().st_mode) == 0o600
    assert not list(pki.directory.glob(".*")), "nothing half-written is left"

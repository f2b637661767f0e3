"""What every test may use."""

import pytest

from sstplb.lab.pki import Issued, KeyKind, LabPki

SERVER_NAME = "vpn.example.test"


@pytest.fixture(scope="session")
def pki(tmp_path_factory: pytest.TempPathFactory) -> LabPki:
    """A lab CA for the whole run: making keys is the slow part."""
    return LabPki(tmp_path_factory.mktemp("pki"))


@pytest.fixture(scope="session")
def served(pki: LabPki) -> Issued:
    """The certificate the balancer and its backends share."""
    return pki.issue("vpn", (SERVER_NAME, "127.0.0.1", "::1"))


@pytest.fixture(scope="session")
def other(pki: LabPki) -> Issued:
    """Another certificate for the same name: what the same-certificate rule is about."""
    return pki.issue("other", (SERVER_NAME, "127.0.0.1"))


@pytest.fixture(scope="session")
def rsa(pki: LabPki) -> Issued:
    """An RSA certificate, as most RRAS servers have."""
    return pki.issue("rsa", ("rsa.example.test",), KeyKind.RSA)

"""Lab certificates: a root, and server certificates as a Windows CA would issue them.

For classes, demonstrations and tests; a production certificate comes from a real CA. Keys are
written 0600, files are replaced atomically, and nothing here belongs into a repository.
"""

import os
import re
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from functools import cached_property
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from sstplb.config.schema import CertificateFiles
from sstplb.errors import CertificateError
from sstplb.tls.certificate import (
    Certificate,
    Identity,
    PrivateKey,
    load_certificate,
    load_identity,
    now_utc,
    signed,
)

ROOT_DAYS = 3650
DNS_NAME_MAX = 253
SERVER_DAYS = 397
"""The longest a public CA issues today; what renewals are about."""
_BACKDATED = timedelta(minutes=5)
"""Lab clocks differ a little."""
_ROOT = "root"
_LABEL = r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_DNS_NAME = re.compile(rf"(?:\*\.{_LABEL}\.)?{_LABEL}(?:\.{_LABEL})*")
"""A wildcard is one whole left label (RFC 9525 6.3), above two or more."""
_CA_USAGE = x509.KeyUsage(
    key_cert_sign=True, crl_sign=True, digital_signature=False, content_commitment=False,
    key_encipherment=False, data_encipherment=False, key_agreement=False, encipher_only=False,
    decipher_only=False,
)  # fmt: skip
"""Strict clients (Python 3.13's default) refuse a CA that does not say so (RFC 5280 4.2.1.3)."""


class KeyKind(StrEnum):
    """Kinds of keys a lab certificate may have."""

    RSA = "rsa-2048"
    P256 = "p-256"

    def generate(self) -> PrivateKey:
        """Make a new key."""
        if self is KeyKind.RSA:
            return rsa.generate_private_key(65537, 2048)
        return ec.generate_private_key(ec.SECP256R1())


@dataclass(frozen=True, slots=True)
class Issued:
    """One certificate on disk."""

    chain: Path
    key: Path

    @property
    def files(self) -> CertificateFiles:
        """As a listener's configuration names it."""
        return CertificateFiles(chain=self.chain, key=self.key)

    @property
    def certificate(self) -> Certificate:
        """Read back from disk."""
        return load_certificate(self.chain)


class LabPki:
    """A directory with a root CA and what it has issued. Nothing is written before it is needed."""

    def __init__(self, directory: Path) -> None:
        """Name the directory; the root is made when it is first asked for."""
        self.directory = directory
        self._root_files = Issued(directory / f"{_ROOT}.pem", directory / f"{_ROOT}.key")

    @property
    def root_path(self) -> Path:
        """The root's certificate, for clients to trust. Raises CertificateError."""
        assert self._root is not None
        return self._root_files.chain

    @cached_property
    def _root(self) -> Identity:
        """The root, made if there is none. Raises CertificateError."""
        files = self._root_files
        if not files.chain.exists():
            if files.key.exists():
                raise CertificateError(
                    f"{files.chain} is missing, and {files.key} is there: bring the certificate "
                    "back, or move the key away for a new root"
                )
            self._make_root()
        return load_identity(files.files)

    def files_of(self, name: str) -> Issued:
        """Return where the certificate ``name`` is, or would be.

        Raises CertificateError for a file name that would not stay beside the root.
        """
        if not name or name == _ROOT or name != Path(name).name:
            raise CertificateError(
                f"expected a file name without directory, other than {_ROOT!r}, got {name!r}"
            )
        return Issued(self.directory / f"{name}.pem", self.directory / f"{name}.key")

    def has_issued(self, certificate: Certificate) -> bool:
        """Whether this root, if there is one, has signed it."""
        return self._root_files.chain.exists() and signed(
            certificate.leaf, by=self._root.certificate.leaf
        )

    def issue(
        self,
        name: str,
        names: tuple[str, ...],
        kind: KeyKind = KeyKind.P256,
        *,
        days: int = SERVER_DAYS,
        not_after: datetime | None = None,
        same_key: bool = False,
        self_signed: bool = False,
    ) -> Issued:
        """Issue a server certificate ``name.pem`` and ``name.key`` for DNS names or addresses.

        What is there under that name is replaced. ``not_after`` in the past makes an expired one;
        ``same_key`` renews with the key that is there. The chain file holds the leaf only: clients
        of the lab trust the root itself. Raises CertificateError, before anything is written.
        """
        issued = self.files_of(name)
        sans = [_san(one) for one in names]
        root = self._root
        key = self._key_of(issued) if same_key else kind.generate()
        end = not_after or now_utc() + timedelta(days=days)
        start = min(now_utc(), end - timedelta(days=1)) - _BACKDATED
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0])])
        usages = [ExtendedKeyUsageOID.SERVER_AUTH]
        authority = root.key.public_key()
        signer = key if self_signed else root.key
        certificate = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(subject if self_signed else root.certificate.leaf.subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(start)
            .not_valid_after(end)
            .add_extension(x509.SubjectAlternativeName(sans), critical=False)
            .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(
                x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False
            )
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(
                    key.public_key() if self_signed else authority
                ),
                critical=False,
            )
            .sign(signer, hashes.SHA256())
        )
        _write(issued.key, _key_pem(key), secret=True)
        _write(issued.chain, certificate.public_bytes(serialization.Encoding.PEM))
        return issued

    def issued(self) -> list[Issued]:
        """Return what has been issued, by name."""
        paths = sorted(p for p in self.directory.glob("*.pem") if p != self._root_files.chain)
        return [Issued(p, p.with_suffix(".key")) for p in paths if p.with_suffix(".key").exists()]

    def _key_of(self, issued: Issued) -> PrivateKey:
        return load_identity(issued.files).key

    def _make_root(self) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        key = KeyKind.P256.generate()
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "sstplb lab root")])
        now = now_utc()
        certificate = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=365))
            .not_valid_after(now + timedelta(days=ROOT_DAYS))
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_CA_USAGE, critical=True)
            .add_extension(
                x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False
            )
            .sign(key, hashes.SHA256())
        )
        _write(self._root_files.key, _key_pem(key), secret=True)
        _write(self._root_files.chain, certificate.public_bytes(serialization.Encoding.PEM))


def parse_name(value: object) -> str:
    """Return what a certificate can be for: a DNS name, a wildcard or an IP address.

    Raises ValueError.
    """
    name = str(value)
    if len(name) <= DNS_NAME_MAX and _DNS_NAME.fullmatch(name):
        return name
    try:
        return str(ip_address(name))
    except ValueError:
        raise ValueError(
            "expected a DNS name such as vpn.example.test, a wildcard such as *.example.test, or "
            f"an IP address, got {name!r}"
        ) from None


def _san(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _key_pem(key: PrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def _write(path: Path, data: bytes, *, secret: bool = False) -> None:
    """Replace a file atomically; a secret is never readable by others, not for a moment."""
    beside = path.with_name(f".{path.name}.new")
    beside.unlink(missing_ok=True)
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600 if secret else 0o644)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
    beside.replace(path)

"""Certificates and keys: read, matched, hashed, judged.

The crypto binding of SSTP hashes the DER of the *leaf*, so that is what a ``Certificate`` puts
first. Loading says what is wrong with a file in words; ``warnings`` says what will hurt later
(expiry, missing EKU or SAN, a chain in the wrong order), for `sstplb check`.
"""

import hashlib
import os
import stat
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property, lru_cache
from itertools import pairwise
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, SignatureAlgorithmOID

from sstplb.config.reading import FILE_BYTES_MAX, in_words, read_file
from sstplb.config.schema import CertificateFiles, Secret
from sstplb.errors import CertificateError

EXPIRY_WARNING = timedelta(days=30)
RSA_BITS_MIN = 2048
SECRET_BYTES_MAX = 4096
CERTIFICATES_KEPT = 256
"""Certificates whose hashes are computed, written and kept once; calls see the same few."""
_WEAK_SIGNATURES = frozenset(
    {
        SignatureAlgorithmOID.RSA_WITH_MD5,
        SignatureAlgorithmOID.RSA_WITH_SHA1,
        SignatureAlgorithmOID.ECDSA_WITH_SHA1,
    }
)

PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey
"""The keys Windows clients and servers can use."""


@dataclass(frozen=True)
class Certificate:
    """A server's certificate and the intermediates it is sent with."""

    leaf: x509.Certificate
    intermediates: tuple[x509.Certificate, ...] = ()
    path: Path | None = None

    # Each call asks for these; they never change.

    @cached_property
    def leaf_der(self) -> bytes:
        """The DER of the leaf: what SSTP hashes."""
        return self.leaf.public_bytes(serialization.Encoding.DER)

    @cached_property
    def sha256(self) -> bytes:
        """SHA-256 of the leaf's DER, 32 bytes."""
        return leaf_sha256(self.leaf_der)

    @cached_property
    def hashes(self) -> tuple[bytes, ...]:
        """What a client may bind to that was shown it."""
        return leaf_hashes(self.leaf_der)

    @cached_property
    def sha1(self) -> bytes:
        """SHA-1 of the leaf's DER, 20 bytes (Windows' thumbprint)."""
        return hashlib.sha1(self.leaf_der).digest()  # noqa: S324 - [MS-SSTP] 2.2.7 names it

    @property
    def subject(self) -> str:
        """The subject as RFC 4514 text."""
        return self.leaf.subject.rfc4514_string()

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The DNS names and IP addresses it is valid for (its SANs)."""
        try:
            sans = self.leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        except x509.ExtensionNotFound:
            return ()
        dns = sans.get_values_for_type(x509.DNSName)
        return (*dns, *(str(ip) for ip in sans.get_values_for_type(x509.IPAddress)))

    @property
    def key_type(self) -> str:
        """The kind of key, e.g. ``RSA-2048`` or ``secp256r1``."""
        key = self.leaf.public_key()
        if isinstance(key, rsa.RSAPublicKey):
            return f"RSA-{key.key_size}"
        return key.curve.name if isinstance(key, ec.EllipticCurvePublicKey) else type(key).__name__

    def holds(self, server_name: str) -> bool:
        """Whether that very name is among its names, not only through a wildcard."""
        wanted = server_name.lower()
        return any(name.lower() == wanted for name in self.names)

    def covers(self, server_name: str) -> bool:
        """Whether it is valid for that name (RFC 9525: a wildcard is one whole left label)."""
        wanted = server_name.lower()
        wildcard = f"*.{wanted.partition('.')[2]}"
        return any(name.lower() in (wanted, wildcard) for name in self.names)


@dataclass(frozen=True, slots=True)
class Identity:
    """A certificate and its private key: what a TLS server is."""

    certificate: Certificate
    key: PrivateKey

    def __repr__(self) -> str:
        return f"Identity({self.certificate.subject})"


def leaf_sha256(der: bytes) -> bytes:
    """Return the SHA-256 of a leaf as it came over the wire.

    It is what the same-certificate rule compares; nothing needs to be parsed for it.
    """
    return hashlib.sha256(der).digest()


@lru_cache(maxsize=CERTIFICATES_KEPT)
def leaf_hashes(der: bytes) -> tuple[bytes, ...]:
    """Return what a client may bind to that saw this leaf: its SHA-256 and its SHA-1."""
    sha1 = hashlib.sha1(der, usedforsecurity=False).digest()
    return hashlib.sha256(der).digest(), sha1


def certificate_from_der(der: bytes) -> Certificate:
    """Read a leaf as it came over the wire. Raises CertificateError."""
    try:
        return Certificate(x509.load_der_x509_certificate(der))
    except ValueError as error:
        raise CertificateError(f"not an X.509 certificate: {error}") from error


def load_certificate(path: Path) -> Certificate:
    """Read a PEM (or single DER) file: the leaf first, then intermediates.

    Raises CertificateError that names the file and the way out.
    """
    data = read_bytes(path)
    try:
        if b"-----BEGIN" in data:
            chain = x509.load_pem_x509_certificates(data)
        else:
            chain = [x509.load_der_x509_certificate(data)]
    except ValueError as error:
        raise CertificateError(
            f"{path}: {_instead(data)}; expected certificates in PEM, the server's own first "
            "(a .pfx from Windows: openssl pkcs12 -in FILE.pfx -nodes -out FILE.pem)"
        ) from error
    return Certificate(chain[0], tuple(chain[1:]), path)


def _instead(data: bytes) -> str:
    """Say what is there in place of a certificate, for the libraries' words are not for people."""
    if not data.strip():
        return "is empty"
    if b"-----BEGIN CERTIFICATE-----" in data:
        return "a certificate in it is damaged"
    if b"PRIVATE KEY-----" in data:
        return "this is a private key"
    return "no certificate is in it"


def load_identity(files: CertificateFiles) -> Identity:
    """Read a certificate and the key that belongs to it. Raises CertificateError."""
    certificate = load_certificate(files.chain)
    key_path = files.key or files.chain
    passphrase = read_secret(files.key_passphrase) if files.key_passphrase else None
    data = read_bytes(key_path)
    try:
        key = serialization.load_pem_private_key(data, passphrase.encode() if passphrase else None)
    except TypeError as error:
        hint = "set key_passphrase" if passphrase is None else "remove key_passphrase"
        raise CertificateError(f"{key_path}: {error}; {hint}") from error
    except ValueError as error:
        wrong = "wrong passphrase?" if passphrase else "expected a PEM private key"
        raise CertificateError(f"{key_path}: the key could not be read; {wrong}") from error
    if not isinstance(key, PrivateKey):
        raise CertificateError(f"{key_path}: expected an RSA or EC key, got {type(key).__name__}")
    ours, theirs = (
        k.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
        for k in (key.public_key(), certificate.leaf.public_key())
    )
    if ours != theirs:
        raise CertificateError(
            f"{key_path}: this key does not belong to the first certificate in {files.chain} "
            f"({certificate.subject}); the server's own certificate must come first"
        )
    return Identity(certificate, key)


def read_secret(secret: Secret) -> str:
    """Fetch a secret from its file or environment variable. Raises CertificateError."""
    if secret.env is not None:
        value = os.environ.get(secret.env)
        if value is None:
            raise CertificateError(f"environment variable {secret.env} is not set")
        return value
    assert secret.file is not None, "the loader has seen to it"
    data = read_bytes(secret.file, SECRET_BYTES_MAX)
    try:
        return data.decode().rstrip("\r\n")
    except UnicodeDecodeError as error:  # which quotes the secret: do not chain it
        where = error.start
    raise CertificateError(f"{secret.file}: expected UTF-8 text, byte {where} is none")


def warnings(certificate: Certificate, now: datetime) -> list[str]:
    """Say what will hurt, each in a sentence. ``now`` is aware."""
    leaf, found = certificate.leaf, []
    left = leaf.not_valid_after_utc - now
    if left <= timedelta(0):
        found.append(f"expired on {leaf.not_valid_after_utc:%Y-%m-%d}: every client will refuse it")
    elif left < EXPIRY_WARNING:
        found.append(
            f"expires in {left.days} days, on {leaf.not_valid_after_utc:%Y-%m-%d}; RRAS pins its "
            "hash, so plan the renewal on both sides"
        )
    if leaf.not_valid_before_utc > now:
        found.append(f"is not valid before {leaf.not_valid_before_utc:%Y-%m-%d %H:%M} UTC")
    if not certificate.names:
        found.append("has no subject alternative name: clients compare no other (0x800B010F)")
    if not _is_for_servers(leaf):
        found.append("is not meant for servers: its EKU lacks serverAuth")
    key = leaf.public_key()
    if isinstance(key, rsa.RSAPublicKey) and key.key_size < RSA_BITS_MIN:
        found.append(f"has a weak key: {certificate.key_type}")
    return found + _chain_warnings(certificate, now)


def key_warnings(files: CertificateFiles) -> list[str]:
    """Say so when a key file can be read by others than its owner."""
    path = files.key or files.chain
    mode = stat.S_IMODE(path.stat().st_mode)
    if not mode & 0o077:
        return []
    return [f"{path} holds a private key and has mode {mode:04o}: chmod 600 {path}"]


def _is_for_servers(leaf: x509.Certificate) -> bool:
    try:
        usage = leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except x509.ExtensionNotFound:
        return True  # RFC 5280 4.2.1.12: without the extension every purpose is allowed
    return bool(
        {ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE} & set(usage)
    )


def _chain_warnings(certificate: Certificate, now: datetime) -> list[str]:
    chain, found = (certificate.leaf, *certificate.intermediates), []
    for one in chain:
        name = one.subject.rfc4514_string()
        # A root's own signature is never looked at: it is trusted for being there.
        if one.issuer != one.subject and one.signature_algorithm_oid in _WEAK_SIGNATURES:
            found.append(f"is refused by today's clients: {name} is signed with SHA-1 or MD5")
        if one is not certificate.leaf and one.not_valid_after_utc <= now:
            found.append(
                f"comes with a CA that expired on {one.not_valid_after_utc:%Y-%m-%d}: {name}"
            )
    for lower, upper in pairwise(chain):
        if lower.issuer != upper.subject:
            found.append(
                f"comes with a chain in the wrong order: after {lower.subject.rfc4514_string()} "
                f"expected {lower.issuer.rfc4514_string()}, got {upper.subject.rfc4514_string()}"
            )
            break
        if not signed(lower, by=upper):
            found.append(
                f"comes with another {upper.subject.rfc4514_string()} than the one that signed "
                f"{lower.subject.rfc4514_string()}: was the CA renewed?"
            )
            break
    return found


def signed(lower: x509.Certificate, *, by: x509.Certificate) -> bool:
    """Whether a certificate carries the signature of another one."""
    try:
        lower.verify_directly_issued_by(by)
    except (InvalidSignature, UnsupportedAlgorithm, ValueError, TypeError):
        return False
    return True


def now_utc() -> datetime:
    """Return the wall clock, aware."""
    return datetime.now(UTC)


def days_left(certificate: Certificate) -> int:
    """Return for how many whole days it is still valid; below 0: it has expired."""
    return (certificate.leaf.not_valid_after_utc - now_utc()).days


def read_bytes(path: Path, bytes_max: int = FILE_BYTES_MAX) -> bytes:
    """Return what a file holds: certificates, a key, a secret. Raises CertificateError."""
    try:
        return read_file(path, bytes_max)
    except OSError as error:
        raise CertificateError(in_words(error)) from error

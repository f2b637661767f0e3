"""What TLS we agree to: contexts for clients and backends, certificates by server name.

A context is made once per configuration and shared by all its connections; a reload makes new
ones. Towards clients: TLS 1.2 and 1.3, forward-secret AEAD suites, OpenSSL's own (modern) groups,
no compression, no renegotiation, session tickets. Which certificate a client sees is decided from
its ClientHello (``hello.py``) by choosing the context, so OpenSSL never calls back into Python.

Towards backends: verified by CA and name, by pinned SHA-256, or explicitly not. OpenSSL checks the
chain; the name is checked by the service-identity library (RFC 9525), for pyOpenSSL has no
interface to OpenSSL's own check.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import ip_address

from cryptography import x509
from OpenSSL import SSL, crypto
from service_identity import CertificateError as UnusableNamesError
from service_identity import VerificationError
from service_identity.cryptography import (
    verify_certificate_hostname,
    verify_certificate_ip_address,
)

from sstplb.config.schema import ListenerTls, PoolTls, TlsVersion, Verify
from sstplb.errors import CertificateError, TlsError
from sstplb.tls.certificate import Certificate, Identity, read_bytes
from sstplb.tls.info import TlsInfo
from sstplb.tls.native import SESSIONS_MAX, NativeContext, Sessions
from sstplb.tls.openssl import OpenSsl

Context = SSL.Context | NativeContext

_VERSIONS = ((TlsVersion.TLS12, SSL.TLS1_2_VERSION), (TlsVersion.TLS13, SSL.TLS1_3_VERSION))
_OPTIONS = (
    SSL.OP_NO_COMPRESSION
    | SSL.OP_NO_RENEGOTIATION
    | SSL.OP_CIPHER_SERVER_PREFERENCE
    | SSL.OP_IGNORE_UNEXPECTED_EOF
)


@dataclass(frozen=True, slots=True)
class ServedCertificate:
    """A certificate and the context that shows it."""

    certificate: Certificate
    context: Context


class ServerPolicy:
    """TLS towards clients: which certificate for which server name."""

    def __init__(
        self,
        settings: ListenerTls,
        identities: Sequence[Identity],
        openssl: OpenSsl | None = None,
        ticket_keys: bytes = b"",
    ) -> None:
        """Make the contexts; with ``openssl`` native ones.

        ``ticket_keys`` (native only) seal tickets so that other processes can open them.
        Raises CertificateError when OpenSSL refuses a setting.
        """

        def context(identity: Identity) -> Context:
            if openssl is None:
                return _server_context(settings, identity)
            return NativeContext.for_clients(openssl, settings, identity, ticket_keys)

        self.served = tuple(ServedCertificate(i.certificate, context(i)) for i in identities)
        names = self.served[0].certificate.names
        self._default = tuple(
            served
            for served in self.served
            if served is self.served[0]
            or (names and all(served.certificate.covers(name) for name in names))
        )

    def fitting(self, server_name: str | None) -> tuple[ServedCertificate, ...]:
        """Return every certificate that holds that name, the best first; there always is one.

        The name itself goes before a wildcard, whatever the order in the file. Some clients send
        ``name:port`` as their SNI; the port does not count. Without a name, or with one that none
        holds, it is the default: the first, and what holds all its names as well (a renewal).
        """
        if server_name:
            name = server_name.partition(":")[0].lower()
            found = [served for served in self.served if served.certificate.covers(name)]
            if found:
                return tuple(sorted(found, key=lambda served: not served.certificate.holds(name)))
        return self._default

    def choose(self, server_name: str | None) -> ServedCertificate:
        """Return the best of those that fit."""
        return self.fitting(server_name)[0]


class ClientPolicy:
    """TLS towards backends, and whom to believe."""

    def __init__(self, settings: PoolTls, openssl: OpenSsl | None = None) -> None:
        """Make the context; with ``openssl`` a native one.

        Raises CertificateError when the CA file cannot be read.
        """
        self._verify = settings.verify or Verify.CA
        if self._verify is Verify.CA and settings.ca_file is not None:
            read_bytes(settings.ca_file)  # OpenSSL reads for ever, and says less
        self.sessions = Sessions()
        """To resume; the native engine fills it."""
        self._good_names: set[tuple[bytes, str]] = set()
        """Leaves, and the names they were found to hold: parsing one is not cheap."""
        self._pins = frozenset(bytes.fromhex(pin) for pin in settings.pins)
        self.context: Context = (
            _client_context(settings, self._verify)
            if openssl is None
            else NativeContext.for_backends(openssl, settings)
        )

    def check(self, info: TlsInfo, server_name: str | None) -> None:
        """Verify who answered, after the handshake. Raises TlsError.

        The chain was verified during it. ``server_name`` is the name (or address) expected.
        """
        der = info.peer_leaf_der
        if self._verify is Verify.OFF:
            return
        if der is None:
            raise TlsError("the server showed no certificate", reason="certificate_missing")
        if self._verify is Verify.PIN:
            digest = hashlib.sha256(der).digest()
            if digest not in self._pins:
                raise TlsError(
                    f"the server's certificate has SHA-256 {digest.hex()}, which is not among "
                    "tls.pins",
                    reason="certificate_not_pinned",
                )
        elif server_name:
            seen = (hashlib.sha256(der).digest(), server_name)
            if seen not in self._good_names:
                _check_name(der, server_name)
                if len(self._good_names) < SESSIONS_MAX:
                    self._good_names.add(seen)


def _client_context(settings: PoolTls, verify: Verify) -> SSL.Context:
    context = SSL.Context(SSL.TLS_CLIENT_METHOD)
    versions = dict(_VERSIONS)
    context.set_min_proto_version(versions[settings.min_version])
    context.set_max_proto_version(versions[settings.max_version])
    context.set_options(_OPTIONS)
    context.set_mode(SSL.MODE_RELEASE_BUFFERS)
    if verify is Verify.CA:
        try:
            if settings.ca_file is None:
                context.set_default_verify_paths()
            else:
                context.load_verify_locations(str(settings.ca_file))
        except SSL.Error as error:
            raise CertificateError(
                f"{settings.ca_file}: no CA certificates could be read; expected a PEM file"
            ) from error
        context.set_verify(SSL.VERIFY_PEER, _remember_refusal)
    return context


def _server_context(settings: ListenerTls, identity: Identity) -> SSL.Context:
    context = SSL.Context(SSL.TLS_SERVER_METHOD)
    versions = dict(_VERSIONS)
    try:
        context.set_min_proto_version(versions[settings.min_version])
        context.set_max_proto_version(versions[settings.max_version])
        context.set_options(_OPTIONS)
        # Buffers are given back when empty: an idle call costs little.
        context.set_mode(SSL.MODE_RELEASE_BUFFERS)
        context.set_cipher_list(settings.ciphers.encode())
        context.set_tls13_ciphersuites(settings.ciphersuites.encode())
        context.use_certificate(identity.certificate.leaf)
        for intermediate in identity.certificate.intermediates:
            context.add_extra_chain_cert(intermediate)
        context.use_privatekey(identity.key)
    except (SSL.Error, ValueError, TypeError) as error:
        raise CertificateError(
            f"OpenSSL refuses certificate {identity.certificate.subject} or the listener's tls "
            f"settings: {error}"
        ) from error
    context.set_session_id(identity.certificate.sha256)  # as in native.py
    if settings.session_resumption:
        context.set_session_cache_mode(SSL.SESS_CACHE_SERVER)
        context.set_timeout(round(settings.session_lifetime))
    else:
        context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
        context.set_options(SSL.OP_NO_TICKET)
    return context


def _remember_refusal(
    connection: SSL.Connection, _certificate: crypto.X509, error: int, _depth: int, ok: int
) -> bool:
    """Keep OpenSSL's reason where the engine finds it: the stack only says "verify failed"."""
    if not ok:
        connection.set_app_data(error)
    return bool(ok)


def _check_name(der: bytes, expected: str) -> None:
    leaf = x509.load_der_x509_certificate(der)
    try:
        try:
            ip_address(expected)
        except ValueError:
            verify_certificate_hostname(leaf, expected)
        else:
            verify_certificate_ip_address(leaf, expected)
    except UnusableNamesError as error:  # none at all, or a wildcard in an odd place
        raise TlsError(
            f"the names in the server's certificate cannot be compared with {expected}: {error} "
            "Renew it with a subject alternative name, or set tls.verify: pin",
            reason="certificate_name_mismatch",
        ) from error
    except (VerificationError, ValueError) as error:
        names = ", ".join(Certificate(leaf).names) or "no name at all"
        raise TlsError(
            f"the server's certificate is for {names}, not for {expected}: "
            "set tls.server_name to a name it holds",
            reason="certificate_name_mismatch",
        ) from error

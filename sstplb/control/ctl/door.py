"""Where a running balancer is asked, and what is shown at its door.

In this order: the address, the socket or the configuration file that the command line names; the
file that ``SSTPLB_CONF`` names; the first of ``PLACES`` that is there. Of the file only ``admin``
is read, and with an eye closed: who is just mending a typo elsewhere in it must still reach the
balancer that runs.

A TCP door that was found in a file is asked with the file's token, and has to show one of the
file's certificates, whoever issued it. A door named by its URL is verified as web sites are.
"""

import os
import ssl
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from cryptography.hazmat.primitives.serialization import Encoding
from pydantic import ValidationError

from sstplb.config import document, loader
from sstplb.config.quantities import Endpoint
from sstplb.config.schema import Admin, Secret
from sstplb.errors import CertificateError, ConfigError, NotAdmittedError, Problem, UnreachableError
from sstplb.tls.certificate import load_certificate, read_secret

PLACES = (Path("sstplb.yaml"), Path("/etc/sstplb/sstplb.yaml"))
VARIABLE = "SSTPLB_CONF"
_SOCKET_URL = "http://sstplb"
"""A unix socket has no host; this one stands in the Host header."""


@dataclass(frozen=True, slots=True)
class Told:
    """What the command line says of where the balancer is."""

    conf: Path | None = None
    socket: Path | None = None
    url: str | None = None
    token_file: Path | None = None
    ca_file: Path | None = None


@dataclass(frozen=True, slots=True)
class Door:
    """One way in."""

    url: str
    """Scheme and host, without a path."""
    socket: Path | None = None
    token: str = field(default="", repr=False)
    context: ssl.SSLContext | None = None
    """For https."""
    found_in: Path | None = None
    """The configuration file that names it."""

    def __str__(self) -> str:
        where = self.url if self.socket is None else str(self.socket)
        return where if self.found_in is None else f"{where} (in {self.found_in})"


def find(told: Told) -> Door:
    """Return the door. Raises UnreachableError, NotAdmittedError or ConfigError."""
    if told.url is not None:
        return _named(told.url, told)
    if told.socket is not None:
        return Door(_SOCKET_URL, told.socket)
    return _filed(told.conf or _usual_file())


def _usual_file() -> Path:
    if named := os.environ.get(VARIABLE):
        return Path(named)
    for path in PLACES:
        try:
            if path.exists():
                return path
        except PermissionError as error:  # its directory is closed to us
            raise NotAdmittedError(_not_readable(path)) from error
    places = " or ".join(str(path) for path in PLACES)
    raise UnreachableError(
        f"which balancer? There is no {places}: name its configuration (--conf FILE, or the "
        f"variable {VARIABLE}), its socket (--socket PATH) or its address (--url URL)"
    )


def _named(url: str, told: Told) -> Door:
    """Return the door of a URL, as it is verified for the world."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.netloc or parts.path not in ("", "/"):
        raise UnreachableError(f"expected a URL such as https://lb.example.test:8444, got {url!r}")
    token = "" if told.token_file is None else _token(told.token_file)
    context = None
    if parts.scheme == "https":
        try:
            context = ssl.create_default_context(
                cadata=None if told.ca_file is None else _pem(told.ca_file)
            )
        except CertificateError as error:
            raise UnreachableError(str(error)) from error
    return Door(f"{parts.scheme}://{parts.netloc}", None, token, context)


def _filed(path: Path) -> Door:
    """Return the door a configuration file opens."""
    admin, base = _admin_of(path), path.resolve().parent
    if admin.socket is not None:
        return Door(_SOCKET_URL, base / admin.socket, found_in=path)
    if admin.address is None:
        raise UnreachableError(
            f"{path} opens no admin side: set admin.socket in it and start sstplb anew, or name "
            "another file with --conf"
        )
    token = "" if admin.token_file is None else _token(base / admin.token_file)
    scheme = "https" if admin.certificates else "http"
    context = _pinned([base / files.chain for files in admin.certificates])
    return Door(f"{scheme}://{_reached(admin.address)}", None, token, context, path)


def _admin_of(path: Path) -> Admin:
    """Return the file's ``admin`` section. Raises ConfigError."""
    try:
        found = document.read(loader.read_text(path), str(path))
    except ConfigError as error:
        if isinstance(error.__cause__, PermissionError):
            raise NotAdmittedError(_not_readable(path)) from error
        raise
    values = found.values if isinstance(found.values, dict) else {}
    try:
        return Admin.model_validate(values.get("admin") or {})
    except ValidationError as error:
        message = "cannot be understood: sstplb check says why; --socket or --url go around it"
        line = found.line(("admin",))
        raise ConfigError([Problem(message, "admin", str(path), line)]) from error


def _token(path: Path) -> str:
    try:
        return read_secret(Secret(file=path)).strip()
    except CertificateError as error:
        if isinstance(error.__cause__, PermissionError):
            raise NotAdmittedError(_not_readable(path)) from error
        raise NotAdmittedError(f"the token cannot be read: {error}") from error


def _not_readable(path: Path) -> str:
    return f"{path}: permission denied: run this as the user sstplb runs as, or as root"


def _pinned(chains: list[Path]) -> ssl.SSLContext | None:
    """Return a context that believes exactly these certificates, whatever name they are for."""
    if not chains:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    for chain in chains:
        try:
            context.load_verify_locations(cadata=_pem(chain))
        except CertificateError as error:
            raise NotAdmittedError(str(error)) from error
    return context


def _pem(path: Path) -> str:
    """Return the certificates of a file as OpenSSL takes them. Raises CertificateError."""
    certificate = load_certificate(path)
    chain = (certificate.leaf, *certificate.intermediates)
    return "".join(one.public_bytes(Encoding.PEM).decode() for one in chain)


def _reached(address: Endpoint) -> Endpoint:
    """Return where a process on this machine reaches a listening address."""
    loopback = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - what is configured, not bound
    return Endpoint(loopback.get(address.host, address.host), address.port)

"""Who may come in by the TCP door: the bearer token, and the certificates it shows.

Loaded with everything else that can fail (``control/plan.py``), so ``sstplb check`` finds a token
file that is missing or a key that does not belong. The admin side uses the standard library's
TLS: it is no part of the data plane, and uvicorn wants an ``SSLContext``.
"""

import hmac
import ssl
import stat
from dataclasses import dataclass, field

from sstplb.config.schema import Admin, CertificateFiles, Secret
from sstplb.errors import CertificateError, Problem
from sstplb.tls.certificate import Certificate, key_warnings, load_identity, read_secret

TOKEN_CHARS_MIN = 16


@dataclass(frozen=True, slots=True)
class Shown:
    """A certificate of the admin side, and the context that shows it."""

    certificate: Certificate
    context: ssl.SSLContext


@dataclass(frozen=True, slots=True)
class Access:
    """What the TCP door asks for and shows."""

    token: str = field(default="", repr=False)
    """Empty: none is asked for."""
    shown: tuple[Shown, ...] = ()
    """Empty: plain HTTP."""

    def admits(self, authorization: str) -> bool:
        """Whether a request with this Authorization header may come in."""
        if not self.token:
            return True
        scheme, _, given = authorization.partition(" ")
        is_right = hmac.compare_digest(given.strip().encode(), self.token.encode())
        return scheme.lower() == "bearer" and is_right

    def context_for(self, server_name: str | None) -> ssl.SSLContext:
        """Return the context of the certificate for that name, or of the first."""
        name = (server_name or "").lower()
        fitting = (shown for shown in self.shown if name and shown.certificate.covers(name))
        return next(fitting, self.shown[0]).context


def load_access(admin: Admin, problems: list[Problem], hints: list[Problem]) -> Access:
    """Load token and certificates; what is wrong goes to ``problems``, the rest to ``hints``."""
    token = ""
    if admin.token_file is not None:
        try:
            token = read_secret(Secret(file=admin.token_file)).strip()
        except CertificateError as error:
            problems.append(Problem(str(error), "admin.token_file"))
        else:
            if len(token) < TOKEN_CHARS_MIN or not token.isascii():
                message = (
                    f"{admin.token_file}: expected {TOKEN_CHARS_MIN} ASCII characters or more; "
                    "make one with: openssl rand -hex 32"
                )
                problems.append(Problem(message, "admin.token_file"))
            if mode := stat.S_IMODE(admin.token_file.stat().st_mode) & 0o077:
                message = f"others may read {admin.token_file} ({mode:03o}): chmod 600"
                hints.append(Problem(message, "admin.token_file"))
    shown = []
    for number, files in enumerate(admin.certificates):
        where = f"admin.certificates[{number}]"
        try:
            shown.append(_load(files))
        except CertificateError as error:
            problems.append(Problem(str(error), where))
        else:
            hints += [Problem(text, where) for text in key_warnings(files)]
    return Access(token, tuple(shown))


def _load(files: CertificateFiles) -> Shown:
    """Load one certificate. Raises CertificateError."""
    identity = load_identity(files)
    passphrase = read_secret(files.key_passphrase) if files.key_passphrase else None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(files.chain, files.key, passphrase)
    except (ssl.SSLError, OSError) as error:
        raise CertificateError(f"{files.chain}: OpenSSL refuses it: {error}") from error
    return Shown(identity.certificate, context)

"""The same-certificate rule: which backends will do for which certificate, and how we know.

Crypto binding ([MS-SSTP] 3.2.5.2) ties a call to the hash of the certificate at the client's end
of TLS, and RRAS compares it with the one it believes to be its own: the leaf it shows itself when
we re-encrypt, the one in its registry when TLS is offloaded. A call to a backend that expects
another certificate connects, then disconnects. So it is no candidate.

Where several certificates would do for a client (an old one and its renewal), the rule is turned
round: the backend is chosen first, among those that accept *any* of them, and the client is shown
the one that it accepts. So a renewal can be rolled server by server.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from enum import StrEnum

from sstplb.balance.backend import Backend
from sstplb.config.schema import MismatchPolicy, Mode
from sstplb.errors import CertificateMismatchError


class Source(StrEnum):
    """How we know which certificate a backend accepts."""

    LEAF = "leaf"
    """It shows that certificate itself."""
    DECLARED = "declared"
    """The operator said so."""
    LEARNT = "learnt"
    """Calls or a login check with it were accepted."""
    LAST_SEEN = "last_seen"
    """It was so when it was last seen; now it is down, and its check does not get that far."""
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Accepted:
    """The one certificate a backend accepts."""

    sha256: bytes | None
    source: Source


_UNKNOWN = Accepted(None, Source.UNKNOWN)


def accepted(mode: Mode, backend: Backend, ours: Collection[bytes]) -> Accepted:
    """Return the SHA-256 of the certificate a backend is known to accept, if any.

    What was only learnt counts while it is one of ``ours``: else the backend must be tried again,
    for nothing but a call would tell that it was told of another one meanwhile.
    """
    if mode is not Mode.OFFLOAD:
        leaf = backend.leaf_sha256
        return _UNKNOWN if leaf is None else Accepted(leaf, Source.LEAF)
    if backend.config.rras_certificate_sha256 is not None:
        return Accepted(bytes.fromhex(backend.config.rras_certificate_sha256), Source.DECLARED)
    learnt = backend.learnt.sha256
    return Accepted(learnt, Source.LEARNT) if learnt in ours else _UNKNOWN


def accepted_now(mode: Mode, backend: Backend, ours: Collection[bytes]) -> Accepted:
    """Return what ``accepted`` does, for show: what is not known any more is no present truth."""
    known, check = accepted(mode, backend, ours), backend.last_check
    if known.source not in (Source.LEAF, Source.LEARNT) or backend.health.is_up or check is None:
        return known
    can_see = check.verdict.good or check.saw_certificate
    return known if can_see else Accepted(known.sha256, Source.LAST_SEEN)


def choice(
    mode: Mode, backend: Backend, shown: Sequence[bytes], ours: Collection[bytes]
) -> bytes | None:
    """Return which of the certificates that a client may be shown the backend accepts, if any.

    Where nobody knows, one of them must be tried: the first that nothing speaks against.
    """
    known = accepted(mode, backend, ours).sha256
    if known is not None:
        return known if known in shown else None
    return min(shown, key=backend.learnt.doubt)


def objection(
    mode: Mode,
    policy: MismatchPolicy,
    shown: Sequence[bytes],
    ours: Collection[bytes],
    backend: Backend,
) -> str | None:
    """Return why a backend will not do for a client that may be shown these leaves, as a slug.

    ``shown`` empty: no TLS ends here, or no binding will be checked; then anybody will do.
    """
    if not shown or policy is not MismatchPolicy.REFUSE:
        return None
    return CertificateMismatchError.reason if choice(mode, backend, shown, ours) is None else None


def mismatch_sentence(name: str, theirs: bytes, *ours: bytes) -> str:
    """Say what the mismatch is and what to do about it."""
    shown = " or ".join(sha256.hex() for sha256 in ours)
    return (
        f"{name} expects the certificate with SHA-256 {theirs.hex()}, clients are shown "
        f"{shown}: every call would be torn down after authentication; put the same "
        "certificate on both"
    )

"""Where a renewal of a certificate stands: who accepts which of ours, how we know, what is next.

While a listener holds an old certificate and its renewal, each client is shown the one that its
backend accepts (``net/failover.py``), so the backends can be switched one at a time. This module
looks at all of them and says what an operator has to do, in the order in which no call fails:
drain one, wait until it is empty, give it the new certificate, let it be seen, make it active
again. Which one comes next is simple: the one that has been begun, else the first of the list.

The newest certificate is where the journey goes: the one with the latest beginning among those for
the same names. Nothing is changed here.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from sstplb.balance.backend import Backend
from sstplb.balance.same_certificate import Accepted, Source, accepted_now
from sstplb.config.schema import Mode, Standing
from sstplb.control.plan import PooledChecks
from sstplb.control.views import certificate_view
from sstplb.net.call import now_s
from sstplb.tls.certificate import Certificate, days_left


@dataclass(frozen=True, slots=True)
class RolledCertificate:
    """A certificate that clients of a pool may be shown."""

    sha256: str
    subject: str
    names: tuple[str, ...]
    not_after_at: float
    days_left: int
    newest: bool
    """Whether no other for the same names is newer."""
    accepted_by: tuple[str, ...]
    """The backends that are known to accept it."""


@dataclass(frozen=True, slots=True)
class RolledBackend:
    """One backend on the way."""

    name: str
    standing: str
    usable: bool
    calls: int
    sha256: str | None
    """Of the certificate it accepts; null: nobody knows."""
    source: str
    """How we know: leaf (it shows it), declared, learnt (from calls or a login), unknown;
    last_seen: it was so before the backend went down."""
    ours: bool | None
    """Whether it is one that clients are shown; null: nobody knows."""
    newest: bool
    """Whether it has arrived."""
    days_left: int | None
    """Of that certificate, where it is ours."""
    next_step: str


@dataclass(frozen=True, slots=True)
class PoolRollout:
    """One pool whose clients are shown certificates."""

    pool: str
    mode: str
    """offload or reencrypt."""
    certificates: tuple[RolledCertificate, ...]
    backends: tuple[RolledBackend, ...]
    done: bool
    """Whether every backend accepts the newest."""
    next_step: str


def rollout(checks: PooledChecks) -> PoolRollout | None:
    """Return where a pool stands; None: its clients are shown no certificate of ours."""
    if not checks.served:
        return None
    known = {b.name: accepted_now(checks.mode, b, checks.ours) for b in checks.pool.backends}
    waiting = [b for b in checks.pool.backends if not _has_arrived(checks.served, known[b.name])]
    begun = [b for b in waiting if b.standing is not Standing.ACTIVE]
    # Who is down and had the newest has to be seen again: nobody need wait for that.
    to_do = [b for b in waiting if not _had_newest(checks.served, known[b.name])]
    turn = next(iter(begun or to_do or waiting), None)
    return PoolRollout(
        checks.pool.name,
        str(checks.mode),
        tuple(_certificate(checks.served, c, known) for c in checks.served),
        tuple(
            _backend(checks, b, known[b.name], is_its_turn=b is turn) for b in checks.pool.backends
        ),
        not waiting,
        _next_of_pool(checks, waiting, turn),
    )


def newest_for(served: Sequence[Certificate], like: Certificate | None) -> Certificate:
    """Return the newest for the same names as ``like``, or of all."""
    fitting = [c for c in served if like is None or _same_names(c, like)]
    return max(fitting, key=lambda c: (c.leaf.not_valid_before_utc, c.leaf.not_valid_after_utc))


def _same_names(one: Certificate, other: Certificate) -> bool:
    """Whether one of them can stand for the other."""
    return (
        one is other
        or all(one.covers(name) for name in other.names)
        or all(other.covers(name) for name in one.names)
    )


def _find(served: Sequence[Certificate], known: Accepted) -> Certificate | None:
    return next((c for c in served if c.sha256 == known.sha256), None)


def _has_arrived(served: Sequence[Certificate], known: Accepted) -> bool:
    return known.source is not Source.LAST_SEEN and _is_newest(served, _find(served, known))


def _had_newest(served: Sequence[Certificate], known: Accepted) -> bool:
    return known.source is Source.LAST_SEEN and _is_newest(served, _find(served, known))


def _is_newest(served: Sequence[Certificate], own: Certificate | None) -> bool:
    return own is not None and newest_for(served, own) is own


def _calls(backend: Backend) -> int:
    """Return how many calls it has, those on their way included."""
    return backend.places_taken + backend.claimed


def _certificate(
    served: Sequence[Certificate], certificate: Certificate, known: dict[str, Accepted]
) -> RolledCertificate:
    view = certificate_view(certificate)
    return RolledCertificate(
        view.sha256,
        view.subject,
        view.names,
        view.not_after_at,
        view.days_left,
        newest_for(served, certificate) is certificate,
        tuple(
            name
            for name, what in known.items()
            if what.sha256 == certificate.sha256 and what.source is not Source.LAST_SEEN
        ),
    )


def _backend(
    checks: PooledChecks, backend: Backend, known: Accepted, *, is_its_turn: bool
) -> RolledBackend:
    own = _find(checks.served, known)
    has_arrived = _has_arrived(checks.served, known)
    return RolledBackend(
        backend.name,
        str(backend.standing),
        checks.usability(now_s()).because[backend.name] is None,
        _calls(backend),
        None if known.sha256 is None else known.sha256.hex(),
        str(known.source),
        None if known.sha256 is None or known.source is Source.LAST_SEEN else own is not None,
        has_arrived,
        None if own is None else days_left(own),
        _step(checks, backend, known, own, has_arrived, is_its_turn=is_its_turn),
    )


# --- in words ---------------------------------------------------------------------------------


def _next_of_pool(checks: PooledChecks, waiting: list[Backend], turn: Backend | None) -> str:
    if turn is not None:
        of = len(checks.pool.backends)
        return f"{of - len(waiting)} of {of} accept the newest certificate; go on with {turn.name}"
    if any(newest_for(checks.served, c) is not c for c in checks.served):
        return (
            "every backend accepts the newest certificate: take the old one out of the listener's "
            "certificates, and reload"
        )
    return (
        "nothing to roll; to renew, list the new certificate beside this one in the listener's "
        "certificates, and reload"
    )


def _step(
    checks: PooledChecks,
    backend: Backend,
    known: Accepted,
    own: Certificate | None,
    has_arrived: bool,
    *,
    is_its_turn: bool,
) -> str:
    """Say what to do about one backend."""
    where = f"{backend.pool}/{backend.name}"
    if has_arrived:
        if backend.standing is Standing.ACTIVE:
            return "done"
        return f"it accepts the new one: make it active again (sstplb ctl enable {where})"
    if _had_newest(checks.served, known):
        return "it had the new one when it was last seen, and is down: a check has to see it"
    if known.sha256 is None and backend.standing is Standing.ACTIVE:
        return _how_to_know(checks.mode, where)
    if not is_its_turn:
        return "later: one at a time"
    said = "" if own is not None or known.sha256 is None else "what it accepts is not ours; "
    if backend.standing is Standing.ACTIVE:
        return f"{said}drain it (sstplb ctl drain {where} --wait)"
    if calls := _calls(backend):
        return f"wait until its {calls} calls have ended"
    target = newest_for(checks.served, own).sha256.hex()
    return said + _switch(checks.mode, backend, target, where)


def _how_to_know(mode: Mode, where: str) -> str:
    if mode is Mode.OFFLOAD:
        return (
            "nobody knows what it accepts: say so (sstplb ctl certs "
            f"declare {where} SHA256), use a login check, or wait for calls"
        )
    return "its certificate was not seen yet: a check has to reach it"


def _switch(mode: Mode, backend: Backend, target: str, where: str) -> str:
    if mode is not Mode.OFFLOAD:
        return (
            f"bind the new certificate (SHA-256 {target}) to SSTP there and restart RemoteAccess; "
            "the next check sees it"
        )
    command = f"run there: Enable-SSTPOffload -CertificateHash {target.upper()} -Restart"
    if backend.config.rras_certificate_sha256 is not None:
        return f"{command}; then here: sstplb ctl certs declare {where} {target}"
    return f"{command}; a login check learns it, else the first calls do"

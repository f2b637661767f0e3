"""What the admin side shows, as values that become JSON field by field.

The shapes are the contract of the API (their docstrings end up in its description). Durations end
in ``_s``, times of day in ``_at`` (seconds since 1970), sizes are bytes. The functions below turn
the objects that carry calls into these shapes; they change nothing, and nobody else reads those
objects for show.
"""

import time
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from sstplb.account.causes import Later
from sstplb.account.exposition import log_fields
from sstplb.account.ledger import Way, way_of
from sstplb.account.record import Record
from sstplb.balance.backend import Backend
from sstplb.balance.pool import Usability
from sstplb.balance.same_certificate import Accepted, Source, accepted_now
from sstplb.config.quantities import Endpoint
from sstplb.config.schema import Standing
from sstplb.control.balancer import Balancer
from sstplb.control.booking import Booking
from sstplb.control.events import Event
from sstplb.control.plan import PooledChecks
from sstplb.net.call import now_s
from sstplb.net.capture import CaptureFile, CaptureState
from sstplb.net.listener import Listener
from sstplb.tls.certificate import Certificate, days_left


@dataclass(frozen=True, slots=True)
class CertificateView:
    """A certificate that clients are shown."""

    subject: str
    names: tuple[str, ...]
    sha256: str
    sha1: str
    not_after_at: float
    days_left: int


@dataclass(frozen=True, slots=True)
class ListenerView:
    """One address that accepts calls."""

    name: str
    address: str
    mode: str
    pool: str
    calls: int
    calls_max: int
    standing: str
    """The operator's word: active or draining."""
    deadline_at: float | None
    """When the calls it still has are ended; null: they may run on."""
    accepting: bool
    cpu_s: float | None
    """Of a process of its own; null: it shares one."""
    bytes_in: int
    bytes_out: int
    certificates: tuple[CertificateView, ...]


@dataclass(frozen=True, slots=True)
class CheckView:
    """The latest check of a backend."""

    at: float
    ok: bool
    seconds: float
    reason: str
    transcript: str
    """What was sent (>), what came back (<), and what happened (*), line by line."""


@dataclass(frozen=True, slots=True)
class BackendView:
    """One RRAS server."""

    name: str
    address: str
    standing: str
    """The operator's word: active, draining or off."""
    standing_in_file: str | None
    """What the file says; null: it does not name this backend."""
    deadline_at: float | None
    """When the calls it still has are ended; null: they may run on."""
    health: str
    """The checks' word: up or down."""
    set_aside: bool
    """Whether failed calls keep new ones away for now."""
    set_aside_until_at: float | None
    """When calls may come back; null: it is not set aside."""
    set_aside_total: int
    """How often calls have put it aside."""
    spared: bool
    """Whether it is set aside and gets calls all the same, for too many others are out."""
    failures: dict[str, int]
    """Calls and tries that failed on its side, by reason."""
    usable: bool
    """Whether it can take a call, of one listener at least."""
    unusable_because: str | None
    """standing_off, draining, unresolved, down, certificate_mismatch, set_aside or calls_max."""
    since_at: float
    """When its health last changed."""
    health_reason: str
    calls: int
    dialing: int
    """Calls on their way to it: no answer yet."""
    calls_max: int
    calls_total: int
    weight: int
    backup: bool
    certificate_sha256: str | None
    """Of the certificate it shows or, offloaded, accepts."""
    certificate_source: str
    """How we know: leaf (it shows it), declared, learnt, unknown; last_seen: it was so before the
    backend went down."""
    same_certificate: bool | None
    """Whether that is one our clients are shown; null: not known, or of no matter."""
    last_check: CheckView | None


@dataclass(frozen=True, slots=True)
class PoolView:
    """RRAS servers that answer for one another."""

    name: str
    strategy: str
    transport: str
    affinity_entries: int
    check_method: str
    backends: tuple[BackendView, ...]


@dataclass(frozen=True, slots=True)
class Totals:
    """Everything since the start; bytes of running calls count."""

    opened: int
    running: int
    bytes_in: int
    bytes_out: int
    outcomes: dict[str, int]


@dataclass(frozen=True, slots=True)
class WayView:
    """What goes from a listener to a backend."""

    listener: str
    pool: str
    backend: str
    calls: int
    bytes_in: int
    bytes_out: int


@dataclass(frozen=True, slots=True)
class ModeCost:
    """What one mode costs, learnt while it moved nearly all bytes (``control/cost.py``)."""

    mode: str
    cpu_s: float
    """Used in the spans that were this mode's."""
    moved: int
    """Bytes moved in those spans, both ways together."""
    cpu_s_per_gb: float | None
    """null: too few to tell."""


@dataclass(frozen=True, slots=True)
class Cost:
    """What the balancer's processes have used: carrying, checks and the admin side."""

    cpu_s: float
    cpu_s_per_gb: float | None
    """CPU seconds for 10^9 bytes carried, both ways together; null: too few to tell, so far."""
    modes: tuple[ModeCost, ...]
    """Every mode that is configured."""


@dataclass(frozen=True, slots=True)
class Overview:
    """Everything a page needs, at one moment."""

    version: str
    now_at: float
    started_at: float
    engine: str
    workers: int
    config_file: str
    draining: bool
    """Whether the balancer is stopping: no new calls."""
    totals: Totals
    listeners: tuple[ListenerView, ...]
    pools: tuple[PoolView, ...]
    ways: tuple[WayView, ...]
    cost: Cost


@dataclass(frozen=True, slots=True)
class TryView:
    """One backend that was asked for a call; an empty reason: it took it."""

    backend: str
    reason: str
    seconds: float
    why: str
    """The reason in words."""


CallView = dict[str, Any]
"""``log_fields`` of the record, with ``id``, ``state``, ``started_at``, ``phases``, ``tries``,
``passed_over``, and the whole ``story``."""


@dataclass(frozen=True, slots=True)
class Remembered:
    """One client that affinity remembers."""

    client: str
    backend: str
    pinned: bool
    expires_in_s: float | None
    """null: not while it is pinned or has calls."""


@dataclass(frozen=True, slots=True)
class CapturesView:
    """What is recorded, and was."""

    directory: str | None
    """null: captures are not allowed."""
    running: tuple[CaptureState, ...]
    files: tuple[CaptureFile, ...]
    """In the directory, the oldest first; those of running captures, too."""


def in_brief(balancer: Balancer) -> str:
    """Return how it goes, in one line."""
    now, pools = now_s(), balancer.plan.checks.values()
    because = [slug for checks in pools for slug in checks.usability(now).because.values()]
    listeners, calls = len(balancer.listeners), len(balancer.bookings)
    usable = because.count(None)
    return f"{listeners} listeners, {calls} calls, {usable} of {len(because)} backends usable"


class Volumes:
    """Bytes carried until now, by way; those of running calls count."""

    def __init__(self, balancer: Balancer) -> None:
        ledger = balancer.ledger
        self.calls: Counter[Way] = Counter()
        """Those that run."""
        self.bytes_in: Counter[Way] = Counter(ledger.bytes_in_by_way)
        self.bytes_out: Counter[Way] = Counter(ledger.bytes_out_by_way)
        for call in balancer.calls():
            if call.record.outcome is None:  # else the ledger has counted it
                bytes_in, bytes_out = call.bytes_so_far
                way = way_of(call.record)
                self.calls[way] += 1
                self.bytes_in[way] += bytes_in
                self.bytes_out[way] += bytes_out

    def of_listener(self, name: str) -> tuple[int, int]:
        """Return bytes in and out of one listener."""
        return _sum_of(self.bytes_in, name), _sum_of(self.bytes_out, name)

    def by_mode(self, modes: Mapping[str, str]) -> dict[str, int]:
        """Return bytes by mode, both ways together; ``modes`` by listener."""
        moved = dict.fromkeys(modes.values(), 0)
        for counts in (self.bytes_in, self.bytes_out):
            for (listener, _, _), count in counts.items():
                if listener in modes:
                    moved[modes[listener]] += count
        return moved


def certificate_view(certificate: Certificate) -> CertificateView:
    """Show a certificate."""
    return CertificateView(
        certificate.subject,
        certificate.names,
        certificate.sha256.hex(),
        certificate.sha1.hex(),
        certificate.leaf.not_valid_after_utc.timestamp(),
        days_left(certificate),
    )


def listener_view(name: str, listener: Listener, volumes: Volumes, calls: int) -> ListenerView:
    """Show a listener."""
    service = listener.service
    served = service.server_policy.served if service.server_policy is not None else ()
    bytes_in, bytes_out = volumes.of_listener(name)
    return ListenerView(
        name,
        address_of(listener),
        str(service.listener.mode),
        service.listener.pool,
        calls,
        service.listener.calls_max,
        "draining" if listener.is_draining else "active",
        _deadline_at(listener.deadline) if listener.is_draining else None,
        listener.is_accepting,
        None,
        bytes_in,
        bytes_out,
        tuple(certificate_view(shown.certificate) for shown in served),
    )


def way_views(listeners: Collection[str], volumes: Volumes) -> tuple[WayView, ...]:
    """Show the ways that calls went from these listeners."""
    ways = sorted(volumes.calls.keys() | volumes.bytes_in.keys())
    return tuple(
        WayView(*way, volumes.calls[way], volumes.bytes_in[way], volumes.bytes_out[way])
        for way in ways
        if way[0] in listeners and way[2]
    )


def pool_view(
    checks: PooledChecks, standings_in_file: Mapping[tuple[str, str], str], started_at: float
) -> PoolView:
    """Show a pool; ``standings_in_file`` by pool and backend."""
    pool, usability = checks.pool, checks.usability(now_s())
    return PoolView(
        pool.name,
        str(pool.config.strategy),
        str(pool.config.transport),
        len(pool.affinity),
        str(pool.check.method),
        tuple(
            backend_view(
                checks,
                backend,
                usability,
                standings_in_file.get((pool.name, backend.name)),
                started_at,
            )
            for backend in pool.backends
        ),
    )


def backend_view(
    checks: PooledChecks,
    backend: Backend,
    usability: Usability,
    standing_in_file: str | None,
    started_at: float,
) -> BackendView:
    """Show a backend; ``usability`` of its pool."""
    now, health = now_s(), backend.health
    is_aside, is_spared = health.is_set_aside(now), backend.name in usability.spared
    because = usability.because[backend.name]
    known, is_same = same_certificate(checks, backend)
    check = backend.last_check
    return BackendView(
        name=backend.name,
        address=str(backend.config.address),
        standing=str(backend.standing),
        standing_in_file=standing_in_file,
        deadline_at=None if backend.standing is Standing.ACTIVE else _deadline_at(backend.deadline),
        health="up" if health.is_up else "down",
        set_aside=is_aside,
        set_aside_until_at=wall_clock(health.set_aside_until) if is_aside else None,
        set_aside_total=health.set_aside_total,
        spared=is_spared,
        failures=dict(backend.failures_total),
        usable=because is None,
        unusable_because=because,
        since_at=started_at if health.since is None else wall_clock(health.since),
        health_reason=health.set_aside_reason if health.is_up and is_aside else health.reason,
        calls=backend.calls,
        dialing=backend.dialing + backend.claimed,
        calls_max=backend.config.calls_max,
        calls_total=backend.calls_total,
        weight=backend.config.weight,
        backup=backend.config.backup,
        certificate_sha256=None if known.sha256 is None else known.sha256.hex(),
        certificate_source=str(known.source),
        same_certificate=is_same,
        last_check=None
        if check is None
        else CheckView(
            wall_clock(check.at),
            check.verdict.good,
            round(check.seconds, 6),
            check.verdict.reason,
            check.verdict.transcript,
        ),
    )


def same_certificate(checks: PooledChecks, backend: Backend) -> tuple[Accepted, bool | None]:
    """Return what a backend accepts, and whether clients are shown that certificate."""
    known = accepted_now(checks.mode, backend, checks.ours)
    if known.sha256 is None or known.source is Source.LAST_SEEN or not checks.served:
        return known, None
    return known, known.sha256 in checks.ours


def call_view(record: Record, call: Booking | None = None) -> CallView:
    """Show a call; ``call`` while it runs."""
    fields = log_fields(record)
    phases = {name: fields[name] for name in PHASES if name in fields}
    shown: CallView = {
        "id": record.id,
        "state": "running" if record.outcome is None else "ended",
        "started_at": record.started_at,
        **fields,
        "phases": phases,
        "tries": [TryView(t.backend, t.reason, round(t.seconds, 6), t.why) for t in record.tries],
        "passed_over": list(record.passed_over),
        "served_sha256": record.served_sha256,
        "backend_sha256": record.backend_sha256,
        "backend_sha256_from": record.backend_sha256_from,
    }
    for name in LOG_ONLY:
        shown.pop(name, None)
    if record.story is not None:
        shown["story"] = record.story
    if call is not None and record.outcome is None:
        shown["bytes_in"], shown["bytes_out"] = call.bytes_so_far
        shown["duration_s"] = round(now_s() - record.opened_s, 6)
    return shown


LOG_ONLY = frozenset(
    {
        "steps", "step_details", "hellos", "tries_why", "passed_over_why", "hash_protocol",
        "certificate_hash", "hash_whose", "nonce_echoed", "hash_offered",
    }
)  # fmt: skip
"""Fields of the log that the story, the tries and those passed over say better."""
LATER_S = 120.0
"""A check that finds a backend down within this after a call tells something about the call."""
PHASES = ("preface_s", "hello_s", "tls_s", "head_s", "reach_s", "relay_s")


def downs_after(record: Record, events: Iterable[Event]) -> tuple[Later, ...]:
    """Return which backends checks found down during a call or soon after it, and why."""
    began_at, over_at = record.started_at, record.started_at + record.duration_s + LATER_S
    return tuple(
        Later(str(event.get("backend")), str(event.get("reason")))
        for event in events
        if event.get("event") == "backend_down" and began_at <= event["at"] <= over_at
    )


def wall_clock(monotonic_s: float) -> float:
    """Return a moment of the monotonic clock as seconds since 1970."""
    return time.time() - (now_s() - monotonic_s)


def _deadline_at(deadline: float | None) -> float | None:
    return None if deadline is None else wall_clock(deadline)


def address_of(listener: Listener) -> str:
    """Return where a listener listens."""
    return str(Endpoint(*listener.address))


def _sum_of(counts: Counter[Way], listener: str) -> int:
    return sum(count for way, count in counts.items() if way[0] == listener)

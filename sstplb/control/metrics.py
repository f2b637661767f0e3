"""Measuring: what the balancer knows at this moment, as the values of ``account/metrics.py``.

Nothing is kept for it but counts that are kept anyway, and everything is read anew each time
somebody asks, in the process that decides, where all of it is: so sums are exact however many
workers carry. Of calls that workers carry, the bytes are those of the last report, at most a
second ago; at a call's end they are exact. CPU time of workers is reported in the same way; their
memory and descriptors are looked up in /proc (proc(5)).
"""

import os
import platform
import resource
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from sstplb import __version__
from sstplb.account.metrics import SHOWN_FROM_THE_START, Measured, Metric
from sstplb.balance.backend import Backend
from sstplb.balance.health import FlipKind
from sstplb.balance.pool import Usability
from sstplb.config.judge import call_pools_of
from sstplb.config.schema import Standing
from sstplb.control import views
from sstplb.control.balancer import Balancer
from sstplb.control.plan import PooledChecks
from sstplb.errors import ConfigError
from sstplb.net.call import now_s
from sstplb.net.service import Service
from sstplb.tls.certificate import Certificate

LIMITS = ("calls_max", "listener_calls_max", "openings_max", "client_calls_max", "client_rate")
"""Slugs of ``balance/admission.py``, counted from 0."""
UNUSABLE = (
    "standing_off", "draining", "unresolved", "down", "certificate_mismatch", "set_aside",
    "calls_max",
)  # fmt: skip
"""Slugs of ``Pool.usability``."""
LEVELS = ("debug", "info", "warning", "error")
PROC = Path("/proc")


@dataclass(slots=True)
class Attempts:
    """How often something was tried that may fail."""

    ok: int = 0
    failed: int = 0
    is_last_ok: bool = True
    last_at: float = field(default_factory=time.time)
    """Seconds since 1970."""

    @contextmanager
    def counted(self) -> Iterator[None]:
        """Count what is done inside; it fails with a ConfigError."""
        try:
            yield
        except ConfigError:
            self.failed += 1
            self.is_last_ok = False
            raise
        else:
            self.ok += 1
            self.is_last_ok = True
        finally:
            self.last_at = time.time()


@dataclass(slots=True)
class Tally:
    """What was done to the balancer as a whole since the process started."""

    took_over: bool = False
    """Whether another process passed its sockets on to this one."""
    reloads: Attempts = field(default_factory=Attempts)
    certificate_reloads: Attempts = field(default_factory=Attempts)
    upgrades_failed: int = 0


def measure(
    balancer: Balancer,
    tally: Tally,
    log_events: Counter[str],
    *,
    started_at: float,
    drift_values: int,
    is_stopping: bool,
) -> Measured:
    """Return everything; ``log_events`` by level."""
    found = Measured()
    _process(found, balancer)
    found.put(Metric.STARTED, started_at)
    found.put(Metric.TOOK_OVER, tally.took_over)
    found.put(Metric.STOPPING, is_stopping)
    found.put(Metric.UPGRADES_FAILED, tally.upgrades_failed)
    for level in LEVELS:
        found.put(Metric.LOG_EVENTS, log_events[level], level)
    _configuration(found, tally, drift_values)
    _admission(found, balancer)
    for name in balancer.listeners:
        _listener(found, balancer, name)
    _calls(found, balancer)
    for checks in balancer.plan.checks.values():
        _affinity(found, checks)
        usability = checks.usability(now_s())
        for backend in checks.pool.backends:
            _backend(found, checks, backend, usability)
    for service in balancer.plan.services.values():
        _certificates(found, balancer, service)
    for shown in balancer.prepared.access.shown:
        name, sha256, not_after = _identity(shown.certificate)
        found.put(Metric.ADMIN_NOT_AFTER, not_after, name, sha256)
    return found


# --- what runs --------------------------------------------------------------------------------


def _process(found: Measured, balancer: Balancer) -> None:
    crew, engine = balancer.crew, balancer.prepared.engine.partition(" ")[0]
    workers = crew.process_ids
    found.put(Metric.BUILD, 1, __version__, platform.python_version(), engine)
    found.put(Metric.WORKERS, crew.count)
    found.put(Metric.WORKERS_READY, len(workers) if crew.count > 1 else 1)
    found.put(Metric.WORKER_DEATHS, crew.died_total)
    found.put(Metric.CPU, time.process_time(), "balancer")
    found.put(Metric.CPU, crew.cpu_s(), "workers")
    for metric, count in ((Metric.MEMORY, resident_bytes), (Metric.DESCRIPTORS, descriptors)):
        found.put(metric, count(os.getpid()), "balancer")
        found.put(metric, _sum(count, workers), "workers")
    found.put(Metric.DESCRIPTORS_MAX, resource.getrlimit(resource.RLIMIT_NOFILE)[0])


def resident_bytes(process_id: int) -> int:
    """Return a process's resident memory. Raises OSError when it is gone."""
    pages = (PROC / str(process_id) / "statm").read_text(encoding="ascii").split()[1]
    return int(pages) * resource.getpagesize()


def descriptors(process_id: int) -> int:
    """Return how many descriptors a process has open. Raises OSError when it is gone.

    Since Linux 6.2 the directory's size says so; before, they must be counted one by one, which
    takes milliseconds where there are thousands.
    """
    directory = PROC / str(process_id) / "fd"
    return directory.stat().st_size or len(os.listdir(directory))  # noqa: PTH208 - names will do


def _sum(count: Callable[[int], int], process_ids: Sequence[int]) -> int:
    total = 0
    for process_id in process_ids:
        try:
            total += count(process_id)
        except OSError:
            continue  # it has just ended
    return total


def _configuration(found: Measured, tally: Tally, drift_values: int) -> None:
    for metric, attempts in (
        (Metric.RELOADS, tally.reloads),
        (Metric.CERTIFICATE_RELOADS, tally.certificate_reloads),
    ):
        found.put(metric, attempts.ok, "ok")
        found.put(metric, attempts.failed, "failed")
    found.put(Metric.RELOAD_OK, tally.reloads.is_last_ok)
    found.put(Metric.RELOADED, tally.reloads.last_at)
    found.put(Metric.CERTIFICATE_RELOAD_OK, tally.certificate_reloads.is_last_ok)
    found.put(Metric.DRIFT, drift_values)


# --- limits and calls -------------------------------------------------------------------------


def _admission(found: Measured, balancer: Balancer) -> None:
    admission, limits = balancer.admission, balancer.prepared.config.limits
    found.put(Metric.CALLS_MAX, limits.calls_max)
    found.put(Metric.OPENINGS, admission.openings)
    found.put(Metric.OPENINGS_MAX, limits.openings_max)
    found.put(Metric.CLIENT_NETWORKS, len(admission.calls_by_client))
    for slug in LIMITS:
        found.put(Metric.REFUSED, admission.refused_total[slug], slug)


def _listener(found: Measured, balancer: Balancer, name: str) -> None:
    listener = balancer.listeners[name]
    config = listener.service.listener
    found.put(Metric.LISTENER, 1, name, str(config.mode), config.pool, views.address_of(listener))
    found.put(Metric.LISTENER_ACCEPTING, listener.is_accepting, name)
    found.put(Metric.LISTENER_DRAINING, listener.is_draining, name)
    found.put(Metric.LISTENER_CALLS_MAX, config.calls_max, name)


def _calls(found: Measured, balancer: Balancer) -> None:
    """Count calls by listener: those the ledger knows, and listeners that had none yet."""
    ledger = balancer.ledger
    running = Counter(record.listener for record in ledger.running.values())
    accepted = Counter(running)
    for (name, _, _), count in ledger.outcomes_total.items():
        accepted[name] += count
    for name in dict.fromkeys((*balancer.listeners, *accepted)):
        for outcome, reason in SHOWN_FROM_THE_START:
            found.put(Metric.ENDED, 0, name, outcome, reason)
        found.put(Metric.ACCEPTED, accepted[name], name)
        found.put(Metric.HANDED_OVER, ledger.handed_over_total[name], name)
        found.put(Metric.RUNNING, running[name], name)
    for (name, outcome, reason), count in ledger.outcomes_total.items():
        found.put(Metric.ENDED, count, name, outcome, reason)
    volumes = views.Volumes(balancer)
    for direction, by_way in (("in", volumes.bytes_in), ("out", volumes.bytes_out)):
        for way, count in by_way.items():
            if count or way[2]:  # who reached no backend moved nothing
                found.put(Metric.BYTES, count, *way, direction)
    for (name, metric), histogram in ledger.histograms.items():
        found.put(metric, histogram.distribution(), name)


# --- backends ---------------------------------------------------------------------------------


def _backend(found: Measured, checks: PooledChecks, backend: Backend, usability: Usability) -> None:
    now, health, where = now_s(), backend.health, (checks.pool.name, backend.name)
    because = usability.because[backend.name]
    found.put(Metric.BACKEND_UP, health.is_up, *where)
    found.put(Metric.BACKEND_SET_ASIDE, health.is_set_aside(now), *where)
    found.put(Metric.BACKEND_SPARED, backend.name in usability.spared, *where)
    for standing in Standing:
        found.put(Metric.BACKEND_STANDING, backend.standing is standing, *where, standing)
    found.put(Metric.BACKEND_USABLE, because is None, *where)
    for slug in UNUSABLE:
        found.put(Metric.BACKEND_UNUSABLE, because == slug, *where, slug)
    found.put(Metric.BACKEND_CALLS, backend.calls, *where)
    found.put(Metric.BACKEND_DIALING, backend.dialing, *where)
    found.put(Metric.BACKEND_CALLS_MAX, backend.config.calls_max, *where)
    found.put(Metric.BACKEND_HANDED_OVER, backend.calls_total, *where)
    for slug, count in backend.failures_total.items():
        found.put(Metric.BACKEND_FAILURES, count, *where, slug)
    found.put(Metric.BACKEND_WEIGHT, backend.config.weight, *where)
    _, is_same = views.same_certificate(checks, backend)
    if is_same is not None:
        found.put(Metric.BACKEND_SAME_CERTIFICATE, is_same, *where)
    for verdict, good in (("good", True), ("bad", False)):
        found.put(Metric.CHECKS, health.checks_total[good], *where, verdict)
    for kind in FlipKind:
        found.put(Metric.FLIPS, health.flips_total[kind], *where, kind)
    if (check := backend.last_check) is not None:
        found.put(Metric.CHECK_SECONDS, check.seconds, *where)
        found.put(Metric.CHECKED, views.wall_clock(check.at), *where)


def _affinity(found: Measured, checks: PooledChecks) -> None:
    pool, table = checks.pool.name, checks.pool.affinity
    found.put(Metric.AFFINITY_ENTRIES, table.count(now_s()), pool)
    found.put(Metric.AFFINITY_ENTRIES_MAX, table.config.entries_max, pool)
    found.put(Metric.AFFINITY_PINS, table.pins_count, pool)
    found.put(Metric.AFFINITY_LOOKUPS, table.counters.hits, pool, "hit")
    found.put(Metric.AFFINITY_LOOKUPS, table.counters.misses, pool, "miss")
    found.put(Metric.AFFINITY_MOVED, table.counters.moved, pool)
    found.put(Metric.AFFINITY_EXPIRED, table.counters.expired, pool)
    found.put(Metric.AFFINITY_EVICTED, table.counters.evicted, pool)


# --- certificates -----------------------------------------------------------------------------


def _certificates(found: Measured, balancer: Balancer, service: Service) -> None:
    if service.server_policy is None:
        return
    pools = call_pools_of(service.listener)
    theirs = Counter(
        known.sha256
        for checks in balancer.plan.checks.values()
        if checks.pool.name in pools
        for known, is_same in (views.same_certificate(checks, b) for b in checks.pool.backends)
        if is_same
    )
    for shown in service.server_policy.served:
        name, sha256, not_after = _identity(shown.certificate)
        where = service.listener.name, name, sha256
        found.put(Metric.NOT_AFTER, not_after, *where)
        found.put(Metric.CERTIFICATE_BACKENDS, theirs[shown.certificate.sha256], *where)


def _identity(certificate: Certificate) -> tuple[str, str, float]:
    """Return what a certificate is called, its hash, and when it expires."""
    name = certificate.names[0] if certificate.names else certificate.subject
    not_after = certificate.leaf.not_valid_after_utc.timestamp()
    return name, certificate.sha256.hex(), not_after

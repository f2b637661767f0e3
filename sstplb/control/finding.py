"""Things by the names that operators give them; whoever asks for what is not there hears what is.

Three parts of the operator's desk (``sight.py``, ``orders.py``, ``configuration.py``) look things
up here, so that an unknown name is answered alike wherever it is said. Nothing is changed.
"""

from collections.abc import Iterator

from sstplb.account.record import Record
from sstplb.balance.backend import Backend
from sstplb.control.balancer import Balancer
from sstplb.control.booking import Booking
from sstplb.control.plan import PooledChecks
from sstplb.errors import ConflictError, UnknownThingError
from sstplb.net.listener import Listener


def find_pool(balancer: Balancer, name: str) -> PooledChecks:
    """Return a pool. Raises UnknownThingError."""
    found = balancer.plan.checks.get(name)
    if found is None:
        known = ", ".join(balancer.plan.checks)
        raise UnknownThingError(f"there is no pool {name}; known: {known}", f"pools.{name}")
    return found


def find_backend(balancer: Balancer, pool: str, name: str) -> tuple[PooledChecks, Backend]:
    """Return a backend, and its pool. Raises UnknownThingError."""
    checks = find_pool(balancer, pool)
    for backend in checks.pool.backends:
        if backend.name == name:
            return checks, backend
    known = ", ".join(backend.name for backend in checks.pool.backends)
    raise UnknownThingError(
        f"there is no backend {name} in {pool}; known: {known}", backend_path(pool, name)
    )


def backend_path(pool: str, name: str) -> str:
    """Return where a backend stands, as errors and differences name it."""
    return f"pools.{pool}.backends.{name}"


def find_listener(balancer: Balancer, name: str) -> Listener:
    """Return a listener. Raises UnknownThingError."""
    found = balancer.listeners.get(name)
    if found is None:
        known = ", ".join(balancer.listeners)
        raise UnknownThingError(f"there is no listener {name}; known: {known}")
    return found


def records(balancer: Balancer, state: str = "all") -> Iterator[Record]:
    """Yield the records that are kept, the newest first; ``state`` as in ``selection.py``."""
    ledger = balancer.ledger
    running = list(ledger.running.values()) if state in ("running", "all") else []
    ended = list(ledger.ended) if state != "running" else []
    yield from sorted([*running, *ended], key=lambda record: record.id, reverse=True)


def find_record(balancer: Balancer, number: int) -> Record:
    """Return what is known of a call. Raises UnknownThingError: it never was, or is long gone."""
    for record in records(balancer):
        if record.id == number:
            return record
    raise UnknownThingError(
        f"call {number} is not running, and not among the last that ended: see the log",
        f"calls.{number}",
    )


def running_calls(balancer: Balancer) -> dict[int, Booking]:
    """Return the calls that run, by number."""
    return {c.record.id: c for c in balancer.calls() if c.record.outcome is None}


def find_running_call(balancer: Balancer, number: int) -> Booking:
    """Return a call that runs. Raises UnknownThingError, or ConflictError: it has ended."""
    call = running_calls(balancer).get(number)
    if call is None:
        known = find_record(balancer, number)
        raise ConflictError(
            f"call {number} has ended: {known.outcome} ({known.reason})", f"calls.{number}"
        )
    return call

"""What outlives the process: what operators said while it ran, and whom affinity remembers.

A restart reads the file named by ``state_file``; an upgrade passes the same on without one
(``control/takeover.py``). Kept are, by pool: standings that an operator changed, pins, which
certificates offloaded backends were seen to accept, and the affinity table. Not kept are health
(the first check knows better) and what is in the configuration file.

A standing counts only while the file still says what it said when the operator spoke, as at a
reload. Times are stored as seconds that were left, and age by the wall clock. A file that is
damaged is set aside under another name with a warning: never a reason not to start.
"""

import asyncio
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import structlog
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from sstplb.balance.pool import Pool
from sstplb.config.reading import open_file
from sstplb.config.schema import Standing
from sstplb.control.balancer import Balancer
from sstplb.control.files import replace_file
from sstplb.control.plan import Plan
from sstplb.net.call import now_s

FORMAT = 1

log = structlog.get_logger()


class _Stored(BaseModel):
    model_config = ConfigDict(extra="forbid")


class StandingState(_Stored):
    """An operator's word on a backend."""

    filed: Standing
    """What the configuration file said."""
    said: Standing


class PoolState(_Stored):
    """What is kept of one pool."""

    standings: dict[str, StandingState] = Field(default_factory=dict)
    """By backend."""
    pins: dict[str, str] = Field(default_factory=dict)
    """Backend by client network, as hexadecimal digits of its address."""
    learnt: dict[str, str] = Field(default_factory=dict)
    """By offloaded backend: SHA-256 of the certificate it was seen to accept, in hexadecimal."""
    affinity: list[tuple[str, str, float]] = Field(default_factory=list)
    """Client network, backend, seconds left; who is forgotten first comes first."""


class State(_Stored):
    """All that is kept."""

    format: int = FORMAT
    saved_at: float
    """Seconds since 1970."""
    pools: dict[str, PoolState] = Field(default_factory=dict)
    draining: list[str] = Field(default_factory=list)
    """Listeners that are closed to new calls."""


def state_of(plan: Plan, draining: Iterable[str] = ()) -> State:
    """Return what is to be kept now; ``draining`` are listeners."""
    now = now_s()
    pools = {name: _pool_state(checks.pool, now) for name, checks in plan.checks.items()}
    return State(saved_at=time.time(), pools=pools, draining=sorted(draining))


def restore(plan: Plan, state: State) -> None:
    """Take over what fits the plan; what it does not know any more is forgotten."""
    now, age_s = now_s(), max(0.0, time.time() - state.saved_at)
    for name, checks in plan.checks.items():
        if (kept := state.pools.get(name)) is not None:
            _restore_pool(checks.pool, kept, now, age_s)


def load(path: Path) -> State | None:
    """Read the file; None: there is none, or it was damaged and has been set aside."""
    try:
        with open_file(path) as file:
            content = file.read()
    except FileNotFoundError:
        return None
    except OSError as error:
        log.warning("state_unreadable", message=f"{path} cannot be read: {error}")
        return None
    try:
        state = State.model_validate_json(content)
        if state.format != FORMAT:
            raise ValueError(f"expected format {FORMAT}, got {state.format}")
    except (ValidationError, ValueError) as error:
        aside = path.with_name(f"{path.name}.damaged")
        first = str(error).splitlines()[0]
        try:
            path.replace(aside)
        except OSError as failure:
            log.warning("state_damaged", message=f"{path}: {first}; not used ({failure})")
        else:
            log.warning("state_damaged", message=f"{path}: {first}; set aside as {aside.name}")
        return None
    return state


def save(path: Path, state: State) -> None:
    """Write the file. Raises OSError."""
    replace_file(path, state.model_dump_json() + "\n")


class Keeper:
    """Writes a balancer's state file when there is something new in it."""

    def __init__(self, balancer: Balancer) -> None:
        self._balancer = balancer
        self._written: tuple[Path, State] | None = None
        self._is_failing = False

    def state(self) -> State:
        """Return what is to be kept now."""
        listeners = self._balancer.listeners.items()
        draining = [name for name, listener in listeners if listener.is_draining]
        return state_of(self._balancer.plan, draining)

    async def save(self) -> None:
        """Write it, if there is a file and anything new; a failure is logged once."""
        path = self._balancer.prepared.config.state_file
        if path is None:
            return
        state = self.state()
        before, old = self._written or (None, state)
        if before == path and _lasting(old) == _lasting(state):
            return
        try:
            await asyncio.to_thread(save, path, state)
        except OSError as error:
            if not self._is_failing:
                log.error("state_not_saved", message=f"{path} cannot be written: {error.strerror}")  # noqa: TRY400
            self._is_failing = True
        else:
            self._written, self._is_failing = (path, state), False


def _pool_state(pool: Pool, now: float) -> PoolState:
    table = pool.affinity
    return PoolState(
        standings={
            backend.name: StandingState(filed=backend.config.standing, said=backend.standing)
            for backend in pool.backends
            if backend.standing is not backend.config.standing
        },
        pins={key.hex(): backend for key, backend in table.pins().items()},
        learnt={
            backend.name: backend.learnt.sha256.hex()
            for backend in pool.backends
            if backend.learnt.sha256 is not None
        },
        affinity=[(key.hex(), backend, left) for key, backend, left in table.kept(now)],
    )


def _restore_pool(pool: Pool, kept: PoolState, now: float, age_s: float) -> None:
    names = {backend.name for backend in pool.backends}
    for backend in pool.backends:
        known = kept.standings.get(backend.name)
        if known is not None and known.filed is backend.config.standing:
            backend.standing = known.said
        with suppress(ValueError):
            if learnt := bytes.fromhex(kept.learnt.get(backend.name, "")):
                backend.learnt.accepted(learnt)
    if not pool.config.affinity.enabled:
        return
    for digits, name in kept.pins.items():
        if name in names and (key := _key(digits)) is not None:
            pool.affinity.pin(key, name)
    for digits, name, left_s in kept.affinity:
        if name in names and left_s > age_s and (key := _key(digits)) is not None:
            rest_s = min(left_s - age_s, pool.config.affinity.timeout)
            pool.affinity.restore(key, name, now + rest_s)


def _key(digits: str) -> bytes | None:
    try:
        key = bytes.fromhex(digits)
    except ValueError:
        return None
    return key if len(key) in (4, 16) else None


def _lasting(state: State) -> Mapping[str, Any]:
    """Return what makes writing worth while: seconds that pass are nothing new."""
    pools = {
        name: (
            pool.standings,
            pool.pins,
            pool.learnt,
            [(key, backend) for key, backend, _ in pool.affinity],
        )
        for name, pool in state.pools.items()
    }
    return {"pools": pools, "draining": state.draining}

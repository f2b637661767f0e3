"""The configuration while it runs: put in force from the file, changed without it, written back.

Weight, calls, and which backends there are, are configuration: they are changed by making a new
one and swapping it in as a reload would, only that nothing is loaded again. The file is not
touched. What differs from it is *drift* (``drift.py``): ``save`` writes it back, ``reload`` drops
it and says so. How many workers there are changes with the process only: a reload leaves that as
it is, and says so each time. Standings (``orders.py``) and the log level are drift, too; only
standing outlives a reload that did not change it in the file (``balance/backend.py``).

Whatever is refused, at whatever step, has changed nothing.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import structlog
import yaml

from sstplb.config import loader, schema
from sstplb.config.schema import LogLevel, Mode, Standing
from sstplb.control import drift, plan, views
from sstplb.control.balancer import Balancer
from sstplb.control.doors import Doors, NoDoors
from sstplb.control.drift import Difference, Review
from sstplb.control.finding import backend_path, find_backend, find_pool
from sstplb.control.logs import Logs
from sstplb.control.manager import ServiceManager
from sstplb.control.metrics import Tally
from sstplb.control.plan import Prepared, all_warnings
from sstplb.control.turns import Turns
from sstplb.errors import BadValueError, ConfigError, ConflictError, KilledError, Problem

log = structlog.get_logger()


class Configuration:
    """What is in force, what the file said, and how either becomes the other."""

    def __init__(
        self,
        balancer: Balancer,
        file: Path,
        turns: Turns,
        tally: Tally,
        logs: Logs,
        manager: ServiceManager,
    ) -> None:
        self.file = file
        self.doors: Doors = NoDoors()
        """The admin side's, which a reload opens and shuts."""
        self._balancer = balancer
        self._turns = turns
        self._tally = tally
        self._logs = logs
        self._manager = manager
        self._filed = balancer.prepared.config
        """What the file put in force when it was loaded."""

    @property
    def in_force(self) -> schema.Config:
        """What new calls are carried by."""
        return self._balancer.prepared.config

    def shown(self) -> dict[str, Any]:
        """Return what is in force, every knob shown, secrets only by their place."""
        return drift.plain(self._lived())

    def drift(self) -> list[Difference]:
        """Return what was changed at run time: from the file to what is running."""
        return drift.differences(self._filed, self._lived())

    def standings_in_file(self) -> Mapping[tuple[str, str], str]:
        """Return the standing that the file gives each backend, by pool and name."""
        return drift.standings(self._filed)

    # --- the file -----------------------------------------------------------------------------

    async def check(self) -> Review:
        """Look at the file as it is now, and say what a reload would do."""
        try:
            filed, prepared = await asyncio.to_thread(self._load)
        except ConfigError as error:
            return Review(tuple(map(str, error.problems)), (), (), ())
        return self._review(filed, prepared)

    async def reload(self) -> Review:
        """Put the file in force. Raises ConfigError or ConflictError: nothing has changed then."""
        async with self._turns.take_while_it_stays(), self._telling_manager():
            before = self._balancer.prepared
            try:
                # Reading files and parsing keys takes a while: running calls must not wait.
                with self._tally.reloads.counted():
                    filed, prepared = await asyncio.to_thread(self._load)
                    self._turns.insist_that_it_stays()
                    self.doors.open(prepared)
                    review = self._review(filed, prepared)
                    try:
                        await self._balancer.reload(prepared)
                    except ConfigError:
                        self.doors.settle(None)
                        raise
                    self._logs.apply(prepared.config.log)
            except ConfigError as error:
                for problem in error.problems:
                    log.error("reload_failed", message=f"nothing has changed: {problem}")  # noqa: TRY400 - no trace for a typo
                raise
            self._tally.certificate_reloads.is_last_ok = True  # they were read along with it
            self.doors.settle(prepared)
            self._filed = prepared.config
        warn(self._warnings(filed, prepared))
        for lost in review.drift_lost:
            log.warning("drift_dropped", message=f"{lost.path}: was {lost.before}, is {lost.after}")
        text = f"{self.file} is in force; running calls keep what they had"
        log.info("reloaded", message=text + _engine_news(before, prepared))
        return review

    async def reload_certificates(self) -> None:
        """Read every certificate and key again.

        Raises ConfigError or ConflictError: nothing has changed then.
        """
        async with self._turns.take_while_it_stays():
            before = self._balancer.prepared
            with self._tally.certificate_reloads.counted():
                prepared = await asyncio.to_thread(plan.prepare, self.in_force)
                self._turns.insist_that_it_stays()
                await self._balancer.reload(prepared, recheck=False, are_renewed=True)
            self.doors.settle(prepared)
            text = "certificates and keys were read again"
            log.info("certificates_reloaded", message=text + _engine_news(before, prepared))

    async def save(self) -> list[Difference]:
        """Write the drift back to the file; return what was written. Raises ConflictError."""
        async with self._turns.take_while_it_stays():
            written, lived = self.drift(), self._lived()
            if written:
                await asyncio.to_thread(drift.save, self.file, self._filed, lived)
                self._filed = lived
                # The objects' own configuration must say what the file now says: standing, too.
                await self._swap(lived)
                text = f"{len(written)} changes written to {self.file}"
                log.info("configuration_saved", message=text)
        return written

    # --- without the file ---------------------------------------------------------------------

    async def set_weight(self, pool: str, name: str, weight: int) -> None:
        """Set a backend's share. Raises UnknownThingError, ConflictError or BadValueError."""
        await self._change_backend(pool, name, "weight", weight)

    async def set_calls_max(self, pool: str, name: str, calls_max: int) -> None:
        """Set how many calls a backend may have.

        Raises UnknownThingError, ConflictError or BadValueError.
        """
        await self._change_backend(pool, name, "calls_max", calls_max)

    async def declare(self, pool: str, name: str, sha256: str | None) -> None:
        """Say which certificate an offloaded RRAS was told to accept; None: find out.

        Raises UnknownThingError, ConflictError or BadValueError.
        """
        checks, backend = find_backend(self._balancer, pool, name)
        if Mode.OFFLOAD not in checks.modes:
            raise ConflictError(
                f"{name} is not offloaded: it shows its certificate itself",
                backend_path(pool, name),
            )
        before = backend.learnt.sha256
        await self._change_backend(pool, name, "rras_certificate_sha256", sha256)
        if before is not None and sha256 is None:
            backend.learnt.forget()  # the operator would not ask for what we believe already

    async def add_backend(self, pool: str, backend: schema.Backend) -> None:
        """Add a backend to a pool. Raises UnknownThingError, ConflictError or BadValueError."""
        async with self._turns.take_while_it_stays():
            find_pool(self._balancer, pool)
            values = self._values()
            if any(known["name"] == backend.name for known in values["pools"][pool]["backends"]):
                raise ConflictError(f"{pool} has a backend {backend.name} already")
            given = backend.model_dump(mode="json", exclude_unset=True)
            values["pools"][pool]["backends"].append(given)
            await self._adjust(values)
            text = f"{backend.name} at {backend.address}"
            log.info("backend_added", message=text, pool=pool)

    async def remove_backend(self, pool: str, name: str, *, force: bool) -> None:
        """Take a backend out of its pool. Raises UnknownThingError or ConflictError.

        ``force`` ends the calls it still has; it must be draining or off.
        """
        async with self._turns.take_while_it_stays():
            _, backend = find_backend(self._balancer, pool, name)
            theirs = [call for call in self._balancer.calls() if call.backend is backend]
            if force and backend.standing is Standing.ACTIVE:
                raise ConflictError(f"{name} is active: drain it first", backend_path(pool, name))
            if not force and backend.places_taken:
                raise ConflictError(
                    f"{name} has {backend.places_taken} calls: drain it and wait, or end them "
                    "with force",
                    backend_path(pool, name),
                )
            values = self._values()
            rest = [b for b in values["pools"][pool]["backends"] if b["name"] != name]
            if not rest:
                path = backend_path(pool, name)
                raise ConflictError(f"{name} is the last backend of {pool}", path)
            values["pools"][pool]["backends"] = rest
            await self._adjust(values)
            self._balancer.end_calls(theirs, KilledError(f"{name} was removed by the operator"))
            find_pool(self._balancer, pool).pool.affinity.forget_pins_to(name)
            log.info("backend_removed", message=f"{name} is no longer in {pool}", pool=pool)

    def set_log_level(self, level: LogLevel) -> None:
        """Write what is at least this severe."""
        self._logs.set_level(level)
        log.info("log_level", message=f"the log level is {level} now")

    # --- inside -------------------------------------------------------------------------------

    def _load(self) -> tuple[schema.Config, Prepared]:
        """Return what the file says, and what of it a reload can put in force."""
        loaded = plan.load(self.file)
        config = drift.put_in_force(loaded.config, self.in_force)
        return loaded.config, replace(loaded, config=config)

    def _warnings(self, filed: schema.Config, prepared: Prepared) -> list[Problem]:
        """Return what will hurt, and what has to wait."""
        found = all_warnings(prepared)
        if prepared.config.workers != filed.workers:
            now = self._balancer.crew.count
            carry = f"{now} workers carry" if now > 1 else "one process carries"
            text = (
                f"takes effect with a restart or an upgrade (sstplb ctl upgrade); {carry} calls now"
            )
            found.append(Problem(text, "workers"))
        return found

    def _lived(self) -> schema.Config:
        """Return the configuration as it is lived."""
        return drift.lived(self.in_force, self._balancer.plan, self._logs.level)

    def _review(self, filed: schema.Config, prepared: Prepared) -> Review:
        new, lived = prepared.config, self._lived()
        drifted = {difference.path for difference in drift.differences(self._filed, lived)}
        lost = drift.differences(lived, drift.after_reload(new, self._balancer.plan))
        return Review(
            (),
            tuple(map(str, self._warnings(filed, prepared))),
            tuple(drift.differences(self._filed, filed)),
            tuple(difference for difference in lost if difference.path in drifted),
        )

    def _values(self) -> dict[str, Any]:
        """Return the configuration in force as it would have to be written, to be edited."""
        values: dict[str, Any] = self.in_force.model_dump(mode="json", exclude_unset=True)
        return values

    async def _change_backend(
        self, pool: str, name: str, knob: str, value: int | str | None
    ) -> None:
        async with self._turns.take_while_it_stays():
            find_backend(self._balancer, pool, name)
            values = self._values()
            for backend in values["pools"][pool]["backends"]:
                if backend["name"] == name:
                    backend[knob] = value
            await self._adjust(values)
            text = f"{name}: {knob} is {value} now"
            log.info("backend_changed", message=text, pool=pool, backend=name)

    async def _adjust(self, values: dict[str, Any]) -> None:
        """Swap in edited values, judged as a file would be. Raises BadValueError."""
        text = yaml.safe_dump(values, sort_keys=False)
        try:
            config = loader.parse(text)
        except ConfigError as error:
            first = error.problems[0]
            raise BadValueError(first.message, first.path) from error
        await self._swap(config)

    async def _swap(self, config: schema.Config) -> None:
        """Swap in a configuration that names nothing new to load."""
        prepared = replace(self._balancer.prepared, config=config)
        await self._balancer.reload(prepared, recheck=False)

    @contextlib.asynccontextmanager
    async def _telling_manager(self) -> AsyncIterator[None]:
        """Let the service manager know how long a reload takes; and how it ended."""
        self._manager.reloading()
        try:
            yield
        except ConfigError as error:
            self._manager.ready(f"the file is not in force: {error.problems[0]}")
            raise
        self._manager.ready(views.in_brief(self._balancer))


def _engine_news(before: Prepared, now: Prepared) -> str:
    return "" if now.engine == before.engine else f"; TLS engine for new calls: {now.engine}"


def warn(problems: list[Problem]) -> None:
    """Write warnings about a configuration to the log."""
    for problem in problems:
        log.warning("configuration", message=str(problem))

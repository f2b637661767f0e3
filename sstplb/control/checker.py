"""Keeps asking every backend whether it is well, and where it is.

One task per backend: probe, report, sleep until the next is due. Checks are staggered over the
interval and jittered, so that many backends are not asked in one beat. Backends known by a name
have it resolved by the same task; ``balance/backend.py`` says what a changed answer means.

What a probe learns of a backend's certificate is kept for the same-certificate rule; where it does
not match what clients are shown, ``mismatch.py`` says so. A login to an offloaded backend proves
which of our certificates it accepts: when the binding to one is refused, the next is tried at once.
"""

import asyncio
import random
import socket
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace

import structlog

from sstplb.balance.backend import Backend, LastCheck
from sstplb.balance.health import Flip
from sstplb.balance.same_certificate import choice
from sstplb.config.schema import CheckMethod, Mode, Standing, Transport
from sstplb.control.mismatch import Mismatches
from sstplb.control.plan import Plan, PooledChecks
from sstplb.net.call import now_s
from sstplb.net.dial import Way
from sstplb.net.probe import Probed, probe
from sstplb.net.service import Route
from sstplb.protocol.watcher import BINDING_REFUSED
from sstplb.tls.certificate import Certificate, leaf_sha256

log = structlog.get_logger()

OnFlip = Callable[[Backend, Flip | None], None]

TRANSCRIPT_CHARS_MAX = 8192
"""How much of a check's transcript is kept with its backend."""


class Checker:
    """Checks all backends of one plan, until it is stopped."""

    def __init__(
        self,
        plan: Plan,
        mismatches: Mismatches,
        on_flip: OnFlip,
        on_new_leaf: Callable[[str], None],
    ) -> None:
        """``on_new_leaf`` is told of the pool when a backend has another certificate."""
        self._plan, self._mismatches = plan, mismatches
        self._on_flip, self._on_new_leaf = on_flip, on_new_leaf
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self, *, only_new: bool = False, are_renewed: bool = False) -> None:
        """Check every backend once, side by side, then go on in the background.

        ``only_new``: without a first check of those that were checked before; unless our
        certificates were read again (``are_renewed``) and theirs, as it is known, does not fit any
        more: it may have been renewed along with ours.
        """
        everyone = [
            (checks, backend)
            for checks in self._plan.checks.values()
            for backend in checks.pool.backends
        ]
        async with asyncio.TaskGroup() as first_round:
            for checks, backend in everyone:
                is_known = only_new and backend.health.is_checked
                if not is_known or (are_renewed and checks.is_kept_out(backend)):
                    first_round.create_task(self._check_once(checks, backend), name="first check")
        for checks, backend in everyone:
            self._mismatches.look(checks, backend)
        for number, (checks, backend) in enumerate(everyone):
            delay = checks.pool.check.interval * (number + 1) / len(everyone)
            task = asyncio.create_task(
                self._keep(checks, backend, delay), name=f"checks of {backend.name}"
            )
            self._tasks.append(task)

    async def stop(self) -> None:
        """Stop checking."""
        for task in self._tasks:
            task.cancel()
        for task in self._tasks:
            with suppress(asyncio.CancelledError):
                await task
        self._tasks.clear()

    async def check_now(self, backend: Backend) -> None:
        """Check one backend out of turn; the verdict counts like any other."""
        await self._check_once(self._plan.checks[backend.pool], backend)

    async def _keep(self, checks: PooledChecks, backend: Backend, delay: float) -> None:
        """Check one backend for ever."""
        due = now_s() + delay
        while True:
            await self._sleep_until(backend, due)
            await self._check_once(checks, backend)
            check = checks.pool.check
            spread = check.jitter * random.uniform(-1.0, 1.0)  # noqa: S311 - not a secret
            due = max(due + check.interval * (1.0 + spread), now_s())

    async def _sleep_until(self, backend: Backend, due: float) -> None:
        """Sleep, but wake where time alone makes a backend down (F5's judgement)."""
        while (now := now_s()) < due:
            wake_at = backend.health.wake_at
            if wake_at is not None and wake_at <= now:
                self._on_flip(backend, backend.health.wake(now))
                wake_at = None
            await asyncio.sleep(min(due, wake_at or due) - now)

    async def _check_once(self, checks: PooledChecks, backend: Backend) -> None:
        """Check; a mistake of ours in it must not end the checks."""
        try:
            await self._ask(checks, backend)
        except Exception as error:
            log.exception("internal_error", message=f"check of {backend.name}: {error!r}")

    async def _ask(self, checks: PooledChecks, backend: Backend) -> None:
        if backend.standing is Standing.OFF:
            return
        await self._resolve(backend)
        if backend.address is None:
            return
        result = await _ask(checks, backend)
        backend.last_check = _kept(result)
        self._on_flip(backend, backend.health.report(result.verdict, now_s()))
        if result.leaf_der is not None:
            self._learn_certificate(checks, backend, result.leaf_der)
        self._mismatches.look(checks, backend)

    async def _resolve(self, backend: Backend) -> None:
        """Ask the name server where a backend is; a failure changes nothing."""
        address = backend.config.address
        if not address.is_name:
            return
        try:
            answers = await asyncio.get_running_loop().getaddrinfo(
                address.host, address.port, type=socket.SOCK_STREAM
            )
        except OSError as error:
            event = "backend_unresolved" if backend.address is None else "resolve_failed"
            log.warning(event, message=f"{backend.name}: cannot resolve {address.host}: {error}")
            return
        before = backend.address
        hosts = tuple(str(answer[4][0]) for answer in answers)
        if backend.set_address(hosts, now_s()):
            log.info(
                "backend_address",
                message=f"{backend.name}: {address.host} is {backend.address}"
                + (f", was {before}; new calls go there" if before else ""),
                backend=backend.name,
                address=backend.address,
            )

    def _learn_certificate(self, checks: PooledChecks, backend: Backend, der: bytes) -> None:
        """Note the leaf a probe saw; pass it on when it is news."""
        before, backend.leaf_sha256 = backend.leaf_sha256, leaf_sha256(der)
        if backend.leaf_sha256 != before and checks.policy is not None:
            checks.policy.sessions.clear()  # they were made with the old certificate
            self._on_new_leaf(backend.pool)


async def _ask(checks: PooledChecks, backend: Backend) -> Probed:
    """Probe once; a login that may have been made with the wrong certificate, with each."""
    way, check, served = way_to_check(checks, backend), checks.pool.check, list(checks.served)
    is_told = backend.config.rras_certificate_sha256 is not None
    learns = check.method is CheckMethod.LOGIN and way.policy is None and not is_told
    while True:
        bound = _to_bind_to(backend, served) if way.policy is None else None
        leaf_der = bound.leaf_der if bound is not None else b""
        result = await probe(way, check, password=checks.password, leaf_der=leaf_der)
        if not learns or bound is None:
            return result
        if result.verdict.good:
            backend.learnt.accepted(bound.sha256)
        elif result.failure == BINDING_REFUSED:
            backend.learnt.refused(bound.sha256, None)
            served.remove(bound)
            if served:
                continue
        return result


def _to_bind_to(backend: Backend, served: list[Certificate]) -> Certificate | None:
    """Return the certificate that a login in plain HTTP binds to; None: clients are shown none."""
    if not served:
        return None
    hashes = [certificate.sha256 for certificate in served]
    chosen = choice(Mode.OFFLOAD, backend, hashes, hashes)
    return next((c for c in served if c.sha256 == chosen), served[0])


def _kept(result: Probed) -> LastCheck:
    verdict = result.verdict
    if len(verdict.transcript) > TRANSCRIPT_CHARS_MAX:
        verdict = replace(verdict, transcript=verdict.transcript[:TRANSCRIPT_CHARS_MAX] + "\n* …")
    return LastCheck(now_s(), result.seconds, verdict, result.leaf_der is not None)


def way_to_check(checks: PooledChecks, backend: Backend) -> Way:
    """Return how a check reaches a backend: as a call would, but for another port or transport."""
    check, config = checks.pool.check, backend.config
    over_tls = {CheckMethod.HTTPS: True, CheckMethod.HTTP: False, CheckMethod.TCP: False}.get(
        check.method or CheckMethod.TCP, checks.config.transport is Transport.TLS
    )
    port = check.port or config.address.port
    assert backend.address is not None, "the caller has looked"
    assert port is not None, "the loader fills in the port"
    shown = checks.served[0] if checks.served else None
    route = Route(checks.pool.name, checks.config, checks.policy)
    return Way(
        (backend.address, port),
        policy=checks.policy if over_tls else None,
        server_name=route.server_name(config, shown),
    )

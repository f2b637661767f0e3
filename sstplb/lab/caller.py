"""Placing SSTP calls: one, to see what happens, or many, for load.

A call goes through TLS (our own engine, verified or not), the HTTP opening, CALL_CONNECT, PPP
with authentication, crypto binding and IPCP; then a ping through the tunnel, data that must come
back the same, some time held, and a polite end. ``CallReport`` says how far it came, and why not
farther.
"""

import asyncio
import contextlib
import hashlib
import os
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

from sstplb.errors import CallError
from sstplb.net.call import now_s
from sstplb.net.caller import Caller, new_correlation_id
from sstplb.net.dial import Way, dial
from sstplb.net.leg import Leg
from sstplb.net.tcp import Address
from sstplb.protocol import ipv4
from sstplb.protocol.caller import CallerSettings, Failure, Step, StepKind
from sstplb.protocol.registry import HELLO_TIMEOUT_S, HashProtocol
from sstplb.tls.certificate import Certificate, certificate_from_der
from sstplb.tls.info import TlsInfo
from sstplb.tls.policy import ClientPolicy

DATAGRAM_BYTES = 1300
WINDOW = 32
"""Datagrams under way at one time; more, and both ends could wait for each other to read."""
ECHO_TIMEOUT_S = 10.0
LOOK_S = 0.05
"""How often a caller that holds looks whether it is to hang up."""


Tap = Callable[[bool, bytes], None]
"""Is shown what is said inside TLS: whether the caller speaks, and the bytes."""


@dataclass(frozen=True, slots=True)
class CallPlan:
    """One call to be placed."""

    address: Address
    server_name: str
    user: str
    password: str = field(repr=False)
    policy: ClientPolicy | None = None
    """TLS; None speaks plain HTTP, as an offloading balancer does towards RRAS."""
    bind_to: Certificate | None = None
    """Bind to this certificate instead of the one seen: what a man in the middle looks like."""
    source_host: str | None = None
    data_bytes: int = 0
    """How much to send through the tunnel and expect back."""
    hold_s: float = 0.0
    """How long to stay after that."""
    hash_protocol: HashProtocol | None = None
    tenant_id: str | None = None
    computer: str = "LAB-PC"
    """What the caller's computer is called; empty: it does not say."""
    hello_timeout_s: float = HELLO_TIMEOUT_S
    """Silence before a hello, and again before the call is given up."""
    mute_s: float = 0.0
    """How long to hear and say nothing at the end, as who lost its network; then just to go."""
    timeout_s: float = 30.0
    """For the opening."""


@dataclass(slots=True)
class CallReport:
    """What became of a call."""

    correlation_id: str
    began: float
    """When it began to connect; on the clock of the steps."""
    steps: list[Step] = field(default_factory=list)
    failure: Failure | None = None
    certificate: Certificate | None = None
    """What the server showed."""
    tls_version: str = ""
    address: str = ""
    local_address: Address | None = None
    """Where the call came from."""
    ping_s: float | None = None
    echoed_bytes: int = 0
    connect_s: float | None = None
    """From the first packet, TCP's, to an address."""

    @property
    def ok(self) -> bool:
        """Whether everything that was planned happened."""
        return self.failure is None


async def place_call(
    plan: CallPlan,
    on_step: Callable[[Step], None] | None = None,
    on_connected: Callable[[], None] | None = None,
    tap: Tap | None = None,
    until: asyncio.Event | None = None,
) -> CallReport:
    """Place one call from beginning to end. Never raises for what goes wrong with it.

    ``until`` ends the time that is held before ``plan.hold_s`` is over.
    """
    began = now_s()
    report = CallReport(new_correlation_id(), began)

    def note(step: Step) -> None:
        report.steps.append(step)
        if on_step is not None:
            on_step(step)

    way = Way(
        plan.address,
        policy=plan.policy,
        server_name=plan.server_name,
        source_host=plan.source_host,
    )
    try:
        async with asyncio.timeout(plan.timeout_s):
            leg = await dial(way)
    except (CallError, TimeoutError) as error:
        sentence = str(error) or f"no connection within {plan.timeout_s:g} s"
        if isinstance(error, TimeoutError) and plan.policy is not None:
            sentence += ", TLS included: does the server speak plain HTTP there (--plain)?"
        # To who dials it is the server; whether it is anybody's backend is not known here.
        reason = getattr(error, "reason", "timeout").removeprefix("backend_")
        report.failure = Failure(reason, sentence)
        note(Step(StepKind.FAILED, sentence, now_s()))
        return report
    host, port = leg.sock.getsockname()[:2]
    report.local_address = (host, port)
    try:
        seen = _note_tls(leg.info, report, note) if leg.info is not None else None
        binds_to = plan.bind_to or seen
        settings = CallerSettings(
            host=plan.server_name,
            correlation_id=report.correlation_id,
            leaf_der=binds_to.leaf_der if binds_to is not None else b"",
            user=plan.user,
            password=plan.password,
            hash_protocol=plan.hash_protocol,
            tenant_id=plan.tenant_id,
            computer=plan.computer,
            hello_timeout_s=plan.hello_timeout_s,
        )
        caller = Caller(leg if tap is None else TappedLeg(leg, tap), settings, note)
        await _live(caller, plan, report, began, on_connected, until)
        report.failure = report.failure or caller.machine.failure
    finally:
        leg.close()
    return report


async def place_calls(
    plans: list[CallPlan],
    *,
    at_once: int,
    rate_per_s: float = 0.0,
    on_connected: Callable[[], None] | None = None,
) -> AsyncIterator[CallReport]:
    """Place many calls, at most ``at_once`` at a time; yield each report as it ends."""
    queue: asyncio.Queue[CallReport] = asyncio.Queue()
    places = asyncio.Semaphore(at_once)

    async def one(plan: CallPlan) -> None:
        try:
            queue.put_nowait(await place_call(plan, on_connected=on_connected))
        finally:
            places.release()

    async def all_of_them(group: asyncio.TaskGroup) -> None:
        for plan in plans:
            await places.acquire()
            group.create_task(one(plan), name="caller")
            if rate_per_s:
                await asyncio.sleep(1.0 / rate_per_s)

    async with asyncio.TaskGroup() as group:
        group.create_task(all_of_them(group), name="callers")
        for _ in plans:
            yield await queue.get()


class TappedLeg(Leg):
    """A leg that somebody listens in on."""

    def __init__(self, leg: Leg, tap: Tap) -> None:
        super().__init__(leg.sock, leg.readiness)
        self._leg, self._tap = leg, tap

    @property
    def info(self) -> TlsInfo | None:
        """As the leg below has it."""
        return self._leg.info

    @property
    def backlog(self) -> bool:
        """As the leg below has it."""
        return self._leg.backlog

    def take(self, into: memoryview) -> int | None:
        """Take from the leg below, and show it."""
        count = self._leg.take(into)
        if count:
            self._tap(False, bytes(into[:count]))
        return count

    def give(self, data: memoryview) -> int:
        """Give to the leg below, and show it."""
        count = self._leg.give(data)
        if count:
            self._tap(True, bytes(data[:count]))
        return count

    def flush(self) -> None:
        """As the leg below does it."""
        self._leg.flush()

    def end(self) -> bool:
        """As the leg below does it."""
        return self._leg.end()

    def close(self) -> None:
        """As the leg below does it."""
        self._leg.close()


def _note_tls(info: TlsInfo, report: CallReport, note: Callable[[Step], None]) -> Certificate:
    assert info.peer_leaf_der is not None, "a server shows a certificate"
    certificate = certificate_from_der(info.peer_leaf_der)
    report.certificate, report.tls_version = certificate, info.version
    sentence = (
        f"{info.version}, {info.cipher}; certificate {certificate.subject}, "
        f"SHA-256 {certificate.sha256.hex()}, SHA-1 {certificate.sha1.hex()}"
    )
    note(Step(StepKind.TLS, sentence, now_s()))
    return certificate


async def _live(
    caller: Caller,
    plan: CallPlan,
    report: CallReport,
    began: float,
    on_connected: Callable[[], None] | None,
    until: asyncio.Event | None,
) -> None:
    """Connect, ping, send data, hold, hang up."""
    machine = caller.machine
    try:
        async with asyncio.timeout(plan.timeout_s):
            if not await caller.connect():
                return
    except TimeoutError:
        sentence = f"not connected within {plan.timeout_s:g} s"
        report.failure = Failure("timeout", sentence)
        return
    report.connect_s, report.address = now_s() - began, str(machine.address)
    if on_connected is not None:
        on_connected()
    try:
        async with asyncio.timeout(ECHO_TIMEOUT_S + plan.data_bytes / 1e5):
            report.ping_s = await _ping(caller)
            report.echoed_bytes = await _exchange(caller, plan.data_bytes, report)
    except TimeoutError:
        report.failure = Failure("no_echo", "what was sent through the tunnel did not come back")
    await _hold(caller, now_s() + plan.hold_s, until)
    if plan.mute_s:
        await asyncio.sleep(plan.mute_s)
    elif not machine.finished:
        await caller.hang_up()


async def _hold(caller: Caller, end_s: float, until: asyncio.Event | None) -> None:
    """Stay, and answer what the server asks, until it is time to hang up."""
    while not caller.machine.finished and (left_s := end_s - now_s()) > 0:
        if until is not None and until.is_set():
            break
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(left_s if until is None else min(left_s, LOOK_S)):
                await caller.run_until(lambda: False)


async def _ping(caller: Caller) -> float | None:
    """Ping the server through the tunnel; return the seconds it took."""
    machine = caller.machine
    assert machine.address is not None, "connected means an address"
    assert machine.server_address is not None, "connected means an address"
    payload = os.urandom(56)
    sent_at = now_s()
    await caller.send_ip(ipv4.echo_request(machine.address, machine.server_address, 1, 1, payload))
    answered: list[float] = []

    def came_back() -> bool:
        for data in machine.take_ip():
            got = ipv4.parse(data)
            if got is not None and ipv4.is_echo_reply(got, 1, 1, payload):
                answered.append(now_s() - sent_at)
        return bool(answered)

    await caller.run_until(came_back)
    return answered[0] if answered else None


async def _exchange(caller: Caller, total: int, report: CallReport) -> int:
    """Send datagrams to the echo port and compare what comes back; return the bytes echoed."""
    machine = caller.machine
    assert machine.address is not None, "connected means an address"
    assert machine.server_address is not None, "connected means an address"
    here, there = (machine.address, 40000), (machine.server_address, ipv4.ECHO_PORT)
    sent, received = hashlib.sha256(), hashlib.sha256()
    count = -(-total // DATAGRAM_BYTES)
    echoed = 0
    back = 0
    for number in range(count):
        size = min(DATAGRAM_BYTES, total - number * DATAGRAM_BYTES)
        payload = (number.to_bytes(4, "big") + os.urandom(DATAGRAM_BYTES - 4))[:size]
        sent.update(payload)
        await caller.send_ip(ipv4.udp(here, there, payload))
        last = number == count - 1
        wanted = count if last else number + 1 - WINDOW

        def enough(wanted: int = wanted) -> bool:
            nonlocal echoed, back
            for data in machine.take_ip():
                got = ipv4.parse(data)
                payload = ipv4.udp_payload(got) if got is not None else None
                if payload is not None:
                    received.update(payload)
                    echoed += len(payload)
                    back += 1
            return back >= wanted

        await caller.run_until(enough)
        if machine.finished:
            break
    if count and sent.digest() != received.digest():
        report.failure = Failure("corrupted", "what came back is not what was sent")
    return echoed

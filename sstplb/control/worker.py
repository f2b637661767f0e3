"""A worker process: carries calls, decides nothing.

Started by ``control/workers.py`` with one end of a channel. It is given connections that were
accepted and admitted, runs ``net/session.py`` for each, and passes on every word its calls have
with their bookings. When the balancer is gone it ends its calls and itself.

From the balancer:

    ("propose", config, ticket_keys)     load what it names; answered by "proposed"
    ("adopt",)                           from the next call on
    ("carry", listener, record) + socket
    ("answer", call, is_error, value)    to what that call asked
    ("end", call, error, politely)
    ("forget_sessions", pool)
    ("do", number, method, arguments)    something of the carrier's; answered by "done"

To the balancer:

    ("proposed", problems, served)       what is wrong; SHA-256 of the certificates it would show
    ("ask", call, method, arguments)     a call waits for the answer: one question at a time
    ("tell", call, method, arguments)
    ("done", number, is_error, value)
    ("log", level, event, values)
    ("report", cpu_s, moved)             once a second: (call, bytes in, bytes out) of who moved
"""

import asyncio
import signal
import socket
import sys
import time
from collections.abc import Mapping, MutableMapping
from typing import Any

import structlog
import uvloop

from sstplb.account.record import Address, Outcome, Record
from sstplb.config import schema
from sstplb.control import collector
from sstplb.control.channel import Channel, Message
from sstplb.control.plan import Prepared, lay_out_services, prepare, served_sha256
from sstplb.errors import ConfigError, OperatorError, StoppedError
from sstplb.net.booking import Chosen
from sstplb.net.call import Call
from sstplb.net.carrier import Carrier
from sstplb.net.service import Service

REPORT_S = 1.0
REPORTED_AT_ONCE = 1000
"""Calls in one report; more make several."""


class Worker:
    """What a worker process is."""

    def __init__(self, sock: socket.socket) -> None:
        self.ended = asyncio.Event()
        self._channel = Channel(sock, self._take, self._left_alone)
        self._loop = asyncio.get_running_loop()
        self._prepared: Prepared | None = None
        self._proposed: Prepared | None = None
        self._services: Mapping[str, Service] = {}
        self._carrier: Carrier | None = None
        self._bookings: dict[int, Stub] = {}
        self._reported: dict[int, tuple[int, int]] = {}

    def begin(self) -> None:
        """Report from now on; write the log through the balancer."""
        structlog.configure(
            processors=[
                structlog.processors.add_log_level,
                structlog.processors.format_exc_info,
                self._log,
            ],
            cache_logger_on_first_use=False,
        )
        self._report()

    async def stop(self) -> None:
        """End what still runs."""
        if self._carrier is not None:
            for call in tuple(self._carrier.calls):
                call.end(StoppedError("the balancer is gone"), politely=True)
            await self._carrier.stop()
        self._channel.close()

    # --- from the balancer ------------------------------------------------------------------------

    def _take(self, message: Message, descriptors: list[int]) -> None:
        name, *rest = message
        if name == "carry":
            self._carry(rest[0], rest[1], socket.socket(fileno=descriptors[0]))
        elif name == "answer":
            if (stub := self._bookings.get(rest[0])) is not None:
                stub.answered(rest[1], rest[2])
        elif name == "end":
            if (stub := self._bookings.get(rest[0])) is not None and stub.call is not None:
                stub.call.end(rest[1], politely=rest[2])
        elif name == "propose":
            self._propose(rest[0], rest[1])
        elif name == "adopt":
            self._adopt()
        elif name == "do":
            self._channel.send(("done", rest[0], *self._do(rest[1], rest[2])))
        elif name == "forget_sessions" and self._prepared is not None:
            policy = self._prepared.client_policies.get(rest[0])
            if policy is not None:
                policy.sessions.clear()

    def _do(self, method: str, arguments: tuple[Any, ...]) -> tuple[bool, Any]:
        """Do what the operator wants; return whether it raised, and what."""
        try:
            return False, getattr(self._carrier, method)(*arguments)
        except OperatorError as error:
            return True, error

    def _left_alone(self) -> None:
        self.ended.set()

    def _propose(self, config: schema.Config, ticket_keys: bytes) -> None:
        try:
            self._proposed = prepare(config, ticket_keys)
        except ConfigError as error:
            self._channel.send(("proposed", error.problems, {}))
        else:
            self._channel.send(("proposed", [], served_sha256(self._proposed)))

    def _adopt(self) -> None:
        assert self._proposed is not None, "a proposal comes first"
        self._prepared, self._proposed = self._proposed, None
        self._services = lay_out_services(self._prepared)
        if self._carrier is None:
            self._carrier = Carrier(self._prepared.config)
            collector.settle()
        self._carrier.reconfigure(self._prepared.config)

    def _carry(self, listener: str, record: Record, sock: socket.socket) -> None:
        assert self._carrier is not None, "a configuration comes first"
        assert self._prepared is not None, "a configuration comes first"
        stub = Stub(self, record, self._prepared.config.pools)
        self._bookings[record.id] = stub
        sock.setblocking(False)
        try:
            stub.call = self._carrier.carry(sock, self._services[listener], stub)
        except OSError:  # reset on its way here
            sock.close()
            stub.close(Outcome.CLIENT_FAILED, "client_closed", "the client left at once")
            stub.release()

    # --- to the balancer --------------------------------------------------------------------------

    def send(self, *message: Any) -> None:
        """Send a message."""
        self._channel.send(message)

    def forget(self, number: int) -> None:
        """Forget a call that is over."""
        self._bookings.pop(number, None)
        self._reported.pop(number, None)

    def _log(
        self, _logger: Any, _method: str, values: MutableMapping[str, Any]
    ) -> MutableMapping[str, Any]:
        self.send("log", values.pop("level"), values.pop("event"), dict(values))
        raise structlog.DropEvent

    def _report(self) -> None:
        moved = []
        for number, stub in self._bookings.items():
            now = stub.call.bytes_so_far if stub.call is not None else (0, 0)
            if now != self._reported.get(number, (0, 0)):
                self._reported[number] = now
                moved.append((number, *now))
            stub.tell_news()
        for at in range(0, max(1, len(moved)), REPORTED_AT_ONCE):
            self.send("report", time.process_time(), moved[at : at + REPORTED_AT_ONCE])
        self._loop.call_later(REPORT_S, self._report)


class Stub:
    """The booking of a call that is decided on elsewhere (``net/booking.py``)."""

    def __init__(self, worker: Worker, record: Record, pools: Mapping[str, schema.Pool]) -> None:
        self.record = record
        self.call: Call | None = None
        self._worker = worker
        self._pools = pools
        self._pool = ""
        self._answer: asyncio.Future[Any] | None = None
        self._told = 0
        """Moments of the story that the balancer knows."""

    def answered(self, is_error: bool, value: Any) -> None:
        """Take the answer the call waits for, if it still does."""
        if self._answer is None or self._answer.done():
            return
        if is_error:
            self._answer.set_exception(value)
        else:
            self._answer.set_result(value)

    async def client_is(self, source: Address) -> None:
        """Ask."""
        await self._ask("client_is", source)

    async def claim(self, pool: str, certificates: tuple[bytes, ...]) -> bytes:
        """Ask."""
        claimed: bytes = await self._ask("claim", pool, certificates)
        return claimed

    async def first(self, pool: str, shown_sha256: bytes | None) -> Chosen:
        """Ask."""
        self._pool = pool
        chosen = self._chosen(await self._ask("first", pool, shown_sha256))
        assert chosen is not None, "or it would have raised"
        return chosen

    async def next(self) -> Chosen | None:
        """Ask."""
        return self._chosen(await self._ask("next"))

    async def could_be_served(self, pool: str, shown_sha256: bytes | None) -> bool:
        """Ask."""
        could: bool = await self._ask("could_be_served", pool, shown_sha256)
        return could

    async def handed_over(self) -> None:
        """Ask, and tell what is known of the call by now."""
        await self._ask("handed_over", self.record)

    def saw_leaf(self, sha256: bytes) -> None:
        """Tell."""
        self._tell("saw_leaf", sha256)

    def learnt(self) -> None:
        """Tell."""
        self._tell("learnt", self.record)

    def tell_news(self) -> None:
        """Tell of a running call's story what has not been told; so that it can be looked at."""
        story = self.record.story
        if story is not None and self.record.outcome is None and len(story.moments) > self._told:
            self._told = len(story.moments)
            self.learnt()

    def try_failed(self, reason: str | None, why: str) -> None:
        """Tell."""
        self._tell("try_failed", reason, why)

    def did_well(self, *, proven: bool = False) -> None:
        """Tell."""
        self._tell("did_well_as", proven)

    def did_badly(self, reason: str, why: str) -> None:
        """Tell."""
        self._tell("did_badly", reason, why)

    def close(self, outcome: Outcome, reason: str, detail: str) -> None:
        """Tell, with all that is known of the call. Raises RuntimeError the second time."""
        if self.record.outcome is not None:
            raise RuntimeError(f"call {self.record.id} was closed before")
        self._tell("close", outcome, reason, detail, self.record)
        self.record.outcome = outcome

    def release(self) -> None:
        """Tell."""
        self._tell("release")
        self._worker.forget(self.record.id)
        self.call = None  # it knows us: without this only the collector would free either

    async def _ask(self, method: str, *arguments: Any) -> Any:
        self._answer = asyncio.get_running_loop().create_future()
        self._worker.send("ask", self.record.id, method, arguments)
        return await self._answer

    def _tell(self, method: str, *arguments: Any) -> None:
        self._worker.send("tell", self.record.id, method, arguments)

    def _chosen(self, named: tuple[str, str] | None) -> Chosen | None:
        """Return what a backend's name and host stand for, in the configuration of this call."""
        if named is None:
            return None
        name, host = named
        backends = self._pools[self._pool].backends
        return Chosen(next(b for b in backends if b.name == name), host)


async def main(descriptor: int) -> None:
    """Work until the balancer is gone."""
    worker = Worker(socket.socket(fileno=descriptor))
    worker.begin()
    await worker.ended.wait()
    await worker.stop()


if __name__ == "__main__":
    # What a terminal or a service manager sends to the whole group is for the balancer to answer.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)
    uvloop.run(main(int(sys.argv[1])))

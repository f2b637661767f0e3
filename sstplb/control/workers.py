"""Worker processes that carry the calls, while this process decides.

Every core can be used for TLS and for moving bytes, and yet round robin, affinity, limits and
health are exact: connections are accepted and admitted here, where the one pool is, and each is
passed on (an open socket, SCM_RIGHTS) to the worker that has the fewest calls. What its session
asks and tells comes back as messages to its booking (``control/worker.py`` lists them).

- **A worker that dies** takes its own calls along and nobody else's: their records are closed, what
  they held is given back, and another worker is started, after a pause when it did not live long.
  One that says nothing for ``SILENT_MAX_S`` is taken for dead. While there is none at all, who
  comes waits in the kernel's backlog.
- **A reload is atomic over all of them**: first everybody loads the proposed configuration and says
  what is wrong and which certificates would be shown; only when all agree it is adopted, in the
  same order as calls are passed on, so each call has the configuration it was accepted under.
- TLS session tickets are sealed with one key, so a client may resume at any worker. The portable
  engine cannot do that: there a ticket is good only where it was made.
"""

import asyncio
import socket
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

import structlog

from sstplb.account.record import Outcome, Record
from sstplb.control.booking import Booking
from sstplb.control.channel import Channel, Message
from sstplb.control.plan import Prepared, served_sha256
from sstplb.errors import (
    CallError,
    CaptureError,
    ConfigError,
    Problem,
    SstplbError,
    UnavailableError,
    WorkerDiedError,
)
from sstplb.net.booking import Chosen
from sstplb.net.call import now_s
from sstplb.net.capture import CaptureChoice, CaptureState

PROPOSE_MAX_S = 30.0
"""How long loading a configuration may take."""
DO_MAX_S = 5.0
"""How long a worker may take to do what an operator wants of it."""
STOP_MAX_S = 10.0
"""How long a worker without calls may take to end."""
SILENT_MAX_S = 30.0
"""It reports every second; after so long without a word it is killed."""
PAUSE_S, PAUSE_MAX_S = 1.0, 30.0
"""Before a worker is started again that did not live for ``PAUSE_MAX_S``: doubled each time."""

log = structlog.get_logger()


class Workers:
    """The crew of ``workers: 2`` and more."""

    def __init__(self, count: int, on_change: Callable[[], None]) -> None:
        self.count = count
        self.died_total = 0
        self._on_change = on_change
        """Called when ``can_carry`` may have changed."""
        self._prepared: Prepared | None = None
        self._ready: list[_Worker] = []
        self._keepers: list[asyncio.Task[None]] = []
        self._stopping = False
        self._cpu_of_the_gone_s = 0.0

    @property
    def can_carry(self) -> bool:
        """Whether there is a worker at all."""
        return bool(self._ready)

    @property
    def process_ids(self) -> list[int]:
        """Of the workers that are ready."""
        return [worker.process_id for worker in self._ready]

    async def start(self, prepared: Prepared) -> None:
        """Start all of them, side by side. Raises ConfigError."""
        self._prepared = prepared
        first = await asyncio.gather(
            *(self._new_worker() for _ in range(self.count)), return_exceptions=True
        )
        for result in first:
            if isinstance(result, BaseException):
                await self.stop()
                raise result
        self._keepers = [
            asyncio.create_task(self._keep(worker), name=f"worker {number}")
            for number, worker in enumerate(self._ready, 1)
        ]

    async def propose(self, prepared: Prepared) -> None:
        """Have everybody load it. Raises ConfigError; nothing has changed then."""
        proposals = (worker.propose(prepared) for worker in tuple(self._ready))
        # All of them, whatever one says: a late answer would be taken for one to the next proposal.
        for said in await asyncio.gather(*proposals, return_exceptions=True):
            if isinstance(said, BaseException):
                raise said

    def adopt(self, prepared: Prepared) -> None:
        """Go by what was proposed, from the next call on."""
        self._prepared = prepared
        for worker in self._ready:
            worker.adopt()

    def carry(self, sock: socket.socket, booking: Booking) -> None:
        """Pass a connection to the worker with the fewest calls."""
        min(self._ready, key=lambda worker: len(worker.bookings)).carry(sock, booking)

    def forget_sessions(self, pool: str) -> None:
        """Tell everybody."""
        for worker in self._ready:
            worker.send("forget_sessions", pool)

    async def begin_capture(
        self, wanted: CaptureChoice, seconds_max: float | None, bytes_max: int | None
    ) -> list[CaptureState]:
        """Have those record who carry what is wanted, or may.

        Raises CaptureError or UnavailableError; then no capture has begun.
        """
        number = wanted.call
        who = [w for w in self._ready if number is None or number in w.bookings]
        if not who:
            raise CaptureError("no worker carries it: try again")
        told = (worker.do("begin_capture", wanted, seconds_max, bytes_max) for worker in who)
        results = await asyncio.gather(*told, return_exceptions=True)
        begun = [result for result in results if isinstance(result, CaptureState)]
        failed = next((result for result in results if isinstance(result, BaseException)), None)
        if failed is not None:
            undone = (self.end_capture(state.name) for state in begun)
            await asyncio.gather(*undone, return_exceptions=True)
            raise failed
        return begun

    async def captures(self) -> list[CaptureState]:
        """Ask everybody for the captures that run. Raises UnavailableError."""
        found = await asyncio.gather(*(worker.do("captures") for worker in tuple(self._ready)))
        return [state for states in found for state in states]

    async def end_capture(self, name: str) -> CaptureState | None:
        """End a capture, whoever makes it. Raises UnavailableError."""
        asked = (worker.do("end_capture", name) for worker in tuple(self._ready))
        found: list[CaptureState | None] = await asyncio.gather(*asked)
        return next((state for state in found if state is not None), None)

    def cpu_s(self) -> float:
        """Return what workers have used, those that are gone included."""
        return self._cpu_of_the_gone_s + sum(worker.cpu_s for worker in self._ready)

    async def stop(self) -> None:
        """End the workers; no call runs any more."""
        self._stopping = True
        for keeper in self._keepers:
            keeper.cancel()
        await asyncio.gather(*self._keepers, return_exceptions=True)
        await asyncio.gather(*(worker.stop() for worker in self._ready))
        self._ready.clear()

    async def _new_worker(self) -> "_Worker":
        """Start a worker and have it ready. Raises ConfigError."""
        worker = await _Worker.start(self._gone)
        try:
            adopted = None
            while adopted is not self._prepared:  # a reload may have come in between
                assert self._prepared is not None, "start sets it"
                adopted = self._prepared
                await worker.propose(adopted)
                worker.adopt()
        except BaseException:
            await worker.stop()
            raise
        self._ready.append(worker)
        self._on_change()
        return worker

    def _gone(self, worker: "_Worker") -> None:
        """Note that a worker is gone, with all its calls."""
        if worker in self._ready:
            self._ready.remove(worker)
            self._cpu_of_the_gone_s += worker.cpu_s
        self._on_change()
        lost = tuple(worker.bookings.values())
        for booking in lost:
            died = WorkerDiedError(f"worker process {worker.process_id} is gone")
            if booking.record.outcome is None:
                # What it had carried was counted while it ran, and stays so.
                booking.record.bytes_in, booking.record.bytes_out = booking.bytes_so_far
                booking.close(Outcome.CLOSED, died.reason, str(died))
            booking.release()
        worker.bookings.clear()
        if not self._stopping:
            self.died_total += 1
            log.error(
                "worker_died",
                message=f"worker process {worker.process_id} is gone, and {len(lost)} calls with "
                "it; another one is started",
                calls=len(lost),
            )

    async def _keep(self, worker: "_Worker") -> None:
        """See to it that there is always a worker in this one's place."""
        pause = PAUSE_S
        while True:
            began = now_s()
            await worker.wait_gone()
            pause = PAUSE_S if now_s() - began > PAUSE_MAX_S else min(pause * 2, PAUSE_MAX_S)
            while True:
                try:
                    worker = await self._new_worker()
                    log.info("worker_started", message=f"process {worker.process_id}")
                    break
                except (ConfigError, OSError) as error:
                    log.error("worker_failed", message=f"no worker can be started: {error}")  # noqa: TRY400
                await asyncio.sleep(pause)
                pause = min(pause * 2, PAUSE_MAX_S)


class _Worker:
    """One worker process, from outside."""

    def __init__(
        self,
        process: asyncio.subprocess.Process,
        sock: socket.socket,
        on_gone: Callable[["_Worker"], None],
    ) -> None:
        self.bookings: dict[int, Booking] = {}
        self.cpu_s = 0.0
        self._process = process
        self._on_gone = on_gone
        self._moved: dict[int, tuple[int, int]] = {}
        self._proposed: asyncio.Future[tuple[list[Problem], Mapping[str, tuple[bytes, ...]]]]
        self._proposed = asyncio.get_running_loop().create_future()
        self._doing: dict[int, asyncio.Future[Any]] = {}
        """What it was told to do and has not answered, by number."""
        self._told_to_do = 0
        self._heard_at = now_s()
        self._channel = Channel(sock, self._take, self._ended)

    @classmethod
    async def start(cls, on_gone: Callable[["_Worker"], None]) -> "_Worker":
        """Start the process. Raises OSError."""
        ours, theirs = socket.socketpair()
        with theirs:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-P",  # whatever lies in today's directory is no module of ours
                "-m",
                "sstplb.control.worker",
                str(theirs.fileno()),
                stdin=asyncio.subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
            )
        return cls(process, ours, on_gone)

    @property
    def process_id(self) -> int:
        """Its number in the system."""
        return self._process.pid

    def send(self, *message: Any, descriptor: int | None = None) -> None:
        """Send a message."""
        self._channel.send(message, descriptor)

    async def do(self, method: str, *arguments: Any) -> Any:
        """Have its carrier do something; return the answer.

        Raises what doing it raises, or UnavailableError when no answer comes.
        """
        self._told_to_do += 1
        number = self._told_to_do
        answer = self._doing[number] = asyncio.get_running_loop().create_future()
        self.send("do", number, method, arguments)
        try:
            async with asyncio.timeout(DO_MAX_S):
                return await answer
        except TimeoutError:
            silent = f"worker process {self.process_id} does not answer: try again"
            raise UnavailableError(silent) from None
        finally:
            del self._doing[number]

    async def propose(self, prepared: Prepared) -> None:
        """Have it load a configuration. Raises ConfigError."""
        self._proposed = asyncio.get_running_loop().create_future()
        self.send("propose", prepared.config, prepared.ticket_keys)
        try:
            async with asyncio.timeout(PROPOSE_MAX_S):
                problems, served = await self._proposed
        except TimeoutError:
            message = f"worker process {self.process_id} did not load it in {PROPOSE_MAX_S:g} s"
            problems, served = [Problem(message)], {}
        except WorkerDiedError:
            return  # whoever takes its place will load what is in force then
        if not problems and served != served_sha256(prepared):
            problems = [Problem("a certificate was changed while it was read: reload again")]
        if problems:
            raise ConfigError(problems)

    def adopt(self) -> None:
        """Have it go by what it loaded last."""
        self.send("adopt")

    def carry(self, sock: socket.socket, booking: Booking) -> None:
        """Pass a connection on."""
        record = booking.record
        self.bookings[record.id] = booking
        booking.carried = _Elsewhere(self, record.id)
        self.send("carry", booking.service.listener.name, record, descriptor=sock.detach())

    def moved(self, number: int) -> tuple[int, int]:
        """Return the bytes a call had moved when it was last reported."""
        return self._moved.get(number, (0, 0))

    async def wait_gone(self) -> None:
        """Wait until the process has ended; end it if it does not say a word any more."""
        while self._process.returncode is None:
            with suppress(TimeoutError):
                async with asyncio.timeout(SILENT_MAX_S / 4):
                    await self._process.wait()
            if now_s() - self._heard_at > SILENT_MAX_S:
                log.error("worker_silent", message=f"worker process {self.process_id} is stuck")
                self._kill()

    async def stop(self) -> None:
        """End it."""
        self._channel.close()
        try:
            async with asyncio.timeout(STOP_MAX_S):
                await self._process.wait()
        except TimeoutError:
            self._kill()
            await self._process.wait()

    def _kill(self) -> None:
        with suppress(ProcessLookupError):
            self._process.kill()

    def _ended(self) -> None:
        if not self._proposed.done():
            self._proposed.set_exception(WorkerDiedError("it is gone"))
            self._proposed.exception()
        for answer in self._doing.values():
            if not answer.done():
                answer.set_exception(UnavailableError("a worker process died: try again"))
        self._kill()
        self._on_gone(self)

    def _take(self, message: Message, _descriptors: list[int]) -> None:
        self._heard_at = now_s()
        name, *rest = message
        if name == "tell":
            self._told(*rest)
        elif name == "ask":
            number, method, arguments = rest
            booking = self.bookings.get(number)
            if booking is not None:
                self.send("answer", number, *_answer(booking, method, arguments))
        elif name == "report":
            self.cpu_s = rest[0]
            for number, *moved in rest[1]:
                if number in self.bookings:
                    self._moved[number] = (moved[0], moved[1])
        elif name == "log":
            level, event, values = rest
            getattr(log, level)(event, worker=self.process_id, **values)
        elif name == "done":
            self._done(*rest)
        elif name == "proposed" and not self._proposed.done():
            self._proposed.set_result((rest[0], rest[1]))

    def _done(self, number: int, is_error: bool, value: Any) -> None:
        answer = self._doing.get(number)
        if answer is None or answer.done():
            if isinstance(value, CaptureState) and not value.ended_because:
                # It came too late: whoever asked was told that nothing is recorded.
                self.send("do", number, "end_capture", (value.name,))
        elif is_error:
            answer.set_exception(value)
        else:
            answer.set_result(value)

    def _told(self, number: int, method: str, arguments: tuple[Any, ...]) -> None:
        booking = self.bookings.get(number)
        if booking is None:
            return
        getattr(booking, method)(*_without_record(booking, arguments))
        if method == "release":
            del self.bookings[number]
            self._moved.pop(number, None)


class _Elsewhere:
    """A call that a worker carries (``Carried``)."""

    def __init__(self, worker: _Worker, number: int) -> None:
        self._worker, self._number = worker, number

    @property
    def bytes_so_far(self) -> tuple[int, int]:
        """As last reported: at most a second ago."""
        return self._worker.moved(self._number)

    def end(self, why: CallError, *, politely: bool = False) -> None:
        """Have it ended."""
        self._worker.send("end", self._number, why, politely)


def _answer(booking: Booking, method: str, arguments: tuple[Any, ...]) -> tuple[bool, Any]:
    """Ask a booking on behalf of a worker; return whether it raised, and what."""
    asked = getattr(booking, method)(*_without_record(booking, arguments))
    try:
        asked.send(None)  # bookings never wait: they decide
    except StopIteration as done:
        value = done.value
        return False, (value.config.name, value.host) if isinstance(value, Chosen) else value
    except SstplbError as error:
        return True, error
    raise AssertionError(f"{method} waited")


def _without_record(booking: Booking, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    """Take over what a worker says of a call, if it is the last argument; return the others."""
    if not arguments or not isinstance(arguments[-1], Record):
        return arguments
    booking.record.take_over(arguments[-1])
    return arguments[:-1]

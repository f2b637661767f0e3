"""The calls that this process carries: their tasks, and what they share.

One for the whole balancer, or one in each worker process (``control/crew.py``).
"""

import asyncio
import socket

import structlog

from sstplb.config import schema
from sstplb.net import tcp
from sstplb.net.booking import Booking
from sstplb.net.call import Call
from sstplb.net.capture import CaptureState, Recorder, Selection
from sstplb.net.leg import PlainLeg
from sstplb.net.relay import Transit
from sstplb.net.service import Service
from sstplb.net.session import session

log = structlog.get_logger()


class Carrier:
    """Starts a session for each call it is given."""

    def __init__(self, config: schema.Config) -> None:
        self.transit = Transit(config.limits.relay_buffer)
        self.recorder = Recorder()
        """Captures of these calls."""
        self.calls: set[Call] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._loop = asyncio.get_running_loop()

    def carry(self, sock: socket.socket, service: Service, booking: Booking) -> Call:
        """Begin the session of a call that was admitted; the socket is its own from now on."""
        host, port = sock.getsockname()[:2]
        local = tcp.unmapped(host), port
        call = Call(self, service, PlainLeg(sock, self._loop), local, booking)
        task = self._loop.create_task(session(call), name=f"call {booking.record.id}")
        call.task = task
        # The set keeps the task alive; the loop alone would not (asyncio.create_task's docs).
        self._tasks.add(task)
        self.calls.add(call)
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(lambda _: self.calls.discard(call))
        return call

    def reconfigure(self, config: schema.Config) -> None:
        """Take over what a reload changed of what calls share."""
        self.transit.resize(config.limits.relay_buffer)
        self.recorder.reconfigure(config.capture, self.calls)

    def begin_capture(
        self, wanted: Selection, seconds_max: float | None, bytes_max: int | None
    ) -> CaptureState:
        """Record those of these calls that are wanted. Raises CaptureError."""
        return self.recorder.start(
            wanted, self.calls, seconds_max=seconds_max, bytes_max=bytes_max
        ).state

    def captures(self) -> list[CaptureState]:
        """Return the captures that run."""
        return [capture.state for capture in self.recorder.captures.values()]

    def end_capture(self, name: str) -> CaptureState | None:
        """End a capture; None: there is none of that name."""
        capture = self.recorder.captures.get(name)
        if capture is None:
            return None
        capture.stop("the operator ended it")
        return capture.state

    async def stop(self) -> None:
        """Wait until the last session is over, then let go of what they shared."""
        while self._tasks:
            await asyncio.wait(self._tasks)
        self.transit.close()
        self.recorder.stop_all("the balancer stopped")

    def internal_error(self, call: Call, error: Exception) -> None:
        """Write down a mistake of ours."""
        log.error("internal_error", message=f"call {call.record.id}: {error!r}", exc_info=error)

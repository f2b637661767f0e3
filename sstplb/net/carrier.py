"""The calls that this process carries: their tasks, and what they share.

One for the whole balancer, or one in each worker process (``control/crew.py``).
"""

import asyncio
import socket
from collections.abc import Collection
from contextvars import copy_context

import structlog

from sstplb.config import schema
from sstplb.net.booking import Booking
from sstplb.net.call import Call
from sstplb.net.capture import CaptureChoice, CaptureState, Recorder
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
        self._calls: dict[asyncio.Task[None], Call] = {}
        """By the task of its session, which this keeps alive (asyncio.create_task's docs)."""
        self._loop = asyncio.get_running_loop()
        # One for all: each task would copy its creator's, and each callback again.
        self._context = copy_context()
        self._on_over = self._over

    @property
    def calls(self) -> Collection[Call]:
        """Those that are not over."""
        return self._calls.values()

    def carry(self, sock: socket.socket, service: Service, booking: Booking) -> Call:
        """Begin the session of a call that was admitted; the socket is its own from now on."""
        call = Call(self, service, PlainLeg(sock, self._loop), booking)
        call.task = task = self._loop.create_task(
            session(call), name=f"call {booking.record.id}", context=self._context
        )
        self._calls[task] = call
        task.add_done_callback(self._on_over, context=self._context)
        return call

    def reconfigure(self, config: schema.Config) -> None:
        """Take over what a reload changed of what calls share."""
        self.transit.resize(config.limits.relay_buffer)
        self.recorder.reconfigure(config.capture, self.calls)

    def begin_capture(
        self, wanted: CaptureChoice, seconds_max: float | None, bytes_max: int | None
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
        while self._calls:
            await asyncio.wait(self._calls)
        self.transit.close()
        self.recorder.stop_all("the balancer stopped")

    def _over(self, task: asyncio.Task[None]) -> None:
        del self._calls[task]

    def internal_error(self, call: Call, error: Exception) -> None:
        """Write down a mistake of ours."""
        log.error("internal_error", message=f"call {call.record.id}: {error!r}", exc_info=error)

"""Who carries the calls: this process, or workers. The balancer sees no difference.

``Here`` is the crew of ``workers: 1``: sessions run in the deciding process itself and speak to
their bookings directly. ``control/workers.py`` is the other one.
"""

import socket
from collections.abc import Sequence
from typing import Protocol

from sstplb.control.booking import Booking
from sstplb.control.plan import Prepared
from sstplb.net.capture import CaptureChoice, CaptureState
from sstplb.net.carrier import Carrier


class Crew(Protocol):
    """Carries calls."""

    count: int
    """How many processes carry."""
    died_total: int
    """Processes that ended unasked."""

    @property
    def process_ids(self) -> Sequence[int]:
        """Of the other processes that carry now; empty where this one does."""

    @property
    def can_carry(self) -> bool:
        """Whether there is anybody to carry a call now."""

    async def start(self, prepared: Prepared) -> None:
        """Be ready to carry. Raises ConfigError."""

    async def propose(self, prepared: Prepared) -> None:
        """Prepare for another configuration. Raises ConfigError; nothing has changed then."""

    def adopt(self, prepared: Prepared) -> None:
        """Carry calls by what was proposed, from the next one on."""

    def carry(self, sock: socket.socket, booking: Booking) -> None:
        """Begin a call that was admitted; the socket is the crew's from now on."""

    def forget_sessions(self, pool: str) -> None:
        """Resume no TLS session with that pool's backends any more."""

    async def begin_capture(
        self, wanted: CaptureChoice, seconds_max: float | None, bytes_max: int | None
    ) -> list[CaptureState]:
        """Record calls, wherever they are carried: each process writes a file of its own.

        Raises CaptureError or UnavailableError; then no capture has begun.
        """

    async def captures(self) -> list[CaptureState]:
        """Return the captures that run. Raises UnavailableError."""

    async def end_capture(self, name: str) -> CaptureState | None:
        """End a capture; None: there is none of that name. Raises UnavailableError."""

    def cpu_s(self) -> float:
        """CPU seconds that processes other than this one have used."""

    async def stop(self) -> None:
        """Let go of everything; no call runs any more."""


class Here:
    """This process carries."""

    count = 1
    died_total = 0
    process_ids = ()
    can_carry = True

    def __init__(self) -> None:
        self._carrier: Carrier | None = None

    @property
    def carrier(self) -> Carrier:
        """What the calls share."""
        assert self._carrier is not None, "start comes first"
        return self._carrier

    async def start(self, prepared: Prepared) -> None:
        """Be ready to carry."""
        self._carrier = Carrier(prepared.config)
        self.adopt(prepared)

    async def propose(self, prepared: Prepared) -> None:
        """Nothing is left that could fail."""

    def adopt(self, prepared: Prepared) -> None:
        """Go by its limits and captures; each call brings its service along."""
        self.carrier.reconfigure(prepared.config)

    def carry(self, sock: socket.socket, booking: Booking) -> None:
        """Begin a session."""
        booking.carried = self.carrier.carry(sock, booking.service, booking)

    def forget_sessions(self, pool: str) -> None:
        """Nothing: the policies are the checker's own, which has done it."""

    async def begin_capture(
        self, wanted: CaptureChoice, seconds_max: float | None, bytes_max: int | None
    ) -> list[CaptureState]:
        """Record calls. Raises CaptureError."""
        return [self.carrier.begin_capture(wanted, seconds_max, bytes_max)]

    async def captures(self) -> list[CaptureState]:
        """Return the captures that run."""
        return self.carrier.captures()

    async def end_capture(self, name: str) -> CaptureState | None:
        """End a capture; None: there is none of that name."""
        return self.carrier.end_capture(name)

    def cpu_s(self) -> float:
        """Nothing: there is no other process."""
        return 0.0

    async def stop(self) -> None:
        """Wait for the last session's last step."""
        if self._carrier is not None:
            await self._carrier.stop()

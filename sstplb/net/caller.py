"""Driving a caller: a ``CallerMachine`` and the leg it speaks over.

The machine (``protocol/caller.py``) knows SSTP and PPP but cannot wait; this can. It serves the
checks ``sstp`` and ``login``, the command ``sstplb call`` and the load generator alike.
"""

import asyncio
import os
import uuid
from collections.abc import Callable

from sstplb.net.call import now_s
from sstplb.net.leg import RECEIVE_BYTES, Leg
from sstplb.protocol.caller import CallerMachine, CallerSettings, Step


def new_correlation_id() -> str:
    """Return a fresh GUID in braces, as Windows writes it."""
    return f"{{{str(uuid.uuid4()).upper()}}}"


class Caller:
    """One call as its client, over a leg that its maker opened and will close."""

    def __init__(
        self, leg: Leg, settings: CallerSettings, on_step: Callable[[Step], None] | None = None
    ) -> None:
        self.leg = leg
        self.machine = CallerMachine(settings, os.urandom)
        self._on_step = on_step
        self._told = 0

    async def connect(self) -> bool:
        """Place the call; return whether it is connected (else ``machine.failure`` says why)."""
        await self._send(self.machine.start(now_s()))
        await self.run_until(lambda: self.machine.connected)
        return self.machine.connected

    async def hello(self) -> bool:
        """Say hello and wait for the answer; return whether it came."""
        before = self.machine.hellos_answered
        await self._send(self.machine.hello(now_s()))
        await self.run_until(lambda: self.machine.hellos_answered > before)
        return self.machine.hellos_answered > before

    async def hang_up(self) -> None:
        """End the call politely and wait for the acknowledgement."""
        await self._send(self.machine.hang_up(now_s()))
        await self.run_until(lambda: False)

    async def send_ip(self, packet: bytes) -> None:
        """Send one IP packet through the tunnel."""
        await self._send(self.machine.send_ip(packet))

    async def run_until(self, done: Callable[[], bool]) -> None:
        """Go on until ``done`` says so, or the call is over."""
        machine = self.machine
        while not machine.finished and not done():
            try:
                async with asyncio.timeout_at(machine.wake_at):
                    data = await self.leg.receive(RECEIVE_BYTES)
            except TimeoutError:
                out = machine.wake(now_s())
            else:
                if data:
                    out = machine.receive(data, now_s())
                else:
                    machine.closed(now_s())
                    out = b""
            await self._send(out)

    async def _send(self, data: bytes) -> None:
        self._tell()
        if data:
            try:
                await self.leg.send(data)
            except OSError:
                self.machine.closed(now_s())
                self._tell()

    def _tell(self) -> None:
        steps = self.machine.steps
        if self._on_step is not None:
            for step in steps[self._told :]:
                self._on_step(step)
        self._told = len(steps)

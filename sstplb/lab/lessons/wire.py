"""A wire with somebody listening: a TCP relay that writes down what it carries.

It stands where a network tap would: it sees connections, sizes, and TLS records from outside,
and it has no keys. Not to be confused with ``middle.py``, which ends TLS.
"""

import asyncio
import contextlib
from dataclasses import dataclass, field

from sstplb.net.call import now_s
from sstplb.net.tcp import Address


@dataclass(slots=True)
class Connection:
    """What was seen of one connection."""

    opened_s: float
    from_client: bytearray = field(default_factory=bytearray)
    from_server: bytearray = field(default_factory=bytearray)
    closed_s: float | None = None

    @property
    def size(self) -> int:
        """Bytes, both ways."""
        return len(self.from_client) + len(self.from_server)


class Wire:
    """Carries connections from its own address to another, unchanged."""

    def __init__(self, target: Address, host: str) -> None:
        self.target = target
        self.address: Address = (host, 0)
        self.connections: list[Connection] = []
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Listen."""
        self._server = await asyncio.start_server(self._carry, *self.address, backlog=256)
        host, port = self._server.sockets[0].getsockname()[:2]
        self.address = (host, port)

    async def stop(self) -> None:
        """Cut everything."""
        if self._server is not None:
            self._server.close()
            for task in tuple(self._tasks):
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            await self._server.wait_closed()

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None, "start_server runs this as a task"
        self._tasks.add(task)
        seen = Connection(now_s())
        self.connections.append(seen)
        onward: asyncio.StreamWriter | None = None
        try:
            with contextlib.suppress(OSError, asyncio.CancelledError):
                back, onward = await asyncio.open_connection(*self.target)
                async with asyncio.TaskGroup() as both:
                    both.create_task(_pump(reader, onward, seen.from_client), name="wire in")
                    both.create_task(_pump(back, writer, seen.from_server), name="wire out")
        finally:
            self._tasks.discard(task)
            seen.closed_s = now_s()
            for one in (writer, onward):
                if one is not None:
                    one.close()


async def _pump(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, seen: bytearray
) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(65536):
            seen += data
            writer.write(data)
            await writer.drain()
        writer.write_eof()

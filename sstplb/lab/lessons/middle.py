"""A man in the middle: ends TLS with a certificate of his own, speaks TLS again to the server.

Companies' inspection boxes and attackers do the same. He passes on what he reads; a lesson may have
him meddle with what clients say. He uses the standard library's TLS, and verifies nobody.
"""

import asyncio
import contextlib
import ssl
from collections.abc import Callable

from sstplb.lab.pki import Issued
from sstplb.net.tcp import Address

Meddle = Callable[[bytes], bytes]


class Middle:
    """Stands between clients and a server. ``address`` is where clients are made to end up."""

    def __init__(self, shown: Issued, target: Address, host: str, meddle: Meddle) -> None:
        self.address: Address = (host, 0)
        self._shown, self._target, self._meddle = shown, target, meddle
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Listen."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self._shown.chain, self._shown.key)
        self._server = await asyncio.start_server(self._carry, *self.address, ssl=context)
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
        onward: asyncio.StreamWriter | None = None
        beyond = ssl.create_default_context()
        beyond.check_hostname, beyond.verify_mode = False, ssl.CERT_NONE
        try:
            with contextlib.suppress(OSError, asyncio.CancelledError):
                back, onward = await asyncio.open_connection(*self._target, ssl=beyond)
                async with asyncio.TaskGroup() as both:
                    both.create_task(_pump(reader, onward, self._meddle), name="middle in")
                    both.create_task(_pump(back, writer, unchanged), name="middle out")
        finally:
            self._tasks.discard(task)
            for one in (writer, onward):
                if one is not None:
                    one.transport.abort()


def unchanged(data: bytes) -> bytes:
    """Return it."""
    return data


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, meddle: Meddle) -> None:
    """Pass on what comes, until one side ends; over TLS there is no half-close."""
    with contextlib.suppress(OSError):
        while data := await reader.read(65536):
            writer.write(meddle(data))
            await writer.drain()
    writer.close()

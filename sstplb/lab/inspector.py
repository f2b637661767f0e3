"""A middle box that inspects TLS: the kind that companies and virus scanners put before clients.

It ends the client's TLS with a certificate of its own (which its clients were taught to trust),
speaks TLS to the real server, and passes on what it reads. SSTP's crypto binding is made to catch
exactly this: the client binds to the box's certificate, RRAS to its own, and the call is torn down
after authentication.
"""

import asyncio
import contextlib
import ssl
from collections.abc import Callable

from sstplb.lab.pki import Issued
from sstplb.net.tcp import Address

PIECE_BYTES = 65536


class Inspector:
    """A running middle box. ``address`` is where clients are made to end up."""

    def __init__(
        self,
        shown: Issued,
        server: Address,
        listen: Address = ("127.0.0.1", 0),
        meddle: Callable[[bytes], bytes] | None = None,
    ) -> None:
        """``meddle`` may change what clients say, a read at a time."""
        self.address = listen
        self._meddle = meddle or (lambda data: data)
        self._shown, self._server, self._listen = shown, server, listen
        self._listening: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Listen. Raises OSError."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self._shown.chain, self._shown.key)
        self._listening = await asyncio.start_server(self._carry, *self._listen, ssl=context)
        host, port = self._listening.sockets[0].getsockname()[:2]
        self.address = host, port

    async def stop(self) -> None:
        """Close everything at once."""
        if self._listening is not None:
            self._listening.close()
            for task in tuple(self._tasks):
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            await self._listening.wait_closed()

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None, "start_server runs this as a task"
        self._tasks.add(task)
        beyond = ssl.create_default_context()
        beyond.check_hostname = False
        beyond.verify_mode = ssl.CERT_NONE  # it looks at what passes, not at whom it talks to
        onward: asyncio.StreamWriter | None = None
        try:
            with contextlib.suppress(OSError, ssl.SSLError, asyncio.CancelledError):
                there, onward = await asyncio.open_connection(*self._server, ssl=beyond)
                async with asyncio.TaskGroup() as group:
                    group.create_task(_pump(reader, onward, self._meddle), name="inspector, inward")
                    group.create_task(
                        _pump(there, writer, lambda data: data), name="inspector, outward"
                    )
        finally:
            self._tasks.discard(task)
            for each in (writer, onward):
                if each is not None:
                    each.transport.abort()


async def _pump(
    source: asyncio.StreamReader, sink: asyncio.StreamWriter, meddle: Callable[[bytes], bytes]
) -> None:
    """Pass on what comes, until the source ends; over TLS there is no half-close."""
    with contextlib.suppress(OSError, ssl.SSLError):
        while data := await source.read(PIECE_BYTES):
            sink.write(meddle(data))
            await sink.drain()
    sink.close()

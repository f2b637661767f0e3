"""A listener accepts connections and starts a session for each.

It owns a listening socket and one attribute that matters: ``service``, the snapshot its next
call will get. A reload swaps it; the socket stays open, so no client is ever refused because the
configuration changed.

Connections are accepted in batches, for each turn of the loop costs more than an accept. When
descriptors run out, accepting pauses for a second instead of spinning: the kernel's backlog holds
who comes meanwhile.
"""

import asyncio
import errno
import socket
import time

import structlog

from sstplb.net import tcp
from sstplb.net.call import Call, Desk, now_s
from sstplb.net.leg import PlainLeg
from sstplb.net.service import Service
from sstplb.net.session import session

ACCEPT_BATCH = 64
PAUSE_S = 1.0
_OUT_OF_RESOURCES = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})

log = structlog.get_logger()


class Listener:
    """One address that accepts calls."""

    def __init__(self, sock: socket.socket, service: Service, desk: Desk) -> None:
        self.sock = sock
        self.service = service
        self.calls: set[Call] = set()
        """Calls that came in here and have not ended."""
        self._desk = desk
        self._tasks: set[asyncio.Task[None]] = set()
        self._loop = asyncio.get_running_loop()
        self._resume: asyncio.TimerHandle | None = None
        self._accepting = False

    @property
    def address(self) -> tcp.Address:
        """Where it listens, with the port the kernel chose if it was asked for port 0."""
        host, port = self.sock.getsockname()[:2]
        return host, port

    @property
    def is_accepting(self) -> bool:
        """Whether it takes calls at the moment."""
        return self._accepting

    def start(self) -> None:
        """Accept from now on."""
        if not self._accepting:
            self._accepting = True
            self._loop.add_reader(self.sock.fileno(), self._accept)

    def stop(self) -> None:
        """Accept no more and close the socket; running calls go on."""
        if self._resume is not None:
            self._resume.cancel()
        if self._accepting:
            self._accepting = False
            self._loop.remove_reader(self.sock.fileno())
        self.sock.close()

    async def wait_ended(self) -> None:
        """Wait until every call that came in here has ended."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    def _accept(self) -> None:
        for _ in range(ACCEPT_BATCH):
            try:
                sock, address = self.sock.accept()
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:
                if error.errno in _OUT_OF_RESOURCES:
                    self._pause(error)
                    return
                continue  # this one connection died before we took it (accept(2))
            self._begin(sock, (_unmapped(address[0]), address[1]))

    def _begin(self, sock: socket.socket, client: tcp.Address) -> None:
        service = self.service
        try:
            sock.setblocking(False)
            tcp.tune(sock, service.limits.tcp_keepalive)
            local = sock.getsockname()
        except OSError:
            sock.close()  # reset before we looked at it: there never was a call
            return
        record = self._desk.ledger.open(
            listener=service.listener.name,
            mode=str(service.listener.mode),
            client=client,
            started_at=time.time(),
            now=now_s(),
        )
        leg = PlainLeg(sock, self._loop)
        call = Call(self._desk, service, leg, client, (_unmapped(local[0]), local[1]), record)
        task = self._loop.create_task(session(call), name=f"call {record.id}")
        call.task = task
        # The set keeps the task alive; the loop alone would not (asyncio.create_task's docs).
        self._tasks.add(task)
        self.calls.add(call)
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(lambda _: self.calls.discard(call))

    def _pause(self, error: OSError) -> None:
        name = self.service.listener.name
        log.warning(
            "accept_paused",
            message=f"{name}: cannot accept ({error.strerror}); trying again in {PAUSE_S:g} s",
            listener=name,
        )
        self._loop.remove_reader(self.sock.fileno())
        self._accepting = False
        self._resume = self._loop.call_later(PAUSE_S, self.start)


def _unmapped(host: str) -> str:
    """Show an IPv4 client of an IPv6 socket as the IPv4 client it is."""
    return host.removeprefix("::ffff:") if host.startswith("::ffff:") and "." in host else host

"""A listener accepts connections.

It owns a listening socket and one attribute that matters: ``service``, the snapshot its next
call will get. A reload swaps it; the socket stays open, so no client is ever refused because the
configuration changed. Whether a call is admitted, and who carries it, is not decided here: each
connection goes to ``on_accept``.

Connections are accepted in batches, for each turn of the loop costs more than an accept. When
descriptors run out, accepting pauses for a second instead of spinning: the kernel's backlog holds
who comes meanwhile, as it does while there is nobody to carry a call (``pause``).
"""

import asyncio
import errno
import socket
from collections.abc import Callable

import structlog

from sstplb.net import tcp
from sstplb.net.service import Service

ACCEPT_BATCH = 64
PAUSE_S = 1.0
_OUT_OF_RESOURCES = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})

OnAccept = Callable[["Listener", socket.socket, tcp.Address], None]
"""Takes a connection, tuned, and who it is from; the socket is its own."""

log = structlog.get_logger()


class Listener:
    """One address that accepts calls."""

    def __init__(self, sock: socket.socket, service: Service, on_accept: OnAccept) -> None:
        self.sock = sock
        self.is_draining = False
        """Whether it is closed to new calls until ``reopen``."""
        self.service = service
        self._on_accept = on_accept
        self._loop = asyncio.get_running_loop()
        self._resume: asyncio.TimerHandle | None = None
        self._accepting = False
        host, port = sock.getsockname()[:2]
        self.address: tcp.Address = (host, port)
        """Where it listens, with the port the kernel chose if it was asked for port 0."""
        self.deadline: float | None = None
        """When the calls it still has are ended (seconds, monotonic), while it is draining."""

    @property
    def service(self) -> Service:
        """What the next call gets."""
        return self._service

    @service.setter
    def service(self, service: Service) -> None:
        self._service = service
        tcp.tune(self.sock, service.limits.tcp_keepalive)

    @property
    def is_accepting(self) -> bool:
        """Whether it takes calls at the moment."""
        return self._accepting

    def start(self) -> None:
        """Accept from now on, unless it is draining."""
        if not self._accepting and not self.is_draining:
            self._accepting = True
            self._loop.add_reader(self.sock.fileno(), self._accept)

    def pause(self) -> None:
        """Accept nobody until ``start``; who comes waits in the kernel's backlog."""
        if self._resume is not None:
            self._resume.cancel()
        if self._accepting:
            self._accepting = False
            self._loop.remove_reader(self.sock.fileno())

    def stop(self) -> None:
        """Accept no more and close the socket: who comes is refused; running calls go on."""
        self.pause()
        self.sock.close()

    def drain(self) -> None:
        """Refuse who comes, until ``reopen``: the operator's word. The address stays ours."""
        self.pause()
        self.is_draining = True
        tcp.refuse(self.sock)

    def reopen(self) -> None:
        """Accept again after ``drain``. Raises OSError when somebody else listens there."""
        tcp.listen_again(self.sock, self.address, self.service.listener.backlog)
        self.is_draining = False
        self.start()

    def _accept(self) -> None:
        for _ in range(ACCEPT_BATCH):
            if not self._accepting:
                return
            try:
                sock, address = self.sock.accept()
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:
                if error.errno in _OUT_OF_RESOURCES:
                    self._pause_for(error)
                    return
                continue  # this one connection died before we took it (accept(2))
            try:
                sock.setblocking(False)
            except OSError:
                sock.close()  # reset before we looked at it: there never was a call
                continue
            self._on_accept(self, sock, (tcp.unmapped(address[0]), address[1]))

    def _pause_for(self, error: OSError) -> None:
        name = self.service.listener.name
        log.warning(
            "accept_paused",
            message=f"{name}: cannot accept ({error.strerror}); trying again in {PAUSE_S:g} s",
            listener=name,
        )
        self.pause()
        self._resume = self._loop.call_later(PAUSE_S, self.start)

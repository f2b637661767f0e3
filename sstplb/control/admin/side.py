"""The doors of the admin side: the sockets it listens on, and who serves them.

A door is a unix socket (mode 0600 from its first moment, ``fchmod`` before ``bind``) or a TCP
address. A reload opens the new ones before anything is changed, keeps those that stay, and lets
go of the others; a request that is being answered is answered to its end.

A socket file that is left over from a process that died is replaced. One that answers is another
balancer's, and an error; a file that is no socket is never touched.

The web framework is loaded with the first door: a balancer without an admin side has none of it.
"""

import asyncio
import contextlib
import errno
import os
import socket
import stat
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

import structlog

from sstplb.config.quantities import Endpoint
from sstplb.config.schema import Admin
from sstplb.control.admin.access import Access
from sstplb.control.operator import Operator
from sstplb.control.plan import Prepared
from sstplb.control.takeover import Place
from sstplb.errors import ConfigError, Problem
from sstplb.net import tcp

if TYPE_CHECKING:
    from sstplb.control.admin.serving import Serving

BACKLOG = 64
SOCKET_MODE = 0o600

log = structlog.get_logger()


@contextlib.asynccontextmanager
async def admin_side(
    operator: Operator,
    prepared: Prepared,
    inherited: Mapping[Place, socket.socket] = MappingProxyType({}),
) -> AsyncIterator["AdminSide"]:
    """Keep the configured doors open. Raises ConfigError when one cannot be opened.

    ``inherited``: sockets of another process, by place.
    """
    side = AdminSide(operator, inherited)
    side.open(prepared)
    side.settle(prepared)
    operator.configuration.doors = side
    try:
        yield side
    finally:
        await side.close()


class Door:
    """One listening socket, what it asks of those who come, and its server once there is one."""

    def __init__(self, place: Place, sock: socket.socket) -> None:
        self.place = place
        self.sock = sock
        self.access = Access()
        self.serving: Serving | None = None
        self.is_shared = False
        """Whether another process serves here too: then the socket's file is not ours to remove."""
        self._inode = place.stat().st_ino if isinstance(place, Path) else None

    @property
    def is_tcp(self) -> bool:
        """Whether it is reached over the network, rather than through a file."""
        return isinstance(self.place, Endpoint)

    @property
    def address(self) -> str:
        """Where it is, with the port the kernel chose if it was asked for port 0."""
        if isinstance(self.place, Endpoint):
            return str(Endpoint(*self.sock.getsockname()[:2]))
        return str(self.place)

    def shut(self) -> None:
        """Close the socket and remove its file, unless somebody else's stands there by now."""
        if isinstance(self.place, Path) and not self.is_shared:
            with contextlib.suppress(OSError):
                if self.place.stat().st_ino == self._inode:
                    self.place.unlink()
        self.sock.close()


class AdminSide:
    """All doors."""

    def __init__(
        self, operator: Operator, inherited: Mapping[Place, socket.socket] = MappingProxyType({})
    ) -> None:
        self.doors: dict[Place, Door] = {}
        self._inherited = dict(inherited)
        self._operator = operator
        self._opened: dict[Place, Door] = {}
        self._ending: set[asyncio.Task[None]] = set()

    def open(self, prepared: Prepared) -> None:
        """Bind what is new. Raises ConfigError, and then nothing has changed."""
        self.settle(None)
        try:
            for key, where in _wanted(prepared.config.admin).items():
                if key not in self.doors:
                    sock = self._inherited.pop(key, None)
                    self._opened[key] = _open(key, where) if sock is None else Door(key, sock)
        except ConfigError:
            self.settle(None)
            raise

    def settle(self, prepared: Prepared | None) -> None:
        """Serve at the doors that were opened and let those go that are not wanted any more.

        None: shut again what was opened, and leave all as it was.
        """
        opened, self._opened = self._opened, {}
        if prepared is None:
            for door in opened.values():
                door.shut()
            return
        for key, door in opened.items():
            self.doors[key] = door
        wanted = _wanted(prepared.config.admin)
        for key in [key for key in self.doors if key not in wanted]:
            self._let_go(self.doors.pop(key))
        for door in self.doors.values():
            before, door.access = door.access, prepared.access if door.is_tcp else Access()
            if door.serving is not None and bool(before.shown) != bool(door.access.shown):
                self._end(door)  # from TLS to plain HTTP, or back
            if door.serving is None:
                self._serve(door)

    def sockets(self) -> dict[Place, socket.socket]:
        """Return the sockets of all doors, to be shared with another process."""
        return {place: door.sock for place, door in self.doors.items()}

    def leave(self) -> None:
        """Let go of every door, for another process serves there; their files stay."""
        for door in self.doors.values():
            door.is_shared = True
            self._let_go(door)
        self.doors.clear()

    async def close(self) -> None:
        """Shut every door, and wait until the last request is answered."""
        self.settle(None)
        self._operator.is_closing = True
        self._operator.events.end_following()
        for sock in self._inherited.values():
            sock.close()
        for door in self.doors.values():
            self._let_go(door)
        self.doors.clear()
        while self._ending:
            await asyncio.wait(self._ending)

    def _serve(self, door: Door) -> None:
        # 60 MB and half a second that a balancer without an admin side need not spend.
        from sstplb.control.admin.serving import Serving  # noqa: PLC0415

        door.serving = Serving(door, self._operator)
        log.info("admin_open", message=f"API and page at {door.address}", address=door.address)
        if door.is_tcp and not door.access.token:
            log.warning(
                "admin_without_token",
                message=f"everybody on this machine may do everything through {door.address}: "
                "set admin.token_file, or use admin.socket",
                address=door.address,
            )

    def _let_go(self, door: Door) -> None:
        """Accept nobody any more; whoever is being answered is answered to the end."""
        log.info("admin_closed", message=f"{door.address}: no longer open")
        door.shut()
        self._end(door)

    def _end(self, door: Door) -> None:
        """Let a door's server end when its requests are answered; nobody waits for that here."""
        serving, door.serving = door.serving, None
        if serving is not None:
            ending = asyncio.create_task(serving.end(), name=f"end of {door.place}")
            self._ending.add(ending)
            ending.add_done_callback(self._ending.discard)


def _wanted(admin: Admin) -> dict[Place, str]:
    """Return the configured doors, and where in the configuration each stands."""
    wanted: dict[Place, str] = {}
    if admin.socket is not None:
        wanted[admin.socket] = "admin.socket"
    if admin.address is not None:
        wanted[admin.address] = "admin.address"
    return wanted


def _open(place: Place, where: str) -> Door:
    """Open a listening socket. Raises ConfigError."""
    try:
        if isinstance(place, Path):
            return Door(place, _listen_unix(place))
        return Door(place, tcp.listen((place.host, place.port or 0), BACKLOG))
    except OSError as error:
        is_path = isinstance(place, Path)
        why = (error.strerror or str(error)).lower() if is_path else tcp.why_not_listening(error)
        message = f"cannot listen on {place}: {why}"
        raise ConfigError([Problem(message, where)]) from error


def _listen_unix(path: Path) -> socket.socket:
    """Open a unix socket only we may use. Raises OSError."""
    _clear(path)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        os.fchmod(sock.fileno(), SOCKET_MODE)  # what bind(2) will give the file
        sock.bind(str(path))
        sock.listen(BACKLOG)
    except BaseException:
        sock.close()
        raise
    return sock


def _clear(path: Path) -> None:
    """Remove what a dead process left behind. Raises OSError when it is something else."""
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise OSError(errno.EEXIST, "there is a file of another kind, which is left alone")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as knock:
        knock.setblocking(False)
        try:
            knock.connect(str(path))
        except (ConnectionRefusedError, FileNotFoundError):
            path.unlink(missing_ok=True)
            return
        except BlockingIOError:
            pass  # its backlog is full: alive, and busy
    raise OSError(errno.EADDRINUSE, "another process answers there: is sstplb running already?")

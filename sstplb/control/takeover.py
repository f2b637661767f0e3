"""Upgrade in place: another process takes over the listening sockets; this one ends its calls.

A VPN call lasts for hours and must not end because the balancer is renewed; nor may a client that
calls at that moment be refused. So the running process, the *old* one, starts the *new* one with
its own command line, which reads today's program and configuration, and passes it its sockets
(SCM_RIGHTS: the same sockets, with whoever waits in their backlogs).

    old                                     new
    starts it, sends sockets, and
    which backends are up             →
                                      ←     "ready": configuration loaded, workers up, checks done
    pauses accepting, sends its state →
                                      ←     "accepting": standings and affinity are restored
    closes its sockets and tells the      (the channel is closed)
    service manager; ends when its
    last call does

Until "accepting" nothing is given up: a new process that fails, at whatever step, is named in the
log and the old one goes on as before. What the two do not share are counts: limits and
``calls_max`` of the new one do not know the calls that the old one still carries.
"""

import asyncio
import contextlib
import os
import socket
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

import structlog

from sstplb.config.quantities import Endpoint
from sstplb.config.schema import Config
from sstplb.control.activation import take_activated
from sstplb.control.channel import Channel, Message
from sstplb.control.plan import Plan
from sstplb.control.state import State
from sstplb.errors import ConflictError
from sstplb.net.call import now_s

VARIABLE = "SSTPLB_TAKEOVER"
"""Names the descriptor of the channel to the old process."""
READY_MAX_S = 60.0
ACCEPTING_MAX_S = 10.0

Place = Path | Endpoint

log = structlog.get_logger()


class Leaving(Protocol):
    """The old process's side of things."""

    def listening(self) -> Mapping[Endpoint, socket.socket]:
        """Return the sockets that accept calls, by configured address."""

    def door_sockets(self) -> Mapping[Place, socket.socket]:
        """Return the sockets of the admin side."""

    def backends_up(self) -> list[tuple[str, str, str]]:
        """Return pool, name and configured address of the backends that are well."""

    def pause(self) -> State:
        """Accept nobody for a moment; return the state to pass on."""

    def resume(self) -> None:
        """Go on as before: it came to nothing."""

    def leave(self, process_id: int) -> None:
        """Let go of the sockets: another process has them."""


async def hand_over(leaving: Leaving) -> int:
    """Start a new process and pass everything on; return its id.

    Raises ConflictError when it did not come up: then nothing has changed.
    """
    ours, theirs = socket.socketpair()
    with theirs:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *sys.orig_argv[1:],
            stdin=asyncio.subprocess.DEVNULL,
            pass_fds=[theirs.fileno()],
            env={**os.environ, VARIABLE: str(theirs.fileno())},
        )
    said: asyncio.Queue[str] = asyncio.Queue()
    channel = Channel(
        ours, lambda message, _: said.put_nowait(message[0]), lambda: said.put_nowait("")
    )
    try:
        for kind, sockets in (("listener", leaving.listening()), ("door", leaving.door_sockets())):
            for place, sock in sockets.items():
                channel.send((kind, place), os.dup(sock.fileno()))
        channel.send(("up", leaving.backends_up()))
        channel.send(("go",))
        await _expect(said, "ready", READY_MAX_S)
        try:
            channel.send(("state", leaving.pause()))
            await _expect(said, "accepting", ACCEPTING_MAX_S)
        except BaseException:
            leaving.resume()
            raise
        leaving.leave(process.pid)
    except BaseException:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        raise
    finally:
        channel.close()
    return process.pid


async def _expect(said: asyncio.Queue[str], word: str, limit_s: float) -> None:
    """Wait for a word of the new process. Raises ConflictError."""
    try:
        async with asyncio.timeout(limit_s):
            heard = await said.get()
    except TimeoutError:
        raise ConflictError(f"the new process was not {word} within {limit_s:g} s") from None
    if heard != word:
        raise ConflictError("the new process ended before it was " + word + ": see its messages")


class Estate:
    """What a process is given when it starts.

    By the one it takes over from, or by the service manager (``control/activation.py``); nothing
    when it was started by hand.
    """

    def __init__(self) -> None:
        self.listeners: dict[Endpoint, socket.socket] = {}
        self.doors: dict[Place, socket.socket] = {}
        self._up: frozenset[tuple[str, str, str]] = frozenset()
        self._channel: Channel | None = None
        self._complete = asyncio.Event()
        self._is_ours = asyncio.Event()
        self._state: asyncio.Future[State] = asyncio.get_running_loop().create_future()

    @classmethod
    async def receive(cls, config: Config) -> "Estate":
        """Take the sockets, if the environment says that there are any."""
        estate = cls()
        estate.listeners |= take_activated(os.environ, config)
        if number := os.environ.pop(VARIABLE, ""):
            sock = socket.socket(fileno=int(number))
            os.set_inheritable(sock.fileno(), False)
            estate._channel = Channel(sock, estate._take, estate._left_alone)
            await estate._complete.wait()
        return estate

    @property
    def is_takeover(self) -> bool:
        """Whether there is an old process."""
        return self._channel is not None

    def introduce(self, plan: Plan) -> None:
        """Tell which backends were up: one check that fails now must not take them all down."""
        for name, checks in plan.checks.items():
            for backend in checks.pool.backends:
                if (name, backend.name, str(backend.config.address)) in self._up:
                    backend.health.is_known_to_be_up(now_s())

    async def state(self) -> State:
        """Say "ready", and wait for what the old process knew. Raises ConflictError."""
        assert self._channel is not None, "there is an old process"
        self._channel.send(("ready",))
        return await self._state

    async def accepting(self) -> None:
        """Say that the old process may let go, and wait until it has."""
        if self._channel is not None:
            self._channel.send(("accepting",))
            await self._is_ours.wait()

    def _take(self, message: Message, descriptors: list[int]) -> None:
        kind, *rest = message
        if kind == "listener":
            self.listeners[rest[0]] = _socket(descriptors[0])
        elif kind == "door":
            self.doors[rest[0]] = _socket(descriptors[0])
        elif kind == "up":
            self._up = frozenset(rest[0])
        elif kind == "go":
            self._complete.set()
        elif kind == "state" and not self._state.done():
            self._state.set_result(rest[0])

    def _left_alone(self) -> None:
        self._complete.set()
        self._is_ours.set()
        if not self._state.done():
            self._state.set_exception(ConflictError("the old process has ended in the middle"))
            self._state.exception()


def _socket(descriptor: int) -> socket.socket:
    sock = socket.socket(fileno=descriptor)
    sock.setblocking(False)
    return sock

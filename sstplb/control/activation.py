"""Listening sockets that the service manager opened for us (sd_listen_fds(3)).

They begin at descriptor 3, and the environment says how many there are and whom they are for. So
ports below 1024 need no privilege of ours, and who calls while the balancer is being restarted
waits instead of being refused.

Each goes to the listener that is configured with its very address; one that no listener wants is
closed, with a warning. The variables are taken out of the environment: no process that we start
may believe they are meant for it.
"""

import os
import socket
from collections.abc import MutableMapping

import structlog

from sstplb.config.quantities import Endpoint
from sstplb.config.schema import Config

FIRST_DESCRIPTOR = 3

log = structlog.get_logger()


def take_activated(
    environment: MutableMapping[str, str], config: Config
) -> dict[Endpoint, socket.socket]:
    """Return the sockets passed to this process that listeners want, by configured address."""
    count, process, _ = (
        environment.pop(name, "") for name in ("LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES")
    )
    if process != str(os.getpid()) or not count.isdecimal():
        return {}
    wanted = {listener.address for listener in config.listeners}
    taken: dict[Endpoint, socket.socket] = {}
    for descriptor in range(FIRST_DESCRIPTOR, FIRST_DESCRIPTOR + int(count)):
        os.set_inheritable(descriptor, False)
        sock, place = _look_at(descriptor)
        if sock is not None and place in wanted and place not in taken:
            sock.setblocking(False)
            taken[place] = sock
            continue
        _close(sock, descriptor)
        log.warning(
            "activation_unused",
            message=f"the service manager passed {place or 'something that is no TCP socket'}, "
            f"which no listener has as its address; known: {', '.join(map(str, wanted))}",
        )
    return taken


def _look_at(descriptor: int) -> tuple[socket.socket | None, Endpoint | None]:
    """Return the socket behind a descriptor, and its address if it is one of TCP."""
    try:
        sock = socket.socket(fileno=descriptor)
    except OSError:  # a pipe, a file, or nothing
        return None, None
    if sock.family not in (socket.AF_INET, socket.AF_INET6) or sock.type != socket.SOCK_STREAM:
        return sock, None
    return sock, Endpoint(*sock.getsockname()[:2])


def _close(sock: socket.socket | None, descriptor: int) -> None:
    if sock is not None:
        sock.close()
    else:
        os.close(descriptor)

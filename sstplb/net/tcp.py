"""TCP sockets with the options a balancer wants, and the errors they give, in words.

Every socket here is non-blocking and close-on-exec. The numbers that Python does not name are
from ``linux/in.h`` and ``linux/in6.h``.
"""

import asyncio
import contextlib
import errno
import os
import socket
from functools import lru_cache

from sstplb.net.readiness import Readiness

IP_TRANSPARENT = 19
IPV6_TRANSPARENT = 75
TCP_CLOSE = 7
KEEPALIVE_PROBES = 4

Address = tuple[str, int]
"""A host address (never a name) and a port."""


@lru_cache(maxsize=1024)
def family_of(host: str) -> socket.AddressFamily:
    """Return AF_INET or AF_INET6. Raises ValueError for a name."""
    for family in (socket.AF_INET, socket.AF_INET6):
        with contextlib.suppress(OSError):
            socket.inet_pton(family, host.partition("%")[0])
            return family
    raise ValueError(f"expected an IP address, got {host!r}")


def is_address(host: str) -> bool:
    """Whether a host is an address rather than a name."""
    try:
        family_of(host)
    except ValueError:
        return False
    return True


def unmapped(host: str) -> str:
    """Show an IPv4 client of an IPv6 socket as the IPv4 client it is."""
    return host.removeprefix("::ffff:") if host.startswith("::ffff:") and "." in host else host


def listen(address: Address, backlog: int) -> socket.socket:
    """Open a listening socket; ``::`` takes IPv4 too. Raises OSError (in use, no privilege…)."""
    host, port = address
    sock = socket.socket(family_of(host), socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if sock.family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0 if host == "::" else 1)
        sock.bind((host, port))
        sock.listen(backlog)
    except BaseException:
        sock.close()
        raise
    return sock


def why_not_listening(error: OSError | ValueError) -> str:
    """Say why nobody can listen there, and the way out."""
    if isinstance(error, PermissionError):
        return "permission denied (ports below 1024 need CAP_NET_BIND_SERVICE)"
    if not isinstance(error, OSError) or not error.errno:
        return str(error)
    text = os.strerror(error.errno).lower()
    return f"{text} (ss -ltnp says by whom)" if error.errno == errno.EADDRINUSE else text


def refuse(sock: socket.socket) -> None:
    """Have a listening socket refuse who comes, for all processes that hold it; until ``listen``.

    Closing is not enough where another process, such as a service manager, holds it too: the
    kernel would go on filling its backlog.
    """
    with contextlib.suppress(OSError):  # it did not listen
        sock.shutdown(socket.SHUT_RD)


def listen_again(sock: socket.socket, address: Address, backlog: int) -> None:
    """Have a socket listen after ``refuse``. Raises OSError when somebody else listens there."""
    try:
        sock.bind(address)  # a port that the kernel had chosen was taken back
    except OSError as error:
        if error.errno != errno.EINVAL:  # any other it has kept
            raise
    sock.listen(backlog)


def tune(sock: socket.socket, keepalive_s: float) -> None:
    """Set what every leg wants: no Nagle delay, and keepalive after ``keepalive_s`` (0: none).

    What is set on a listening socket holds for those it accepts (Linux clones them).
    """
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, keepalive_s > 0)
    if keepalive_s:
        idle = max(1, round(keepalive_s))
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, idle)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, max(1, idle // KEEPALIVE_PROBES))
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, KEEPALIVE_PROBES)


def is_closed(sock: socket.socket) -> bool:
    """Whether the connection is over both ways, as after a reset (tcp(7), TCP_INFO)."""
    return sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] == TCP_CLOSE


async def connect(
    address: Address, *, source_host: str | None = None, transparent: bool = False
) -> socket.socket:
    """Connect to ``address``, from ``source_host`` if one is given.

    ``transparent``: the source is a client's address, not ours. That needs CAP_NET_ADMIN and
    routing that brings the answers back here (docs/configuration.md, ``transparent_source``).
    Raises OSError; waits without limit, so call it under a deadline.
    """
    sock = socket.socket(family_of(address[0]), socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        if transparent and source_host is not None:
            _borrow_address(sock, source_host)
        if source_host is not None:
            sock.bind((source_host, 0))
        error = sock.connect_ex(address)
        if error == errno.EINPROGRESS:  # within one machine it is over by now: ask before waiting
            error = sock.connect_ex(address)
        if error == errno.EALREADY:
            await Readiness(sock, asyncio.get_running_loop()).writable()
            error = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if error not in (0, errno.EISCONN):  # POSIX's answer to who asks again; Linux says 0 once
            raise OSError(error, os.strerror(error))
    except BaseException:
        sock.close()
        raise
    return sock


def _borrow_address(sock: socket.socket, host: str) -> None:
    """Allow binding to a client's address. Raises OSError, also when the families differ."""
    if family_of(host) != sock.family:
        raise OSError(
            errno.EAFNOSUPPORT, f"a transparent source needs one address family, not {host}"
        )
    if sock.family == socket.AF_INET:
        sock.setsockopt(socket.IPPROTO_IP, IP_TRANSPARENT, 1)
    else:
        sock.setsockopt(socket.IPPROTO_IPV6, IPV6_TRANSPARENT, 1)


async def resolve(host: str, port: int) -> Address:
    """Return the first address of a name (or the address itself). Raises OSError in words."""
    try:
        answers = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except socket.gaierror as error:
        raise OSError(error.errno, f"cannot resolve {host}: {error.strerror}") from error
    found = answers[0][4]
    return str(found[0]), int(found[1])

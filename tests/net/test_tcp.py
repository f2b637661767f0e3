"""Listening sockets that refuse for a while, whoever else holds them."""

import asyncio
import contextlib
import errno
import socket

import pytest

from sstplb.net import tcp
from tests.characters import play


def test_refuse_and_listen_again_with_a_port_of_our_own_choice() -> None:
    with tcp.listen(("127.0.0.1", 0), 8) as probe:
        address = probe.getsockname()
    with tcp.listen(address, 8) as ours, ours.dup() as managers:
        assert can_connect(address)
        tcp.refuse(ours)
        assert not can_connect(address), "though another process holds it, too"
        tcp.refuse(ours)
        tcp.listen_again(ours, address, 8)
        assert can_connect(address)
        assert managers.getsockname() == address


def test_a_port_the_kernel_chose_comes_back() -> None:
    with tcp.listen(("127.0.0.1", 0), 8) as ours:
        address = ours.getsockname()
        tcp.refuse(ours)
        assert not can_connect(address)
        tcp.listen_again(ours, address, 8)
        assert can_connect(address)


def test_somebody_else_listens_there_by_now() -> None:
    with tcp.listen(("127.0.0.1", 0), 8) as ours:
        address = ours.getsockname()
        tcp.refuse(ours)
        with tcp.listen(address, 8), pytest.raises(OSError, match="in use"):
            tcp.listen_again(ours, address, 8)
        tcp.listen_again(ours, address, 8)
        assert can_connect(address)


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_connecting_succeeds_is_refused_or_waits(host: str) -> None:
    async def story() -> None:
        with tcp.listen((host, 0), 0) as listening:
            address = listening.getsockname()[:2]
            with await tcp.connect(address) as sock:
                assert sock.getpeername()[:2] == address
            with contextlib.ExitStack() as stack, pytest.raises(TimeoutError):
                await connect_until_nobody_answers(address, stack)
        with pytest.raises(ConnectionRefusedError):
            await tcp.connect(address)

    play(story)


def test_a_system_that_says_so_twice_is_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story() -> None:
        with tcp.listen(("127.0.0.1", 0), 8) as listening:
            monkeypatch.setattr(socket.socket, "connect_ex", connect_by_posix)
            with await tcp.connect(listening.getsockname()) as sock:
                assert sock.getpeername() == listening.getsockname()

    play(story)


async def connect_until_nobody_answers(
    address: tuple[str, int], stack: contextlib.ExitStack
) -> None:
    """Fill the backlog. Raises TimeoutError then."""
    while True:
        async with asyncio.timeout(0.3):
            stack.enter_context(await tcp.connect(address))


def connect_by_posix(sock: socket.socket, address: tuple[str, int]) -> int:
    try:
        sock.getpeername()
    except OSError:
        sock.settimeout(5.0)
        sock.connect(address)
        sock.setblocking(False)
        return errno.EINPROGRESS
    return errno.EISCONN


def can_connect(address: tuple[str, int]) -> bool:
    try:
        socket.create_connection(address, 1.0).close()
    except ConnectionRefusedError:
        return False
    return True

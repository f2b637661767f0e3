"""Listening sockets that refuse for a while, whoever else holds them."""

import socket

import pytest

from sstplb.net import tcp


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


def can_connect(address: tuple[str, int]) -> bool:
    try:
        socket.create_connection(address, 1.0).close()
    except ConnectionRefusedError:
        return False
    return True

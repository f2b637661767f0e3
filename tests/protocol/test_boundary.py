"""Stepping into a stream: where the next packet begins."""

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sstplb.config.schema import Follow
from sstplb.errors import PacketError
from sstplb.protocol import packet
from sstplb.protocol.boundary import Boundary
from sstplb.protocol.watcher import Watcher

PACKETS = [
    packet.ECHO_REQUEST.encode(),
    packet.data_packet(b"\xff\x03\x00\x21" + bytes(range(256)) * 5),
    packet.data_packet(b""),
    packet.connect_request().encode(),
    packet.data_packet(b"\x11" * 4091),
]
ENDS = [sum(map(len, PACKETS[: n + 1])) for n in range(len(PACKETS))]
STREAM = b"".join(PACKETS)


@given(st.integers(0, len(STREAM)), st.lists(st.integers(1, 3000), max_size=30))
def test_who_followed_every_packet_knows(joined: int, sizes: list[int]) -> None:
    watcher = Watcher(Follow.FULL, frozenset())
    watcher.from_client(STREAM[:joined], 0.0)
    boundary, _ = watcher.boundaries()
    assert boundary.is_here == (joined in (0, *ENDS))
    at = joined
    for size in [*sizes, len(STREAM)]:
        chunk = STREAM[at : at + size]
        end = boundary.reached_in(chunk)
        if end is not None:
            assert at + end == min(e for e in (0, *ENDS) if e >= joined)
            return
        at += len(chunk)
    raise AssertionError("the end of the packet in hand was never reached")


@pytest.mark.parametrize("joined", [1, 5, 100, 1000, 1300])
def test_who_followed_none_finds_it_in_bulk(joined: int) -> None:
    stream = b"".join(packet.data_packet(os.urandom(1400)) for _ in range(20))
    boundary = Boundary(None)
    assert not boundary.is_here
    assert boundary.reached_in(stream[joined:]) == 1404 - joined


def test_a_chunk_mostly_begins_with_a_packet() -> None:
    assert Boundary(None).reached_in(PACKETS[1][:700]) == 0
    assert Boundary(None).reached_in(bytes(50) + PACKETS[0]) == 50


def test_where_nothing_looks_like_a_packet_it_is_not_found() -> None:
    boundary = Boundary(None)
    assert boundary.reached_in(bytes(5000)) is None
    assert boundary.reached_in(bytes(30) + PACKETS[1][:500]) is None, "one header proves little"
    assert boundary.reached_in(PACKETS[0]) == 0


def test_what_was_begun_must_become_a_packet() -> None:
    with pytest.raises(PacketError):
        Boundary(0, b"\x20").reached_in(b"\x00\x00\x00")

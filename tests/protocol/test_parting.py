"""Cutting a direction between two packets, wherever it was and however its bytes come."""

import itertools
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sstplb.config.schema import Follow
from sstplb.protocol import packet
from sstplb.protocol.boundary import Boundary
from sstplb.protocol.packet import StatusInfo
from sstplb.protocol.parting import SEARCH_BYTES_MAX, Parting, Place
from sstplb.protocol.watcher import Watcher

ACK = packet.DISCONNECT_ACK.encode()
DATA = [packet.data_packet(bytes([n]) * size) for n, size in enumerate((1, 1400, 40, 0, 4091), 1)]
ALL = [*DATA, packet.ECHO_REQUEST.encode(), *DATA]
STREAM = b"".join(ALL)
ENDS = [0, *itertools.accumulate(map(len, ALL))]


def next_end(at: int) -> int:
    return min(end for end in ENDS if end >= at)


def followed(until: int) -> Boundary:
    watcher = Watcher(Follow.FULL, frozenset())
    watcher.from_client(STREAM[:until], 0.0)
    return watcher.boundaries()[0]


def chunks(data: bytes, sizes: list[int]) -> list[bytes]:
    cut = []
    for size in sizes:
        cut.append(data[:size])
        data = data[size:]
    return [chunk for chunk in [*cut, data] if chunk]


@given(st.integers(0, len(STREAM)), st.lists(st.integers(1, 3000), max_size=40))
def test_what_goes_on_ends_with_a_packet(joined: int, sizes: list[int]) -> None:
    parting = Parting(followed(joined))
    assert parting.is_cut == (joined in ENDS)
    went_on = b"".join(parting.receive(c) for c in chunks(STREAM[joined:] + ACK, sizes))
    assert went_on == STREAM[joined : next_end(joined)]
    assert parting.place is Place.KNOWN
    assert parting.has_acknowledged, "the acknowledgement is heard behind dropped data"


@pytest.mark.parametrize("joined", range(0, 1500, 7))
def test_byte_by_byte(joined: int) -> None:
    parting = Parting(followed(joined))
    went_on = b"".join(parting.receive(bytes([byte])) for byte in STREAM[joined:] + ACK)
    assert went_on == STREAM[joined : next_end(joined)]
    assert parting.has_acknowledged


@given(st.integers(0, 5 * 1404 - 1), st.integers(6000, 20_000))
def test_in_bulk_a_place_is_found_where_nobody_counted(joined: int, size: int) -> None:
    """The hard case: random payload, chunks that begin and end anywhere."""
    stream = b"".join(packet.data_packet(os.urandom(1400)) for _ in range(40))
    parting = Parting(Boundary(None))
    went_on = b"".join(
        parting.receive(c) for c in chunks(stream[joined:], [size] * (len(stream) // size))
    )
    assert parting.place is Place.FOUND
    assert (joined + len(went_on)) % 1404 == 0


def test_small_packets_that_come_alone_are_found() -> None:
    parting = Parting(Boundary(None))
    assert parting.receive(ACK) == b""
    assert (parting.place, parting.has_acknowledged) == (Place.FOUND, True)


def test_one_header_that_leads_nowhere_does_not_convince() -> None:
    """A look-alike at a chunk's beginning would do for a capture; here it must not."""
    parting = Parting(Boundary(None))
    part = DATA[1][:700]
    assert parting.receive(part) == part
    assert parting.place is Place.AWAITED
    assert parting.receive(DATA[1][700:] + DATA[0] + ACK) == DATA[1][700:]
    assert (parting.place, parting.has_acknowledged) == (Place.FOUND, True)


def test_headers_that_are_followed_by_none_were_none() -> None:
    lie = b"".join(packet.data_packet(b"") for _ in range(3)) + b"\x77" * 5000
    parting = Parting(Boundary(None))
    assert parting.receive(lie) == lie
    assert parting.place is Place.AWAITED
    assert parting.receive(ACK) == b""
    assert parting.has_acknowledged


def test_silence_is_believed_only_where_nobody_counted() -> None:
    unknown = Parting(Boundary(None))
    unknown.is_quiet()
    assert unknown.place is Place.ASSUMED
    assert unknown.receive(DATA[0] + ACK) == b""
    assert unknown.has_acknowledged
    torn = Parting(followed(len(DATA[0]) + 100))
    torn.is_quiet()
    assert torn.place is Place.AWAITED
    torn.give_up()
    assert (torn.place, torn.receive(DATA[0])) == (Place.NOWHERE, b"")


@pytest.mark.parametrize("byte", [b"\x00", b"\x77"])
def test_the_search_is_bounded(byte: bytes) -> None:
    parting = Parting(Boundary(None))
    gone_on = 0
    for _ in range(100):
        gone_on += len(parting.receive(byte * 4096))
    assert parting.place is Place.NOWHERE
    assert gone_on <= SEARCH_BYTES_MAX + 4096


def test_what_was_begun_and_is_no_packet_cannot_be_cut() -> None:
    parting = Parting(Boundary(0, b"\x20"))
    parting.receive(b"\0\0\0\0")
    assert parting.place is Place.NOWHERE


@pytest.mark.parametrize("size", [1, 2, 3, 100])
def test_what_the_source_says_is_heard(size: int) -> None:
    said = packet.disconnect(StatusInfo()).encode() + packet.abort(StatusInfo()).encode()
    parting = Parting(Boundary())
    for at in range(0, len(said), size):
        assert parting.receive(said[at : at + size]) == b""
    assert parting.has_disconnected
    assert parting.has_aborted
    assert not parting.has_acknowledged


def test_nonsense_behind_the_cut_is_the_end_of_listening() -> None:
    parting = Parting(Boundary())
    parting.receive(b"\x77" * 100)
    parting.receive(ACK)
    assert parting.is_cut
    assert not parting.has_acknowledged

"""Capture files: what is written is read back, and what is no such file is refused."""

import struct

import pytest

from sstplb.errors import ProtocolError
from sstplb.protocol import pcapng
from sstplb.protocol.pcapng import BlockType

FRAME = b"\xff\x03\xc0\x21\x01\x01\x00\x04"
FILE = (
    pcapng.section_header("sstplb", "listener vpn; without secrets")
    + pcapng.interface("call 7", "client 10.0.0.1")
    + pcapng.ppp_frame(0, 1_700_000_000_123_456_789, FRAME, from_backend=False)
    + pcapng.ppp_frame(0, 1, FRAME + b"x", from_backend=True, comment="words")
)


def test_blocks_come_back_in_their_order() -> None:
    found = list(pcapng.blocks(FILE))
    assert [block.type for block in found] == [
        BlockType.SECTION_HEADER, BlockType.INTERFACE_DESCRIPTION,
        BlockType.ENHANCED_PACKET, BlockType.ENHANCED_PACKET,
    ]  # fmt: skip
    assert [pcapng.comment_of(block) for block in found[:2]] == [
        "listener vpn; without secrets", "",
    ]  # fmt: skip


def test_a_frame_has_its_direction_time_and_length() -> None:
    body = list(pcapng.blocks(FILE))[2].body
    interface, high, low, captured, original = struct.unpack_from("!IIIII", body)
    assert (interface, (high << 32) + low) == (0, 1_700_000_000_123_456_789)
    assert captured == original == 1 + len(FRAME)
    assert body[20 : 20 + captured] == b"\0" + FRAME
    options = body[20 + captured + -captured % 4 :]
    assert options == struct.pack("!HHIHH", 2, 4, 1, 0, 0), "inbound, and the end"


def test_every_block_is_a_multiple_of_four() -> None:
    for size in range(9):
        block = pcapng.ppp_frame(0, 0, bytes(size), from_backend=True, comment="c" * size)
        assert len(block) % 4 == 0
        assert block[4:8] == block[-4:] == len(block).to_bytes(4, "big")


def test_a_file_that_is_being_written_is_read_as_far_as_it_goes() -> None:
    whole = len(list(pcapng.blocks(FILE)))
    for size in range(len(FILE)):
        assert len(list(pcapng.blocks(FILE[:size]))) < whole


@pytest.mark.parametrize("data", [b"no capture at all", FILE[:-4] + b"\0\0\0\x04", bytes(40)])
def test_what_is_no_capture_is_refused(data: bytes) -> None:
    with pytest.raises(ProtocolError):
        list(pcapng.blocks(data))

"""Capture files as Wireshark reads them (pcapng, draft-ietf-opsawg-pcapng). Pure.

A file is a run of blocks, each with its type, its length before and after its body, and options at
its end. Four kinds are enough here: a section header begins the file, an interface description
says what the frames of one call are, an enhanced packet is one frame with its time and direction,
and the rest is skipped by whoever does not know it. ``blocks`` is the way back, for listing files
and for tests; it stops at an unfinished block, as a file that is being written has one.

Frames are of ``LINKTYPE_PPP_WITH_DIR``: one byte that says who sent it, then a PPP frame with or
without ``ff 03``. Seen from the backend, as if the file had been taken there: what the client says
is received, what the backend says is sent. Everything is big-endian, times are nanoseconds.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum

from sstplb.errors import ProtocolError, quote

LINKTYPE_PPP_WITH_DIR = 204
_BYTE_ORDER_MAGIC = 0x1A2B3C4D
_LENGTH_UNKNOWN = 0xFFFF_FFFF_FFFF_FFFF
_NANOSECONDS = b"\x09"
_BLOCK_BYTES_MIN = 12


class BlockType(IntEnum):
    """What a block is."""

    SECTION_HEADER = 0x0A0D0D0A
    INTERFACE_DESCRIPTION = 1
    ENHANCED_PACKET = 6


# Options; but for the first two, a number means something else in each kind of block.
_END, _COMMENT = 0, 1
_SECTION_APPLICATION = 4
_INTERFACE_NAME, _INTERFACE_DESCRIPTION, _INTERFACE_TIME_RESOLUTION = 2, 3, 9
_PACKET_FLAGS = 2


@dataclass(frozen=True, slots=True)
class Block:
    """One block of a file; ``body`` holds its options too."""

    type: int
    body: bytes


def section_header(application: str, comment: str = "") -> bytes:
    """Return the block that begins a file."""
    fixed = struct.pack("!IHHQ", _BYTE_ORDER_MAGIC, 1, 0, _LENGTH_UNKNOWN)
    options = [(_SECTION_APPLICATION, application.encode()), (_COMMENT, comment.encode())]
    return _block(BlockType.SECTION_HEADER, fixed, options)


def interface(name: str, description: str) -> bytes:
    """Return the block that introduces the frames of one call.

    Interfaces have no number in the file but their order, from 0.
    """
    fixed = struct.pack("!HHI", LINKTYPE_PPP_WITH_DIR, 0, 0)
    options = [
        (_INTERFACE_NAME, name.encode()),
        (_INTERFACE_DESCRIPTION, description.encode()),
        (_INTERFACE_TIME_RESOLUTION, _NANOSECONDS),
    ]
    return _block(BlockType.INTERFACE_DESCRIPTION, fixed, options)


def ppp_frame(
    interface_number: int, time_ns: int, frame: bytes, *, from_backend: bool, comment: str = ""
) -> bytes:
    """Return the block of one PPP frame. ``time_ns`` counts from 1970."""
    data = bytes([from_backend]) + frame
    fixed = struct.pack(
        "!IIIII", interface_number, time_ns >> 32, time_ns & 0xFFFF_FFFF, len(data), len(data)
    )
    direction = struct.pack("!I", 2 if from_backend else 1)  # outbound, inbound
    options = [(_PACKET_FLAGS, direction), (_COMMENT, comment.encode())]
    return _block(BlockType.ENHANCED_PACKET, fixed + _padded(data), options)


def blocks(data: bytes) -> Iterator[Block]:
    """Yield the blocks of a file made here. Raises ProtocolError when it is no such file."""
    at = 0
    while len(data) - at >= _BLOCK_BYTES_MIN:
        kind, length = struct.unpack_from("!II", data, at)
        if length < _BLOCK_BYTES_MIN or length % 4 or (not at and kind != BlockType.SECTION_HEADER):
            raise ProtocolError(f"expected a pcapng block, got {quote(data[at : at + 12])}")
        if at + length > len(data):
            return
        if data[at + length - 4 : at + length] != data[at + 4 : at + 8]:
            raise ProtocolError(f"expected length {length} to be said again at the block's end")
        yield Block(kind, data[at + 8 : at + length - 4])
        at += length


def comment_of(section: Block) -> str:
    """Return the comment of a section header; empty when it has none, or is another block."""
    body, at = section.body, 16 if section.type == BlockType.SECTION_HEADER else len(section.body)
    while at + 4 <= len(body):
        code, length = struct.unpack_from("!HH", body, at)
        if code == _COMMENT:
            return body[at + 4 : at + 4 + length].decode(errors="replace")
        at += 4 + length + -length % 4
    return ""


def _block(kind: BlockType, fixed: bytes, options: list[tuple[int, bytes]]) -> bytes:
    body = fixed + b"".join(
        struct.pack("!HH", code, len(value)) + _padded(value) for code, value in options if value
    )
    body += struct.pack("!HH", _END, 0)
    length = struct.pack("!I", _BLOCK_BYTES_MIN + len(body))
    return struct.pack("!I", kind) + length + body + length


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)

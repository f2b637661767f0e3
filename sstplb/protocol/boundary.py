"""Where the next packet begins, for whoever steps into a stream in the middle. Pure.

Who has followed every packet *knows*: so many bytes of the packet in hand are still owed (a header
that has begun may have to be completed first). Who has not must *find* it, by what a header looks
like ([MS-SSTP] 2.2.1: version, a bit, a length that leads to the next header). A place counts from
which several headers in a row lead to one another, or a single one to the very end of the chunk. A
peer writes whole packets, so a chunk mostly begins with one: who only wants to look may take the
first header of a chunk for granted, who wants to put in a word may not (``convinced``).

What is found so may be wrong, if somebody sends bytes that look like SSTP inside of SSTP. So it
serves where a mistake costs nothing: to begin a capture, and to end a call that is cut otherwise.
"""

import struct

from sstplb.errors import PacketError, quote
from sstplb.protocol.registry import (
    CONTROL_BYTES_MIN,
    HEADER_BYTES,
    LENGTH_MASK,
    PACKET_BYTES_MAX,
)

_HEADER = struct.Struct("!HH")
_DATA, _CONTROL = 0x1000, 0x1001
_RESERVED_IGNORED = 0xFF01
HEADERS_THAT_CONVINCE = 3
"""So many in a row, 16 fixed bits each, are not met by chance."""


class Boundary:
    """The end of the packet that a stream is in: known, or to be found."""

    def __init__(
        self, owed: int | None = 0, begun: bytes = b"", *, convinced: bool = False
    ) -> None:
        """``owed`` bytes of the packet in hand are still to come; None: that is not known.

        ``begun``, instead: the bytes there were of a packet whose length is not known yet.
        ``convinced``: one header alone, at a chunk's beginning, is not enough to be found by.
        """
        self._owed, self._begun, self._convinced = owed, begun, convinced

    @property
    def is_here(self) -> bool:
        """Whether a packet has just ended, as far as is known."""
        return self._owed == 0 and not self._begun

    @property
    def is_known(self) -> bool:
        """Whether somebody counted; else it has to be found."""
        return self._owed is not None

    def reached_in(self, data: bytes) -> int | None:
        """Take the next chunk; return where in it the packet in hand ends, 0 to its length.

        None: not in this chunk. Once it was reached, do not ask again.
        Raises PacketError when what was begun is no packet.
        """
        if self._owed is None:
            return _find(data, convinced=self._convinced)
        if len(self._begun) + len(data) < HEADER_BYTES and self._begun:
            self._begun += data
            return None
        if self._begun:
            header = (self._begun + data)[:HEADER_BYTES]
            kind, length = _HEADER.unpack(header)
            length &= LENGTH_MASK
            if kind & _RESERVED_IGNORED not in (_DATA, _CONTROL) or length < len(self._begun):
                raise PacketError(f"expected an SSTP header, got {quote(header)}")
            self._owed, self._begun = length - len(self._begun), b""
        if self._owed <= len(data):
            end, self._owed = self._owed, 0
            return end
        self._owed -= len(data)
        return None


def _find(data: bytes, *, convinced: bool) -> int | None:
    """Return where a packet begins in ``data``; None: nowhere that convinces."""
    if not convinced and _told_length(data, 0) is not None:
        return 0
    starts = range(min(len(data), PACKET_BYTES_MAX + 1))
    return next((start for start in starts if _convinces(data, start)), None)


def _convinces(data: bytes, at: int) -> bool:
    """Whether the headers from here on lead to one another, or to the end of the chunk."""
    for _ in range(HEADERS_THAT_CONVINCE):
        length = _told_length(data, at)
        if length is None:
            return False
        at += length
        if at == len(data):
            return True
    return True


def _told_length(data: bytes, at: int) -> int | None:
    """Return the length told here, by a header without reserved bits; None: this is none."""
    if len(data) - at < HEADER_BYTES:
        return None
    kind, length = _HEADER.unpack_from(data, at)
    least = CONTROL_BYTES_MIN if kind == _CONTROL else HEADER_BYTES
    return length if kind in (_DATA, _CONTROL) and least <= length <= PACKET_BYTES_MAX else None

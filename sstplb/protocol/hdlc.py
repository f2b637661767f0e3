"""PPP in async HDLC framing (RFC 1662): how pppd and a pty carry frames. Pure.

SSTP itself needs none of it, for its packets have lengths. The third-party client and server
that the tests run talk to a PPP peer through a pty or a pipe, and there a frame is bounded by
flags (0x7e), escaped (0x7d, then the byte with bit 5 turned) and ends with a checksum (FCS-16).
"""

from sstplb.protocol.ppp import ADDRESS_CONTROL

FLAG = 0x7E
ESCAPE = 0x7D
_TURN = 0x20
_GOOD_FCS = 0xF0B8
FRAME_BYTES_MAX = 4096
"""What is gathered between two flags before it is given up as noise."""


def _fcs_table() -> tuple[int, ...]:
    """RFC 1662 C.2: the polynomial x**0 + x**5 + x**12 + x**16, bit-reversed."""
    table = []
    for byte in range(256):
        value = byte
        for _ in range(8):
            value = value >> 1 ^ 0x8408 if value & 1 else value >> 1
        table.append(value)
    return tuple(table)


_FCS_TABLE = _fcs_table()
_ESCAPED = frozenset({FLAG, ESCAPE, *range(0x20)})
"""The default ACCM: all control characters, so that any line discipline lets the frame through."""


def fcs16(data: bytes) -> int:
    """Return the FCS-16 of ``data`` before its final complement."""
    value = 0xFFFF
    for byte in data:
        value = value >> 8 ^ _FCS_TABLE[(value ^ byte) & 0xFF]
    return value


def encode(frame: bytes) -> bytes:
    """Return a PPP frame between flags, escaped and with its checksum."""
    whole = frame if frame.startswith(ADDRESS_CONTROL) else ADDRESS_CONTROL + frame
    whole += (fcs16(whole) ^ 0xFFFF).to_bytes(2, "little")
    out = bytearray((FLAG,))
    for byte in whole:
        if byte in _ESCAPED:
            out += bytes((ESCAPE, byte ^ _TURN))
        else:
            out.append(byte)
    out.append(FLAG)
    return bytes(out)


class HdlcReader:
    """Cuts a stream into frames; noise and wrong checksums are dropped, as pppd does."""

    def __init__(self) -> None:
        self._frame = bytearray()
        self._escaped = False

    def feed(self, data: bytes) -> list[bytes]:
        """Take bytes, return the frames they complete, without their checksums."""
        frames: list[bytes] = []
        for byte in data:
            if byte == FLAG:
                frame = bytes(self._frame)
                if len(frame) > 4 and not self._escaped and fcs16(frame) == _GOOD_FCS:
                    frames.append(frame[:-2])
                self._frame.clear()
                self._escaped = False
            elif byte == ESCAPE:
                self._escaped = True
            elif len(self._frame) < FRAME_BYTES_MAX:
                self._frame.append(byte ^ _TURN if self._escaped else byte)
                self._escaped = False
        return frames

"""PPP frames and the packets of its control protocols (RFC 1661, 1332, 1334, 1994).

Inside an SSTP data packet is a PPP frame: optionally ``ff 03``, a protocol number of one or two
bytes (one where the low bit of the first is set, RFC 1661 6.5), then the information field. LCP,
IPCP and the authentication protocols share one packet form: code, identifier, 16-bit length that
counts the header, data; and LCP and IPCP carry options in it.

Only the forms are here; what is said when is ``ppp_peer.py``.
"""

import struct
from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum

from sstplb.errors import PppError, quote

ADDRESS_CONTROL = b"\xff\x03"
_PACKET = struct.Struct("!BBH")


class Protocol(IntEnum):
    """PPP protocol numbers (IANA)."""

    IP = 0x0021
    IPV6 = 0x0057
    IPCP = 0x8021
    CCP = 0x80FD
    LCP = 0xC021
    PAP = 0xC023
    CHAP = 0xC223
    EAP = 0xC227


class Code(IntEnum):
    """Codes of LCP and IPCP packets (RFC 1661 5)."""

    CONFIGURE_REQUEST = 1
    CONFIGURE_ACK = 2
    CONFIGURE_NAK = 3
    CONFIGURE_REJECT = 4
    TERMINATE_REQUEST = 5
    TERMINATE_ACK = 6
    CODE_REJECT = 7
    PROTOCOL_REJECT = 8
    ECHO_REQUEST = 9
    ECHO_REPLY = 10
    DISCARD_REQUEST = 11
    IDENTIFICATION = 12


class LcpOption(IntEnum):
    """LCP options (RFC 1661 6, RFC 1570)."""

    MRU = 1
    ACCM = 2
    AUTHENTICATION = 3
    MAGIC = 5


class IpcpOption(IntEnum):
    """IPCP options (RFC 1332)."""

    ADDRESS = 3


class PapCode(IntEnum):
    """RFC 1334 2.2."""

    REQUEST = 1
    ACK = 2
    NAK = 3


class ChapCode(IntEnum):
    """RFC 1994 4."""

    CHALLENGE = 1
    RESPONSE = 2
    SUCCESS = 3
    FAILURE = 4


PAP_AUTHENTICATION = struct.pack("!H", Protocol.PAP)
MSCHAPV2_AUTHENTICATION = struct.pack("!HB", Protocol.CHAP, 0x81)
"""The value of the LCP option that asks for MS-CHAPv2 (RFC 2759 2)."""


def encode_frame(protocol: int, information: bytes) -> bytes:
    """Return a frame with address and control bytes and a two-byte protocol number."""
    return ADDRESS_CONTROL + struct.pack("!H", protocol) + information


def parse_frame(frame: bytes) -> tuple[int, bytes]:
    """Return (protocol, information field). Raises PppError for a frame without a protocol."""
    body = frame.removeprefix(ADDRESS_CONTROL)
    if body[:1] and body[0] & 1:
        return body[0], body[1:]
    if len(body) < 2:
        raise PppError(f"expected a PPP frame with a protocol number, got {quote(frame)}")
    return int.from_bytes(body[:2], "big"), body[2:]


@dataclass(frozen=True, slots=True)
class PppPacket:
    """A packet of LCP, IPCP, PAP or CHAP."""

    code: int
    identifier: int
    data: bytes = b""

    def encode(self) -> bytes:
        """Return code, identifier, length and data."""
        return _PACKET.pack(self.code, self.identifier, _PACKET.size + len(self.data)) + self.data


def parse_packet(information: bytes) -> PppPacket:
    """Read a packet; padding after its length is dropped. Raises PppError."""
    if len(information) < _PACKET.size:
        raise PppError(f"expected a PPP packet of 4 bytes or more, got {len(information)} bytes")
    code, identifier, length = _PACKET.unpack_from(information)
    if not _PACKET.size <= length <= len(information):
        raise PppError(f"expected a length from 4 to {len(information)}, got {length}")
    return PppPacket(code, identifier, information[_PACKET.size : length])


@dataclass(frozen=True, slots=True)
class Option:
    """One option of an LCP or IPCP packet."""

    kind: int
    value: bytes = b""


def encode_options(options: Iterable[Option]) -> bytes:
    """Return options as the data of a packet."""
    return b"".join(bytes((o.kind, 2 + len(o.value))) + o.value for o in options)


def parse_options(data: bytes) -> list[Option]:
    """Read the options of a packet. Raises PppError when they do not fit."""
    options: list[Option] = []
    at = 0
    while at < len(data):
        length = data[at + 1] if at + 1 < len(data) else 0
        if not 2 <= length <= len(data) - at:
            raise PppError(f"expected an option that fits in {len(data) - at} bytes, got {length}")
        options.append(Option(data[at], data[at + 2 : at + length]))
        at += length
    return options

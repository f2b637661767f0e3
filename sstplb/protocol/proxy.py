"""The PROXY protocol preface, v1 and v2: who is really calling.

A proxy in front of us hides the client's address; where it says so, it puts a preface before the
first byte of the connection (the PROXY protocol, HAProxy's ``proxy-protocol.txt``). We read one
from sources the operator lists, and write one for backends that understand it. RRAS does not.

v1 is a line of text, at most 107 bytes; v2 is binary: a 12-byte signature, version and command,
family, 16-bit length, addresses, then TLVs, which are skipped.
"""

import re
import struct
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address

from sstplb.errors import PrefaceError, quote

Address = tuple[str, int]

V1_BYTES_MAX = 107
V2_SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
V2_BYTES_MAX = 4096
"""Addresses and TLVs together; the format would allow 64 KiB, nobody sends it."""
_V2_HEADER = struct.Struct("!12sBBH")
_V1_LINE = re.compile(rb"PROXY (?:UNKNOWN[^\r\n]*|(TCP[46]) (\S+) (\S+) (\d{1,5}) (\d{1,5}))\r\n")
_LOCAL, _PROXY = 0x20, 0x21
_TCP4, _TCP6 = 0x11, 0x21


@dataclass(frozen=True, slots=True)
class Preface:
    """What a preface says."""

    source: Address | None
    """The client; None when the proxy speaks for itself (LOCAL, UNKNOWN)."""
    destination: Address | None = None


class PrefaceReader:
    """Gathers bytes until a preface is whole."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self.trailing = b""
        """What came after the preface; only meaningful once it was returned."""

    def feed(self, data: bytes) -> Preface | None:
        """Take bytes; return the preface once it is whole, None before. Raises PrefaceError."""
        self._buffer += data
        buffer = bytes(self._buffer)
        if buffer.startswith(V2_SIGNATURE[: len(buffer)]):
            return self._version_2(buffer)
        if buffer.startswith(b"PROXY "[: len(buffer)]):
            return self._version_1(buffer)
        raise PrefaceError(f"expected a PROXY protocol preface, got {quote(buffer)}")

    def _version_1(self, buffer: bytes) -> Preface | None:
        end = buffer.find(b"\r\n") + 2
        if end == 1:
            if len(buffer) > V1_BYTES_MAX:
                raise PrefaceError(f"expected at most {V1_BYTES_MAX} bytes, got {quote(buffer)}…")
            return None
        match = _V1_LINE.fullmatch(buffer[:end])
        if match is None or end > V1_BYTES_MAX:
            raise PrefaceError(f"expected 'PROXY TCP4|TCP6|UNKNOWN …', got {quote(buffer[:end])}")
        self.trailing = buffer[end:]
        if match[1] is None:
            return Preface(None)
        family, source, destination, source_port, port = (
            part.decode("latin-1") for part in match.groups()
        )
        wanted = IPv4Address if family == "TCP4" else IPv6Address
        try:
            hosts = str(wanted(source)), str(wanted(destination))
        except ValueError as error:
            raise PrefaceError(
                f"expected {family} addresses, got {source} {destination}"
            ) from error
        if max(int(source_port), int(port)) > 65535:
            raise PrefaceError(f"expected ports up to 65535, got {source_port} {port}")
        return Preface((hosts[0], int(source_port)), (hosts[1], int(port)))

    def _version_2(self, buffer: bytes) -> Preface | None:
        if len(buffer) < _V2_HEADER.size:
            return None
        _, command, family, length = _V2_HEADER.unpack_from(buffer)
        if command not in (_LOCAL, _PROXY):
            raise PrefaceError(f"expected version 2, command LOCAL or PROXY, got {command:#x}")
        if length > V2_BYTES_MAX:
            raise PrefaceError(f"expected at most {V2_BYTES_MAX} bytes of addresses, got {length}")
        end = _V2_HEADER.size + length
        if len(buffer) < end:
            return None
        self.trailing = buffer[end:]
        if command == _LOCAL or family not in (_TCP4, _TCP6):
            return Preface(None)
        size = 4 if family == _TCP4 else 16
        if length < 2 * size + 4:
            raise PrefaceError(f"expected {2 * size + 4} bytes of addresses, got {length}")
        at = _V2_HEADER.size
        source, destination = buffer[at : at + size], buffer[at + size : at + 2 * size]
        source_port, port = struct.unpack_from("!HH", buffer, at + 2 * size)
        return Preface((str(ip_address(source)), source_port), (str(ip_address(destination)), port))


def encode_v1(source: Address, destination: Address) -> bytes:
    """Return the text form. Both addresses become IPv6 when either is."""
    ours, theirs = _same_family(source[0], destination[0])
    family = "TCP4" if ours.version == 4 else "TCP6"
    return f"PROXY {family} {ours} {theirs} {source[1]} {destination[1]}\r\n".encode()


def encode_v2(source: Address, destination: Address) -> bytes:
    """Return the binary form. Both addresses become IPv6 when either is."""
    ours, theirs = _same_family(source[0], destination[0])
    body = ours.packed + theirs.packed + struct.pack("!HH", source[1], destination[1])
    family = _TCP4 if ours.version == 4 else _TCP6
    return _V2_HEADER.pack(V2_SIGNATURE, _PROXY, family, len(body)) + body


def _same_family(
    source: str, destination: str
) -> tuple[IPv4Address, IPv4Address] | tuple[IPv6Address, IPv6Address]:
    first, second = ip_address(source), ip_address(destination)
    if isinstance(first, IPv4Address) and isinstance(second, IPv4Address):
        return first, second
    return _mapped(first), _mapped(second)


def _mapped(address: IPv4Address | IPv6Address) -> IPv6Address:
    return IPv6Address(f"::ffff:{address}") if isinstance(address, IPv4Address) else address

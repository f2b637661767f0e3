"""Just enough IPv4, ICMP and UDP to send something through a tunnel and know it came back. Pure.

RFC 791, 792, 768 and 1071. No options, no fragments: the lab makes these packets, and ignores
others.
"""

import struct
from dataclasses import dataclass
from ipaddress import IPv4Address

ICMP, UDP = 1, 17
ECHO_PORT = 7
"""RFC 862."""
_IP = struct.Struct("!BBHHHBBH4s4s")
_ICMP = struct.Struct("!BBHHH")
_UDP = struct.Struct("!HHHH")
_ECHO_REQUEST, _ECHO_REPLY = 8, 0


def checksum(data: bytes) -> int:
    """RFC 1071: the Internet checksum."""
    if len(data) % 2:
        data += b"\0"
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


@dataclass(frozen=True, slots=True)
class IpPacket:
    """An IPv4 packet without options."""

    source: IPv4Address
    destination: IPv4Address
    protocol: int
    payload: bytes

    def encode(self) -> bytes:
        """Return header and payload."""
        length = _IP.size + len(self.payload)
        fields = (0x45, 0, length, 0, 0x4000, 64, self.protocol)
        ends = (self.source.packed, self.destination.packed)
        header = _IP.pack(*fields, 0, *ends)
        return _IP.pack(*fields, checksum(header), *ends) + self.payload


def parse(data: bytes) -> IpPacket | None:
    """Read a packet; None for anything but whole IPv4 without fragments."""
    if len(data) < _IP.size or data[0] >> 4 != 4:
        return None
    header_bytes = (data[0] & 0x0F) * 4
    (_, _, length, _, fragment, _, protocol, _, source, destination) = _IP.unpack_from(data)
    if not _IP.size <= header_bytes <= length <= len(data) or fragment & 0x3FFF:
        return None
    payload = data[header_bytes:length]
    return IpPacket(IPv4Address(source), IPv4Address(destination), protocol, payload)


def echo_request(
    source: IPv4Address, destination: IPv4Address, identifier: int, number: int, payload: bytes
) -> bytes:
    """Return an ICMP echo request ("ping") as an IP packet."""
    return IpPacket(
        source, destination, ICMP, _icmp(_ECHO_REQUEST, identifier, number, payload)
    ).encode()


def is_echo_reply(packet: IpPacket, identifier: int, number: int, payload: bytes) -> bool:
    """Whether a packet answers that echo request."""
    return packet.protocol == ICMP and packet.payload == _icmp(
        _ECHO_REPLY, identifier, number, payload
    )


def udp(
    source: tuple[IPv4Address, int], destination: tuple[IPv4Address, int], payload: bytes
) -> bytes:
    """Return a UDP datagram as an IP packet; without a checksum, as RFC 768 allows."""
    datagram = _UDP.pack(source[1], destination[1], _UDP.size + len(payload), 0) + payload
    return IpPacket(source[0], destination[0], UDP, datagram).encode()


def answer(packet: IpPacket) -> bytes | None:
    """Answer as a host would: ICMP echo, UDP echo (RFC 862); None where there is no answer."""
    if packet.protocol == ICMP and packet.payload[:1] == bytes((_ECHO_REQUEST,)):
        if len(packet.payload) < _ICMP.size:
            return None
        _, _, _, identifier, number = _ICMP.unpack_from(packet.payload)
        reply = _icmp(_ECHO_REPLY, identifier, number, packet.payload[_ICMP.size :])
        return IpPacket(packet.destination, packet.source, ICMP, reply).encode()
    if packet.protocol == UDP and len(packet.payload) >= _UDP.size:
        source_port, port, _, _ = _UDP.unpack_from(packet.payload)
        if port == ECHO_PORT:
            payload = packet.payload[_UDP.size :]
            return udp((packet.destination, port), (packet.source, source_port), payload)
    return None


def udp_payload(packet: IpPacket) -> bytes | None:
    """Return what a UDP datagram carries; None for other packets."""
    is_udp = packet.protocol == UDP and len(packet.payload) >= _UDP.size
    return packet.payload[_UDP.size :] if is_udp else None


def _icmp(kind: int, identifier: int, number: int, payload: bytes) -> bytes:
    unsigned = _ICMP.pack(kind, 0, 0, identifier, number) + payload
    return _ICMP.pack(kind, 0, checksum(unsigned), identifier, number) + payload

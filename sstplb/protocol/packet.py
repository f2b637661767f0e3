"""SSTP packets, messages and attributes: bytes to values and back ([MS-SSTP] 2.2).

A stream is a run of packets; a packet is a 4-byte header and either a PPP frame (data) or a
message (control); a message is a type and attributes. ``PacketReader`` cuts a stream, however it
was split on its way, into packets; ``parse_message`` reads a control packet; ``encode`` is the
way back. Reserved bits are ignored on receipt and zero when sent, as 2.2.1 wants it.

A stream that cannot be cut any more (wrong version, impossible length) is past mending, for
nobody can say where the next packet begins: PacketError, and 3.1.5.1 has the connection dropped
without a word.
"""

import struct
from dataclasses import dataclass

from sstplb.errors import PacketError, quote
from sstplb.protocol.registry import (
    ATTRIBUTE_HEADER_BYTES,
    CONTROL_BIT,
    CONTROL_BYTES_MIN,
    HEADER_BYTES,
    LENGTH_MASK,
    NONCE_BYTES,
    PACKET_BYTES_MAX,
    VERSION,
    AttributeId,
    EncapsulatedProtocol,
    HashProtocol,
    MessageType,
    Status,
    name_of,
)

_HEADER = struct.Struct("!BBH")
_MESSAGE = struct.Struct("!HH")
_HASH_FIELD_BYTES = 32
"""2.2.7: hash and MAC fields are 32 bytes; SHA-1 values are padded with zeros."""
HASH_BYTES = ((HashProtocol.SHA1, 20), (HashProtocol.SHA256, 32))


@dataclass(frozen=True, slots=True)
class Packet:
    """One SSTP packet: a PPP frame, or the bytes of a message."""

    is_control: bool
    payload: bytes

    def encode(self) -> bytes:
        """Return header and payload. Raises PacketError when it is too long for 12 bits."""
        length = HEADER_BYTES + len(self.payload)
        if length > PACKET_BYTES_MAX:
            raise PacketError(
                f"expected a packet of at most {PACKET_BYTES_MAX} bytes, got {length}"
            )
        return _HEADER.pack(VERSION, CONTROL_BIT if self.is_control else 0, length) + self.payload


class PacketReader:
    """Cuts a stream of bytes into packets. Holds at most one unfinished packet."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    @property
    def buffered(self) -> int:
        """Bytes of an unfinished packet."""
        return len(self._buffer)

    def feed(self, data: bytes) -> list[Packet]:
        """Take bytes, return the packets they complete.

        Raises PacketError when the stream cannot be cut: wrong version, or a length below the
        least a header (or a control packet) can have.
        """
        buffer = self._buffer
        buffer += data
        packets: list[Packet] = []
        at = 0
        while len(buffer) - at >= HEADER_BYTES:
            version, flags, length = _HEADER.unpack_from(buffer, at)
            length &= LENGTH_MASK
            is_control = bool(flags & CONTROL_BIT)
            least = CONTROL_BYTES_MIN if is_control else HEADER_BYTES
            if version != VERSION or length < least:
                raise PacketError(
                    f"expected an SSTP header (version {VERSION:#x}, length {least} or more), "
                    f"got {quote(buffer[at : at + HEADER_BYTES])}"
                )
            if len(buffer) - at < length:
                break
            packets.append(Packet(is_control, bytes(buffer[at + HEADER_BYTES : at + length])))
            at += length
        del buffer[:at]
        return packets


def data_packet(frame: bytes) -> bytes:
    """Return a PPP frame as a data packet."""
    return Packet(is_control=False, payload=frame).encode()


# --- attributes -----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Attribute:
    """One attribute, its value not yet understood (2.2.4)."""

    id: int
    value: bytes

    def encode(self) -> bytes:
        """Return the attribute's header and value."""
        return (
            struct.pack("!BBH", 0, self.id, ATTRIBUTE_HEADER_BYTES + len(self.value)) + self.value
        )


@dataclass(frozen=True, slots=True)
class StatusInfo:
    """Why a message was refused or a call ends (2.2.8)."""

    attribute_id: int = AttributeId.NO_ERROR
    status: int = Status.NO_ERROR
    value: bytes = b""
    """In a NAK: the first 64 bytes of the offending attribute's value."""

    def attribute(self) -> Attribute:
        """Return it as an attribute."""
        fixed = struct.pack("!3xBI", self.attribute_id, self.status)
        return Attribute(AttributeId.STATUS_INFO, fixed + self.value)

    @classmethod
    def parse(cls, attribute: Attribute) -> "StatusInfo":
        """Read it. Raises PacketError when it is too short.

        sorz/sstp-server sends the status alone, without the attribute it is about.
        """
        if len(attribute.value) == 4:
            return cls(AttributeId.NO_ERROR, int.from_bytes(attribute.value, "big"))
        _expect_length(attribute, 8, at_least=True)
        attribute_id, status = struct.unpack_from("!3xBI", attribute.value)
        return cls(attribute_id, status, attribute.value[8:])

    def __str__(self) -> str:
        return f"{name_of(AttributeId, self.attribute_id)}: {name_of(Status, self.status)}"


@dataclass(frozen=True, slots=True)
class CryptoBindingRequest:
    """The server's half of the crypto binding: its nonce and the hashes it takes (2.2.6)."""

    hash_protocols: int
    """A mask of HashProtocol bits."""
    nonce: bytes

    def attribute(self) -> Attribute:
        """Return it as an attribute."""
        value = struct.pack("!3xB", self.hash_protocols) + self.nonce
        return Attribute(AttributeId.CRYPTO_BINDING_REQUEST, value)

    @classmethod
    def parse(cls, attribute: Attribute) -> "CryptoBindingRequest":
        """Read it. Raises PacketError when its length is wrong."""
        _expect_length(attribute, 4 + NONCE_BYTES)
        return cls(attribute.value[3], attribute.value[4:])


@dataclass(frozen=True, slots=True)
class CryptoBinding:
    """The client's half: nonce echoed, the certificate it saw, and the proof (2.2.7).

    ``certificate_hash`` and ``compound_mac`` are as long as the hash makes them (20 or 32); the
    padding exists on the wire only.
    """

    hash_protocol: int
    nonce: bytes
    certificate_hash: bytes
    compound_mac: bytes

    def attribute(self) -> Attribute:
        """Return it as an attribute."""
        value = (
            struct.pack("!3xB", self.hash_protocol)
            + self.nonce
            + self.certificate_hash.ljust(_HASH_FIELD_BYTES, b"\0")
            + self.compound_mac.ljust(_HASH_FIELD_BYTES, b"\0")
        )
        return Attribute(AttributeId.CRYPTO_BINDING, value)

    @classmethod
    def parse(cls, attribute: Attribute) -> "CryptoBinding":
        """Read it. Raises PacketError when its length is wrong; an unknown hash reads as 32."""
        _expect_length(attribute, 4 + NONCE_BYTES + 2 * _HASH_FIELD_BYTES)
        value = attribute.value
        size = dict(HASH_BYTES).get(HashProtocol(value[3]), 32) if value[3] in (1, 2) else 32
        hash_at = 4 + NONCE_BYTES
        mac_at = hash_at + _HASH_FIELD_BYTES
        return cls(
            value[3],
            value[4:hash_at],
            value[hash_at : hash_at + size],
            value[mac_at : mac_at + size],
        )


def _expect_length(attribute: Attribute, length: int, *, at_least: bool = False) -> None:
    got = len(attribute.value)
    if got < length if at_least else got != length:
        more = " or more" if at_least else ""
        raise PacketError(
            f"expected {name_of(AttributeId, attribute.id)} of {length}{more} bytes, got {got}"
        )


# --- messages -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Message:
    """What a control packet says."""

    type: int
    attributes: tuple[Attribute, ...] = ()

    @property
    def name(self) -> str:
        """The specification's name of the type."""
        return name_of(MessageType, self.type)

    def encode(self) -> bytes:
        """Return the whole control packet."""
        body = b"".join(attribute.encode() for attribute in self.attributes)
        payload = _MESSAGE.pack(self.type, len(self.attributes)) + body
        return Packet(is_control=True, payload=payload).encode()

    def find(self, attribute_id: AttributeId) -> Attribute | None:
        """Return the first attribute of that kind."""
        return next((a for a in self.attributes if a.id == attribute_id), None)

    @property
    def status(self) -> StatusInfo | None:
        """The Status Info it carries, if any. Raises PacketError when that is malformed."""
        found = self.find(AttributeId.STATUS_INFO)
        return None if found is None else StatusInfo.parse(found)

    @property
    def binding_request(self) -> CryptoBindingRequest | None:
        """The Crypto Binding Request it carries. Raises PacketError when that is malformed."""
        found = self.find(AttributeId.CRYPTO_BINDING_REQUEST)
        return None if found is None else CryptoBindingRequest.parse(found)

    @property
    def binding(self) -> CryptoBinding | None:
        """The Crypto Binding it carries. Raises PacketError when that is malformed."""
        found = self.find(AttributeId.CRYPTO_BINDING)
        return None if found is None else CryptoBinding.parse(found)


def parse_message(payload: bytes) -> Message:
    """Read the payload of a control packet. Raises PacketError when the attributes do not fit."""
    if len(payload) < _MESSAGE.size:
        raise PacketError(f"expected a message of 4 bytes or more, got {quote(payload)}")
    kind, count = _MESSAGE.unpack_from(payload)
    attributes: list[Attribute] = []
    at = _MESSAGE.size
    for number in range(count):
        if len(payload) - at < ATTRIBUTE_HEADER_BYTES:
            raise PacketError(f"expected {count} attributes, got {number} before the packet ended")
        _, attribute_id, length = struct.unpack_from("!BBH", payload, at)
        length &= LENGTH_MASK
        if not ATTRIBUTE_HEADER_BYTES <= length <= len(payload) - at:
            raise PacketError(
                f"expected attribute {number + 1} to fit in {len(payload) - at} bytes, "
                f"got length {length}"
            )
        value = payload[at + ATTRIBUTE_HEADER_BYTES : at + length]
        attributes.append(Attribute(attribute_id, value))
        at += length
    if at != len(payload):
        raise PacketError(f"expected {at} bytes of message, got {len(payload)}")
    return Message(kind, tuple(attributes))


def connect_request() -> Message:
    """2.2.9: the client asks for PPP."""
    value = struct.pack("!H", EncapsulatedProtocol.PPP)
    attribute = Attribute(AttributeId.ENCAPSULATED_PROTOCOL_ID, value)
    return Message(MessageType.CALL_CONNECT_REQUEST, (attribute,))


def connect_ack(nonce: bytes, hash_protocols: int) -> Message:
    """2.2.10: the server takes the call and asks for the binding."""
    request = CryptoBindingRequest(hash_protocols, nonce)
    return Message(MessageType.CALL_CONNECT_ACK, (request.attribute(),))


def connect_nak(*reasons: StatusInfo) -> Message:
    """2.2.12: the server does not take what the request asked for."""
    return Message(MessageType.CALL_CONNECT_NAK, tuple(r.attribute() for r in reasons))


def connected(binding: CryptoBinding) -> Message:
    """2.2.11: the client proves that its TLS ends where its PPP does."""
    return Message(MessageType.CALL_CONNECTED, (binding.attribute(),))


def abort(reason: StatusInfo) -> Message:
    """2.2.13: the call ends in error."""
    return Message(MessageType.CALL_ABORT, (reason.attribute(),))


def disconnect(reason: StatusInfo | None = None) -> Message:
    """2.2.14: the call ends in peace."""
    return Message(MessageType.CALL_DISCONNECT, () if reason is None else (reason.attribute(),))


DISCONNECT_ACK = Message(MessageType.CALL_DISCONNECT_ACK)
ECHO_REQUEST = Message(MessageType.ECHO_REQUEST)
ECHO_RESPONSE = Message(MessageType.ECHO_RESPONSE)

"""Bytes taken apart: each field with its name and what it says.

Nothing here knows a value by heart. The packets were cut and read by the protocol room, names come
from ``protocol/registry.py``; this only says where in the bytes each of them stands. A field's
bytes, put together, are the packet again (a test holds that).
"""

import struct
from types import MappingProxyType

from sstplb.errors import PacketError, PppError, TlsError
from sstplb.lab.lessons.page import Anatomy, Field
from sstplb.protocol import ipv4, ppp
from sstplb.protocol.packet import (
    Attribute,
    CryptoBinding,
    CryptoBindingRequest,
    Message,
    Packet,
    StatusInfo,
    parse_message,
)
from sstplb.protocol.registry import (
    ATTRIBUTE_HEADER_BYTES,
    HEADER_BYTES,
    AttributeId,
    EncapsulatedProtocol,
    HashProtocol,
    MessageType,
    Status,
    name_of,
)
from sstplb.tls.hello import RECORD_HEADER_BYTES, HelloReader

APPLICATION_DATA = 23
RECORDS = MappingProxyType(
    {20: "change cipher spec", 21: "alert", 22: "handshake", APPLICATION_DATA: "application data"}
)
SEAL_BYTES = 17
"""What TLS 1.3 adds inside a record: a type and an authentication tag (RFC 8446 5.2)."""
SECRET = frozenset({ppp.Protocol.CHAP, ppp.Protocol.PAP})
"""Frames of these are never shown: a challenge and a response are as good as the password."""
SHOWN_BYTES = 32
"""Of bytes that mean nothing without a key."""


def name(packet: Packet) -> str:
    """Say in a few words what a packet is."""
    if packet.is_control:
        try:
            return parse_message(packet.payload).name
        except PacketError:
            return "control packet that cannot be read"
    try:
        protocol, information = ppp.parse_frame(packet.payload)
    except PppError:
        return "data packet without a PPP protocol"
    if protocol == ppp.Protocol.IP:
        return f"IP, {len(information)} bytes"
    known = name_of(ppp.Protocol, protocol)
    codes = {ppp.Protocol.CHAP: ppp.ChapCode, ppp.Protocol.PAP: ppp.PapCode}
    try:
        inside = ppp.parse_packet(information)
    except PppError:
        return known
    code = name_of(codes.get(protocol, ppp.Code), inside.code)  # type: ignore[call-overload]
    return f"{known} {code.replace('_', '-').title()}"


def head(raw: bytes, title: str) -> Anatomy:
    """Take apart the HTTP head of a request or an answer, line by line."""
    fields = []
    for number, line in enumerate(raw.splitlines(keepends=True)):
        label, colon, value = line.decode("latin-1").rstrip("\r\n").partition(":")
        if number == 0:
            fields.append(Field(line, "first line", label + colon + value, matters=True))
        elif colon:
            fields.append(Field(line, label, value.strip()))
        else:
            fields.append(Field(line, "blank line", "the head ends here"))
    return Anatomy(title, tuple(fields))


def packet(got: Packet, title: str = "") -> Anatomy:
    """Take apart one SSTP packet."""
    raw = got.encode()
    what = "control packet: a message" if got.is_control else "data packet: a PPP frame"
    fields = [
        Field(raw[:1], "version", "SSTP 1.0"),
        Field(raw[1:2], "reserved and C", what),
        Field(raw[2:4], "length", f"{len(raw)} bytes, this header included"),
    ]
    if got.is_control:
        message = parse_message(got.payload)
        fields += _message(message)
        known = message.name
    else:
        fields += _frame(got.payload)
        known = f"{name(got)}, in a data packet"
    return Anatomy(title or known, tuple(fields))


def _message(message: Message) -> list[Field]:
    count = len(message.attributes)
    fields = [
        Field(message.type.to_bytes(2, "big"), "message type", message.name, matters=True),
        Field(count.to_bytes(2, "big"), "attributes", f"{count}"),
    ]
    for attribute in message.attributes:
        fields += _attribute(attribute)
    return fields


def _attribute(attribute: Attribute) -> list[Field]:
    raw, value = attribute.encode(), attribute.value
    known = name_of(AttributeId, attribute.id)
    fields = [
        Field(raw[:1], "reserved"),
        Field(raw[1:2], "attribute", known),
        Field(raw[2:4], "length", f"{len(raw)} bytes, {ATTRIBUTE_HEADER_BYTES} of them this one"),
    ]
    match attribute.id:
        case AttributeId.ENCAPSULATED_PROTOCOL_ID:
            number = int.from_bytes(value, "big")
            fields.append(Field(value, "protocol", name_of(EncapsulatedProtocol, number)))
        case AttributeId.STATUS_INFO:
            fields += _status(attribute)
        case AttributeId.CRYPTO_BINDING_REQUEST:
            fields += _request(attribute)
        case AttributeId.CRYPTO_BINDING:
            fields += _binding(attribute)
        case _:
            fields.append(Field(value, "value"))
    return fields


def _status(attribute: Attribute) -> list[Field]:
    status, value = StatusInfo.parse(attribute), attribute.value
    about = name_of(AttributeId, status.attribute_id)
    fields = [
        Field(value[:3], "reserved"),
        Field(value[3:4], "about", about, matters=status.attribute_id != 0),
        Field(value[4:8], "status", name_of(Status, status.status), matters=status.status != 0),
    ]
    return fields + ([Field(value[8:], "quoted", "what was not liked")] if status.value else [])


def _request(attribute: Attribute) -> list[Field]:
    request, value = CryptoBindingRequest.parse(attribute), attribute.value
    offered = " and ".join(h.name for h in HashProtocol if h & request.hash_protocols)
    return [
        Field(value[:3], "reserved"),
        Field(value[3:4], "hashes", f"offers {offered}"),
        Field(
            value[4:], "nonce", "fresh for this call; the client must send it back", matters=True
        ),
    ]


def _binding(attribute: Attribute) -> list[Field]:
    bound, value = CryptoBinding.parse(attribute), attribute.value
    chosen = name_of(HashProtocol, bound.hash_protocol)
    return [
        Field(value[:3], "reserved"),
        Field(value[3:4], "hash", f"chose {chosen}"),
        Field(value[4:36], "nonce", "the server's own, sent back"),
        Field(value[36:68], "certificate hash", f"{chosen} of the certificate the client saw in "
              "TLS", matters=True),
        Field(value[68:100], "compound MAC", "proof: over this whole packet, with a key that only "
              "the client and the server can have", matters=True),
    ]  # fmt: skip


def _frame(frame: bytes) -> list[Field]:
    """Take apart a PPP frame; what authenticates is not shown."""
    fields = []
    if frame.startswith(ppp.ADDRESS_CONTROL):
        fields.append(Field(frame[:2], "PPP address, control", "always so"))
    protocol, information = ppp.parse_frame(frame)
    at = len(frame) - len(information)
    start = len(fields) and 2
    fields.append(Field(frame[start:at], "PPP protocol", name_of(ppp.Protocol, protocol)))
    if protocol == ppp.Protocol.IP:
        return fields + _ip(information)
    if protocol in SECRET:
        return [*fields, Field(bytes(len(information)), "not shown", "zeros stand for secrets")]
    inside = ppp.parse_packet(information)
    code = name_of(ppp.Code, inside.code)
    fields += [
        Field(information[:1], "code", code, matters=True),
        Field(information[1:2], "identifier", f"{inside.identifier}"),
        Field(information[2:4], "length", f"{4 + len(inside.data)} bytes"),
    ]
    rest = information[4:]
    return fields + ([Field(rest, "options")] if rest else [])


def _ip(data: bytes) -> list[Field]:
    got = ipv4.parse(data)
    if got is None:
        return [Field(data, "IP packet")]
    return [
        Field(data[:20], "IP header", f"{got.source} → {got.destination}, as it will travel inside "
              "the company's network", matters=True),
        Field(data[20:], "IP payload", f"{len(data) - 20} bytes"),
    ]  # fmt: skip


# --- TLS, from outside --------------------------------------------------------------------------


def record(raw: bytes, title: str = "") -> Anatomy:
    """Take apart the first TLS record of ``raw`` as somebody without keys can."""
    header, length = raw[:RECORD_HEADER_BYTES], int.from_bytes(raw[3:5], "big")
    body = raw[RECORD_HEADER_BYTES : RECORD_HEADER_BYTES + length]
    kind = RECORDS.get(header[0], "unknown")
    fields = [
        Field(header[:1], "record type", kind),
        Field(header[1:3], "version", "always 03 03 or 03 01, for the sake of old boxes"),
        Field(header[3:5], "length", f"{length} bytes"),
    ]
    name = _server_name(raw)
    if name is not None:
        at = body.find(name.encode())
        fields += [
            _cut(body[:at], "ClientHello", "random, ciphers, extensions"),
            Field(name.encode(), "server name", f"{name}, in the clear", matters=True),
        ]
        if rest := body[at + len(name) :]:
            fields.append(_cut(rest, "more extensions", "versions, key shares and the like"))
    elif header[0] == APPLICATION_DATA:
        fields.append(_cut(body, "ciphertext", "without the keys: noise", matters=True))
    else:
        fields.append(_cut(body, "handshake"))
    return Anatomy(title or f"TLS record: {kind}", tuple(fields))


def _cut(data: bytes, name: str, meaning: str = "", *, matters: bool = False) -> Field:
    """Return a field of which only the beginning is shown."""
    elided = max(0, len(data) - SHOWN_BYTES)
    more = f"{meaning} (… {elided} more bytes)" if elided else meaning
    return Field(data[:SHOWN_BYTES], name, more, matters, elided)


def records(stream: bytes) -> list[bytes]:
    """Cut a TLS stream into whole records."""
    found, at = [], 0
    while at + RECORD_HEADER_BYTES <= len(stream):
        (length,) = struct.unpack_from("!H", stream, at + 3)
        end = at + RECORD_HEADER_BYTES + length
        if end > len(stream):
            break
        found.append(stream[at:end])
        at = end
    return found


def _server_name(raw: bytes) -> str | None:
    try:
        hello = HelloReader().feed(raw)
    except TlsError:
        return None
    return None if hello is None else hello.server_name


def sizes(got: Packet) -> tuple[int, int]:
    """Return (IP bytes, SSTP bytes around them) of a data packet that carries IP, else zeros."""
    protocol, information = ppp.parse_frame(got.payload)
    if got.is_control or protocol != ppp.Protocol.IP:
        return 0, 0
    return len(information), HEADER_BYTES + len(got.payload) - len(information)


def is_message(got: Packet, kind: MessageType) -> bool:
    """Whether a packet is a message of that type."""
    return got.is_control and parse_message(got.payload).type == kind

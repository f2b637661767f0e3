"""Framing and messages: any split gives the same packets, and nothing malformed gets through."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sstplb.errors import PacketError
from sstplb.protocol import packet
from sstplb.protocol.packet import Attribute, Message, Packet, PacketReader, parse_message
from sstplb.protocol.registry import AttributeId, MessageType, Status

PACKETS = st.lists(
    st.builds(Packet, is_control=st.booleans(), payload=st.binary(min_size=4, max_size=300)),
    max_size=8,
)


@given(PACKETS, st.data())
def test_any_split_gives_the_same_packets(packets: list[Packet], data: st.DataObject) -> None:
    stream = b"".join(p.encode() for p in packets)
    reader, got, at = PacketReader(), [], 0
    while at < len(stream):
        size = data.draw(st.integers(1, len(stream) - at))
        got += reader.feed(stream[at : at + size])
        at += size
    assert got == packets
    assert reader.buffered == 0


def test_byte_by_byte_and_with_a_rest() -> None:
    stream = packet.connect_request().encode() + packet.data_packet(b"\xff\x03\xc0\x21") + b"\x10\0"
    reader = PacketReader()
    got = [p for byte in stream for p in reader.feed(bytes([byte]))]
    assert [p.is_control for p in got] == [True, False]
    assert reader.buffered == 2


def test_the_messages_of_the_specification_are_these_bytes() -> None:
    assert packet.connect_request().encode().hex() == "1001000e00010001000100060001"
    no_error = packet.StatusInfo()
    assert packet.disconnect(no_error).encode().hex() == "10010014000600010002000c0000000000000000"
    assert packet.DISCONNECT_ACK.encode().hex() == "1001000800070000"
    assert packet.ECHO_REQUEST.encode().hex() == "1001000800080000"
    assert len(packet.connect_ack(bytes(32), 3).encode()) == 48


@pytest.mark.parametrize("stream", [b"\x11\0\0\x08", b"\x10\0\0\x03", b"\x10\1\0\x07", b"GET /"])
def test_what_cannot_be_cut_is_an_error(stream: bytes) -> None:
    with pytest.raises(PacketError, match="expected an SSTP header"):
        PacketReader().feed(stream)


def test_reserved_bits_are_ignored() -> None:
    assert PacketReader().feed(b"\x10\xfe\xf0\x05Z") == [Packet(is_control=False, payload=b"Z")]


def test_a_packet_too_long_for_its_length_field_is_refused() -> None:
    with pytest.raises(PacketError, match="at most 4095"):
        packet.data_packet(bytes(4092))


@given(
    st.lists(st.builds(Attribute, st.integers(0, 255), st.binary(max_size=100)), max_size=5).map(
        tuple
    )
)
def test_messages_survive_the_wire(attributes: tuple[Attribute, ...]) -> None:
    message = Message(MessageType.CALL_CONNECT_NAK, attributes)
    (got,) = PacketReader().feed(message.encode())
    assert parse_message(got.payload) == message


@pytest.mark.parametrize(
    "payload", [b"\0\1\0", b"\0\1\0\1", b"\0\1\0\1\0\1\0\3", b"\0\1\0\1\0\1\0\7\0\0", b"\0\7\0\0\0"]
)
def test_attributes_that_do_not_fit_are_an_error(payload: bytes) -> None:
    with pytest.raises(PacketError):
        parse_message(payload)


def test_status_info_reads_as_the_specification_names_it() -> None:
    info = packet.StatusInfo(AttributeId.CRYPTO_BINDING, Status.VALUE_NOT_SUPPORTED)
    message = packet.abort(info)
    assert message.status == info
    assert str(info) == "CRYPTO_BINDING: VALUE_NOT_SUPPORTED"
    assert Message(MessageType.ECHO_REQUEST).status is None

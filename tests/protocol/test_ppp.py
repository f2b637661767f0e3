"""PPP forms and HDLC framing survive the wire in any split."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sstplb.errors import PppError
from sstplb.protocol import hdlc, ppp
from sstplb.protocol.ppp import Option, PppPacket, Protocol


@given(st.sampled_from(list(Protocol)), st.binary(max_size=100))
def test_frames_survive(protocol: Protocol, information: bytes) -> None:
    frame = ppp.encode_frame(protocol, information)
    assert ppp.parse_frame(frame) == (protocol, information)
    assert ppp.parse_frame(frame.removeprefix(b"\xff\x03")) == (protocol, information)


def test_a_compressed_protocol_number_is_read() -> None:
    assert ppp.parse_frame(b"\x21E\0") == (Protocol.IP, b"E\0")


@pytest.mark.parametrize("frame", [b"", b"\xff\x03", b"\xff\x03\xc0"])
def test_a_frame_without_a_protocol_is_an_error(frame: bytes) -> None:
    with pytest.raises(PppError):
        ppp.parse_frame(frame)


@given(
    st.integers(0, 255),
    st.integers(0, 255),
    st.lists(st.builds(Option, st.integers(0, 255), st.binary(max_size=20)), max_size=6),
    st.binary(max_size=8),
)
def test_packets_and_options_survive_padding(
    code: int, identifier: int, options: list[Option], padding: bytes
) -> None:
    packet = PppPacket(code, identifier, ppp.encode_options(options))
    got = ppp.parse_packet(packet.encode() + padding)
    assert got == packet
    assert ppp.parse_options(got.data) == options


@pytest.mark.parametrize("data", [b"\x01\x01\0\x03", b"\1\1\0\x09abcd", b"\1"])
def test_packets_that_do_not_fit_are_an_error(data: bytes) -> None:
    with pytest.raises(PppError):
        ppp.parse_packet(data)


@pytest.mark.parametrize("data", [b"\1", b"\1\1", b"\1\5ab"])
def test_options_that_do_not_fit_are_an_error(data: bytes) -> None:
    with pytest.raises(PppError):
        ppp.parse_options(data)


@given(st.lists(st.binary(min_size=3, max_size=60), max_size=5), st.integers(1, 7))
def test_hdlc_frames_survive_any_split(frames: list[bytes], size: int) -> None:
    whole = [b"\xff\x03" + frame for frame in frames]
    stream = b"".join(hdlc.encode(frame) for frame in whole)
    reader = hdlc.HdlcReader()
    got = [f for at in range(0, len(stream), size) for f in reader.feed(stream[at : at + size])]
    assert got == whole


def test_a_damaged_hdlc_frame_is_dropped_and_the_next_is_read() -> None:
    good = hdlc.encode(b"\xff\x03\xc0\x21abc")
    bad = bytearray(good)
    bad[8] ^= 1
    assert hdlc.HdlcReader().feed(bytes(bad) + b"noise" + good) == [b"\xff\x03\xc0\x21abc"]


def test_control_characters_never_appear_on_the_line() -> None:
    line = hdlc.encode(b"\xff\x03" + bytes(range(32)))
    assert min(line) >= 0x20

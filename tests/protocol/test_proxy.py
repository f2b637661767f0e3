"""PROXY prefaces: ours are read back in any split, others' faults are named."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sstplb.errors import PrefaceError
from sstplb.protocol.proxy import V2_SIGNATURE, Preface, PrefaceReader, encode_v1, encode_v2

PORTS = st.integers(0, 65535)
V4 = st.tuples(st.ip_addresses(v=4).map(str), PORTS)
V6 = st.tuples(st.ip_addresses(v=6).map(str), PORTS)


@given(st.one_of(st.tuples(V4, V4), st.tuples(V6, V6)), st.booleans(), st.integers(1, 60))
def test_what_we_write_is_read_back_in_any_split(
    pair: tuple[tuple[str, int], tuple[str, int]], binary: bool, size: int
) -> None:
    stream = (encode_v2 if binary else encode_v1)(*pair) + b"\x16\x03\x01"
    reader, got, rest = PrefaceReader(), None, b""
    for at in range(0, len(stream), size):
        if got is None:
            got = reader.feed(stream[at : at + size])
        else:
            rest += stream[at : at + size]
    assert got == Preface(*pair)
    assert reader.trailing + rest == b"\x16\x03\x01"


def test_families_that_differ_become_ipv6() -> None:
    got = PrefaceReader().feed(encode_v2(("2001:db8::1", 5), ("192.0.2.1", 443)))
    assert got == Preface(("2001:db8::1", 5), ("::ffff:c000:201", 443))


@pytest.mark.parametrize(
    "stream",
    [
        b"PROXY UNKNOWN\r\n",
        b"PROXY UNKNOWN ffff::1 ::1 1 2\r\n",
        V2_SIGNATURE + b"\x20\x00\x00\x00",
        V2_SIGNATURE + b"\x21\x31" + struct.pack("!H", 4) + b"\0\0\0\0",
    ],
)
def test_a_proxy_may_speak_for_itself(stream: bytes) -> None:
    assert PrefaceReader().feed(stream) == Preface(None)


def test_tlvs_after_the_addresses_are_skipped() -> None:
    plain = encode_v2(("192.0.2.1", 1), ("192.0.2.2", 2))
    stream = plain[:14] + struct.pack("!H", 12 + 7) + plain[16:] + b"\x04\x00\x04abcd" + b"next"
    reader = PrefaceReader()
    assert reader.feed(stream) == Preface(("192.0.2.1", 1), ("192.0.2.2", 2))
    assert reader.trailing == b"next"


@pytest.mark.parametrize(
    "stream",
    [
        b"GET / HTTP/1.1\r\n",
        b"\x16\x03\x01",
        b"PROXY TCP4 ::1 ::1 1 2\r\n",
        b"PROXY TCP4 1.2.3.4 1.2.3.4 99999 2\r\n",
        b"PROXY TCP9 1.2.3.4 1.2.3.4 1 2\r\n",
        b"PROXY UNKNOWN " + b"x" * 200,
        V2_SIGNATURE + b"\x11\x11\x00\x0c" + bytes(12),
        V2_SIGNATURE + b"\x21\x11\x00\x04" + bytes(4),
        V2_SIGNATURE + b"\x21\x11\xff\xff",
    ],
)
def test_what_is_no_preface_is_an_error(stream: bytes) -> None:
    with pytest.raises(PrefaceError):
        PrefaceReader().feed(stream)

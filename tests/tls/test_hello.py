"""ClientHellos of real clients in any split, and those who are none."""

import ssl

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sstplb.errors import TlsError
from sstplb.tls.hello import ClientHello, HelloReader


def hello(
    name: str | None = "vpn.example.test",
    alpn: tuple[str, ...] = (),
    newest: ssl.TLSVersion = ssl.TLSVersion.MAXIMUM_SUPPORTED,
) -> bytes:
    context = ssl.create_default_context()
    context.maximum_version = newest
    context.check_hostname = name is not None
    if alpn:
        context.set_alpn_protocols(list(alpn))
    out = ssl.MemoryBIO()
    tls = context.wrap_bio(ssl.MemoryBIO(), out, server_hostname=name)
    with pytest.raises(ssl.SSLWantReadError):
        tls.do_handshake()
    return out.read()


REAL = hello(alpn=("h2", "http/1.1"))


@settings(deadline=None)
@given(st.integers(1, 40), st.integers(1, 200))
def test_any_split_over_segments_and_records(segment: int, record: int) -> None:
    body = REAL[5:]
    records = b"".join(
        b"\x16\x03\x01" + len(body[at : at + record]).to_bytes(2, "big") + body[at : at + record]
        for at in range(0, len(body), record)
    )
    reader, got = HelloReader(), None
    for at in range(0, len(records), segment):
        assert got is None
        got = reader.feed(records[at : at + segment])
    assert got == ClientHello("vpn.example.test", ("h2", "http/1.1"), "TLSv1.3")


def test_a_client_without_sni() -> None:
    assert HelloReader().feed(hello(None)) == ClientHello(None, (), "TLSv1.3")


@pytest.mark.parametrize(
    ("start", "words"),
    [
        (b"GET / HTTP/1.1\r\n", "plain HTTP"),
        (b"SSTP_DUPLEX_POST /sra", "without TLS"),
        (b"SSH-2.0-OpenSSH", "SSH"),
        (b"PROXY TCP4 ", "proxy_protocol_from"),
        (b"\0\0\0", "ClientHello"),
        (b"\x16\x02\0\0\5", "ClientHello"),
        (b"\x16\x03\x01\0\5\2\0\0\1\0", "ClientHello"),
    ],
)
def test_strangers_are_recognised(start: bytes, words: str) -> None:
    with pytest.raises(TlsError, match=words) as caught:
        HelloReader().feed(start)
    assert caught.value.reason == "not_tls"


@given(st.binary(min_size=1, max_size=300))
def test_nonsense_in_a_hello_is_an_error_or_a_hello(noise: bytes) -> None:
    body = b"\x01" + len(noise).to_bytes(3, "big") + noise
    record = b"\x16\x03\x01" + len(body).to_bytes(2, "big") + body
    reader = HelloReader()
    try:
        got: object = reader.feed(record)
    except TlsError as error:
        got = error.reason
    assert got == "bad_hello" or isinstance(got, ClientHello)


def test_an_endless_hello_is_refused() -> None:
    with pytest.raises(TlsError) as caught:
        HelloReader().feed(b"\x16\x03\x01\x00\x40\x01\xff\xff\xff" + bytes(60))
    assert caught.value.reason == "bad_hello"


@pytest.mark.parametrize("newest", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_the_newest_version_that_is_offered(newest: ssl.TLSVersion) -> None:
    got = HelloReader().feed(hello("vpn.example.test", newest=newest))
    assert got is not None
    assert got.newest_version == newest.name.replace("v1_", "v1.")

"""The opening, as Windows and others send it, in any split; and what is no opening at all."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sstplb.errors import HeadError
from sstplb.protocol import head
from sstplb.protocol.head import HeadReader, parse_request, parse_response

WINDOWS_REQUEST = (
    b"SSTP_DUPLEX_POST /sra_{BA195980-CD49-458b-9E23-C84EE0ADCD75}/ HTTP/1.1\r\n"
    b"SSTPCORRELATIONID: {0D528CAC-464E-423A-A399-9470E234BC54}\r\n"
    b"Content-Length: 18446744073709551615\r\n"
    b"Host: vpn.example.test\r\n\r\n"
)
WINDOWS_ANSWER = (
    b"HTTP/1.1 200 \r\n"
    b"Content-Length: 18446744073709551615\r\n"
    b"Server: Microsoft-HTTPAPI/2.0\r\n"
    b"Date: Mon, 21 Feb 2011 05:37:00 GMT\r\n\r\n"
)


def test_we_write_what_windows_writes() -> None:
    guid = "{0D528CAC-464E-423A-A399-9470E234BC54}"
    assert head.sstp_request("vpn.example.test", guid) == WINDOWS_REQUEST
    assert head.sstp_response("Mon, 21 Feb 2011 05:37:00 GMT") == WINDOWS_ANSWER


@given(st.lists(st.integers(0, len(WINDOWS_REQUEST) + 5), max_size=6))
def test_any_split_gives_the_same_head_and_rest(cuts: list[int]) -> None:
    stream = WINDOWS_REQUEST + b"\x10\x01\x00\x0e"
    reader, got = HeadReader.request(16384), None
    edges = [0, *sorted(cuts), len(stream)]
    rest = b""
    for start, end in pairwise(edges):
        if got is None:
            got = reader.feed(stream[start:end])
        else:
            rest += stream[start:end]
    assert got is not None
    assert got.raw == WINDOWS_REQUEST
    assert reader.trailing + rest == b"\x10\x01\x00\x0e"


def test_what_a_request_says() -> None:
    got = parse_request(WINDOWS_REQUEST)
    assert got.is_sstp
    assert got.correlation_id == "{0D528CAC-464E-423A-A399-9470E234BC54}"
    assert got.header("host") == "vpn.example.test"
    assert got.tenant_id is None


@pytest.mark.parametrize(
    "target",
    [
        "/sra_%7BBA195980-CD49-458b-9E23-C84EE0ADCD75%7D/",
        "/sra_{ba195980-cd49-458b-9e23-c84ee0adcd75}/",
        "/sra_{BA195980-CD49-458b-9E23-C84EE0ADCD75}/?tenantid=fabrikam",
    ],
)
def test_the_uri_is_known_in_every_spelling(target: str) -> None:
    got = parse_request(f"SSTP_DUPLEX_POST {target} HTTP/1.1\r\n\r\n".encode())
    assert got.is_sstp
    assert got.tenant_id == ("fabrikam" if "tenantid" in target else None)


@pytest.mark.parametrize("target", ["//[x/", "http://[::1/?tenantid=t", "?", "*"])
def test_a_target_that_is_no_uri_is_just_another_target(target: str) -> None:
    got = parse_request(f"GET {target} HTTP/1.1\r\n\r\n".encode())
    assert not got.is_sra
    assert got.tenant_id is None


@pytest.mark.parametrize(
    "line",
    [
        "GET / HTTP/1.1",
        "SSTP_DUPLEX_POST / HTTP/1.1",
        "HEAD /sra_{BA195980-CD49-458b-9E23-C84EE0ADCD75}/ HTTP/1.1",
    ],
)
def test_a_visitor_is_not_sstp(line: str) -> None:
    assert not parse_request(f"{line}\r\n\r\n".encode()).is_sstp


def test_bare_line_feeds_as_in_the_published_f5_string_are_read() -> None:
    got = HeadReader.request(1000).feed(b"HEAD / HTTP/1.1\r\nHost:r\nConnection: Close\n\nrest")
    assert got is not None
    assert got.headers == (("Host", "r"), ("Connection", "Close"))


def test_answers_with_and_without_a_phrase() -> None:
    assert parse_response(WINDOWS_ANSWER).phrase == ""
    assert parse_response(b"HTTP/1.1 200\r\n\r\n").status == 200
    assert parse_response(b"HTTP/1.0 503 Service Unavailable\r\n\r\n").phrase.startswith("Service")


@pytest.mark.parametrize(
    "raw",
    [
        b"\r\n\r\n",
        b"hello\r\n\r\n",
        b"GET / HTTP/2\r\n\r\n",
        b"GET / HTTP/1.1\r\nno colon\r\n\r\n",
        b"GET / HTTP/1.1\r\nA: b\0c\r\n\r\n",
        b"GET / HTTP/1.1\r\nName : x\r\n\r\n",
    ],
)
def test_what_is_no_head_is_an_error(raw: bytes) -> None:
    with pytest.raises(HeadError) as caught:
        HeadReader.request(16384).feed(raw)
    assert caught.value.reason == "bad_head"


def test_an_endless_head_is_cut_short() -> None:
    reader = HeadReader.request(1024)
    assert reader.feed(b"x" * 1000) is None
    with pytest.raises(HeadError) as caught:
        reader.feed(b"x" * 1000)
    assert caught.value.reason == "head_too_large"


def test_a_whole_head_over_the_limit_is_too_large_too() -> None:
    with pytest.raises(HeadError) as caught:
        HeadReader.request(64).feed(b"GET / HTTP/1.1\r\nA: " + b"b" * 64 + b"\r\n\r\n")
    assert caught.value.reason == "head_too_large"

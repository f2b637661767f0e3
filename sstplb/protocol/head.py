"""The head: the HTTP-looking opening of a call, read and written ([MS-SSTP] 3.2.4.1, RFC 9112).

SSTP opens with one HTTP request and one answer and is no HTTP afterwards. So this is no HTTP
parser: it finds the blank line, understands what comes before, and keeps **every byte as it
came**, for both heads are relayed unchanged (some clients want the literal ``200 OK``, Windows
servers send an empty reason phrase). What follows the blank line is already SSTP and is kept.

Lenient where the field is: bare LF ends a line (the published F5 send string does that), header
names have any case, the GUID of the URI too, and its braces may be percent-encoded. Strict where
it must be: a head has a size limit, and control characters inside a line are an error.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar
from urllib.parse import parse_qs, unquote, urlsplit

from sstplb.config.schema import SRA_PATH
from sstplb.errors import HeadError, quote
from sstplb.protocol.registry import (
    CONTENT_LENGTH,
    CORRELATION_HEADER,
    DUPLEX_METHOD,
    TENANT_PARAMETER,
)

Headers = tuple[tuple[str, str], ...]

_BLANK_LINE = re.compile(rb"\r?\n\r?\n")
_REQUEST_LINE = re.compile(
    r"(?P<method>[!#$%&'*+.^_`|~0-9A-Za-z-]+) (?P<target>\S+) HTTP/(?P<version>1\.[01])"
)
_STATUS_LINE = re.compile(r"HTTP/(?P<version>1\.[01]) (?P<status>[1-5]\d\d)(?: (?P<phrase>.*))?")
_CONTROL_CHARACTER = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")


@dataclass(frozen=True, slots=True)
class RequestHead:
    """A client's request."""

    raw: bytes
    """The head as it came, blank line included."""
    method: str
    target: str
    version: str
    headers: Headers

    def header(self, name: str) -> str | None:
        """Return the first header of that name, whatever its case."""
        return _header(self.headers, name)

    @property
    def is_sra(self) -> bool:
        """Whether the target is the URI of SSTP."""
        return unquote(_split(self.target)[0]).lower() == SRA_PATH.lower()

    @property
    def is_sstp(self) -> bool:
        """Whether this opens a call: the method *and* the URI (3.2.4.1)."""
        return self.method == DUPLEX_METHOD and self.is_sra

    @property
    def correlation_id(self) -> str | None:
        """The client's own name for the call, which Windows writes in every event it logs."""
        return self.header(CORRELATION_HEADER)

    @property
    def tenant_id(self) -> str | None:
        """The tenant asked for (3.2.4.1: ``?tenantid=``), percent-decoded; it may be anything."""
        values = parse_qs(_split(self.target)[1]).get(TENANT_PARAMETER)
        return values[0] if values else None


@dataclass(frozen=True, slots=True)
class ResponseHead:
    """A backend's answer."""

    raw: bytes
    """The head as it came, blank line included."""
    version: str
    status: int
    phrase: str
    headers: Headers

    def header(self, name: str) -> str | None:
        """Return the first header of that name, whatever its case."""
        return _header(self.headers, name)


HeadT = TypeVar("HeadT", RequestHead, ResponseHead)


class HeadReader(Generic[HeadT]):
    """Gathers bytes until a head is whole."""

    def __init__(self, parse: Callable[[bytes], HeadT], size_max: int) -> None:
        self._parse: Callable[[bytes], HeadT] = parse
        self._size_max = size_max
        self._buffer = bytearray()
        self.trailing = b""
        """What came after the blank line; only meaningful once a head was returned."""

    @staticmethod
    def request(size_max: int) -> "HeadReader[RequestHead]":
        """Return a reader of one request head of at most ``size_max`` bytes."""
        return HeadReader(parse_request, size_max)

    @staticmethod
    def response(size_max: int) -> "HeadReader[ResponseHead]":
        """Return a reader of one answer's head of at most ``size_max`` bytes."""
        return HeadReader(parse_response, size_max)

    def feed(self, data: bytes) -> HeadT | None:
        """Take bytes; return the head once it is whole, None before.

        Raises HeadError: ``head_too_large``, or ``bad_head`` when it cannot be read.
        """
        # The blank line may straddle two chunks: look again at the last three bytes.
        look_from = max(0, len(self._buffer) - 3)
        self._buffer += data
        match = _BLANK_LINE.search(self._buffer, look_from)
        if (match.end() if match else len(self._buffer)) > self._size_max:
            raise HeadError(
                f"expected a head of at most {self._size_max} bytes, got more: "
                f"{quote(self._buffer)}",
                reason="head_too_large",
            )
        if match is None:
            return None
        raw, self.trailing = bytes(self._buffer[: match.end()]), bytes(self._buffer[match.end() :])
        return self._parse(raw)


def parse_request(raw: bytes) -> RequestHead:
    """Read a whole request head. Raises HeadError."""
    first, headers = _lines(raw)
    match = _REQUEST_LINE.fullmatch(first)
    if match is None:
        raise HeadError(f"expected 'METHOD TARGET HTTP/1.1', got {quote(raw)}")
    return RequestHead(raw, match["method"], match["target"], match["version"], headers)


def parse_response(raw: bytes) -> ResponseHead:
    """Read the whole head of an answer. Raises HeadError."""
    first, headers = _lines(raw)
    match = _STATUS_LINE.fullmatch(first)
    if match is None:
        raise HeadError(f"expected 'HTTP/1.1 STATUS REASON', got {quote(raw)}")
    return ResponseHead(raw, match["version"], int(match["status"]), match["phrase"] or "", headers)


def _lines(raw: bytes) -> tuple[str, Headers]:
    """Split a head into its first line and its headers. Raises HeadError."""
    first, *rest = [line.removesuffix("\r") for line in raw.decode("latin-1").split("\n")]
    headers: list[tuple[str, str]] = []
    for line in rest:
        if not line:
            continue
        if _CONTROL_CHARACTER.search(line):
            raise HeadError(f"control character in a header: {quote(line.encode('latin-1'))}")
        if line[0] in " \t" and headers:  # RFC 9112 5.2: a folded line continues the last one
            headers[-1] = (headers[-1][0], f"{headers[-1][1]} {line.strip()}")
            continue
        name, colon, value = line.partition(":")
        if not colon or not name or name != name.strip():
            raise HeadError(f"expected 'Name: value', got {quote(line.encode('latin-1'))}")
        headers.append((name, value.strip()))
    return first, tuple(headers)


def _split(target: str) -> tuple[str, str]:
    """Return path and query of a target; of one that is no URI at all: nothing."""
    try:
        parts = urlsplit(target)
    except ValueError:
        return "", ""
    return parts.path, parts.query


def _header(headers: Headers, name: str) -> str | None:
    wanted = name.lower()
    return next((value for key, value in headers if key.lower() == wanted), None)


# --- writing --------------------------------------------------------------------------------


def build_request(
    method: str, target: str, headers: Sequence[tuple[str, str]], version: str = "1.1"
) -> bytes:
    """Return a request head."""
    return _build(f"{method} {target} HTTP/{version}", headers)


def build_response(
    status: int, phrase: str, headers: Sequence[tuple[str, str]], body: bytes = b""
) -> bytes:
    """Return an answer. An empty phrase still leaves its space, as Windows does."""
    return _build(f"HTTP/1.1 {status} {phrase}", headers) + body


def sstp_request(host: str, correlation_id: str, tenant_id: str | None = None) -> bytes:
    """Return the request of a Windows client: these headers in this order."""
    target = SRA_PATH if tenant_id is None else f"{SRA_PATH}?{TENANT_PARAMETER}={tenant_id}"
    return build_request(
        DUPLEX_METHOD,
        target,
        [
            (CORRELATION_HEADER, correlation_id),
            ("Content-Length", CONTENT_LENGTH),
            ("Host", host),
        ],
    )


def sstp_response(date: str) -> bytes:
    """Return the answer of Windows Server; ``date`` in the form of RFC 9110 5.6.7."""
    return build_response(
        200,
        "",
        [("Content-Length", CONTENT_LENGTH), ("Server", "Microsoft-HTTPAPI/2.0"), ("Date", date)],
    )


def simple_answer(status: int, phrase: str, text: str = "") -> bytes:
    """Return a short answer of our own that ends the connection."""
    body = text.encode()
    return build_response(
        status,
        phrase,
        [
            ("Content-Type", "text/plain; charset=utf-8"),
            ("Content-Length", str(len(body))),
            ("Connection", "close"),
        ],
        body,
    )


def _build(first: str, headers: Sequence[tuple[str, str]]) -> bytes:
    lines = [first, *(f"{name}: {value}" for name, value in headers), "", ""]
    return "\r\n".join(lines).encode("latin-1")

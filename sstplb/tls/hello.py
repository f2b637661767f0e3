"""The ClientHello: read before any TLS is done (RFC 8446 4.1.2, RFC 6066 3).

Which certificate to show, and in passthrough which pool to ask, depends on the server name the
client wants, and that stands in its first message in the clear. So we read that message ourselves
and give every byte of it to whoever comes next: our own TLS engine, or the backend. It also tells
at once who does not speak TLS at all.
"""

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from sstplb.errors import TlsError, quote

RECORD_HEADER_BYTES = 5
RECORD_BYTES_MAX = 16384
HELLO_BYTES_MAX = 16384
"""Post-quantum key shares make hellos of 2 KiB; the format would allow 16 MiB."""
_HANDSHAKE, _CLIENT_HELLO = 22, 1
_MESSAGE_HEADER_BYTES = 4
_SERVER_NAME, _ALPN, _SUPPORTED_VERSIONS = 0, 16, 43
_VERSIONS: Mapping[int, str] = MappingProxyType(
    {0x0300: "SSLv3", 0x0301: "TLSv1", 0x0302: "TLSv1.1", 0x0303: "TLSv1.2", 0x0304: "TLSv1.3"}
)
_STRANGERS = (
    (b"SSH-", "an SSH client"),
    (b"GET ", "a plain HTTP request"),
    (b"POST ", "a plain HTTP request"),
    (b"HEAD ", "a plain HTTP request"),
    (b"SSTP_DUPLEX_POST", "SSTP without TLS"),
    (b"PROXY ", "a PROXY preface from a source that is not in proxy_protocol_from"),
    (b"\r\n\r\n\0\r\nQUIT", "a PROXY preface from a source that is not in proxy_protocol_from"),
)


@dataclass(frozen=True, slots=True)
class ClientHello:
    """What a client asks for before anything is secret."""

    server_name: str | None
    alpn: tuple[str, ...] = ()
    newest_version: str | None = None
    """The newest TLS version offered, as ``TLSv1.3``; None: none that we know."""


class HelloReader:
    """Gathers bytes until the ClientHello is whole, over records and segments.

    Each record is looked at once, whatever the size of the pieces it comes in.
    """

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._at = 0
        """Where the next record begins."""
        self._message = bytearray()
        """What the records so far hold."""

    def feed(self, data: bytes) -> ClientHello | None:
        """Take bytes; return the hello once it is whole, None before.

        Raises TlsError ``not_tls`` for who speaks something else, ``bad_hello`` for nonsense.
        """
        self._buffer += data
        body = self._body()
        if body is None:
            return None
        try:
            return _parse(body)
        except (struct.error, IndexError, ValueError) as error:
            message = f"the ClientHello cannot be read: {error}"
            raise TlsError(message, reason="bad_hello") from error

    def _body(self) -> bytes | None:
        """Take whole records out of the buffer until they hold the whole message."""
        buffer, message = self._buffer, self._message
        while True:
            header = buffer[self._at : self._at + RECORD_HEADER_BYTES]
            if (header and header[0] != _HANDSHAKE) or (len(header) > 1 and header[1] != 3):
                raise self._stranger()
            if len(header) < RECORD_HEADER_BYTES:
                return None
            length = int.from_bytes(header[3:5], "big")
            if not 0 < length <= RECORD_BYTES_MAX:
                raise self._stranger()
            end = self._at + RECORD_HEADER_BYTES + length
            if len(buffer) < end:
                return None
            message += buffer[self._at + RECORD_HEADER_BYTES : end]
            self._at = end
            size = self._size()
            if size is not None and len(message) >= size:
                return bytes(message[_MESSAGE_HEADER_BYTES:size])

    def _size(self) -> int | None:
        """Return the size of the whole message, once its header has come."""
        message = self._message
        if message and message[0] != _CLIENT_HELLO:
            raise self._stranger()
        if len(message) < _MESSAGE_HEADER_BYTES:
            return None
        size = _MESSAGE_HEADER_BYTES + int.from_bytes(message[1:4], "big")
        if size > HELLO_BYTES_MAX:
            raise TlsError(
                f"expected a ClientHello of at most {HELLO_BYTES_MAX} bytes, got {size}",
                reason="bad_hello",
            )
        return size

    def _stranger(self) -> TlsError:
        start = bytes(self._buffer)
        for prefix, who in _STRANGERS:
            if start.startswith(prefix):
                return TlsError(f"expected a TLS ClientHello, got {who}", reason="not_tls")
        return TlsError(f"expected a TLS ClientHello, got {quote(start)}", reason="not_tls")


def _parse(body: bytes) -> ClientHello:
    """Read the fields that matter. Raises struct.error, IndexError or ValueError."""
    versions = [int(struct.unpack_from("!H", body)[0])]  # legacy; 1.2 where 1.3 is offered too
    at = 2 + 32  # the random
    at += 1 + body[at]  # session id
    at += 2 + int(struct.unpack_from("!H", body, at)[0])  # cipher suites
    at += 1 + body[at]  # compression methods
    if at >= len(body):
        return ClientHello(None, (), _newest(versions))  # extensions are optional before TLS 1.3
    end = at + 2 + int(struct.unpack_from("!H", body, at)[0])
    at += 2
    if end > len(body):
        raise ValueError("its extensions are longer than itself")
    name: str | None = None
    alpn: tuple[str, ...] = ()
    while at < end:
        kind, size = struct.unpack_from("!HH", body, at)
        value = body[at + 4 : at + 4 + size]
        if kind == _SERVER_NAME:
            name = _server_name(value)
        elif kind == _ALPN:
            alpn = _protocols(value)
        elif kind == _SUPPORTED_VERSIONS and value:
            versions += [v for (v,) in struct.iter_unpack("!H", value[1 : 1 + value[0] // 2 * 2])]
        at += 4 + size
    return ClientHello(name, alpn, _newest(versions))


def _newest(versions: list[int]) -> str | None:
    """Name the newest version that is one; clients offer made-up numbers too (RFC 8701)."""
    known = [version for version in versions if version in _VERSIONS]
    return _VERSIONS[max(known)] if known else None


def _server_name(value: bytes) -> str | None:
    """RFC 6066 3: a list of names of which only host_name exists."""
    if len(value) < 5 or value[2] != 0:
        return None
    (size,) = struct.unpack_from("!H", value, 3)
    text: str = value[5 : 5 + size].decode("ascii")
    return text if text.isprintable() and text else None


def _protocols(value: bytes) -> tuple[str, ...]:
    """RFC 7301 3.1: a list of protocol names."""
    at, found = 2, []
    while at < len(value):
        size = value[at]
        found.append(value[at + 1 : at + 1 + size].decode("latin-1"))
        at += 1 + size
    return tuple(found)

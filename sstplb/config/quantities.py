"""What one value may be: quantities, addresses, names; each read from its text and shown again.

Quantities carry their unit in the file (``10s``, ``500ms``, ``16KiB``) and are plain numbers in
the program: seconds as ``float``, bytes as ``int``. Every ``parse_…`` raises ValueError with what
was expected and what was got; the annotated types below hand that to the schema.

Deliberately not here: what a value is *for*, its default and why (``schema.py``), and whether two
values fit one another (``judge.py``).
"""

import re
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

from pydantic import (
    AfterValidator,
    BeforeValidator,
    PlainSerializer,
    StringConstraints,
    WithJsonSchema,
)

_DURATION = re.compile(r"(\d+(?:\.\d+)?) ?(ms|s|m|h|d)")
_DURATION_UNITS = (("d", 86400.0), ("h", 3600.0), ("m", 60.0), ("s", 1.0), ("ms", 0.001))
DURATION_S_MIN, DURATION_S_MAX = 0.001, 366 * 86400.0
_SIZE = re.compile(r"(\d+) ?(B|KiB|MiB|GiB)")
_SIZE_UNITS = (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1))


def parse_duration(value: object) -> float:
    """Turn ``10s``, ``500ms``, ``2m``, ``1h`` or ``0`` into seconds.

    Raises ValueError for anything else: a bare number would leave the unit to guesswork.
    """
    if value in (0, "0") and not isinstance(value, bool):
        return 0.0
    match = _DURATION.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise ValueError(f"expected a duration such as 10s, 500ms or 2m, got {value!r}")
    seconds = float(match[1]) * dict(_DURATION_UNITS)[match[2]]
    if seconds > DURATION_S_MAX:
        raise ValueError(f"expected a duration of at most {format_duration(DURATION_S_MAX)}")
    return seconds


def _more_than_nothing(seconds: float) -> float:
    if seconds < DURATION_S_MIN:
        raise ValueError(
            f"expected at least {format_duration(DURATION_S_MIN)}: this one cannot be turned off"
        )
    return seconds


def format_duration(seconds: float) -> str:
    """Show seconds in the largest unit that keeps the number whole, e.g. ``11m``."""
    if seconds == 0:
        return "0"
    milliseconds = round(seconds * 1000, 3)
    for unit, size in _DURATION_UNITS:
        count, rest = divmod(milliseconds, round(size * 1000))
        if count and not rest:
            return f"{int(count)}{unit}"
    return f"{milliseconds:.3f}".rstrip("0").rstrip(".") + "ms"


def parse_size(value: object) -> int:
    """Turn ``16KiB``, ``1MiB``, ``512B`` or ``0`` into bytes.

    Raises ValueError for anything else.
    """
    if value in (0, "0") and not isinstance(value, bool):
        return 0
    match = _SIZE.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise ValueError(f"expected a size such as 16KiB, 1MiB or 512B, got {value!r}")
    return int(match[1]) * dict(_SIZE_UNITS)[match[2]]


def format_size(size: int) -> str:
    """Show bytes in the largest binary unit that keeps the number whole, e.g. ``16KiB``."""
    for unit, factor in _SIZE_UNITS:
        if size >= factor and size % factor == 0:
            return f"{size // factor}{unit}"
    return f"{size}B"


class Endpoint(NamedTuple):
    """A TCP address: a host (IPv4, IPv6 or a name) and a port (None: the usual one)."""

    host: str
    port: int | None = None

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port is None else f"{host}:{self.port}"

    @property
    def is_name(self) -> bool:
        """Whether the host must be resolved."""
        return ":" not in self.host and bool(self.host.strip("0123456789."))


def ascii_name(value: object) -> object:
    """Let a host name through that can stand in DNS and in SNI. Raises ValueError for others."""
    if isinstance(value, str) and not value.isascii():
        spelled = value.encode("idna").decode()
        raise ValueError(f"expected an ASCII name, got {value!r}: write {spelled}")
    return value


_ENDPOINT = re.compile(
    r"(?:\[(?P<v6>[0-9A-Fa-f:.]+)\]|(?P<host>[\w.-]{1,253}))(?::(?P<port>[0-9]{1,5}))?"
)


def parse_endpoint(value: object) -> Endpoint:
    """Turn ``10.0.0.11:443``, ``[::]:443`` or ``rras1.example.test`` into an Endpoint.

    Raises ValueError, among others for an IPv6 address without brackets.
    """
    if isinstance(value, Endpoint):
        return value
    match = _ENDPOINT.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        hint = " (write IPv6 in brackets: [::1]:443)" if str(value).count(":") > 1 else ""
        raise ValueError(f"expected an address such as 10.0.0.11:443, got {value!r}{hint}")
    port = None if match["port"] is None else int(match["port"])
    if port is not None and port > 65535:
        raise ValueError(f"expected a port of at most 65535, got {port}")
    host = match["host"]
    ascii_name(host)
    try:
        if host is None:
            host = str(IPv6Address(match["v6"]))
        elif not host.strip("0123456789."):
            host = str(IPv4Address(host))  # digits and dots only: no name, so an address
    except ValueError as error:
        raise ValueError(f"expected an IP address, got {value!r}: {error}") from None
    return Endpoint(host, port)


def parse_target(value: object) -> Endpoint:
    """Turn an address into an Endpoint that can be connected to. Raises ValueError."""
    endpoint = parse_endpoint(value)
    if endpoint.port == 0:
        raise ValueError("expected a port from 1 to 65535, got 0")
    return endpoint


class SyslogServer(NamedTuple):
    """Where a syslog server listens: an address over UDP or TCP, or a local socket."""

    transport: Literal["udp", "tcp", "unix"]
    address: Endpoint | Path

    def __str__(self) -> str:
        return (
            str(self.address) if self.transport == "unix" else f"{self.transport}://{self.address}"
        )


def parse_syslog(value: object) -> SyslogServer:
    """Turn ``udp://10.0.0.5:514``, ``tcp://[::1]:601`` or ``/dev/log`` into one. Raises ValueError.

    No names: looking one up would make log lines wait.
    """
    if isinstance(value, SyslogServer):
        return value
    text = str(value)
    if text.startswith("/"):
        return SyslogServer("unix", Path(text))
    transport, separator, rest = text.partition("://")
    if not separator or transport not in ("udp", "tcp"):
        raise ValueError(f"expected udp://10.0.0.5:514, tcp://… or a path, got {value!r}")
    endpoint = parse_endpoint(rest)
    if endpoint.is_name or not endpoint.port:
        raise ValueError(f"expected an IP address and a port, got {rest!r}")
    return SyslogServer("udp" if transport == "udp" else "tcp", endpoint)


def parse_network(value: object) -> IPv4Network | IPv6Network:
    """Turn ``10.0.0.0/8``, ``2001:db8::/32`` or one address into a network. Raises ValueError."""
    if isinstance(value, IPv4Network | IPv6Network):
        return value
    try:
        network = ip_network(str(value), strict=False)
    except ValueError:
        raise ValueError(f"expected a network such as 10.0.0.0/8, got {value!r}") from None
    if str(network.network_address) != str(ip_address(str(value).partition("/")[0])):
        raise ValueError(f"{value} has bits beyond its prefix; did you mean {network}?")
    return network


_DURATION_PATTERN = r"^\d+(\.\d+)? ?(ms|s|m|h|d)$"

SecondsOrZero = Annotated[
    float,
    BeforeValidator(parse_duration),
    PlainSerializer(format_duration, return_type=str),
    WithJsonSchema(
        {"anyOf": [{"type": "string", "pattern": _DURATION_PATTERN}, {"enum": [0, "0"]}]}
    ),
]
"""A duration in seconds; in the file with its unit: ``10s``. ``0`` means something, too."""

Seconds = Annotated[
    float,
    BeforeValidator(parse_duration),
    AfterValidator(_more_than_nothing),
    PlainSerializer(format_duration, return_type=str),
    WithJsonSchema({"type": "string", "pattern": _DURATION_PATTERN}),
]
"""A duration in seconds, at least a millisecond; in the file with its unit: ``10s``."""

BUFFER_BYTES_MIN = 1024
BUFFER_BYTES_MAX = 16 << 20


def _fit_for_a_buffer(size: int) -> int:
    if not BUFFER_BYTES_MIN <= size <= BUFFER_BYTES_MAX:
        raise ValueError(
            f"expected {format_size(BUFFER_BYTES_MIN)} to {format_size(BUFFER_BYTES_MAX)}, "
            f"got {format_size(size)}"
        )
    return size


Bytes = Annotated[
    int,
    BeforeValidator(parse_size),
    AfterValidator(_fit_for_a_buffer),
    PlainSerializer(format_size, return_type=str),
    WithJsonSchema({"type": "string", "pattern": r"^\d+ ?(B|KiB|MiB|GiB)$"}),
]
"""The size of a buffer in bytes; in the file with its unit: ``16KiB``."""

WORKERS_MAX = 256


def parse_workers(value: object) -> object:
    """Read a number of processes, or ``auto``, which is kept as 0. Raises ValueError."""
    if value == "auto":
        return 0
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= WORKERS_MAX:
        raise ValueError(f"expected auto, or a number from 1 to {WORKERS_MAX}, got {value!r}")
    return value


def format_workers(count: int) -> int | str:
    """Write a number of processes as it stands in the file."""
    return count or "auto"


Workers = Annotated[
    int,
    BeforeValidator(parse_workers),
    PlainSerializer(format_workers, return_type=int | str),
    WithJsonSchema({"anyOf": [{"const": "auto"}, {"type": "integer", "minimum": 1}]}),
]
"""A number of processes; 0: ``auto``."""

FILE_BYTES_MIN = 64 << 10


def _fit_for_a_file(size: int) -> int:
    if size < FILE_BYTES_MIN:
        raise ValueError(f"expected {format_size(FILE_BYTES_MIN)} or more, got {format_size(size)}")
    return size


FileBytes = Annotated[
    int,
    BeforeValidator(parse_size),
    AfterValidator(_fit_for_a_file),
    PlainSerializer(format_size, return_type=str),
    WithJsonSchema({"type": "string", "pattern": r"^\d+ ?(B|KiB|MiB|GiB)$"}),
]
"""How large a file may become, in bytes; in the file with its unit: ``64MiB``."""

Address = Annotated[
    Endpoint,
    BeforeValidator(parse_endpoint),
    PlainSerializer(str, return_type=str),
    WithJsonSchema({"type": "string"}),
]
SyslogTarget = Annotated[
    SyslogServer,
    BeforeValidator(parse_syslog),
    PlainSerializer(str, return_type=str),
    WithJsonSchema({"type": "string"}),
]
Network = Annotated[
    IPv4Network | IPv6Network,
    BeforeValidator(parse_network),
    WithJsonSchema({"type": "string"}),
]
Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,62}$")]
Sha256Hex = Annotated[
    str,
    BeforeValidator(lambda v: v.replace(":", "").lower() if isinstance(v, str) else v),
    StringConstraints(pattern=r"^[0-9a-f]{64}$"),
]
"""A SHA-256 as 64 hex digits; colons are allowed in the file."""


TenantId = Annotated[str, StringConstraints(min_length=1, max_length=128)]
"""A tenant's id as clients write it after ``?tenantid=``, percent-decoded."""


def as_text(value: object) -> object:
    """Let a number stand for its text: nobody should have to quote ``401`` or ``1.2``."""
    return str(value) if isinstance(value, int | float) else value


StatusRange = Annotated[
    str,
    BeforeValidator(as_text),
    StringConstraints(pattern=r"^[1-5][0-9][0-9](-[1-5][0-9][0-9])?$"),
    WithJsonSchema({"type": ["string", "integer"]}),
]
"""An HTTP status or a range of them: ``401`` or ``200-299``."""

Word = Annotated[str, StringConstraints(pattern=r"^[!-~]+$")]
"""Text that goes into a request or handshake as it is: ASCII, without spaces, not empty."""


def _not_empty(value: object) -> object:
    if value == "":
        raise ValueError("expected the path of a file, got nothing")
    return value


File = Annotated[Path, BeforeValidator(_not_empty)]
"""The path of a file, relative to the configuration's own directory."""

"""The first configuration as a text: minimal, with a comment where a reader would ask why.

What it says is checked by the loader before it is written, as a start would check it.
"""

import json
from dataclasses import dataclass
from pathlib import Path

from sstplb.config import document, loader
from sstplb.config.quantities import Endpoint
from sstplb.config.schema import Mode
from sstplb.control.plan import Prepared, prepare
from sstplb.errors import ConfigError

SYSTEM_DIRECTORY = Path("/etc")
SYSTEM_SOCKET = Path("/run/sstplb/admin.sock")
"""Where the service has its socket."""
SOCKET_BESIDE = Path("admin.sock")

ABOUT = (
    (Mode.PASSTHROUGH, "TLS goes untouched to RRAS; nothing changes there"),
    (Mode.OFFLOAD, "TLS ends here, RRAS speaks plain HTTP; it must be told our certificate's hash"),
    (Mode.REENCRYPT, "TLS ends here and begins again; RRAS must hold the same certificate"),
)


@dataclass(frozen=True, slots=True)
class Server:
    """An RRAS server."""

    name: str
    address: Endpoint


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the configuration should say."""

    mode: Mode
    servers: tuple[Server, ...]
    address: Endpoint
    chain: Path | None = None
    key: Path | None = None
    """None: it is in ``chain``, too."""
    sha256: str | None = None
    """Of the certificate, when each RRAS is to be told it."""
    ca_file: Path | None = None
    """Who issued the servers' certificates; None: a CA that the system knows."""


def compose(wanted: Wanted, out: Path) -> str:
    """Return the text; ``out``: where it will be, for paths are relative to it."""
    base = out.resolve().parent
    about = dict(ABOUT)[wanted.mode]
    lines = [
        f"# {wanted.mode}: {about}.",
        f"# Every knob: docs/configuration.md. What is wrong or will hurt: sstplb check {out.name}",
        "listeners:",
        "  - name: vpn",
        f"    address: {_scalar(str(wanted.address))}",
        f"    mode: {wanted.mode}",
        "    pool: rras",
    ]
    if wanted.chain is not None:
        files = f"chain: {_path(wanted.chain, base)}"
        if wanted.key is not None:
            files += f", key: {_path(wanted.key, base)}"
        lines += ["    certificates:", f"      - {{{files}}}   # what clients are shown"]
    lines += ["pools:", "  rras:"]
    if wanted.ca_file is not None:
        lines += ["    tls:", f"      ca_file: {_path(wanted.ca_file, base)}   # who issued RRAS's"]
    lines.append("    backends:")
    if wanted.sha256 is not None:
        lines.append("      # What each RRAS is told; one that expects another gets no calls.")
    for server in wanted.servers:
        name, address = _scalar(server.name), _scalar(str(server.address))
        if wanted.sha256 is None:
            lines.append(f"      - {{name: {name}, address: {address}}}")
        else:
            lines += [
                f"      - name: {name}",
                f"        address: {address}",
                f"        rras_certificate_sha256: {_scalar(wanted.sha256)}",
            ]
    socket = SYSTEM_SOCKET if is_service(out) else SOCKET_BESIDE
    lines += ["admin:", f"  socket: {socket}   # sstplb ctl, sstplb top: for this user and root"]
    return "\n".join(lines) + "\n"


def is_service(out: Path) -> bool:
    """Whether the file is where the service has its own (docs/operations.md)."""
    return out.resolve().is_relative_to(SYSTEM_DIRECTORY)


def judged(text: str, out: Path) -> Prepared:
    """Return what a start would make of the text. Raises ConfigError with every problem."""
    return prepare(loader.parse(text, file=str(out), base=out.resolve().parent))


def _path(path: Path, base: Path) -> str:
    """Return a path as the file should say it: relative only where both move together."""
    whole = path.resolve()
    return _scalar(str(whole.relative_to(base) if whole.is_relative_to(base) else whole))


def _scalar(text: str) -> str:
    """Return a text as YAML, in quotes where it would be read as something else without."""
    try:
        is_plain = document.read(f"{{a: {text}}}", "").values == {"a": text}
    except ConfigError:
        is_plain = False
    return text if is_plain else json.dumps(text, ensure_ascii=False)

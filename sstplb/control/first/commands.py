"""The command ``sstplb init``: a few questions, or none when the flags say it all."""

import re
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from sstplb.config.quantities import Endpoint, parse_endpoint, parse_target
from sstplb.config.schema import CertificateFiles, Mode
from sstplb.control import given
from sstplb.control.ctl.door import PLACES
from sstplb.control.files import replace_file, why_no_place
from sstplb.control.first.rras import explain
from sstplb.control.first.text import ABOUT, Server, Wanted, compose, is_service, judged
from sstplb.control.plan import all_warnings
from sstplb.errors import CertificateError, ConfigError, Problem
from sstplb.tls.certificate import Certificate, days_left, load_certificate, load_identity

EVERYWHERE = Endpoint("0.0.0.0", 443)  # noqa: S104 - a VPN's listener is for the world
PRIVILEGED_BELOW = 1024
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}")

app = typer.Typer()
out, err = Console(highlight=False, markup=False), Console(stderr=True, markup=False)


def parse_server(value: object) -> tuple[str, Endpoint]:
    """Turn ``10.0.0.11`` or ``rras1=10.0.0.11:443`` into a name (or none) and an address.

    Raises ValueError.
    """
    name, equals, address = str(value).rpartition("=")
    if equals and not _NAME.fullmatch(name):
        raise ValueError(f"expected a name of letters, digits, - _ and ., got {name!r}")
    return name, parse_target(address)


@app.command()
def init(
    mode: Annotated[Mode | None, typer.Option(help="How calls are carried.")] = None,
    backend: Annotated[
        list[str] | None,
        typer.Option(help="An RRAS: ADDRESS or NAME=ADDRESS; repeat it.", metavar="SERVER"),
    ] = None,
    certificate: Annotated[
        Path | None,
        typer.Option(
            help="What clients are shown (PEM); not for passthrough.",
            metavar="FILE", readable=False,
        ),
    ] = None,
    key: Annotated[
        Path | None,
        typer.Option(
            help="Its key; by default beside or in the same file.",
            metavar="FILE", readable=False,
        ),
    ] = None,
    ca: Annotated[
        Path | None,
        typer.Option(
            help="Reencrypt: who issued it, if the system does not know.",
            metavar="FILE", readable=False,
        ),
    ] = None,
    listen: Annotated[
        Endpoint | None,
        typer.Option(
            help=f"Where to listen: by default {EVERYWHERE}.",
            metavar="ADDRESS", parser=given.by(parse_endpoint),
        ),
    ] = None,
    target: Annotated[
        Path, typer.Option("--out", help="The file to write.", metavar="FILE", readable=False)
    ] = PLACES[0],
    force: Annotated[bool, typer.Option("--force", help="Overwrite it.")] = False,
) -> None:  # fmt: skip
    """Write a first configuration, and explain what to do at the RRAS servers.

    Asks for what the flags leave open. What it writes is checked as a start would check it.

    Exit codes: 0 written; 2 the command line makes no sense, or the file is there already; 3 the
    certificate, or what came of the answers, cannot be used, or there is no place for the file:
    nothing is written.
    """
    if target.is_file() and not force:
        raise typer.BadParameter(f"{target} exists: --force overwrites it, --out names another")
    is_there = target.exists() or target.is_symlink()
    if is_there and not target.is_file() and not target.is_dir():
        message = "is there already, and no regular file; --out names another"
        raise ConfigError([Problem(message, file=str(target))])
    if (why_not := why_no_place(target)) is not None:
        message = f"cannot be written: {why_not}; --out names another file"
        raise ConfigError([Problem(message, file=str(target))])
    is_asking = sys.stdin.isatty()
    is_open = mode is None or not backend or (mode.terminates_tls and certificate is None)
    if is_open and not is_asking:
        raise typer.BadParameter(
            "give --mode, --backend and, but for passthrough, --certificate; or run it on a "
            "terminal: it asks"
        )
    mode = mode or _ask_mode()
    if not mode.terminates_tls and any((certificate, key)):
        raise typer.BadParameter("passthrough shows no certificate of ours: leave it out")
    if mode is not Mode.REENCRYPT and ca is not None:
        raise typer.BadParameter("--ca is for reencrypt: elsewhere RRAS shows us no certificate")
    servers = _named(_servers(backend) if backend else _ask_servers())
    shown = None
    if mode.terminates_tls:
        certificate = certificate or _ask_certificate()
        key = key or _key_of(certificate)
        shown = load_identity(CertificateFiles(chain=certificate, key=key)).certificate
        if is_open and mode is Mode.REENCRYPT and ca is None:
            ca = _ask_ca()
    if is_open and listen is None:
        listen = _ask_address()
    sha256 = shown.sha256.hex() if shown is not None and mode is Mode.OFFLOAD else None
    wanted = Wanted(mode, servers, listen or EVERYWHERE, certificate, key, sha256, ca)
    text = compose(wanted, target)
    prepared = judged(text, target)
    _write(target, text, force=force)
    _tell(wanted, target, shown)
    for problem in all_warnings(prepared):
        err.print(f"warning: {problem}", style="yellow", soft_wrap=True)


def _servers(given: list[str]) -> list[tuple[str, Endpoint]]:
    try:
        return [parse_server(one) for one in given]
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error


def _named(given: list[tuple[str, Endpoint]]) -> tuple[Server, ...]:
    """Give a name to each server that has none: its host's, or a number."""
    taken = {name for name, _ in given if name}
    servers = []
    for number, (name, address) in enumerate(given, 1):
        host = address.host.partition(".")[0] if address.is_name else ""
        if not name:
            name = host if _NAME.fullmatch(host) and host not in taken else f"rras{number}"  # noqa: PLW2901
            while name in taken:
                name += "-2"  # noqa: PLW2901 - until it is nobody else's
            taken.add(name)
        servers.append(Server(name, address))
    return tuple(servers)


def _key_of(chain: Path) -> Path | None:
    """Return the key that lies beside a certificate; None: it is in the same file."""
    beside = chain.with_suffix(".key")
    return beside if beside != chain and beside.exists() else None


def _write(target: Path, text: str, *, force: bool) -> None:
    """Write the file. It holds no secret: who may read it is the system's usual answer."""
    if force and target.is_file():
        replace_file(target, text)
        return
    with target.open("x", encoding="utf-8") as file:
        file.write(text)


def _tell(wanted: Wanted, target: Path, shown: Certificate | None) -> None:
    """Say what was written, what to do at the RRAS servers, and what comes next."""
    names = ", ".join(server.name for server in wanted.servers)
    text = f"{target} is written: {wanted.mode} to {names}"
    if shown is not None:
        left = days_left(shown)
        text += f", certificate for {', '.join(shown.names) or shown.subject} ({left} days left)"
    named = "" if target in PLACES else f" --conf {target}"
    port = wanted.address.port
    run = f"sstplb run {target}"
    if is_service(target):
        run = "systemctl restart sstplb   # its user, sstplb, must be able to read file and key"
    elif port is None or 0 < port < PRIVILEGED_BELOW:
        run += "   # a port below 1024: as root, or with CAP_NET_BIND_SERVICE"
    first = wanted.servers[0]
    plain = " --plain" if wanted.mode is Mode.OFFLOAD else " --insecure"
    where = first.address.port or (80 if wanted.mode is Mode.OFFLOAD else 443)
    probe = Endpoint(first.address.host, where)
    out.print(f"{text}\n\n{explain(wanted, shown)}", soft_wrap=True)
    out.print(
        f"Next:\n\n    sstplb check {target}\n    sstplb probe {probe}{plain}\n"
        f"    {run}\n    sstplb ctl status{named}",
        soft_wrap=True,
    )


# --- questions --------------------------------------------------------------------------------


def _ask_mode() -> Mode:
    err.print("How are calls carried?")
    for mode, about in ABOUT:
        err.print(f"  {mode:<12} {about}")

    def read(given: str) -> Mode:
        near = [mode for mode in Mode if given and mode.startswith(given.lower())]
        if len(near) != 1:
            raise typer.BadParameter(f"expected {', '.join(Mode)}; got {given!r}")
        return near[0]

    found: Mode = typer.prompt("Mode", default="passthrough", value_proc=read, err=True)
    return found


def _ask_servers() -> list[tuple[str, Endpoint]]:
    def read(given: str) -> list[tuple[str, Endpoint]]:
        if not (words := given.replace(",", " ").split()):
            raise typer.BadParameter("expected at least one")
        return _servers(words)

    text = "RRAS servers, ADDRESS or NAME=ADDRESS, with spaces between"
    found: list[tuple[str, Endpoint]] = typer.prompt(text, value_proc=read, err=True)
    return found


def _ask_certificate() -> Path:
    def read(given: str) -> Path:
        try:
            load_certificate(Path(given).expanduser())
        except CertificateError as error:
            raise typer.BadParameter(str(error)) from error
        return Path(given).expanduser()

    text = "Certificate that clients are shown (PEM, with its chain)"
    found: Path = typer.prompt(text, value_proc=read, err=True)
    return found


def _ask_ca() -> Path | None:
    text = "CA that issued it (PEM; empty: one that the system knows)"
    given: str = typer.prompt(text, default="", show_default=False, err=True)
    return Path(given).expanduser() if given else None


def _ask_address() -> Endpoint:
    def read(given: str) -> Endpoint:
        try:
            return parse_endpoint(given)
        except ValueError as error:
            raise typer.BadParameter(str(error)) from error

    text = "Address to listen on"
    found: Endpoint = typer.prompt(text, default=str(EVERYWHERE), value_proc=read, err=True)
    return found

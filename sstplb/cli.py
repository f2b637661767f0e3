"""The command ``sstplb``: thin. Each subcommand says what it does, calls a room, shows the result.

Exit codes are those of ``control/run.py``; errors of ours are printed as they are, without a
traceback.
"""

import asyncio
import json
import sys
from pathlib import Path
from typing import Annotated

import typer
import uvloop
from rich.console import Console

from sstplb import __version__
from sstplb.config import describe, loader
from sstplb.config.reading import in_words, read_file
from sstplb.control import explaining, plan
from sstplb.control import run as control
from sstplb.control.ctl import capturing
from sstplb.control.ctl import commands as ctl
from sstplb.control.files import replace_file
from sstplb.control.first import commands as first
from sstplb.control.plan import all_warnings
from sstplb.control.run import ExitCode
from sstplb.control.top import commands as top
from sstplb.errors import ConfigError, Problem, SstplbError
from sstplb.lab import commands
from sstplb.tls.certificate import days_left, load_certificate, now_utc, warnings

app = typer.Typer(
    help="A load balancer and TLS-offload / re-encryption proxy for SSTP, Microsoft's VPN over "
    "HTTPS.\n\nStart with [b]sstplb demo[/b]. In front of RRAS: write a configuration "
    "([b]sstplb init[/b] asks a few questions), look at it with [b]sstplb check[/b], run it with "
    "[b]sstplb run[/b]. When a call fails: [b]sstplb explain[/b], [b]sstplb probe[/b] and "
    "[b]sstplb call[/b] say why.",
    rich_markup_mode="rich",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
out, err = Console(highlight=False), Console(stderr=True, highlight=False)

Conf = Annotated[
    Path, typer.Argument(help="The configuration file (YAML).", metavar="CONF", readable=False)
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text.")]


def main() -> None:
    """Run the command; our errors become a message and an exit code."""
    try:
        app()
    except ConfigError as error:
        for problem in error.problems:
            err.print(f"error: {problem}", markup=False, style="red", soft_wrap=True)
        sys.exit(ExitCode.CONFIG)
    except SstplbError as error:
        err.print(f"error: {error}", markup=False, style="red", soft_wrap=True)
        sys.exit(ExitCode.CONFIG)
    except OSError as error:
        err.print(f"error: {in_words(error)}", markup=False, style="red", soft_wrap=True)
        sys.exit(ExitCode.FAILED if error.filename is None else ExitCode.CONFIG)


def _show_version(wanted: bool) -> None:
    if wanted:
        version()
        raise typer.Exit


@app.callback()
def options(
    _version: Annotated[
        bool,
        typer.Option("--version", help="Print the version.", callback=_show_version, is_eager=True),
    ] = False,
) -> None:
    """Take what may stand before a command."""


@app.command()
def run(conf: Conf) -> None:
    """Run the balancer in the foreground.

    SIGTERM or Ctrl-C stops it: no new calls, running ones may end until limits.stop_timeout (a
    second one closes them at once). SIGHUP reloads the file; a bad one changes nothing. SIGUSR2
    upgrades: a new process takes over without a gap, this one ends with its last call.

    Exit codes: 0 stopped, no call was cut; 3 the configuration cannot be used; 4 calls were cut.
    """
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        raise typer.Exit(int(runner.run(control.run(conf))))


@app.command()
def check(
    conf: Conf,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="Do not print the effective configuration.")
    ] = False,
    strict: Annotated[
        bool, typer.Option("--strict", help="Exit with 1 when there are warnings.")
    ] = False,
) -> None:
    """Do all that run does up to binding, and say what is wrong or will hurt.

    Reads the file and everything it names: certificates (match, chain, expiry, EKU, names), CAs,
    secrets. Prints the effective configuration, with what was left unsaid filled in.

    Exit codes: 0 usable; 1 usable with warnings, and --strict; 3 not usable.
    """
    prepared = plan.load(conf)
    if not quiet:
        out.print(loader.effective(prepared.config), markup=False, soft_wrap=True, end="")
    for listener, policy in prepared.server_policies.items():
        for served in policy.served:
            certificate = served.certificate
            names = ", ".join(certificate.names) or f"no name, {certificate.subject}"
            err.print(
                f"{listener}: serves {names} ({certificate.key_type}, "
                f"{days_left(certificate)} days left), SHA-256 {certificate.sha256.hex()}",
                markup=False, soft_wrap=True,
            )  # fmt: skip
    err.print(f"TLS engine: {prepared.engine}", markup=False, soft_wrap=True)
    found = all_warnings(prepared)
    for problem in found:
        err.print(f"warning: {problem}", markup=False, style="yellow", soft_wrap=True)
    err.print(f"{conf}: usable, {len(found)} warnings", markup=False, soft_wrap=True)
    raise typer.Exit(int(ExitCode.FAILED if strict and found else ExitCode.OK))


@app.command()
def fingerprint(
    cert: Annotated[
        Path,
        typer.Argument(help="A certificate: PEM (chain) or DER.", metavar="CERT", readable=False),
    ],
    as_json: Json = False,
) -> None:
    """Show what SSTP hashes: SHA-256 and SHA-1 of the leaf's DER, and the RRAS command.

    Offload: RRAS must be told the hash of the certificate that clients are shown here.
    """
    certificate = load_certificate(cert)
    sha256, sha1 = certificate.sha256.hex().upper(), certificate.sha1.hex().upper()
    command = f"Enable-SSTPOffload -CertificateHash {sha256} -Restart"
    if as_json:
        facts = {
            "subject": certificate.subject,
            "names": certificate.names,
            "sha256": sha256,
            "sha1": sha1,
            "command": command,
        }
        out.print_json(json.dumps(facts))
        return
    for name, value in (
        ("subject", certificate.subject),
        ("names", ", ".join(certificate.names)),
        ("expires", f"{certificate.leaf.not_valid_after_utc:%Y-%m-%d %H:%M} UTC"),
        ("SHA-256", sha256),
        ("SHA-1", sha1),
    ):
        out.print(f"{name:<9}{value}", markup=False, soft_wrap=True)
    out.print(
        "\nOn each RRAS behind an offload listener, in PowerShell as administrator\n"
        "(restarts RemoteAccess: every call on that server drops):\n",
    )
    out.print(f"  {command}", markup=False, soft_wrap=True)
    for text in warnings(certificate, now_utc()):
        err.print(f"warning: {cert} {text}", markup=False, style="yellow", soft_wrap=True)


app.add_typer(commands.app)
app.add_typer(ctl.app, name="ctl")
app.add_typer(top.app)
app.add_typer(first.app)
app.add_typer(explaining.app)
app.add_typer(capturing.alone, name="capture")


@app.command("schema")
def show_schema(
    full_yaml: Annotated[
        bool, typer.Option("--full-yaml", help="Print every knob at its default instead.")
    ] = False,
    reference: Annotated[
        Path | None,
        typer.Option(
            help="Rewrite the reference in this page instead.", metavar="PAGE", readable=False
        ),
    ] = None,
) -> None:
    """Print the JSON Schema of the configuration, for editors."""
    if reference is not None:
        try:
            page = read_file(reference).decode()
        except UnicodeDecodeError as error:
            raise ConfigError([Problem("is no page: not UTF-8", file=str(reference))]) from error
        replace_file(reference, describe.with_reference(page))
    elif full_yaml:
        print(describe.full_yaml(), end="")  # noqa: T201 - rich would wrap long lines
    else:
        out.print_json(json.dumps(loader.json_schema()))


@app.command()
def version() -> None:
    """Print the version."""
    out.print(__version__)

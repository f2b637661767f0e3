"""What every command of ``sstplb ctl`` shares: which balancer, text or JSON, asking before harm.

These options belong to ``ctl``, but nobody should have to know: they are understood wherever they
stand (``AnywhereGroup``), so an alias can put them in front and a person behind.

Errors end here. A sentence goes to standard error; with ``--json`` the API's shape of an error
goes to standard output, too, so that a program reads one stream. Exit codes are those of
``control/run.py``.
"""

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console, RenderableType
from typer.core import TyperGroup

from sstplb.control.ctl import door
from sstplb.control.ctl.api import Api
from sstplb.control.ctl.door import Told
from sstplb.control.run import ExitCode
from sstplb.errors import AskError, BadValueError, ConfigError, NotAdmittedError, UnreachableError

WIDE = 10_000
"""Columns of what is no terminal: a program that reads tables should find whole lines."""
_WHERE = "Which balancer"

HELP = (
    "Operate a running balancer: see it, drain it, reload it.\n\n"
    f"Without --conf, --socket or --url it is the balancer of ./{door.PLACES[0]} or "
    f"{door.PLACES[1]}, or of the file that {door.VARIABLE} names. The options below may stand "
    "before a command or behind it.\n\n"
    "A backend is called by its name while there is only one of that name, else POOL/NAME."
)
EPILOG = (
    "Exit codes: 0 done; 1 the balancer says no, or what was asked for did not happen; 2 the "
    "command line makes no sense; 3 a configuration cannot be used; 4 the time was over and calls "
    "were still running; 5 no balancer answers; 6 not admitted (permission, token)."
)


class AnywhereGroup(TyperGroup):
    """A group whose own options may stand behind its commands, too."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Put the group's options in front, then parse as usual."""
        flags: set[str] = set()
        valued: set[str] = set()
        for option in self.params:
            names = {*option.opts, *option.secondary_opts}
            (flags if getattr(option, "is_flag", False) else valued).update(names)
        return super().parse_args(ctx, in_front(args, flags, valued))

    def invoke(self, ctx: Any) -> Any:
        """Run a command; an error of ours becomes a message and an exit code."""
        try:
            return super().invoke(ctx)
        except (AskError, ConfigError) as error:
            raise typer.Exit(int(fail(error, as_json=asked(ctx).as_json))) from error


def in_front(args: list[str], flags: set[str], valued: set[str]) -> list[str]:
    """Return the arguments with the named options first; what follows ``--`` stays."""
    front, rest, waiting = [], [], list(args)
    while waiting:
        one = waiting.pop(0)
        if one == "--":
            rest += [one, *waiting]
            break
        if one in flags or one.partition("=")[0] in valued:
            front.append(one)
            if one in valued and waiting:
                front.append(waiting.pop(0))
        else:
            rest.append(one)
    return front + rest


@dataclass(frozen=True, slots=True)
class Asked:
    """What the command line says for all commands."""

    told: Told
    as_json: bool
    yes: bool

    def api(self) -> Api:
        """Return the API of the balancer that is meant. Raises AskError or ConfigError."""
        return Api(door.find(self.told))

    def show(self, answer: Any, table: Callable[[], RenderableType]) -> None:
        """Print an answer: as it is for programs, as a table for people."""
        if self.as_json:
            print_json(answer)
        else:
            console().print(table())

    def say(self, answer: Any, text: str) -> None:
        """Print an answer: as it is for programs, in a sentence for people."""
        if self.as_json:
            print_json(answer)
        else:
            console().print(text, soft_wrap=True)

    def confirm(self, question: str) -> None:
        """Ask before harm is done, if somebody is there to answer. Ends the command at a no."""
        if not self.yes and sys.stdin.isatty():
            typer.confirm(question, abort=True, err=True)


def asked(context: Any) -> Asked:
    """Return what the command line says for all commands."""
    found: Asked | None = context.find_object(Asked)
    assert found is not None, "the callback of the group has made it"
    return found


Conf = Annotated[
    Path | None,
    typer.Option(
        help="The configuration of the balancer.",
        metavar="FILE",
        rich_help_panel=_WHERE,
        readable=False,
    ),
]
Socket = Annotated[
    Path | None,
    typer.Option(help="Its admin socket.", metavar="PATH", rich_help_panel=_WHERE, readable=False),
]
Url = Annotated[
    str | None,
    typer.Option(
        help="Its admin address: https://HOST:PORT.", metavar="URL", rich_help_panel=_WHERE
    ),
]
TokenFile = Annotated[
    Path | None,
    typer.Option(
        help="The token for --url.", metavar="FILE", rich_help_panel=_WHERE, readable=False
    ),
]
Ca = Annotated[
    Path | None,
    typer.Option(
        help="CAs to trust with --url (PEM); by default the system's.",
        metavar="FILE", rich_help_panel=_WHERE, readable=False
    ),
]  # fmt: skip


def told(
    conf: Path | None,
    socket: Path | None,
    url: str | None,
    token_file: Path | None,
    ca: Path | None,
) -> Told:
    """Return what these options say together. Raises BadParameter."""
    if sum(given is not None for given in (conf, socket, url)) > 1:
        raise typer.BadParameter("give one of --conf, --socket and --url")
    if url is None and (token_file is not None or ca is not None):
        raise typer.BadParameter("--token-file and --ca are for --url")
    return Told(conf, socket, url, token_file, ca)


def callback(
    context: typer.Context,
    conf: Conf = None,
    socket: Socket = None,
    url: Url = None,
    token_file: TokenFile = None,
    ca: Ca = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the API's JSON instead of tables.")
    ] = False,
    yes: Annotated[
        bool, typer.Option("--yes", "-y", help="Do not ask before calls are ended or refused.")
    ] = False,
) -> None:
    """Keep what holds for every command."""
    context.obj = Asked(told(conf, socket, url, token_file, ca), as_json, yes)


def console(*, is_error: bool = False, markup: bool = False) -> Console:
    """Return where things are printed; lines and tables are made to fit terminals only."""
    shown = Console(stderr=is_error, highlight=False, markup=markup, emoji=False)
    if not shown.is_terminal:
        shown.width = WIDE
    return shown


def print_json(answer: Any) -> None:
    """Print JSON for programs, indented for those who look."""
    print(json.dumps(answer, indent=2, ensure_ascii=False))  # noqa: T201 - rich would fold it


def print_json_line(answer: Any) -> None:
    """Print JSON in one line, at once, for programs that follow."""
    print(json.dumps(answer, ensure_ascii=False), flush=True)  # noqa: T201 - rich would fold it


def fail(error: AskError | ConfigError, *, as_json: bool) -> ExitCode:
    """Say what went wrong, and return the exit code for it."""
    problems = [str(problem) for problem in error.problems]
    path = error.path if isinstance(error, AskError) else None
    if as_json:
        shape: dict[str, Any] = {
            "error": {"code": error.reason, "message": str(error), "path": path}
        }
        print_json({**shape, "problems": problems} if problems else shape)
    # A value's message says what was expected; which value, only its path says.
    where = f"{path}: " if path and error.reason == BadValueError.reason else ""
    for text in problems or [f"{where}{error}"]:
        console(is_error=True).print(f"error: {text}", style="red", soft_wrap=True)
    if isinstance(error, UnreachableError):
        return ExitCode.UNREACHABLE
    if isinstance(error, NotAdmittedError):
        return ExitCode.NOT_ADMITTED
    is_config = isinstance(error, ConfigError) or error.reason == ConfigError.reason
    return ExitCode.CONFIG if is_config else ExitCode.FAILED

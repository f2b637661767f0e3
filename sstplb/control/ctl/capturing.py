"""The commands of ``sstplb capture``, which are those of ``sstplb ctl capture`` too.

Calls are recorded where they are carried, and that is not here: these commands only ask.
"""

from typing import Annotated

import typer
from rich.console import Group, RenderableType
from rich.text import Text

from sstplb.config.quantities import parse_duration, parse_size
from sstplb.control import given
from sstplb.control.ctl import tables
from sstplb.control.ctl.group import EPILOG, AnywhereGroup, asked, callback
from sstplb.control.ctl.names import find_listener

SUMMARY = "Record chosen calls for Wireshark."
HELP = (
    f"{SUMMARY}\n\n"
    "What clients and RRAS say inside TLS (PPP: LCP, authentication, IP) is written as pcapng "
    "where TLS ends here. Only where the configuration allows it (capture.directory); bounded by "
    "time and size; the log says when it begins and ends. Passwords and what they could be "
    "guessed from are left out unless capture.secrets says otherwise."
)

app = typer.Typer(no_args_is_help=True, help=SUMMARY)
alone = typer.Typer(cls=AnywhereGroup, no_args_is_help=True, help=HELP, epilog=EPILOG)
"""The same, with the options of ``ctl``."""
alone.callback()(callback)
alone.add_typer(app)


@app.command("list")
def list_captures(context: typer.Context) -> None:
    """List the captures that run, and the files there are."""
    by = asked(context)
    with by.api() as api:
        page = api.get("captures")
    by.show(page, lambda: tables.captures(page))


@app.command()
def begin(
    context: typer.Context,
    listener: Annotated[
        str | None, typer.Option(help="Calls of this listener.", metavar="NAME")
    ] = None,
    client: Annotated[
        str | None, typer.Option(help="Calls from this address or network.", metavar="CLIENT")
    ] = None,
    call: Annotated[
        int | None, typer.Option(help="This call; the capture ends with it.", metavar="N")
    ] = None,
    seconds: Annotated[
        float | None,
        typer.Option(
            "--for", help="How long: 30s, 2m.", metavar="DURATION", parser=given.by(parse_duration)
        ),
    ] = None,
    size: Annotated[
        int | None,
        typer.Option(help="How large: 1MiB.", metavar="SIZE", parser=given.by(parse_size)),
    ] = None,
) -> None:  # fmt: skip
    """Begin to record calls that fit all that is said: those that run, and new ones.

    A call that runs is joined at its next packet; for its beginning, choose by --client and have
    it call again. Without --for and --size: as long and as large as the configuration allows.
    """
    if listener is None and client is None and call is None:
        raise typer.BadParameter("say which calls: --client, --listener or --call")
    by = asked(context)
    with by.api() as api:
        found = None if listener is None else find_listener(api.get("overview"), listener)
        content = {
            "listener": found,
            "client": client,
            "call": call,
            "seconds_max": seconds,
            "bytes_max": size,
        }
        answer = api.post("captures", content=content)

    def told() -> RenderableType:
        end = Text("they end by themselves, or with: sstplb capture end", "dim")
        return Group(tables.running_captures(answer["captures"]), end)

    by.show(answer, told)


@app.command()
def end(
    context: typer.Context,
    name: Annotated[
        str | None, typer.Argument(help="As list shows it; by default all.", metavar="[NAME]")
    ] = None,
) -> None:
    """End a capture, or all; the files stay, and so do the calls."""
    by = asked(context)
    with by.api() as api:
        running = api.get("captures")["running"] if name is None else [{"name": name}]
        ended = [api.post("captures", shown["name"], "end") for shown in running]
    by.show(ended, lambda: tables.ended_captures(ended))

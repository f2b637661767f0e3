"""The command ``sstplb top``."""

import sys
from typing import Annotated

import typer

from sstplb.config.quantities import parse_duration
from sstplb.control import given
from sstplb.control.ctl import door
from sstplb.control.ctl.api import Api
from sstplb.control.ctl.group import Ca, Conf, Socket, TokenFile, Url, console, fail, told
from sstplb.control.top.run import Top, once
from sstplb.errors import AskError, ConfigError

EVERY_S = 1.0

app = typer.Typer()


@app.command()
def top(
    conf: Conf = None,
    socket: Socket = None,
    url: Url = None,
    token_file: TokenFile = None,
    ca: Ca = None,
    interval: Annotated[
        float | None,
        typer.Option(
            help="Between two looks: by default 1s.",
            metavar="DURATION",
            parser=given.by(parse_duration),
        ),
    ] = None,
    is_once: Annotated[bool, typer.Option("--once", help="Print one frame, and end.")] = False,
) -> None:
    """Watch a running balancer: listeners, backends, rates, cost, calls, events.

    Keys: arrows choose a backend, d drains it and e enables it (after a question), c checks it;
    s sorts calls, / filters, p holds the picture still, q leaves.
    """
    every_s = interval or EVERY_S
    where = told(conf, socket, url, token_file, ca)
    if not is_once and not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise typer.BadParameter("this is no terminal: --once prints one frame")
    try:
        with Api(door.find(where)) as api:
            if is_once:
                once(api, every_s, console())
            else:
                Top(api, every_s, console()).run()
    except KeyboardInterrupt:
        return
    except (AskError, ConfigError) as error:
        raise typer.Exit(int(fail(error, as_json=False))) from error

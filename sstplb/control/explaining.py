"""The command ``sstplb explain``: thin; ``explain.py`` finds what it shows."""

from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from sstplb.account.windows import is_correlation_id
from sstplb.config.reading import in_words
from sstplb.control.ctl import door, group
from sstplb.control.ctl.api import Api
from sstplb.control.ctl.door import Told
from sstplb.control.explain import Known, as_json, as_text, explain, from_api, from_log
from sstplb.errors import AskError, ConfigError, Problem, SstplbError

app = typer.Typer()


@app.command("explain")
def explain_call(
    call: Annotated[
        str, typer.Argument(help="The number of a call, or its correlation id.", metavar="CALL")
    ],
    log: Annotated[
        Path | None,
        typer.Option(
            help="Look into this JSON log instead of asking the balancer.", readable=False
        ),
    ] = None,
    events: Annotated[
        list[Path] | None,
        typer.Option(
            help="A Windows event log exported as XML, the client's or RRAS's; repeat.",
            readable=False,
        ),
    ] = None,
    conf: group.Conf = None,
    socket: group.Socket = None,
    url: group.Url = None,
    token_file: group.TokenFile = None,
    ca: group.Ca = None,
    with_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")] = False,
) -> None:
    """Say what became of one call: its steps with their times, what was wrong, what to do.

    From the running balancer (found as sstplb ctl finds it), or from a log file; joined by the
    correlation id with exported Windows event logs.

    Exit codes: 0 explained; 1 nobody knows the call, or a file is no log; 3 a file cannot be
    read; 3 to 6 as ctl.
    """
    told = group.told(conf, socket, url, token_file, ca)
    try:
        known, where = _found(call, log, told, has_events=bool(events))
        explained = explain(call, known, events or (), where)
    except (AskError, ConfigError) as error:
        raise typer.Exit(int(group.fail(error, as_json=with_json))) from error
    except OSError as error:
        unread = ConfigError([Problem(in_words(error))])
        raise typer.Exit(int(group.fail(unread, as_json=with_json))) from error
    except SstplbError as error:
        raise typer.Exit(
            int(group.fail(AskError(str(error), reason=error.reason), as_json=with_json))
        ) from error
    if with_json:
        group.print_json(as_json(explained))
        return
    screen = group.console(markup=True)
    for part in as_text(explained):
        # What somebody may want to copy is left to the terminal to wrap.
        screen.print(part, soft_wrap=isinstance(part, Text))


def _found(
    call: str, log: Path | None, told: Told, *, has_events: bool
) -> tuple[Known | None, str]:
    """Return the call, and who was asked for it. Raises what asking raises.

    With Windows' events and a correlation id, a call may be explained without a balancer.
    """
    if log is not None:
        return from_log(log, call), str(log)
    try:
        way_in = door.find(told)
    except AskError:
        if has_events and is_correlation_id(call) and told == Told():
            return None, "nobody"
        raise
    with Api(way_in) as api:
        return from_api(api, call), str(way_in)

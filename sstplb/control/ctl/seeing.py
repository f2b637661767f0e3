"""The commands of ``sstplb ctl`` that look and change nothing."""

import contextlib
import time
from enum import StrEnum
from typing import Annotated

import typer
from rich.console import Group

from sstplb import __version__
from sstplb.config.schema import LogLevel
from sstplb.control.ctl import tables
from sstplb.control.ctl.api import Api
from sstplb.control.ctl.group import Asked, asked, console, print_json_line
from sstplb.control.ctl.names import find_backend, find_listener
from sstplb.control.ctl.tables import Shown
from sstplb.errors import AskError, UnreachableError

RECONNECT_MAX_S = 15.0
"""How long a balancer that went away is waited for by who follows: an upgrade, or a restart."""
RECONNECT_EVERY_S = 0.5
CALLS_SHOWN, EVENTS_SHOWN, ASKED_MAX = 50, 30, 5000

app = typer.Typer()


class CallState(StrEnum):
    """Which calls to list."""

    RUNNING = "running"
    ENDED = "ended"
    FAILED = "failed"
    ALL = "all"


@app.command()
def status(context: typer.Context) -> None:
    """Show the balancer: listeners, backends with health and reason, calls, bytes, cost."""
    by = asked(context)
    with by.api() as api:
        overview = api.get("overview")
        drift = [] if by.as_json else api.get("config")["drift"]
    by.show(overview, lambda: tables.status(overview, drift))


@app.command()
def backends(
    context: typer.Context,
    name: Annotated[
        str | None, typer.Argument(help="One backend in full, or a pool.", metavar="[BACKEND]")
    ] = None,
) -> None:
    """List the backends with standing, health and why they get no calls; or show one.

    One backend is shown with the transcript of its last check.
    """
    by = asked(context)
    with by.api() as api:
        overview = api.get("overview")
        pools = [pool for pool in overview["pools"] if name in (None, pool["name"])]
        if pools:
            by.show(pools, lambda: tables.backends(overview, name))
            return
        found = find_backend(overview, str(name))
        shown = api.get(*found.path)
    by.show(shown, lambda: tables.backend(str(found), shown))


@app.command()
def calls(
    context: typer.Context,
    state: Annotated[CallState, typer.Option(help="Which.")] = CallState.RUNNING,
    listener: Annotated[str | None, typer.Option(help="Only of this listener.")] = None,
    backend: Annotated[str | None, typer.Option(help="Only of this backend.")] = None,
    client: Annotated[
        str | None, typer.Option(help="Only from here: an address or a network.")
    ] = None,
    find: Annotated[
        str | None, typer.Option(help="Only with this text in any field.", metavar="TEXT")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, max=ASKED_MAX, help="How many.")] = CALLS_SHOWN,
    offset: Annotated[int, typer.Option(min=0, help="Leave out so many.")] = 0,
) -> None:
    """List calls, the newest first; those that ended are kept for a while, too.

    Failed are those that were refused, or where a side failed.
    """
    by = asked(context)
    with by.api() as api:
        pool = None
        if listener is not None or backend is not None:
            overview = api.get("overview")
            listener = None if listener is None else find_listener(overview, listener)
            if backend is not None:
                found = find_backend(overview, backend)
                pool, backend = found.pool, found.name
        page = api.get(
            "calls", state=state.value, listener=listener, pool=pool, backend=backend,
            client=client, text=find, limit=limit, offset=offset,
        )  # fmt: skip
    by.show(page, lambda: tables.calls(page))


@app.command()
def call(
    context: typer.Context,
    number: Annotated[int, typer.Argument(help="Its number, as in the log.", metavar="N")],
) -> None:
    """Show one call, running or ended: who, where, its steps with their times, how it ended.

    Users, computers and addresses are told as the section privacy of the configuration has it.
    """
    by = asked(context)
    with by.api() as api:
        shown = api.get("calls", str(number))
    by.show(shown, lambda: tables.call(shown))


@app.command()
def drift(context: typer.Context) -> None:
    """Show what was changed at run time and is not in the file."""
    by = asked(context)
    with by.api() as api:
        differences = api.get("config")["drift"]
    by.show(differences, lambda: tables.drift(differences))


@app.command()
def version(context: typer.Context) -> None:
    """Show the version that runs, and that of this command."""
    by = asked(context)
    with by.api() as api:
        running = api.get("version")
    mine = "the same here" if running["version"] == __version__ else f"this is {__version__}"
    by.say(running, f"{running['version']} runs (Python {running['python']}); {mine}")


@app.command()
def events(
    context: typer.Context,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on with what happens, until Ctrl-C.")
    ] = False,
    level: Annotated[
        LogLevel, typer.Option(help="Leave out what is less severe.")
    ] = LogLevel.DEBUG,
    limit: Annotated[int, typer.Option(min=1, max=ASKED_MAX, help="How many.")] = EVENTS_SHOWN,
) -> None:
    """Show the latest events of the log; with --follow those to come, too.

    With --json --follow each event is one line. Who follows stays through an upgrade or a restart
    of the balancer.
    """
    by = asked(context)
    wanted = _Wanted(by, level)
    with by.api() as api:
        if follow:
            with contextlib.suppress(KeyboardInterrupt):
                _Following(api, wanted).run(limit)
            return
        page = api.get("events", limit=ASKED_MAX)
    page["events"] = [event for event in page["events"] if wanted.is_fitting(event)][-limit:]
    by.show(page, lambda: Group(*map(tables.event, page["events"])))


class _Wanted:
    """Which events are shown, and how."""

    def __init__(self, by: Asked, level: LogLevel) -> None:
        self._as_json = by.as_json
        levels = list(LogLevel)
        self._levels = levels[levels.index(level) :]
        self._console = console()

    def is_fitting(self, event: Shown) -> bool:
        """Whether it is severe enough."""
        return event["level"] in self._levels

    def show(self, event: Shown) -> None:
        """Print one, at once."""
        if not self.is_fitting(event):
            return
        if self._as_json:
            print_json_line(event)
        else:
            self._console.print(tables.event(event), soft_wrap=True)


class _Following:
    """Events as they happen, none twice, none left out while the balancer remembers it."""

    def __init__(self, api: Api, wanted: _Wanted) -> None:
        self._api, self._wanted = api, wanted
        self._last = 0
        """Number of the latest event that was seen."""
        self._process = 0.0
        """When the process that counts them was started; 0: none has answered yet."""
        self._lost_at: float | None = None

    def run(self, limit: int) -> None:
        """Show the latest events and those to come. Raises AskError when it is lost for good."""
        while True:
            try:
                self._follow(limit)
            except AskError as error:
                is_passing = isinstance(error, UnreachableError) or error.reason == "unavailable"
                if not self._process or not is_passing or self._is_lost():
                    raise
            time.sleep(RECONNECT_EVERY_S)

    def _is_lost(self) -> bool:
        """Whether nobody has answered for too long."""
        now = time.monotonic()
        if self._lost_at is None:
            self._lost_at = now
            text = "the connection is lost: an upgrade, or a restart? Waiting"
            console(is_error=True).print(text, style="yellow")
        return now - self._lost_at > RECONNECT_MAX_S

    def _follow(self, limit: int) -> None:
        """Show events until the balancer ends the stream, or another process takes over."""
        is_caught_up = False
        for kind, event in self._api.stream():
            if not is_caught_up:
                # The stream is open: what happens from now on waits there. First what was before.
                self._catch_up(limit)
                is_caught_up = True
            if kind == "event":
                self._note(event)
                if event["event"] == "upgraded":
                    return

    def _catch_up(self, limit: int) -> None:
        process = self._api.get("overview")["started_at"]
        if not self._process:
            missed = self._api.get("events", limit=limit)
        else:
            if process != self._process:
                self._last = 0  # it counts from the beginning
            missed = self._api.get("events", after=self._last, limit=ASKED_MAX)
        self._process, self._lost_at = process, None
        for event in missed["events"]:
            self._note(event)

    def _note(self, event: Shown) -> None:
        if event["id"] > self._last:
            self._last = event["id"]
            self._wanted.show(event)

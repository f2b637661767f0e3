"""The commands of ``sstplb ctl`` that change something.

Each shows what it has done as the API answers it. Where calls would be ended or clients turned
away, a person at a terminal is asked first.
"""

from typing import Annotated, Any

import typer
from rich.console import Group, RenderableType
from rich.text import Text

from sstplb.config.quantities import parse_duration
from sstplb.config.schema import LogLevel, Standing
from sstplb.control import given
from sstplb.control.ctl import sheet, tables
from sstplb.control.ctl.api import Api
from sstplb.control.ctl.draining import Patience, wait_until_empty
from sstplb.control.ctl.group import Asked, asked, console
from sstplb.control.ctl.names import (
    BackendName,
    Overview,
    backends_of,
    find_backend,
)
from sstplb.control.run import ExitCode
from sstplb.errors import AskError

app = typer.Typer()

THEN_END = "When the time is over, end the calls that are left, politely and in turn."
Name = Annotated[str, typer.Argument(help="NAME, or POOL/NAME.", metavar="BACKEND")]
Duration = Annotated[
    float | None,
    typer.Option(
        help="How long: 90s, 10m, 2h.", metavar="DURATION", parser=given.by(parse_duration)
    ),
]


@app.command()
def drain(
    context: typer.Context,
    name: Name,
    wait: Annotated[
        bool, typer.Option("--wait", "-w", help="Wait until its last call has ended.")
    ] = False,
    timeout: Duration = None,
    then_end: Annotated[
        bool, typer.Option("--then-end", help=THEN_END)
    ] = False,
) -> None:  # fmt: skip
    """Give a backend no new calls; running ones stay. Undo it with: sstplb ctl enable BACKEND.

    With --wait the exit code is 0 once it is empty, 4 when the time was over and calls were still
    running. With --timeout and --then-end the balancer itself ends them then, whether somebody
    waits or not.
    """
    deadline_s = deadline(timeout, then_end=then_end, wait=wait)
    by = asked(context)
    with by.api() as api:
        overview = api.get("overview")
        found = find_backend(overview, name)
        _confirm_last(by, overview, found)
        confirm_deadline(by, str(found), deadline_s)
        shown = _stand(api, found, Standing.DRAINING, deadline_s)
        was_empty = True
        if wait:
            patience = Patience(timeout, then_end)
            try:
                was_empty = wait_until_empty(api, found, patience, console(is_error=True))
            except KeyboardInterrupt:
                stays = f"{found} stays draining; undo it with: sstplb ctl enable {found}"
                console(is_error=True).print(stays, soft_wrap=True)
                raise
            shown = api.get(*found.path)
    by.show(shown, lambda: tables.told(str(found), shown))
    if not was_empty:
        raise typer.Exit(int(ExitCode.CUT))


@app.command()
def enable(context: typer.Context, name: Name) -> None:
    """Give a backend calls again; one that was off is checked first."""
    by = asked(context)
    with by.api() as api:
        found = find_backend(api.get("overview"), name)
        shown = _stand(api, found, Standing.ACTIVE)
    by.show(shown, lambda: tables.told(str(found), shown))


@app.command()
def off(context: typer.Context, name: Name) -> None:
    """Take a backend out: no new calls, no checks. Running calls stay."""
    by = asked(context)
    with by.api() as api:
        overview = api.get("overview")
        found = find_backend(overview, name)
        _confirm_last(by, overview, found)
        shown = _stand(api, found, Standing.OFF)
    by.show(shown, lambda: tables.told(str(found), shown))


@app.command("check-now")
def check_now(
    context: typer.Context,
    name: Annotated[
        str | None,
        typer.Argument(help="NAME, or POOL/NAME; by default all.", metavar="[BACKEND]"),
    ] = None,
) -> None:
    """Check a backend out of turn, or all. Exit code 1: a check was not answered as it should be.

    The verdict counts like any other, so one good check of several may not be enough yet.
    """
    by = asked(context)
    with by.api() as api:
        overview = api.get("overview")
        if name is None:
            known = backends_of(overview).items()
            wanted = [found for found, shown in known if shown["standing"] != Standing.OFF]
        else:
            wanted = [find_backend(overview, name)]
        checked = {found: api.post(*found.path, "check") for found in wanted}
    answer: Any = list(checked.values()) if name is None else next(iter(checked.values()))
    parts = [tables.backend(str(found), shown) for found, shown in checked.items()]
    by.show(answer, lambda: Group(*_with_gaps(parts)))
    if not all(shown["last_check"] and shown["last_check"]["ok"] for shown in checked.values()):
        raise typer.Exit(int(ExitCode.FAILED))


@app.command("bring-back")
def bring_back(context: typer.Context, name: Name) -> None:
    """Give calls again to a backend that failed calls have set aside, without waiting."""
    by = asked(context)
    with by.api() as api:
        found = find_backend(api.get("overview"), name)
        shown = api.post(*found.path, "bring_back")
    by.show(shown, lambda: tables.told(str(found), shown))


@app.command()
def kill(
    context: typer.Context,
    number: Annotated[int, typer.Argument(help="The call's number.", metavar="N")],
    polite: Annotated[
        bool,
        typer.Option("--polite", help="Send both sides a CALL_DISCONNECT, and wait for answers."),
    ] = False,
) -> None:
    """End a running call: both its connections are closed, at once or politely."""
    by = asked(context)
    with by.api() as api:
        shown = api.get("calls", str(number))
        if shown["state"] == "running":
            how = "ended politely" if polite else "cut"
            by.confirm(f"Call {number} of {shown['client']} will be {how}. Go on?")
        content = {"how": "polite" if polite else "now"}
        shown = api.post("calls", str(number), "end", content=content)
    by.show(shown, lambda: tables.call(shown))


@app.command()
def reload(
    context: typer.Context,
    check: Annotated[
        bool, typer.Option("--check", help="Only say what would change, and what would be lost.")
    ] = False,
) -> None:
    """Put the configuration file in force; a bad one changes nothing (exit code 3).

    Running calls keep what they began with. What was changed at run time ends with a reload, but
    for standings (sstplb ctl drift shows it, sstplb ctl save keeps it).
    """
    by = asked(context)
    with by.api() as api:
        review = api.post("config", "check" if check else "reload")
    if review["problems"]:
        raise AskError("\n".join(review["problems"]), reason="config", problems=review["problems"])
    by.show(review, lambda: tables.review(review, is_done=not check))
    for text in review["warnings"]:
        console(is_error=True).print(f"warning: {text}", style="yellow", soft_wrap=True)


@app.command()
def save(context: typer.Context) -> None:
    """Write what was changed at run time to the configuration file; its comments stay."""
    by = asked(context)
    with by.api() as api:
        answer = api.post("config", "save")

    def told() -> RenderableType:
        if not answer["saved"]:
            return Text("the file says what runs already")
        return Group(Text("written to the file:"), tables.drift(answer["saved"]))

    by.show(answer, told)


@app.command("log-level")
def log_level(
    context: typer.Context,
    level: Annotated[LogLevel, typer.Argument(help="The least severe that is written.")],
) -> None:
    """Set what is written to the log, until a reload."""
    by = asked(context)
    with by.api() as api:
        answer = api.put("log", "level", content={"level": level.value})
    by.say(answer, f"the log level is {answer['level']} until a reload")


@app.command()
def stop(
    context: typer.Context,
    timeout: Duration = None,
    now: Annotated[bool, typer.Option("--now", help="Cut the calls that run.")] = False,
) -> None:
    """Stop the balancer: no new calls; running ones may end until limits.stop_timeout."""
    if now and timeout is not None:
        raise typer.BadParameter("give one of --now and --timeout")
    by = asked(context)
    with by.api() as api:
        running = api.get("overview")["totals"]["running"]
        end = "are cut" if now else "may end, then are cut"
        by.confirm(
            f"The balancer stops: clients are refused, {running} running calls {end}. Go on?"
        )
        answer = api.post("stop", content={"timeout_s": 0 if now else timeout})
    by.say(answer, f"it stops; {running} calls were running")


@app.command()
def upgrade(
    context: typer.Context,
    timeout: Duration = None,
    then_end: Annotated[bool, typer.Option("--then-end", help=THEN_END)] = False,
) -> None:
    """Have a new process take over, without a gap; the old one ends with its last call.

    With --timeout and --then-end it ends those calls then, and so itself.
    """
    deadline_s = deadline(timeout, then_end=then_end)
    by = asked(context)
    confirm_deadline(by, "the old process", deadline_s)
    with by.api() as api:
        answer = api.post("upgrade", content={"deadline_s": deadline_s})
    by.say(answer, f"process {answer['process']} has taken over")


# --- inside -----------------------------------------------------------------------------------


def deadline(timeout: float | None, *, then_end: bool, wait: bool = False) -> float | None:
    """Return when the balancer ends what is left. Raises BadParameter."""
    if then_end and timeout is None:
        raise typer.BadParameter("--then-end needs a --timeout")
    if timeout is not None and not (then_end or wait):
        raise typer.BadParameter("--timeout says when to end what is left: add --then-end")
    return timeout if then_end else None


def confirm_deadline(by: Asked, what: str, deadline_s: float | None) -> None:
    """Ask whether the calls that are left then may be ended."""
    if deadline_s is not None:
        by.confirm(f"The calls that {what} still has in {sheet.ago(deadline_s)} are ended. Go on?")


def _stand(
    api: Api, found: BackendName, standing: Standing, deadline_s: float | None = None
) -> dict[str, Any]:
    content = {"standing": standing.value, "deadline_s": deadline_s}
    shown: dict[str, Any] = api.post(*found.path, "standing", content=content)
    return shown


def _confirm_last(by: Asked, overview: Overview, found: BackendName) -> None:
    """Ask when a pool would be left without a backend that takes calls."""
    of_pool = {one: b for one, b in backends_of(overview).items() if one.pool == found.pool}
    usable = [one for one, shown in of_pool.items() if shown["usable"]]
    if usable == [found]:
        by.confirm(f"{found} is the last backend of {found.pool} that takes calls. Go on?")


def _with_gaps(parts: list[Group]) -> list[RenderableType]:
    shown: list[RenderableType] = []
    for part in parts:
        shown += [Text(), part] if shown else [part]
    return shown

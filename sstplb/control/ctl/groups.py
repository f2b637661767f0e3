"""The commands of ``sstplb ctl`` that come in groups: listeners, affinity, certs.

The first two words alone show what there is; a third changes something.
"""

from typing import Annotated

import typer
from rich.text import Text

from sstplb.config.schema import Standing
from sstplb.control.ctl import rolling, tables
from sstplb.control.ctl.doing import THEN_END, Duration, confirm_deadline, deadline
from sstplb.control.ctl.group import asked
from sstplb.control.ctl.names import find_backend, find_listener, find_pool

app = typer.Typer()
listeners_app = typer.Typer(invoke_without_command=True, help="List listeners; close, open one.")
affinity_app = typer.Typer(no_args_is_help=True, help="Which client is sent to which backend.")
certs_app = typer.Typer(invoke_without_command=True, help="Certificates clients are shown.")
app.add_typer(listeners_app, name="listeners")
app.add_typer(affinity_app, name="affinity")
app.add_typer(certs_app, name="certs")
certs_app.add_typer(rolling.app)

Listener = Annotated[str, typer.Argument(help="Its name.", metavar="LISTENER")]
Pool = Annotated[
    str | None, typer.Option("--pool", help="Which pool; needed when there are several.")
]
Client = Annotated[
    str, typer.Argument(help="An address, or a network as list shows it.", metavar="CLIENT")
]
LIMIT_MAX = 5000


# --- listeners --------------------------------------------------------------------------------


@listeners_app.callback()
def listeners(context: typer.Context) -> None:
    """List the listeners: address, mode, calls, bytes, certificate. Or close one, or open it."""
    if context.invoked_subcommand is not None:
        return
    by = asked(context)
    with by.api() as api:
        overview = api.get("overview")
    by.show(overview["listeners"], lambda: tables.listeners(overview))


@listeners_app.command("drain")
def drain_listener(
    context: typer.Context,
    name: Listener,
    timeout: Duration = None,
    then_end: Annotated[bool, typer.Option("--then-end", help=THEN_END)] = False,
) -> None:
    """Refuse new calls on a listener; running ones stay, or are ended after a time."""
    deadline_s = deadline(timeout, then_end=then_end)
    by = asked(context)
    by.confirm(f"New calls to {name} will be refused. Go on?")
    confirm_deadline(by, name, deadline_s)
    _set_standing(context, name, Standing.DRAINING, deadline_s)


@listeners_app.command("enable")
def enable_listener(context: typer.Context, name: Listener) -> None:
    """Accept calls on a listener again."""
    _set_standing(context, name, Standing.ACTIVE)


def _set_standing(
    context: typer.Context, name: str, standing: Standing, deadline_s: float | None = None
) -> None:
    by = asked(context)
    with by.api() as api:
        found = find_listener(api.get("overview"), name)
        content = {"standing": standing.value, "deadline_s": deadline_s}
        shown = api.post("listeners", found, "standing", content=content)
    word, end = tables.listener_state(shown), tables.ends_at(shown)
    by.show(shown, lambda: Text(f"{found} is {word}, {shown['calls']} calls running{end}"))


# --- affinity ---------------------------------------------------------------------------------


@affinity_app.command("list")
def list_affinity(
    context: typer.Context,
    pool: Pool = None,
    limit: Annotated[int, typer.Option(min=1, max=LIMIT_MAX, help="How many.")] = 200,
) -> None:
    """List the clients that are remembered: pins, those with calls, then the others."""
    by = asked(context)
    with by.api() as api:
        found = find_pool(api.get("overview"), pool)
        page = api.get("pools", found, "affinity", limit=limit)
    by.show(page, lambda: tables.affinity(found, page))


@affinity_app.command("pin")
def pin(
    context: typer.Context,
    client: Client,
    backend: Annotated[str, typer.Argument(help="NAME, or POOL/NAME.", metavar="BACKEND")],
) -> None:
    """Send a client to one backend from its next call on, until it is forgotten."""
    by = asked(context)
    with by.api() as api:
        found = find_backend(api.get("overview"), backend)
        content = {"backend": found.name}
        shown = api.put("pools", found.pool, "affinity", client, content=content)
    by.say(shown, f"{shown['client']} is pinned to {found}")


@affinity_app.command("forget")
def forget(context: typer.Context, client: Client, pool: Pool = None) -> None:
    """Forget a client, pinned or not; its calls run on."""
    by = asked(context)
    with by.api() as api:
        found = find_pool(api.get("overview"), pool)
        answer = api.delete("pools", found, "affinity", client)
    by.say(answer, f"{client} is forgotten in {found}")


# --- certificates -----------------------------------------------------------------------------


@certs_app.callback()
def certs(context: typer.Context) -> None:
    """Show certificates with hashes and days left, and which backends have the same."""
    if context.invoked_subcommand is None:
        _show_certificates(context, is_reload=False)


@certs_app.command("reload")
def reload_certs(context: typer.Context) -> None:
    """Read every certificate and key again; new calls see the new ones."""
    _show_certificates(context, is_reload=True)


def _show_certificates(context: typer.Context, *, is_reload: bool) -> None:
    by = asked(context)
    with by.api() as api:
        page = api.post("certificates", "reload") if is_reload else api.get("certificates")
        overview = api.get("overview")
    by.show(page, lambda: tables.certificates(page, overview))

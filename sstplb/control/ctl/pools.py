"""The commands of ``sstplb ctl`` that change what a pool is made of.

All of it is drift: it ends with a reload, unless ``save`` writes it to the file.
"""

from typing import Annotated, Any

import typer
from rich.console import Group
from rich.text import Text

from sstplb.config.quantities import Endpoint, parse_endpoint
from sstplb.config.schema import Standing
from sstplb.control import given
from sstplb.control.ctl import tables
from sstplb.control.ctl.doing import Name
from sstplb.control.ctl.group import Asked, asked
from sstplb.control.ctl.names import BackendName, backends_of, find_backend, find_pool

app = typer.Typer()

KEEP = "it ends with a reload; to keep it: sstplb ctl save"


@app.command()
def weight(
    context: typer.Context,
    name: Name,
    value: Annotated[int, typer.Argument(help="Its share of calls.", metavar="N")],
) -> None:
    """Set a backend's share of calls."""
    _set(asked(context), name, "weight", value)


@app.command("calls-max")
def calls_max(
    context: typer.Context,
    name: Name,
    value: Annotated[int, typer.Argument(help="So many at one time.", metavar="N")],
) -> None:
    """Set how many calls a backend may have; those it has stay."""
    _set(asked(context), name, "calls_max", value)


@app.command()
def add(
    context: typer.Context,
    name: Annotated[
        str, typer.Argument(help="POOL/NAME; NAME where there is one pool.", metavar="BACKEND")
    ],
    address: Annotated[
        Endpoint,
        typer.Argument(
            help="Where it is; the port is the pool's usual one.",
            metavar="ADDRESS", parser=given.by(parse_endpoint),
        ),
    ],
    share: Annotated[
        int | None, typer.Option("--weight", help="Its share of calls.", metavar="N")
    ] = None,
    most: Annotated[
        int | None, typer.Option("--calls-max", help="So many at one time.", metavar="N")
    ] = None,
    backup: Annotated[
        bool, typer.Option("--backup", help="Only when no other can be used.")
    ] = False,
    hash_told: Annotated[
        str | None,
        typer.Option("--hash", help="Offload: the SHA-256 it was told.", metavar="HEX"),
    ] = None,
    draining: Annotated[
        bool, typer.Option("--draining", help="Give it no calls yet: sstplb ctl enable does.")
    ] = False,
) -> None:  # fmt: skip
    """Add a backend to a pool; it is checked before it gets calls."""
    by = asked(context)
    pool, _, own = name.rpartition("/")
    with by.api() as api:
        found = BackendName(find_pool(api.get("overview"), pool or None), own)
        content: dict[str, Any] = {"name": own, "address": str(address)}
        given = {"weight": share, "calls_max": most, "rras_certificate_sha256": hash_told}
        content |= {knob: value for knob, value in given.items() if value is not None}
        if backup:
            content["backup"] = True
        if draining:
            content["standing"] = Standing.DRAINING.value
        shown = api.post("pools", found.pool, "backends", content=content)
    by.show(shown, lambda: Group(tables.backend(str(found), shown), Text(KEEP)))


@app.command()
def remove(
    context: typer.Context,
    name: Name,
    force: Annotated[
        bool, typer.Option("--force", help="End the calls it still has; it must be draining.")
    ] = False,
) -> None:
    """Take a backend out of its pool. One with calls: drain it and wait first."""
    by = asked(context)
    with by.api() as api:
        overview = api.get("overview")
        found = find_backend(overview, name)
        if force and (count := backends_of(overview)[found]["calls"]):
            by.confirm(f"{count} calls of {found} will be cut. Go on?")
        answer = api.delete(*found.path, force="true" if force else None)
    by.say(answer, f"{found} is removed; {KEEP}")


def _set(by: Asked, name: str, knob: str, value: int) -> None:
    with by.api() as api:
        found = find_backend(api.get("overview"), name)
        shown = api.post(*found.path, knob, content={knob: value})
    by.show(shown, lambda: tables.told(str(found), shown))

"""The routes of the API: what can be asked, and in which words.

Each handler is one question to the ``Operator``'s ``sight``, or has something done by another of
its parts and then shows how it looks. Paths, and the shapes that are sent and answered
(``shapes.py``), are a contract: programs and the page rely on them.
"""

import platform
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Query, Request
from starlette.responses import Response

from sstplb import __version__
from sstplb.config import schema
from sstplb.control.admin.exposition import render
from sstplb.control.admin.reply import Reply
from sstplb.control.admin.shapes import (
    AffinityPage,
    BackendGiven,
    Begun,
    CallPage,
    CallShape,
    CallsMaxGiven,
    CaptureGiven,
    CertificatePage,
    ConfigShape,
    DeclarationGiven,
    Done,
    EndGiven,
    EventPage,
    LevelGiven,
    ListenerStandingGiven,
    ReviewShape,
    RolloutPage,
    Saved,
    StandingGiven,
    StopGiven,
    Upgraded,
    UpgradeGiven,
    Version,
    WeightGiven,
)
from sstplb.control.admin.streams import Streams
from sstplb.control.drift import Review
from sstplb.control.operator import Operator
from sstplb.control.selection import Selection
from sstplb.control.views import (
    BackendView,
    CapturesView,
    ListenerView,
    Overview,
    PoolView,
    Remembered,
)
from sstplb.net import capture

router = APIRouter()
outside = APIRouter()
"""What is not below ``/api/v1``."""


async def _operator(request: Request) -> Operator:
    found: Operator = request.app.state.operator
    return found


async def _streams(request: Request) -> Streams:
    found: Streams = request.app.state.streams
    return found


Desk = Annotated[Operator, Depends(_operator)]
Limit = Annotated[int, Query(ge=1, le=5000, description="At most so many.")]


# --- seeing -----------------------------------------------------------------------------------


@router.get("/overview", response_model=Overview, tags=["see"])
async def overview(desk: Desk) -> Response:
    """Everything a page needs, at one moment."""
    return Reply(desk.sight.overview())


@router.get("/calls", response_model=CallPage, tags=["calls"])
async def calls(
    desk: Desk,
    state: Annotated[
        Literal["running", "ended", "failed", "all"],
        Query(description="failed: refused, or a side failed"),
    ] = "all",
    listener: str | None = None,
    pool: str | None = None,
    backend: str | None = None,
    client: Annotated[str | None, Query(description="An address or a network.")] = None,
    text: Annotated[str | None, Query(max_length=200, description="Found in any field.")] = None,
    limit: Limit = 200,
    offset: Annotated[int, Query(ge=0)] = 0,
) -> Response:
    """List calls that run and the last thousand that ended, the newest first."""
    wanted = Selection(state, listener, pool, backend, client, text, limit, offset)
    total, page = desk.sight.calls(wanted)
    return Reply({"total": total, "calls": page})


@router.get("/calls/{number}", response_model=CallShape, tags=["calls"])
async def call(desk: Desk, number: int) -> Response:
    """One call."""
    return Reply(desk.sight.call(number))


@router.post("/calls/{number}/end", response_model=CallShape, tags=["calls"])
async def end_call(desk: Desk, number: int, given: EndGiven | None = None) -> Response:
    """End a running call."""
    politely = given is not None and given.how == "polite"
    return Reply(await desk.orders.end_call(number, politely=politely))


@router.get("/events", response_model=EventPage, tags=["see"])
async def events(
    desk: Desk, after: Annotated[int, Query(ge=0)] = 0, limit: Limit = 200
) -> Response:
    """Events after a number, in their order; after 0 the latest ones."""
    return Reply({"last": desk.events.last, "events": desk.events.after(after, limit)})


@router.get("/events/stream", tags=["see"], response_class=Response)
async def stream(streams: Annotated[Streams, Depends(_streams)]) -> Response:
    """Server-sent events: `event` for each log event, `overview` at once and every second."""
    return streams.stream()


@router.get("/version", response_model=Version, tags=["see"])
async def version() -> Response:
    """Say what runs here."""
    return Reply(Version(__version__, platform.python_version()))


@outside.get(
    "/metrics",
    tags=["see"],
    response_class=Response,
    responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
)
async def metrics(request: Request, desk: Desk) -> Response:
    """Everything that is measured, for Prometheus; see docs/metrics.md."""
    page, content_type = render(desk.sight.measure(), request.headers.get("accept", ""))
    return Response(page, headers={"Content-Type": content_type})


# --- backends ---------------------------------------------------------------------------------

_BACKEND = "/pools/{pool}/backends/{name}"


@router.get("/pools", response_model=list[PoolView], tags=["pools"])
async def pools(desk: Desk) -> Response:
    """List the pools with their backends."""
    return Reply(desk.sight.pools())


@router.post("/pools/{pool}/backends", response_model=BackendView, status_code=201, tags=["pools"])
async def add_backend(desk: Desk, pool: str, given: schema.Backend) -> Response:
    """Add a backend to the running configuration; it is checked at once."""
    await desk.configuration.add_backend(pool, given)
    return Reply(desk.sight.backend(pool, given.name), 201)


@router.get(_BACKEND, response_model=BackendView, tags=["pools"])
async def backend(desk: Desk, pool: str, name: str) -> Response:
    """One backend."""
    return Reply(desk.sight.backend(pool, name))


@router.delete(_BACKEND, response_model=Done, tags=["pools"])
async def remove_backend(desk: Desk, pool: str, name: str, *, force: bool = False) -> Response:
    """Take a backend without calls out of its pool; with force its calls are ended."""
    await desk.configuration.remove_backend(pool, name, force=force)
    return Reply(Done())


@router.post(_BACKEND + "/standing", response_model=BackendView, tags=["pools"])
async def set_standing(desk: Desk, pool: str, name: str, given: StandingGiven) -> Response:
    """Give the operator's word on a backend."""
    await desk.orders.set_standing(pool, name, given.standing, given.deadline_s)
    return Reply(desk.sight.backend(pool, name))


@router.post(_BACKEND + "/weight", response_model=BackendView, tags=["pools"])
async def set_weight(desk: Desk, pool: str, name: str, given: WeightGiven) -> Response:
    """Set a backend's share of calls."""
    await desk.configuration.set_weight(pool, name, given.weight)
    return Reply(desk.sight.backend(pool, name))


@router.post(_BACKEND + "/calls_max", response_model=BackendView, tags=["pools"])
async def set_calls_max(desk: Desk, pool: str, name: str, given: CallsMaxGiven) -> Response:
    """Set how many calls a backend may have at one time."""
    await desk.configuration.set_calls_max(pool, name, given.calls_max)
    return Reply(desk.sight.backend(pool, name))


@router.post(_BACKEND + "/check", response_model=BackendView, tags=["pools"])
async def check_now(desk: Desk, pool: str, name: str) -> Response:
    """Check a backend now; the verdict counts like any other."""
    await desk.orders.check_now(pool, name)
    return Reply(desk.sight.backend(pool, name))


@router.post(_BACKEND + "/rras_certificate", response_model=BackendView, tags=["pools"])
async def declare(desk: Desk, pool: str, name: str, given: DeclarationGiven) -> Response:
    """Say which certificate an offloaded RRAS was told to accept (Enable-SSTPOffload)."""
    await desk.configuration.declare(pool, name, given.sha256)
    return Reply(desk.sight.backend(pool, name))


@router.post(_BACKEND + "/bring_back", response_model=BackendView, tags=["pools"])
async def bring_back(desk: Desk, pool: str, name: str) -> Response:
    """Give calls again to a backend that failed ones put aside; counting starts afresh."""
    desk.orders.bring_back(pool, name)
    return Reply(desk.sight.backend(pool, name))


# --- listeners --------------------------------------------------------------------------------


@router.get("/listeners", response_model=list[ListenerView], tags=["listeners"])
async def listeners(desk: Desk) -> Response:
    """List the listeners: address, mode, calls, bytes, certificates."""
    return Reply(desk.sight.listeners())


@router.post("/listeners/{name}/standing", response_model=ListenerView, tags=["listeners"])
async def set_listener_standing(desk: Desk, name: str, given: ListenerStandingGiven) -> Response:
    """Close a listener to new calls, or open it again."""
    await desk.orders.set_listener_standing(name, given.standing, given.deadline_s)
    return Reply(desk.sight.listener(name))


# --- affinity ---------------------------------------------------------------------------------

_CLIENT = "/pools/{pool}/affinity/{client:path}"


@router.get("/pools/{pool}/affinity", response_model=AffinityPage, tags=["affinity"])
async def affinity(desk: Desk, pool: str, limit: Limit = 200) -> Response:
    """Clients that are remembered: pins, those with calls, then the others."""
    total, entries = desk.sight.affinity(pool, limit)
    return Reply({"total": total, "entries": entries})


@router.put(_CLIENT, response_model=Remembered, tags=["affinity"])
async def pin(desk: Desk, pool: str, client: str, given: BackendGiven) -> Response:
    """Pin a client (an address, or its network) to a backend."""
    return Reply(desk.orders.pin(pool, client, given.backend))


@router.delete(_CLIENT, response_model=Done, tags=["affinity"])
async def forget(desk: Desk, pool: str, client: str) -> Response:
    """Forget a client, pinned or not; its calls run on."""
    desk.orders.forget(pool, client)
    return Reply(Done())


# --- captures ---------------------------------------------------------------------------------


@router.get("/captures", response_model=CapturesView, tags=["captures"])
async def captures(desk: Desk) -> Response:
    """Show the captures that run, and the files there are."""
    return Reply(await desk.sight.captures())


@router.post("/captures", response_model=Begun, status_code=201, tags=["captures"])
async def begin_capture(desk: Desk, given: CaptureGiven) -> Response:
    """Record chosen calls as files for Wireshark, where the configuration allows captures."""
    wanted = capture.CaptureChoice(given.listener, given.client, given.call)
    begun = await desk.orders.begin_capture(wanted, given.seconds_max, given.bytes_max)
    return Reply(Begun(begun), 201)


@router.post("/captures/{name}/end", response_model=capture.CaptureState, tags=["captures"])
async def end_capture(desk: Desk, name: str) -> Response:
    """End a capture; its file stays."""
    return Reply(await desk.orders.end_capture(name))


# --- configuration and certificates -----------------------------------------------------------


@router.get("/config", response_model=ConfigShape, tags=["configuration"])
async def config(desk: Desk) -> Response:
    """Show the configuration in force, and where it differs from the file."""
    running = desk.configuration
    return Reply(
        {
            "file": str(running.file),
            "effective": running.shown(),
            "drift": [_drift(d.path, d.before, d.after) for d in running.drift()],
        }
    )


@router.post("/config/check", response_model=ReviewShape, tags=["configuration"])
async def check_config(desk: Desk) -> Response:
    """Read the file, and say what a reload would do."""
    return Reply(_review(await desk.configuration.check()))


@router.post("/config/reload", response_model=ReviewShape, tags=["configuration"])
async def reload(desk: Desk) -> Response:
    """Put the file in force; a bad one changes nothing."""
    return Reply(_review(await desk.configuration.reload()))


@router.post("/config/save", response_model=Saved, tags=["configuration"])
async def save(desk: Desk) -> Response:
    """Write what was changed at run time back to the file; its comments stay."""
    written = await desk.configuration.save()
    return Reply({"saved": [_drift(d.path, d.before, d.after) for d in written]})


@router.get("/certificates", response_model=CertificatePage, tags=["certificates"])
async def certificates(desk: Desk) -> Response:
    """Show the certificates clients are shown."""
    return Reply({"listeners": desk.sight.certificates()})


@router.get("/certificates/rollout", response_model=RolloutPage, tags=["certificates"])
async def certificate_rollout(desk: Desk) -> Response:
    """Show which backend accepts which certificate, how we know, and what to do next."""
    return Reply({"pools": desk.sight.rollout()})


@router.post("/certificates/reload", response_model=CertificatePage, tags=["certificates"])
async def reload_certificates(desk: Desk) -> Response:
    """Read every certificate and key again; new calls see the new ones."""
    await desk.configuration.reload_certificates()
    return Reply({"listeners": desk.sight.certificates()})


@router.post("/stop", response_model=Done, status_code=202, tags=["configuration"])
async def stop(desk: Desk, given: StopGiven | None = None) -> Response:
    """Stop the balancer: no new calls, running ones may go on for a while."""
    await desk.departure.stop(None if given is None else given.timeout_s)
    return Reply(Done(), 202)


@router.post("/upgrade", response_model=Upgraded, tags=["configuration"])
async def upgrade(desk: Desk, given: UpgradeGiven | None = None) -> Response:
    """Have a new process take over; this one ends with its last call."""
    successor = await desk.departure.upgrade(None if given is None else given.deadline_s)
    return Reply(Upgraded(successor))


@router.put("/log/level", response_model=LevelGiven, tags=["configuration"])
async def set_log_level(desk: Desk, given: LevelGiven) -> Response:
    """Set the least severe level that is written, until a reload."""
    desk.configuration.set_log_level(given.level)
    return Reply(given)


def _drift(path: str, file: Any, running: Any) -> dict[str, Any]:
    return {"path": path, "file": file, "running": running}


def _review(review: Review) -> dict[str, Any]:
    return {
        "problems": review.problems,
        "warnings": review.warnings,
        "changes": [{"path": d.path, "from": d.before, "to": d.after} for d in review.changes],
        "drift_lost": [_drift(d.path, d.after, d.before) for d in review.drift_lost],
    }

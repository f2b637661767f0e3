"""The routes of the API: what can be asked, in which words, and what is answered.

Each handler is one question to the ``Operator``. The names, units and shapes are a contract:
programs and the page rely on them.
"""

import platform
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Query, Request
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response

from sstplb import __version__
from sstplb.account.causes import Cause, Diagnosis
from sstplb.account.record import Goodbye, PassedOver, Story
from sstplb.config import schema
from sstplb.config.schema import DURATION_S_MAX, LogLevel, Standing
from sstplb.control.admin.exposition import render
from sstplb.control.admin.reply import Reply
from sstplb.control.admin.streams import Streams
from sstplb.control.operator import Operator, Remembered, Review, Selection
from sstplb.control.rollout import PoolRollout
from sstplb.control.views import BackendView, CertificateView, ListenerView, Overview

Handler = Callable[[Request], Awaitable[Response]]

CODES: Mapping[int, str] = MappingProxyType({404: "not_found", 405: "method_not_allowed"})

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


class Given(BaseModel):
    """The ground of what is sent: unknown keys are mistakes."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)


Deadline = Annotated[float, Field(ge=0, le=DURATION_S_MAX)]


class StandingGiven(Given):
    """The operator's word on a backend."""

    standing: Standing
    """``active``; ``draining``: running calls stay, no new ones; ``off``: not even checked."""
    deadline_s: Deadline | None = None
    """When it is not active: after so long the calls it still has are ended, politely and one after
    the other (``limits.endings_per_second``); null: they may run on."""


class ListenerStandingGiven(Given):
    """The operator's word on a listener."""

    standing: Literal[Standing.ACTIVE, Standing.DRAINING]
    """``active``; ``draining``: new calls are refused, running ones stay."""
    deadline_s: Deadline | None = None
    """When it drains: after so long the calls it still has are ended, politely; null: they may run
    on."""


class StopGiven(Given):
    """How to stop."""

    timeout_s: float | None = Field(default=None, ge=0)
    """How long running calls may go on; 0: they are closed at once; null: as configured."""


class UpgradeGiven(Given):
    """What becomes of the calls that the old process has."""

    deadline_s: Deadline | None = None
    """After so long those that still run are ended, politely; null: they may run on, and the old
    process with them."""


class WeightGiven(Given):
    """A backend's share of calls."""

    weight: int


class CallsMaxGiven(Given):
    """How many calls a backend may have at one time."""

    calls_max: int


class DeclarationGiven(Given):
    """What an offloaded RRAS was told to accept."""

    sha256: schema.Sha256Hex | None
    """Of the certificate, as 64 hex digits; null: let it be learnt."""


class EndGiven(Given):
    """How to end a call."""

    how: Literal["now", "polite"] = "now"
    """``now``: both connections are closed. ``polite``: client and RRAS are sent a CALL_DISCONNECT,
    and the answer comes when both have acknowledged it, or not within a few seconds: see
    ``client_goodbye`` and ``backend_goodbye``; in passthrough only the connections are ended."""


class BackendGiven(Given):
    """The backend a client is pinned to."""

    backend: str


class LevelGiven(Given):
    """The least severe level that is written."""

    level: LogLevel


class Phases(BaseModel):
    """How long each step took; a step that did not happen is left out."""

    model_config = ConfigDict(extra="forbid")
    preface_s: float | None = None
    hello_s: float | None = None
    tls_s: float | None = None
    head_s: float | None = None
    reach_s: float | None = None
    relay_s: float | None = None


class TryShape(BaseModel):
    """One backend that was asked; an empty reason: it took the call."""

    backend: str
    reason: str
    seconds: float
    why: str = Field(description="The reason in words.")


class CallShape(Phases):
    """One call; what has no value is left out."""

    id: int
    state: Literal["running", "ended"]
    started_at: float
    call: int = Field(description="The same number as id, as in the log.")
    client: str
    listener: str
    mode: str
    duration_s: float
    bytes_in: int
    bytes_out: int
    phases: Phases
    tries: list[TryShape]
    correlation_id: str | None = None
    tenant_id: str | None = None
    server_name: str | None = None
    tls_offered: str | None = Field(
        default=None, description="The newest TLS version the client offers."
    )
    tls_version: str | None = None
    cipher: str | None = None
    pool: str | None = None
    backend: str | None = None
    packets_in: int | None = None
    packets_out: int | None = None
    client_goodbye: Goodbye | None = Field(
        default=None, description="What a side said to the CALL_DISCONNECT when we ended the call."
    )
    backend_goodbye: Goodbye | None = None
    user: str | None = Field(
        default=None, description="Like computer and address as the section privacy has it."
    )
    computer: str | None = None
    address: str | None = Field(default=None, description="Assigned inside the tunnel.")
    authentication: str | None = Field(default=None, description="The method.")
    authenticated_s: float | None = None
    address_s: float | None = Field(
        default=None, description="From CALL_CONNECT_REQUEST to the address."
    )
    served_sha256: str | None = Field(
        default=None, description="Of the certificate this client was shown."
    )
    backend_sha256: str | None = Field(
        default=None, description="Of the certificate its backend expects, as far as is known."
    )
    backend_sha256_from: Literal["shown", "declared"] | None = None
    passed_over: list[PassedOver] = Field(description="Who was no candidate, when there was none.")
    story: Story | None = Field(
        default=None,
        description="What its packets told, where TLS ends here and they are followed.",
    )
    ended_by: Literal["client", "backend", "balancer"] | None = None
    diagnosis: list[Cause] | None = Field(
        default=None, description="What was wrong, where something was."
    )
    diagnoses: list[Diagnosis] | None = Field(
        default=None, description="The same in words, with the remedy; for one call only."
    )
    outcome: str | None = None
    reason: str | None = None
    detail: str | None = None


class EventShape(BaseModel):
    """One event of the log, with its named values."""

    model_config = ConfigDict(extra="allow")
    id: int
    at: float
    level: str
    event: str
    message: str


@dataclass(frozen=True, slots=True)
class CallPage:
    """One page of calls, the newest first."""

    total: int
    calls: list[CallShape]


@dataclass(frozen=True, slots=True)
class AffinityPage:
    """Clients that are remembered: pins, those with calls, then the others."""

    total: int
    entries: list[Remembered]


@dataclass(frozen=True, slots=True)
class EventPage:
    """Events, the oldest first."""

    last: int
    """Number of the latest event there is."""
    events: list[EventShape]


class DriftShape(BaseModel):
    """One value that was changed at run time."""

    path: str
    file: Any
    running: Any


class ChangeShape(BaseModel):
    """One value that the file changes."""

    path: str
    from_: Any = Field(alias="from")
    to: Any


class ConfigShape(BaseModel):
    """The configuration in force."""

    file: str
    effective: dict[str, Any]
    drift: list[DriftShape]


class ReviewShape(BaseModel):
    """What a reload would change, or has changed."""

    problems: list[str] = Field(description="Why the file cannot be used; empty: it can.")
    warnings: list[str]
    changes: list[ChangeShape] = Field(description="In the file, since it was loaded.")
    drift_lost: list[DriftShape] = Field(description="Run-time changes that end with the reload.")


@dataclass(frozen=True, slots=True)
class Saved:
    """What was written to the file."""

    saved: list[DriftShape]


@dataclass(frozen=True, slots=True)
class CertificatePage:
    """The certificates clients are shown, by listener."""

    listeners: dict[str, list[CertificateView]]


@dataclass(frozen=True, slots=True)
class RolloutPage:
    """Where each pool stands whose clients are shown certificates of ours."""

    pools: list[PoolRollout]


@dataclass(frozen=True, slots=True)
class Version:
    """What runs here."""

    version: str
    python: str


@dataclass(frozen=True, slots=True)
class Upgraded:
    """Who has taken over."""

    process: int


@dataclass(frozen=True, slots=True)
class Done:
    """It is done."""

    ok: bool = True


# --- seeing -----------------------------------------------------------------------------------


@router.get("/overview", response_model=Overview, tags=["see"])
async def overview(desk: Desk) -> Response:
    """Everything a page needs, at one moment."""
    return Reply(desk.overview())


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
    total, page = desk.calls(wanted)
    return Reply({"total": total, "calls": page})


@router.get("/calls/{number}", response_model=CallShape, tags=["calls"])
async def call(desk: Desk, number: int) -> Response:
    """One call."""
    return Reply(desk.call(number))


@router.post("/calls/{number}/end", response_model=CallShape, tags=["calls"])
async def end_call(desk: Desk, number: int, given: EndGiven | None = None) -> Response:
    """End a running call."""
    politely = given is not None and given.how == "polite"
    return Reply(await desk.end_call(number, politely=politely))


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
    page, content_type = render(desk.measure(), request.headers.get("accept", ""))
    return Response(page, headers={"Content-Type": content_type})


# --- backends ---------------------------------------------------------------------------------

_BACKEND = "/pools/{pool}/backends/{name}"


@router.post("/pools/{pool}/backends", response_model=BackendView, status_code=201, tags=["pools"])
async def add_backend(desk: Desk, pool: str, given: schema.Backend) -> Response:
    """Add a backend to the running configuration; it is checked at once."""
    return Reply(await desk.add_backend(pool, given), 201)


@router.get(_BACKEND, response_model=BackendView, tags=["pools"])
async def backend(desk: Desk, pool: str, name: str) -> Response:
    """One backend."""
    return Reply(desk.backend(pool, name))


@router.delete(_BACKEND, response_model=Done, tags=["pools"])
async def remove_backend(desk: Desk, pool: str, name: str, *, force: bool = False) -> Response:
    """Take a backend without calls out of its pool; with force its calls are ended."""
    await desk.remove_backend(pool, name, force=force)
    return Reply(Done())


@router.post(_BACKEND + "/standing", response_model=BackendView, tags=["pools"])
async def set_standing(desk: Desk, pool: str, name: str, given: StandingGiven) -> Response:
    """Give the operator's word on a backend."""
    return Reply(await desk.set_standing(pool, name, given.standing, given.deadline_s))


@router.post(_BACKEND + "/weight", response_model=BackendView, tags=["pools"])
async def set_weight(desk: Desk, pool: str, name: str, given: WeightGiven) -> Response:
    """Set a backend's share of calls."""
    return Reply(await desk.set_weight(pool, name, given.weight))


@router.post(_BACKEND + "/calls_max", response_model=BackendView, tags=["pools"])
async def set_calls_max(desk: Desk, pool: str, name: str, given: CallsMaxGiven) -> Response:
    """Set how many calls a backend may have at one time."""
    return Reply(await desk.set_calls_max(pool, name, given.calls_max))


@router.post(_BACKEND + "/check", response_model=BackendView, tags=["pools"])
async def check_now(desk: Desk, pool: str, name: str) -> Response:
    """Check a backend now; the verdict counts like any other."""
    return Reply(await desk.check_now(pool, name))


@router.post(_BACKEND + "/rras_certificate", response_model=BackendView, tags=["pools"])
async def declare(desk: Desk, pool: str, name: str, given: DeclarationGiven) -> Response:
    """Say which certificate an offloaded RRAS was told to accept (Enable-SSTPOffload)."""
    return Reply(await desk.declare(pool, name, given.sha256))


@router.post(_BACKEND + "/bring_back", response_model=BackendView, tags=["pools"])
async def bring_back(desk: Desk, pool: str, name: str) -> Response:
    """Give calls again to a backend that failed ones put aside; counting starts afresh."""
    return Reply(desk.bring_back(pool, name))


# --- listeners --------------------------------------------------------------------------------


@router.post("/listeners/{name}/standing", response_model=ListenerView, tags=["listeners"])
async def set_listener_standing(desk: Desk, name: str, given: ListenerStandingGiven) -> Response:
    """Close a listener to new calls, or open it again."""
    return Reply(await desk.set_listener_standing(name, given.standing, given.deadline_s))


# --- affinity ---------------------------------------------------------------------------------

_CLIENT = "/pools/{pool}/affinity/{client:path}"


@router.get("/pools/{pool}/affinity", response_model=AffinityPage, tags=["affinity"])
async def affinity(desk: Desk, pool: str, limit: Limit = 200) -> Response:
    """Clients that are remembered: pins, those with calls, then the others."""
    total, entries = desk.affinity(pool, limit)
    return Reply({"total": total, "entries": entries})


@router.put(_CLIENT, response_model=Remembered, tags=["affinity"])
async def pin(desk: Desk, pool: str, client: str, given: BackendGiven) -> Response:
    """Pin a client (an address, or its network) to a backend."""
    return Reply(desk.pin(pool, client, given.backend))


@router.delete(_CLIENT, response_model=Done, tags=["affinity"])
async def forget(desk: Desk, pool: str, client: str) -> Response:
    """Forget a client, pinned or not; its calls run on."""
    desk.forget(pool, client)
    return Reply(Done())


# --- configuration and certificates -----------------------------------------------------------


@router.get("/config", response_model=ConfigShape, tags=["configuration"])
async def config(desk: Desk) -> Response:
    """Show the configuration in force, and where it differs from the file."""
    return Reply(
        {
            "file": str(desk.file),
            "effective": desk.config(),
            "drift": [_drift(d.path, d.before, d.after) for d in desk.drift()],
        }
    )


@router.post("/config/check", response_model=ReviewShape, tags=["configuration"])
async def check_config(desk: Desk) -> Response:
    """Read the file, and say what a reload would do."""
    return Reply(_review(await desk.check_config()))


@router.post("/config/reload", response_model=ReviewShape, tags=["configuration"])
async def reload(desk: Desk) -> Response:
    """Put the file in force; a bad one changes nothing."""
    return Reply(_review(await desk.reload()))


@router.post("/config/save", response_model=Saved, tags=["configuration"])
async def save(desk: Desk) -> Response:
    """Write what was changed at run time back to the file; its comments stay."""
    return Reply({"saved": [_drift(d.path, d.before, d.after) for d in await desk.save()]})


@router.get("/certificates", response_model=CertificatePage, tags=["certificates"])
async def certificates(desk: Desk) -> Response:
    """Show the certificates clients are shown."""
    return Reply({"listeners": desk.certificates()})


@router.get("/certificates/rollout", response_model=RolloutPage, tags=["certificates"])
async def certificate_rollout(desk: Desk) -> Response:
    """Show which backend accepts which certificate, how we know, and what to do next."""
    return Reply({"pools": desk.rollout()})


@router.post("/certificates/reload", response_model=CertificatePage, tags=["certificates"])
async def reload_certificates(desk: Desk) -> Response:
    """Read every certificate and key again; new calls see the new ones."""
    return Reply({"listeners": await desk.reload_certificates()})


@router.post("/stop", response_model=Done, status_code=202, tags=["configuration"])
async def stop(desk: Desk, given: StopGiven | None = None) -> Response:
    """Stop the balancer: no new calls, running ones may go on for a while."""
    await desk.stop(None if given is None else given.timeout_s)
    return Reply(Done(), 202)


@router.post("/upgrade", response_model=Upgraded, tags=["configuration"])
async def upgrade(desk: Desk, given: UpgradeGiven | None = None) -> Response:
    """Have a new process take over; this one ends with its last call."""
    return Reply(Upgraded(await desk.upgrade(None if given is None else given.deadline_s)))


@router.put("/log/level", response_model=LevelGiven, tags=["configuration"])
async def set_log_level(desk: Desk, given: LevelGiven) -> Response:
    """Set the least severe level that is written, until a reload."""
    desk.set_log_level(given.level)
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

"""The shapes of the API: what may be sent, and what is answered.

They are the contract: names, units and meaning of every value, judged on the way in and described
in ``/openapi.json``. What a running balancer looks like is in ``control/views.py`` (and
``control/rollout.py``); here is what only the API has, or has otherwise than the program.
"""

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from sstplb.account.causes import Cause, Diagnosis
from sstplb.account.record import Goodbye, PassedOver, Story
from sstplb.config.quantities import DURATION_S_MAX, FILE_BYTES_MIN, Network, Sha256Hex
from sstplb.config.schema import LogLevel, Standing
from sstplb.control.rollout import PoolRollout
from sstplb.control.views import CertificateView, Remembered
from sstplb.net.capture import CaptureState

# --- what is sent -----------------------------------------------------------------------------


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

    timeout_s: Deadline | None = None
    """How long running calls may go on; 0: they are closed at once, also when the balancer is
    stopping already; null: as configured."""


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

    sha256: Sha256Hex | None
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


class CaptureGiven(Given):
    """Which calls to record: those that fit all that is said, and something must be."""

    listener: str | None = None
    """Calls of this listener; TLS must end there."""
    client: Network | None = None
    """Calls from this address or network."""
    call: int | None = None
    """One call that runs; the capture ends with it."""
    seconds_max: Annotated[float, Field(gt=0)] | None = None
    """How long; null, or at most: ``capture.seconds_max``."""
    bytes_max: Annotated[int, Field(ge=FILE_BYTES_MIN)] | None = None
    """How large the file becomes; null, or at most: ``capture.bytes_max``."""


class LevelGiven(Given):
    """The least severe level that is written."""

    level: LogLevel


# --- what is answered -------------------------------------------------------------------------


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
class Begun:
    """The captures that have begun: one for each process that carries calls."""

    captures: list[CaptureState]


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

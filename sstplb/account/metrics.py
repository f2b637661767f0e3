"""What is measured, and under which names: every metric as one row of a table. Pure.

``control/metrics.py`` fills the rows, ``control/admin/exposition.py`` writes them for Prometheus,
``docs/metrics.md`` lists them for people, and a test holds the three together.

Names carry their unit (seconds, bytes); what counts up ends in ``_total`` and never goes down
while the process lives. Labels take few values: listeners, pools and backends by name, outcomes
and reasons by slug; never a client, never a call. The mode is a label of ``sstplb_listener_info``
alone: ``… * on (listener) group_left (mode) sstplb_listener_info`` brings it anywhere.

A call's opening is counted when the client has its 200 (or has failed to get it), not when the
call ends hours later; its bytes are counted while they move.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, StrEnum
from types import MappingProxyType

from sstplb.account.histogram import Distribution
from sstplb.account.record import Outcome

PREFIX = "sstplb_"


class Kind(StrEnum):
    """What a number means."""

    GAUGE = "gauge"
    """As it is now."""
    COUNTER = "counter"
    """Since the process started."""
    HISTOGRAM = "histogram"


@dataclass(frozen=True, slots=True)
class Family:
    """One metric."""

    name: str
    """Without the prefix."""
    kind: Kind
    labels: tuple[str, ...]
    help: str

    @property
    def full_name(self) -> str:
        """The name as it is queried."""
        return PREFIX + self.name


def _gauge(name: str, text: str, *labels: str) -> Family:
    return Family(name, Kind.GAUGE, labels, text)


def _counter(name: str, text: str, *labels: str) -> Family:
    return Family(name, Kind.COUNTER, labels, text)


def _histogram(name: str, text: str) -> Family:
    return Family(name, Kind.HISTOGRAM, ("listener",), text)


_BACKEND = ("pool", "backend")
_CERTIFICATE = ("listener", "name", "sha256")


class Metric(Enum):
    """Every metric, in the order in which they are written."""

    # --- what runs ----------------------------------------------------------------------------
    BUILD = _gauge("build_info", "What runs: always 1.", "version", "python", "engine")
    STARTED = _gauge("start_timestamp_seconds", "When this process started.")
    TOOK_OVER = _gauge("took_over", "1: this process was started by an upgrade.")
    STOPPING = _gauge("stopping", "1: the balancer is on its way out.")
    UPGRADES_FAILED = _counter("upgrades_failed_total", "Upgrades that came to nothing.")
    WORKERS = _gauge("workers", "Processes that are to carry calls; 1: the balancer itself.")
    WORKERS_READY = _gauge("workers_ready", "Processes that can carry calls.")
    WORKER_DEATHS = _counter("worker_deaths_total", "Worker processes that ended unasked.")
    CPU = _counter("cpu_seconds_total", "CPU time: of the balancer, of its workers.", "process")
    MEMORY = _gauge("resident_memory_bytes", "Resident memory.", "process")
    DESCRIPTORS = _gauge("open_descriptors", "Open file descriptors.", "process")
    DESCRIPTORS_MAX = _gauge("descriptors_max", "How many descriptors one process may have open.")
    LOG_EVENTS = _counter("log_events_total", "Lines written to the log.", "level")

    # --- configuration ------------------------------------------------------------------------
    RELOADS = _counter("config_reloads_total", "Reloads of the file: ok, failed.", "result")
    RELOAD_OK = _gauge("config_last_reload_ok", "1: the latest reload is in force.")
    RELOADED = _gauge(
        "config_last_reload_timestamp_seconds",
        "When the file was last read, with success or not; the start counts.",
    )
    DRIFT = _gauge("config_drift_values", "Values that were changed at run time and not saved.")
    CERTIFICATE_RELOADS = _counter(
        "certificate_reloads_total", "Times certificates were read again: ok, failed.", "result"
    )
    CERTIFICATE_RELOAD_OK = _gauge(
        "certificate_last_reload_ok", "0: renewed certificates cannot be used; the old ones are."
    )

    # --- listeners and limits -----------------------------------------------------------------
    LISTENER = _gauge(
        "listener_info", "A listener: always 1.", "listener", "mode", "pool", "address"
    )
    LISTENER_ACCEPTING = _gauge("listener_accepting", "1: it takes calls now.", "listener")
    LISTENER_DRAINING = _gauge(
        "listener_draining", "1: the operator closed it to new calls.", "listener"
    )
    LISTENER_CALLS_MAX = _gauge("listener_calls_max", "Its limit of calls.", "listener")
    CALLS_MAX = _gauge("calls_max", "The limit of calls on all listeners together.")
    OPENINGS = _gauge("calls_opening", "Calls that have no backend yet.")
    OPENINGS_MAX = _gauge("calls_opening_max", "The limit of those.")
    CLIENT_NETWORKS = _gauge("client_networks", "Client networks that have calls.")
    REFUSED = _counter("admission_refused_total", "Calls refused by a limit.", "reason")

    # --- calls --------------------------------------------------------------------------------
    ACCEPTED = _counter("calls_accepted_total", "Connections accepted.", "listener")
    HANDED_OVER = _counter("calls_handed_over_total", "Calls that reached a backend.", "listener")
    RUNNING = _gauge("calls_running", "Calls that are not over.", "listener")
    ENDED = _counter("calls_ended_total", "Calls that are over.", "listener", "outcome", "reason")
    BYTES = _counter(
        "call_bytes_total",
        "Bytes carried, of running calls too; in: client to backend, out: backend to client.",
        "listener",
        "pool",
        "backend",
        "direction",
    )
    PREFACE = _histogram("call_preface_seconds", "Waiting for the PROXY preface.")
    HELLO = _histogram("call_hello_seconds", "Waiting for the ClientHello.")
    TLS = _histogram("call_tls_seconds", "The client's TLS handshake.")
    HEAD = _histogram("call_head_seconds", "Waiting for the head.")
    REACH = _histogram("call_reach_seconds", "Finding the backend that answers.")
    OPENING = _histogram("call_opening_seconds", "From accept until the client has its answer.")
    DURATION = _histogram("call_duration_seconds", "How long calls lasted that reached a backend.")

    # --- backends -----------------------------------------------------------------------------
    BACKEND_UP = _gauge("backend_up", "The checks' word: 1 up, 0 down.", *_BACKEND)
    BACKEND_SET_ASIDE = _gauge(
        "backend_set_aside", "1: failed calls keep new ones away for now.", *_BACKEND
    )
    BACKEND_SPARED = _gauge(
        "backend_spared", "1: set aside, and used all the same: the others do not suffice.",
        *_BACKEND,
    )  # fmt: skip
    BACKEND_STANDING = _gauge(
        "backend_standing", "1 for the operator's word: active, draining, off.", *_BACKEND,
        "standing",
    )  # fmt: skip
    BACKEND_USABLE = _gauge(
        "backend_usable", "1: it can take a call now, of one listener at least.", *_BACKEND
    )
    BACKEND_UNUSABLE = _gauge(
        "backend_unusable", "1 for the first reason why it cannot.", *_BACKEND, "reason"
    )
    BACKEND_CALLS = _gauge("backend_calls_running", "Calls that run on it.", *_BACKEND)
    BACKEND_DIALING = _gauge("backend_calls_dialing", "Calls on their way to it.", *_BACKEND)
    BACKEND_CALLS_MAX = _gauge("backend_calls_max", "The limit of both together.", *_BACKEND)
    BACKEND_HANDED_OVER = _counter(
        "backend_calls_handed_over_total", "Calls that reached it.", *_BACKEND
    )
    BACKEND_FAILURES = _counter(
        "backend_failures_total",
        "Tries that failed, and calls that it failed before it had proved its worth.",
        *_BACKEND,
        "reason",
    )
    BACKEND_WEIGHT = _gauge("backend_weight", "Its share.", *_BACKEND)
    BACKEND_SAME_CERTIFICATE = _gauge(
        "backend_same_certificate",
        "1: its certificate is one that clients are shown; missing: not known, or of no matter.",
        *_BACKEND,
    )
    CHECKS = _counter("backend_checks_total", "Checks: good, bad.", *_BACKEND, "verdict")
    CHECK_SECONDS = _gauge("backend_check_seconds", "How long the last check took.", *_BACKEND)
    CHECKED = _gauge("backend_check_timestamp_seconds", "When it was last checked.", *_BACKEND)
    FLIPS = _counter(
        "backend_flips_total",
        "Changes of mind: up, down, still_down (for another reason), set_aside, back.",
        *_BACKEND,
        "kind",
    )

    # --- affinity -----------------------------------------------------------------------------
    AFFINITY_ENTRIES = _gauge(
        "affinity_entries", "Clients remembered, those included that avoid a backend.", "pool"
    )
    AFFINITY_ENTRIES_MAX = _gauge("affinity_entries_max", "The limit of those.", "pool")
    AFFINITY_PINS = _gauge("affinity_pins", "Clients pinned by the operator.", "pool")
    AFFINITY_LOOKUPS = _counter(
        "affinity_lookups_total", "Calls whose client was remembered (hit), or not (miss).",
        "pool", "result",
    )  # fmt: skip
    AFFINITY_MOVED = _counter(
        "affinity_moved_total", "Calls that went to another backend than remembered.", "pool"
    )
    AFFINITY_EXPIRED = _counter("affinity_expired_total", "Clients forgotten in time.", "pool")
    AFFINITY_EVICTED = _counter(
        "affinity_evicted_total", "Clients forgotten because the table was full.", "pool"
    )

    # --- certificates -------------------------------------------------------------------------
    NOT_AFTER = _gauge(
        "certificate_not_after_timestamp_seconds",
        "When a certificate expires that clients are shown.",
        *_CERTIFICATE,
    )
    CERTIFICATE_BACKENDS = _gauge(
        "certificate_backends", "Backends known to have or expect that very one.", *_CERTIFICATE
    )
    ADMIN_NOT_AFTER = _gauge(
        "admin_certificate_not_after_timestamp_seconds",
        "When a certificate of the admin side expires.",
        "name",
        "sha256",
    )

    @property
    def family(self) -> Family:
        """Its row."""
        found: Family = self.value
        return found


# Bounds in seconds. What waits for a client or a backend is over in milliseconds when all is well
# and ends by a timeout, ten seconds or so, when it is not; calls last from seconds to days.
_STEP = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_HOUR = 3600.0

BOUNDS_S: Mapping[Metric, tuple[float, ...]] = MappingProxyType(
    {
        Metric.PREFACE: _STEP,
        Metric.HELLO: _STEP,
        Metric.TLS: _STEP,
        Metric.HEAD: _STEP,
        Metric.REACH: (*_STEP, 30.0),
        Metric.OPENING: (*_STEP, 30.0, 60.0),
        Metric.DURATION: (
            1.0, 10.0, 60.0, 300.0, 900.0, 0.5 * _HOUR, _HOUR, 2 * _HOUR, 4 * _HOUR, 8 * _HOUR,
            12 * _HOUR, 24 * _HOUR, 72 * _HOUR,
        ),
    }
)  # fmt: skip

STEPS: Mapping[str, Metric] = MappingProxyType(
    {
        "preface_s": Metric.PREFACE,
        "hello_s": Metric.HELLO,
        "tls_s": Metric.TLS,
        "head_s": Metric.HEAD,
        "reach_s": Metric.REACH,
    }
)
"""The steps of an opening, by their names in ``record.Phases``."""

SHOWN_FROM_THE_START: tuple[tuple[Outcome, str], ...] = (
    (Outcome.COMPLETED, "disconnected_by_client"),
    (Outcome.COMPLETED, "client_ended"),
    (Outcome.REFUSED, "no_backend_available"),
    (Outcome.REFUSED, "internal_error"),
    (Outcome.CLIENT_FAILED, "client_certificate_hash_mismatch"),
    (Outcome.BACKEND_FAILED, "binding_refused"),
    (Outcome.BACKEND_FAILED, "certificate_mismatch"),
    (Outcome.CLOSED, "worker_died"),
)
"""Endings that alarms are made of: counted from 0, or their first would be no increase."""


class Measured:
    """The values of all metrics at one moment."""

    def __init__(self) -> None:
        self.values: dict[Metric, dict[tuple[str, ...], float | Distribution]] = {
            metric: {} for metric in Metric
        }
        """By metric, then by the values of its labels."""

    def put(self, metric: Metric, value: float | Distribution, *labels: str) -> None:
        """Set one value; ``labels`` in the order of the metric's row."""
        assert len(labels) == len(metric.family.labels), f"{metric}: {labels}"
        self.values[metric][labels] = value

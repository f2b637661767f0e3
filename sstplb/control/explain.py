"""``sstplb explain``: what became of one call, from every log that tells of it.

A call is found by its number or its correlation id, in the running balancer (over its API) or in a
JSON log file. Exported event logs of Windows, the client's and the server's, are joined by the
correlation id. What comes out is one table on one time line, the diagnosis, and the remedy.

The times of a Windows machine are those of its own clock: a little before or after ours means
nothing.
"""

import json
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from sstplb.account.causes import Cause, Diagnosis, Later
from sstplb.account.diagnosis import diagnose
from sstplb.account.exposition import goodbyes
from sstplb.account.windows import (
    CODES,
    WindowsEvent,
    canonical,
    is_correlation_id,
    shown_code,
)
from sstplb.control.views import LATER_S
from sstplb.control.windows_log import read_events
from sstplb.errors import AskError, BadRequestError, UnknownThingError

LINE_BYTES_MAX = 1 << 20
DOWNS_KEPT = 1000
CALLS_LISTED = 5000
"""As many as the API lists at once: more than it keeps."""
_PHASES = ("preface", "hello", "tls", "head")
_DOWN = ("backend_down",)


class Asked(Protocol):
    """The API of a running balancer."""

    def get(self, *path: str, **query: str | int | None) -> Any:
        """Return what it answers."""


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the table."""

    at: float
    """Seconds since 1970."""
    who: str
    what: str


@dataclass(frozen=True, slots=True)
class Known:
    """One call, as its log line tells it, with what else is needed to judge it."""

    fields: Mapping[str, Any]
    started_at: float
    lines: tuple[Line, ...]
    diagnoses: tuple[Diagnosis, ...]


@dataclass(frozen=True, slots=True)
class Explained:
    """Everything there is to say of a call."""

    wanted: str
    call: Known | None
    """None: it never came to us, but Windows' events tell of it."""
    events: tuple[WindowsEvent, ...]

    @property
    def codes(self) -> tuple[int, ...]:
        """The error numbers in Windows' events that can be put into words."""
        return tuple(dict.fromkeys(code for event in self.events for code in event.codes))

    @property
    def lines(self) -> list[Line]:
        """The table, in the order of time."""
        ours = list(self.call.lines) if self.call is not None else []
        theirs = [Line(e.at, _machine(e), _event_in_words(e)) for e in self.events]
        return sorted([*ours, *theirs], key=lambda line: line.at)


def from_api(api: Asked, wanted: str) -> Known | None:
    """Find a call in the running balancer; None: it is not there. Raises what asking raises."""
    if is_correlation_id(wanted):
        page = api.get("calls", limit=CALLS_LISTED, text=canonical(wanted))
        theirs = (c for c in page["calls"] if c.get("correlation_id") == canonical(wanted))
        if (latest := next(theirs, None)) is None:
            return None
        number = latest["id"]
    else:
        number = _number(wanted)
    try:
        shown = api.get("calls", str(number))
    except AskError as error:
        if error.reason == UnknownThingError.reason:
            return None
        raise
    diagnoses = tuple(
        Diagnosis(Cause(d["cause"]), d["sentence"], d["remedy"], tuple(d["evidence"]))
        for d in shown.get("diagnoses", ())
    )
    return Known(shown, shown["started_at"], tuple(lines_of_view(shown)), diagnoses)


def from_log(path: Path, wanted: str) -> Known | None:
    """Find a call in a JSON log, the latest that fits; None: it is not there.

    Raises OSError, or BadRequestError when no line of the file is JSON.
    """
    by_id = is_correlation_id(wanted)
    key, value = ("correlation_id", canonical(wanted)) if by_id else ("call", _number(wanted))
    found: dict[str, Any] | None = None
    downs: deque[tuple[float, Later]] = deque(maxlen=DOWNS_KEPT)
    is_log = False
    for line in _log_lines(path):
        is_log = True
        event = line.get("event")
        if event in _DOWN:
            reason = str(line.get("reason", ""))
            downs.append((_seconds(line), Later(str(line.get("backend")), reason)))
        elif event == "call_ended":
            said = line.get(key)
            if said == value or (by_id and canonical(str(said)) == value):
                found = line
    if not is_log:
        raise _no_log(path)
    if found is None:
        return None
    ended_at, duration_s = _seconds(found), float(found.get("duration_s", 0.0))
    started_at = ended_at - duration_s
    later = [down for at, down in downs if started_at <= at <= ended_at + LATER_S]
    lines = tuple(_lines_of_log(found, started_at))
    return Known(found, started_at, lines, diagnose(found, later))


def explain(
    wanted: str, call: Known | None, exports: Sequence[Path] = (), where: str = "the balancer"
) -> Explained:
    """Join a call with what Windows' exported logs tell of it.

    Raises UnknownThingError when nobody knows it, WindowsLogError, or OSError.
    """
    correlation_id = canonical(wanted) if is_correlation_id(wanted) else ""
    if call is not None:
        correlation_id = canonical(str(call.fields.get("correlation_id") or correlation_id))
    events: list[WindowsEvent] = []
    if exports and not correlation_id:
        raise BadRequestError(
            f"call {wanted} has no correlation id to join Windows' events by: its client sent none"
        )
    for path in exports:
        events += read_events(path, lambda event: correlation_id in event.correlation_ids)
    if call is None and not events:
        hint = "" if exports else "; its line may be in the log file: --log FILE"
        raise UnknownThingError(f"{where} knows no call {wanted}{hint}", f"calls.{wanted}")
    return Explained(wanted, call, tuple(sorted(events, key=lambda event: event.at)))


def _number(wanted: str) -> int:
    if not (wanted.isascii() and wanted.isdigit()):
        raise BadRequestError(
            f"expected the number of a call, or a correlation id such as "
            f"{{0D528CAC-464E-423A-A399-9470E234BC54}}, got {wanted!r}"
        )
    return int(wanted)


def _log_lines(path: Path) -> Iterator[dict[str, Any]]:
    with path.open("rb") as file:
        while raw := file.readline(LINE_BYTES_MAX):
            if len(raw) == LINE_BYTES_MAX:
                raise _no_log(path)
            try:
                line = json.loads(raw)
            except ValueError:
                continue  # another program's
            if isinstance(line, dict) and "event" in line:
                yield line


def _no_log(path: Path) -> BadRequestError:
    return BadRequestError(f"{path}: expected a log in JSON (log.format: json), one event a line")


def _seconds(line: Mapping[str, Any]) -> float:
    try:
        moment = datetime.fromisoformat(str(line.get("timestamp")))
    except ValueError:
        return 0.0
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


# --- the table ------------------------------------------------------------------------------------

_STEPS = (
    ("connect_request", "asks for PPP (CALL_CONNECT_REQUEST)"),
    ("connect_ack", "takes the call (CALL_CONNECT_ACK)"),
    ("connect_nak", "does not take the call (CALL_CONNECT_NAK)"),
    ("lcp", "begins PPP (LCP)"),
    ("lcp_open", "agrees on the link (LCP open)"),
    ("authentication", "begins authentication"),
    ("authenticated", "believes the user"),
    ("not_authenticated", "does not believe the user"),
    ("connected", "sends its crypto binding (CALL_CONNECTED)"),
    ("ipcp", "asks for addresses (IPCP)"),
    ("address", "assigns the address"),
    ("data_from_client", "sends the first data"),
    ("data_from_backend", "sends the first data"),
    ("ppp_ended", "ends PPP (Terminate-Request)"),
    ("disconnect", "hangs up (CALL_DISCONNECT)"),
    ("disconnect_ack", "agrees to hang up (CALL_DISCONNECT_ACK)"),
    ("abort", "aborts (CALL_ABORT)"),
    ("malformed", "sends a PPP frame that cannot be read"),
)
_BY_CLIENT = frozenset({"connect_request", "connected", "data_from_client"})
_BY_BACKEND = frozenset(
    {
        "connect_ack", "connect_nak", "authentication", "authenticated", "not_authenticated",
        "address", "data_from_backend",
    }
)  # fmt: skip


def lines_of_view(shown: Mapping[str, Any]) -> Iterator[Line]:
    """Yield what the API's answer tells of a call, in the order of time."""
    started_at = shown["started_at"]
    tries = [(t["backend"], t["reason"], t["why"], t["seconds"]) for t in shown["tries"]]
    yield from _beginning(shown, started_at, tries)
    for moment in (shown.get("story") or {}).get("moments", ()):
        what = _step_in_words(moment["step"], moment["detail"], shown)
        yield Line(started_at + moment["at_s"], moment["side"], what)
    if shown["state"] == "ended":
        yield from _end(shown, started_at)


def _lines_of_log(line: Mapping[str, Any], started_at: float) -> Iterator[Line]:
    reasons = [text.rpartition(":")[::2] for text in line.get("tries", ())]
    words = [*line.get("tries_why", ()), *([""] * len(reasons))]
    tries = [(name, reason, words[n], 0.0) for n, (name, reason) in enumerate(reasons)]
    yield from _beginning(line, started_at, tries)
    details = line.get("step_details", {})
    for step, at_s in line.get("steps", {}).items():
        side = "client" if step in _BY_CLIENT else "backend" if step in _BY_BACKEND else ""
        yield Line(started_at + at_s, side, _step_in_words(step, details.get(step, ""), line))
    yield from _end(line, started_at)


def _beginning(
    fields: Mapping[str, Any], at: float, tries: Iterable[tuple[str, str, str, float]]
) -> Iterator[Line]:
    """Yield the steps before the 200; their times add up."""
    yield Line(at, "client", f"connects from {fields['client']} to {fields['listener']}")
    name, offered = fields.get("server_name") or "no server name", fields.get("tls_offered")
    said = {
        "preface": "is named by a proxy (PROXY preface)",
        "hello": f"asks for {name} (ClientHello{f', up to {offered}' if offered else ''})",
        "tls": f"TLS is up: {fields.get('tls_version')}, {fields.get('cipher')}",
        "head": f"opens the call, {fields.get('correlation_id') or 'without a correlation id'}",
    }
    for phase in _PHASES:
        seconds = fields.get(f"{phase}_s")
        if seconds is not None:
            at += seconds
            yield Line(at, "client", said[phase])
    tried_at = at
    for backend, reason, why, seconds in tries:
        tried_at += seconds
        if reason:
            yield Line(tried_at, "balancer", f"{backend} was asked in vain ({reason}): {why}")
    for passed in fields.get("passed_over") or ():
        told = passed if isinstance(passed, str) else f"{passed['backend']}:{passed['reason']}"
        yield Line(tried_at, "balancer", f"{told.replace(':', ' is no candidate: ')}")
    reach_s = fields.get("reach_s")
    if reach_s is not None:
        yield Line(at + reach_s, "balancer", f"{fields.get('backend')} has the call")


def _end(fields: Mapping[str, Any], started_at: float) -> Iterator[Line]:
    moved = f"{fields.get('bytes_in', 0)} bytes in, {fields.get('bytes_out', 0)} out"
    who = fields.get("ended_by") or "balancer"
    parts = (
        f"ends it: {fields.get('outcome')} ({fields.get('reason')}), {moved}",
        fields.get("detail") or "",
        goodbyes(fields.get("client_goodbye"), fields.get("backend_goodbye")),
    )
    what = " · ".join(part for part in parts if part)
    yield Line(started_at + fields.get("duration_s", 0.0), who, what)


def _step_in_words(step: str, detail: str, fields: Mapping[str, Any]) -> str:
    words = dict(_STEPS).get(step, step)
    if step == "authentication" and (user := fields.get("user")):
        computer = fields.get("computer")
        words += f" of {user}" + (f" at {computer}" if computer else "")
    elif step == "address":
        words += f" {fields.get('address') or '(hidden)'}"
    return f"{words}: {detail}" if detail else words


def _machine(event: WindowsEvent) -> str:
    return event.computer.partition(".")[0] or "Windows"


def _event_in_words(event: WindowsEvent) -> str:
    title = f" {event.title}" if event.title else ""
    codes = "".join(f" · {shown_code(code)}: {CODES[code].words}" for code in event.codes)
    text = " ".join(event.text.split())[:200]
    return f"[{event.provider} {event.number}]{title}{codes} · {text}"


# --- showing --------------------------------------------------------------------------------------


def as_json(explained: Explained) -> dict[str, Any]:
    """Return everything as plain values."""
    call = explained.call
    return {
        "wanted": explained.wanted,
        "call": None if call is None else dict(call.fields),
        "timeline": [
            {"at": _iso(line.at), "who": line.who, "what": line.what} for line in explained.lines
        ],
        "diagnoses": [
            {
                "cause": str(d.cause),
                "sentence": d.sentence,
                "remedy": d.remedy,
                "evidence": list(d.evidence),
            }
            for d in (call.diagnoses if call is not None else ())
        ],
        "windows": [
            {"code": shown_code(code), "words": CODES[code].words, "remedy": CODES[code].remedy}
            for code in explained.codes
        ],
    }


def as_text(explained: Explained) -> Iterator[RenderableType]:
    """Yield everything for people, part by part."""
    lines = explained.lines
    began = explained.call.started_at if explained.call is not None else lines[0].at
    yield Text(f"call {explained.wanted}, from {_iso(began)} on", style="bold")
    yield timeline(lines, began)
    yield Text("")
    yield from _verdict(explained)


def timeline(lines: Iterable[Line], began: float) -> Table:
    """Return lines as a table, their times counted from ``began``."""
    table = Table(box=None, pad_edge=False)
    table.add_column("time", justify="right", style="cyan")
    table.add_column("who")
    table.add_column("what", overflow="fold")
    for line in lines:
        moment = f"{(line.at - began) * 1000:+.1f} ms"
        table.add_row(moment, Text(line.who), Text(line.what))  # a client wrote it: no markup
    return table


def _verdict(explained: Explained) -> Iterator[Text]:
    call = explained.call
    if call is None:
        yield Text("No call with this id came to us: it failed before, or went elsewhere.")
    elif not call.diagnoses:
        yield Text("Nothing wrong is seen from here.", style="green")
    for found in call.diagnoses if call is not None else ():
        yield Text(f"cause   {found.sentence} [{found.cause}]", style="red")
        for fact in found.evidence:
            yield Text(f"        {fact}")
        yield Text(f"remedy  {found.remedy}", style="green")
    for code in explained.codes:
        known = CODES[code]
        yield Text(f"Windows says {shown_code(code)}: {known.words}", style="red")
        yield Text(f"remedy  {known.remedy}", style="green")


def _iso(at: float) -> str:
    whole = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(at))
    return f"{whole}.{int(at % 1 * 1000):03d}Z"

"""What the API answers, as tables for people (rich). Pure: JSON in, renderables out.

Colour only repeats what a word says already. Columns that are cut by a narrow terminal are the
ones that explain; names, states and counts stay whole.
"""

import time
from collections.abc import Iterator, Mapping
from datetime import datetime
from types import MappingProxyType
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from sstplb.account.exposition import format_bytes
from sstplb.control.ctl.names import Overview, backends_of
from sstplb.control.ctl.sheet import Sheet, ago, facts, milliseconds, moment, seconds
from sstplb.control.explain import lines_of_view, timeline

Shown = dict[str, Any]
"""One object of the API."""

LAST_SEEN = "last_seen"
"""How a certificate is known that a backend had before it went down."""
DAYS_LEFT_WARNING = 30
STYLES: Mapping[str, str] = MappingProxyType(
    {
        "up": "green", "active": "green", "accepting": "green", "completed": "green",
        "running": "green", "same": "green",
        "draining": "yellow", "set aside": "yellow", "warning": "yellow", "refused": "yellow",
        "closed": "yellow", "client_failed": "yellow",
        "down": "bold red", "off": "dim", "error": "bold red", "backend_failed": "bold red",
        "another": "bold red",
    }
)  # fmt: skip
"""Of words that are states."""


def state(word: str) -> Text:
    """Return a state in its colour."""
    return Text(word, STYLES.get(word, ""))


# --- the whole --------------------------------------------------------------------------------


def status(overview: Overview, drift: list[Shown]) -> Group:
    """Show the balancer at one moment."""
    parts: list[RenderableType] = [head(overview), Text(), listeners(overview), Text()]
    parts.append(backends(overview))
    if drift:
        count = f"{len(drift)} value differs" if len(drift) == 1 else f"{len(drift)} values differ"
        parts += [Text(), Text(f"{count} from the file: sstplb ctl drift", "yellow")]
    return Group(*parts)


def head(overview: Overview) -> Text:
    """Show what runs, and its totals, in two lines."""
    totals, cost = overview["totals"], overview["cost"]
    workers = overview["workers"]
    up = ago(overview["now_at"] - overview["started_at"])
    text = Text(f"sstplb {overview['version']}", "bold")
    crew = f"{workers} workers" if workers > 1 else "one process"
    text.append(f" · up {up} · {crew} · {overview['config_file']}", "not bold")
    if overview["draining"]:
        text.append(" · stopping: no new calls", "bold yellow")
    text.append(f"\n{totals['running']} calls running, {totals['opened']} in all", "not bold")
    outcomes = [f"{count} {name}" for name, count in totals["outcomes"].items() if count]
    if outcomes:
        text.append(f" ({', '.join(outcomes)})", "not bold")
    moved = f"{format_bytes(totals['bytes_in'])} in, {format_bytes(totals['bytes_out'])} out"
    text.append(f" · {moved}", "not bold")
    if cost["cpu_s_per_gb"] is not None:
        text.append(f" · {cost['cpu_s_per_gb']:.2f} CPU s/GB{_by_mode(cost['modes'])}", "not bold")
    return text


def _by_mode(modes: list[Shown]) -> str:
    """Say what each mode costs, where there are several and it is known."""
    known = [m for m in modes if m["cpu_s_per_gb"] is not None]
    if len(modes) < 2 or not known:
        return ""
    costs = [f"{mode['mode']} {mode['cpu_s_per_gb']:.2f}" for mode in known]
    return f" ({', '.join(costs)})"


def listeners(overview: Overview) -> Sheet:
    """Show every listener."""
    sheet = Sheet(
        "LISTENER", "?ADDRESS", "MODE", "?POOL", ">CALLS", "STATE", ">IN", ">OUT", "*CERTIFICATE"
    )
    for shown in overview["listeners"]:
        sheet.add(
            shown["name"],
            shown["address"],
            shown["mode"],
            shown["pool"],
            f"{shown['calls']}/{shown['calls_max']}",
            state(listener_state(shown)),
            format_bytes(shown["bytes_in"]),
            format_bytes(shown["bytes_out"]),
            _days(shown["certificates"]),
        )
    return sheet


def listener_state(shown: Shown) -> str:
    """Return the one word for a listener."""
    if shown["standing"] == "draining":
        return "draining"
    return "accepting" if shown["accepting"] else "closed"


def backends(overview: Overview, only_pool: str | None = None) -> Sheet:
    """Show every backend, or a pool's."""
    sheet = Sheet(
        "BACKEND",
        "?ADDRESS",
        "STANDING",
        "HEALTH",
        ">CALLS",
        ">?TOTAL",
        ">?WEIGHT",
        "?CERT",
        "*WHY",
    )
    for name, shown in backends_of(overview).items():
        if only_pool in (None, name.pool):
            sheet.add(
                str(name),
                shown["address"],
                state(shown["standing"]),
                state(health(shown)),
                calls_of(shown),
                str(shown["calls_total"]),
                "backup" if shown["backup"] else str(shown["weight"]),
                state(_same(shown)),
                why(shown, overview["now_at"]),
            )
    return sheet


def health(shown: Shown) -> str:
    """Return the one word for how a backend is."""
    if shown["standing"] == "off":
        return "-"  # nobody asks
    return "set aside" if shown["health"] == "up" and shown["set_aside"] else str(shown["health"])


def calls_of(shown: Shown) -> str:
    """Return a backend's calls, of how many, and those on their way."""
    more = f" +{shown['dialing']}" if shown["dialing"] else ""
    return f"{shown['calls']}/{shown['calls_max']}{more}"


def why(shown: Shown, now_at: float) -> str:
    """Return why a backend gets no calls, or none that can work; empty while all is well."""
    because = shown["unusable_because"]
    other = "it has another certificate than clients are shown"
    if because is None:
        is_other = shown["same_certificate"] is False
        return f"{other}; calls go there all the same" if is_other else ""
    if because == "certificate_mismatch":
        return other
    since = f", for {ago(now_at - shown['since_at'])}" if because == "down" else ""
    reason = shown["health_reason"] if because in ("down", "set_aside") else ""
    word = because.replace("_", " ")
    return f"{word}{since}: {reason}" if reason else f"{word}{since}"


def backend(name: str, shown: Shown) -> Group:
    """Show one backend, with its last check word by word."""
    rows = [
        ("address", shown["address"]),
        ("standing", _standing(shown)),
        ("health", f"{health(shown)} since {moment(shown['since_at'])}"),
        ("calls", f"{calls_of(shown)}{ends_at(shown)}, {shown['calls_total']} in all"),
        ("weight", f"{shown['weight']}{', backup' if shown['backup'] else ''}"),
        ("usable", "yes" if shown["usable"] else f"no: {why(shown, time.time())}"),
        ("certificate", f"{shown['certificate_sha256'] or 'not known'} ({_known(shown)})"),
    ]
    if shown["failures"]:
        failures = [f"{count} {reason}" for reason, count in shown["failures"].items()]
        rows.append(("failures", ", ".join(failures)))
    if shown["set_aside_until_at"] is not None:
        rows.append(("set aside", f"until {moment(shown['set_aside_until_at'])}"))
    parts: list[RenderableType] = [Text(name, "bold"), facts(rows)]
    check = shown["last_check"]
    if check is not None:
        verdict = "well" if check["ok"] else "not well"
        said = f": {check['reason']}" if check["reason"] else ""
        title = f"\nlast check, {moment(check['at'])}, {milliseconds(check['seconds'])}: {verdict}"
        parts += [Text(title + said), *_indented(check["transcript"])]
    return Group(*parts)


def ends_at(shown: Shown) -> str:
    """Say when the calls of what drains are ended; empty: they may run on."""
    return "" if shown["deadline_at"] is None else f", ended at {moment(shown['deadline_at'])}"


def told(name: str, shown: Shown) -> Text:
    """Say in one line how a backend is now."""
    parts = [f"{name} is {shown['standing']}", f"health {health(shown)}"]
    parts += [f"{calls_of(shown)} calls{ends_at(shown)}", f"weight {shown['weight']}"]
    if shown["standing"] != shown["standing_in_file"]:
        parts.append("to keep it over a restart: sstplb ctl save")
    return Text(", ".join(parts))


# --- calls ------------------------------------------------------------------------------------


def calls(page: Shown) -> Group:
    """Show a page of calls."""
    sheet = calls_sheet("STATE")
    for shown in page["calls"]:
        sheet.add(*call_row(shown))
    count, total = len(page["calls"]), page["total"]
    rest = f"{count} of {total}" if count < total else f"{total}"
    return Group(sheet, Text(f"{rest} calls", "dim"))


def calls_sheet(last: str) -> Sheet:
    """Return an empty table for calls; ``last``: what its last column is called."""
    return Sheet(
        ">CALL", "CLIENT", "?USER", "?LISTENER", "BACKEND", "?STARTED", ">DURATION", ">IN", ">OUT",
        f"*{last}", is_cut=True,
    )  # fmt: skip


def call_row(shown: Shown) -> list[str | Text]:
    """Return a call's cells."""
    word = state(shown.get("outcome", "running"))
    return [
        str(shown["id"]),
        shown["client"],
        Text(shown.get("user", "-")),  # a client wrote it: no markup
        shown["listener"],
        shown.get("backend", "-"),
        moment(shown["started_at"]),
        seconds(shown["duration_s"]),
        format_bytes(shown["bytes_in"]),
        format_bytes(shown["bytes_out"]),
        Text.assemble(word, f" {shown['reason']}" if "reason" in shown else ""),
    ]


def call(shown: Shown) -> Group:
    """Show one call: who, and its steps so far."""
    known = (
        "user", "computer", "address", "authentication", "correlation_id", "tenant_id",
        "server_name", "tls_version", "cipher", "pool", "backend",
    )  # fmt: skip
    state_of = shown.get("outcome", "running")
    rows = [
        ("client", shown["client"]),
        ("listener", f"{shown['listener']} ({shown['mode']})"),
        *((name.replace("_", " "), shown[name]) for name in known if name in shown),
        ("started", moment(shown["started_at"])),
        ("duration", seconds(shown["duration_s"])),
        ("bytes", f"{format_bytes(shown['bytes_in'])} in, {format_bytes(shown['bytes_out'])} out"),
    ]
    if "packets_in" in shown and "packets_out" in shown:
        rows.append(("packets", f"{shown['packets_in']} in, {shown['packets_out']} out"))
    parts: list[RenderableType] = [
        Text.assemble((f"call {shown['id']} ", "bold"), state(state_of)),
        facts(rows),
    ]
    phases = {name: value for name, value in shown["phases"].items() if value is not None}
    if phases:
        times = [f"{name.removesuffix('_s')} {seconds(value)}" for name, value in phases.items()]
        parts.append(Text(f"phases: {', '.join(times)}"))
    return Group(*parts, timeline(lines_of_view(shown), shown["started_at"]))


# --- events -----------------------------------------------------------------------------------


def event(shown: Shown) -> Text:
    """Show an event as the log does."""
    level = str(shown["level"])
    clock = datetime.fromtimestamp(shown["at"]).astimezone()
    return Text.assemble(
        (f"{clock:%H:%M:%S} ", "dim"),
        (f"{level:<7} ", STYLES.get(level, "")),
        f"{shown['event']:<20} {shown['message']}",
    )


# --- configuration ----------------------------------------------------------------------------


def drift(differences: list[Shown]) -> RenderableType:
    """Show what was changed at run time."""
    if not differences:
        return Text("what runs is what the file says")
    table = Sheet("PATH", "FILE", "*RUNNING")
    for shown in differences:
        table.add(shown["path"], _value(shown["file"]), _value(shown["running"]))
    return table


def review(shown: Shown, *, is_done: bool) -> Group:
    """Show what a reload would change, or has changed."""
    parts: list[RenderableType] = []
    if shown["changes"]:
        table = Sheet("CHANGED IN THE FILE", "FROM", "*TO")
        for change in shown["changes"]:
            table.add(change["path"], _value(change["from"]), _value(change["to"]))
        parts.append(table)
    if shown["drift_lost"]:
        ends = "ENDED" if is_done else "ENDS"
        table = Sheet(f"RUN-TIME CHANGE THAT {ends}", "WAS" if is_done else "IS", "*FILE")
        for lost in shown["drift_lost"]:
            table.add(lost["path"], _value(lost["running"]), _value(lost["file"]))
        parts.append(table)
    if not parts:
        parts.append(Text("nothing differs from what runs"))
    return Group(*parts)


def certificates(page: Shown, overview: Overview) -> Group:
    """Show the certificates clients are shown, and which backends have the same."""
    parts: list[RenderableType] = []
    for listener, served in page["listeners"].items():
        for shown in served:
            rows = [
                ("names", ", ".join(shown["names"]) or "none"),
                ("expires", _expiry(shown)),
                ("SHA-256", shown["sha256"].upper()),
                ("SHA-1", shown["sha1"].upper()),
            ]
            parts += [Text(f"{listener}: {shown['subject']}", "bold"), facts(rows)]
    for name, shown in backends_of(overview).items():
        if shown["same_certificate"] is not None:
            word = "has the same" if shown["same_certificate"] else "has another: no call can work"
            style = "" if shown["same_certificate"] else "bold red"
            parts.append(Text(f"{name} {word} ({shown['certificate_sha256'].upper()})", style))
        elif shown["certificate_source"] == LAST_SEEN:
            text = "is down, and was last seen with"
            parts.append(Text(f"{name} {text} {shown['certificate_sha256'].upper()}", "yellow"))
    return Group(*parts) if parts else Group(Text("no listener ends TLS"))


def rollout(page: Shown) -> Group:
    """Show which backend accepts which certificate, how we know, and what is next."""
    parts: list[RenderableType] = []
    for pool in page["pools"]:
        parts.append(Text(f"{pool['pool']} ({pool['mode']})", "bold"))
        words = {}
        for number, shown in enumerate(pool["certificates"], 1):
            word = "newest" if shown["newest"] else "old"
            words[shown["sha256"]] = word
            accepted = ", ".join(shown["accepted_by"]) or "no backend"
            rows = [
                (f"{number} {word}", f"{shown['subject']} for {', '.join(shown['names'])}"),
                ("expires", _expiry(shown)),
                ("SHA-256", shown["sha256"].upper()),
                ("accepted by", accepted),
            ]
            parts += [facts(rows), Text()]
        table = Sheet("BACKEND", "STANDING", ">CALLS", "ACCEPTS", "KNOWN BY", "*NEXT")
        for shown in pool["backends"]:
            sha256 = shown["sha256"]
            accepts = "?" if sha256 is None else words.get(sha256, "not ours")
            table.add(
                shown["name"], state(shown["standing"]), str(shown["calls"]), accepts,
                shown["source"], shown["next_step"],
            )  # fmt: skip
        parts += [table, Text(), Text(pool["next_step"], "green" if pool["done"] else "yellow")]
    return Group(*parts) if parts else Group(Text("no listener ends TLS"))


def affinity(pool: str, page: Shown) -> Group:
    """Show the clients a pool remembers."""
    table = Sheet("CLIENT", "BACKEND", "PINNED", "*FORGOTTEN IN")
    for shown in page["entries"]:
        left = shown["expires_in_s"]
        expires = "-" if left is None else ago(left)
        table.add(shown["client"], shown["backend"], "pinned" if shown["pinned"] else "", expires)
    count, total = len(page["entries"]), page["total"]
    rest = f"{count} of {total}" if count < total else f"{total}"
    return Group(table, Text(f"{pool}: {rest} clients", "dim"))


def captures(page: Shown) -> Group:
    """Show the captures that run, and the files there are."""
    directory = page["directory"]
    if directory is None:
        return Group(Text("captures are not allowed: set capture.directory, and reload"))
    parts: list[RenderableType] = []
    if page["running"]:
        parts += [running_captures(page["running"]), Text()]
    names = {shown["name"] for shown in page["running"]}
    files = [shown for shown in page["files"] if shown["name"] not in names]
    if files:
        table = Sheet("FILE", ">SIZE", "LAST WRITTEN", "*ABOUT")
        for shown in files:
            size = format_bytes(shown["bytes"])
            table.add(shown["name"], size, moment(shown["written_at"]), shown["about"])
        parts += [table, Text()]
    count = f"{len(page['running'])} run, {len(files)} have ended"
    return Group(*parts, Text(f"{directory}: {count}", "dim"))


def running_captures(running: list[Shown]) -> "Sheet":
    """Show captures that run."""
    table = Sheet("CAPTURE", ">CALLS", ">FRAMES", ">SIZE", ">ENDS IN", "*RECORDS")
    for shown in running:
        secrets = ", secrets too" if shown["with_secrets"] else ""
        table.add(
            shown["name"], str(shown["calls"]), str(shown["frames"]),
            f"{format_bytes(shown['bytes'])}/{format_bytes(shown['bytes_max'])}",
            ago(shown["ends_at"] - time.time()), f"{shown['chosen']}{secrets}",
        )  # fmt: skip
    return table


def ended_captures(ended: list[Shown]) -> Group:
    """Show captures that were ended."""
    lines = (
        f"{shown['name']} has ended: {shown['frames']} frames of {shown['calls']} calls, "
        f"{format_bytes(shown['bytes'])}"
        for shown in ended
    )
    return Group(*(Text(line) for line in lines)) if ended else Group(Text("no capture runs"))


# --- words for what stands in a cell -------------------------------------------------------------


def _standing(shown: Shown) -> str:
    filed = shown["standing_in_file"]
    if filed == shown["standing"]:
        return str(shown["standing"])
    return (
        f"{shown['standing']} (the file {'does not name it' if filed is None else f'says {filed}'})"
    )


def _same(shown: Shown) -> str:
    return {True: "same", False: "another", None: "-"}[shown["same_certificate"]]


def _known(shown: Shown) -> str:
    """Say what is known of a backend's certificate."""
    return "when it was last seen" if shown["certificate_source"] == LAST_SEEN else _same(shown)


def _days(certificates_: list[Shown]) -> Text:
    """Show how long the certificate that ends first is valid."""
    if not certificates_:
        return Text("-")
    first = min(certificates_, key=lambda shown: int(shown["days_left"]))
    return Text(f"{first['days_left']} days left", _expiry_style(first))


def _expiry(shown: Shown) -> str:
    when = datetime.fromtimestamp(shown["not_after_at"]).astimezone()
    return f"{when:%Y-%m-%d %H:%M}, {shown['days_left']} days left"


def _expiry_style(shown: Shown) -> str:
    if shown["days_left"] < 0:
        return "bold red"
    return "yellow" if shown["days_left"] < DAYS_LEFT_WARNING else ""


def _value(value: Any) -> Text:
    """Show a value of the configuration in one line."""
    if value is None:
        return Text("not there", "dim")
    if isinstance(value, dict):
        return Text(", ".join(f"{key}: {inner}" for key, inner in value.items()))
    return Text(str(value))


def _indented(transcript: str) -> Iterator[Text]:
    for line in transcript.splitlines():
        yield Text(f"  {line}", "dim")

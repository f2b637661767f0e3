"""One frame of ``top``: exactly as high and as wide as it may be. Pure.

Every row is one line, cut where it does not fit; so the heights add up whatever is in them. What
there is no room for is counted, not hidden.
"""

from rich.console import Group, RenderableType
from rich.text import Text

from sstplb.control.ctl import tables
from sstplb.control.ctl.names import BackendName, backends_of
from sstplb.control.ctl.sheet import Sheet
from sstplb.control.top.glance import Flow, Glance, Rates, Shown
from sstplb.control.top.keys import Viewing

EVENTS_SHARE = 3
"""Of the lines below the backends, one in so many is for events."""
LISTENERS_SHARE, BACKENDS_SHARE = 5, 3
"""At most one line in so many is for them."""
KEYS = "q quit · ↑↓ backend · d drain · e enable · c check · s sort · / filter · p pause"


def frame(
    glance: Glance,
    rates: Rates | None,
    state: Viewing,
    height: int,
    lost: str = "",
) -> RenderableType:
    """Return a frame of so many lines. ``lost``: why the picture is not fresh."""
    overview = glance.overview
    top = _head(glance, rates)
    left = height - len(top) - 1
    count = min(len(overview["listeners"]), max(1, height // LISTENERS_SHARE))
    parts: list[RenderableType] = [*top, _listeners(glance, rates, count)]
    left -= count + 1
    if left >= 3:
        rows = min(len(backends_of(overview)), max(1, height // BACKENDS_SHARE), left - 2)
        parts += [Text(), _backends(glance, rates, state, rows)]
        left -= rows + 2
    events = [event for event in glance.events if _has(state.wanted, event["message"])]
    event_rows = min(len(events), left // EVENTS_SHARE - 1)
    call_rows = left - 2 - (event_rows + 1 if event_rows > 0 else 0)
    if call_rows > 0:
        parts += [Text(), _calls(glance, state, call_rows)]
        _fill(parts, call_rows - min(call_rows, len(glance.calls)))
        if event_rows > 0:
            parts.append(Text())
            parts += [_one_line(tables.event(event)) for event in events[-event_rows:]]
    else:
        _fill(parts, left)
    parts.append(_foot(state, lost))
    return Group(*parts)


def _fill(parts: list[RenderableType], lines: int) -> None:
    """Add blank lines."""
    parts += [Text() for _ in range(max(0, lines))]


def _head(glance: Glance, rates: Rates | None) -> list[Text]:
    first, second = tables.head(glance.overview).split("\n")
    third = Text("rates appear with the second look", "dim")
    if rates is not None:
        third = Text.assemble(
            (f"{rates.calls:.1f} calls/s", "bold"),
            f" · {_flow(rates.flow)} · CPU {rates.cpu:.0%} of a core",
        )
        if rates.cpu_s_per_gb is not None:
            third.append(f" · {rates.cpu_s_per_gb:.2f} CPU s/GB now")
    return [_one_line(first), _one_line(second), _one_line(third), Text()]


def _listeners(glance: Glance, rates: Rates | None, rows: int) -> Sheet:
    sheet = Sheet(
        "LISTENER",
        "?ADDRESS",
        "MODE",
        "?POOL",
        ">CALLS",
        "STATE",
        ">MB/s IN",
        ">MB/s OUT",
        "*",
    )
    for shown in glance.overview["listeners"][:rows]:
        flow = None if rates is None else rates.by_listener.get(shown["name"])
        sheet.add(
            shown["name"],
            shown["address"],
            shown["mode"],
            shown["pool"],
            str(shown["calls"]),
            tables.state(tables.listener_state(shown)),
            _megabytes(None if flow is None else flow.bytes_in),
            _megabytes(None if flow is None else flow.bytes_out),
            "",
        )
    return sheet


def _backends(glance: Glance, rates: Rates | None, state: Viewing, rows: int) -> Sheet:
    known = list(backends_of(glance.overview).items())
    first = _first(known, state.chosen, rows)
    hidden = len(known) - rows
    title = f"BACKEND (+{hidden})" if hidden > 0 else "BACKEND"
    sheet = Sheet(
        title,
        "?ADDRESS",
        "STANDING",
        "HEALTH",
        ">CALLS",
        ">CALLS/s",
        ">?TOTAL",
        "*WHY",
        is_cut=True,
    )
    for name, shown in known[first : first + rows]:
        rate = None if rates is None else rates.by_backend.get(name)
        sheet.add(
            str(name),
            shown["address"],
            tables.state(shown["standing"]),
            tables.state(tables.health(shown)),
            tables.calls_of(shown),
            "" if rate is None else f"{rate:.1f}",
            str(shown["calls_total"]),
            tables.why(shown, glance.at),
            style="reverse" if name == state.chosen else "",
        )
    return sheet


def _first(known: list[tuple[BackendName, Shown]], chosen: BackendName | None, rows: int) -> int:
    """Return the first backend to show, so that the chosen one is among them."""
    number = next((n for n, (name, _) in enumerate(known) if name == chosen), 0)
    return max(0, min(number - rows // 2, len(known) - rows))


def _calls(glance: Glance, state: Viewing, rows: int) -> Sheet:
    sheet = tables.calls_sheet(f"STATE ({state.sort} of {glance.calls_total})")
    for shown in glance.calls[:rows]:
        sheet.add(*tables.call_row(shown))
    return sheet


def _has(wanted: str, text: str) -> bool:
    return wanted.lower() in text.lower()


def _foot(state: Viewing, lost: str) -> Text:
    if state.asked is not None:
        text = f"{state.asked.verb} {state.asked.backend}? y / n"
        return _one_line(Text(text, "bold reverse"))
    if state.is_typing:
        return _one_line(Text(f"filter: {state.wanted}▏  (Enter, Esc)", "bold"))
    if lost:
        return _one_line(Text(lost, "bold red"))
    if state.notice:
        return _one_line(Text(state.notice, "bold yellow"))
    signs = ["paused"] if state.is_paused else []
    signs += [f"filter: {state.wanted}"] if state.wanted else []
    return _one_line(Text.assemble((" · ".join([*signs, ""]), "bold yellow"), (KEYS, "dim")))


def _flow(flow: Flow) -> str:
    return f"{_megabytes(flow.bytes_in)} MB/s in, {_megabytes(flow.bytes_out)} MB/s out"


def _megabytes(count: float | None) -> str:
    return "" if count is None else f"{count / 1e6:.1f}"


def _one_line(text: Text) -> Text:
    text.no_wrap, text.overflow = True, "ellipsis"
    return text

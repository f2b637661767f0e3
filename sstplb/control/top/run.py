"""The loop of ``top``: look, draw, listen for keys.

Asking the balancer happens beside (one thread), so keys are answered while it is slow, and a
balancer that is gone for a moment (an upgrade, a restart) leaves the last picture and a line that
says so. The loop waits for three things at once: keys, the end of a request, a new size of the
terminal; the latter two send a byte through a pair of sockets.
"""

import contextlib
import os
import select
import shutil
import signal
import socket
import sys
import termios
import time
import tty
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace

from rich.console import Console
from rich.live import Live

from sstplb.config.schema import Standing
from sstplb.control.ctl.api import Api
from sstplb.control.ctl.names import backends_of
from sstplb.control.top import keys
from sstplb.control.top.glance import Glance, Glances, Shown
from sstplb.control.top.keys import Order, Sort, Verb, Viewing, Wish, press
from sstplb.control.top.view import frame
from sstplb.errors import AskError

CALLS_LOOKED_AT = 200
SORTED_MAX = 2000
"""So many of the newest running calls are looked through for the biggest ones."""
LOOKING_SHARE = 9
"""A look that takes long is followed by a pause so many times as long: it costs the balancer."""
EVENTS_KEPT, EVENTS_ASKED_MAX = 50, 5000
SIZE_OF_NO_TERMINAL = (120, 50)
KEY_BYTES_MAX = 64

_SEQUENCES = (
    (b"\x1b[A", keys.UP), (b"\x1b[B", keys.DOWN), (b"\x1bOA", keys.UP), (b"\x1bOB", keys.DOWN),
    (b"\x1b", keys.ESCAPE), (b"\r", keys.ENTER), (b"\n", keys.ENTER), (b"\x7f", keys.BACKSPACE),
    (b"\x08", keys.BACKSPACE), (b"\x03", "q"),
)  # fmt: skip


class Looker:
    """Asks for everything that is shown.

    Events of ended calls are left out: the calls are listed. So that those do not crowd out the
    others, events are asked for in full once, and then what is new.
    """

    def __init__(self, api: Api) -> None:
        self.api = api
        self._process = 0.0
        self._last = 0
        self._events: deque[Shown] = deque(maxlen=EVENTS_KEPT)

    def look(self, sort: Sort, wanted: str = "") -> Glance:
        """Return this moment; only calls with some letters. Raises AskError."""
        overview = self.api.get("overview")
        total, calls = _calls(self.api, sort, wanted or None)
        if overview["started_at"] != self._process:  # it counts from the beginning
            self._process, self._last = overview["started_at"], 0
            self._events.clear()
        page = self.api.get("events", after=self._last, limit=EVENTS_ASKED_MAX)
        self._last = page["last"]
        self._events += [event for event in page["events"] if event["event"] != "call_ended"]
        return Glance(overview, calls, total, list(self._events))


def _calls(api: Api, sort: Sort, wanted: str | None) -> tuple[int, list[Shown]]:
    """Return how many calls there are, and those that come first in this order."""
    if sort is Sort.NEWEST:
        page = api.get("calls", text=wanted, limit=CALLS_LOOKED_AT)
        return page["total"], page["calls"]
    if sort is Sort.LONGEST:  # the API has the newest first: these are on its last page
        total = api.get("calls", state="running", text=wanted, limit=1)["total"]
        offset = max(0, total - CALLS_LOOKED_AT)
        page = api.get("calls", state="running", text=wanted, limit=CALLS_LOOKED_AT, offset=offset)
        return page["total"], page["calls"][::-1]
    page = api.get("calls", state="running", text=wanted, limit=SORTED_MAX)
    by_size = sorted(page["calls"], key=lambda c: c["bytes_in"] + c["bytes_out"], reverse=True)
    return page["total"], by_size[:CALLS_LOOKED_AT]


def do(api: Api, order: Order) -> str:
    """Do something to a backend; return what came of it. Raises AskError."""
    if order.verb is Verb.CHECK:
        check = api.post(*order.backend.path, "check")["last_check"]
        return f"{order.backend}: {check['reason'] if check else 'no verdict yet'}"
    standing = Standing.DRAINING if order.verb is Verb.DRAIN else Standing.ACTIVE
    shown = api.post(*order.backend.path, "standing", content={"standing": standing.value})
    return f"{order.backend} is {shown['standing']}"


def once(api: Api, interval_s: float, console: Console) -> None:
    """Print one frame: two looks, for without a second there are no rates."""
    glances, looker = Glances(), Looker(api)
    glances.add(looker.look(Sort.NEWEST))
    time.sleep(interval_s)
    last = looker.look(Sort.NEWEST)
    glances.add(last)
    width, height = shutil.get_terminal_size(SIZE_OF_NO_TERMINAL)
    console.width = width
    console.print(frame(last, glances.rates(), Viewing(), height - 1))


class Top:
    """The live view."""

    def __init__(self, api: Api, interval_s: float, console: Console) -> None:
        self._looker, self._interval_s, self._console = Looker(api), interval_s, console
        self._state = Viewing()
        self._glances = Glances()
        self._lost = ""
        self._looking: Future[Glance] | None = None
        self._doing: Future[str] | None = None
        self._look_at = self._began = 0.0
        self._beside = ThreadPoolExecutor(1, "top")

    def run(self) -> None:
        """Show until somebody leaves. Raises AskError when there is no first look."""
        self._glances.add(self._looker.look(self._state.sort))
        with (
            _woken() as (wake, woken),
            _single_keys(sys.stdin.fileno()),
            Live(console=self._console, screen=True, auto_refresh=False) as live,
        ):
            try:
                while self._turn(live, wake, woken):
                    pass
            finally:
                self._beside.shutdown(wait=False, cancel_futures=True)

    def _turn(self, live: Live, wake: Callable[[], None], woken: int) -> bool:
        """Draw, and wait for what happens next; return whether to go on."""
        self._start_looking(wake)
        self._draw(live)
        pause = max(0.0, self._look_at - time.monotonic()) if self._looking is None else None
        ready, _, _ = select.select([sys.stdin.fileno(), woken], [], [], pause)
        if woken in ready:
            os.read(woken, KEY_BYTES_MAX)
        self._collect()
        if sys.stdin.fileno() in ready:
            data = os.read(sys.stdin.fileno(), KEY_BYTES_MAX)
            return bool(data) and all(self._press(key, wake) for key in pressed(data))
        return True

    def _start_looking(self, wake: Callable[[], None]) -> None:
        is_time = time.monotonic() >= self._look_at and not self._state.is_paused
        if self._looking is None and is_time:
            self._began = time.monotonic()
            self._looking = self._beside.submit(
                self._looker.look, self._state.sort, self._state.wanted
            )
            self._looking.add_done_callback(lambda _: wake())
        elif self._looking is None and self._state.is_paused:
            self._look_at = time.monotonic() + self._interval_s

    def _collect(self) -> None:
        """Take what has been answered meanwhile."""
        if self._looking is not None and self._looking.done():
            looked, self._looking = self._looking, None
            now = time.monotonic()
            self._look_at = now + max(self._interval_s, LOOKING_SHARE * (now - self._began))
            try:
                self._glances.add(looked.result())
                self._lost = ""
            except AskError as error:
                self._lost = f"not fresh: {error}"
        if self._doing is not None and self._doing.done():
            done, self._doing = self._doing, None
            try:
                notice = done.result()
            except AskError as error:
                notice = str(error)
            self._state = replace(self._state, notice=notice)
            self._look_at = 0.0

    def _press(self, key: str, wake: Callable[[], None]) -> bool:
        """Do what a key says; return whether to go on."""
        last = self._glances.last
        backends = list(backends_of(last.overview)) if last is not None else []
        self._state, wish = press(self._state, key, backends)
        if isinstance(wish, Order):
            self._doing = self._beside.submit(do, self._looker.api, wish)
            self._doing.add_done_callback(lambda _: wake())
            self._state = replace(self._state, notice=f"{wish.verb} {wish.backend} …")
        elif wish is Wish.LOOK:
            self._look_at = 0.0
        return wish is not Wish.QUIT

    def _draw(self, live: Live) -> None:
        last = self._glances.last
        assert last is not None, "the first look came before"
        shown = frame(
            last, self._glances.rates(), self._state, self._console.size.height, self._lost
        )
        live.update(shown, refresh=True)


def pressed(data: bytes) -> Iterator[str]:
    """Yield the keys in what a terminal sent."""
    while data:
        for sequence, key in _SEQUENCES:
            if data.startswith(sequence):
                data = data[len(sequence) :]
                yield key
                break
        else:
            text = data.decode(errors="ignore")
            data = text[1:].encode()
            if text:
                yield text[0]


@contextlib.contextmanager
def _single_keys(terminal: int) -> Iterator[None]:
    """Have each key at once, without an echo; put the terminal back as it was."""
    before = termios.tcgetattr(terminal)
    try:
        tty.setcbreak(terminal)
        yield
    finally:
        termios.tcsetattr(terminal, termios.TCSADRAIN, before)


@contextlib.contextmanager
def _woken() -> Iterator[tuple[Callable[[], None], int]]:
    """Yield what wakes the loop, and what it waits at; a new size of the terminal wakes it, too."""
    waits, wakes = socket.socketpair()
    wakes.setblocking(False)

    def wake() -> None:
        with contextlib.suppress(OSError):  # full, or closed: the loop is awake, or has ended
            wakes.send(b"!")

    before = signal.signal(signal.SIGWINCH, lambda *_: wake())
    try:
        yield wake, waits.fileno()
    finally:
        signal.signal(signal.SIGWINCH, before)
        waits.close()
        wakes.close()

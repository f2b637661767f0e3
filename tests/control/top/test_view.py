"""A frame fills its terminal exactly, whatever is in it."""

from io import StringIO
from typing import Any

import pytest
from rich.console import Console

from sstplb.control.ctl.names import BackendName
from sstplb.control.top.glance import Glance, Glances
from sstplb.control.top.keys import Order, Sort, Verb, Viewing
from sstplb.control.top.view import frame
from tests.control.top.test_glance import ONE, TWO, overview

PLAIN = Viewing()


def call(number: int, client: str = "10.1.2.3:5000") -> dict[str, Any]:
    return {
        "id": number, "client": client, "listener": "vpn", "backend": "rras1",
        "started_at": 0.0, "duration_s": 3.0, "bytes_in": 5, "bytes_out": 6, "state": "running",
    }  # fmt: skip


def event(number: int) -> dict[str, Any]:
    return {
        "id": number, "at": 0.0, "level": "info", "event": "backend_up",
        "message": f"event {number} " + "and so on " * 30,
    }  # fmt: skip


def drawn(
    glance: Glance,
    state: Viewing = PLAIN,
    size: tuple[int, int] = (120, 40),
    lost: str = "",
) -> list[str]:
    glances = Glances()
    glances.add(Glance(overview(at=50.0), [], 0, []))
    glances.add(glance)
    console = Console(file=StringIO(), width=size[0], height=size[1], markup=False)
    console.print(frame(glance, glances.rates(), state, size[1], lost))
    assert isinstance(console.file, StringIO)
    return console.file.getvalue().splitlines()


def busy(backends: int = 2) -> Glance:
    shown = overview()
    one = shown["pools"][0]["backends"][0]
    shown["pools"][0]["backends"] = [{**one, "name": f"rras{n}"} for n in range(1, backends + 1)]
    return Glance(shown, [call(n) for n in range(200, 0, -1)], 5_000, [event(n) for n in range(50)])


@pytest.mark.parametrize("height", [10, 11, 12, 13, 17, 24, 50, 200])
@pytest.mark.parametrize("width", [40, 80, 200])
@pytest.mark.parametrize("backends", [0, 2, 60])
def test_every_line_is_filled_and_none_is_too_long(width: int, height: int, backends: int) -> None:
    for glance in (busy(backends), Glance(busy(backends).overview, [], 0, [])):
        lines = drawn(glance, size=(width, height))
        assert len(lines) == height
        assert max(map(len, lines)) <= width
        assert lines[-1].startswith("q quit")


def test_what_there_is_is_shown() -> None:
    text = "\n".join(lines := drawn(busy()))
    for words in ("0.0 calls/s", "vpn", "rras/rras2", "10.1.2.3:5000", "newest of 5000"):
        assert words in text
    assert "event 49" in text
    assert lines.index(next(line for line in lines if line.startswith(" 200"))) < 20


def test_the_chosen_backend_is_always_in_view() -> None:
    for number in (1, 30, 60):
        state = Viewing(chosen=BackendName("rras", f"rras{number}"))
        lines = drawn(busy(60), state, (100, 24))
        assert any(line.startswith(f"rras/rras{number} ") for line in lines)
        assert "BACKEND (+52)" in "\n".join(lines)


def test_events_are_filtered() -> None:
    text = "\n".join(lines := drawn(busy(), Viewing(wanted="EVENT 17")))
    assert "event 17 " in text
    assert "event 49" not in text
    assert lines[-1].startswith("filter: EVENT 17 · q quit")


def test_the_foot_says_what_is_going_on() -> None:
    foot = [
        drawn(busy(), Viewing(asked=Order(Verb.DRAIN, TWO)))[-1],
        drawn(busy(), Viewing(is_typing=True, wanted="ab"))[-1],
        drawn(busy(), Viewing(notice="rras/rras1 is draining"))[-1],
        drawn(busy(), lost="not fresh: nobody answers")[-1],
        drawn(busy(), Viewing(is_paused=True, sort=Sort.BIGGEST, chosen=ONE))[-1],
    ]
    assert [line.split("  ")[0] for line in foot[:4]] == [
        "drain rras/rras2? y / n", "filter: ab▏", "rras/rras1 is draining",
        "not fresh: nobody answers",
    ]  # fmt: skip
    assert foot[4].startswith("paused · q quit")

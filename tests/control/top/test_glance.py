"""Rates from two moments, and keys as a small machine."""

import copy
from dataclasses import replace
from typing import Any

import pytest

from sstplb.control.ctl.names import BackendName
from sstplb.control.top.glance import Flow, Glance, Glances
from sstplb.control.top.keys import DOWN, ENTER, ESCAPE, UP, Order, Sort, Verb, Viewing, Wish, press
from sstplb.control.top.run import pressed

ONE, TWO = BackendName("rras", "rras1"), BackendName("rras", "rras2")


def overview(at: float = 100.0, **more: Any) -> dict[str, Any]:
    backend = {
        "name": "rras1", "address": "10.0.0.11:80", "standing": "active", "health": "up",
        "set_aside": False, "unusable_because": None, "since_at": 0.0, "health_reason": "",
        "calls": 1, "dialing": 0, "calls_max": 1000, "calls_total": 7, "weight": 1,
        "same_certificate": None,
    }  # fmt: skip
    return {
        "version": "1", "now_at": at, "started_at": 1.0, "workers": 1, "draining": False,
        "config_file": "a.yaml",
        "totals": {
            "opened": 10, "running": 1, "bytes_in": 1_000, "bytes_out": 2_000,
            "outcomes": {"completed": 9},
        },
        "cost": {"cpu_s": 2.0, "cpu_s_per_gb": 3.0, "modes": []},
        "listeners": [
            {
                "name": "vpn", "address": "0.0.0.0:443", "mode": "offload", "pool": "rras",
                "calls": 1, "calls_max": 9, "standing": "active", "accepting": True,
                "bytes_in": 1_000, "bytes_out": 2_000,
            }
        ],
        "pools": [
            {"name": "rras", "backends": [backend, {**backend, "name": "rras2", "calls": 0}]}
        ],
        **more,
    }  # fmt: skip


def glance(shown: dict[str, Any]) -> Glance:
    return Glance(shown, [], 0, [])


def test_rates_are_differences_over_time() -> None:
    glances = Glances()
    assert glances.rates() is None
    glances.add(glance(overview()))
    assert glances.rates() is None, "one moment tells no rate"
    later = copy.deepcopy(overview(at=102.0))
    later["totals"].update(opened=30, bytes_in=40_001_000, bytes_out=60_002_000)
    later["listeners"][0].update(bytes_in=40_001_000, bytes_out=0)
    later["pools"][0]["backends"][0]["calls_total"] = 17
    later["cost"]["cpu_s"] = 2.5
    glances.add(glance(later))
    rates = glances.rates()
    assert rates is not None
    assert rates.calls == 10
    assert rates.flow == Flow(20_000_000, 30_000_000)
    assert rates.by_listener == {"vpn": Flow(20_000_000, 0)}, "counted anew: not less than nothing"
    assert rates.by_backend == {ONE: 5, TWO: 0}
    assert rates.cpu == 0.25
    assert rates.cpu_s_per_gb == pytest.approx(5)


def test_rates_are_of_the_last_seconds_and_of_one_process() -> None:
    glances = Glances()
    for second in range(30):
        shown = overview(at=100.0 + second)
        shown["totals"]["opened"] = 10 if second < 20 else 10 + 6 * (second - 19)
        glances.add(glance(shown))
    rates = glances.rates()
    assert rates is not None
    assert rates.calls == 6, "what was before the window does not count"
    assert rates.cpu_s_per_gb is None, "nothing was carried"
    glances.add(glance(overview(at=200.0, started_at=199.0)))
    assert glances.rates() is None, "another process counts"


def typed(state: Viewing, keys: str | list[str]) -> tuple[Viewing, Wish | Order | None]:
    wish = None
    for key in keys:
        state, wish = press(state, key, [ONE, TWO])
    return state, wish


def test_a_backend_is_chosen_and_drained_after_a_yes_only() -> None:
    state, wish = typed(Viewing(), "d")
    assert (state.notice, wish) == ("choose a backend first: ↑ ↓", None)
    state, _ = typed(state, [DOWN, DOWN, DOWN, UP, "j"])
    assert (state.chosen, state.notice) == (TWO, "")
    asked, wish = typed(state, "d")
    assert (asked.asked, wish) == (Order(Verb.DRAIN, TWO), None)
    for no in ("n", "q", ENTER, "d"):
        refused, wish = typed(asked, [no])
        assert (refused.asked, refused.notice, wish) == (None, "not done", None)
    assert typed(asked, "y")[1] == Order(Verb.DRAIN, TWO)
    assert typed(state, ["e", "Y"])[1] == Order(Verb.ENABLE, TWO)
    assert typed(state, "c")[1] == Order(Verb.CHECK, TWO), "asking does no harm"
    gone, wish = press(state, "d", [ONE])
    assert (gone.asked, wish) == (None, None), "it was removed meanwhile"


def test_letters_filter_until_enter_and_escape_ends_it() -> None:
    state, wish = typed(Viewing(), ["/", *"qdx", "backspace", ENTER])
    assert (state.wanted, state.is_typing, wish) == ("qd", False, Wish.LOOK)
    assert typed(state, [ESCAPE])[0] == Viewing()
    assert typed(Viewing(), ["/", "a", ESCAPE])[0] == Viewing()
    assert len(typed(Viewing(), ["/", *("x" * 200)])[0].wanted) == 64


def test_the_other_keys() -> None:
    sorts = [typed(Viewing(), "s" * count)[0].sort for count in range(4)]
    assert sorts == [Sort.NEWEST, Sort.LONGEST, Sort.BIGGEST, Sort.NEWEST]
    paused, wish = typed(Viewing(), "p")
    assert (paused.is_paused, wish) == (True, Wish.LOOK)
    assert typed(paused, " ")[0] == replace(paused, is_paused=False)
    assert typed(Viewing(), "q")[1] is Wish.QUIT
    assert typed(Viewing(), "x") == (Viewing(), None)
    assert press(Viewing(), UP, [])[0].chosen is None


def test_what_a_terminal_sends_becomes_keys() -> None:
    sent = b"a\x1b[A\x1bOB\r\x7f\x1b" + "é".encode() + b"\x03"
    assert list(pressed(sent)) == ["a", "up", "down", "enter", "backspace", "escape", "é", "q"]
    assert list(pressed(b"\xff")) == []

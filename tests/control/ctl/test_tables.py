"""Tables for people: what fits, and what is said in words."""

from io import StringIO

import pytest
from rich.console import Console

from sstplb.control.ctl import sheet, tables
from sstplb.control.ctl.sheet import Sheet
from tests.control.top.test_glance import overview


def drawn(shown: object, width: int = 120) -> str:
    console = Console(file=StringIO(), width=width, markup=False)
    console.print(shown)
    assert isinstance(console.file, StringIO)
    return console.file.getvalue()


def test_columns_are_left_out_where_it_is_narrow() -> None:
    sheet = Sheet("NAME", "?MORE", ">N", "*WHY")
    sheet.add("rras1", "more", "7", "a long reason " * 12)
    wide, narrow = drawn(sheet, 120), drawn(sheet, 60)
    assert "more" in wide
    assert "more" not in narrow
    assert narrow.count("reason") == 12, "what explains takes more lines instead"
    assert max(map(len, narrow.splitlines())) <= 60
    cut = Sheet("NAME", "*WHY", is_cut=True)
    cut.add("rras1", "a long reason " * 12)
    assert len(drawn(cut, 60).splitlines()) == 2
    assert drawn(sheet, 10_000).splitlines()[1].count("reason") == 12, "no terminal: one line"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (59.9, "59 s"), (60, "1 min"), (3725, "1 h 2 min"), (200_000, "2 d 7 h")],
)
def test_lengths_of_time_have_two_units(seconds: float, text: str) -> None:
    assert sheet.ago(seconds) == text


def test_short_times_are_exact() -> None:
    assert [sheet.seconds(s) for s in (0.0012, 2.34, 61)] == ["1.2 ms", "2.3 s", "1 min 1 s"]


def test_why_a_backend_gets_no_calls_is_said() -> None:
    (shown, _) = overview()["pools"][0]["backends"]
    assert tables.why(shown, 100.0) == ""
    down = {**shown, "unusable_because": "down", "since_at": 40.0, "health_reason": "HTTP 503"}
    assert tables.why(down, 100.0) == "down, for 1 min: HTTP 503"
    assert tables.why({**shown, "unusable_because": "standing_off"}, 1.0) == "standing off"
    other = {**shown, "same_certificate": False}
    assert tables.why(other, 1.0) == "it has another certificate than clients are shown"


def test_the_cost_of_each_mode_is_told_where_there_are_several() -> None:
    shown = overview()
    one = {"mode": "offload", "cpu_s_per_gb": 1.25}
    shown["cost"]["modes"] = [one]
    assert tables.head(shown).plain.endswith("3.00 CPU s/GB")
    shown["cost"]["modes"] = [one, {"mode": "reencrypt", "cpu_s_per_gb": None}]
    assert tables.head(shown).plain.endswith("3.00 CPU s/GB (offload 1.25)")

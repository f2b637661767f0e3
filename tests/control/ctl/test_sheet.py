"""Tables that fit the terminal, and quantities in words."""

from io import StringIO

import pytest
from rich.console import Console

from sstplb.control.ctl.sheet import Sheet, ago, seconds


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
    ("length", "text"),
    [(0, "0 s"), (59.9, "59 s"), (60, "1 min"), (3725, "1 h 2 min"), (200_000, "2 d 7 h")],
)
def test_lengths_of_time_have_two_units(length: float, text: str) -> None:
    assert ago(length) == text


def test_short_times_are_exact() -> None:
    assert [seconds(s) for s in (0.0012, 2.34, 61)] == ["1.2 ms", "2.3 s", "1 min 1 s"]

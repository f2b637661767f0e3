"""Counts by upper bound: every value is in one bucket, bounds belong to the lower one."""

import math

from hypothesis import given
from hypothesis import strategies as st

from sstplb.account.histogram import Histogram


def test_a_bound_counts_below_it() -> None:
    histogram = Histogram((1.0, 2.5))
    for value in (0.0, 1.0, 1.1, 2.5, 2.6, 1e9):
        histogram.observe(value)
    seen = histogram.distribution()
    assert seen.cumulative == ((1.0, 2), (2.5, 4), (math.inf, 6))
    assert seen.sum == sum((0.0, 1.0, 1.1, 2.5, 2.6, 1e9))


@given(st.lists(st.floats(min_value=0, max_value=100)))
def test_every_value_is_counted_where_it_belongs(values: list[float]) -> None:
    bounds = (0.5, 1.0, 10.0, 50.0)
    histogram = Histogram(bounds)
    for value in values:
        histogram.observe(value)
    expected = [(b, sum(v <= b for v in values)) for b in (*bounds, math.inf)]
    assert list(histogram.distribution().cumulative) == expected


def test_what_was_handed_out_does_not_change() -> None:
    histogram = Histogram((1.0,))
    before = histogram.distribution()
    histogram.observe(0.5)
    assert before.cumulative == ((1.0, 0), (math.inf, 0))

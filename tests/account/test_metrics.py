"""The table of metrics: names as Prometheus would have them, and nothing that could clash."""

import re

import pytest

from sstplb.account.metrics import BOUNDS_S, PREFIX, STEPS, Kind, Measured, Metric
from sstplb.account.record import Phases

ALLOWED_LABELS = {
    "listener", "pool", "backend", "mode", "address", "name", "sha256", "direction", "outcome",
    "reason", "standing", "kind", "verdict", "result", "level", "process", "version", "python",
    "engine",
}  # fmt: skip
"""None of which is a client or a call."""


@pytest.mark.parametrize("metric", Metric)
def test_names_carry_their_unit_and_kind(metric: Metric) -> None:
    family = metric.family
    assert re.fullmatch(r"[a-z][a-z0-9_]*[a-z0-9]", family.name)
    assert family.name.endswith("_total") == (family.kind is Kind.COUNTER)
    if family.kind is Kind.HISTOGRAM:
        assert family.name.endswith("_seconds")
    if "timestamp" in family.name:
        assert family.name.endswith("_timestamp_seconds")
    assert set(family.labels) <= ALLOWED_LABELS
    assert family.help.endswith(".")


def test_no_name_is_another_ones_with_a_suffix() -> None:
    bases = [metric.family.full_name.removesuffix("_total") for metric in Metric]
    assert len(bases) == len(set(bases)), "OpenMetrics knows a counter without its _total"
    assert all(base.startswith(PREFIX) for base in bases)


def test_every_histogram_has_bounds_and_every_step_its_phase() -> None:
    histograms = {m for m in Metric if m.family.kind is Kind.HISTOGRAM}
    assert set(BOUNDS_S) == histograms
    for bounds in BOUNDS_S.values():
        assert list(bounds) == sorted(set(bounds))
    assert set(STEPS) == {name for name in Phases.__slots__ if name != "relay_s"}


def test_a_value_has_all_labels_of_its_row() -> None:
    measured = Measured()
    measured.put(Metric.RUNNING, 3, "vpn")
    with pytest.raises(AssertionError):
        measured.put(Metric.RUNNING, 3)
    assert measured.values[Metric.RUNNING] == {("vpn",): 3}

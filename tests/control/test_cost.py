"""What a mode costs, learnt from the spans in which it moved nearly everything."""

import pytest

from sstplb.control.cost import GB, SINCE_START_BYTES_MIN, SPAN_BYTES_MIN, CostMeter, per_gb


def test_a_mode_is_charged_for_the_spans_it_had_to_itself() -> None:
    meter = CostMeter()
    meter.look(1.0, {"offload": 0, "reencrypt": 0})
    meter.look(3.0, {"offload": 1000, "reencrypt": 0})
    meter.look(8.0, {"offload": 1000, "reencrypt": 500})
    assert meter.cpu_s == {"offload": 2.0, "reencrypt": 5.0}
    assert meter.moved == {"offload": 1000, "reencrypt": 500}


def test_what_is_little_beside_the_rest_does_not_spoil_a_span() -> None:
    meter = CostMeter()
    meter.look(0.0, {"offload": 0, "reencrypt": 0})
    meter.look(1.0, {"offload": 9900, "reencrypt": 100})
    assert meter.moved == {"offload": 10_000}


@pytest.mark.parametrize(
    ("cpu_s", "moved"),
    [
        (2.0, {"offload": 0, "reencrypt": 0}),
        (2.0, {"offload": 500, "reencrypt": 500}),
        (2.0, {"offload": -5}),
        (0.5, {"offload": 500, "reencrypt": 0}),
    ],
)
def test_idle_and_mixed_spans_teach_nothing(cpu_s: float, moved: dict[str, int]) -> None:
    """Nor does a span in which a worker's figures went with it, or a listener's."""
    meter = CostMeter()
    meter.look(1.0, {"offload": 0, "reencrypt": 0})
    meter.look(cpu_s, moved)
    assert meter.cpu_s == {}


def test_the_first_look_only_looks() -> None:
    meter = CostMeter()
    meter.look(5.0, {"offload": 1000})
    assert meter.cpu_s == {}


def test_few_bytes_tell_nothing_of_many() -> None:
    assert per_gb(0.2, 0) is None
    assert per_gb(0.2, SPAN_BYTES_MIN - 1) is None, "checks, and who looks"
    assert per_gb(0.2, SPAN_BYTES_MIN) == pytest.approx(4.0)
    assert per_gb(2.0, SPAN_BYTES_MIN, SINCE_START_BYTES_MIN) is None, "the start as well"
    assert per_gb(2.0, GB, SINCE_START_BYTES_MIN) == 2.0

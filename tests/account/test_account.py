"""Every call is accounted once, and shown the same way every time."""

import pytest

from sstplb.account.exposition import format_bytes, log_fields, log_line
from sstplb.account.ledger import ENDED_KEPT, Ledger
from sstplb.account.metrics import Metric
from sstplb.account.record import Outcome, Record, Try


def opened(ledger: Ledger) -> Record:
    return ledger.open(
        listener="vpn", mode="offload", client=("192.0.2.7", 50000), started_at=1.7e9, now=10.0
    )


def test_a_call_is_closed_exactly_once() -> None:
    ledger = Ledger()
    record = opened(ledger)
    assert list(ledger.running) == [1]
    ledger.close(record, Outcome.COMPLETED, "client_ended", "", 12.5)
    assert not ledger.running
    assert record.duration_s == 2.5
    with pytest.raises(RuntimeError, match="call 1 was closed as completed"):
        ledger.close(record, Outcome.REFUSED, "late", "", 13.0)
    assert ledger.outcomes_total == {("vpn", Outcome.COMPLETED, "client_ended"): 1}


def test_totals_and_the_bound_on_ended_calls() -> None:
    ledger = Ledger()
    for _ in range(ENDED_KEPT + 5):
        record = opened(ledger)
        record.bytes_in, record.bytes_out = 1, 2
        ledger.close(record, Outcome.COMPLETED, "client_ended", "", 10.0)
    assert len(ledger.ended) == ENDED_KEPT
    assert (ledger.opened_total, ledger.bytes_in_total) == (ENDED_KEPT + 5, ENDED_KEPT + 5)
    assert ledger.bytes_out_total == 2 * (ENDED_KEPT + 5)


def test_a_clock_that_goes_back_makes_no_negative_duration() -> None:
    ledger = Ledger()
    record = opened(ledger)
    ledger.close(record, Outcome.REFUSED, "x", "", 9.0)
    assert record.duration_s == 0.0


def full() -> Record:
    ledger = Ledger()
    record = opened(ledger)
    record.backend, record.pool = "rras2", "rras"
    record.tries = [Try("rras1", "backend_refused", 0.1), Try("rras2", "", 0.2)]
    record.phases.tls_s = 0.0123456789
    record.bytes_in, record.packets_in = 2048, 7
    ledger.close(record, Outcome.BACKEND_FAILED, "binding_refused", "in words", 11.0)
    return record


def test_fields_are_stable_and_leave_out_what_has_no_value() -> None:
    assert log_fields(full()) == {
        "call": 1,
        "client": "192.0.2.7:50000",
        "listener": "vpn",
        "mode": "offload",
        "pool": "rras",
        "backend": "rras2",
        "tries": ["rras1:backend_refused"],
        "tls_s": 0.012346,
        "duration_s": 1.0,
        "bytes_in": 2048,
        "bytes_out": 0,
        "packets_in": 7,
        "outcome": "backend_failed",
        "reason": "binding_refused",
        "detail": "in words",
        "diagnosis": ["wrong_offload_hash"],
    }


def test_the_line_reads_like_a_sentence() -> None:
    assert log_line(full()) == (
        "call 1 · offload · 192.0.2.7:50000 → vpn → rras2 · after rras1 backend_refused"
        " · 1.000 s · in 2.0 KiB out 0 B · backend_failed (binding_refused) · in words"
    )


@pytest.mark.parametrize(
    ("count", "shown"), [(0, "0 B"), (1023, "1023 B"), (3 << 20, "3.0 MiB"), (5 << 29, "2.5 GiB")]
)
def test_bytes_are_shown_readably(count: int, shown: str) -> None:
    assert format_bytes(count) == shown


def distribution(ledger: Ledger, metric: Metric) -> tuple[int, float]:
    """Return how many values a histogram has, and their sum."""
    seen = ledger.histograms["vpn", metric].distribution()
    return seen.cumulative[-1][1], seen.sum


def test_an_opening_is_counted_at_hand_over_and_the_call_at_its_end() -> None:
    ledger = Ledger()
    record = opened(ledger)
    record.phases.hello_s, record.phases.tls_s, record.phases.reach_s = 0.25, 0.5, 1.0
    ledger.handed_over(record)
    assert distribution(ledger, Metric.TLS) == (1, 0.5)
    assert distribution(ledger, Metric.OPENING) == (1, 1.75)
    assert ledger.handed_over_total == {"vpn": 1}
    assert ("vpn", Metric.DURATION) not in ledger.histograms
    with pytest.raises(RuntimeError, match="call 1 was handed over before"):
        ledger.handed_over(record)
    ledger.close(record, Outcome.COMPLETED, "client_ended", "", 4010.0)
    assert distribution(ledger, Metric.DURATION) == (1, 4000.0)
    assert distribution(ledger, Metric.TLS) == (1, 0.5), "once"
    with pytest.raises(RuntimeError, match="has ended"):
        ledger.handed_over(record)


def test_a_call_that_reaches_nobody_is_counted_at_its_end() -> None:
    ledger = Ledger()
    record = opened(ledger)
    record.phases.hello_s = 0.25
    ledger.close(record, Outcome.BACKEND_FAILED, "backend_timeout", "", 14.0)
    assert distribution(ledger, Metric.HELLO) == (1, 0.25)
    assert set(ledger.histograms) == {("vpn", Metric.HELLO)}, "no opening, no duration"


def test_visitors_do_not_make_calls_look_short() -> None:
    ledger = Ledger()
    record = opened(ledger)
    ledger.handed_over(record)
    ledger.close(record, Outcome.WEB, "client_ended", "", 11.0)
    assert ("vpn", Metric.DURATION) not in ledger.histograms

"""The events that are kept, and those who follow them."""

from typing import Any

from sstplb.control.events import CALL_EVENTS_KEPT, QUEUE_MAX, EventLog


def noted(log: EventLog, event: str, **values: Any) -> None:
    log.note(None, "info", {"event": event, "level": "info", **values})


def test_calls_do_not_crowd_out_what_matters() -> None:
    log = EventLog()
    noted(log, "backend_down")
    for _ in range(CALL_EVENTS_KEPT * 3):
        noted(log, "call_ended")
    kept = log.after(0, 10_000)
    assert kept[0]["event"] == "backend_down"
    assert len(kept) == CALL_EVENTS_KEPT + 1
    assert [e["id"] for e in kept] == sorted(e["id"] for e in kept)


def test_pages_follow_on_and_the_first_is_the_latest() -> None:
    log = EventLog()
    for _ in range(10):
        noted(log, "x")
    assert [e["id"] for e in log.after(0, 3)] == [8, 9, 10]
    assert [e["id"] for e in log.after(4, 3)] == [5, 6, 7]
    assert log.after(10, 3) == []


def test_values_are_what_json_can_carry_and_the_line_is_unchanged() -> None:
    log = EventLog()
    values = {"event": "x", "level": "info", "what": ValueError("no"), "many": (1, b"a")}
    assert log.note(None, "info", values) is values
    kept = log.after(0, 1)[0]
    assert (kept["what"], kept["many"]) == ("no", [1, "b'a'"])


def test_a_follower_that_does_not_keep_up_is_cut_off() -> None:
    log = EventLog()
    with log.follow() as slow, log.follow() as quick:
        for _ in range(QUEUE_MAX + 1):
            noted(log, "x")
            assert len(quick.take()) == 1
        assert slow.is_over
        assert not quick.is_over
        assert len(slow.take()) == QUEUE_MAX

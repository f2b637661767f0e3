"""When our mind changes about a backend, and when it does not."""

import pytest

from sstplb.balance.health import (
    REASONS_TOLD_MAX,
    Flip,
    FlipKind,
    Health,
    Verdict,
    apply_preset,
)
from sstplb.config.schema import Check, CheckPreset, Passive

GOOD, BAD = Verdict(True, reason="fine"), Verdict(False, reason="silence")
WRONG = Verdict(False, final=True, reason="expected 401, got 503")


def health(**check: object) -> Health:
    return Health(apply_preset(Check.model_validate(check)), Passive())


def flips(subject: Health, verdicts: str, step: float = 1.0) -> list[FlipKind | None]:
    """g: good, b: silence, w: wrong answer."""
    table = {"g": GOOD, "b": BAD, "w": WRONG}
    found = [subject.report(table[v], n * step) for n, v in enumerate(verdicts)]
    return [flip.kind if flip else None for flip in found]


UP, DOWN = FlipKind.UP, FlipKind.DOWN


def test_the_first_check_decides_alone() -> None:
    assert not health().is_up
    assert flips(health(), "g") == [UP]
    assert flips(health(initially_up=True), "b") == [DOWN]


def test_what_was_up_before_us_needs_as_many_bad_checks_as_ever() -> None:
    subject = health(fall=3)
    subject.is_known_to_be_up(0.0)
    assert subject.is_up
    assert flips(subject, "bbb") == [None, None, DOWN]


def test_rise_and_fall() -> None:
    assert flips(health(rise=2, fall=3), "gbbgbbbggbg") == [
        UP, None, None, None, None, None, DOWN, None, UP, None, None,
    ]  # fmt: skip


def test_verdicts_and_flips_are_counted_and_nothing_resets_that() -> None:
    subject = passive()  # it has had a good check
    subject.report(BAD, 1.0)
    subject.report(GOOD, 2.0)
    for _ in range(3):
        subject.call_failed("refused", 3.0)
    subject.call_succeeded(1000.0)
    subject.reset(1001.0)
    assert subject.checks_total == {True: 2, False: 1}
    assert {str(kind): count for kind, count in subject.flips_total.items()} == {
        "up": 1,
        "set_aside": 1,
        "back": 1,
    }


def test_a_flip_says_why_and_how_many() -> None:
    subject = health(fall=2)
    subject.report(GOOD, 0.0)
    subject.report(BAD, 1.0)
    assert subject.report(BAD, 2.0) == Flip(DOWN, "silence (2 bad checks in a row)")
    assert (subject.reason, subject.since) == ("silence (2 bad checks in a row)", 2.0)


def test_another_reason_to_be_down_is_told_once_and_the_present_one_is_shown() -> None:
    subject = health(fall=2, rise=2)
    still = FlipKind.STILL_DOWN
    assert flips(subject, "bbwbwbw") == [DOWN, None, still, None, None, None, None]
    assert subject.reason == WRONG.reason
    assert subject.since == 0.0, "it was down all the time"
    assert flips(subject, "b") == [None]
    assert subject.reason == "silence (first check)", "as at first"
    assert flips(subject, "g") == [None]
    assert subject.reason == "fine (1 good check, 2 are needed)"
    assert flips(subject, "bggbbw") == [None, None, UP, None, DOWN, still], "another time down"


def test_reasons_without_end_do_not_flood() -> None:
    subject = health()
    verdicts = [Verdict(False, reason=f"answer {number}") for number in range(50)]
    told = [v for v in verdicts if subject.report(v, 1.0) is not None]
    assert told == verdicts[:REASONS_TOLD_MAX]
    assert subject.reason == "answer 49"


def test_kemp_retries_silence_but_not_a_wrong_answer() -> None:
    assert flips(health(preset="kemp"), "gbbb") == [UP, None, None, DOWN]
    assert flips(health(preset="kemp"), "gw") == [UP, DOWN]


def test_f5_counts_seconds() -> None:
    subject = health(preset="f5")
    assert flips(subject, "gbbb", step=5.0) == [UP, None, None, None]
    assert subject.wake_at == 16.0
    assert subject.wake(15.9) is None
    flip = subject.wake(16.0)
    assert flip is not None
    assert flip.kind is DOWN
    assert flips(subject, "g") == [UP], "up at the first good answer"


def test_a_preset_gives_way_to_what_the_operator_wrote() -> None:
    check = apply_preset(Check.model_validate({"preset": "kemp", "interval": "2s"}))
    assert (check.interval, check.fall, check.timeout) == (2.0, 3, 4.0)
    assert apply_preset(check) == check
    assert apply_preset(Check(preset=CheckPreset.F5)).down_after == 16.0


def passive(failures: int = 3) -> Health:
    rules = {"failures": failures, "back_off": "10s", "back_off_max": "35s"}
    subject = Health(Check(), Passive.model_validate(rules))
    subject.report(GOOD, 0.0)
    return subject


def test_failed_calls_in_a_row_put_a_backend_aside() -> None:
    subject = passive()
    assert subject.call_failed("x", 1.0) is None
    assert subject.call_failed("x", 1.0) is None
    flip = subject.call_failed("refused", 2.0)
    assert flip is not None
    assert flip.kind is FlipKind.SET_ASIDE
    assert subject.is_set_aside(11.9)
    assert not subject.is_set_aside(12.0)
    assert subject.is_up, "aside is not down"


def test_the_back_off_doubles_to_its_limit_and_a_success_wipes_the_slate() -> None:
    subject, now, waits = passive(1), 1.0, []
    for _ in range(4):
        subject.call_failed("x", now)
        waits.append(subject.set_aside_until - now)
        now = subject.set_aside_until
    assert waits == [10.0, 20.0, 35.0, 35.0]
    flip = subject.call_succeeded(now)
    assert flip is not None
    assert flip.kind is FlipKind.BACK
    subject.call_failed("x", now)
    assert subject.set_aside_until - now == 10.0


def test_calls_that_fail_together_are_one_bad_moment() -> None:
    subject = passive(1)
    subject.call_failed("x", 1.0)
    for _ in range(10):
        assert subject.call_failed("x", 1.1) is None
    assert subject.set_aside_until == 11.0


def test_zero_failures_turns_it_off() -> None:
    subject = passive(0)
    assert [subject.call_failed("x", 1.0) for _ in range(50)] == [None] * 50


@pytest.mark.parametrize("good_between", [True, False])
def test_only_failures_in_a_row_count(good_between: bool) -> None:
    subject = passive(2)
    subject.call_failed("x", 1.0)
    if good_between:
        subject.call_succeeded(1.0)
    assert (subject.call_failed("x", 1.0) is None) == good_between


def test_good_calls_make_up_for_failed_ones_one_for_three() -> None:
    """A backend that fails every third call is found out, one that fails every fifth is not."""
    for every, is_found in ((3, True), (5, False)):
        subject = passive(3)
        for number in range(1, 200):
            if number % every:
                subject.call_succeeded(1.0)
            elif flip := subject.call_failed("x", 1.0):
                assert flip.reason == "x (7 of 19 calls failed; no new calls for 10 s)"
                break
        assert subject.is_set_aside(1.0) == is_found


def test_one_client_alone_cannot_put_a_backend_aside() -> None:
    subject = passive(3)
    assert [subject.call_failed("refused", 1.0, b"mallory") for _ in range(50)] == [None] * 50
    assert subject.call_failed("refused", 1.0, b"alice") is not None, "two are witnesses enough"
    again = subject.set_aside_until
    assert subject.call_failed("refused", again, b"mallory") is None
    assert subject.call_failed("refused", again, b"bob") is not None


def test_what_no_client_can_bring_about_counts_whoever_calls() -> None:
    subject = passive(3)
    assert [bool(subject.call_failed("503", 1.0)) for _ in range(3)] == [False, False, True]
    assert subject.set_aside_total == 1


def test_a_reason_says_how_many_in_a_row() -> None:
    subject = passive(2)
    subject.call_failed("x", 1.0)
    flip = subject.call_failed("x", 1.0)
    assert flip is not None
    assert flip.reason == "x (2 calls failed in a row; no new calls for 10 s)"

"""Limits name themselves, count exactly, and forget whom they need not remember."""

import pytest

from sstplb.balance.admission import Admission, Ticket
from sstplb.config.schema import Limits
from sstplb.errors import LimitReachedError

WIDE = {
    "calls_max": 100, "calls_max_per_client": 100, "openings_max": 100,
    "accept_rate_per_client": 1000, "accept_burst_per_client": 1000,
}  # fmt: skip


def admission(**limits: object) -> Admission:
    return Admission(Limits.model_validate({**WIDE, **limits}))


def admit(subject: Admission, host: str = "192.0.2.1", now: float = 0.0) -> Ticket:
    return subject.admit("vpn", 5, host, now)


def refused(subject: Admission, host: str = "192.0.2.1", now: float = 0.0) -> str:
    with pytest.raises(LimitReachedError) as caught:
        admit(subject, host, now)
    return caught.value.reason


@pytest.mark.parametrize(
    ("limits", "reason"),
    [
        ({"calls_max": 2}, "calls_max"),
        ({"openings_max": 2}, "openings_max"),
        ({"calls_max_per_client": 2}, "client_calls_max"),
        ({"accept_burst_per_client": 2, "accept_rate_per_client": 0.001}, "client_rate"),
    ],
)
def test_each_limit_names_itself(limits: dict[str, object], reason: str) -> None:
    subject = admission(**limits)
    admit(subject)
    admit(subject)
    assert refused(subject) == reason
    assert subject.refused_total == {reason: 1}
    assert (subject.calls, subject.openings, subject.admitted_total) == (2, 2, 2)


def test_the_listener_has_its_own_limit() -> None:
    subject = admission()
    for _ in range(5):
        admit(subject)
    assert refused(subject) == "listener_calls_max"
    subject.admit("other", 5, "192.0.2.1", 0.0)


def test_what_is_given_back_can_be_had_again_and_twice_changes_nothing() -> None:
    subject = admission(calls_max=1)
    ticket = admit(subject)
    ticket.opened()
    assert subject.openings == 0
    ticket.release()
    ticket.release()
    assert (subject.calls, subject.openings, len(subject.calls_by_client)) == (0, 0, 0)
    admit(subject)


def test_the_rate_is_what_it_says() -> None:
    subject = admission(accept_rate_per_client=10, accept_burst_per_client=5)
    admitted = 0
    for n in range(200):  # a hundred a second for two seconds
        try:
            subject.admit("vpn", 10**6, "192.0.2.1", n / 100)
        except LimitReachedError:
            continue
        admitted += 1
    assert admitted == pytest.approx(5 + 20, abs=1)


def test_clients_do_not_pay_for_each_other() -> None:
    subject = admission(accept_burst_per_client=1, accept_rate_per_client=0.1)
    admit(subject, "192.0.2.1")
    assert refused(subject, "192.0.2.1") == "client_rate"
    admit(subject, "192.0.2.2")
    admit(subject, "2001:db8::1")
    assert refused(subject, "2001:db8::2") == "client_rate", "one /64"


def test_a_client_known_later_is_counted_then() -> None:
    subject = admission(calls_max_per_client=1)
    admit(subject)
    ticket = subject.admit("vpn", 5, None, 0.0)
    with pytest.raises(LimitReachedError, match="client_calls_max"):
        ticket.client_is("192.0.2.1", 0.0)
    ticket.client_is("192.0.2.9", 0.0)
    ticket.release()
    assert len(subject.calls_by_client) == 1


def test_other_limits_hold_from_the_reload_on() -> None:
    subject = admission(calls_max=3)
    tickets = [admit(subject) for _ in range(3)]
    subject.reconfigure(Limits.model_validate({**WIDE, "calls_max": 2}))
    tickets.pop().release()
    assert refused(subject) == "calls_max", "nobody is sent away, nobody comes in"
    tickets.pop().release()
    admit(subject)

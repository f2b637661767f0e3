"""Calls put backends aside: who fails is found, by several witnesses, and no pool runs empty."""

import math
from collections import Counter

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from sstplb.balance.backend import Backend
from sstplb.balance.health import FlipKind, Verdict
from sstplb.balance.pool import Pool
from sstplb.config import schema
from sstplb.config.schema import Standing

BACK_OFF_S, BACK_OFF_MAX_S = 10.0, 300.0


def pool(count: int, **passive: object) -> Pool:
    backends = [{"name": f"b{n}", "address": f"10.0.0.{n}:443"} for n in range(count)]
    document = {"backends": backends, "affinity": {"enabled": False}, "passive": passive}
    made = Pool("p", schema.Pool.model_validate(document))
    for backend in made.backends:
        backend.health.report(Verdict(True), 0.0)
    return made


def asked(subject: Pool, now: float) -> set[str]:
    return {backend.name for backend in subject.candidates("192.0.2.1", now).backends}


def fail(backend: Backend, now: float, times: int = 3) -> None:
    for _ in range(times):
        backend.call_failed("backend_refused", "answered 503", now)


@pytest.mark.parametrize(
    ("count", "percent", "kept_away"),
    [(1, 100, 0), (2, 50, 1), (2, 100, 1), (3, 50, 1), (4, 50, 2), (10, 50, 5), (10, 1, 1),
     (10, 100, 9)],
)  # fmt: skip
def test_the_floor(count: int, percent: int, kept_away: int) -> None:
    subject = pool(count, set_aside_percent_max=percent)
    for number, backend in enumerate(subject.backends):
        fail(backend, 1.0 + number / 100)
    late = [f"b{n}" for n in range(count)][count - kept_away :]
    assert asked(subject, 2.0) == {b.name for b in subject.backends} - set(late)
    assert subject.usability(2.0).spared == asked(subject, 2.0), (
        "those set aside first come back first"
    )


def test_the_others_going_down_brings_back_who_was_set_aside() -> None:
    subject = pool(3)
    fail(subject.backends[0], 1.0)
    assert asked(subject, 1.0) == {"b1", "b2"}
    subject.backends[1].standing = Standing.DRAINING
    for _ in range(3):
        subject.backends[2].health.report(Verdict(False), 1.0)
    assert asked(subject, 1.0) == {"b0"}
    assert subject.reserve(subject.backends[0], "192.0.2.1", 1.0, spared=True)


def test_an_objection_counts_as_being_out() -> None:
    """Who expects another certificate than this client was shown cannot help out."""
    subject = pool(2)
    fail(subject.backends[0], 1.0)
    found = subject.candidates("192.0.2.1", 1.0, lambda b: "odd" if b.name == "b1" else None)
    assert [backend.name for backend in found.backends] == ["b0"]
    assert found.spared == {"b0"}


def test_one_that_is_full_is_not_out() -> None:
    """Calls are refused then, as they would be without the failures: full is not broken."""
    subject = pool(2)
    fail(subject.backends[0], 1.0)
    subject.backends[1].dialing = subject.backends[1].config.calls_max
    assert asked(subject, 1.0) == set()


def test_failures_are_counted_by_reason_even_while_set_aside() -> None:
    (backend,) = pool(1).backends
    fail(backend, 1.0, times=5)
    backend.call_failed("call_nak", "said no", 1.0, b"client")
    assert backend.failures_total == {"backend_refused": 5, "call_nak": 1}
    assert backend.health.set_aside_total == 1


class SetAsideMachine(RuleBasedStateMachine):
    """Whatever is said of whom and when."""

    @initialize(
        count=st.integers(1, 6),
        failures=st.integers(1, 5),
        makes_up=st.integers(1, 5),
        client_max=st.integers(1, 3),
        percent=st.integers(1, 100),
    )
    def begin(
        self, count: int, failures: int, makes_up: int, client_max: int, percent: int
    ) -> None:
        self.pool = pool(
            count,
            failures=failures,
            good_calls_per_failure=makes_up,
            client_failures_max=client_max,
            set_aside_percent_max=percent,
        )
        self.failures, self.client_max, self.percent = failures, client_max, percent
        self.now = 1.0
        self.said: dict[str, Counter[bytes | None]] = {}
        """Failures since the slate was last known to be clean, by who reported them."""
        self.last_back_off = dict.fromkeys((b.name for b in self.pool.backends), 0.0)

    def of(self, number: int) -> Backend:
        return self.pool.backends[number % len(self.pool.backends)]

    @rule(number=st.integers(0, 5), client=st.sampled_from([None, b"a", b"b", b"c"]))
    def fail(self, number: int, client: bytes | None) -> None:
        backend = self.of(number)
        was_aside = backend.health.is_set_aside(self.now)
        flip = backend.call_failed("x", "x", self.now, client)
        said = self.said.setdefault(backend.name, Counter())
        said[client] += 1
        if flip is None:
            return
        assert not was_aside, "what began earlier changes nothing"
        assert flip.kind is FlipKind.SET_ASIDE
        counted = sum(n if who is None else min(n, self.client_max) for who, n in said.items())
        assert counted >= self.failures, "it takes so many, and none of one client alone"
        length = backend.health.set_aside_until - self.now
        before = self.last_back_off[backend.name]
        expected = min(2 * before or BACK_OFF_S, BACK_OFF_MAX_S)
        assert math.isclose(length, expected), "doubled each time, up to its limit"
        self.last_back_off[backend.name] = length

    @rule(number=st.integers(0, 5))
    def succeed(self, number: int) -> None:
        backend = self.of(number)
        was_aside = backend.health.is_set_aside(self.now)
        flip = backend.health.call_succeeded(self.now)
        if was_aside:
            assert flip is None
        elif self.last_back_off[backend.name]:
            assert flip is not None
            assert flip.kind is FlipKind.BACK
            self.forget(backend)

    @precondition(lambda self: hasattr(self, "pool"))
    @rule(number=st.integers(0, 5), good=st.booleans())
    def check(self, number: int, good: bool) -> None:
        backend = self.of(number)
        flip = backend.health.report(Verdict(good), self.now)
        if flip is not None and flip.kind is FlipKind.UP:
            self.forget(backend)

    @rule(number=st.integers(0, 5), standing=st.sampled_from(list(Standing)))
    def stand(self, number: int, standing: Standing) -> None:
        self.of(number).standing = standing

    @rule(seconds=st.floats(0.1, 400))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    def forget(self, backend: Backend) -> None:
        self.last_back_off[backend.name] = 0.0
        self.said.pop(backend.name, None)

    @invariant()
    def the_floor_holds(self) -> None:
        if not hasattr(self, "pool"):
            return
        in_service = {b.name for b in self.pool.backends if b.out_of_service_because() is None}
        kept_away = in_service - asked(self.pool, self.now)
        aside = {b.name for b in self.pool.backends if b.health.is_set_aside(self.now)}
        assert kept_away <= aside
        assert len(kept_away) <= max(1, len(in_service) * self.percent // 100)
        assert not in_service or len(kept_away) < len(in_service), "never the last one"
        assert self.pool.could_serve(self.now) == bool(in_service)


SetAsideMachine.TestCase.settings = settings(max_examples=80, stateful_step_count=40, deadline=None)
test_set_aside_machine = SetAsideMachine.TestCase

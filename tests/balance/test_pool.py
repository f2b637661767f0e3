"""Who is asked, in which order: exact, bounded, and never somebody who cannot."""

from collections import Counter
from itertools import pairwise
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    rule,
)

from sstplb.balance.backend import Backend
from sstplb.balance.health import Verdict
from sstplb.balance.pool import Candidates, Place, Pool
from sstplb.config import schema
from sstplb.config.schema import Standing
from sstplb.errors import BackendError


def pool(count: int = 3, previous: Pool | None = None, **settings: object) -> Pool:
    backends = settings.pop("backends", None) or [
        {"name": f"b{n}", "address": f"10.0.0.{n}:443"} for n in range(count)
    ]
    document = {"affinity": {"enabled": False}, **settings, "backends": backends}
    made = Pool("p", schema.Pool.model_validate(document), previous)
    for backend in made.backends:
        if not backend.health.is_checked:
            backend.health.report(Verdict(True), 0.0)
    return made


def first(subject: Pool, host: str = "192.0.2.1", now: float = 1.0) -> str:
    return subject.candidates(host, now).backends[0].name


def call(subject: Pool, host: str = "192.0.2.1", now: float = 1.0) -> Place:
    place = subject.reserve(subject.candidates(host, now).backends[0], host, now)
    place.handed_over(now)
    return place


def down(backend: Backend) -> None:
    for _ in range(3):
        backend.health.report(Verdict(False), 1.0)


@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_round_robin_is_exact(count: int) -> None:
    subject = pool(count)
    shares = Counter(first(subject) for _ in range(count * 5))
    assert set(shares.values()) == {5}


def test_who_is_away_is_skipped_and_nobody_gets_two_in_a_row() -> None:
    subject = pool(3)
    picks = [first(subject) for _ in range(3)]
    subject.backends[1].standing = Standing.DRAINING
    picks += [first(subject) for _ in range(4)]
    subject.backends[1].standing = Standing.ACTIVE
    picks += [first(subject) for _ in range(6)]
    assert all(a != b for a, b in pairwise(picks))
    assert Counter(picks[-6:]) == {"b0": 2, "b1": 2, "b2": 2}


def test_weights_are_exact_and_spread() -> None:
    backends = [
        {"name": "a", "address": "10.0.0.1", "weight": 5},
        {"name": "b", "address": "10.0.0.2"},
        {"name": "c", "address": "10.0.0.3"},
    ]
    subject = pool(strategy="weighted_round_robin", backends=backends)
    picks = [first(subject) for _ in range(14)]
    assert Counter(picks) == {"a": 10, "b": 2, "c": 2}
    assert "aaaaa" not in "".join(picks[:7])


def test_least_calls_by_weight() -> None:
    backends = [
        {"name": "a", "address": "10.0.0.1", "weight": 2},
        {"name": "b", "address": "10.0.0.2"},
    ]
    subject = pool(strategy="least_calls", backends=backends)
    places = [call(subject) for _ in range(9)]
    assert Counter(place.backend.name for place in places) == {"a": 6, "b": 3}


def test_source_hash_is_stable_and_moves_little() -> None:
    hosts = [f"198.51.100.{n}" for n in range(1, 255)]
    subject = pool(5, strategy="source_hash")
    before = {host: first(subject, host) for host in hosts}
    assert before == {host: first(pool(5, strategy="source_hash"), host) for host in hosts}
    down(subject.backends[2])
    after = {host: first(subject, host) for host in hosts}
    moved = {host for host in hosts if before[host] != after[host]}
    assert moved == {host for host in hosts if before[host] == "b2"}
    assert all(20 < count < 90 for count in Counter(before.values()).values())


@pytest.mark.parametrize("strategy", ["round_robin", "weighted_round_robin"])
@given(st.lists(st.booleans(), min_size=1, max_size=60), st.randoms(use_true_random=False))
def test_a_turn_that_is_given_back_is_not_lost(
    strategy: str, visitors: list[bool], random: Random
) -> None:
    """However visitors come between the calls, and whenever they leave: the calls are exact."""
    subject = pool(3, strategy=strategy)
    waiting: list[Candidates] = []
    calls: Counter[str] = Counter()
    for is_visitor in visitors:
        found = subject.claim("192.0.2.1", 1.0)
        if is_visitor:
            waiting.append(found)
        else:
            subject.used(found)
            calls[found.backends[0].name] += 1
        if waiting and random.random() < 0.5:
            subject.give_back(waiting.pop(random.randrange(len(waiting))))
    for found in waiting:
        subject.give_back(found)
    # With everybody's turn given back, the next calls make up for what is missing.
    for _ in range(-sum(calls.values()) % 3 + 3 * len(visitors)):
        calls[first(subject)] += 1
    assert len(set(calls.values())) == 1
    assert len(calls) == 3
    assert all(backend.claimed == 0 for backend in subject.backends)


def test_what_is_given_back_comes_in_turn_not_in_a_burst() -> None:
    subject = pool(3)
    for found in [subject.claim("192.0.2.1", 1.0) for _ in range(7)]:
        subject.give_back(found)
    assert "".join(first(subject)[1] for _ in range(9)) == "012012012"


def test_what_was_claimed_may_be_taken_although_it_drains_by_now() -> None:
    subject = pool(2)
    found = subject.claim("192.0.2.1", 1.0)
    backend = found.backends[0]
    assert backend.claimed == 1
    backend.standing = Standing.DRAINING
    with pytest.raises(BackendError):
        subject.reserve(backend, "192.0.2.1", 1.0)
    subject.reserve(backend, "192.0.2.1", 1.0, claimed=True)
    backend.standing = Standing.OFF
    with pytest.raises(BackendError):
        subject.reserve(backend, "192.0.2.1", 1.0, claimed=True)


def test_affinity_comes_first_and_expires_after_the_last_call() -> None:
    subject = pool(3, affinity={"enabled": True, "timeout": "60s"})
    place = call(subject)
    name = place.backend.name
    assert [first(subject, now=now) for now in (2.0, 1000.0)] == [name, name], "a call is running"
    place.release(1000.0)
    assert first(subject, now=1059.0) == name
    others = {first(subject, now=1061.0 + n) for n in range(3)}
    assert len(others) == 3


def test_who_timed_out_is_not_counted_and_pins_are_counted_apart() -> None:
    subject = pool(affinity={"enabled": True, "timeout": "300s"})
    table = subject.affinity
    call(subject, now=1.0).release(10.0)
    table.pin(table.key("192.0.2.9"), "rras1")
    assert (table.count(309.0), table.pins_count) == (1, 1)
    assert (table.count(310.0), table.pins_count) == (0, 1)


def test_affinity_follows_the_one_that_really_took_the_call() -> None:
    subject = pool(2, affinity={"enabled": True})
    found = subject.candidates("192.0.2.1", 1.0).backends
    subject.reserve(found[0], "192.0.2.1", 1.0).release(1.0)
    subject.reserve(found[1], "192.0.2.1", 1.0).handed_over(1.0)
    assert first(subject) == found[1].name


@pytest.mark.parametrize("strategy", list(schema.Strategy))
def test_who_failed_a_client_is_asked_last_by_it(strategy: schema.Strategy) -> None:
    subject = pool(3, affinity={"enabled": True, "timeout": "60s"}, strategy=strategy)
    place = call(subject)
    place.failed()
    place.release(1.0)
    found = [subject.candidates("192.0.2.1", 2.0) for _ in range(6)]
    assert {f.backends[-1].name for f in found} == {place.backend.name}
    assert not any(f.by_affinity for f in found)
    assert not list(subject.affinity.remembered(2.0))
    assert not list(subject.affinity.kept(2.0)), "nobody is to be led there after a restart either"
    everybody = {first(subject, f"192.0.3.{n}", 2.0) for n in range(99)}
    assert place.backend.name in everybody, "to others it is a backend like any other"
    again = call(subject, now=3.0)
    assert first(subject) == again.backend.name != place.backend.name


def test_who_failed_is_forgotten_only_where_it_is_remembered_and_never_unpinned() -> None:
    subject = pool(2, affinity={"enabled": True})
    found = subject.candidates("192.0.2.1", 1.0).backends
    bad = subject.reserve(found[0], "192.0.2.1", 1.0)
    bad.handed_over(1.0)
    subject.reserve(found[1], "192.0.2.1", 1.0).handed_over(2.0)
    bad.failed()
    assert {first(subject) for _ in range(4)} == {found[1].name}
    subject.affinity.pin(subject.affinity.key("192.0.2.2"), "b0")
    place = call(subject, "192.0.2.2")
    place.failed()
    assert {first(subject, "192.0.2.2") for _ in range(4)} == {place.backend.name} == {"b0"}


def test_who_is_alone_is_asked_again_and_remembered_when_it_does_well() -> None:
    subject = pool(1, affinity={"enabled": True})
    call(subject).failed()
    call(subject)
    assert subject.candidates("192.0.2.1", 1.0).by_affinity


def test_clients_of_one_network_are_one_and_mapped_addresses_are_ipv4() -> None:
    subject = pool(3, affinity={"enabled": True, "prefix_v4": 24})
    name = call(subject, "192.0.2.1").backend.name
    assert first(subject, "192.0.2.200") == name
    assert first(subject, "::ffff:192.0.2.7") == name


def test_the_table_is_bounded() -> None:
    subject = pool(2, affinity={"enabled": True, "entries_max": 10})
    for n in range(50):
        call(subject, f"192.0.2.{n}").release(1.0)
    assert len(subject.affinity) == 10
    assert subject.affinity.counters.evicted == 40


def test_backups_only_after_all_others() -> None:
    backends = [
        {"name": "spare", "address": "10.0.0.9", "backup": True},
        {"name": "a", "address": "10.0.0.1"},
        {"name": "b", "address": "10.0.0.2"},
    ]
    subject = pool(backends=backends)
    assert [b.name for b in subject.candidates("192.0.2.1", 1.0).backends][-1] == "spare"
    assert {first(subject) for _ in range(10)} == {"a", "b"}
    down(subject.backends[1])
    down(subject.backends[2])
    assert first(subject) == "spare"


def test_why_the_others_are_out_is_told() -> None:
    subject = pool(6)
    subject.backends[0].standing = Standing.OFF
    subject.backends[1].standing = Standing.DRAINING
    down(subject.backends[2])
    for _ in range(3):
        subject.backends[3].health.call_failed("x", 1.0)
    found = subject.candidates("192.0.2.1", 1.0, lambda b: "odd" if b.name == "b4" else None)
    assert [backend.name for backend in found.backends] == ["b5"]
    assert dict(found.excluded) == {
        "b0": "standing_off", "b1": "draining", "b2": "down", "b3": "set_aside", "b4": "odd",
    }  # fmt: skip


def test_calls_max_holds_for_calls_that_are_dialing() -> None:
    subject = pool(backends=[{"name": "a", "address": "10.0.0.1", "calls_max": 2}])
    (backend,) = subject.backends
    places = [subject.reserve(backend, "192.0.2.1", 1.0) for _ in range(2)]
    assert subject.candidates("192.0.2.1", 1.0).backends == ()
    with pytest.raises(BackendError) as caught:
        subject.reserve(backend, "192.0.2.1", 1.0)
    assert caught.value.reason == "calls_max"
    places[0].release(1.0)
    places[0].release(1.0)
    assert backend.places_taken == 1


def test_a_reload_keeps_who_stays() -> None:
    old = pool(3, affinity={"enabled": True})
    place = call(old)
    backends = [
        {"name": "b1", "address": "10.0.0.1:443"},
        {"name": "b0", "address": "10.0.0.0:443"},
        {"name": "b2", "address": "10.0.0.99:443"},
    ]
    new = pool(backends=backends, previous=old, affinity={"enabled": True})
    by_name = {b.name: b for b in new.backends}
    assert by_name["b0"] is old.backends[0]
    assert by_name["b2"] is not old.backends[2], "another address is another server"
    assert first(new) == place.backend.name
    place.release(2.0)
    assert by_name[place.backend.name].calls == 0


def test_the_files_standing_counts_only_when_the_file_changed_it() -> None:
    old = pool(2)
    old.backends[0].standing = Standing.DRAINING  # the operator, at run time
    assert pool(2, previous=old).backends[0].standing is Standing.DRAINING


def test_a_name_that_moves_starts_anew_for_new_calls() -> None:
    subject = pool(backends=[{"name": "a", "address": "rras.example.test"}])
    (backend,) = subject.backends
    assert backend.unusable_because(1.0) == "unresolved"
    assert backend.set_address(("10.0.0.1", "10.0.0.2"), 1.0)
    assert backend.unusable_because(1.0) is None
    assert not backend.set_address(("10.0.0.2", "10.0.0.1"), 2.0), "still among the answers"
    assert not backend.set_address((), 3.0), "no answer changes nothing"
    assert backend.set_address(("10.0.0.3",), 4.0)
    assert backend.unusable_because(4.0) == "down", "the next check decides"


class PoolMachine(RuleBasedStateMachine):
    """Calls come and go while backends change: counts match, limits hold, nobody unfit is asked."""

    places = Bundle("places")

    @initialize(strategy=st.sampled_from(list(schema.Strategy)), affinity=st.booleans())
    def begin(self, strategy: schema.Strategy, affinity: bool) -> None:
        backends = [
            {"name": f"b{n}", "address": f"10.0.0.{n}", "calls_max": 4, "weight": n + 1}
            for n in range(4)
        ]
        self.pool = pool(
            backends=backends, strategy=strategy, affinity={"enabled": affinity, "entries_max": 3}
        )
        self.running: Counter[str] = Counter()
        self.now = 1.0

    @rule(target=places, host=st.sampled_from([f"192.0.2.{n}" for n in range(6)]))
    def call(self, host: str) -> tuple[Place, str] | None:
        found = self.pool.candidates(host, self.now)
        for backend in found.backends:
            assert backend.unusable_because(self.now) is None
        if not found.backends:
            return None
        place = self.pool.reserve(found.backends[0], host, self.now)
        place.handed_over(self.now)
        self.running[place.backend.name] += 1
        return place, place.backend.name

    @rule(held=consumes(places))
    def end(self, held: tuple[Place, str] | None) -> None:
        if held is not None:
            held[0].release(self.now)
            self.running[held[1]] -= 1

    @rule(number=st.integers(0, 3), standing=st.sampled_from(list(Standing)))
    def stand(self, number: int, standing: Standing) -> None:
        self.pool.backends[number].standing = standing

    @rule(number=st.integers(0, 3), good=st.booleans())
    def check(self, number: int, good: bool) -> None:
        self.pool.backends[number].health.report(Verdict(good), self.now)

    @rule(seconds=st.floats(0.1, 500))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule()
    def reload(self) -> None:
        self.pool = Pool("p", self.pool.config, self.pool)

    @invariant()
    def counts_match(self) -> None:
        if hasattr(self, "pool"):
            for backend in self.pool.backends:
                assert backend.calls == self.running[backend.name] <= backend.config.calls_max
                assert backend.dialing == 0
            assert len(self.pool.affinity) <= 3


PoolMachine.TestCase.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)
test_pool_machine = PoolMachine.TestCase

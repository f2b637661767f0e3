"""Rounds: nobody too early, nobody much too late, and nobody for somebody else's mistake."""

import asyncio
from time import monotonic

from sstplb.net.rounds import LATE_SHARE, Rounds
from tests.characters import play

SLACK_S = 0.1


class Sleeper:
    def __init__(self, pause_s: float) -> None:
        self.pause_s = pause_s
        self.began = monotonic()
        self.looked_at_s: list[float] = []

    def look(self) -> None:
        self.looked_at_s.append(monotonic() - self.began)


class Clumsy(Sleeper):
    def look(self) -> None:
        super().look()
        raise RuntimeError("oops")


def test_everybody_is_looked_at_once_and_in_time() -> None:
    async def story() -> None:
        rounds = Rounds()
        sleepers = [Sleeper(pause_s) for pause_s in (0.0, 0.01, 0.1, 0.101, 0.25, 0.5)]
        for sleeper in sleepers:
            rounds.join(sleeper, sleeper.pause_s)
        await asyncio.sleep(0.7)
        for sleeper in sleepers:
            (after_s,) = sleeper.looked_at_s
            late_s = after_s - sleeper.pause_s
            assert -0.002 <= late_s <= sleeper.pause_s / LATE_SHARE + SLACK_S

    play(story)


def test_many_share_a_timer_and_who_leaves_is_not_looked_at() -> None:
    async def story() -> None:
        rounds = Rounds()
        sleepers = [Sleeper(0.2) for _ in range(100)]
        companies = [rounds.join(sleeper, 0.2) for sleeper in sleepers]
        assert len({id(company) for company in companies}) <= 2
        companies[7].discard(sleepers[7])
        await asyncio.sleep(0.3)
        assert [n for n, sleeper in enumerate(sleepers) if not sleeper.looked_at_s] == [7]

    play(story)


def test_a_mistake_is_told_and_the_others_are_looked_at() -> None:
    async def story() -> None:
        told: list[object] = []
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: told.append(context["exception"]))
        rounds, all_of_them = Rounds(), [Sleeper(0.05), Clumsy(0.05), Sleeper(0.05)]
        for sleeper in all_of_them:
            rounds.join(sleeper, 0.05)
        await asyncio.sleep(0.15)
        assert all(len(sleeper.looked_at_s) == 1 for sleeper in all_of_them)
        assert [str(error) for error in told] == ["oops"]

    play(story)

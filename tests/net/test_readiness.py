"""The watch of the relays: who is called, who is not, and what is left behind."""

import asyncio
import socket
from collections.abc import Callable
from functools import partial

from sstplb.net.readiness import EVENTS_AT_ONCE, Readiness, Watch
from tests.characters import play


class Reader:
    def __init__(self, then: Callable[[], object]) -> None:
        self._then = then

    def on_readable(self) -> None:
        self._then()


def test_everybody_who_has_something_to_read_is_told() -> None:
    async def story() -> None:
        loop = asyncio.get_running_loop()
        watch, called = Watch(loop), set[int]()
        pairs = [socket.socketpair() for _ in range(EVENTS_AT_ONCE + 50)]
        ready = [Readiness(near, loop) for near, _ in pairs]

        def callback(number: int) -> None:
            called.add(number)
            pairs[number][0].recv(10)

        for number, one in enumerate(ready):
            one.watch(watch, Reader(partial(callback, number)))
        for _, far in pairs[1:]:
            far.send(b"x")
        await asyncio.sleep(0.05)
        assert called == set(range(1, len(pairs)))
        for one in ready:
            one.forget()
        watch.close()
        for near, far in pairs:
            near.close()
            far.close()

    play(story)


def test_who_was_closed_by_another_of_the_same_turn_is_not_told() -> None:
    async def story() -> None:
        loop = asyncio.get_running_loop()
        watch, called = Watch(loop), list[str]()
        pairs = {name: socket.socketpair() for name in ("first", "second")}
        ready = {name: Readiness(near, loop) for name, (near, _) in pairs.items()}

        def close_the_other(me: str, other: str) -> None:
            called.append(me)
            ready[me].unwatch()
            ready[other].forget()
            pairs[other][0].close()

        for me, other in (("first", "second"), ("second", "first")):
            ready[me].watch(watch, Reader(partial(close_the_other, me, other)))
        for _, far in pairs.values():
            far.send(b"x")
        await asyncio.sleep(0.05)
        assert len(called) == 1
        ready[called[0]].forget()
        watch.close()
        for near, far in pairs.values():
            near.close()
            far.close()

    play(story)


def test_a_coroutine_may_wait_before_and_after_a_reader() -> None:
    async def story() -> None:
        loop = asyncio.get_running_loop()
        watch = Watch(loop)
        near, far = socket.socketpair()
        ready, called = Readiness(near, loop), asyncio.Event()
        far.send(b"x")
        await ready.readable()
        ready.watch(watch, Reader(called.set))
        await called.wait()
        ready.unwatch()
        await ready.readable()
        assert near.recv(1) == b"x"
        ready.forget()
        watch.close()
        near.close()
        far.close()

    play(story)

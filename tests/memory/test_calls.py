"""Thousands of calls through a balancer leave no memory, no descriptor, no task and no record."""

import asyncio
import gc
import ssl
import sys
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path

import pytest

from sstplb.lab.pki import Issued, LabPki
from tests.characters import ANSWER, Stage, packets, play, staged, until
from tests.memory.counted import heap_bytes

COUNT = 2000
WARM_UP = 1200
"""Until the rings are full: 1,000 records of calls that ended are kept, and as many events."""
AT_ONCE = 20
HEAP_GROWN_MAX = 65_536
TABLES = 2
"""How many large tables may be made larger meanwhile. That is a step of up to a megabyte, once, and
the next COUNT calls show none; what leaks goes on."""
OBJECTS_GROWN_MAX = COUNT // 2
"""Python's. One that is kept of each call makes COUNT; but the records in the ring are not all of
one size, and which they are is a matter of time."""
HELLO = packets(1404)


@dataclass
class Held:
    """What this process has: the balancer, its clients and its backends."""

    heap_bytes: int
    objects: int
    descriptors: int
    tasks: int

    @classmethod
    def now(cls) -> "Held":
        gc.collect()
        gc.collect()
        return cls(
            heap_bytes(),
            sys.getallocatedblocks(),
            len(list(Path("/proc/self/fd").iterdir())),
            len(asyncio.all_tasks()),
        )

    @classmethod
    async def at_rest(cls) -> "Held":
        """Return what is held when the last to close has closed: when it is less no more."""
        held = cls.now()
        for _ in range(50):
            await asyncio.sleep(0.3)
            earlier, held = held, cls.now()
            if (
                (held.tasks, held.descriptors) == (earlier.tasks, earlier.descriptors)
                and abs(held.objects - earlier.objects) < 20
                and abs(held.heap_bytes - earlier.heap_bytes) < 4096
            ):
                break
        return held


class Lasting(Stage):
    """A stage that keeps nothing of its calls itself."""

    _trust: ssl.SSLContext | None = None

    def context(self) -> ssl.SSLContext:
        self._trust = self._trust or super().context()
        return self._trust

    def forget(self) -> None:
        self._clients.clear()
        for backend in self.backends:
            backend.heads.clear()


async def call(stage: Stage, end: str) -> None:
    client = await stage.client()
    if end == "before it is open":
        client.reset()
        return
    assert await client.open(pipelined=HELLO) == ANSWER
    assert await client.receive(len(HELLO)) == HELLO
    if end == "abruptly":
        client.reset()
    else:
        await client.close()


async def calls(stage: Lasting, count: int) -> None:
    before = stage.balancer.ledger.opened_total
    ends = cycle(["well", "abruptly", "well", "before it is open", "well"])
    for _ in range(count // AT_ONCE):
        await asyncio.gather(*(call(stage, next(ends)) for _ in range(AT_ONCE)))
        stage.forget()
    book = stage.balancer.ledger
    await until(lambda: not book.running and book.opened_total == before + count)
    await until(lambda: not any(backend._handlers for backend in stage.backends))


@pytest.mark.timeout(120)  # a step, on a machine that is busy
@pytest.mark.parametrize(
    ("mode", "engine"),
    [
        ("passthrough", "native"),
        ("offload", "native"),
        ("reencrypt", "native"),
        ("reencrypt", "portable"),
    ],
)
def test_thousands_of_calls_leave_nothing_behind(
    mode: str, engine: str, pki: LabPki, served: Issued
) -> None:
    async def story() -> None:
        stage = Lasting(mode, pki.root_path, served)
        stage.engine = engine
        stage.pool["check"] = {"interval": "1h", "timeout": "1s"}
        stage.limits = {"accept_rate_per_client": 1e6}
        async with staged(stage):
            await calls(stage, WARM_UP)
            told = [await Held.at_rest()]
            for _ in range(TABLES + 1):
                await calls(stage, COUNT)
                told.append(await Held.at_rest())
                before, after = told[-2:]
                if after.heap_bytes - before.heap_bytes <= HEAP_GROWN_MAX:
                    break
            print(*told, sep="\n")
            assert after.heap_bytes - before.heap_bytes <= HEAP_GROWN_MAX, told
            assert after.objects - before.objects <= OBJECTS_GROWN_MAX, told
            assert after.tasks <= told[0].tasks, told
            assert after.descriptors <= told[0].descriptors, told
            assert stage.balancer.ledger.opened_total == WARM_UP + COUNT * (len(told) - 1)

    play(story, limit_s=115.0)

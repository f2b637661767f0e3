"""From a command's begin to its end: whoever ends it, what it made is cleared away.

Ctrl-C cancels the work already (``asyncio.Runner``); SIGTERM, which is what ``kill``, ``timeout``
and service managers send, does the same here. A second one is the system's: it ends at once.
"""

import asyncio
import signal
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

import uvloop

TERMINATED = 128 + signal.SIGTERM
"""A shell's exit code for it."""
T = TypeVar("T")


def run(work: Coroutine[Any, Any, T]) -> T:
    """Do the work. Raises SystemExit when SIGTERM ended it."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        try:
            return runner.run(_until_terminated(work))
        except asyncio.CancelledError:
            raise SystemExit(TERMINATED) from None


async def _until_terminated(work: Coroutine[Any, Any, T]) -> T:
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    assert task is not None, "run makes it one"

    def end() -> None:
        loop.remove_signal_handler(signal.SIGTERM)
        task.cancel()

    if threading.current_thread() is threading.main_thread():  # the only one that may
        loop.add_signal_handler(signal.SIGTERM, end)
    return await work

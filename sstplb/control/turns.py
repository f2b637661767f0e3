"""Whose turn it is: what operators ask for and has to wait is done one thing after another.

Two reloads never interleave, nor does a standing that is changed while a backend is removed. And
once the balancer stops, its listeners are closed for good: what needs them is refused.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator

from sstplb.errors import ConflictError


class Turns:
    """The turns of one balancer's operators."""

    def __init__(self) -> None:
        self.stopping = asyncio.Event()
        """Set when somebody asked to stop."""
        self._busy = asyncio.Lock()

    @contextlib.asynccontextmanager
    async def take(self) -> AsyncIterator[None]:
        """Wait for a turn, and have it."""
        async with self._busy:
            yield

    @contextlib.asynccontextmanager
    async def take_while_it_stays(self) -> AsyncIterator[None]:
        """Do the same for what makes no sense while the balancer stops. Raises ConflictError."""
        async with self._busy:
            self.insist_that_it_stays()
            yield

    def insist_that_it_stays(self) -> None:
        """Raise ConflictError while the balancer stops; ask again after a wait."""
        if self.stopping.is_set():
            raise ConflictError("the balancer is stopping: change the file, and start it again")

"""Server-sent events: what happens, as it happens, and the whole overview once a second.

``event: overview`` at once and then every second, ``event: event`` for each log event, a comment
line every 15 s for whatever stands in between. The overview is made once for all who follow.

Nobody is waited for: a reader that takes longer than ``SLOW_S`` for what it was sent, or falls
``QUEUE_MAX`` events behind (``control/events.py``), is cut off; its browser will connect again.
"""

import asyncio
import contextlib
from typing import Any

from pydantic_core import to_json
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from sstplb.control.events import Follower
from sstplb.control.operator import Operator
from sstplb.errors import UnavailableError
from sstplb.net.call import now_s

OVERVIEW_EVERY_S = 1.0
COMMENT_EVERY_S = 15.0
SLOW_S = 10.0


class Streams:
    """All who follow."""

    def __init__(self, operator: Operator) -> None:
        self.operator = operator
        self.count = 0
        self._overview = b""
        self._overview_until = 0.0

    def stream(self) -> "EventStream":
        """Return the answer to one more. Raises UnavailableError."""
        if self.operator.is_closing:
            raise UnavailableError("the admin side is closing")
        most = self.operator.configuration.in_force.admin.streams_max
        if self.count >= most:
            text = f"{most} follow already: close one, or raise admin.streams_max"
            raise UnavailableError(text, "admin.streams_max")
        return EventStream(self)

    def overview(self) -> bytes:
        """Return the overview as one event, at most half a second old."""
        now = now_s()
        if now >= self._overview_until:
            self._overview = _frame("overview", self.operator.sight.overview())
            self._overview_until = now + OVERVIEW_EVERY_S / 2
        return self._overview


class EventStream(Response):
    """One stream of events."""

    media_type = "text/event-stream"

    def __init__(self, streams: Streams) -> None:
        super().__init__()
        self._streams = streams

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 - ASGI
        """Send until the reader leaves, is too slow, or the admin side closes (ASGI)."""
        self._streams.count += 1
        try:
            with self._streams.operator.events.follow() as follower:
                watch = asyncio.create_task(_watch(receive, follower), name="reader of events")
                try:
                    await self._send_all(send, follower)
                finally:
                    watch.cancel()
                    with contextlib.suppress(asyncio.CancelledError):
                        await watch
        finally:
            self._streams.count -= 1

    async def _send_all(self, send: Send, follower: Follower) -> None:
        headers = [
            (b"content-type", b"text/event-stream; charset=utf-8"),
            (b"x-accel-buffering", b"no"),
        ]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        overview_at, comment_at = now_s(), now_s() + COMMENT_EVERY_S
        try:
            while not follower.is_over:
                parts = [_frame("event", event, event["id"]) for event in follower.take()]
                now = now_s()
                if now >= overview_at:
                    parts.append(self._streams.overview())
                    overview_at = now + OVERVIEW_EVERY_S
                if now >= comment_at:
                    parts.append(b": still here\n\n")
                    comment_at = now + COMMENT_EVERY_S
                if parts:
                    body = b"".join(parts)
                    async with asyncio.timeout(SLOW_S):
                        await send({"type": "http.response.body", "body": body, "more_body": True})
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(max(0.0, min(overview_at, comment_at) - now_s())):
                        await follower.stirred.wait()
            async with asyncio.timeout(SLOW_S):
                await send({"type": "http.response.body", "body": b"", "more_body": False})
        except TimeoutError:
            return  # too slow: the server closes a connection whose answer was not finished


async def _watch(receive: Receive, follower: Follower) -> None:
    """Note when the reader leaves."""
    while (await receive())["type"] != "http.disconnect":
        pass
    follower.end()


def _frame(kind: str, content: Any, number: int | None = None) -> bytes:
    """Return one server-sent event; JSON holds no newline."""
    head = f"id: {number}\n" if number is not None else ""
    return f"{head}event: {kind}\ndata: ".encode() + to_json(content) + b"\n\n"

"""A real browser for the stories: Debian's Chromium, headless, driven by Playwright.

Both are started once, in an event loop of their own, and every story with a page is played in that
loop with a browser context to itself. Whatever the page complains of on the console fails it.
"""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import uvloop
from playwright.async_api import ConsoleMessage, Page, async_playwright, expect

from tests.desk import OperatedStage, address_of

CHROMIUM = "/usr/bin/chromium"
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
)  # fmt: skip
PATIENCE_MS = 15_000.0
expect.set_options(timeout=PATIENCE_MS)


class Browser:
    """Chromium, and the loop in which it is spoken to."""

    def __init__(self) -> None:
        self._loop = uvloop.new_event_loop()
        self._loop.run_until_complete(self._start())

    async def _start(self) -> None:
        self._playwright = await async_playwright().start()
        self._chromium = await self._playwright.chromium.launch(
            executable_path=CHROMIUM, args=list(FLAGS)
        )

    def close(self) -> None:
        """End both."""
        self._loop.run_until_complete(self._chromium.close())
        self._loop.run_until_complete(self._playwright.stop())
        # No asyncio.Runner: with uvloop, its end now and then waits for the executor for ever.
        self._loop.close()

    def play(self, story: Callable[[], Awaitable[None]], limit_s: float = 50.0) -> None:
        """Play a story with pages."""

        async def whole() -> None:
            async with asyncio.timeout(limit_s):
                await story()

        self._loop.run_until_complete(whole())

    @contextlib.asynccontextmanager
    async def page(
        self, stage: OperatedStage, path: str = "/", **context_options: Any
    ) -> AsyncIterator[Page]:
        """Open the balancer's page; afterwards see that it had nothing to complain of."""
        complaints: list[str] = []

        def hear(message: ConsoleMessage) -> None:
            is_network = "Failed to load resource" in message.text  # a story may want just that
            if message.type in ("error", "warning") and not is_network:
                complaints.append(message.text)

        context = await self._chromium.new_context(timezone_id="UTC", **context_options)
        context.set_default_timeout(PATIENCE_MS)
        try:
            page = await context.new_page()
            page.on("console", hear)
            page.on("pageerror", lambda error: complaints.append(str(error)))
            await page.goto(f"http://{address_of(stage)}{path}")
            yield page
        finally:
            await context.close()
        assert not complaints

    async def busy_ms_per_s(self, page: Page, seconds: float) -> float:
        """Return how much CPU the page's thread uses, in milliseconds for each second.

        It is the thread's own time: what else the machine does is not in it.
        """
        kinds = ["devtools.timeline", "disabled-by-default-devtools.timeline"]
        await self._chromium.start_tracing(page=page, categories=kinds)
        await page.wait_for_timeout(seconds * 1000)
        seen = json.loads(await self._chromium.stop_tracing())["traceEvents"]
        drawing = {
            (event["pid"], event["tid"])
            for event in seen
            if event["name"] == "thread_name" and event["args"]["name"] == "CrRendererMain"
        }
        tasks = [
            event["tdur"]
            for event in seen
            if event["name"] == "RunTask" and (event["pid"], event["tid"]) in drawing
        ]
        assert tasks, "it has done something"
        return float(sum(tasks)) / 1000 / seconds

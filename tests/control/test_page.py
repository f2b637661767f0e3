"""The page in a real Chromium, against a balancer that carries calls."""

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Page, Route, expect

from sstplb.account.record import Outcome
from sstplb.config.schema import PoolTls, Standing, Verify
from sstplb.lab.caller import CallPlan, place_call
from sstplb.lab.pki import Issued, LabPki
from sstplb.lab.rras import Rras, RrasSettings
from sstplb.net.call import now_s
from sstplb.tls.policy import ClientPolicy
from tests.browser import Browser
from tests.characters import SERVER_NAME, staged
from tests.desk import TOKEN, OperatedStage, token_file

pytestmark = pytest.mark.browser


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    browser = Browser()
    yield browser
    browser.close()


@pytest.fixture
def stage(tmp_path: Path, pki: LabPki, served: Issued) -> OperatedStage:
    stage = OperatedStage(tmp_path, "offload", pki.root_path, served)
    stage.admin = {"address": "127.0.0.1:0"}
    return stage


async def until_live(page: Page) -> None:
    await expect(page.locator("#link")).to_have_text("live")


def add_lab_server(stage: OperatedStage, server: Rras) -> None:
    """Put a simulated RRAS behind a listener of its own."""
    assert server.http is not None
    host, port = server.http
    stage.more_pools["lab"] = {"backends": [{"name": "lab1", "address": f"{host}:{port}"}]}
    certificates = [{"chain": str(stage.served.chain), "key": str(stage.served.key)}]
    stage.more_listeners.append(
        {
            "name": "lab",
            "address": "127.0.0.2:0",
            "mode": "offload",
            "pool": "lab",
            "certificates": certificates,
        }
    )


def test_a_call_appears_tells_its_facts_and_is_ended(
    browser: Browser, stage: OperatedStage, pki: LabPki, served: Issued
) -> None:
    async def story() -> None:
        sha256 = served.certificate.sha256
        server = Rras(RrasSettings(http=("127.0.1.9", 0), offload_sha256=sha256))
        await server.start()
        add_lab_server(stage, server)
        try:
            async with staged(stage), browser.page(stage) as page:
                await until_live(page)
                await expect(page.locator("#calls-empty")).to_contain_text("No call yet")
                await _call_and_end(page, stage, pki)
        finally:
            await server.stop()

    browser.play(story)


async def _call_and_end(page: Page, stage: OperatedStage, pki: LabPki) -> None:
    plan = CallPlan(
        address=stage.balancer.listeners["lab"].address,
        server_name=SERVER_NAME,
        user="user",
        password="password",
        policy=ClientPolicy(PoolTls(verify=Verify.CA, ca_file=pki.root_path)),
        data_bytes=20_000,
        hold_s=60.0,
    )
    calling = asyncio.create_task(place_call(plan), name="caller")
    row = page.locator("#calls-rows tr[data-key='1']")
    await expect(row).to_contain_text("running")
    await expect(row).to_contain_text("lab1")
    await expect(page.locator("#picture a[href='#backend-lab-lab1']")).to_have_attribute(
        "aria-label", "lab1: up, 1 call"
    )
    await row.get_by_role("button", name="1").press("Enter")
    detail = page.locator("#detail")
    await expect(detail.get_by_role("heading", name="Call 1")).to_be_focused()
    await expect(detail).to_contain_text("the TLS handshake with the client")
    await expect(detail).to_contain_text("took the call")
    correlation_id = stage.balancer.ledger.running[1].correlation_id
    assert correlation_id is not None
    await expect(detail).to_contain_text(correlation_id)
    await detail.get_by_role("button", name="End call").click()
    confirm = page.get_by_role("dialog", name="End call 1?")
    await expect(confirm.get_by_label("How")).to_have_value("polite")
    await confirm.get_by_role("button", name="Cancel").click()
    assert stage.balancer.ledger.running, "nothing is done before it is confirmed"
    await detail.get_by_role("button", name="End call").click()
    await confirm.get_by_role("button", name="End call").click()
    await expect(row).to_contain_text("ended by operator")
    await expect(detail).to_contain_text("the operator ended this call")
    await expect(detail.get_by_role("button", name="End call")).to_have_count(0)
    assert (await calling).ok, "it was told, and left politely"
    await page.keyboard.press("Escape")
    await expect(detail).to_be_hidden()
    await expect(row.get_by_role("button")).to_be_focused()


def test_a_backend_is_drained_and_enabled(browser: Browser, stage: OperatedStage) -> None:
    async def story() -> None:
        async with staged(stage), browser.page(stage) as page:
            await stage.opened()
            await expect(page.locator("#picture a").first).to_have_attribute(
                "aria-label", "rras1: up, 1 call"
            )
            row = page.locator("#backend-rras-rras1")
            await expect(page.locator("#attention")).to_have_text(
                "All is well: all 2 backends are up."
            )
            await row.get_by_role("button", name="Drain").click()
            confirm = page.get_by_role("dialog", name="Drain rras1?")
            await expect(confirm).to_contain_text("It has 1 call. New calls go to rras2.")
            await confirm.get_by_label("Its running calls").select_option("1800")
            await confirm.get_by_role("button", name="Drain").click()
            await expect(row).to_contain_text("1 call left, ended in 29 min")
            await expect(page.locator("#said")).to_have_text("rras1 is draining now.")
            await expect(page.locator("#attention")).to_contain_text(
                "rras1 is draining: 1 call left"
            )
            await expect(page.locator("#attention")).to_contain_text("1 change made at run time")
            await expect(page.locator("#events")).to_contain_text("rras1 is draining now")
            assert stage.backends[0].calls == 1
            # The last one: the page says what that means.
            off = page.locator("#backend-rras-rras2").get_by_role("button", name="Off")
            await off.click()
            await expect(page.locator("#confirm-text")).to_contain_text(
                "new callers will be refused"
            )
            await page.keyboard.press("Escape")
            await expect(off).to_be_focused()
            await row.get_by_role("button", name="Enable").press("Enter")
            await page.locator("#confirm-yes").press("Enter")
            await expect(row).to_contain_text("up")
            assert stage.operator.sight.backend("rras", "rras1").usable

    browser.play(story)


def test_a_failing_check_is_explained(browser: Browser, stage: OperatedStage) -> None:
    async def story() -> None:
        async with staged(stage), browser.page(stage) as page:
            await until_live(page)
            stage.backends[1].mood = "dead"
            row = page.locator("#backend-rras-rras2")
            await expect(row).to_contain_text("expected HTTP 401, got 503")
            await expect(page.locator("#attention [data-tone=bad]")).to_contain_text(
                "rras2 has been down"
            )
            await expect(page).to_have_title("1 down · 0 calls · sstplb")
            await row.get_by_role("button", name="failed").click()
            told = page.get_by_label("Transcript of the last check of rras2")
            await expect(told).to_contain_text("> HEAD /sra_")
            await expect(told).to_contain_text("< HTTP/1.1 503")
            stage.backends[1].mood = "well"
            await row.get_by_role("button", name="Check").click()
            await expect(page.locator("#said")).to_have_text("rras2: the check was good")
            await expect(told).to_contain_text("< HTTP/1.1 401")
            await expect(row).to_contain_text("up")

    browser.play(story)


def test_a_lost_connection_is_shown_and_mended(browser: Browser, stage: OperatedStage) -> None:
    async def story() -> None:
        async with staged(stage), browser.page(stage) as page:
            await until_live(page)
            await page.context.set_offline(True)
            stage.operator.events.end_following()
            await expect(page.locator("#link")).to_have_text("connection lost")
            await expect(
                page.get_by_role("alert").filter(has_text="Connection lost")
            ).to_be_visible()
            await stage.operator.orders.set_standing("rras", "rras1", Standing.DRAINING)
            await page.context.set_offline(False)
            await until_live(page)
            await expect(page.locator("#lost")).to_be_hidden()
            await expect(page.locator("#events")).to_contain_text("rras1 is draining now")

    browser.play(story)


def test_light_and_dark(browser: Browser, stage: OperatedStage) -> None:
    async def story() -> None:
        async with (
            staged(stage),
            browser.page(stage, color_scheme="dark") as page,
        ):
            await until_live(page)
            dark, light = "rgb(13, 17, 23)", "rgb(243, 245, 248)"
            await expect(page.locator("body")).to_have_css("background-color", dark)
            button = page.locator("#theme")
            await expect(button).to_have_text("Theme: auto")
            await button.click()
            await expect(button).to_have_text("Theme: light")
            await expect(page.locator("body")).to_have_css("background-color", light)
            await page.reload()
            await expect(button).to_have_text("Theme: light")
            await button.click()
            await expect(page.locator("body")).to_have_css("background-color", dark)

    browser.play(story)


def test_a_door_with_a_token_is_opened_with_it(
    browser: Browser, stage: OperatedStage, tmp_path: Path
) -> None:
    async def story() -> None:
        stage.admin["token_file"] = str(token_file(tmp_path))
        async with staged(stage), browser.page(stage) as page:
            login = page.get_by_role("dialog", name="This balancer asks for a token")
            await login.get_by_label("Token").fill("wrong")
            await login.get_by_role("button", name="Open").click()
            await expect(login.get_by_role("alert")).to_have_text("That is not the token.")
            await login.get_by_label("Token").fill(TOKEN)
            await page.keyboard.press("Enter")
            await until_live(page)
            await expect(login).to_be_hidden()
            assert not await page.context.cookies(), "nothing another site could make use of"
            await page.reload()
            await until_live(page)
            await page.get_by_role("button", name="Forget token").click()
            await expect(login).to_be_visible()

    browser.play(story)


def test_two_thousand_calls_are_listed_smoothly(browser: Browser, stage: OperatedStage) -> None:
    async def story() -> None:
        async with staged(stage), browser.page(stage) as page:
            await until_live(page)
            records = [open_record(stage, number) for number in range(2000)]
            rows = page.locator("#calls-rows tr:not(.spacer)")
            await expect(page.locator("#calls-count")).to_have_text("2,000")
            await expect(page.locator("#calls-rows tr[data-key='2000']")).to_be_visible()
            assert await rows.count() < 80, "only what is in view, and a little around it"
            scroll = page.locator("#calls-scroll")
            await scroll.evaluate("place => place.scrollTo(0, place.scrollHeight)")
            await expect(page.locator("#calls-rows tr[data-key='1']")).to_be_visible()
            held = page.locator("#calls-rows tr[data-key='8']")
            before = await held.evaluate("row => row.getBoundingClientRect().top")
            records.append(open_record(stage, 2000))
            await expect(page.locator("#calls-count")).to_have_text("2,001")
            after = await held.evaluate("row => row.getBoundingClientRect().top")
            assert abs(after - before) < 2, "what is being read does not move"
            busy = await browser.busy_ms_per_s(page, 3.0)
            assert busy < 250, f"{busy:.0f} ms of CPU in each second to keep up"
            await page.get_by_label("Client").fill("10.0.7.0/24")
            await expect(page.locator("#calls-count")).to_have_text("250 match")
            await page.get_by_label("Client").fill("10.0.7.")
            await expect(page.locator("#filter-error")).to_contain_text("expected an address")
            await page.get_by_role("button", name="Clear").click()
            await page.get_by_label("State").select_option("failed")
            await expect(page.locator("#calls-empty")).to_have_text("No call matches.")
            for record in records:
                stage.balancer.ledger.close(record, Outcome.COMPLETED, "x", "", now_s())

    browser.play(story)


def test_what_a_later_version_tells_of_a_call_shows_by_itself(
    browser: Browser, stage: OperatedStage
) -> None:
    async def tell_more(route: Route) -> None:
        call = await (await route.fetch()).json()
        moments = [{"step": "lcp_open", "side": "backend", "at_s": 0.038, "detail": "MS-CHAPv2"}]
        binding = {"whose": "backend's", "nonce_echoed": True}
        call |= {"story": {"moments": moments, "user": "ada", "binding": binding}, "user": "ada"}
        causes = {"cause": "wrong_hash", "sentence": "It expects another.", "remedy": "Tell it."}
        call["diagnoses"] = [{**causes, "evidence": ["expected AB"]}]
        call |= {"likely": [{"cause": "wrong_hash", "seen_at": 3600}], "note": "<b>&amp;</b>"}
        await route.fulfill(json=call)

    async def story() -> None:
        async with staged(stage), browser.page(stage) as page:
            await page.route("**/api/v1/calls/1", tell_more)
            record = open_record(stage, 0)
            await page.get_by_role("button", name="1", exact=True).click()
            detail = page.locator("#detail")
            await expect(detail.locator(".story tr")).to_have_text("38 msbackendlcp openMS-CHAPv2")
            await expect(detail.get_by_text("ada", exact=True)).to_have_count(1)
            await expect(detail.locator(".diagnosis")).to_have_text(
                "It expects another.Tell it.expected AB"
            )
            for text in ("backend's", "nonce echoed", "wrong hash", "1970-01-01", "<b>&amp;</b>"):
                await expect(detail).to_contain_text(text)
            await page.unroute_all(behavior="wait")
            stage.balancer.ledger.close(record, Outcome.COMPLETED, "x", "", now_s())

    browser.play(story)


def open_record(stage: OperatedStage, number: int) -> Any:
    """Note a call that nobody carries: 2,000 real ones would measure the machine, not the page."""
    record = stage.balancer.ledger.open(
        listener="vpn",
        mode="offload",
        client=(f"10.0.{number % 8}.{number % 250 + 1}", 50000),
        started_at=time.time(),
        now=now_s(),
    )
    record.phases.tls_s, record.phases.reach_s = 0.004, 0.002
    record.pool, record.backend = "rras", "rras1"
    return record


def test_everything_has_a_name_and_the_documentation_obeys_the_policy(
    browser: Browser, stage: OperatedStage
) -> None:
    async def story() -> None:
        async with staged(stage):
            async with browser.page(stage) as page:
                await until_live(page)
                await expect(page.locator("#backend-rras-rras1")).to_be_visible()
                assert await page.evaluate(NAMELESS) == []
                for landmark in ("header", "main", "[role=search]"):
                    await expect(page.locator(landmark)).to_have_count(1)
                # The last rules of the style sheet hold: none before them was left open.
                await expect(page.locator("#said")).to_have_css("position", "fixed")
                heads = page.locator("#backends").get_by_role("columnheader")
                await expect(heads.first).to_have_text("Backend")
                formats = await page.evaluate(FORMATS)
                assert formats == ["999 B", "1.50 MB", "250 µs", "12 ms", "2 d 3 h", "1 call"]
            async with browser.page(stage, "/docs") as page:
                await expect(page.get_by_role("heading", name="calls")).to_be_visible()

    browser.play(story)


NAMELESS = """() => {
  const shown = [...document.querySelectorAll("button, a, select, input, dialog, aside, section")];
  const isClosed = (one) => one.closest("dialog:not([open]), [hidden]");
  const named = (one) => isClosed(one) || one.textContent.trim() || one.labels?.length
    || one.ariaLabel || one.hasAttribute("aria-labelledby");
  const ids = [...document.querySelectorAll("[id]")].map((one) => one.id);
  return [
    ...shown.filter((one) => !named(one)).map((one) => one.outerHTML),
    ...ids.filter((id, n) => ids.indexOf(id) !== n),
  ];
}"""
FORMATS = """async () => {
  const { bytes, duration, span, calls } = await import("/format.js");
  return [
    bytes(999), bytes(1.5e6), duration(0.00025), duration(0.012), span(2 * 86400 + 3 * 3600),
    calls(1),
  ];
}"""

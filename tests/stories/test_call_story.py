"""What a record tells of a whole call: every mode, every privacy rule, from workers too."""

import asyncio
import contextlib
import json
from typing import Any

import pytest

from sstplb.account.exposition import log_fields, log_line
from sstplb.account.record import Record
from sstplb.config.schema import Standing
from sstplb.control.admin.shapes import CallShape
from sstplb.control.views import call_view
from sstplb.lab.pki import Issued, LabPki
from sstplb.protocol.ppp_peer import Authentication
from tests.characters import play
from tests.stories.test_real_calls import Lab

STEPS = [
    "connect_request", "connect_ack", "lcp", "lcp_open", "authentication", "authenticated",
    "ipcp", "connected", "address", "data_from_client", "data_from_backend", "disconnect",
    "disconnect_ack",
]  # fmt: skip


class PrivateLab(Lab):
    """A lab with a ``privacy`` section, and as many workers as are wanted."""

    def __init__(self, *args: Any, privacy: dict[str, str] | None = None, **settings: Any) -> None:
        super().__init__(*args, **settings)
        document = self.stage.document

        def with_privacy() -> str:
            return json.dumps({**json.loads(document()), "privacy": privacy or {}})

        self.stage.document = with_privacy  # type: ignore[method-assign]

    async def ended(self) -> Record:
        await self.stage.ended()
        return self.stage.balancer.ledger.ended[-1]


@pytest.mark.parametrize("authentication", list(Authentication))
@pytest.mark.parametrize("follow", ["opening", "full"])
@pytest.mark.parametrize("mode", ["offload", "reencrypt"])
def test_a_good_call_is_told_from_beginning_to_end(
    mode: str, follow: str, authentication: Authentication, pki: LabPki, served: Issued
) -> None:
    async def story() -> None:
        lab = PrivateLab(mode, pki, served, authentication=authentication)
        lab.stage.listener["follow"] = follow
        async with lab.running():
            report = await lab.call()
            record = await lab.ended()
        told = record.story
        assert told is not None
        assert [moment.step for moment in told.moments] == STEPS
        times = [moment.at_s for moment in told.moments]
        assert times == sorted(times)
        assert 0 < times[-1] <= record.duration_s + 0.01
        assert (told.user, told.computer, told.address) == (
            "CORP\\user", "LAB-PC", report.address,
        )  # fmt: skip
        assert told.authentication == authentication.value
        assert told.address_s is not None
        assert told.authenticated_s is not None
        assert 0 <= told.authenticated_s < told.address_s
        assert told.binding is not None
        assert (told.binding.whose, told.binding.nonce_echoed) == ("ours", True)
        assert record.ended_by == "client"
        assert record.served_sha256 == served.certificate.sha256.hex()
        known = (record.backend_sha256, record.backend_sha256_from)
        assert known == ((record.served_sha256, "shown") if mode == "reencrypt" else (None, None))
        line = log_fields(record)
        assert line["user"] == "CORP\\user"
        assert list(line["steps"]) == STEPS  # type: ignore[call-overload]
        assert "certificate_hash" not in line, "hashes are for calls that failed"
        assert "CORP\\user at LAB-PC has 10.9." in log_line(record)
        CallShape.model_validate(json.loads(json.dumps(call_view(record), default=_plain)))

    play(story)


def _plain(value: Any) -> Any:
    return {name: getattr(value, name) for name in value.__slots__}


def test_names_are_hashed_or_hidden_as_configured(pki: LabPki, served: Issued) -> None:
    async def story() -> None:
        rules = {"user": "hashed", "computer": "hidden", "address": "hashed"}
        async with PrivateLab("offload", pki, served, privacy=rules).running() as lab:
            report = await lab.call()
            first = await lab.ended()
            await lab.call()
            await lab.stage.ended(2)
            second = lab.stage.balancer.ledger.ended[1]
            assert first.story is not None
            assert second.story is not None
            assert first.story.user is not None
            assert first.story.user.startswith("#")
            assert first.story.user == second.story.user, "calls of one user can be told together"
            everything = repr(lab.stage.balancer.ledger.ended) + log_line(first)
            for name in ("CORP", "LAB-PC", f"'{report.address}'", f"has {report.address}"):
                assert name not in everything

    play(story)


def test_passthrough_tells_what_can_be_seen_from_outside(pki: LabPki, served: Issued) -> None:
    async def story() -> None:
        async with PrivateLab("passthrough", pki, served).running() as lab:
            await lab.call()
            record = await lab.ended()
            assert record.story is None
            assert record.tls_offered == "TLSv1.3"
            assert (record.tls_version, record.served_sha256) == (None, None)
            assert record.server_name == "vpn.example.test"
            assert record.ended_by in ("client", "backend")
            assert record.bytes_in > 0

    play(story)


def test_following_off_tells_nothing(pki: LabPki, served: Issued) -> None:
    async def story() -> None:
        lab = PrivateLab("offload", pki, served)
        lab.stage.listener["follow"] = "off"
        async with lab.running():
            await lab.call()
            assert (await lab.ended()).story is None

    play(story)


def test_a_wrong_password_is_in_the_story_and_nothing_secret(pki: LabPki, served: Issued) -> None:
    async def story() -> None:
        async with PrivateLab("offload", pki, served).running() as lab:
            await lab.call(password="wr0ng-pass")
            record = await lab.ended()
            assert record.story is not None
            refused = next(m for m in record.story.moments if m.step == "not_authenticated")
            assert refused.detail == "error 691: wrong user name or password"
            assert record.story.user == "CORP\\user"
            assert "wr0ng-pass" not in repr(record)
            assert record.ended_by == "backend"

    play(story)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_running_calls_story_can_be_seen(workers: int, pki: LabPki, served: Issued) -> None:
    async def story() -> None:
        lab = PrivateLab("offload", pki, served)
        lab.stage.workers = workers
        async with lab.running():
            calling = asyncio.create_task(lab.call(hold_s=30.0))
            async with asyncio.timeout(30):
                while True:
                    running = [call.record for call in lab.stage.balancer.calls()]
                    if running and running[0].story and running[0].story.address:
                        break
                    await asyncio.sleep(0.02)
            told = running[0].story
            assert told is not None
            assert told.user == "CORP\\user"
            calling.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await calling
            record = await lab.ended()
            assert record.story is not None
            assert record.story.address == told.address
            assert record.ended_by == "client"

    play(story)


def test_who_was_passed_over_and_why_is_told(pki: LabPki, served: Issued) -> None:
    async def story() -> None:
        lab = PrivateLab("offload", pki, served)
        lab.stage.pool["check"] = {"interval": "100ms", "timeout": "1s", "fall": 1}
        async with lab.running():
            await lab.servers[0].stop()
            lab.stage.balancer.plan.checks["rras"].pool.backends[1].standing = Standing.OFF
            async with asyncio.timeout(5):
                while lab.stage.balancer.plan.checks["rras"].pool.backends[0].health.is_up:
                    await asyncio.sleep(0.02)
            await lab.call()
            record = await lab.ended()
            assert [(p.backend, p.reason) for p in record.passed_over] == [
                ("rras1", "down"), ("rras2", "standing_off"),
            ]  # fmt: skip
            assert "connection refused" in record.passed_over[0].why
            assert record.ended_by == "balancer"

    play(story)

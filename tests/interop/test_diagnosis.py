"""Third-party client and server are followed and diagnosed as well as our own."""

from typing import Any

import pytest

from sstplb.account.causes import Cause
from sstplb.account.diagnosis import diagnose
from sstplb.account.exposition import log_fields
from sstplb.account.record import Record
from sstplb.lab.inspector import Inspector
from sstplb.lab.pki import Issued, LabPki
from tests.characters import Stage, play
from tests.interop.rig import client
from tests.interop.test_through_the_balancer import balanced
from tests.stories.test_real_calls import Lab

pytestmark = pytest.mark.interop
TERMINATING = ["offload", "reencrypt"]
NO_RULE = {"tls": {"same_certificate": "off"}}


async def ended(stage: Stage) -> Record:
    await stage.ended()
    return stage.balancer.ledger.ended[0]


def causes(record: Record) -> list[Cause]:
    return [found.cause for found in diagnose(log_fields(record))]


@pytest.mark.parametrize("mode", TERMINATING)
def test_the_story_of_a_third_party_call(mode: str, pki: LabPki, served: Issued) -> None:
    async def story() -> None:
        async with balanced(mode, pki, served) as (stage, there):
            async with client(*stage.balancer.listeners["vpn"].address) as here:
                assert await here.connected(), here.log + there.log
                address = here.address
            record = await ended(stage)
            told = record.story
            assert told is not None
            assert (told.user, told.address, told.authentication) == (
                "user", address, "MS-CHAPv2",
            )  # fmt: skip
            steps = [moment.step for moment in told.moments]
            for step in ("connect_ack", "authenticated", "connected", "address"):
                assert step in steps
            assert "malformed" not in steps
            assert told.binding is not None
            assert (told.binding.whose, told.binding.nonce_echoed) == ("ours", True)
            assert causes(record) == []

    play(story)


@pytest.mark.parametrize(
    ("mode", "cause"),
    [("offload", Cause.WRONG_OFFLOAD_HASH), ("reencrypt", Cause.DIFFERENT_CERTIFICATE)],
)
def test_another_certificate_between_two_third_parties(
    mode: str, cause: Cause, pki: LabPki, served: Issued, other: Issued
) -> None:
    async def story() -> None:
        pool: dict[str, Any] = NO_RULE if mode == "reencrypt" else {}
        async with balanced(mode, pki, served, other, **pool) as (stage, there):
            async with client(*stage.balancer.listeners["vpn"].address):
                await there.says("Certificate hash mismatch")
            assert causes(await ended(stage)) == [cause]

    play(story)


def test_a_wrong_key_is_no_wrong_certificate(pki: LabPki, served: Issued) -> None:
    async def story() -> None:
        async with balanced("reencrypt", pki, served) as (stage, _):
            address = stage.balancer.listeners["vpn"].address
            async with client(*address, wrong_key=True) as here:
                assert not await here.connected()
            assert causes(await ended(stage)) == [Cause.COMPOUND_MAC_REFUSED]

    play(story)


@pytest.mark.parametrize("mode", TERMINATING)
@pytest.mark.parametrize("password", ["password", "another"])
def test_sstpc_and_our_simulated_rras(
    mode: str, password: str, pki: LabPki, served: Issued
) -> None:
    async def story() -> None:
        lab = Lab(mode, pki, served, accounts={"user": password})
        async with lab.running():
            async with client(*lab.stage.balancer.listeners["vpn"].address) as here:
                assert await here.connected() == (password == "password"), here.log
            expected = [] if password == "password" else [Cause.BAD_PASSWORD]
            assert causes(await ended(lab.stage)) == expected

    play(story)


def test_a_middle_box_before_sstpc(pki: LabPki, served: Issued, other: Issued) -> None:
    async def story() -> None:
        async with balanced("offload", pki, served) as (stage, there):
            box = Inspector(other, stage.balancer.listeners["vpn"].address, ("127.0.5.2", 0))
            await box.start()
            try:
                async with client(*box.address):
                    await there.says("Certificate hash mismatch")
            finally:
                await box.stop()
            assert causes(await ended(stage)) == [Cause.TLS_INSPECTION]

    play(story)

"""Third-party software through the balancer, in every mode, crypto binding verified by it.

sstp-server answers nothing to HEAD, so the check here is ``sstp``; its crypto-binding refusals
name no attribute, so it is its own log that says why.
"""

import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest

from sstplb.account.record import Goodbye
from sstplb.config.schema import PoolTls, Verify
from sstplb.errors import KilledError
from sstplb.lab.caller import CallPlan, place_call
from sstplb.lab.pki import Issued, LabPki
from sstplb.tls.policy import ClientPolicy
from tests.characters import SERVER_NAME, Stage, play, staged
from tests.interop.rig import ThirdPartyServer, client, server
from tests.stories.test_real_calls import Lab

pytestmark = pytest.mark.interop
MODES = ["passthrough", "offload", "reencrypt"]


@contextlib.asynccontextmanager
async def balanced(
    mode: str,
    pki: LabPki,
    served: Issued,
    shown: Issued | None = None,
    *,
    proxy: bool = False,
    **pool: Any,
) -> AsyncIterator[tuple[Stage, ThirdPartyServer]]:
    """A balancer in front of sstp-server, which shows (or knows) the certificate ``shown``."""
    plain = mode == "offload"
    async with server("127.0.6.2", shown or served, plain=plain, proxy=proxy) as there:
        stage = Stage(mode, pki.root_path, served, count=0)
        stage.pool.update(
            backends=[{"name": "sorz", "address": f"127.0.6.2:{there.port}"}],
            check={"method": "sstp" if not proxy else "tcp", "interval": "1m", "timeout": "5s"},
            **pool,
        )
        async with staged(stage):
            yield stage, there


@pytest.mark.parametrize("sni", [True, False])
@pytest.mark.parametrize("mode", MODES)
def test_a_third_party_call(mode: str, sni: bool, pki: LabPki, served: Issued) -> None:
    async def story() -> None:
        async with balanced(mode, pki, served) as (stage, there):
            async with client(*stage.balancer.listeners["vpn"].address, sni=sni) as here:
                assert await here.connected(), here.log + there.log
                await there.says("Crypto Binding is valid.")
            await stage.ended()
            record = stage.balancer.ledger.ended[0]
            assert str(record.outcome) == "completed"
            # Its SNI has the port in it; without SNI the default certificate is served.
            assert (record.server_name or "").startswith("127.0.5.1:" if sni else "")

    play(story)


@pytest.mark.parametrize("mode", MODES)
def test_our_caller_and_sstp_server(mode: str, pki: LabPki, served: Issued) -> None:
    async def story() -> None:
        async with balanced(mode, pki, served) as (stage, there):
            plan = CallPlan(
                stage.balancer.listeners["vpn"].address, SERVER_NAME, "user", "password",
                ClientPolicy(PoolTls(verify=Verify.CA, ca_file=pki.root_path)), data_bytes=20_000,
            )  # fmt: skip
            report = await place_call(plan)
            assert report.ok, f"{report.failure}\n{there.log}"
            await there.says("Crypto Binding is valid.")

    play(story)


@pytest.mark.parametrize("mode", MODES)
def test_sstpc_and_our_simulated_rras(mode: str, pki: LabPki, served: Issued) -> None:
    async def story() -> None:
        lab = Lab(mode, pki, served)
        async with lab.running():
            async with client(*lab.stage.balancer.listeners["vpn"].address) as here:
                assert await here.connected(), here.log
            assert sum(server.connected_total for server in lab.servers) == 1

    play(story)


def test_another_certificate_is_refused_by_us(pki: LabPki, served: Issued, other: Issued) -> None:
    async def story() -> None:
        async with balanced("reencrypt", pki, served, other) as (stage, _):
            async with client(*stage.balancer.listeners["vpn"].address) as here:
                assert not await here.connected()
            await stage.ended()
            assert stage.reasons() == ["refused:no_backend_available"]
            assert "certificate_mismatch" in stage.balancer.ledger.ended[0].detail

    play(story)


@pytest.mark.parametrize("mode", ["reencrypt", "offload"])
def test_another_certificate_is_aborted_by_the_server_when_the_rule_is_off(
    mode: str, pki: LabPki, served: Issued, other: Issued
) -> None:
    async def story() -> None:
        tls = {"same_certificate": "off"} if mode == "reencrypt" else {}
        async with balanced(mode, pki, served, other, tls=tls) as (stage, there):
            async with client(*stage.balancer.listeners["vpn"].address) as here:
                await there.says("Certificate hash mismatch")
                assert not here.pongs
            await stage.ended()
            assert stage.reasons() == ["backend_failed:aborted_by_backend"]

    play(story)


def test_the_servers_log_names_the_client_behind_a_proxy_preface(
    pki: LabPki, served: Issued
) -> None:
    async def story() -> None:
        listens = balanced("offload", pki, served, proxy=True, proxy_protocol="v1")
        async with listens as (stage, there):
            async with client(*stage.balancer.listeners["vpn"].address) as here:
                assert await here.connected(), here.log + there.log
            await there.says("PROXY PROTOCOL header parsed: src ('127.0.0.1'")

    play(story)


@pytest.mark.parametrize("mode", ["offload", "reencrypt"])
def test_third_parties_that_are_hung_up_on_acknowledge(
    mode: str, pki: LabPki, served: Issued
) -> None:
    """Both do at once. sstpc then calls it an abort with an unknown status: it takes the status 0
    of the Status Info, which a CALL_DISCONNECT should carry (2.2.14), for one."""

    async def story() -> None:
        async with (
            balanced(mode, pki, served) as (stage, there),
            client(*stage.balancer.listeners["vpn"].address) as here,
        ):
            assert await here.connected(), here.log + there.log
            why = KilledError("the operator ended this call")
            stage.balancer.endings.add(stage.balancer.calls(), why)
            await stage.ended()
            record = stage.balancer.ledger.ended[0]
            assert record.client_goodbye is Goodbye.ACKNOWLEDGED
            assert record.backend_goodbye is Goodbye.ACKNOWLEDGED
            await there.says("Received call disconnect request.")
            await here.says("DISCONNECT, ATTR(1)")
            await here.says("Sending Disconnect Ack Message")

    play(story)

"""``?tenantid=`` chooses the pool, where TLS ends here; and whoever names nonsense is told so."""

import contextlib
from collections.abc import AsyncIterator
from urllib.parse import quote

import pytest

from sstplb.config.schema import SRA_PATH
from sstplb.lab.pki import Issued, LabPki
from sstplb.protocol.head import sstp_request
from tests.characters import ANSWER, CORRELATION_ID, SERVER_NAME, FakeBackend, Stage, play, staged


@contextlib.asynccontextmanager
async def two_tenants(mode: str, pki: LabPki, served: Issued, unknown: str) -> AsyncIterator[Stage]:
    """Stage a listener with a pool of its own for the tenant ``Fabrikam``."""
    theirs = FakeBackend("theirs", "127.0.3.3", served if mode == "reencrypt" else None)
    await theirs.start()
    stage = Stage(mode, pki.root_path, served)
    stage.listener |= {"tenant_pools": {"Fabrikam": "fabrikam"}, "unknown_tenant": unknown}
    stage.more_pools["fabrikam"] = {
        "backends": [{"name": "theirs", "address": f"127.0.3.3:{theirs.port}"}],
        "tls": {"ca_file": str(pki.root_path)} if mode == "reencrypt" else {},
    }
    try:
        async with staged(stage):
            yield stage
    finally:
        await theirs.stop()


async def call(stage: Stage, tenant: str | None) -> bytes:
    """Open a call as a client of that tenant and leave; return the answer."""
    client = await stage.client()
    named = None if tenant is None else quote(tenant)
    await client.send(sstp_request(SERVER_NAME, CORRELATION_ID, named))
    answer = await client.reader.readuntil(b"\r\n\r\n")
    await client.close()
    await stage.ended()
    return answer


@pytest.mark.parametrize("mode", ["offload", "reencrypt"])
@pytest.mark.parametrize(
    ("tenant", "pool"),
    [("Fabrikam", "fabrikam"), ("fabrikam", "fabrikam"), ("contoso", "rras"), (None, "rras")],
)
def test_the_tenant_chooses_the_pool(
    mode: str, tenant: str | None, pool: str, pki: LabPki, served: Issued
) -> None:
    async def story() -> None:
        async with two_tenants(mode, pki, served, "default") as stage:
            assert await call(stage, tenant) == ANSWER
            (record,) = stage.balancer.ledger.ended
            assert (record.pool, record.tenant_id) == (pool, tenant)

    play(story)


@pytest.mark.parametrize("tenant", ["contoso", "\r\ncall 1 · faked", "x" * 5000])
def test_an_unknown_tenant_is_refused_where_the_listener_says_so(
    tenant: str, pki: LabPki, served: Issued
) -> None:
    async def story() -> None:
        async with two_tenants("offload", pki, served, "refuse") as stage:
            assert (await call(stage, tenant)).startswith(b"HTTP/1.1 404 ")
            (record,) = stage.balancer.ledger.ended
            assert stage.reasons() == ["refused:unknown_tenant"]
            assert record.tenant_id is not None
            assert record.tenant_id.isprintable()
            assert len(record.tenant_id) <= 128
            stage.balancer.ledger.ended.clear()
            assert await call(stage, None) == ANSWER, "who names none goes by the server name"

    play(story)


def test_a_check_is_answered_for_the_tenant_it_names(pki: LabPki, served: Issued) -> None:
    async def story() -> None:
        async with two_tenants("offload", pki, served, "refuse") as stage:
            statuses = {}
            (theirs,) = stage.balancer.plan.checks["fabrikam"].pool.backends
            theirs.health.is_up = False
            for query in ("", "?tenantid=fabrikam", "?tenantid=contoso"):
                client = await stage.client()
                await client.send(f"HEAD {SRA_PATH}{query} HTTP/1.1\r\n\r\n".encode())
                statuses[query] = (await client.rest()).split(b" ")[1]
            assert statuses == {
                "": b"401", "?tenantid=fabrikam": b"503", "?tenantid=contoso": b"404",
            }  # fmt: skip

    play(story)

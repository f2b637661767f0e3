"""Who does not call as it should gets the stated outcome, and nobody else notices."""

import asyncio
import ssl

import pytest

from sstplb.config.schema import SRA_PATH
from sstplb.lab.pki import Issued, LabPki
from sstplb.protocol.packet import StatusInfo, disconnect
from sstplb.protocol.proxy import encode_v1, encode_v2
from tests.characters import ANSWER, REQUEST, Client, FakeBackend, Stage, packets, play, staged


@pytest.mark.parametrize(
    ("words", "status", "reason"),
    [
        (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"404", "web:not_sstp"),
        (b"SSTP_DUPLEX_POST / HTTP/1.1\r\n\r\n", b"404", "web:not_sstp"),
        (b"nonsense\r\n\r\n", b"400", "client_failed:bad_head"),
        (REQUEST[:-4] + b"\r\nX: " + b"x" * 1_000_000, b"400", "client_failed:head_too_large"),
        (f"HEAD {SRA_PATH} HTTP/1.1\r\n\r\n".encode(), b"401", "web:health_check"),
    ],
)
def test_a_head_that_opens_no_call(
    words: bytes, status: bytes, reason: str, pki: LabPki, served: Issued
) -> None:
    async def story() -> None:
        async with staged(Stage("offload", pki.root_path, served)) as stage:
            other = await stage.client()
            await other.open()
            client = await stage.client()
            await client.send(words)
            answer = await client.rest()
            assert answer.split(b" ")[1] == status
            assert b"Connection: close" in answer
            await stage.ended()
            assert stage.reasons() == [reason]
            assert await other.echo(packets(50_000))

    play(story)


def test_half_a_head_times_out(pki: LabPki, served: Issued) -> None:
    async def story() -> None:
        stage = Stage("offload", pki.root_path, served)
        stage.limits["head_timeout"] = "200ms"
        async with staged(stage):
            client = await stage.client()
            await client.send(REQUEST[:40])
            await client.rest()
            await stage.ended()
            assert stage.reasons() == ["client_failed:head_timeout"]

    play(story)


def test_half_a_head_and_gone(pki: LabPki, served: Issued) -> None:
    async def story() -> None:
        async with staged(Stage("reencrypt", pki.root_path, served)) as stage:
            client = await stage.client()
            await client.send(REQUEST[:40])
            await client.close()
            await stage.ended()
            assert stage.reasons() == ["client_failed:client_closed"]

    play(story)


@pytest.mark.parametrize("mode", ["passthrough", "offload", "reencrypt"])
@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", "client_failed:not_tls"),
        (b"\x16\x03\x01\x00", "client_failed:handshake_timeout"),
        (b"", "client_failed:handshake_timeout"),
    ],
)
def test_who_speaks_no_tls(
    mode: str, words: bytes, reason: str, pki: LabPki, served: Issued
) -> None:
    async def story() -> None:
        stage = Stage(mode, pki.root_path, served)
        stage.limits["handshake_timeout"] = "200ms"
        async with staged(stage):
            client = await stage.visitor()
            await client.send(words)
            assert await client.rest() == b""
            await stage.ended()
            assert stage.reasons() == [reason]

    play(story)


@pytest.mark.parametrize("engine", ["native", "portable"])
@pytest.mark.parametrize("mode", ["offload", "reencrypt"])
def test_garbage_after_the_handshake(mode: str, engine: str, pki: LabPki, served: Issued) -> None:
    """A man in the middle changes ciphertext: TLS notices, we say so, the backend is let go."""

    async def story() -> None:
        stage = Stage(mode, pki.root_path, served)
        stage.engine = engine
        async with staged(stage):
            into, out = ssl.MemoryBIO(), ssl.MemoryBIO()
            context = ssl.create_default_context(cafile=str(pki.root_path))
            tls = context.wrap_bio(into, out, server_hostname="vpn.example.test")
            wire = await stage.visitor()
            while True:
                try:
                    tls.do_handshake()
                    break
                except ssl.SSLWantReadError:
                    await wire.send(out.read())
                    into.write(await wire.reader.read(65536))
            tls.write(REQUEST)
            await wire.send(out.read())
            await wire.reader.read(100)
            await wire.send(b"\x17\x03\x03\x00\x20" + bytes(32))
            await wire.rest()
            await stage.ended()
            assert stage.reasons() == ["client_failed:client_tls_error_in_call"]
            async with asyncio.timeout(5):
                while any(b.open_calls for b in stage.backends):
                    await asyncio.sleep(0.01)

    play(story)


@pytest.mark.parametrize("mode", ["offload", "reencrypt"])
def test_the_web_shares_the_port(mode: str, pki: LabPki, served: Issued) -> None:
    async def story() -> None:
        web = FakeBackend("web1", "127.0.3.1", served if mode == "reencrypt" else None)
        await web.start()
        stage = Stage(mode, pki.root_path, served)
        stage.listener["web_pool"] = "web"
        tls = {"ca_file": str(pki.root_path)} if mode == "reencrypt" else {}
        stage.more_pools["web"] = {
            "backends": [{"name": "web1", "address": f"127.0.3.1:{web.port}"}],
            "check": {"method": "tcp", "interval": "1s", "timeout": "1s"},
            "tls": tls,
        }
        try:
            async with staged(stage):
                visitor = await stage.client()
                await visitor.send(b"GET /index.html HTTP/1.1\r\nHost: x\r\n\r\n")
                assert await visitor.receive(len(ANSWER)) == ANSWER
                await visitor.close()
                caller = await stage.client()
                assert await caller.open() == ANSWER
                await caller.close()
                await stage.ended(2)
                assert web.heads[-1] == b"GET /index.html HTTP/1.1\r\nHost: x\r\n\r\n"
                assert {(r.pool, str(r.outcome)) for r in stage.balancer.ledger.ended} == {
                    ("web", "web"), ("rras", "completed"),
                }  # fmt: skip
        finally:
            await web.stop()

    play(story)


@pytest.mark.parametrize("encode", [encode_v1, encode_v2])
def test_a_trusted_proxy_says_who_calls(encode: "object", pki: LabPki, served: Issued) -> None:
    async def story() -> None:
        stage = Stage("passthrough", pki.root_path, served)
        stage.listener["proxy_protocol_from"] = ["127.0.0.0/8"]
        async with staged(stage):
            wire = await stage.visitor()
            assert callable(encode)
            await wire.send(encode(("203.0.113.9", 4711), ("192.0.2.1", 443)))
            context = ssl.create_default_context(cafile=str(pki.root_path))
            loop = asyncio.get_running_loop()
            protocol = wire.writer.transport.get_protocol()
            transport = await loop.start_tls(
                wire.writer.transport, protocol, context, server_hostname="vpn.example.test"
            )
            assert transport is not None
            transport.write(REQUEST)
            assert await wire.receive(len(ANSWER)) == ANSWER
            transport.abort()
            await stage.ended()
            assert stage.balancer.ledger.ended[0].client == ("203.0.113.9", 4711)

    play(story)


def test_a_proxy_that_says_nothing_is_refused(pki: LabPki, served: Issued) -> None:
    async def story() -> None:
        stage = Stage("offload", pki.root_path, served)
        stage.listener["proxy_protocol_from"] = ["127.0.0.0/8"]
        async with staged(stage):
            wire = await stage.visitor()
            await wire.send(b"\x16\x03\x01\x02\x00")
            assert await wire.rest() == b""
            await stage.ended()
            assert stage.reasons() == ["client_failed:bad_proxy_preface"]

    play(story)


@pytest.mark.parametrize("mode", ["offload", "passthrough"])
def test_limits_refuse_at_once_and_name_themselves(mode: str, pki: LabPki, served: Issued) -> None:
    async def story() -> None:
        stage = Stage(mode, pki.root_path, served)
        stage.limits["calls_max"] = 2
        async with staged(stage):
            clients: list[Client] = []
            for _ in range(2):
                clients.append(await stage.client())
                await clients[-1].open()
            late = await stage.visitor()
            assert await late.rest() == b""
            await stage.ended()
            assert stage.reasons() == ["refused:calls_max"]
            assert await clients[0].echo(packets(5000))
            await clients[0].close()
            await stage.ended(2)
            again = await stage.client()
            assert await again.open() == ANSWER

    play(story)


def test_an_idle_call_is_ended_and_says_why(pki: LabPki, served: Issued) -> None:
    async def story() -> None:
        stage = Stage("offload", pki.root_path, served)
        stage.limits["idle_timeout"] = "300ms"
        async with staged(stage):
            client = await stage.client()
            await client.open()
            assert await client.rest() == disconnect(StatusInfo()).encode()
            await stage.ended()
            assert stage.reasons() == ["closed:idle_timeout"]

    play(story)


def test_sni_chooses_pool_and_certificate(pki: LabPki, served: Issued, rsa: Issued) -> None:
    async def story() -> None:
        second = FakeBackend("second", "127.0.3.2", None)
        await second.start()
        stage = Stage("offload", pki.root_path, served)
        stage.listener["certificates"] = [
            {"chain": str(i.chain), "key": str(i.key)} for i in (served, rsa)
        ]
        stage.listener["sni_pools"] = {"*.example.test": "rras", "rsa.example.test": "second"}
        stage.more_pools["second"] = {
            "backends": [{"name": "second", "address": f"127.0.3.2:{second.port}"}]
        }
        try:
            async with staged(stage):
                for name, pool in (("rsa.example.test", "second"), ("vpn.example.test", "rras")):
                    client = await stage.client(name=name)
                    await client.open()
                    await client.close()
                    await stage.ended()
                    assert stage.balancer.ledger.ended[-1].pool == pool
                    stage.balancer.ledger.ended.clear()
        finally:
            await second.stop()

    play(story)

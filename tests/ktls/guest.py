"""kTLS for real: runs in a kernel that has it (``make test-ktls``), and counts by that kernel.

``/proc/net/tls_stat`` counts connections whose records the kernel seals (TlsTxSw) or opens
(TlsRxSw). The clients and backends here are Python's ``ssl`` and ``openssl s_client``, which never
ask for it: what is counted is ours.
"""

import asyncio
import os
import socket
import ssl
from collections import Counter
from pathlib import Path

import pytest

from sstplb.config.loader import parse
from sstplb.config.schema import TlsVersion
from sstplb.control.plan import prepare
from sstplb.lab.pki import Issued, LabPki
from sstplb.tls.openssl import OpenSsl
from tests.characters import ANSWER, LIMIT_S, REQUEST, SERVER_NAME, Stage, packets, play, staged

BULK_BYTES = 4_000_000
IS_3_0 = OpenSsl().version.startswith("3.0.")
"""It hands over the receiving side of TLS 1.2 only."""


def kernel_connections() -> Counter[str]:
    """Return how many connections the kernel has taken over since it was booted."""
    lines = Path("/proc/net/tls_stat").read_text().splitlines()
    return Counter({name: int(value) for name, value in map(str.split, lines)})


class KernelStage(Stage):
    """A stage where one TLS version is spoken on every leg."""

    version = TlsVersion.TLS13

    async def start(self) -> None:
        """Start; packets are not followed, so that bulk may be spliced."""
        self.listener = {
            "follow": "off",
            "tls": {"min_version": self.version, "max_version": self.version},
        }
        self.pool = {"check": {"method": "tcp"}}
        await super().start()

    def context(self) -> ssl.SSLContext:
        """Speak that version only."""
        context = super().context()
        if self.version is TlsVersion.TLS12:
            context.maximum_version = ssl.TLSVersion.TLSv1_2
        return context


def stage_of(mode: str, version: TlsVersion, pki: LabPki, served: Issued) -> KernelStage:
    stage = KernelStage(mode, pki.root_path, served, count=1)
    stage.version = version
    return stage


def test_check_says_what_the_kernel_does(pki: LabPki, served: Issued) -> None:
    stage = Stage("offload", pki.root_path, served)
    stage.backends[0].port = stage.backends[1].port = 80
    engine = prepare(parse(stage.document())).engine
    assert "kTLS for sending and receiving with TLS 1.2" in engine
    assert ("sending with TLS 1.3" if IS_3_0 else "sending and receiving with TLS 1.3") in engine


@pytest.mark.parametrize("version", TlsVersion)
@pytest.mark.parametrize("mode", ["offload", "reencrypt"])
def test_the_kernel_carries_a_call_byte_for_byte(
    mode: str, version: TlsVersion, pki: LabPki, served: Issued, monkeypatch: pytest.MonkeyPatch
) -> None:
    spliced = []
    splice = os.splice

    def counted(source: int, sink: int, size: int, *, flags: int) -> int:
        spliced.append(splice(source, sink, size, flags=flags))
        return spliced[-1]

    async def story() -> None:
        async with staged(stage_of(mode, version, pki, served)) as stage:
            before = kernel_connections()
            client = await stage.client()
            assert client.writer.get_extra_info("ssl_object").version() == f"TLSv{version}"
            assert await client.open() == ANSWER
            payload = packets(BULK_BYTES)
            assert await client.echo(payload)
            client.writer.write(b"\x10\x00\x00\x08last")
            assert await client.receive(8) == b"\x10\x00\x00\x08last"
            await client.close()
            await stage.ended()
            taken_over = kernel_connections() - before
            (record,) = stage.balancer.ledger.ended
            assert record.bytes_in == record.bytes_out == len(payload) + 8
            assert stage.reasons() == ["completed:client_ended"]
            # In re-encrypt the backend's leg always speaks 1.3 here, and only sends by the kernel.
            legs = 1 if mode == "offload" else 2
            assert taken_over["TlsTxSw"] == legs
            assert taken_over["TlsRxSw"] == (1 if version is TlsVersion.TLS12 else 0) or not IS_3_0
            assert taken_over["TlsDecryptError"] == 0

    monkeypatch.setattr("sstplb.net.relay.os.splice", counted)
    play(story)
    if mode == "offload":  # the backend is plain: what it sends is spliced into TLS
        assert sum(spliced) > BULK_BYTES // 2


@pytest.mark.parametrize("version", TlsVersion)
def test_the_end_is_said_and_heard(version: TlsVersion, pki: LabPki, served: Issued) -> None:
    """close_notify goes through the kernel both ways: a client that insists on it is content."""

    async def story() -> None:
        async with staged(stage_of("offload", version, pki, served)) as stage:
            stage.backends[0].mood = "well"
            client = await stage.client()
            await client.open()
            await client.send(REQUEST)
            assert await client.receive(len(REQUEST)) == REQUEST
            host, port = stage.balancer.listeners["vpn"].address
            loop = asyncio.get_running_loop()
            assert await loop.run_in_executor(None, _end_by_the_book, stage, host, port)
            await client.close()
            await stage.ended(2)
            assert set(stage.reasons()) == {"completed:client_ended"}

    play(story)


def _end_by_the_book(stage: Stage, host: str, port: int) -> bool:
    """Open a call, close with close_notify, and return whether one came back."""

    with (
        socket.create_connection((host, port), LIMIT_S) as sock,
        stage.context().wrap_socket(
            sock, server_hostname=SERVER_NAME, suppress_ragged_eofs=False
        ) as tls,
    ):
        tls.sendall(REQUEST)
        assert tls.recv(65536) == ANSWER
        tls.unwrap().close()  # raises when the end comes without close_notify
    return True


def test_sessions_are_resumed(pki: LabPki, served: Issued) -> None:
    """Tickets go through the kernel as well."""

    async def story() -> None:
        async with staged(stage_of("offload", TlsVersion.TLS13, pki, served)) as stage:
            host, port = stage.balancer.listeners["vpn"].address
            loop = asyncio.get_running_loop()
            assert await loop.run_in_executor(None, _resumes, stage.context(), host, port)

    play(story)


def _resumes(context: ssl.SSLContext, host: str, port: int) -> bool:

    session = None
    for _ in range(2):
        with (
            socket.create_connection((host, port), LIMIT_S) as sock,
            context.wrap_socket(sock, server_hostname=SERVER_NAME, session=session) as tls,
        ):
            tls.sendall(REQUEST)
            assert tls.recv(65536) == ANSWER
            session = tls.session
            was_resumed = bool(tls.session_reused)
    return was_resumed


def test_a_key_update_does_not_hurt(pki: LabPki, served: Issued) -> None:
    """``K`` on a line of its own has s_client change its key, and ask for the same of us."""

    async def story() -> None:
        async with staged(stage_of("offload", TlsVersion.TLS13, pki, served)) as stage:
            host, port = stage.balancer.listeners["vpn"].address
            process = await asyncio.create_subprocess_exec(
                "openssl", "s_client", "-connect", f"{host}:{port}", "-servername", SERVER_NAME,
                "-CAfile", str(pki.root_path), "-quiet", "-no_ign_eof", "-tls1_3",
                stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.DEVNULL,
            )  # fmt: skip
            assert process.stdin is not None
            assert process.stdout is not None
            async with asyncio.timeout(LIMIT_S * 2):
                process.stdin.write(REQUEST)
                assert await process.stdout.readexactly(len(ANSWER)) == ANSWER
                for number in range(3):
                    process.stdin.write(b"K\n")
                    await process.stdin.drain()
                    await asyncio.sleep(0.5)  # s_client takes a command only at a line's start
                    line = b"\x10\x00\x00\x08ab%d\n" % number
                    process.stdin.write(line)
                    assert await process.stdout.readexactly(len(line)) == line
                process.stdin.close()
                await process.wait()
            await stage.ended()
            assert stage.reasons() == ["completed:client_ended"]

    play(story)

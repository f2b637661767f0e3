"""The examples do what they say: each is run as a reader would run it."""

import asyncio
import contextlib
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from examples.read_packets import sentences
from sstplb.config.schema import PoolTls, Verify
from sstplb.lab.caller import CallPlan, place_call
from sstplb.lab.pki import Issued, LabPki
from sstplb.lab.rras import Fault, Rras, RrasSettings
from sstplb.protocol import packet, ppp
from sstplb.protocol.head import build_request
from sstplb.tls.policy import ClientPolicy
from tests.characters import LIMIT_S, SERVER_NAME, free_port, play

ROOT = Path(__file__).parents[2]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
HOST = "127.0.7.1"


@contextlib.asynccontextmanager
async def hundred_lines(served: Issued, backends: list[str]) -> AsyncIterator[int]:
    """Run the example as its docstring says; yield its port."""
    port = free_port(HOST)
    process = await asyncio.create_subprocess_exec(
        sys.executable, "examples/hundred_lines.py", f"{HOST}:{port}",
        str(served.chain), str(served.key), *backends,
        cwd=ROOT, env={"PYTHONPATH": str(ROOT)}, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        async with asyncio.timeout(LIMIT_S):
            while True:
                try:
                    _, writer = await asyncio.open_connection(HOST, port)
                except OSError:
                    assert process.returncode is None
                    await asyncio.sleep(0.05)
                else:
                    writer.close()
                    break
        yield port
    finally:
        process.terminate()
        await process.communicate()


def test_the_hundred_lines_are_a_balancer(pki: LabPki, served: Issued) -> None:
    """Whole calls, binding and all; round robin; failover when one server has no ports."""

    async def story() -> None:
        servers = [
            Rras(
                RrasSettings(
                    name=f"rras{n}",
                    http=(f"127.0.7.{n}", 0),
                    offload_sha256=served.certificate.sha256,
                )
            )
            for n in (2, 3)
        ]
        for server in servers:
            await server.start()
        addresses = [f"{s.http[0]}:{s.http[1]}" for s in servers if s.http]
        async with hundred_lines(served, addresses) as port:
            policy = ClientPolicy(PoolTls(verify=Verify.CA, ca_file=pki.root_path))
            for number in range(6):
                if number == 4:
                    servers[0].fault = Fault.NO_PORTS
                # Affinity keeps a client where it was: each call is another client's.
                plan = CallPlan(
                    (HOST, port), SERVER_NAME, "user", "password", policy,
                    source_host=f"127.0.7.{100 + number}", data_bytes=50_000,
                )  # fmt: skip
                report = await place_call(plan)
                assert report.ok, report.failure
            assert [s.connected_total for s in servers] == [2, 4]
            reader, writer = await asyncio.open_connection(
                HOST,
                port,
                ssl=ssl.create_default_context(cafile=str(pki.root_path)),
                server_hostname=SERVER_NAME,
            )
            writer.write(build_request("GET", "/", [("Host", SERVER_NAME)]))
            assert (await reader.readline()).startswith(b"HTTP/1.1 404")
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()
        for server in servers:
            await server.stop()

    play(story)


def test_a_hundred_lines_are_a_hundred_lines() -> None:
    assert len((ROOT / "examples/hundred_lines.py").read_text().splitlines()) <= 100


def run(example: str, *arguments: str, given: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, f"examples/{example}", *arguments],
        cwd=ROOT, env={"PYTHONPATH": str(ROOT)}, input=given,
        capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip


def test_the_binding_is_the_specifications() -> None:
    done = run("crypto_binding.py")
    assert done.returncode == 0, done.stderr
    assert "(as in 4.7)" in done.stdout
    assert "a server with its own certificate: accepted" in done.stdout
    assert "a server with another certificate: refused, certificate_hash_mismatch" in done.stdout


def test_packets_are_read_from_arguments_and_standard_input() -> None:
    stream = packet.connect_request().encode() + packet.DISCONNECT_ACK.encode()
    for done in (run("read_packets.py", stream.hex()), run("read_packets.py", given=stream.hex())):
        assert done.returncode == 0, done.stderr
        assert done.stdout.splitlines() == [
            "control  CALL_CONNECT_REQUEST",
            "         ENCAPSULATED_PROTOCOL_ID: 0001",
            "control  CALL_DISCONNECT_ACK",
        ]
    done = run("read_packets.py", "4711")
    assert "not complete" in done.stdout
    done = run("read_packets.py", "47114711")
    assert done.returncode == 1
    assert "this cannot be read: expected an SSTP header" in done.stderr


def test_data_packets_are_told_by_their_ppp_protocol() -> None:
    frame = ppp.encode_frame(ppp.Protocol.LCP, bytes(10))
    assert sentences(packet.data_packet(frame)) == ["data     PPP LCP, 10 bytes"]


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_every_example_is_introduced(path: Path) -> None:
    assert f"[`{path.name}`]({path.name})" in (ROOT / "examples/README.md").read_text()

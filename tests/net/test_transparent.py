"""A transparent source, in a network namespace of its own: a backend sees the client's address."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
STORY = """
import asyncio, subprocess
from sstplb.net import tcp

CLIENT = "203.0.113.9"

def ip(*words):
    subprocess.run(["ip", *words], check=True)

async def story():
    ip("link", "set", "lo", "up")
    seen = asyncio.get_running_loop().create_future()
    async def serve(reader, writer):
        seen.set_result(writer.get_extra_info("peername")[0])
        writer.close()
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    address = server.sockets[0].getsockname()
    try:
        await tcp.connect(address, source_host=CLIENT)
    except OSError as error:
        print("not ours:", error.strerror)
    ip("route", "add", "local", CLIENT + "/32", "dev", "lo", "table", "100")
    ip("rule", "add", "to", CLIENT, "lookup", "100")
    async with asyncio.timeout(5):
        sock = await tcp.connect(address, source_host=CLIENT, transparent=True)
        print("seen:", await seen)
    sock.close()
    try:
        await tcp.connect(("::1", 9), source_host=CLIENT, transparent=True)
    except OSError as error:
        print(error)
    server.close()

asyncio.run(story())
"""


def test_a_backend_sees_the_clients_own_address() -> None:
    done = subprocess.run(
        ["unshare", "--net", "--map-root-user", sys.executable, "-c", STORY],
        cwd=ROOT, capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "seen: 203.0.113.9" in done.stdout
    assert "not ours: Cannot assign requested address" in done.stdout
    assert "needs one address family, not 203.0.113.9" in done.stdout

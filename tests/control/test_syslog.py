"""Log lines for a syslog server: UDP, TCP, a local socket; one that is gone, one that is stuck."""

import asyncio
import json
import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import structlog

from sstplb.config.loader import parse
from sstplb.config.quantities import parse_syslog
from sstplb.config.schema import Log, SyslogFacility
from sstplb.control import syslog
from sstplb.control.logs import Logs
from sstplb.errors import ConfigError
from tests.characters import LIMIT_S, play

LINE = re.compile(
    r"<(?P<priority>\d+)>1 (?P<at>\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z) (?P<host>\S+) sstplb "
    r"(?P<process>\d+) (?P<event>\S+) - (?P<text>\{.*\})"
)

log = structlog.get_logger()


def read(line: bytes) -> tuple[int, str, dict[str, Any]]:
    """Return priority, event and values of a line. Fails when it is none."""
    match = LINE.fullmatch(line.decode())
    assert match is not None, line
    return int(match["priority"]), match["event"], json.loads(match["text"])


@contextmanager
def logging_to(server: str, **more: Any) -> Iterator[Logs]:
    logs = Logs()
    logs.apply(Log(syslog=parse_syslog(server), **more))
    try:
        yield logs
    finally:
        logs.close()


def datagrams(family: socket.AddressFamily, address: Any) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_DGRAM)
    sock.bind(address)
    sock.settimeout(LIMIT_S)
    return sock


def test_udp(capsys: pytest.CaptureFixture[str]) -> None:
    async def story() -> None:
        with datagrams(socket.AF_INET, ("127.0.0.1", 0)) as server:
            port = server.getsockname()[1]
            with logging_to(f"udp://127.0.0.1:{port}", syslog_facility=SyslogFacility.LOCAL3):
                log.warning("backend_down", message="rras1 is down: connection refused", pool="a")
                log.info("huge", message="ü" * 20_000)
            priority, event, values = read(server.recv(65536))
            assert (priority, event) == (8 * 19 + 4, "backend_down")
            assert values["message"] == "rras1 is down: connection refused"
            assert values["pool"] == "a"
            huge = server.recv(65536)
            assert huge.decode().startswith("<158>1 ")
            assert syslog.LINE_BYTES_MAX - 2 < len(huge) <= syslog.LINE_BYTES_MAX

    play(story)
    assert "rras1 is down" in capsys.readouterr().err, "and it is written where it was before"


def test_a_local_daemon_that_is_restarted(tmp_path: Path) -> None:
    async def story() -> None:
        path = tmp_path / "log"
        with logging_to(str(path)) as logs:
            log.info("early", message="nobody is there yet")
            await asyncio.sleep(0)
            with datagrams(socket.AF_UNIX, str(path)) as daemon:
                assert read(await received(daemon))[:2] == (8 * 3 + 6, "early")
                assert read(await received(daemon))[1] == "syslog_failed"
                assert read(await received(daemon))[1] == "syslog_back"
                log.info("later")
                assert read(await received(daemon))[1] == "later"
            path.unlink()
            log.info("between")
            with datagrams(socket.AF_UNIX, str(path)) as daemon:
                assert read(await received(daemon))[1] == "between", "it was kept"
            events = [event["event"] for event in logs.events.after(0, 100)]
            assert events.count("syslog_failed") == 2, "said once each time"

    play(story)


async def received(daemon: socket.socket) -> bytes:
    return await asyncio.to_thread(daemon.recv, 65536)


def test_tcp_counts_octets_and_comes_back() -> None:
    async def story() -> None:
        taken: asyncio.Queue[asyncio.StreamReader] = asyncio.Queue()
        writers: list[asyncio.StreamWriter] = []

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writers.append(writer)
            await taken.put(reader)

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        with logging_to(f"tcp://127.0.0.1:{port}"):
            log.info("first", message="one\ntwo")
            reader = await taken.get()
            assert (await framed(reader))[1] == "first"
            writers[0].close()
            await writers[0].wait_closed()
            await asyncio.sleep(0.05)
            log.info("second")
            reader = await taken.get()
            events = [(await framed(reader))[1] for _ in range(3)]
            assert sorted(events) == ["second", "syslog_back", "syslog_failed"]
        assert await reader.read() == b""
        writers[1].close()
        server.close()
        await server.wait_closed()

    play(story)


async def framed(reader: asyncio.StreamReader) -> tuple[int, str, dict[str, Any]]:
    async with asyncio.timeout(LIMIT_S):
        size = await reader.readuntil(b" ")
        return read(await reader.readexactly(int(size)))


def test_a_server_that_is_stuck_costs_lines_never_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(syslog, "LINES_MAX", 50)

    async def story() -> None:
        with socket.socket() as stuck:
            stuck.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            stuck.bind(("127.0.0.1", 0))
            stuck.listen()
            with logging_to(f"tcp://127.0.0.1:{stuck.getsockname()[1]}") as logs:
                await asyncio.sleep(0.05)
                sink, _ = stuck.accept()
                for number in range(2000):
                    log.info("line", message="x" * 4000, number=number)
                with sink:
                    sink.settimeout(LIMIT_S)
                    seen = 0
                    while not any(e["event"] == "syslog_back" for e in logs.events.after(0, 1000)):
                        seen += len(await asyncio.to_thread(sink.recv, 1 << 20))
                (back,) = (e for e in logs.events.after(0, 1000) if e["event"] == "syslog_back")
                assert 1000 < back["lost"] < 2000
                assert seen > 50 * 4000

    play(story)


@pytest.mark.parametrize(
    ("server", "expected"),
    [
        ("10.0.0.5:514", "expected udp://"),
        ("tls://10.0.0.5:6514", "expected udp://"),
        ("udp://loghost:514", "expected an IP address and a port"),
        ("udp://10.0.0.5", "expected an IP address and a port"),
    ],
)
def test_what_cannot_be_a_server(server: str, expected: str) -> None:
    text = f"""
listeners: [{{name: vpn, address: "127.0.0.1:0", mode: passthrough, pool: rras}}]
pools: {{rras: {{backends: [{{name: rras1, address: 10.0.0.11}}]}}}}
log: {{syslog: "{server}"}}
"""
    with pytest.raises(ConfigError, match=expected) as caught:
        parse(text)
    assert caught.value.problems[0].path == "log.syslog"


def test_what_is_a_server() -> None:
    for text in ("udp://10.0.0.5:514", "tcp://[::1]:601", "/dev/log"):
        assert str(parse_syslog(text)) == text

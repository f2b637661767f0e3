"""Third-party software as characters: ``sstpc`` the client, ``sstp-server`` the server.

Both are real programs in processes of their own, ended by their ids. Neither needs pppd or
/dev/ppp: our PPP peer plays pppd on both sides, and hands over the MPPE keys as pppd's plugins
do, so the crypto binding is computed by the one and verified by the other.
"""

import asyncio
import contextlib
import os
import pty
import shutil
import socket
import sys
import tempfile
import tty
import uuid
from collections.abc import AsyncIterator
from pathlib import Path

from sstplb.lab.pki import Issued
from sstplb.protocol import ipv4, ppp
from sstplb.protocol.hdlc import HdlcReader, encode
from sstplb.protocol.ppp_peer import AddressAssigned, Authenticated, ClientEnd, PppEvent, PppPeer
from tests.characters import free_port
from tests.interop.keys import key_message

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
SOCKETS = Path("/var/run/sstpc")
LIMIT_S = 15.0
CLIENT_DELAY_S = 0.03
"""sstpc hangs by itself when the server's whole TLS flight is there before its first read."""
PING = bytes(range(256)) * 4
"""Every byte value: what is escaped on the pty and in pppd's place must come back the same."""


async def stop(process: asyncio.subprocess.Process) -> None:
    """End a process we started, by its id."""
    if process.returncode is None:
        process.terminate()
        try:
            async with asyncio.timeout(3):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()


def prepare() -> None:
    """See to what sstpc needs."""
    assert shutil.which("sstpc"), "sstpc is missing: apt-get install sstp-client"
    SOCKETS.mkdir(parents=True, exist_ok=True)


class ThirdPartyServer:
    """PyPI's sstp-server, verifying compound MACs."""

    def __init__(
        self, host: str, issued: Issued, *, plain: bool = False, proxy: bool = False
    ) -> None:
        self.host, self.issued, self.plain, self.proxy = host, issued, plain, proxy
        self.port = 0
        self.log = ""
        self._directory = tempfile.TemporaryDirectory(prefix="sstpd-")
        self._process: asyncio.subprocess.Process | None = None
        self._reading: asyncio.Task[None] | None = None

    async def start(self) -> None:
        directory = Path(self._directory.name)
        self.port = free_port(self.host)
        both = directory / "both.pem"
        both.write_bytes(self.issued.chain.read_bytes() + self.issued.key.read_bytes())
        stand_in = directory / "pppd"
        stand_in.write_text(
            f"#!/bin/sh\nexec '{sys.executable}' '{HERE / 'pppd_stand_in.py'}' \"$@\"\n"
        )
        stand_in.chmod(0o755)
        (directory / "options").touch()
        flags = ["--proxy-protocol"] if self.proxy else ["-n"] if self.plain else []
        self._process = await asyncio.create_subprocess_exec(
            sys.executable, str(HERE / "sstpd_launcher.py"),
            "-l", self.host, "-p", str(self.port), "-c", str(both), "--pppd", str(stand_in),
            "--pppd-config", str(directory / "options"),
            "--local", "10.9.0.1", "--remote", "10.9.0.0/24", "-v", "10", *flags,
            env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "ignore"},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        self._reading = asyncio.create_task(self._read(), name="sstpd log")
        await self.says("Listening on")

    async def _read(self) -> None:
        assert self._process is not None
        assert self._process.stderr is not None
        async for line in self._process.stderr:
            self.log += line.decode(errors="replace")

    async def says(self, words: str) -> None:
        """Wait until its log says so."""
        try:
            async with asyncio.timeout(LIMIT_S):
                while words not in self.log:
                    assert self._process is not None
                    assert self._process.returncode is None, self.log
                    await asyncio.sleep(0.02)
        except TimeoutError:
            raise AssertionError(f"sstp-server did not say {words!r}:\n{self.log}") from None

    async def stop(self) -> None:
        if self._process is not None:
            await stop(self._process)
        if self._reading is not None:
            await self._reading
        self._directory.cleanup()


class ThirdPartyClient:
    """Debian's sstpc. Its pty is played by our PPP peer; it speaks through a delaying relay.

    With ``wrong_key`` it is handed an MPPE key the server does not have, and signs its crypto
    binding with that; everything else is right.
    """

    def __init__(self, *, sni: bool, wrong_key: bool = False) -> None:
        self.sni, self.wrong_key = sni, wrong_key
        self.log = ""
        self.events: list[PppEvent] = []
        self.address = ""
        self.pongs = 0
        self._name = f"test-{uuid.uuid4().hex[:8]}"
        self._key_socket = SOCKETS / f"sstpc-{self._name}"
        self._peer = PppPeer(ClientEnd("user", "password"), os.urandom)
        self._reader = HdlcReader()
        self._master = -1
        self._process: asyncio.subprocess.Process | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._relay: asyncio.Server | None = None
        self._writers: list[asyncio.StreamWriter] = []
        self._ping = b""

    async def dial(self, host: str, port: int) -> None:
        """Start the program."""
        prepare()
        self._relay = await asyncio.start_server(
            lambda r, w: self._carry(r, w, host, port), "127.0.5.1", 0
        )
        relay_port = self._relay.sockets[0].getsockname()[1]
        self._master, slave = pty.openpty()
        tty.setraw(slave)
        os.set_blocking(self._master, False)
        self._process = await asyncio.create_subprocess_exec(
            "sstpc", "--nolaunchpppd", "--cert-warn", *(["--tls-ext"] if self.sni else []),
            "--log-level", "4",
            "--log-stderr", "--ipparam", self._name, f"127.0.5.1:{relay_port}",
            stdin=slave, stdout=slave, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        os.close(slave)
        loop = asyncio.get_running_loop()
        loop.add_reader(self._master, self._readable)
        self._tasks = [
            asyncio.create_task(self._read_log(), name="sstpc log"),
            asyncio.create_task(self._wake(), name="sstpc ppp"),
        ]
        self._write(self._peer.start(loop.time()))

    async def connected(self) -> bool:
        """Wait until it has an address and a ping came back through the tunnel, or it gave up."""
        assert self._process is not None
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LIMIT_S):
                while not self.pongs and self._process.returncode is None:
                    await asyncio.sleep(0.02)
        return bool(self.pongs)

    async def says(self, words: str) -> None:
        """Wait until its log says so."""
        try:
            async with asyncio.timeout(LIMIT_S):
                while words not in self.log:
                    await asyncio.sleep(0.02)
        except TimeoutError:
            raise AssertionError(f"sstpc did not say {words!r}:\n{self.log}") from None

    async def stop(self) -> None:
        if self._process is not None:
            asyncio.get_running_loop().remove_reader(self._master)
            await stop(self._process)
            os.close(self._master)
            self._key_socket.unlink(missing_ok=True)  # sstpc does not always
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for writer in self._writers:
            writer.transport.abort()
        if self._relay is not None:
            self._relay.close()
            await self._relay.wait_closed()

    # --- pppd's part ----------------------------------------------------------------------------

    def _readable(self) -> None:
        try:
            data = os.read(self._master, 65536)
        except (BlockingIOError, OSError):
            asyncio.get_running_loop().remove_reader(self._master)
            return
        now = asyncio.get_running_loop().time()
        for frame in self._reader.feed(data):
            self._write(self._peer.receive(frame, now))
            for event in self._peer.take_events():
                self._happened(event)
        for packet in self._peer.take_packets():
            parsed = ipv4.parse(packet)
            self.pongs += parsed is not None and ipv4.is_echo_reply(parsed, 1, 1, PING)

    def _happened(self, event: PppEvent) -> None:
        self.events.append(event)
        if isinstance(event, Authenticated):
            assert self._peer.mppe_keys is not None
            send, receive = self._peer.mppe_keys
            if self.wrong_key:
                send = bytes(byte ^ 0xFF for byte in send)
            with socket.socket(socket.AF_UNIX) as sock:
                sock.connect(str(self._key_socket))
                sock.sendall(key_message(send=send, receive=receive))
                sock.settimeout(2)
                sock.recv(100)  # its acknowledgement: closing before it comes kills sstpc
        elif isinstance(event, AddressAssigned):
            self.address = str(event.client)
            self._ping = ipv4.echo_request(event.client, event.server, 1, 1, PING)

    async def _wake(self) -> None:
        """Repeat what PPP asks for, and ping until something comes back."""
        loop = asyncio.get_running_loop()
        while not self._peer.terminated:
            await asyncio.sleep(0.1)
            if self._peer.wake_at is not None and self._peer.wake_at <= loop.time():
                self._write(self._peer.wake(loop.time()))
            if self._ping and not self.pongs:
                self._write([ppp.encode_frame(ppp.Protocol.IP, self._ping)])

    def _write(self, frames: list[bytes]) -> None:
        with contextlib.suppress(OSError):
            for frame in frames:
                os.write(self._master, encode(frame))

    # --- the way to the server ------------------------------------------------------------------

    async def _read_log(self) -> None:
        assert self._process is not None
        assert self._process.stderr is not None
        async for line in self._process.stderr:
            self.log += line.decode(errors="replace")

    async def _carry(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, host: str, port: int
    ) -> None:
        """Relay, with a small delay towards the client."""
        there_reader, there_writer = await asyncio.open_connection(host, port)
        self._writers += [writer, there_writer]

        async def pump(
            source: asyncio.StreamReader, sink: asyncio.StreamWriter, delay: float
        ) -> None:
            with contextlib.suppress(OSError):
                while data := await source.read(65536):
                    await asyncio.sleep(delay)
                    sink.write(data)
                    await sink.drain()
            sink.close()

        await asyncio.gather(
            pump(reader, there_writer, 0), pump(there_reader, writer, CLIENT_DELAY_S)
        )


@contextlib.asynccontextmanager
async def server(
    host: str, issued: Issued, *, plain: bool = False, proxy: bool = False
) -> AsyncIterator[ThirdPartyServer]:
    """Run sstp-server while the context lasts."""
    character = ThirdPartyServer(host, issued, plain=plain, proxy=proxy)
    try:
        await character.start()
        yield character
    finally:
        await character.stop()


@contextlib.asynccontextmanager
async def client(
    host: str, port: int, *, sni: bool = False, wrong_key: bool = False
) -> AsyncIterator[ThirdPartyClient]:
    """Run sstpc while the context lasts; with ``sni`` it sends ``address:port`` as its SNI."""
    character = ThirdPartyClient(sni=sni, wrong_key=wrong_key)
    try:
        await character.dial(host, port)
        yield character
    finally:
        await character.stop()

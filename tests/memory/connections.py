"""Every way in which a connection of the native engine can go, one after the other.

What runs here is watched from outside: by glibc's checking allocator while somebody counts what
OpenSSL holds (``counted.py``), or by valgrind (``under_valgrind.py``). Nothing is left to chance,
so that every round does the same. Both sides of a connection are here, for one may end in a way
that the other has to understand. Contexts are made anew now and then: they are freed as well.

``MISTAKES`` are what the watchers must see. As a program, ``connections.py FOLDER LIBRARY COUNT …``
makes that many, and prints how many of each kind.
"""

import asyncio
import contextlib
import gc
import json
import socket
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path
from types import MappingProxyType
from typing import Any

import uvloop

from sstplb.config.schema import CertificateFiles, ListenerTls, PoolTls, TlsVersion, Verify
from sstplb.errors import CertificateError, TlsError
from sstplb.lab.pki import LabPki
from sstplb.net.leg import PlainLeg
from sstplb.net.native_leg import NativeLeg
from sstplb.tls.certificate import Certificate, Identity, load_certificate, load_identity
from sstplb.tls.native import (
    TICKET_KEYS_BYTES,
    NativeConnection,
    NativeContext,
    Sessions,
    WouldBlockError,
)
from sstplb.tls.openssl import OpenSsl

NAME = "vpn.example.test"
MANY_BYTES = 100_000
"""More records than one: the batch reader is made."""
EARLY_BYTES = (0, 3, 70, 65536)
"""How much of the ClientHello the server side gets as bytes that were read before it was there."""


def issue(folder: Path) -> None:
    """Make the certificates: one that clients believe, one that they do not."""
    pki = LabPki(folder)
    pki.issue("vpn", (NAME,))
    pki.issue("lonely", (NAME,), self_signed=True)


@contextlib.contextmanager
def failing(expected: type[Exception] = TlsError) -> Iterator[None]:
    """Expect that something fails."""
    try:
        yield
    except expected:
        return
    raise AssertionError(f"expected {expected.__name__}")


def sockets() -> tuple[socket.socket, socket.socket]:
    left, right = socket.socketpair()
    left.setblocking(False)
    right.setblocking(False)
    return left, right


@dataclass
class Pair:
    """The client's side and the server's side of a connection, each with its socket.

    ``outer`` and ``inner`` are the other ends of these when the two are apart: then what is sent
    arrives when, and as far as, it is passed on.
    """

    near: socket.socket
    far: socket.socket
    client: NativeConnection
    server: NativeConnection
    outer: socket.socket
    inner: socket.socket

    def shake(self) -> None:
        """Shake hands until both have, each waiting for the other."""
        waiting = [self.client, self.server]
        while waiting:
            for side in list(waiting):
                with contextlib.suppress(WouldBlockError):
                    side.handshake()
                    waiting.remove(side)
            if self.outer is not self.far:
                self.pass_on()
                self.pass_back()

    def pass_on(self, size: int = MANY_BYTES, damage: int = 0) -> None:
        """Let the server have what the client sent, ``damage`` added to its last byte."""
        self._move(self.outer, self.inner, size, damage)

    def pass_back(self, size: int = MANY_BYTES) -> None:
        """Let the client have what the server sent."""
        self._move(self.inner, self.outer, size, 0)

    @staticmethod
    def _move(source: socket.socket, sink: socket.socket, size: int, damage: int) -> None:
        with contextlib.suppress(BlockingIOError):
            data = bytearray(source.recv(size))
            data[-1] = (data[-1] + damage) % 256
            sink.send(data)

    def cut(self) -> None:
        """Cut the line between them."""
        self.outer.close()
        self.inner.close()

    def close(self) -> None:
        """Let go of everything, connections before their sockets."""
        self.client.close()
        self.server.close()
        for sock in (self.near, self.far, self.outer, self.inner):
            sock.close()


class Company:
    """What connections share: contexts, a session of each version, a buffer, an event loop."""

    def __init__(self, openssl: OpenSsl, folder: Path) -> None:
        """``folder`` has what ``issue`` made."""
        self.openssl = openssl
        self.version = TlsVersion.TLS13
        self.made: Counter[str] = Counter()
        """Connections by kind."""
        self.made_of: Counter[str] = Counter()
        """Connections by version of TLS."""
        self.buffer = memoryview(bytearray(2 * MANY_BYTES))
        self.loop = uvloop.new_event_loop()
        self._turns = cycle([(kind, version) for version in TlsVersion for kind in KINDS])
        self._early = cycle(EARLY_BYTES)
        self._ca_file, self._no_ca_file = folder / "root.pem", folder / "vpn.key"
        believed, self._lonely = (
            load_identity(
                CertificateFiles(chain=folder / f"{name}.pem", key=folder / f"{name}.key")
            )
            for name in ("vpn", "lonely")
        )
        root = load_certificate(self._ca_file).leaf
        self._chained = Identity(Certificate(believed.certificate.leaf, (root,)), believed.key)
        self.begin_anew()

    def begin_anew(self) -> None:
        """Make the contexts, and fail to make some."""
        self.sessions: dict[TlsVersion, Any] = dict.fromkeys(TlsVersion)
        self.places = Sessions()
        self.servers = {version: self._server(version, self._chained) for version in TlsVersion}
        self.lonely = {version: self._server(version, self._lonely) for version in TlsVersion}
        careful = PoolTls(verify=Verify.CA, ca_file=self._ca_file)
        self.careful = NativeContext.for_backends(self.openssl, careful)
        for settings in (ListenerTls(ciphers="NONSENSE"), ListenerTls(ciphersuites="NONSENSE")):
            with failing(CertificateError):
                NativeContext.for_clients(self.openssl, settings, self._chained)
        with failing(CertificateError):
            careful = PoolTls(verify=Verify.CA, ca_file=self._no_ca_file)
            NativeContext.for_backends(self.openssl, careful)

    def run(self, count: int) -> None:
        """Make that many connections, each kind in its turn; end as fresh as at first."""
        for kind, version in islice(self._turns, count):
            self.version = version
            kind(self)
            self.made[kind.__name__.replace("_", " ")] += 1
            self.made_of[f"TLS {version}"] += 1
            if self.made.total() % (10 * len(KINDS)) == 0:
                self.begin_anew()
                gc.collect()
        self.begin_anew()
        gc.collect()

    def begun(
        self, server: NativeContext | None = None, session: Any = None, *, apart: bool = False
    ) -> Pair:
        """Return a connection whose client has said hello; the server may have heard of it."""
        near, outer = sockets()
        inner, far = sockets() if apart else (near, outer)
        client = NativeConnection(self.careful, near.fileno(), server_name=NAME, session=session)
        with contextlib.suppress(WouldBlockError):
            client.handshake()
        size = 0 if apart else next(self._early)
        early = far.recv(size) if size else b""
        context = server or self.servers[self.version]
        return Pair(
            near, far, client, NativeConnection(context, far.fileno(), early=early), outer, inner
        )

    def shaken(self, session: Any = None, *, apart: bool = False) -> Pair:
        """Return a connection that has shaken hands, whose client has read the ticket."""
        pair = self.begun(session=session, apart=apart)
        pair.shake()
        assert pair.server.write(memoryview(b"hello")) == 5
        pair.pass_back() if apart else None
        assert pair.client.read(self.buffer) == 5
        return pair

    def read(self, side: NativeConnection, size: int) -> None:
        """Read that many bytes."""
        got = 0
        while got < size:
            count = side.read(self.buffer)
            assert count, "expected more bytes"
            got += count

    def _server(self, version: TlsVersion, identity: Identity) -> NativeContext:
        settings = ListenerTls(min_version=version, max_version=version)
        return NativeContext.for_clients(
            self.openssl, settings, identity, bytes(range(TICKET_KEYS_BYTES))
        )


def finished(company: Company) -> None:
    pair = company.shaken()
    assert pair.client.info.version == f"TLSv{company.version}"
    assert pair.client.info.peer_leaf_der
    assert pair.server.info.peer_leaf_der is None
    for writer, reader in ((pair.client, pair.server), (pair.server, pair.client)):
        assert writer.write(memoryview(b"x" * 1400)) == 1400
        company.read(reader, 1400)
        assert reader.read(company.buffer) is None
    pair.client.close_notify()
    assert pair.server.read(company.buffer) == 0
    assert pair.server.read(company.buffer) == 0
    pair.server.close_notify()
    assert pair.client.read(company.buffer) == 0
    pair.close()
    pair.close()


def half_closed(company: Company) -> None:
    pair = company.shaken()
    pair.client.close_notify()
    assert pair.server.read(company.buffer) == 0
    assert pair.server.write(memoryview(b"x" * 1400)) == 1400
    company.read(pair.client, 1400)
    pair.close()


def resumed(company: Company) -> None:
    session = company.sessions[company.version]
    pair = company.shaken(session)
    assert pair.client.is_resumed == pair.server.is_resumed == (session is not None)
    assert pair.client.info.peer_leaf_der
    company.sessions[company.version] = pair.client.session
    assert company.sessions[company.version] is not None
    pair.close()


def refused(company: Company) -> None:
    pair = company.begun(company.lonely[company.version])
    with failing():
        pair.shake()
    with failing():
        pair.server.handshake()
    assert pair.client.session is None
    pair.close()


def not_tls_to_a_server(company: Company) -> None:
    pair = company.begun(apart=True)
    pair.inner.send(b"GET / HTTP/1.1\r\nHost: vpn.example.test\r\n\r\n")
    with failing():
        pair.server.handshake()
    pair.close()


def not_tls_to_a_client(company: Company) -> None:
    pair = company.begun(apart=True)
    pair.outer.send(b"HTTP/1.1 400 Bad Request\r\n\r\n")
    with failing():
        pair.client.handshake()
    pair.close()


def never_shaken(company: Company) -> None:
    company.begun().close()


def cut_off_in_the_hello(company: Company) -> None:
    pair = company.begun(apart=True)
    pair.pass_on(100)
    with failing(WouldBlockError):
        pair.server.handshake()
    pair.cut()
    for side in (pair.server, pair.client):
        with failing():
            side.handshake()
    pair.close()


def cut_off_in_the_answer(company: Company) -> None:
    pair = company.begun(apart=True)
    pair.pass_on()
    with failing(WouldBlockError):
        pair.server.handshake()
    pair.pass_back(300)
    with failing(WouldBlockError):
        pair.client.handshake()
    pair.cut()
    for side in (pair.client, pair.server):
        with failing():
            side.handshake()
    pair.close()


def cut_off_before_the_end_of_the_handshake(company: Company) -> None:
    pair = company.begun(apart=True)
    pair.pass_on()
    with failing(WouldBlockError):
        pair.server.handshake()
    pair.pass_back()
    with contextlib.suppress(WouldBlockError):  # TLS 1.3: the client is ready
        pair.client.handshake()
    pair.pass_on(20)
    with failing(WouldBlockError):
        pair.server.handshake()
    pair.cut()
    with failing():
        pair.server.handshake()
    pair.close()


def cut_off_in_a_record(company: Company) -> None:
    pair = company.shaken(apart=True)
    assert pair.client.write(memoryview(bytes(16_000))) == 16_000
    pair.pass_on(9_000)
    assert pair.server.read(company.buffer) is None
    pair.cut()
    assert pair.server.read(company.buffer) == 0
    pair.close()


def damaged(company: Company) -> None:
    pair = company.shaken(apart=True)
    assert pair.client.write(memoryview(bytes(1_400))) == 1_400
    pair.pass_on(damage=1)
    for _ in range(2):
        with failing():
            pair.server.read(company.buffer)
    pair.close()


def closed_with_data_unread(company: Company) -> None:
    pair = company.shaken()
    assert pair.client.write(memoryview(bytes(MANY_BYTES))) == MANY_BYTES
    assert pair.server.read(company.buffer[:5_000]) == 5_000
    pair.close()


def read_in_a_batch(company: Company) -> None:
    pair = company.shaken()
    assert pair.client.write(memoryview(bytes(MANY_BYTES))) == MANY_BYTES
    company.read(pair.server, MANY_BYTES)
    assert pair.server._batch_reader is not None
    pair.close()


def closed_in_the_middle_of_a_batch(company: Company) -> None:
    pair = company.shaken()
    assert pair.client.write(memoryview(bytes(MANY_BYTES))) == MANY_BYTES
    company.read(pair.server, 1)
    assert pair.server.write(memoryview(b"x" * 1400)) == 1400
    pair.client.close_notify()
    company.read(pair.client, 1400)
    pair.close()


def rested(company: Company) -> None:
    pair = company.shaken()
    for _ in range(2):
        assert pair.client.write(memoryview(bytes(MANY_BYTES))) == MANY_BYTES
        company.read(pair.server, MANY_BYTES)
        pair.server.rest()
        assert pair.server._batch_reader is None
        pair.server.rest()
    pair.close()


def full(company: Company) -> None:
    """The socket takes no more, then more, then no more again."""
    pair = company.shaken()
    chunk = memoryview(bytes(65_536))
    for _ in range(2):
        while pair.client.write(chunk):
            pass
        while pair.server.read(company.buffer):
            pass
    while pair.client.write(chunk):
        pass
    pair.close()


def gone(company: Company) -> None:
    pair = company.shaken()
    pair.server.close()
    pair.far.close()
    with failing(ConnectionResetError):
        pair.client.write(memoryview(b"x"))
    pair.close()


def left_to_the_collector(company: Company) -> None:
    """Half way through the handshake, and in a cycle."""
    pair = company.begun()
    with failing(WouldBlockError):
        pair.server.handshake()
    for sock in (pair.near, pair.far):
        sock.close()
    snake: list[object] = [pair]
    snake.append(snake)


def legs(company: Company) -> tuple[NativeLeg, NativeLeg]:
    near, far = sockets()
    return (
        NativeLeg(PlainLeg(near, company.loop), company.careful, NAME, company.places),
        NativeLeg(PlainLeg(far, company.loop), company.servers[company.version]),
    )


def as_legs(company: Company) -> None:
    async def story() -> None:
        outer, inner = legs(company)
        await asyncio.gather(outer.handshake(), inner.handshake())
        for sender, receiver in ((outer, inner), (inner, outer)):
            await sender.send(bytes(40_000))
            got = 0
            while got < 40_000:
                got += len(await receiver.receive())
            receiver.rest()
        await outer.send_end()
        assert await inner.receive() == b""
        outer.close()
        inner.close()
        inner.close()

    company.loop.run_until_complete(story())


def as_legs_that_gave_up(company: Company) -> None:
    async def story() -> None:
        outer, inner = legs(company)
        shaking = asyncio.ensure_future(inner.handshake())
        await asyncio.sleep(0)
        with contextlib.suppress(WouldBlockError):
            outer._connection.handshake()
        await asyncio.sleep(0)
        shaking.cancel()
        with failing(asyncio.CancelledError):  # type: ignore[arg-type]
            await shaking
        inner.close()
        with failing():
            await outer.handshake()
        outer.close()

    company.loop.run_until_complete(story())


KINDS: tuple[Callable[[Company], None], ...] = (
    finished,
    half_closed,
    resumed,
    refused,
    not_tls_to_a_server,
    not_tls_to_a_client,
    never_shaken,
    cut_off_in_the_hello,
    cut_off_in_the_answer,
    cut_off_before_the_end_of_the_handshake,
    cut_off_in_a_record,
    damaged,
    closed_with_data_unread,
    read_in_a_batch,
    closed_in_the_middle_of_a_batch,
    rested,
    full,
    gone,
    left_to_the_collector,
    as_legs,
    as_legs_that_gave_up,
)


def freed_twice(company: Company) -> None:
    pair = company.shaken()
    company.openssl.lib.SSL_free(pair.server._ssl)
    pair.close()


def used_when_freed(company: Company) -> None:
    pair = company.shaken()
    company.openssl.lib.SSL_free(pair.server._ssl)
    pair.server.read(company.buffer)


def kept_for_ever(company: Company) -> None:
    pair = company.shaken()
    company.openssl.lib.SSL_get1_session(pair.client._ssl)
    pair.close()


MISTAKES: Mapping[str, Callable[[Company], None]] = MappingProxyType(
    {mistake.__name__: mistake for mistake in (freed_twice, used_when_freed, kept_for_ever)}
)
"""What must be noticed, by name."""


def main(folder: Path, library: str, count: int, mistake: str = "") -> None:
    """Make that many connections, and the mistake; print how many of each kind."""
    company = Company(OpenSsl(library), folder)
    company.run(count)
    if mistake:
        MISTAKES[mistake](company)
    print(json.dumps({**company.made_of, **company.made}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), *sys.argv[4:])

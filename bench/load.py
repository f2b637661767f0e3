"""One end of a load: ``python -m bench.load`` runs as backend or as client, one process each.

The client opens calls as a Windows client does (in passthrough behind a ClientHello, which the
balancers look at and the backend throws away) and says in a header of its request what is to
happen; the backend needs no other instruction. Both are one thread around one epoll.

A client speaks with the bench over its standard streams: it prints ``ready`` when every call is
open, begins at ``go``, and prints one line of JSON. A backend prints its port.
"""

import contextlib
import heapq
import json
import select
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from bench.stream import (
    ACK,
    BROKEN,
    DONE,
    GO,
    GREETING,
    REQUEST,
    SIGNAL_BYTES,
    Pattern,
    call_connected,
    pattern,
)
from bench.wire import READ_BYTES, TlsWire, Wire
from sstplb.config.schema import SRA_PATH, CertificateFiles, ListenerTls, PoolTls, Verify
from sstplb.errors import TlsError
from sstplb.protocol.head import simple_answer, sstp_response
from sstplb.tls.certificate import load_certificate, load_identity
from sstplb.tls.native import NativeContext
from sstplb.tls.openssl import OpenSsl

HOST = "127.0.0.1"
SERVER_NAME = "vpn.example.test"
DATE = "Mon, 21 Feb 2011 05:37:00 GMT"
HEAD_END = b"\r\n\r\n"
BURST_UNITS = 64
GIVE_UP_S = 60.0
CONNECTED = call_connected(bytes(32))


@dataclass(frozen=True)
class Errand:
    """What one call is to do, as the client tells the backend."""

    kind: str = "echo"
    """``stream`` or ``echo``."""
    pattern: str = "packets"
    up_blocks: int = 0
    """Client to backend, in blocks of the pattern (about 1 MiB)."""
    down_blocks: int = 0


@dataclass(frozen=True)
class Job:
    """What a client process is to do."""

    port: int
    mode: str
    calls: int
    errand: Errand
    seconds: float = 0.0
    """How long an echo goes on."""
    interval_s: float = 0.0
    """Time between the packets of a call; 0: the next when the last has come back."""
    ca_file: str = ""
    chain: str = ""
    """The certificate that the call is bound to."""


class BrokenLoadError(Exception):
    """Bytes were lost, changed or reordered, or a call did not open."""


class Sender:
    """Writes a stream, unit after unit."""

    def __init__(self, wanted: Pattern, total: int) -> None:
        self._view = memoryview(wanted.twice)
        self._block_bytes = len(wanted.block)
        self._units = wanted.units
        self._unit = 0
        self._left = wanted.units[0]
        self._total = total
        self.sent = 0
        self.tail = b""
        """What follows when all is sent."""

    def pump(self, wire: Wire) -> bool:
        """Write until the wire is full or a burst is out; return whether nothing is left."""
        for _ in range(BURST_UNITS):
            if self.sent >= self._total:
                break
            at = self.sent % self._block_bytes
            count = wire.write(self._view[at : at + self._left])
            if not count:
                return False
            self.sent += count
            self._left -= count
            if not self._left:
                self._unit = (self._unit + 1) % len(self._units)
                self._left = self._units[self._unit]
        if self.sent >= self._total and self.tail:
            self.tail = self.tail[wire.write(self.tail) :]
        return wire.flush() and self.sent >= self._total and not self.tail


class Receiver:
    """Reads a stream and compares it; what follows it is the signal."""

    def __init__(self, wanted: Pattern, total: int) -> None:
        self._pattern = wanted
        self._total = total
        self.received = 0
        self.signal = b""

    def take(self, data: bytes) -> None:
        """Compare. Raises BrokenLoadError."""
        mine = data[: self._total - self.received]
        if not self._pattern.matches(self.received, mine):
            raise BrokenLoadError(f"wrong bytes near {self.received}")
        self.received += len(mine)
        self.signal += data[len(mine) :]

    @property
    def complete(self) -> bool:
        """Whether all of the stream has come."""
        return self.received >= self._total


class Loop:
    """An epoll with callbacks."""

    def __init__(self) -> None:
        self.poll = select.epoll()
        self.handlers: dict[int, Callable[[int], None]] = {}

    def watch(self, sock: socket.socket, handler: Callable[[int], None], *, write: bool) -> None:
        """Call ``handler`` with the events of a socket."""
        mask = select.EPOLLIN | (select.EPOLLOUT if write else 0)
        if sock.fileno() in self.handlers:
            self.poll.modify(sock.fileno(), mask)
        else:
            self.poll.register(sock.fileno(), mask)
        self.handlers[sock.fileno()] = handler

    def forget(self, sock: socket.socket) -> None:
        """Watch a socket no more; before closing it."""
        if self.handlers.pop(sock.fileno(), None):
            self.poll.unregister(sock.fileno())

    def turn(self, timeout_s: float = 1.0) -> None:
        """Wait once, and call whoever has something to do."""
        for descriptor, events in self.poll.poll(timeout_s):
            if handler := self.handlers.get(descriptor):
                handler(events)


# --- the backend --------------------------------------------------------------------------------


class Station:
    """One call at the backend."""

    def __init__(self, loop: Loop, wire: Wire) -> None:
        self.loop, self.wire = loop, wire
        self._shaken = False
        self._head = b""
        self._errand: Errand | None = None
        self._opening = b""
        self._open = False
        self._sender: Sender | None = None
        self._receiver: Receiver | None = None
        self._echo = b""
        self._started = self._said_done = False
        loop.watch(wire.sock, self.on_event, write=False)

    def on_event(self, events: int) -> None:
        """Go on; whatever goes wrong ends this call only."""
        try:
            self._go_on(events)
        except (OSError, TlsError, BrokenLoadError):
            self.close()

    def close(self) -> None:
        """Let go."""
        self.loop.forget(self.wire.sock)
        self.wire.close()

    def _go_on(self, events: int) -> None:
        if not self._shaken:
            self._shaken = self.wire.handshake()
            if not self._shaken:
                return None
            self.wire.flush()
        while events & ~select.EPOLLOUT:
            data = self.wire.read()
            if data == b"":
                return self.close()
            if data:
                self._take(data)
            if data is None or len(data) < READ_BYTES:
                break
        self._give()
        return None

    def _take(self, data: bytes) -> None:
        if self._errand is None:
            self._read_head(data)
        elif not self._open:
            self._follow_opening(data)
        elif self._errand.kind == "echo":
            self._echo += data
        elif self._receiver is not None:
            if not self._started:
                self._started, data = True, data[SIGNAL_BYTES:]
            self._receiver.take(data)

    def _follow_opening(self, data: bytes) -> None:
        size_before = len(self._opening)
        self._opening += data
        if size_before < len(REQUEST) <= len(self._opening):
            self.wire.write(ACK)
        if len(self._opening) >= len(REQUEST) + len(CONNECTED):
            self._open = True
            self.wire.write(GREETING)
        self.wire.flush()

    def _read_head(self, data: bytes) -> None:
        self._head += data
        if self._head[:1] == b"\x16":  # passthrough: a ClientHello goes first
            if len(self._head) < 5:
                return
            size = 5 + int.from_bytes(self._head[3:5], "big")
            if len(self._head) < size:
                return
            self._head = self._head[size:]
        head, end, rest = self._head.partition(HEAD_END)
        if not end:
            return
        if head.startswith(b"HEAD "):
            self.wire.write(simple_answer(401, "Unauthorized"))
            self.wire.flush()
            return
        told = next(line for line in head.split(b"\r\n") if line.startswith(b"X-Load: "))
        self._errand = errand = Errand(**json.loads(told[8:]))
        wanted = pattern(errand.pattern)
        self._receiver = Receiver(wanted, errand.up_blocks * len(wanted.block))
        self._sender = Sender(wanted, errand.down_blocks * len(wanted.block))
        self.wire.write(sstp_response(DATE))
        self.wire.flush()
        if rest:
            self._take(rest)

    def _give(self) -> None:
        if self._errand is None or not self._open:
            return
        if self._errand.kind == "echo":
            while self._echo and (count := self.wire.write(self._echo)):
                self._echo = self._echo[count:]
            done = self.wire.flush() and not self._echo
        else:
            assert self._sender is not None
            assert self._receiver is not None
            if not self._started:
                return
            if self._receiver.complete and not self._said_done:
                self._said_done, self._sender.tail = True, DONE
            done = self._sender.pump(self.wire)
        self.loop.watch(self.wire.sock, self.on_event, write=not done)


def serve(files: CertificateFiles | None) -> None:
    """Be a backend until the bench ends this process."""
    context = None
    if files is not None:
        context = NativeContext.for_clients(OpenSsl(), ListenerTls(), load_identity(files))
    loop = Loop()
    listening = socket.create_server((HOST, 0), backlog=4096)
    listening.setblocking(False)

    def accept(_events: int) -> None:
        while True:
            try:
                sock, _ = listening.accept()
            except BlockingIOError:
                return
            Station(loop, TlsWire(sock, context) if context is not None else Wire(sock))

    loop.watch(listening, accept, write=False)
    print(listening.getsockname()[1], flush=True)
    while True:
        loop.turn()


# --- the client ---------------------------------------------------------------------------------


def open_call(job: Job, context: NativeContext | None, hello: bytes, leaf_sha256: bytes) -> Wire:
    """Open one call, up to where data flows. Raises BrokenLoadError."""
    sock = socket.create_connection((HOST, job.port), timeout=10)
    wire = TlsWire(sock, context, SERVER_NAME) if context is not None else Wire(sock)
    readable = select.poll()
    readable.register(sock.fileno(), select.POLLIN)
    while not wire.handshake():
        readable.poll(10_000)
    wire.flush()
    request = (
        f"SSTP_DUPLEX_POST {SRA_PATH} HTTP/1.1\r\n"
        "SSTPCORRELATIONID: {0D528CAC-464E-423A-A399-9470E234BC54}\r\n"
        f"X-Load: {json.dumps(asdict(job.errand))}\r\n"
        f"Content-Length: 18446744073709551615\r\nHost: {SERVER_NAME}\r\n\r\n"
    )
    wire.write(hello + request.encode())
    wire.flush()
    answer = b""
    while HEAD_END not in answer:
        if not readable.poll(10_000):
            raise BrokenLoadError("no answer within 10 s")
        data = wire.read()
        if data == b"":
            raise BrokenLoadError(f"closed instead of answering {answer!r}")
        answer += data or b""
    if b" 200 " not in answer.partition(b"\r\n")[0] + b" " or not answer.endswith(HEAD_END):
        raise BrokenLoadError(f"expected 200 and nothing more, got {answer[:64]!r}")
    for said, expected in ((REQUEST, ACK), (call_connected(leaf_sha256), GREETING)):
        wire.write(said)
        wire.flush()
        got = b""
        while len(got) < len(expected):
            readable.poll(10_000)
            got += wire.read() or b""
        if got != expected:
            raise BrokenLoadError(f"expected {expected[:16]!r}, got {got[:16]!r}")
    return wire


class StreamCall:
    """A call that moves a given number of bytes."""

    def __init__(self, loop: Loop, wire: Wire, errand: Errand) -> None:
        self.loop, self.wire = loop, wire
        wanted = pattern(errand.pattern)
        self._sender = Sender(wanted, errand.up_blocks * len(wanted.block))
        self._receiver = Receiver(wanted, errand.down_blocks * len(wanted.block))
        self.done = False

    def begin(self) -> None:
        """Say go."""
        self.wire.write(GO)
        self.wire.flush()
        self.on_event(0)

    def on_event(self, events: int) -> None:
        """Go on."""
        while events & ~select.EPOLLOUT:
            data = self.wire.read()
            if data == b"":
                raise BrokenLoadError("the call ended in the middle")
            if data:
                self._receiver.take(data)
            if data is None or len(data) < READ_BYTES:
                break
        if self._receiver.signal == BROKEN:
            raise BrokenLoadError("the backend got other bytes than were sent")
        sent = self._sender.pump(self.wire)
        if self._receiver.signal == DONE and self._receiver.complete:
            self.done = True
        self.loop.watch(self.wire.sock, self.on_event, write=not sent)


class EchoCall:
    """A call with one packet in flight."""

    def __init__(self, loop: Loop, wire: Wire, packet: bytes, on_back: "OnBack") -> None:
        self.loop, self.wire = loop, wire
        self._packet = packet
        self._got = b""
        self._on_back = on_back
        self.due_s = 0.0
        self.in_flight = False

    def send(self, due_s: float) -> None:
        """Send the packet."""
        self.due_s, self.in_flight = due_s, True
        self.wire.write(self._packet)
        self.wire.flush()

    def on_event(self, _events: int) -> None:
        """Read what came back."""
        data = self.wire.read()
        if data == b"":
            raise BrokenLoadError("the call ended in the middle")
        self._got += data or b""
        if len(self._got) >= len(self._packet):
            if self._got != self._packet:
                raise BrokenLoadError("another packet came back than was sent")
            self._got, self.in_flight = b"", False
            self._on_back(self, time.monotonic() - self.due_s)


OnBack = Callable[[EchoCall, float], None]


def run_streams(loop: Loop, wires: list[Wire], job: Job) -> dict[str, object]:
    """Move the bytes of every call; return what was moved and how long it took."""
    calls = [StreamCall(loop, wire, job.errand) for wire in wires]
    began = time.monotonic()
    for call in calls:
        call.begin()
    while not all(call.done for call in calls):
        loop.turn()
        if time.monotonic() - began > GIVE_UP_S:
            raise BrokenLoadError(f"not finished after {GIVE_UP_S:g} s")
    block_bytes = len(pattern(job.errand.pattern).block)
    moved = len(calls) * (job.errand.up_blocks + job.errand.down_blocks) * block_bytes
    return {"bytes": moved, "seconds": time.monotonic() - began}


def run_echoes(loop: Loop, wires: list[Wire], job: Job) -> dict[str, object]:
    """Send packets back and forth for a while; return how many and how long each took."""
    packet = pattern("packets").packets()[0]
    took: list[float] = []
    began = time.monotonic()
    until = began + job.seconds
    queue: list[tuple[float, int]] = []

    def on_back(call: EchoCall, seconds: float) -> None:
        took.append(seconds)
        if not job.interval_s and time.monotonic() < until:
            call.send(time.monotonic())

    calls = [EchoCall(loop, wire, packet, on_back) for wire in wires]
    for number, call in enumerate(calls):
        loop.watch(call.wire.sock, call.on_event, write=False)
        if job.interval_s:
            # Spread over the interval, so that the load is steady.
            queue.append((began + job.interval_s * number / len(calls), number))
        else:
            call.send(time.monotonic())
    heapq.heapify(queue)
    while (now := time.monotonic()) < until or any(call.in_flight for call in calls):
        while queue and queue[0][0] <= now < until:
            due, number = heapq.heappop(queue)
            if calls[number].in_flight:  # late: it counts from when it was due
                heapq.heappush(queue, (now + 0.001, number))
                continue
            calls[number].send(due)
            heapq.heappush(queue, (due + job.interval_s, number))
        wait = 0.1 if not queue else max(0.0, min(0.1, queue[0][0] - time.monotonic()))
        loop.turn(wait)
        if now > until + GIVE_UP_S:
            raise BrokenLoadError("packets never came back")
    took.sort()
    return {
        "messages": 2 * len(took),
        "seconds": time.monotonic() - began,
        "p50_s": _percentile(took, 0.50),
        "p99_s": _percentile(took, 0.99),
    }


def _percentile(ordered: list[float], share: float) -> float:
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))] if ordered else 0.0


def call(job: Job) -> None:
    """Be a client: open, wait for ``go``, do the errand, report."""
    context = None
    hello = client_hello() if job.mode == "passthrough" else b""
    if job.mode != "passthrough":
        settings = PoolTls(verify=Verify.CA, ca_file=Path(job.ca_file))
        context = NativeContext.for_backends(OpenSsl(), settings)
    loop = Loop()
    leaf = load_certificate(Path(job.chain)).sha256
    wires = [open_call(job, context, hello, leaf) for _ in range(job.calls)]
    print("ready", flush=True)
    if sys.stdin.readline().strip() != "go":
        return
    if job.errand.kind == "stream":
        result = run_streams(loop, wires, job)
    else:
        result = run_echoes(loop, wires, job)
    print(json.dumps(result), flush=True)
    sys.stdin.readline()  # the calls stay open until the bench has looked at what they cost


def client_hello() -> bytes:
    """Return a real ClientHello: in passthrough it is all a balancer sees in clear."""
    import ssl  # noqa: PLC0415 - only here

    context = ssl.create_default_context()
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = context.wrap_bio(incoming, outgoing, server_hostname=SERVER_NAME)
    with contextlib.suppress(ssl.SSLWantReadError):
        tls.do_handshake()
    return outgoing.read()


def main() -> None:
    """Run as the bench asks."""
    role, told = sys.argv[1], json.loads(sys.argv[2])
    if role == "backend":
        serve(CertificateFiles(chain=told["chain"], key=told["key"]) if told else None)
    else:
        call(Job(**{**told, "errand": Errand(**told["errand"])}))


if __name__ == "__main__":
    main()

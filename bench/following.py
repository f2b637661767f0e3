"""What following a call costs: ``python -m bench.following``. CPU time, the best of several rounds.

The opening is a real one (our PPP at both ends), cut into a chunk for each packet, as it mostly
comes; the story goes into a record, as in ``net/session.py``.
"""

import os
import time
from collections.abc import Callable
from ipaddress import IPv4Address

from sstplb.account.privacy import Discretion
from sstplb.account.record import Record
from sstplb.config.schema import Follow, Privacy
from sstplb.net import insight
from sstplb.protocol import packet
from sstplb.protocol.packet import CryptoBinding
from sstplb.protocol.ppp_peer import ClientEnd, PppPeer, ServerEnd
from sstplb.protocol.watcher import ENDING_BYTES_MAX, Watcher

SERVED = frozenset({b"\1" * 32})
ROUNDS = 7
IP_FRAME = b"\xff\x03\x00\x21\x45\x00"
DATA = packet.data_packet(IP_FRAME + bytes(1394))
TINY = packet.data_packet(b"\x21" + bytes(40))
"""A TCP acknowledgement."""

Chunk = tuple[bool, bytes]


def opening() -> list[Chunk]:
    """Return (from the client, packet) of a whole opening."""
    ends = (
        PppPeer(
            ServerEnd({"user": "password"}, IPv4Address("10.9.0.1"), IPv4Address("10.9.0.2")),
            os.urandom,
        ),
        PppPeer(ClientEnd("CORP\\user", "password", "LAB-PC"), os.urandom),
    )
    chunks = [
        (True, packet.connect_request().encode()),
        (False, packet.connect_ack(bytes(32), 3).encode()),
    ]
    waiting = [(bool(end), frame) for end in (0, 1) for frame in ends[end].start(0.0)]
    while waiting:
        is_client, frame = waiting.pop(0)
        chunks.append((is_client, packet.data_packet(frame)))
        answers = ends[not is_client].receive(frame, 0.0)
        waiting += [(not is_client, answer) for answer in answers]
    binding = CryptoBinding(2, bytes(32), b"\1" * 32, bytes(32))
    return [*chunks, (True, packet.connected(binding).encode())]


def followed(chunks: list[Chunk], follow: Follow) -> Watcher:
    """Follow an opening, and tell its story."""
    watcher = Watcher(follow, SERVED)
    record, discretion = Record(1, "vpn", "offload", ("", 0), 0.0, 0.0), Discretion(Privacy(), b"")
    for is_client, chunk in chunks:
        (watcher.from_client if is_client else watcher.from_backend)(chunk, 1.0)
        if watcher.story.news:
            insight.tell(record, watcher, discretion, 0.0)
    return watcher


def connected(chunks: list[Chunk], follow: Follow) -> Watcher:
    """Return the watcher of a call whose opening is long over."""
    watcher = followed(chunks, follow)
    watcher.from_client(DATA, 1.0)
    watcher.from_backend(DATA * 20, 1.0)
    return watcher


def best_us(work: Callable[[], object], times: int) -> float:
    """Return what one ``work`` costs, in microseconds."""
    found = []
    for _ in range(ROUNDS):
        began = time.process_time()
        for _ in range(times):
            work()
        found.append((time.process_time() - began) / times)
    return min(found) * 1e6


def main() -> None:
    """Print the figures."""
    chunks = opening()
    full, after = connected(chunks, Follow.FULL), connected(chunks, Follow.OPENING)
    assert after.looks_at_bytes == ENDING_BYTES_MAX
    bulk, one, tiny = memoryview(DATA * 180), memoryview(DATA), memoryview(TINY)
    rows = (
        (f"the opening, {len(chunks)} packets", lambda: followed(chunks, Follow.OPENING), 300, 1),
        ("full: a 1400-byte packet in bulk", lambda: full.from_client(bulk, 1.0), 300, 180),
        ("full: a chunk of one packet", lambda: full.from_client(one, 1.0), 20000, 1),
        ("opening, when it is over: a chunk of up to 64 bytes",
         lambda: after.from_client(tiny, 1.0), 20000, 1),
    )  # fmt: skip
    for name, work, times, packets in rows:
        print(f"{name:<52} {best_us(work, times) / packets:8.2f} µs")


if __name__ == "__main__":
    main()

"""The bytes that a load sends, and how it knows that they arrived unchanged.

Every load is a valid stream of SSTP data packets, for a balancer that follows SSTP must do its
work too. The stream repeats a block of random packets, so both ends know each byte of it from its
position alone, and comparing costs a memcmp. No proxy wins by losing, changing or reordering.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache

from sstplb.protocol.packet import (
    CryptoBinding,
    connect_ack,
    connect_request,
    connected,
    data_packet,
)
from sstplb.protocol.registry import HashProtocol
from sstplb.protocol.watcher import PACKETS_AFTER_CONNECTED

PACKET_BYTES = 1400
IMIX_BYTES = (64,) * 7 + (570,) * 4 + (1400,)
"""Simple IMIX: seven small, four middle, one full packet."""
BULK_BYTES = 65536
_BLOCK_BYTES = 1 << 20
SIGNAL_BYTES = 8
GO, DONE, BROKEN = (data_packet(word) for word in (b"go!!", b"done", b"bad!"))
"""What the two ends of a load tell each other, as packets of their own."""

# The SSTP conversation that opens a call, as far as a balancer can follow it.
NONCE = bytes(range(32))
REQUEST = connect_request().encode()
ACK = connect_ack(NONCE, HashProtocol.SHA256).encode()
GREETING = data_packet(b"\x00\x21" + bytes([0x45]) + bytes(19)) * (PACKETS_AFTER_CONNECTED + 1)
"""What the backend sends once it has accepted the binding: PPP that carries IP, so the opening is
over for whoever follows it."""


def call_connected(leaf_sha256: bytes) -> bytes:
    """Return a CALL_CONNECTED; its MAC is none, for the load's backend does not check it."""
    binding = CryptoBinding(HashProtocol.SHA256, NONCE, leaf_sha256, bytes(32))
    return connected(binding).encode()


@dataclass(frozen=True)
class Pattern:
    """A block of packets that repeats, and the units it is written in."""

    name: str
    """``bulk``, ``packets``, ``imix``, or the size of each packet."""
    block: bytes = field(repr=False)
    units: tuple[int, ...] = field(repr=False)
    """Bytes of each write, in turn, over one block."""
    twice: bytes = field(repr=False)

    def matches(self, position: int, data: bytes) -> bool:
        """Whether ``data`` is what stands at ``position`` of the stream."""
        at = position % len(self.block)
        if len(data) > len(self.block):
            half = len(self.block)
            return self.matches(position, data[:half]) and self.matches(
                position + half, data[half:]
            )
        return self.twice[at : at + len(data)] == data

    def packets(self) -> list[bytes]:
        """Return the packets of the block, one per unit; not for ``bulk``."""
        return list(_cut(self.block, self.units))


@cache
def pattern(name: str) -> Pattern:
    """Return the pattern of that name, the same in every process.

    ``bulk``, ``packets`` or ``imix``; or a number: packets of so many bytes, at most 4095.
    """
    dice = random.Random(name)
    sizes = IMIX_BYTES if name == "imix" else (int(name) if name.isdigit() else PACKET_BYTES,)
    packets: list[bytes] = []
    total = 0
    while total < _BLOCK_BYTES:
        packet = data_packet(dice.randbytes(sizes[len(packets) % len(sizes)] - 4))
        packets.append(packet)
        total += len(packet)
    block = b"".join(packets)
    units = tuple(len(p) for p in packets)
    if name == "bulk":
        whole, rest = divmod(len(block), BULK_BYTES)
        units = (BULK_BYTES,) * whole + ((rest,) if rest else ())
    return Pattern(name, block, units, block + block)


def _cut(block: bytes, units: tuple[int, ...]) -> Iterator[bytes]:
    at = 0
    for size in units:
        yield block[at : at + size]
        at += size

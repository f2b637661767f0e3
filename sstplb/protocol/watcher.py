"""What somebody in the middle can see of a call ([MS-SSTP] 3.2, 3.3). Pure.

``Watcher`` follows the packets of a terminating listener's calls as they pass, never changes or
holds back a byte and never raises. During the opening (``call.py`` has its states) it reads every
packet, and shows PPP to the ``Storyteller`` (``story.py``); afterwards it hops from header to
header and reads control packets only. Without the HLAK it cannot check the compound MAC; it *can*
say whether the nonce was echoed, whose certificate the client saw, and what the backend thought of
it.
"""

import contextlib
import struct
from collections.abc import Collection
from dataclasses import dataclass
from enum import Enum

from sstplb.config.schema import Follow
from sstplb.errors import PacketError, quote
from sstplb.protocol.boundary import Boundary
from sstplb.protocol.packet import (
    CryptoBinding,
    CryptoBindingRequest,
    Message,
    parse_message,
)
from sstplb.protocol.registry import (
    CONTROL_BYTES_MIN,
    HEADER_BYTES,
    LENGTH_MASK,
    AttributeId,
    MessageType,
    Status,
)
from sstplb.protocol.story import Storyteller

_HEADER = struct.Struct("!HH")
_DATA, _CONTROL = 0x1000, 0x1001
_RESERVED_IGNORED = 0xFF01
"""Of the first two bytes: the version and the C bit; the rest is reserved (2.2.1)."""
PACKETS_AFTER_CONNECTED = 16
"""When the backend has sent this many packets after CALL_CONNECTED the binding counts as accepted:
a refusal comes at once, but LCP or IPCP packets may already be on their way before it."""


BINDING_REFUSED = "binding_refused"
"""The reason of a call whose backend did not accept the crypto binding."""

ALL_BYTES = 1 << 62
"""Larger than any chunk."""
ENDING_BYTES_MAX = 64
"""The largest chunk that is looked at once the opening is over: a disconnect or an abort, with
what TCP may have put together with it. They come alone, for nobody sends data behind them."""
_GOODBYE_BYTES = 20
"""A disconnect or an abort with its Status Info."""
_SMALL_BYTES = 45
"""Data packets below this are looked at: they may hold PPP's own ending. No TCP segment in IP is
that small, so those that come by the thousand cost nothing."""
_LCP_STARTS = (b"\xff\x03\xc0\x21", b"\xc0\x21")
_LCP_BYTE = 0xC0


class CallPhase(Enum):
    """How far a call has come, seen from the middle."""

    OPENING = "opening"
    REQUESTED = "requested"
    ACCEPTED = "accepted"
    CONNECTED = "connected"
    ENDING = "ending"


@dataclass(frozen=True, slots=True)
class Finding:
    """Something notable in a call: a stable slug and a sentence."""

    reason: str
    sentence: str
    side: str
    """Whose doing it was: ``client`` or ``backend``."""


BACKEND_LOST = Finding(
    "backend_closed_in_call",
    "the backend closed its connection in the middle of the call, without a goodbye",
    "backend",
)
"""What is the matter with a call that ended while ``Watcher.is_in_midst``."""


class Whose(Enum):
    """Whose certificate a client bound to."""

    OURS = "ours"
    BACKENDS = "backend's"
    NEITHER = "neither"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class BindingSeen:
    """A client's crypto binding, as far as it can be judged without the HLAK."""

    hash_protocol: int
    offered: int
    """The mask of what the backend offered; 0: its request was not seen."""
    certificate_hash: bytes
    whose: Whose
    is_nonce_echoed: bool | None
    """None: the nonce was not seen."""

    @property
    def is_hash_offered(self) -> bool:
        """Whether the backend offered this hash, as far as is known."""
        return not self.offered or bool(self.offered & self.hash_protocol)


class Watcher:
    """Follows one call's packets both ways.

    ``fault`` is the first thing that was wrong; ``ending`` how the peers themselves ended it;
    ``story`` all its steps, on the clock of ``now``.
    """

    __slots__ = (
        "_backend", "_backend_hashes", "_client", "_connected_at_packet", "_follow", "_request",
        "_served_hashes", "binding", "ending", "fault", "is_proven", "looks_at_bytes", "phase",
        "story", "was_connected",
    )  # fmt: skip

    def __init__(
        self,
        follow: Follow,
        served_hashes: Collection[bytes],
        backend_hashes: Collection[bytes] = (),
    ) -> None:
        """Hashes are those of the certificate we showed, and of the one the backend expects."""
        self._follow = follow
        self._served_hashes, self._backend_hashes = served_hashes, backend_hashes
        self.story = Storyteller()
        self.binding: BindingSeen | None = None
        """The client's crypto binding, once it has come."""
        self._client = _Stream("client")
        self._backend = _Stream("backend")
        self._request: CryptoBindingRequest | None = None
        self._connected_at_packet = 0
        self.phase = CallPhase.OPENING
        self.fault: Finding | None = None
        self.ending: Finding | None = None
        self.was_connected = False
        """The client has sent its CALL_CONNECTED."""
        self.is_proven = False
        """The backend accepted the binding: packets flow, and no abort came."""
        self.looks_at_bytes = 0 if follow is Follow.OFF else ALL_BYTES
        """The largest chunk still worth showing; 0: none. It only ever becomes less."""

    @property
    def packets_from_client(self) -> int | None:
        """Packets the client has begun to send; None when not all were looked at."""
        return self._client.packets_begun if self.looks_at_bytes == ALL_BYTES else None

    @property
    def packets_from_backend(self) -> int | None:
        """Packets the backend has begun to send; None when not all were looked at."""
        return self._backend.packets_begun if self.looks_at_bytes == ALL_BYTES else None

    @property
    def is_in_midst(self) -> bool:
        """Whether the call is connected, and neither side has been seen to end it."""
        return self.was_connected and self.fault is None and not self.story.is_ending

    def boundaries(self) -> tuple[Boundary, Boundary]:
        """Return where the next packet of the client begins, and the backend's.

        Known while every packet is looked at; else they have to be found.
        """
        if self.looks_at_bytes < ALL_BYTES:
            return Boundary(None), Boundary(None)
        return self._client.boundary, self._backend.boundary

    def from_client(self, data: bytes | memoryview, now: float) -> None:
        """Look at bytes on their way to the backend; nothing of ``data`` itself is kept."""
        self._look(self._client, data, now)

    def from_backend(self, data: bytes | memoryview, now: float) -> None:
        """Look at bytes on their way to the client."""
        self._look(self._backend, data, now)
        if self.phase is CallPhase.CONNECTED and self.looks_at_bytes == ALL_BYTES:
            since = self._backend.packets - self._connected_at_packet
            if since >= PACKETS_AFTER_CONNECTED and self.fault is None:
                self.is_proven = True
            if self.is_proven and self.story.is_settled and self._follow is Follow.OPENING:
                self.looks_at_bytes = min(self.looks_at_bytes, ENDING_BYTES_MAX)
                self._client, self._backend, self._request = _FROM_CLIENT, _FROM_BACKEND, None

    def _look(self, stream: "_Stream", data: bytes | memoryview, now: float) -> None:
        if self.looks_at_bytes < ALL_BYTES:
            return self._look_for_ending(stream.side, data, now)
        try:
            take = stream.feed if self.story.is_told else stream.feed_whole
            for is_control, payload in take(data):
                if is_control:
                    self._read(stream.side, parse_message(payload), now)
                else:
                    self.story.take_frame(stream.side, payload, now)
        except PacketError as error:
            sentence = f"the {stream.side}'s SSTP stream is malformed: {error}"
            self._note("malformed_stream", sentence, stream.side)
            self.looks_at_bytes = 0

    def _look_for_ending(self, side: str, data: bytes | memoryview, now: float) -> None:
        """Read a small chunk that consists of whole control packets, or of PPP's own ending.

        Where packets begin is no longer known, so it may be a lie told inside a data packet; it
        would have to be a whole chunk that looks so to the last byte.
        """
        if not CONTROL_BYTES_MIN <= len(data) <= self.looks_at_bytes or data[0] != _CONTROL >> 8:
            return
        # Cheaply: this is where the small packets of running calls come by.
        kind = data[1]
        if kind != _CONTROL & 0xFF and (kind or (data[4] != _LCP_BYTE and data[6] != _LCP_BYTE)):
            return
        stream = _Stream(side)
        with contextlib.suppress(PacketError):
            packets = [
                parse_message(payload) if is_control else payload
                for is_control, payload in stream.feed(data)
            ]
            if not stream.is_between_packets:
                return
            for packet in packets:
                if isinstance(packet, Message):
                    self._read(side, packet, now)
                else:
                    self.story.take_frame(side, packet, now)

    def _read(self, side: str, message: Message, now: float) -> None:
        """Take one control packet into account. Raises PacketError."""
        kind = message.type
        self.story.take_message(side, message, now)
        if kind == MessageType.CALL_CONNECT_REQUEST and side == "client":
            self.phase = CallPhase.REQUESTED
        elif kind == MessageType.CALL_CONNECT_ACK and side == "backend":
            self.phase, self._request = CallPhase.ACCEPTED, message.binding_request
        elif kind == MessageType.CALL_CONNECT_NAK and side == "backend":
            status = message.status
            self._note("call_nak", f"the backend did not accept the call request ({status})", side)
        elif kind == MessageType.CALL_CONNECTED and side == "client":
            self.phase, self.was_connected = CallPhase.CONNECTED, True
            self._connected_at_packet = self._backend.packets
            self._check_binding(message)
        elif kind == MessageType.CALL_ABORT:
            self._read_abort(side, message)
        elif kind == MessageType.CALL_DISCONNECT and self.phase is not CallPhase.ENDING:
            self.phase = CallPhase.ENDING
            sentence = f"the {side} ended the call politely"
            self.ending = Finding(f"disconnected_by_{side}", sentence, side)

    def _check_binding(self, message: Message) -> None:
        """Check what can be checked without the HLAK (3.2.5.2)."""
        binding, request = message.binding, self._request
        if binding is None:
            sentence = "the client's CALL_CONNECTED carries no crypto binding"
            self._note("binding_missing", sentence, "client")
            return
        self.binding = seen = BindingSeen(
            binding.hash_protocol,
            0 if request is None else request.hash_protocols,
            self._known(binding.certificate_hash),
            self._whose(binding),
            None if request is None else binding.nonce == request.nonce,
        )
        if seen.whose in (Whose.BACKENDS, Whose.NEITHER):
            self._note("client_certificate_hash_mismatch", _mismatch(seen), "client")
        elif seen.is_nonce_echoed is False:
            sentence = "the client did not echo the backend's nonce"
            self._note("nonce_not_echoed", sentence, "client")
        elif not seen.is_hash_offered:
            self._note(
                "hash_not_offered",
                f"the client used hash {seen.hash_protocol:#x}, the backend offered "
                f"{seen.offered:#x}",
                "client",
            )

    def _known(self, certificate_hash: bytes) -> bytes:
        """Return the same hash; if it is ours then the very object, which all calls share."""
        return next(
            (known for known in self._served_hashes if known == certificate_hash), certificate_hash
        )

    def _whose(self, binding: CryptoBinding) -> Whose:
        if not self._served_hashes:
            return Whose.UNKNOWN
        if binding.certificate_hash in self._served_hashes:
            return Whose.OURS
        is_theirs = binding.certificate_hash in self._backend_hashes
        return Whose.BACKENDS if is_theirs else Whose.NEITHER

    def _read_abort(self, side: str, message: Message) -> None:
        if self.phase is CallPhase.ENDING:
            return  # 3.1.5.2: an abort is answered with an abort; the first one is the news
        before, self.phase = self.phase, CallPhase.ENDING
        status = message.status
        if status is None:
            self._note(f"aborted_by_{side}", f"the {side} aborted the call without a reason", side)
        elif side == "backend" and status.attribute_id == AttributeId.CRYPTO_BINDING:
            seen = self.binding.certificate_hash.hex() if self.binding else "unknown"
            self._note(
                BINDING_REFUSED,
                f"the backend refused the crypto binding ({status}): it expects another "
                f"certificate than the one the client saw (hash {seen})",
                side,
            )
        elif status.status == Status.NEGOTIATION_TIMEOUT:
            # Who aborts has waited for the other; when both could be slow (PPP), we blame the
            # backend, whose health weighs what clients can bring about.
            waits_for_client = side == "backend" and before is CallPhase.OPENING
            blamed = "client" if waits_for_client else "backend"
            self._note("negotiation_timeout", f"the {side} waited too long for the opening", blamed)
        else:
            self._note(f"aborted_by_{side}", f"the {side} aborted the call ({status})", side)

    def _note(self, reason: str, sentence: str, side: str) -> None:
        if self.fault is None:
            self.fault = Finding(reason, sentence, side)


def may_end_call(chunk: memoryview) -> bool:
    """Say at a glance whether a goodbye may be the last thing in a chunk of the backend.

    Chunks that are not looked at may have one behind their data: 8 bytes without attributes, or
    20 with a Status Info (2.2.11 to 2.2.14). A CALL_DISCONNECT of the client's must be answered
    (3.2.4.2), so an end that both sides agree on always has the backend's word in it. Of a torso
    anything may be true.
    """
    # Numbers rather than names: every chunk comes by here. 0x1001 begins a control packet.
    if len(chunk) >= _GOODBYE_BYTES:
        return (
            chunk[-7] == 0x01 and chunk[-8] == 0x10 and chunk[-3] != MessageType.ECHO_RESPONSE
        ) or (chunk[-19] == 0x01 and chunk[-20] == 0x10)
    if len(chunk) < CONTROL_BYTES_MIN or chunk[0] != 0x10:
        return True
    return chunk[-8] == 0x10 and chunk[-7] == 0x01 and chunk[-3] != MessageType.ECHO_RESPONSE


def _mismatch(seen: BindingSeen) -> str:
    """Say what it means that the client did not bind to the certificate we served."""
    saw = f"the client saw a certificate with hash {seen.certificate_hash.hex()}, which is not the"
    if seen.whose is Whose.BACKENDS:
        return (
            f"{saw} one we served but the backend's own: something between us and the client that "
            "holds the backend's certificate ends TLS"
        )
    return f"{saw} one we served: something between us and it inspects TLS"


def _is_lcp(data: bytes | memoryview, at: int) -> bool:
    """Whether an LCP frame begins there."""
    return bytes(data[at : at + 4]).startswith(_LCP_STARTS)


class _Stream:
    """One direction: cuts out packets whole, or hops from header to header.

    ``feed_whole`` hands out every packet, as long as a story is to be told; ``feed`` control
    packets, and data packets so small that they may be PPP's ending, and skips the bytes of others.
    Whoever has once changed to ``feed`` stays with it. What is carried from chunk to chunk is an
    unfinished packet, at most 4095 bytes.
    """

    __slots__ = ("_carry", "_skip", "packets", "side")

    def __init__(self, side: str) -> None:
        self.side = side
        self.packets = 0
        """Packets that were passed by; the one in hand may not be among them."""
        self._carry = b""
        self._skip = 0

    @property
    def packets_begun(self) -> int:
        """Packets whose header has come, but for unfinished control packets."""
        is_data_begun = len(self._carry) >= HEADER_BYTES and not self._carry[1] & 1
        return self.packets + is_data_begun

    @property
    def is_between_packets(self) -> bool:
        """Whether the last packet is complete and the next has not begun."""
        return not self._carry and not self._skip

    @property
    def boundary(self) -> Boundary:
        """Where the next packet begins."""
        return Boundary(self._skip, self._carry)

    def feed_whole(self, data: bytes | memoryview) -> list[tuple[bool, bytes]]:
        """Take a chunk, return (is control, payload) of each packet it completes.

        Raises PacketError when there is no header where one must be.
        """
        if self._carry:
            data = self._carry + data
            self._carry = b""
        at, end, found = 0, len(data), []
        while at + HEADER_BYTES <= end:
            kind, length = _header(data, at)
            if at + length > end:
                break
            found.append((kind == _CONTROL, bytes(data[at + HEADER_BYTES : at + length])))
            at += length
        self.packets += len(found)
        self._carry = bytes(data[at:])
        return found

    def feed(self, data: bytes | memoryview) -> list[tuple[bool, bytes]]:
        """Take a chunk, return (is control, payload) of what is worth reading in it.

        Raises PacketError when there is no header where one must be.
        """
        if self._carry:
            data = self._carry + data
            self._carry = b""
        at, end, found = self._skip, len(data), []
        unpack, packets = _HEADER.unpack_from, 0
        while at + HEADER_BYTES <= end:
            kind, length = unpack(data, at)
            length &= LENGTH_MASK
            if kind != _DATA or length < _SMALL_BYTES:  # rare: control, tiny, nonsense
                kind, length = _header(data, at)
                is_control = kind == _CONTROL
                if at + length > end and (is_control or length < _SMALL_BYTES):
                    break
                if is_control or (length < _SMALL_BYTES and _is_lcp(data, at + HEADER_BYTES)):
                    found.append((is_control, bytes(data[at + HEADER_BYTES : at + length])))
            at += length
            packets += 1
        self.packets += packets
        self._skip = max(0, at - end)
        self._carry = bytes(data[at:])
        return found


_FROM_CLIENT, _FROM_BACKEND = _Stream("client"), _Stream("backend")
"""Of calls whose packets are followed no more: they are asked for their side only."""


def _header(data: bytes | memoryview, at: int) -> tuple[int, int]:
    """Return kind and length of the packet that begins there. Raises PacketError."""
    kind, length = _HEADER.unpack_from(data, at)
    kind, length = kind & _RESERVED_IGNORED, length & LENGTH_MASK
    least = CONTROL_BYTES_MIN if kind == _CONTROL else HEADER_BYTES
    if kind not in (_DATA, _CONTROL) or length < least:
        raise PacketError(f"expected an SSTP header, got {quote(bytes(data[at : at + 4]))}")
    return kind, length

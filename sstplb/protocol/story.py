"""What a call's packets tell about it: its steps with their times, who called, how it went. Pure.

``Storyteller`` is shown what the ``Watcher`` (``call.py``) sees of one call: every message, and
while the opening is followed every PPP frame. It remembers each step once, as ``News`` that its
owner takes away, and a few facts: user, computer, authentication method, assigned address, and the
round trips of hellos. Once an address was assigned and data has come there is nothing more to
learn from PPP but how it ends; ``is_told`` says so, and nobody need cut out frames any more.

Windows' clients introduce themselves in LCP Identification packets (RFC 1570 2.1): ``MSRASV5.20``,
``MSRAS-0-COMPUTER``, and the correlation GUID as 16 bytes in little-endian field order; and when
they hang up, the data of the Terminate-Request holds a RAS error number behind a fixed mark.

What is never kept, not even for the length of a chunk beyond its own: a challenge, a response, a
password, or the text of an MS-CHAP failure, which repeats a challenge. What a peer calls itself is
cut to ``NAME_CHARACTERS_MAX`` printable characters. A frame that cannot be read is a step of the
story, ``malformed``, and nothing else: it passes on its way unchanged.
"""

import re
import struct
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum, StrEnum
from functools import lru_cache
from ipaddress import IPv4Address
from types import MappingProxyType

from sstplb.errors import PppError
from sstplb.protocol import ppp
from sstplb.protocol.packet import Message
from sstplb.protocol.ppp import (
    ChapCode,
    Code,
    IpcpOption,
    LcpOption,
    PapCode,
    PppPacket,
    Protocol,
)
from sstplb.protocol.ppp_peer import CHAP_ERRORS
from sstplb.protocol.registry import HashProtocol, MessageType

FRAMES_MAX = 200
"""So many frames are looked at for a story; an opening has thirty."""
MOMENTS_MAX = 48
"""So many steps are remembered of one call."""
NAME_CHARACTERS_MAX = 128
REASON_CHARACTERS_MAX = 64

_COMPUTER = "MSRAS-0-"
_GUID_BYTES = 16
_MAGIC_BYTES = 4
_RAS_REASON = struct.Struct("!4s4sI")
_RAS_MARK = b"\x00<\xcdt"
"""What stands between magic number and RAS error in a Terminate-Request of Windows."""
_MD5_BYTES, _MSCHAP_BYTES = 16, 49
"""RFC 1994; RFC 2433 and RFC 2759: how long a response is."""
_CHAP_ERROR = re.compile(rb"\bE=(\d{1,10})")


class Step(StrEnum):
    """The steps of a call, in the order in which most calls take them."""

    CONNECT_REQUEST = "connect_request"
    CONNECT_ACK = "connect_ack"
    CONNECT_NAK = "connect_nak"
    LCP = "lcp"
    """The first LCP request."""
    LCP_OPEN = "lcp_open"
    """Both ends agreed on the link, and on how to authenticate."""
    AUTHENTICATION = "authentication"
    """The first question, or the first password."""
    AUTHENTICATED = "authenticated"
    NOT_AUTHENTICATED = "not_authenticated"
    CONNECTED = "connected"
    """CALL_CONNECTED, with the crypto binding."""
    IPCP = "ipcp"
    """The first IPCP request."""
    ADDRESS = "address"
    """The backend agreed to the client's address."""
    DATA_FROM_CLIENT = "data_from_client"
    DATA_FROM_BACKEND = "data_from_backend"
    PPP_ENDED = "ppp_ended"
    """A Terminate-Request."""
    DISCONNECT = "disconnect"
    DISCONNECT_ACK = "disconnect_ack"
    ABORT = "abort"
    MALFORMED = "malformed"
    """A PPP frame that cannot be read."""


_BITS: Mapping[Step, int] = MappingProxyType({step: 1 << n for n, step in enumerate(Step)})
"""A set of steps as a number: a call keeps one for days, and a set takes 728 bytes."""


_ENDING = (Step.PPP_ENDED, Step.DISCONNECT, Step.DISCONNECT_ACK, Step.ABORT)


@dataclass(frozen=True, slots=True)
class News:
    """One step: whose doing, when (on the owner's clock), and what there is to say of it."""

    step: Step
    side: str
    at: float
    detail: str = ""


@dataclass(slots=True)
class Hellos:
    """ECHO_REQUESTs of one side, and how long their answers took to come past."""

    asked: int = 0
    answered: int = 0
    last_s: float | None = None
    longest_s: float | None = None
    waiting_since: float | None = None
    """When the last one passed that has no answer yet."""


_NO_HELLOS: Mapping[str, Hellos] = MappingProxyType({})


class _EapCode(IntEnum):
    """RFC 3748 4."""

    REQUEST = 1
    RESPONSE = 2
    SUCCESS = 3
    FAILURE = 4


_EAP_IDENTITY, _EAP_METHODS_FROM = 1, 4
_EAP_NAMES: Mapping[int, str] = MappingProxyType(
    {
        4: "EAP-MD5", 6: "EAP-GTC", 13: "EAP-TLS", 18: "EAP-SIM", 21: "EAP-TTLS", 23: "EAP-AKA",
        25: "PEAP", 26: "EAP-MSCHAPv2", 43: "EAP-FAST", 55: "EAP-TEAP",
    }
)  # fmt: skip
"""IANA: EAP method types."""
_AUTHENTICATIONS: Mapping[bytes, str] = MappingProxyType(
    {
        b"\xc0\x23": "PAP",
        b"\xc2\x23\x05": "CHAP-MD5",
        b"\xc2\x23\x80": "MS-CHAP",
        b"\xc2\x23\x81": "MS-CHAPv2",
        b"\xc2\x27": "EAP",
    }
)
"""Values of the LCP option (RFC 1661 6.2, RFC 1994, RFC 2284, RFC 2433, RFC 2759)."""
_STEPS: Mapping[tuple[int, str], Step] = MappingProxyType(
    {
        (MessageType.CALL_CONNECT_REQUEST, "client"): Step.CONNECT_REQUEST,
        (MessageType.CALL_CONNECT_ACK, "backend"): Step.CONNECT_ACK,
        (MessageType.CALL_CONNECT_NAK, "backend"): Step.CONNECT_NAK,
        (MessageType.CALL_CONNECTED, "client"): Step.CONNECTED,
        (MessageType.CALL_ABORT, "client"): Step.ABORT,
        (MessageType.CALL_ABORT, "backend"): Step.ABORT,
        (MessageType.CALL_DISCONNECT, "client"): Step.DISCONNECT,
        (MessageType.CALL_DISCONNECT, "backend"): Step.DISCONNECT,
        (MessageType.CALL_DISCONNECT_ACK, "client"): Step.DISCONNECT_ACK,
        (MessageType.CALL_DISCONNECT_ACK, "backend"): Step.DISCONNECT_ACK,
    }
)


class Storyteller:
    """The story of one call, as it unfolds. Never raises for what a peer sends."""

    __slots__ = (
        "_acked_by_backend", "_acked_by_client", "_frames", "_had", "_moments", "address",
        "authentication", "computer", "correlation_id", "hellos", "is_told", "news", "user",
    )  # fmt: skip

    def __init__(self) -> None:
        self.user = ""
        """As the client last named itself; empty: it has not."""
        self.computer = ""
        self.correlation_id = ""
        """The GUID in the client's LCP Identification, in braces."""
        self.authentication = ""
        self.address: IPv4Address | None = None
        self.hellos: Mapping[str, Hellos] = _NO_HELLOS
        """By the side that asked, of those who did."""
        self.is_told = False
        """Whether no more frames are needed."""
        self.news: tuple[News, ...] = ()
        """What happened, until it is taken."""
        self._moments = 0
        self._frames = 0
        self._had = 0
        """Steps: the sum of their ``_BITS``."""
        self._acked_by_client = self._acked_by_backend = False
        """Whether that side agreed to the other's wishes for the link."""

    @property
    def is_settled(self) -> bool:
        """Whether PPP is open, as far as can be seen, or will not be looked at any more."""
        return self.is_told or self.address is not None or self._has_had(Step.DATA_FROM_BACKEND)

    @property
    def is_ending(self) -> bool:
        """Whether a side has begun to end the call, or asks in vain whether the client is there."""
        asked = self.hellos.get("backend")
        is_client_lost = asked is not None and asked.waiting_since is not None
        return is_client_lost or any(self._has_had(step) for step in _ENDING)

    def take_news(self) -> tuple[News, ...]:
        """Return what happened since the last time."""
        news, self.news = self.news, ()
        return news

    # --- messages -------------------------------------------------------------------------------

    def take_message(self, side: str, message: Message, now: float) -> None:
        """Take one control packet. Raises PacketError when its attributes are malformed."""
        kind = message.type
        if kind in (MessageType.ECHO_REQUEST, MessageType.ECHO_RESPONSE):
            self._take_hello(side, kind, now)
        elif (step := _STEPS.get((kind, side))) is not None:
            self._note(step, side, now, _detail_of(message))

    def _take_hello(self, side: str, kind: int, now: float) -> None:
        if kind == MessageType.ECHO_REQUEST:
            if side not in self.hellos:
                self.hellos = {**self.hellos, side: Hellos()}
            asking = self.hellos[side]
            asking.asked += 1
            asking.waiting_since = now
            return
        asked = self.hellos.get("backend" if side == "client" else "client")
        if asked is not None and asked.waiting_since is not None:
            asked.answered += 1
            asked.last_s = now - asked.waiting_since
            asked.longest_s = max(asked.last_s, asked.longest_s or 0.0)
            asked.waiting_since = None

    # --- frames ---------------------------------------------------------------------------------

    def take_frame(self, side: str, frame: bytes, now: float) -> None:
        """Take one PPP frame; once the story is told, only to see how PPP ends."""
        self._frames += 1
        try:
            protocol, information = ppp.parse_frame(frame)
            if protocol == Protocol.LCP:
                self._take_lcp(side, ppp.parse_packet(information), now)
            elif not self.is_told:
                self._take(side, protocol, information, now)
        except PppError as error:
            self._note_once(Step.MALFORMED, side, now, str(error))
        if self._frames >= FRAMES_MAX:
            self.is_told = True

    def _take(self, side: str, protocol: int, information: bytes, now: float) -> None:
        match protocol:
            case Protocol.IP | Protocol.IPV6:
                is_client = side == "client"
                step = Step.DATA_FROM_CLIENT if is_client else Step.DATA_FROM_BACKEND
                self._note_once(step, side, now)
                self.is_told = self._has_had(Step.DATA_FROM_CLIENT, Step.DATA_FROM_BACKEND)
            case Protocol.CHAP:
                self._take_chap(side, ppp.parse_packet(information), now)
            case Protocol.PAP:
                self._take_pap(side, ppp.parse_packet(information), now)
            case Protocol.IPCP:
                self._take_ipcp(side, ppp.parse_packet(information), now)
            case Protocol.EAP:
                self._take_eap(side, ppp.parse_packet(information), now)

    def _take_lcp(self, side: str, packet: PppPacket, now: float) -> None:
        match packet.code:
            case Code.CONFIGURE_REQUEST:
                self._note_once(Step.LCP, side, now)
            case Code.CONFIGURE_ACK:
                self._acked_by_client |= side == "client"
                self._acked_by_backend |= side == "backend"
                self._learn_authentication(side, packet)
                if self._acked_by_client and self._acked_by_backend:
                    self._note_once(Step.LCP_OPEN, side, now, self.authentication)
            case Code.IDENTIFICATION:
                self._take_identification(side, packet.data[_MAGIC_BYTES:])
            case Code.TERMINATE_REQUEST:
                self._note_once(Step.PPP_ENDED, side, now, terminate_reason(packet.data))

    def _learn_authentication(self, side: str, packet: PppPacket) -> None:
        """Learn the method: what a client acknowledges is what the backend asked for."""
        for option in ppp.parse_options(packet.data):
            if side == "client" and option.kind == LcpOption.AUTHENTICATION:
                unknown = f"protocol {option.value[:4].hex()}"
                self.authentication = _AUTHENTICATIONS.get(option.value, unknown)

    def _take_identification(self, side: str, message: bytes) -> None:
        if side != "client":
            return
        text = message.decode("latin-1")
        if text.startswith(_COMPUTER):
            self.computer = _name(message[len(_COMPUTER) :])
        elif len(message) == _GUID_BYTES:
            self.correlation_id = "{" + str(uuid.UUID(bytes_le=message)).upper() + "}"

    def _take_chap(self, side: str, packet: PppPacket, now: float) -> None:
        match packet.code, side:
            case ChapCode.CHALLENGE, "backend":
                self._note_once(Step.AUTHENTICATION, side, now)
            case ChapCode.RESPONSE, "client":
                self.user = _name(self._behind_response(packet.data))
            case ChapCode.SUCCESS, "backend":
                self._note_once(Step.AUTHENTICATED, side, now)
            case ChapCode.FAILURE, "backend":
                self._note(Step.NOT_AUTHENTICATED, side, now, _chap_failure(packet.data))

    def _behind_response(self, data: bytes) -> bytes:
        """Return the name behind a response (RFC 1994 4.1); PppError rather than a bit of it."""
        size = _MD5_BYTES if self.authentication == "CHAP-MD5" else _MSCHAP_BYTES
        if data[:1] != bytes((size,)) or len(data) < 1 + size:
            raise PppError(f"expected a response of {size} bytes and a name")
        return data[1 + size :]

    def _take_pap(self, side: str, packet: PppPacket, now: float) -> None:
        match packet.code, side:
            case PapCode.REQUEST, "client":
                self.user = _name(_before_password(packet.data))
                self._note_once(Step.AUTHENTICATION, side, now)
            case PapCode.ACK, "backend":
                self._note_once(Step.AUTHENTICATED, side, now)
            case PapCode.NAK, "backend":
                self._note(Step.NOT_AUTHENTICATED, side, now)

    def _take_eap(self, side: str, packet: PppPacket, now: float) -> None:
        kind = packet.data[0] if packet.data else 0
        match packet.code, side:
            case _EapCode.REQUEST, "backend":
                self._note_once(Step.AUTHENTICATION, side, now)
                if kind >= _EAP_METHODS_FROM:
                    self.authentication = _EAP_NAMES.get(kind, f"EAP type {kind}")
            case _EapCode.RESPONSE, "client" if kind == _EAP_IDENTITY:
                self.user = _name(packet.data[1:])
            case _EapCode.SUCCESS, "backend":
                self._note_once(Step.AUTHENTICATED, side, now)
            case _EapCode.FAILURE, "backend":
                self._note(Step.NOT_AUTHENTICATED, side, now)

    def _take_ipcp(self, side: str, packet: PppPacket, now: float) -> None:
        if packet.code == Code.CONFIGURE_REQUEST:
            self._note_once(Step.IPCP, side, now)
        elif packet.code == Code.CONFIGURE_ACK and side == "backend":
            for option in ppp.parse_options(packet.data):
                if option.kind == IpcpOption.ADDRESS and len(option.value) == 4:
                    self.address = IPv4Address(option.value)
                    self._note_once(Step.ADDRESS, side, now)

    # --- small change ---------------------------------------------------------------------------

    def _has_had(self, *steps: Step) -> bool:
        return all(self._had & _BITS[step] for step in steps)

    def _note_once(self, step: Step, side: str, now: float, detail: str = "") -> None:
        if not self._has_had(step):
            self._note(step, side, now, detail)

    def _note(self, step: Step, side: str, now: float, detail: str = "") -> None:
        self._had |= _BITS[step]
        if self._moments < MOMENTS_MAX:
            self._moments += 1
            self.news += (News(step, side, now, detail),)


def terminate_reason(data: bytes) -> str:
    """Say what the data of a Terminate-Request means: a RAS error, a text, or nothing."""
    if len(data) >= _RAS_REASON.size:
        _, mark, number = _RAS_REASON.unpack_from(data)
        if mark == _RAS_MARK:
            return f"RAS error {number}" if number else ""
    text = data.rstrip(b"\0").decode("latin-1")
    return text[:REASON_CHARACTERS_MAX] if text.isascii() and text.isprintable() else ""


@lru_cache(maxsize=16)  # calls offer and use the same few, and their records keep the text
def hash_names(mask: int) -> str:
    """Name the hashes of a mask: ``SHA1, SHA256``."""
    return ", ".join(h.name for h in HashProtocol if mask & h) or f"{mask:#x}"


def _detail_of(message: Message) -> str:
    """Return what there is to say of a message besides its name. Raises PacketError."""
    request = message.binding_request
    if request is not None:
        return _offers(request.hash_protocols)
    status = message.status
    return "" if status is None or (not status.status and not status.attribute_id) else str(status)


@lru_cache(maxsize=16)
def _offers(mask: int) -> str:
    return f"offers {hash_names(mask)}"


def _chap_failure(data: bytes) -> str:
    """Return the error of an MS-CHAP failure (RFC 2759 6), without its challenge."""
    found = _CHAP_ERROR.search(data)
    if found is None:
        return ""
    number = found[1].decode()
    return f"error {number}: {dict(CHAP_ERRORS).get(number, 'refused by the server')}"


def _before_password(data: bytes) -> bytes:
    """Return the name before a password (RFC 1334 2.2.1); PppError rather than a bit of that."""
    end = 1 + data[0] if data else 1
    if len(data) <= end or len(data) != end + 1 + data[end]:
        raise PppError("expected a user's name and a password that fit their packet")
    return data[1:end]


def _name(raw: bytes) -> str:
    """Return what a peer calls itself, fit to be shown."""
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        text = raw.decode("latin-1")
    return "".join(
        c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text.rstrip("\0")
    )[:NAME_CHARACTERS_MAX]

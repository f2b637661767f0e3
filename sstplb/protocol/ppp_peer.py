"""One end of a PPP link: LCP, authentication, IPCP, then IP (RFC 1661, 1332, 1334, 2759). Pure.

A ``PppPeer`` takes frames and gives frames; its owner moves them (in SSTP data packets, or in
HDLC on a pty) and wakes it when it asks (``wake_at``). It plays either end:

- **server**: asks the other end to authenticate (PAP or MS-CHAPv2), checks the answer against
  its accounts, hands out an address by Configure-Nak;
- **client**: authenticates as asked (anything else it Naks towards MS-CHAPv2), asks for an
  address with 0.0.0.0.

LCP and IPCP are two ``Negotiation`` s (``ppp_negotiation.py``); what is here is what each asks for,
what it grants, and what comes between them: authentication.

Not here: compression and encryption of PPP (RRAS refuses MPPE inside SSTP), IPv6CP: answered
with Protocol-Reject, as RRAS does. Events never hold a password, a challenge or a response.
"""

import hmac
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from ipaddress import IPv4Address

from sstplb.errors import PppError
from sstplb.protocol import mschap, ppp
from sstplb.protocol.ppp import (
    ChapCode,
    Code,
    IpcpOption,
    LcpOption,
    Option,
    PapCode,
    PppPacket,
    Protocol,
)
from sstplb.protocol.ppp_negotiation import REQUESTS_MAX, RESTART_S, Negotiation

NO_ADDRESS = IPv4Address(0)
MRU = 1400

RandomBytes = Callable[[int], bytes]


class Authentication(Enum):
    """How a client proves who it is."""

    MSCHAPV2 = "MS-CHAPv2"
    PAP = "PAP"

    @property
    def option(self) -> bytes:
        """The value of the LCP option that asks for it."""
        is_pap = self is Authentication.PAP
        return ppp.PAP_AUTHENTICATION if is_pap else ppp.MSCHAPV2_AUTHENTICATION


@dataclass(frozen=True, slots=True)
class LinkOpened:
    """LCP is open; the server asks for this authentication."""

    authentication: Authentication


@dataclass(frozen=True, slots=True)
class Authenticated:
    """The user was believed."""

    user: str
    authentication: Authentication


@dataclass(frozen=True, slots=True)
class AuthenticationFailed:
    """The user was not believed (``reason``: RFC 2759 6 error code in words), or the server."""

    user: str
    reason: str


@dataclass(frozen=True, slots=True)
class AddressAssigned:
    """IPCP is open: the client's address and the server's."""

    client: IPv4Address
    server: IPv4Address


@dataclass(frozen=True, slots=True)
class Terminated:
    """The link is over."""

    reason: str


PppEvent = LinkOpened | Authenticated | AuthenticationFailed | AddressAssigned | Terminated

CHAP_ERRORS = (
    ("646", "restricted logon hours"),
    ("647", "account disabled"),
    ("648", "password expired"),
    ("649", "no dial-in permission"),
    ("691", "wrong user name or password"),
    ("709", "changing password failed"),
)
"""RFC 2759 6: the numbers are those of Windows' RAS."""


@dataclass(frozen=True, slots=True)
class ClientEnd:
    """What a client brings."""

    user: str
    password: str = field(repr=False)
    computer: str = ""
    """With a name it introduces itself as Windows does (RFC 1570 2.1); else it does not."""
    correlation_id: str = ""
    """A GUID in braces, to introduce the call by."""


@dataclass(frozen=True, slots=True)
class ServerEnd:
    """What a server brings."""

    accounts: Mapping[str, str] = field(repr=False)
    """Passwords by user name, without domain."""
    address: IPv4Address
    client_address: IPv4Address
    """The address this client is to have."""
    authentication: Authentication = Authentication.MSCHAPV2
    name: str = "RRAS"


class PppPeer:
    """One end of a link. Feed it frames; send what it returns; look at ``take_events``."""

    def __init__(self, end: ClientEnd | ServerEnd, random: RandomBytes) -> None:
        self.end = end
        self.hlak: bytes | None = None
        """After authentication: the 32 bytes for the crypto binding (zeros for PAP)."""
        self.mppe_keys: tuple[bytes, bytes] | None = None
        """After MS-CHAPv2: the client's send and receive keys."""
        self.packets: list[bytes] = []
        """IP packets that have come and nobody has taken yet."""
        self.echo_replies = 0
        self.terminated = False
        self._random = random
        self._events: list[PppEvent] = []
        self._magic = random(4)
        self._address = end.address if isinstance(end, ServerEnd) else NO_ADDRESS
        self._other_address = NO_ADDRESS
        self._authentication = (
            end.authentication if isinstance(end, ServerEnd) else Authentication.MSCHAPV2
        )
        self._authenticated = False
        self._challenge = b""
        self._response_sent = b""
        self._retry: list[bytes] = []
        self._retry_at: float | None = None
        self._identifier = 0
        wishes: dict[int, bytes] = {
            LcpOption.MRU: MRU.to_bytes(2, "big"),
            LcpOption.MAGIC: self._magic,
        }
        if isinstance(end, ServerEnd):
            wishes[LcpOption.AUTHENTICATION] = end.authentication.option
        self._lcp = Negotiation(Protocol.LCP, wishes, self._judge_lcp, self._learn_lcp)
        self._ipcp = Negotiation(
            Protocol.IPCP,
            {IpcpOption.ADDRESS: self._address.packed},
            self._judge_ipcp,
            self._learn_ipcp,
        )

    # --- what an owner does with it ---------------------------------------------------------

    def start(self, now: float) -> list[bytes]:
        """Open the link: return the first frames."""
        return self._lcp.request(now)

    def receive(self, frame: bytes, now: float) -> list[bytes]:
        """Take one frame, return the answers. Raises PppError when it is malformed."""
        protocol, information = ppp.parse_frame(frame)
        if protocol == Protocol.IP:
            if self._ipcp.is_open:
                self.packets.append(information)
            return []
        if protocol == Protocol.LCP:
            return self._receive_lcp(ppp.parse_packet(information), information, now)
        if not self._lcp.is_open:
            return []  # RFC 1661 3.4: silently, before the link is open
        if protocol == Protocol.PAP:
            return self._receive_pap(ppp.parse_packet(information), now)
        if protocol == Protocol.CHAP:
            return self._receive_chap(ppp.parse_packet(information), now)
        if protocol == Protocol.IPCP:
            return self._receive_ipcp(ppp.parse_packet(information), now)
        reject = PppPacket(
            Code.PROTOCOL_REJECT, self._next(), protocol.to_bytes(2, "big") + information
        )
        return [ppp.encode_frame(Protocol.LCP, reject.encode())]

    @property
    def wake_at(self) -> float | None:
        """When ``wake`` wants to be called, if at all."""
        times = (self._lcp.wake_at, self._ipcp.wake_at, self._retry_at)
        return min((t for t in times if t is not None), default=None)

    def wake(self, now: float) -> list[bytes]:
        """Repeat what was not answered in time."""
        frames: list[bytes] = []
        for negotiation in (self._lcp, self._ipcp):
            if negotiation.wake_at is not None and negotiation.wake_at <= now:
                frames += negotiation.request(now)
                if negotiation.gave_up:
                    self._end(f"no answer to {REQUESTS_MAX} {negotiation.protocol.name} requests")
        if self._retry_at is not None and self._retry_at <= now:
            frames += self._retry
            self._retry_at = now + RESTART_S
        return frames

    def take_events(self) -> list[PppEvent]:
        """Return what happened since the last time."""
        events, self._events = self._events, []
        return events

    def take_packets(self) -> list[bytes]:
        """Return the IP packets that have come since the last time."""
        packets, self.packets = self.packets, []
        return packets

    def echo(self) -> bytes:
        """Return an LCP Echo-Request; ``echo_replies`` counts the answers."""
        packet = PppPacket(Code.ECHO_REQUEST, self._next(), self._magic)
        return ppp.encode_frame(Protocol.LCP, packet.encode())

    def terminate(self) -> list[bytes]:
        """Close the link: return a Terminate-Request."""
        packet = PppPacket(Code.TERMINATE_REQUEST, self._next())
        return [ppp.encode_frame(Protocol.LCP, packet.encode())]

    # --- LCP ----------------------------------------------------------------------------------

    def _receive_lcp(self, packet: PppPacket, information: bytes, now: float) -> list[bytes]:
        match packet.code:
            case (
                Code.CONFIGURE_REQUEST
                | Code.CONFIGURE_ACK
                | Code.CONFIGURE_NAK
                | Code.CONFIGURE_REJECT
            ):
                was_open = self._lcp.is_open
                frames = self._lcp.receive(packet, now)
                if self._lcp.is_open and not was_open:
                    self._events.append(LinkOpened(self._authentication))
                    frames += self._begin_authentication(now)
                return frames
            case Code.ECHO_REQUEST:
                reply = PppPacket(Code.ECHO_REPLY, packet.identifier, self._magic + packet.data[4:])
                return [ppp.encode_frame(Protocol.LCP, reply.encode())]
            case Code.ECHO_REPLY:
                self.echo_replies += 1
                return []
            case Code.TERMINATE_REQUEST:
                self._end("the other end terminated the link")
                ack = PppPacket(Code.TERMINATE_ACK, packet.identifier)
                return [ppp.encode_frame(Protocol.LCP, ack.encode())]
            case Code.TERMINATE_ACK:
                self._end("terminated")
                return []
            case (
                Code.CODE_REJECT | Code.PROTOCOL_REJECT | Code.DISCARD_REQUEST | Code.IDENTIFICATION
            ):
                return []
            case _:
                reject = PppPacket(Code.CODE_REJECT, self._next(), information)
                return [ppp.encode_frame(Protocol.LCP, reject.encode())]

    def _judge_lcp(self, options: list[Option]) -> tuple[Code, list[Option]]:
        """Judge the other end's request: known options are fine, unknown ones are rejected."""
        known = {LcpOption.MRU, LcpOption.ACCM, LcpOption.MAGIC, LcpOption.AUTHENTICATION}
        if isinstance(self.end, ServerEnd):
            known.remove(LcpOption.AUTHENTICATION)  # a server does not authenticate itself
        if rejected := [o for o in options if o.kind not in known]:
            return Code.CONFIGURE_REJECT, rejected
        for option in options:
            if option.kind == LcpOption.AUTHENTICATION:
                choice = next((a for a in Authentication if a.option == option.value), None)
                if choice is None:
                    better = Option(option.kind, Authentication.MSCHAPV2.option)
                    return Code.CONFIGURE_NAK, [better]
                self._authentication = choice
        return Code.CONFIGURE_ACK, options

    def _learn_lcp(self, option: Option) -> Option | None:
        """Take a Nak of one of our wishes."""
        if option.kind == LcpOption.MAGIC:
            self._magic = self._random(4)
            return Option(option.kind, self._magic)
        if option.kind == LcpOption.AUTHENTICATION:
            # A server insists: the other end must take what is configured, or leave.
            return Option(option.kind, self._authentication.option)
        return option if option.kind == LcpOption.MRU else None

    # --- authentication -----------------------------------------------------------------------

    def _begin_authentication(self, now: float) -> list[bytes]:
        if isinstance(self.end, ServerEnd):
            if self._authentication is Authentication.PAP:
                return []
            self._challenge = self._random(mschap.CHALLENGE_BYTES)
            value = bytes((mschap.CHALLENGE_BYTES,)) + self._challenge + self.end.name.encode()
            packet = PppPacket(ChapCode.CHALLENGE, self._next(), value)
            return self._repeating(ppp.encode_frame(Protocol.CHAP, packet.encode()), now)
        introduction = self._introduce(self.end)
        if self._authentication is Authentication.PAP:
            user, password = self.end.user.encode(), self.end.password.encode()
            value = bytes((len(user),)) + user + bytes((len(password),)) + password
            packet = PppPacket(PapCode.REQUEST, self._next(), value)
            request = ppp.encode_frame(Protocol.PAP, packet.encode())
            return introduction + self._repeating(request, now)
        return introduction

    def _introduce(self, end: ClientEnd) -> list[bytes]:
        """Say who we are, in the three Identification packets that Windows sends."""
        if not end.computer:
            return []
        said = [b"MSRASV5.20", f"MSRAS-0-{end.computer}".encode()]
        if end.correlation_id:
            said.append(uuid.UUID(end.correlation_id).bytes_le)
        packets = (PppPacket(Code.IDENTIFICATION, self._next(), self._magic + s) for s in said)
        return [ppp.encode_frame(Protocol.LCP, packet.encode()) for packet in packets]

    def _receive_pap(self, packet: PppPacket, now: float) -> list[bytes]:
        if isinstance(self.end, ClientEnd):
            if packet.code == PapCode.ACK:
                return self._believed(self.end.user, bytes(32), now)
            self._disbelieved(self.end.user, "wrong user name or password")
            return []
        user, password = _pap_fields(packet.data)
        expected = self.end.accounts.get(user.rpartition("\\")[2])
        if expected is not None and hmac.compare_digest(expected.encode(), password):
            ack = PppPacket(PapCode.ACK, packet.identifier, b"\0")
            return [
                ppp.encode_frame(Protocol.PAP, ack.encode()),
                *self._believed(user, bytes(32), now),
            ]
        self._disbelieved(user, "wrong user name or password")
        nak = PppPacket(PapCode.NAK, packet.identifier, b"\0")
        return [ppp.encode_frame(Protocol.PAP, nak.encode())]

    def _receive_chap(self, packet: PppPacket, now: float) -> list[bytes]:
        if isinstance(self.end, ServerEnd):
            return self._check_response(self.end, packet, now)
        match packet.code:
            case ChapCode.CHALLENGE:
                return self._respond(self.end, packet)
            case ChapCode.SUCCESS:
                return self._check_server(self.end, packet, now)
            case ChapCode.FAILURE:
                text = packet.data.decode("latin-1")
                known = (why for code, why in CHAP_ERRORS if f"E={code}" in text)
                self._disbelieved(self.end.user, next(known, "refused by the server"))
        return []

    def _respond(self, end: ClientEnd, packet: PppPacket) -> list[bytes]:
        """RFC 2759 4: answer a challenge."""
        if (
            len(packet.data) < 1 + mschap.CHALLENGE_BYTES
            or packet.data[0] != mschap.CHALLENGE_BYTES
        ):
            raise PppError(f"expected a challenge of {mschap.CHALLENGE_BYTES} bytes")
        self._challenge = packet.data[1 : 1 + mschap.CHALLENGE_BYTES]
        ours = self._random(mschap.CHALLENGE_BYTES)
        answer = mschap.nt_response(self._challenge, ours, end.user, end.password)
        self._response_sent = ours + bytes(8) + answer + b"\0"
        value = bytes((len(self._response_sent),)) + self._response_sent + end.user.encode()
        response = PppPacket(ChapCode.RESPONSE, packet.identifier, value)
        return [ppp.encode_frame(Protocol.CHAP, response.encode())]

    def _check_server(self, end: ClientEnd, packet: PppPacket, now: float) -> list[bytes]:
        """RFC 2759 5: the server must know the password too."""
        if self._authenticated or not self._response_sent:
            return []
        ours, answer = self._response_sent[:16], self._response_sent[24:48]
        proof = mschap.authenticator_response(self._challenge, ours, end.user, end.password, answer)
        if not hmac.compare_digest(packet.data[: len(proof)], proof.encode()):
            self._disbelieved(end.user, "the server does not know the password")
            return []
        self.mppe_keys = mschap.mppe_keys(end.password, answer)
        return self._believed(end.user, mschap.hlak(end.password, answer), now)

    def _check_response(self, end: ServerEnd, packet: PppPacket, now: float) -> list[bytes]:
        """RFC 2759 4 and 5: believe the client, or say why not."""
        if packet.code != ChapCode.RESPONSE or packet.data[:1] != b"\x31" or len(packet.data) < 50:
            raise PppError("expected an MS-CHAPv2 response of 49 bytes")
        ours, answer = packet.data[1:17], packet.data[25:49]
        user = packet.data[50:].decode("utf-8", "replace")
        password = end.accounts.get(user.rpartition("\\")[2])
        if password is None or not hmac.compare_digest(
            mschap.nt_response(self._challenge, ours, user, password), answer
        ):
            self._disbelieved(user, "wrong user name or password")
            text = f"E=691 R=0 C={self._random(16).hex().upper()} V=3 M=Authentication failed"
            failure = PppPacket(ChapCode.FAILURE, packet.identifier, text.encode())
            return [ppp.encode_frame(Protocol.CHAP, failure.encode())]
        proof = mschap.authenticator_response(self._challenge, ours, user, password, answer)
        success = PppPacket(ChapCode.SUCCESS, packet.identifier, f"{proof} M=Welcome".encode())
        self.mppe_keys = mschap.mppe_keys(password, answer)
        believed = self._believed(user, mschap.hlak(password, answer), now)
        return [ppp.encode_frame(Protocol.CHAP, success.encode()), *believed]

    def _believed(self, user: str, hlak: bytes, now: float) -> list[bytes]:
        """Go on to IPCP: the user is who he says."""
        if self._authenticated:
            return []
        self._authenticated, self.hlak = True, hlak
        self._retry_at = None
        self._events.append(Authenticated(user, self._authentication))
        return self._ipcp.request(now)

    def _disbelieved(self, user: str, reason: str) -> None:
        self._retry_at = None
        self._events.append(AuthenticationFailed(user, reason))

    # --- IPCP ---------------------------------------------------------------------------------

    def _receive_ipcp(self, packet: PppPacket, now: float) -> list[bytes]:
        if not self._authenticated:
            return []
        was_open = self._ipcp.is_open
        frames = self._ipcp.receive(packet, now)
        if self._ipcp.is_open and not was_open:
            ours, other = self._address, self._other_address
            is_server = isinstance(self.end, ServerEnd)
            self._events.append(
                AddressAssigned(other, ours) if is_server else AddressAssigned(ours, other)
            )
        return frames

    def _judge_ipcp(self, options: list[Option]) -> tuple[Code, list[Option]]:
        known = {IpcpOption.ADDRESS}
        if rejected := [o for o in options if o.kind not in known]:
            return Code.CONFIGURE_REJECT, rejected
        address = next((IPv4Address(o.value) for o in options if len(o.value) == 4), NO_ADDRESS)
        if isinstance(self.end, ServerEnd) and address != self.end.client_address:
            right = Option(IpcpOption.ADDRESS, self.end.client_address.packed)
            return Code.CONFIGURE_NAK, [right]
        self._other_address = address
        return Code.CONFIGURE_ACK, options

    def _learn_ipcp(self, option: Option) -> Option | None:
        """Take a Nak: a client takes the address it is given."""
        if option.kind != IpcpOption.ADDRESS or len(option.value) != 4:
            return None
        if isinstance(self.end, ClientEnd):
            self._address = IPv4Address(option.value)
        return Option(option.kind, self._address.packed)

    # --- small change -------------------------------------------------------------------------

    def _repeating(self, frame: bytes, now: float) -> list[bytes]:
        self._retry, self._retry_at = [frame], now + RESTART_S
        return [frame]

    def _next(self) -> int:
        self._identifier = (self._identifier + 1) & 0xFF
        return self._identifier

    def _end(self, reason: str) -> None:
        if not self.terminated:
            self.terminated = True
            self._lcp.wake_at = self._ipcp.wake_at = self._retry_at = None
            self._events.append(Terminated(reason))


def _pap_fields(data: bytes) -> tuple[str, bytes]:
    """RFC 1334 2.2.1: user and password of a PAP request. Raises PppError."""
    user_end = 1 + data[0] if data else 1
    if len(data) <= user_end or len(data) < user_end + 1 + data[user_end]:
        raise PppError("expected a PAP request with user and password")
    password = data[user_end + 1 : user_end + 1 + data[user_end]]
    return data[1:user_end].decode("utf-8", "replace"), password

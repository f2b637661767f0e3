"""An SSTP client's whole call, from the HTTP head to the disconnect ([MS-SSTP] 3.2). Pure.

``CallerMachine`` takes what the server sent (after TLS, if there is any) and gives what to send
back. It is the engine of ``sstplb call``, of the load generator, and of the checks ``sstp``
(which stops politely after CALL_CONNECT_ACK) and ``login`` (the whole way, which also proves the
certificate hash). Its owner moves the bytes and wakes it.

What happens is noted as ``Step`` s with their times, in sentences fit for a person; what went
wrong, once, as ``failure``. The certificate whose hash goes into the crypto binding is an
argument: its owner saw it in the TLS handshake, or (checking an offloaded server in plain) knows
which one the balancer serves. Nothing here remembers a password in an event.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from ipaddress import IPv4Address

from sstplb.errors import ProtocolError
from sstplb.protocol import binding, packet, ppp
from sstplb.protocol.call import CLIENT_RECEIVES, ClientState
from sstplb.protocol.head import HeadReader, ResponseHead, sstp_request
from sstplb.protocol.packet import Message, PacketReader, StatusInfo, parse_message
from sstplb.protocol.ppp_peer import (
    AddressAssigned,
    Authenticated,
    AuthenticationFailed,
    ClientEnd,
    LinkOpened,
    PppEvent,
    PppPeer,
    Terminated,
)
from sstplb.protocol.registry import (
    DISCONNECT_SENDER_TIMEOUT_S,
    HELLO_TIMEOUT_S,
    HTTP_TIMEOUT_S,
    NEGOTIATION_TIMEOUT_S,
    AttributeId,
    HashProtocol,
    MessageType,
)

ANSWER_BYTES_MAX = 16384
_KNOWN = frozenset(MessageType)


class StepKind(Enum):
    """The steps of a call, in their order."""

    TLS = "tls"
    REQUESTED = "requested"
    ANSWERED = "answered"
    ACCEPTED = "accepted"
    LINK = "link"
    AUTHENTICATED = "authenticated"
    BOUND = "bound"
    ADDRESS = "address"
    ECHO = "echo"
    DISCONNECTED = "disconnected"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Step:
    """One step: what happened, in a sentence, and when (seconds on the owner's clock)."""

    kind: StepKind
    sentence: str
    at: float


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a call failed: a stable slug and a sentence."""

    reason: str
    sentence: str


@dataclass(frozen=True, slots=True)
class CallerSettings:
    """What a caller brings."""

    host: str
    """For the Host header."""
    correlation_id: str
    """A GUID in braces; Windows writes it in each of its events."""
    leaf_der: bytes
    """The certificate to bind to, as DER; empty only when the call stops at the ACK."""
    user: str = ""
    password: str = field(default="", repr=False)
    hash_protocol: HashProtocol | None = None
    """Insist on a hash; by default SHA-256 when it is offered, as 3.2.5.2.3 wants."""
    tenant_id: str | None = None
    computer: str = ""
    """With a name the caller introduces itself in PPP, as Windows does."""
    hello_timeout_s: float = HELLO_TIMEOUT_S
    """Silence before a hello, and again before the call is given up (3.1.2)."""
    stops_at_ack: bool = False
    """Hang up politely once the server has accepted the call."""


class CallerMachine:
    """One call, as its client."""

    def __init__(self, settings: CallerSettings, random: Callable[[int], bytes]) -> None:
        self.settings = settings
        self.steps: list[Step] = []
        self.failure: Failure | None = None
        self.finished = False
        """The call is over: the owner closes the connection."""
        self.connected = False
        """CALL_CONNECTED was sent and an address is assigned: IP may flow."""
        self.address: IPv4Address | None = None
        self.server_address: IPv4Address | None = None
        self.hellos_answered = 0
        """ECHO_RESPONSEs that have come: the server holds the call for connected."""
        self.wake_at: float | None = None
        self._answer = HeadReader.response(ANSWER_BYTES_MAX)
        self._answered: ResponseHead | None = None
        self._packets = PacketReader()
        self._state: ClientState | None = None
        self._request: packet.CryptoBindingRequest | None = None
        self._ppp = PppPeer(_client_end(settings), random)
        self._out = bytearray()
        self._heard_at = 0.0
        """When the silence began: with the last bytes, or with our hello."""
        self._asked_hello = False
        self._deadline: tuple[float, Failure] | None = None

    # --- what an owner does with it ---------------------------------------------------------

    def start(self, now: float) -> bytes:
        """Begin: return the HTTP opening."""
        self._note(StepKind.REQUESTED, "opened the call: SSTP_DUPLEX_POST sent", now)
        late = Failure("http_timeout", f"no HTTP answer within {HTTP_TIMEOUT_S:.0f} s")
        self._deadline = (now + HTTP_TIMEOUT_S, late)
        settings = self.settings
        self._out += sstp_request(settings.host, settings.correlation_id, settings.tenant_id)
        return self._flush()

    def receive(self, data: bytes, now: float) -> bytes:
        """Take bytes from the server, return bytes for it. Never raises: faults are failures."""
        self._heard_at, self._asked_hello = now, False
        try:
            if self._answered is None:
                self._take_answer(data, now)
            else:
                self._take_packets(data, now)
        except ProtocolError as error:
            self._fail(error.reason, f"the server sent something malformed: {error}", now)
        return self._flush()

    def closed(self, now: float) -> None:
        """Note that the server closed the connection."""
        if not self.finished:
            where = "answering" if self._answered is None else "the call was over"
            self._fail("server_closed", f"the server closed the connection before {where}", now)

    def wake(self, now: float) -> bytes:
        """Do what time asks for: repeat, say hello, give up."""
        if self._deadline is not None and self._deadline[0] <= now:
            failure = self._deadline[1]
            if self._state is ClientState.DISCONNECT_PENDING:
                self._finish()
            else:
                self._fail(failure.reason, failure.sentence, now)
        elif self._state in (ClientState.ACK_RECEIVED, ClientState.CONNECTED):
            if self._ppp.wake_at is not None and self._ppp.wake_at <= now:
                self._send_frames(self._ppp.wake(now))
                self._take_ppp_events(now)
            if self._state is ClientState.CONNECTED:
                self._say_hello(now)
        return self._flush()

    def send_ip(self, ip_packet: bytes) -> bytes:
        """Return the SSTP data packet for an IP packet."""
        return packet.data_packet(ppp.encode_frame(ppp.Protocol.IP, ip_packet))

    def take_ip(self) -> list[bytes]:
        """Return the IP packets that have come since the last time."""
        return self._ppp.take_packets()

    def hello(self, now: float) -> bytes:
        """Ask whether the server is there (3.1.2); legal once connected."""
        self._heard_at, self._asked_hello = now, True
        self._send(packet.ECHO_REQUEST)
        return self._flush()

    def hang_up(self, now: float) -> bytes:
        """End the call politely: CALL_DISCONNECT; the machine finishes with its acknowledgement."""
        self._disconnect(now)
        return self._flush()

    # --- the opening ------------------------------------------------------------------------

    def _take_answer(self, data: bytes, now: float) -> None:
        head = self._answer.feed(data)
        if head is None:
            return
        self._answered = head
        if head.status != 200:
            text = f"the server answered HTTP {head.status} {head.phrase}".rstrip()
            self._fail("http_status", f"{text}; expected 200", now)
            return
        self._note(StepKind.ANSWERED, f"the server answered HTTP 200 {head.phrase}".rstrip(), now)
        self._state = ClientState.CONNECT_REQUEST_SENT
        late = Failure("negotiation_timeout", f"not connected within {NEGOTIATION_TIMEOUT_S:.0f} s")
        self._deadline = (now + NEGOTIATION_TIMEOUT_S, late)
        self._send(packet.connect_request())
        if self._answer.trailing:
            self._take_packets(self._answer.trailing, now)

    def _take_packets(self, data: bytes, now: float) -> None:
        for got in self._packets.feed(data):
            if self.finished:
                return
            if got.is_control:
                self._take_message(parse_message(got.payload), now)
            elif self._state in (ClientState.ACK_RECEIVED, ClientState.CONNECTED):
                self._send_frames(self._ppp.receive(got.payload, now), now)

    def _take_message(self, message: Message, now: float) -> None:
        if message.type == MessageType.CALL_ABORT:
            self._aborted(message, now)
            return
        if message.type == MessageType.CALL_DISCONNECT:
            self._send(packet.DISCONNECT_ACK)
            self._note(StepKind.DISCONNECTED, "the server ended the call politely", now)
            self._fail_unless_connected(now)
            self._finish()
            return
        kind = MessageType(message.type) if message.type in _KNOWN else None
        state = self._state
        following = CLIENT_RECEIVES.get((state, kind)) if state and kind else None
        if following is None:
            if state is not ClientState.DISCONNECT_PENDING:
                self._fail("unexpected_message", f"did not expect {message.name} now", now)
            return
        self._state = following
        match message.type:
            case MessageType.CALL_CONNECT_ACK:
                self._accepted(message, now)
            case MessageType.CALL_CONNECT_NAK:
                status = message.status
                self._fail("call_nak", f"the server did not accept the request ({status})", now)
            case MessageType.ECHO_REQUEST:
                self._send(packet.ECHO_RESPONSE)
            case MessageType.ECHO_RESPONSE:
                self.hellos_answered += 1
                self._note(StepKind.ECHO, "the server answered hello", now)
            case MessageType.CALL_DISCONNECT_ACK:
                self._note(StepKind.DISCONNECTED, "disconnected; the server acknowledged", now)
                self._finish()

    def _accepted(self, message: Message, now: float) -> None:
        self._request = message.binding_request
        if self._request is None:
            self._fail("binding_missing", "CALL_CONNECT_ACK carries no crypto binding request", now)
            return
        offered = [h.name for h in HashProtocol if h & self._request.hash_protocols]
        nonce = self._request.nonce.hex()
        sentence = f"call accepted; hashes offered: {', '.join(offered) or 'none'}; nonce {nonce}"
        self._note(StepKind.ACCEPTED, sentence, now)
        if self.settings.stops_at_ack:
            self._disconnect(now)
        else:
            self._send_frames(self._ppp.start(now))

    def _aborted(self, message: Message, now: float) -> None:
        status = message.status
        self._send(packet.abort(StatusInfo()))  # 3.1.5.2: an abort is answered with an abort
        if status is not None and status.attribute_id == AttributeId.CRYPTO_BINDING:
            seen = binding.certificate_hash(HashProtocol.SHA256, self.settings.leaf_der).hex()
            self._fail(
                "binding_refused",
                f"the server refused the crypto binding ({status}): it does not expect a client "
                f"that saw the certificate with SHA-256 {seen}",
                now,
            )
        else:
            self._fail("aborted", f"the server aborted the call ({status})", now)

    # --- PPP inside ---------------------------------------------------------------------------

    def _send_frames(self, frames: list[bytes], now: float | None = None) -> None:
        if now is not None:
            self._take_ppp_events(now)  # first: CALL_CONNECTED goes before IPCP's first frame
        for frame in frames:
            self._out += packet.data_packet(frame)

    def _take_ppp_events(self, now: float) -> None:
        for event in self._ppp.take_events():
            self._take_ppp_event(event, now)

    def _take_ppp_event(self, event: PppEvent, now: float) -> None:
        match event:
            case LinkOpened(authentication):
                self._note(StepKind.LINK, f"LCP open; asked for {authentication.value}", now)
            case Authenticated(user, authentication):
                sentence = f"authenticated as {user} by {authentication.value}"
                self._note(StepKind.AUTHENTICATED, sentence, now)
                self._bind(now)
            case AuthenticationFailed(user, reason):
                self._fail("authentication_failed", f"not authenticated as {user}: {reason}", now)
            case AddressAssigned(client, server):
                self.address, self.server_address = client, server
                self.connected, self._deadline = True, None
                self._note(StepKind.ADDRESS, f"address {client} assigned, server {server}", now)
            case Terminated(reason):
                self._fail("ppp_terminated", f"PPP ended: {reason}", now)

    def _bind(self, now: float) -> None:
        """3.2.5.2: sign for the certificate that was seen."""
        request, hlak = self._request, self._ppp.hlak
        assert request is not None, "PPP runs after the ACK"
        assert hlak is not None, "authentication leaves a key"
        chosen = self.settings.hash_protocol or (
            HashProtocol.SHA256
            if request.hash_protocols & HashProtocol.SHA256
            else HashProtocol.SHA1
        )
        seen = binding.certificate_hash(chosen, self.settings.leaf_der)
        made = binding.bind(chosen, hlak=hlak, nonce=request.nonce, certificate_hash=seen)
        self._send(packet.connected(made))
        self._state = ClientState.CONNECTED
        sentence = f"crypto binding sent: {chosen.name} of the certificate seen is {seen.hex()}"
        self._note(StepKind.BOUND, sentence, now)

    # --- time and the end -----------------------------------------------------------------------

    def _say_hello(self, now: float) -> None:
        silent = now - self._heard_at
        if self._asked_hello and silent >= self.settings.hello_timeout_s:
            sentence = f"the server did not answer a hello for {silent:.0f} s"
            self._fail("hello_timeout", sentence, now)
        elif not self._asked_hello and silent >= self.settings.hello_timeout_s:
            self._asked_hello, self._heard_at = True, now
            self._send(packet.ECHO_REQUEST)

    def _disconnect(self, now: float) -> None:
        if self.finished or self._state is None:
            self._finish()
            return
        self._send(packet.disconnect(StatusInfo()))
        self._state, self.connected = ClientState.DISCONNECT_PENDING, False
        late = Failure("disconnect_timeout", "the server did not acknowledge the disconnect")
        self._deadline = (now + DISCONNECT_SENDER_TIMEOUT_S, late)

    def _fail_unless_connected(self, now: float) -> None:
        if not self.connected:
            self._fail("disconnected", "the server ended the call before it was connected", now)

    def _fail(self, reason: str, sentence: str, now: float) -> None:
        if self.failure is None and not self.finished:
            self.failure = Failure(reason, sentence)
            self._note(StepKind.FAILED, sentence, now)
        self._finish()

    def _finish(self) -> None:
        self.finished, self.connected = True, False
        self._state, self._deadline, self.wake_at = ClientState.DISCONNECTED, None, None

    def _set_wake(self) -> None:
        times = [self._ppp.wake_at, self._deadline[0] if self._deadline else None]
        if self._state is ClientState.CONNECTED:
            times.append(self._heard_at + self.settings.hello_timeout_s)
        self.wake_at = min((t for t in times if t is not None), default=None)

    def _send(self, message: Message) -> None:
        self._out += message.encode()

    def _flush(self) -> bytes:
        if not self.finished:
            self._set_wake()
        out, self._out = bytes(self._out), bytearray()
        return out

    def _note(self, kind: StepKind, sentence: str, now: float) -> None:
        self.steps.append(Step(kind, sentence, now))


def _client_end(settings: CallerSettings) -> ClientEnd:
    return ClientEnd(settings.user, settings.password, settings.computer, settings.correlation_id)

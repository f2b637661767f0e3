"""One call as a simulated RRAS sees it, from CALL_CONNECT_REQUEST on ([MS-SSTP] 3.3). Pure.

The state table of ``protocol/call.py`` decides what may come when; PPP is
``protocol/ppp_peer.py`` playing the server; the crypto binding is verified as 3.3.5.2.3 has it:
nonce, certificate hash, algorithm, compound MAC, and refused with CALL_ABORT (attribute 3,
status 4), or status 9 when it is missing or of the wrong length.

Assumptions (not published): RRAS offers both hashes; its LCP begins with the ACK; a refused
binding is answered at once. Inside the tunnel ICMP echo and UDP echo are answered; all
IP packets are counted.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address

from sstplb.errors import BindingError, ProtocolError
from sstplb.protocol import binding, ipv4, packet, ppp
from sstplb.protocol.call import SERVER_RECEIVES, ServerState
from sstplb.protocol.packet import Message, PacketReader, StatusInfo, parse_message
from sstplb.protocol.ppp_peer import (
    AddressAssigned,
    Authenticated,
    Authentication,
    AuthenticationFailed,
    PppEvent,
    PppPeer,
    ServerEnd,
    Terminated,
)
from sstplb.protocol.registry import (
    ABORT_SENDER_TIMEOUT_S,
    HELLO_TIMEOUT_S,
    NEGOTIATION_TIMEOUT_S,
    NONCE_BYTES,
    AttributeId,
    HashProtocol,
    MessageType,
    Status,
)

_KNOWN = frozenset(MessageType)
BOTH_HASHES = HashProtocol.SHA1 | HashProtocol.SHA256

Report = Callable[[int, str], None]
"""Takes an event's number (0 where Windows' is not known) and its text."""


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """What the server brings to every call."""

    accounts: Mapping[str, str] = field(repr=False)
    address: IPv4Address
    certificate_hashes: frozenset[bytes]
    """Hashes it accepts: of its own certificate, or the one it was told."""
    authentication: Authentication = Authentication.MSCHAPV2
    hash_protocols: int = BOTH_HASHES
    hello_timeout_s: float = HELLO_TIMEOUT_S
    """Silence before a hello, and again before the call is given up (3.1.2)."""


@dataclass(slots=True)
class Counts:
    """What went through the tunnel, in IP packets and bytes."""

    packets_in: int = 0
    bytes_in: int = 0
    packets_out: int = 0


class RrasCall:
    """One call, as its server."""

    def __init__(
        self,
        settings: ServerSettings,
        client_address: IPv4Address,
        random: Callable[[int], bytes],
        report: Report,
        now: float,
    ) -> None:
        self.finished = False
        self.connected = False
        self.binding_failure = ""
        """Why the binding was refused, as a slug; empty: it was not."""
        self.user = ""
        self.counts = Counts()
        self.wake_at: float | None = now + NEGOTIATION_TIMEOUT_S
        self._settings = settings
        self._report = report
        self._state = ServerState.CONNECT_REQUEST_PENDING
        self._nonce = random(NONCE_BYTES)
        self._packets = PacketReader()
        self._ppp = PppPeer(
            ServerEnd(settings.accounts, settings.address, client_address, settings.authentication),
            random,
        )
        self._out = bytearray()
        self._deadline: float | None = self.wake_at
        self._heard_at = now
        self._asked_hello = False

    def receive(self, data: bytes, now: float) -> bytes:
        """Take bytes from the client, return bytes for it."""
        self._heard_at, self._asked_hello = now, False
        try:
            for got in self._packets.feed(data):
                if self.finished:
                    break
                if got.is_control:
                    self._take_message(parse_message(got.payload), now)
                else:
                    self._take_frame(got.payload, now)
        except ProtocolError as error:
            # 3.1.5.1: what cannot be read ends the connection, without a message.
            self._report(0, f"a malformed packet came: {error}")
            self._finish()
        return self._flush()

    def wake(self, now: float) -> bytes:
        """Do what time asks for."""
        if self._deadline is not None and self._deadline <= now:
            if self._state in (ServerState.ABORT_PENDING, ServerState.DISCONNECT_PENDING):
                self._finish()
            else:
                self._abort(StatusInfo(AttributeId.NO_ERROR, Status.NEGOTIATION_TIMEOUT), now)
        elif self._ppp.wake_at is not None and self._ppp.wake_at <= now:
            self._send_frames(self._ppp.wake(now))
        if (
            self._state is ServerState.CONNECTED
            and now - self._heard_at >= self._settings.hello_timeout_s
        ):
            if self._asked_hello:
                self._report(0, "the client did not answer a hello; call dropped")
                self._finish()
            else:
                self._asked_hello, self._heard_at = True, now
                self._send(packet.ECHO_REQUEST)
        return self._flush()

    def disconnect(self, now: float) -> bytes:
        """End the call politely, as stopping the service does."""
        self._send(packet.disconnect(StatusInfo()))
        self._state, self._deadline = ServerState.DISCONNECT_PENDING, now + ABORT_SENDER_TIMEOUT_S
        return self._flush()

    # --- messages -------------------------------------------------------------------------------

    def _take_message(self, message: Message, now: float) -> None:
        if message.type == MessageType.CALL_DISCONNECT:
            self._send(packet.DISCONNECT_ACK)
            self._finish()
            return
        if message.type == MessageType.CALL_ABORT:
            if self._state is not ServerState.ABORT_PENDING:
                self._send(packet.abort(StatusInfo()))
            self._finish()
            return
        kind = MessageType(message.type) if message.type in _KNOWN else None
        following = SERVER_RECEIVES.get((self._state, kind)) if kind is not None else None
        if following is None:
            if self._state is not ServerState.ABORT_PENDING:
                self._abort(StatusInfo(0, Status.UNACCEPTED_FRAME_RECEIVED), now)
            return
        match kind:
            case MessageType.CALL_CONNECT_REQUEST:
                self._take_request(message, following, now)
            case MessageType.CALL_CONNECTED:
                self._check_binding(message, following, now)
            case MessageType.ECHO_REQUEST:
                self._send(packet.ECHO_RESPONSE)
            case MessageType.CALL_DISCONNECT_ACK:
                self._finish()

    def _take_request(self, message: Message, following: ServerState, now: float) -> None:
        wanted = message.find(AttributeId.ENCAPSULATED_PROTOCOL_ID)
        if wanted is None or wanted.value != b"\x00\x01":
            value = b"" if wanted is None else wanted.value
            reason = StatusInfo(
                AttributeId.ENCAPSULATED_PROTOCOL_ID, Status.VALUE_NOT_SUPPORTED, value
            )
            self._send(packet.connect_nak(reason))
            return
        self._state = following
        self._send(packet.connect_ack(self._nonce, self._settings.hash_protocols))
        self._send_frames(self._ppp.start(now))

    def _check_binding(self, message: Message, following: ServerState, now: float) -> None:
        try:
            binding.verify(
                message,
                hlak=self._ppp.hlak or binding.NO_HLAK,
                nonce=self._nonce,
                offered=self._settings.hash_protocols,
                certificate_hashes=self._settings.certificate_hashes,
            )
        except BindingError as error:
            self.binding_failure = error.reason
            missing = error.reason in ("binding_missing", "binding_length")
            status = Status.ATTRIB_NOT_SUPPORTED_IN_MSG if missing else Status.VALUE_NOT_SUPPORTED
            self._report(0, f"crypto binding refused: {error}")
            self._abort(StatusInfo(AttributeId.CRYPTO_BINDING, status), now)
            return
        self._state, self._deadline = following, None

    def _abort(self, status: StatusInfo, now: float) -> None:
        self._send(packet.abort(status))
        self._state, self._deadline = ServerState.ABORT_PENDING, now + ABORT_SENDER_TIMEOUT_S
        self.connected = False

    # --- PPP and what is inside -------------------------------------------------------------------

    def _take_frame(self, frame: bytes, now: float) -> None:
        if self._state not in (ServerState.CONNECTED_PENDING, ServerState.CONNECTED):
            return
        self._send_frames(self._ppp.receive(frame, now))
        for event in self._ppp.take_events():
            self._take_event(event, now)
        for data in self._ppp.take_packets():
            self._take_ip(data)

    def _take_event(self, event: PppEvent, now: float) -> None:
        match event:
            case Authenticated(user, _):
                self.user = user
            case AuthenticationFailed(user, reason):
                self._report(20271, f"{user} failed to authenticate: {reason}")
                # RFC 1661 3.7: the link is terminated, then SSTP's call.
                self._send_frames(self._ppp.terminate())
                self._out += self.disconnect(now)
            case AddressAssigned(client, _):
                self.connected = True
                self._report(20274, f"{self.user} connected and has the address {client}")
            case Terminated(_) if self._state is not ServerState.DISCONNECT_PENDING:
                self._out += self.disconnect(now)

    def _take_ip(self, data: bytes) -> None:
        self.counts.packets_in += 1
        self.counts.bytes_in += len(data)
        got = ipv4.parse(data)
        reply = ipv4.answer(got) if got is not None else None
        if reply is not None:
            self.counts.packets_out += 1
            self._send_frames([ppp.encode_frame(ppp.Protocol.IP, reply)])

    # --- small change -----------------------------------------------------------------------------

    def _send(self, message: Message) -> None:
        self._out += message.encode()

    def _send_frames(self, frames: list[bytes]) -> None:
        for frame in frames:
            self._out += packet.data_packet(frame)

    def _finish(self) -> None:
        self.finished, self.connected = True, False
        self._state = ServerState.DISCONNECTED

    def _flush(self) -> bytes:
        times = [self._deadline, self._ppp.wake_at]
        if self._state is ServerState.CONNECTED:
            times.append(self._heard_at + self._settings.hello_timeout_s)
        self.wake_at = min((t for t in times if t is not None), default=None)
        out, self._out = bytes(self._out), bytearray()
        return out

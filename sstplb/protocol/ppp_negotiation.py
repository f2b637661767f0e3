"""How two ends of a PPP link agree on options: RFC 1661 4, for one control protocol. Pure.

The automaton of 4.1, reduced to what a link inside a reliable tunnel needs: both ends request, each
answers the other's request with Ack, Nak or Reject, and the protocol is open when both requests
were acknowledged. Requests are repeated, for a server may drop what comes before its PPP runs.
"""

from collections.abc import Callable, Mapping

from sstplb.protocol import ppp
from sstplb.protocol.ppp import Code, Option, PppPacket, Protocol

RESTART_S = 1.0
"""RFC 1661 4.6 suggests 3 s for a serial line; inside a tunnel a second is long."""
REQUESTS_MAX = 10
"""RFC 1661 4.6: Max-Configure."""


class Negotiation:
    """RFC 1661 4: one control protocol, from the first request until both ends agree."""

    def __init__(
        self,
        protocol: Protocol,
        wishes: Mapping[int, bytes],
        judge: Callable[[list[Option]], tuple[Code, list[Option]]],
        learn: Callable[[Option], Option | None],
    ) -> None:
        self.protocol = protocol
        self.is_open = False
        self.gave_up = False
        self.wake_at: float | None = None
        self._wishes = dict(wishes)
        self._judge = judge
        self._learn = learn
        self._identifier = 0
        self._requests_sent = 0
        self._ours_acked = False
        self._theirs_acked = False

    def request(self, now: float) -> list[bytes]:
        """Send our Configure-Request (again), and wait for its answer."""
        if self._requests_sent == REQUESTS_MAX:
            self.gave_up, self.wake_at = True, None
            return []
        self._requests_sent += 1
        self.wake_at = now + RESTART_S
        options = [Option(kind, value) for kind, value in self._wishes.items()]
        packet = PppPacket(Code.CONFIGURE_REQUEST, self._identifier, ppp.encode_options(options))
        return [ppp.encode_frame(self.protocol, packet.encode())]

    def receive(self, packet: PppPacket, now: float) -> list[bytes]:
        """Take a Configure packet, return the answer. Raises PppError."""
        if packet.code == Code.CONFIGURE_REQUEST:
            code, options = self._judge(ppp.parse_options(packet.data))
            # RFC 1661 4.3: a new request, once open, begins the negotiation anew on this side.
            self._theirs_acked = code is Code.CONFIGURE_ACK
            answer = PppPacket(code, packet.identifier, ppp.encode_options(options))
            frames = [ppp.encode_frame(self.protocol, answer.encode())]
        elif packet.identifier != self._identifier or self._ours_acked:
            return []  # the answer to an older request
        elif packet.code == Code.CONFIGURE_ACK:
            self._ours_acked, self.wake_at, frames = True, None, []
        else:
            frames = self._asked_otherwise(packet, now)
        self.is_open = self._ours_acked and self._theirs_acked
        return frames

    def _asked_otherwise(self, packet: PppPacket, now: float) -> list[bytes]:
        """Take a Nak (ask for what is suggested) or a Reject (no longer ask at all)."""
        for option in ppp.parse_options(packet.data):
            wish = self._learn(option) if packet.code == Code.CONFIGURE_NAK else None
            if wish is None:
                self._wishes.pop(option.kind, None)
            else:
                self._wishes[wish.kind] = wish.value
        self._identifier = (self._identifier + 1) & 0xFF
        return self.request(now)

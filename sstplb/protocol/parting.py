"""One direction of a call that is ended from the middle. Pure.

Whoever stands between client and server may end a call politely: with a CALL_DISCONNECT of its own
to either side, which each must acknowledge in whatever state it is ([MS-SSTP] 3.2.4.2). Such a word
can only be put in where a packet has ended. So a direction is *cut*: what its source sends goes on
as far as the end of the packet in hand, and no farther; behind that the other side gets the
message, and what the source still sends is only listened to, for its own acknowledgement is in it.

Where the packet in hand ends is

- *known*, if every packet so far was followed;
- *found*, if not, in what comes next (``boundary.py``), where that is convincing;
- *assumed*, if not and nothing comes: peers write whole packets, so a source that was read for a
  while and has nothing to say stands between two of them.

A place that is known to be inside a packet is never assumed to be anything else. If the assumption
is wrong all the same, the message is lost in a packet that would have remained a torso anyway.
"""

from enum import Enum

from sstplb.errors import PacketError
from sstplb.protocol.boundary import Boundary
from sstplb.protocol.packet import PacketReader, parse_message
from sstplb.protocol.registry import PACKET_BYTES_MAX, MessageType

SEARCH_BYTES_MAX = 16 * PACKET_BYTES_MAX
"""As much may go on in search of a place; where several packets in a row are none, none will come.
"""


class Place(Enum):
    """What is known of the place a direction is cut at."""

    AWAITED = "awaited"
    KNOWN = "known"
    FOUND = "found"
    ASSUMED = "assumed"
    NOWHERE = "nowhere"
    """There is none: nothing can be put in."""


class Parting:
    """One direction, from the moment on at which the call is to end."""

    def __init__(self, boundary: Boundary) -> None:
        self._is_known = boundary.is_known
        self._boundary = boundary if self._is_known else Boundary(None, convinced=True)
        self._packets: PacketReader | None = PacketReader()
        """What comes behind the cut; None: it cannot be read any more."""
        self._searched = 0
        self.place = Place.KNOWN if boundary.is_here else Place.AWAITED
        self.has_acknowledged = False
        """The source has acknowledged a disconnect: ours, or one that crossed it."""
        self.has_disconnected = False
        """The source has ended the call by itself, and wants to see that acknowledged."""
        self.has_aborted = False

    @property
    def is_cut(self) -> bool:
        """Whether the other side stands between two packets now, and gets no more of them."""
        return self.place not in (Place.AWAITED, Place.NOWHERE)

    def receive(self, data: bytes) -> bytes:
        """Take what the source sent; return what of it still goes on."""
        if self.place is Place.NOWHERE:
            return b""
        if self.is_cut:
            self._listen(data)
            return b""
        try:
            end = self._boundary.reached_in(data)
        except PacketError:  # what was begun is no packet
            self.place = Place.NOWHERE
            return b""
        if end is not None:
            self._listen(data[end:])
            if self._is_known or self._packets is not None:
                self.place = Place.KNOWN if self._is_known else Place.FOUND
                return data[:end]
            self._packets = PacketReader()  # what follows is no packet: so that was none either
        self._searched += len(data)
        if self._searched > SEARCH_BYTES_MAX:
            self.place = Place.NOWHERE
        return data

    def is_quiet(self) -> None:
        """Note that the source, though it was read, has had nothing to say for a while."""
        if self.place is Place.AWAITED and not self._is_known:
            self.place = Place.ASSUMED

    def give_up(self) -> None:
        """Note that no more is waited for."""
        if self.place is Place.AWAITED:
            self.place = Place.NOWHERE

    def _listen(self, data: bytes) -> None:
        """Read the source's control messages; its data is dropped, for the call is over."""
        if self._packets is None:
            return
        try:
            for packet in self._packets.feed(data):
                if packet.is_control:
                    self._hear(parse_message(packet.payload).type)
        except PacketError:
            self._packets = None

    def _hear(self, message: int) -> None:
        if message == MessageType.CALL_DISCONNECT_ACK:
            self.has_acknowledged = True
        elif message == MessageType.CALL_DISCONNECT:
            self.has_disconnected = True
        elif message == MessageType.CALL_ABORT:
            self.has_aborted = True

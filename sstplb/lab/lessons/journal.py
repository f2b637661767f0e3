"""Who said what, and when: the notebook of a lesson.

Callers, servers and wires are listened in on (inside TLS, where they themselves stand), and each
stretch of bytes is cut by the protocol room into what was said: a head, SSTP packets. All times
are of one clock, the machine's monotonic one, which is the same in every process; a balancer's log
is on the wall clock and is converted.

From two conversations, the client's and the server's, a sequence diagram is made. What the client
said and the server heard with the very same bytes becomes one arrow right through the balancer:
it was carried unchanged, and that is not an assumption but what was compared.
"""

import time
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import datetime
from itertools import groupby
from typing import Any

from sstplb.errors import HeadError, PacketError
from sstplb.lab.lessons import anatomy
from sstplb.lab.lessons.page import Arrow, Line, Remark
from sstplb.net.call import now_s
from sstplb.net.tcp import Address
from sstplb.protocol.head import HeadReader, RequestHead, ResponseHead
from sstplb.protocol.packet import Packet, PacketReader, parse_message
from sstplb.protocol.registry import MessageType

HEAD_BYTES_MAX = 16384
_BAD = frozenset({"CALL_ABORT", "CALL_CONNECT_NAK"})


@dataclass(frozen=True, slots=True)
class Saying:
    """Something said: a head, or a packet."""

    at_s: float
    by_client: bool
    text: str
    raw: bytes
    what: Packet | RequestHead | ResponseHead

    @property
    def is_head(self) -> bool:
        """Whether it is one of the two HTTP heads."""
        return not isinstance(self.what, Packet)

    @property
    def is_ip(self) -> bool:
        """Whether it carries an IP packet."""
        return isinstance(self.what, Packet) and self.text.startswith("IP,")

    def is_message(self, kind: MessageType) -> bool:
        """Whether it is a control message of that type."""
        return isinstance(self.what, Packet) and anatomy.is_message(self.what, kind)


@dataclass(slots=True)
class Conversation:
    """What was said on one connection, inside TLS, as heard at one of its ends."""

    place: str
    """Whose end it is: a lifeline's name."""
    far_end: Address | None = None
    sayings: list[Saying] = field(default_factory=list)
    malformed: str = ""
    _client: "_Ear" = field(init=False, repr=False)
    _server: "_Ear" = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._client = _Ear(HeadReader.request(HEAD_BYTES_MAX))
        self._server = _Ear(HeadReader.response(HEAD_BYTES_MAX))

    def hear(self, by_client: bool, data: bytes) -> None:
        """Take what one side said."""
        ear = self._client if by_client else self._server
        try:
            for text, raw, what in ear.hear(data):
                self.sayings.append(Saying(now_s(), by_client, text, raw, what))
        except (PacketError, HeadError) as error:
            self.malformed = str(error)

    def find(self, kind: MessageType) -> Saying | None:
        """Return the first message of that type."""
        return next((said for said in self.sayings if said.is_message(kind)), None)

    def head(self, *, by_client: bool) -> Saying | None:
        """Return the request, or the answer."""
        heads = (s for s in self.sayings if s.is_head and s.by_client is by_client)
        return next(heads, None)


class _Ear:
    """Cuts what one side says into a head and packets."""

    def __init__(self, reader: "HeadReader[RequestHead] | HeadReader[ResponseHead]") -> None:
        self._head: HeadReader[Any] | None = reader
        self._packets = PacketReader()

    def hear(self, data: bytes) -> Iterable[tuple[str, bytes, Any]]:
        if self._head is not None:
            head = self._head.feed(data)
            if head is None:
                return
            data, self._head = self._head.trailing, None
            yield _title(head), head.raw, head
            if isinstance(head, ResponseHead) and head.status != 200:
                return  # what follows is a body
        for packet in self._packets.feed(data):
            yield anatomy.name(packet), packet.encode(), packet


def _title(head: RequestHead | ResponseHead) -> str:
    if isinstance(head, ResponseHead):
        return f"HTTP {head.status} {head.phrase}".rstrip()
    return head.method if head.is_sra else f"{head.method} {head.target}"


class Journal:
    """All conversations of a lesson, and the clock they share."""

    def __init__(self) -> None:
        self.began_s = now_s()
        self._wall_offset_s = time.time() - now_s()
        self.servers: list[Conversation] = []

    def at_server(self, name: str, far_end: Address) -> Conversation:
        """Return the conversation of one connection at a server."""
        for known in reversed(self.servers):
            if known.place == name and known.far_end == far_end:
                return known
        fresh = Conversation(name, far_end)
        self.servers.append(fresh)
        return fresh

    def of(self, correlation_id: str) -> list[Conversation]:
        """Return the servers' ends of a call, in the order in which they were asked."""
        return [
            c for c in self.servers
            if (head := c.head(by_client=True)) is not None
            and isinstance(head.what, RequestHead)
            and head.what.correlation_id == correlation_id
        ]  # fmt: skip

    def when(self, event: dict[str, Any]) -> float:
        """Return when a balancer's log event was, on the monotonic clock."""
        stamp = str(event["timestamp"]).replace("Z", "+00:00")
        return datetime.fromisoformat(stamp).timestamp() - self._wall_offset_s


# --- from conversations to arrows -----------------------------------------------------------------


def arrows(
    client: Conversation,
    servers: list[Conversation],
    began_s: float,
    *,
    middle: str = "",
    reads_heads: bool = True,
    sealed: bool = False,
    client_name: str = "",
    brief: bool = False,
) -> list[Arrow | Remark]:
    """Return what was said as arrows, in the order of time.

    ``middle`` is the balancer's lifeline; empty: the client spoke with the server itself. One that
    ``reads_heads`` makes two arrows of a head; ``sealed`` is drawn where TLS does not end there.
    ``client_name``: the client's lifeline, if it is not called as its conversation is. ``brief``
    spares the reader what PPP says.
    """  # fmt: skip
    rows: list[Arrow | Remark] = []
    name = client_name or client.place
    line = Line.SEALED if sealed else Line.CLEAR
    heard = {id(server): [*server.sayings] for server in servers}
    last = servers[-1] if servers else None
    for said in client.sayings:
        through = last is not None and not (said.is_head and reads_heads and middle)
        if through and last is not None and _take(heard[id(last)], said):
            far_end = last.place
        else:  # it ended at the balancer, or never arrived as it was
            far_end = middle or (last.place if last is not None else "nobody")
        pair = (name, far_end) if said.by_client else (far_end, name)
        rows.append(_arrow(said, pair, began_s, line))
    for server in servers:
        for said in heard[id(server)]:
            pair = (middle or name, server.place)
            rows.append(_arrow(said, pair if said.by_client else pair[::-1], began_s, line))
    rows.sort(key=lambda row: row.at_s)
    return fold(rows, brief=brief)


def _take(heard: list[Saying], said: Saying) -> bool:
    """Strike out the same bytes on the other side; return whether they were there."""
    for number, other in enumerate(heard):
        if other.by_client is said.by_client and other.raw == said.raw:
            del heard[number]
            return True
    return False


def _arrow(said: Saying, pair: tuple[str, str], began_s: float, line: Line) -> Arrow:
    text = said.text
    bad = text in _BAD
    if isinstance(said.what, ResponseHead):
        bad = said.what.status >= 500
    if isinstance(said.what, Packet) and said.what.is_control and text == "CALL_ABORT":
        status = parse_message(said.what.payload).status
        bad = status is not None and status.status != 0
        text = f"CALL_ABORT ({status})" if bad else text
    return Arrow(said.at_s - began_s, *pair, text, Line.BAD if bad else line)


def fold(rows: list[Arrow | Remark], *, brief: bool = False) -> list[Arrow | Remark]:
    """Make one arrow of a run of IP packets in one direction; ``brief``: of PPP's talk too."""
    folded: list[Arrow | Remark] = []
    for kind, group in groupby(rows, lambda row: _kind(row) or id(row)):
        run = [row for row in group if isinstance(row, Arrow)]
        if kind == "IP":
            sources = dict.fromkeys(row.source for row in run)
            folded += [_sum(row for row in run if row.source == source) for source in sources]
        elif kind == "PPP" and brief and len(run) > 1:
            names = ", ".join(dict.fromkeys(row.text.split()[0] for row in run))
            folded.append(replace(run[0], text=f"{names}: {len(run)} packets, both ways"))
        elif run:
            folded += run
    return sorted([*folded, *(r for r in rows if isinstance(r, Remark))], key=lambda r: r.at_s)


def _kind(row: Arrow | Remark) -> str:
    """Say what of a run of arrows may be drawn as one; empty: nothing."""
    if isinstance(row, Remark):
        return ""
    word = row.text.partition(" ")[0].rstrip(",")
    return {"IP": "IP", "LCP": "PPP", "CHAP": "PPP", "PAP": "PPP", "IPCP": "PPP"}.get(word, "")


def _sum(run: Iterable[Arrow]) -> Arrow:
    mine = list(run)
    total = sum(int(row.text.split()[1]) for row in mine)
    text = mine[0].text if len(mine) == 1 else f"{len(mine)} IP packets, {total} bytes"
    return replace(mine[0], text=text)

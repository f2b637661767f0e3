"""Ending a call that runs: politely where we can, in order in any case.

When it is us who end a call (a drain, a stop, silence, a backend that went down, the operator) the
relay is interrupted and this takes over both legs for a few seconds. In the terminating modes each
side is told: what is under way goes on as far as the end of the packet in hand, then the side gets
a CALL_DISCONNECT, and its CALL_DISCONNECT_ACK is waited for ([MS-SSTP] 3.1.2.2, 3.2.4.2). So a
client knows that it was hung up on and may call again, and RRAS gives the port free at once, even
if its client has long been gone. The two sides are told independently of each other; what each
said is in the record (``account/record.py``).

No message is ever put inside a packet: where the place is not found in time the side is not told
(``protocol/parting.py`` says what counts as a place). What comes behind it is dropped, for the call
is over. A call in the middle of its opening is ended in the same way: a far end must answer
CALL_DISCONNECT in whatever state it is.

In passthrough the packets are inside a TLS that is not ours, and visitors of a web pool speak no
SSTP: there, and where ``polite_endings`` is off, what is under way is given, both connections are
ended with a FIN, and the sides get a moment to take note.
"""

import asyncio
import contextlib

from sstplb.account.record import Goodbye
from sstplb.errors import TlsError
from sstplb.net.call import Call
from sstplb.net.leg import Leg
from sstplb.net.relay import Meter
from sstplb.protocol import packet
from sstplb.protocol.boundary import Boundary
from sstplb.protocol.packet import StatusInfo
from sstplb.protocol.parting import Parting, Place
from sstplb.protocol.registry import DISCONNECT_RECEIVER_TIMEOUT_S, DISCONNECT_SENDER_TIMEOUT_S

QUIET_S = 1.0
"""A source that says nothing for so long stands between two packets: time enough for TCP to send a
lost segment again, more than once."""
PLACE_S = 3.0
"""How long a place to put the message in is looked for."""
GOODBYE_S = PLACE_S + DISCONNECT_SENDER_TIMEOUT_S + DISCONNECT_RECEIVER_TIMEOUT_S
"""No call takes longer to end."""


async def say_goodbye(call: Call) -> None:
    """End both legs of a call whose relay was interrupted, and note what each side answered."""
    relay, backend_leg = call.relay, call.backend_leg
    assert relay is not None, "only a call that was relayed can be ended like this"
    assert backend_leg is not None, "it was relayed to somebody"
    flow, rests, boundaries = relay.flow, relay.leftovers, call.boundaries()
    inward = _Way(call.client_leg, backend_leg, flow.inward, boundaries[0], rests[0])
    outward = _Way(backend_leg, call.client_leg, flow.outward, boundaries[1], rests[1])
    record, ends_tls = call.record, call.served is not None
    if ends_tls and not call.is_visit and call.service.listener.polite_endings:
        record.client_goodbye, record.backend_goodbye = await _tell_both(inward, outward)
    elif not call.is_visit:
        record.client_goodbye = record.backend_goodbye = Goodbye.CLOSE_ONLY
    await _close_in_order(inward, outward)


async def _tell_both(inward: "_Way", outward: "_Way") -> tuple[Goodbye, Goodbye]:
    """Say goodbye to both sides; return what the client and what the backend said."""
    async with asyncio.TaskGroup() as group:
        client = group.create_task(_tell(outward, inward), name="goodbye to client")
        backend = group.create_task(_tell(inward, outward), name="goodbye to backend")
        listening = [group.create_task(way.listen(), name="goodbye") for way in (inward, outward)]
        await asyncio.wait((client, backend))
        for task in listening:
            task.cancel()
    return client.result(), backend.result()


class _Way:
    """One direction: its source is listened to, its sink is given what still goes on."""

    def __init__(
        self, source: Leg, sink: Leg, meter: Meter, boundary: Boundary, leftover: bytes
    ) -> None:
        self.source, self.sink = source, sink
        self.parting = Parting(boundary)
        self.is_closed = meter.ended
        """Nothing may be given to the sink any more: it was said to have ended, or is gone."""
        self.source_is_gone = meter.ended
        self._meter = meter
        self._waiting = leftover
        """What goes on and was not given yet."""
        self._heard = asyncio.Event()

    async def listen(self) -> None:
        """Read the source until it has finished."""
        while not self.source_is_gone:
            is_awaited = self.parting.place is Place.AWAITED
            try:
                async with asyncio.timeout(QUIET_S if is_awaited else None):
                    data = await self.source.receive()
            except TimeoutError:
                self.parting.is_quiet()
            except (OSError, TlsError):
                self.source_is_gone = True
            else:
                going_on = self.parting.receive(data)
                self._waiting += going_on
                self._meter.bytes += len(going_on)
                if not data:
                    self.parting.is_quiet()
                    self.source_is_gone = True
            self._heard.set()
        self.parting.give_up()

    async def something_new(self) -> None:
        """Wait until something was heard."""
        await self._heard.wait()
        self._heard.clear()

    async def give(self, message: bytes = b"") -> None:
        """Give the sink what waits, and the message. Raises OSError."""
        data, self._waiting = self._waiting + message, b""
        if data:
            await self.sink.send(data)

    async def end(self) -> None:
        """Give what waits, and end the sink's connection; one that is full, when it has room."""
        with contextlib.suppress(OSError, TlsError):
            if not self.is_closed:
                await self.give()
            await self.sink.send_end()

    async def drain(self) -> None:
        """Read the source until it has ended its connection."""
        with contextlib.suppress(OSError, TlsError):
            while not self.source_is_gone and await self.source.receive():
                pass


async def _tell(way: _Way, back: _Way) -> Goodbye:
    """Say goodbye to the sink of ``way``; its answer comes ``back``."""
    if way.is_closed:
        return Goodbye.UNSENT
    try:
        async with asyncio.timeout(PLACE_S):
            while way.parting.place is Place.AWAITED:
                await way.something_new()
    except TimeoutError:
        way.parting.give_up()
    if not way.parting.is_cut:
        return Goodbye.NO_PLACE
    was_told = False
    try:
        async with asyncio.timeout(DISCONNECT_SENDER_TIMEOUT_S):
            await way.give(packet.disconnect(StatusInfo()).encode())
            was_told = True
            return await _answer(way, back)
    except TimeoutError:
        return Goodbye.UNANSWERED if was_told else Goodbye.UNSENT
    except (OSError, TlsError):
        return Goodbye.CLOSED if was_told else Goodbye.UNSENT


async def _answer(way: _Way, back: _Way) -> Goodbye:
    """Wait for what a side says to its CALL_DISCONNECT. Raises OSError."""
    heard, has_answered = back.parting, False
    while True:
        if heard.has_disconnected and not has_answered:  # it was about to end the call itself
            has_answered = True
            await way.give(packet.DISCONNECT_ACK.encode())
        if heard.has_acknowledged:
            return Goodbye.ACKNOWLEDGED
        if heard.has_aborted:
            return Goodbye.ABORTED
        if back.source_is_gone:
            return Goodbye.CLOSED
        await back.something_new()


async def _close_in_order(*ways: _Way) -> None:
    """Give what waits, end both connections, and let the sides take note.

    What a side still sends is read and dropped: a socket that is closed with bytes unread is reset,
    and a reset overtakes what the other side has not read yet.
    """
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(DISCONNECT_RECEIVER_TIMEOUT_S), asyncio.TaskGroup() as group:
            for way in ways:
                group.create_task(way.end(), name="ending a call")
                group.create_task(way.drain(), name="draining a call")

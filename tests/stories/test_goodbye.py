"""Calls that we end: told politely where we can, never in the middle of a packet."""

import asyncio
import contextlib
import random
from pathlib import Path
from typing import Any

import httpx
import pytest

from sstplb.account.record import Goodbye, Record
from sstplb.errors import KilledError
from sstplb.lab.caller import CallReport
from sstplb.lab.pki import Issued, LabPki
from sstplb.net import goodbye
from sstplb.protocol import packet
from sstplb.protocol.caller import StepKind
from sstplb.protocol.packet import PacketReader, StatusInfo, parse_message
from sstplb.protocol.registry import MessageType
from tests.characters import ANSWER, LIMIT_S, Client, FakeBackend, Stage, play, staged
from tests.running import Running, is_alive, running
from tests.stories.test_real_calls import Lab

TERMINATING = ["offload", "reencrypt"]
WHY = KilledError("the operator ended this call")
DISCONNECT = packet.disconnect(StatusInfo()).encode()
ACKNOWLEDGEMENT = packet.DISCONNECT_ACK.encode()


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nobody answers, wait less: the 5 s are the specification's, and long in a test."""
    monkeypatch.setattr(goodbye, "DISCONNECT_SENDER_TIMEOUT_S", 1.0)


def goodbyes(record: Record) -> tuple[str, str]:
    assert record.client_goodbye is not None
    assert record.backend_goodbye is not None
    return str(record.client_goodbye), str(record.backend_goodbye)


def body(number: int) -> bytes:
    """Return the frame with that number: whatever is lost, torn or mixed up will show."""
    dice = random.Random(number)  # of a few sizes, some beyond a TLS record's half
    size = dice.choice((0, 1, 60, 576, 1400, 4080))
    return number.to_bytes(4, "big") + dice.randbytes(size)


class Talker:
    """One end that sends numbered packets as fast as it can, and checks what it gets."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        self.received = 0
        self.was_told = False
        self.after = 0
        """Packets that came behind CALL_DISCONNECT."""
        self.is_quiet = asyncio.Event()

    async def talk(self, *, acknowledges: bool = True) -> None:
        """Go on until the connection ends."""
        sending = asyncio.create_task(self._send())
        packets = PacketReader()
        try:
            while data := await self.reader.read(70_000):
                for got in packets.feed(data):
                    if self.was_told:
                        self.after += 1
                    elif got.is_control:
                        assert parse_message(got.payload).type == MessageType.CALL_DISCONNECT
                        self.was_told = True
                        self.is_quiet.set()
                        await sending
                        if acknowledges:
                            self.writer.write(ACKNOWLEDGEMENT)
                    else:
                        assert got.payload == body(self.received), f"packet {self.received}"
                        self.received += 1
        except OSError:
            pass
        finally:
            self.is_quiet.set()
            with contextlib.suppress(OSError):
                await sending

    async def _send(self) -> None:
        """Send packets in pieces that begin and end anywhere."""
        dice, number, stream = random.Random(7), 0, b""
        while not self.is_quiet.is_set():
            while len(stream) < 100_000:
                stream += packet.data_packet(body(number))
                number += 1
            piece = dice.randint(1, 90_000)
            self.writer.write(stream[:piece])
            stream = stream[piece:]
            await self.writer.drain()
            await asyncio.sleep(0)
        self.writer.write(stream[: self._begun(stream, number)])

    @staticmethod
    def _begun(stream: bytes, numbers: int) -> int:
        """Return how much of what waits belongs to a packet that was begun to be sent."""
        at = len(stream)
        for number in range(numbers - 1, -1, -1):
            before = at - len(packet.data_packet(body(number)))
            if before < 0:
                return at
            at = before
        return at


class TalkingBackend(FakeBackend):
    """A backend that talks by itself, in packets."""

    acknowledges = True

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.talkers: list[Talker] = []

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(ANSWER)
        talker = Talker(reader, writer)
        self.talkers.append(talker)
        await talker.talk(acknowledges=self.acknowledges)


def talking(mode: str, pki: LabPki, served: Issued, **listener: Any) -> Stage:
    stage = Stage(mode, pki.root_path, served, count=0)
    over_tls = mode != "offload"
    stage.backends = [TalkingBackend("rras1", "127.0.1.1", served if over_tls else None)]
    stage.listener.update(listener)
    return stage


def the_talker(stage: Stage) -> Talker:
    (backend,) = stage.backends
    assert isinstance(backend, TalkingBackend)
    return backend.talkers[-1]


async def dialled(stage: Stage) -> Client:
    client = await stage.client()
    assert await client.open() == ANSWER
    return client


@pytest.mark.parametrize(
    ("mode", "follow", "workers"),
    [
        ("offload", "full", 1),
        ("offload", "opening", 1),
        ("reencrypt", "opening", 1),
        ("reencrypt", "off", 1),
        ("offload", "opening", 2),
    ],
)
def test_both_sides_of_a_real_call_are_told_and_acknowledge(
    mode: str, follow: str, workers: int, pki: LabPki, served: Issued
) -> None:
    async def story() -> None:
        lab = Lab(mode, pki, served)
        lab.stage.workers = workers
        lab.stage.listener["follow"] = follow
        async with lab.running():
            calls = [asyncio.create_task(lab.call(data_bytes=50_000, hold_s=20)) for _ in range(4)]
            await connected(lab, 4)
            await asyncio.sleep(0.5)  # let pings and data be over: the line is quiet
            lab.stage.balancer.endings.add(lab.stage.balancer.calls(), WHY)
            for report in await asyncio.gather(*calls):
                assert report.ok, report.failure
                assert (report.steps[-1].kind, report.steps[-1].sentence) == (
                    StepKind.DISCONNECTED, "the server ended the call politely",
                )  # fmt: skip
            await lab.stage.ended(4)
            assert lab.stage.reasons() == ["closed:ended_by_operator"] * 4
            for record in lab.stage.balancer.ledger.ended:
                assert goodbyes(record) == ("acknowledged", "acknowledged")
            assert not any(server.calls for server in lab.servers), "RRAS has its ports back"

    play(story)


async def connected(lab: Lab, count: int) -> None:
    async with asyncio.timeout(LIMIT_S):
        while sum(server.connected_total for server in lab.servers) < count:
            await asyncio.sleep(0.01)


@pytest.mark.parametrize(
    ("mode", "follow", "engine"),
    [
        ("offload", "full", "native"),
        ("offload", "off", "native"),
        ("offload", "off", "portable"),
        ("reencrypt", "full", "portable"),
        ("reencrypt", "off", "native"),
    ],
)
def test_under_load_no_packet_is_torn(
    mode: str, follow: str, engine: str, pki: LabPki, served: Issued
) -> None:
    async def story() -> None:
        stage = talking(mode, pki, served, follow=follow)
        stage.engine = engine
        async with staged(stage):
            for number in range(1, 6):
                client = await dialled(stage)
                caller = Talker(client.reader, client.writer)
                talk = asyncio.create_task(caller.talk())
                await asyncio.sleep(0.2 + 0.037 * number)
                stage.balancer.endings.add(stage.balancer.calls(), WHY)
                await talk
                await stage.ended(number)
                for end in (caller, the_talker(stage)):
                    assert end.received > 100, "data was flowing"
                    assert (end.was_told, end.after) == (True, 0)
                record = stage.balancer.ledger.ended[-1]
                assert goodbyes(record) == ("acknowledged", "acknowledged")

    play(story)


@pytest.mark.parametrize("mode", TERMINATING)
@pytest.mark.usefixtures("impatient")
def test_a_client_that_is_gone_does_not_keep_rras_waiting(
    mode: str, pki: LabPki, served: Issued
) -> None:
    """Half open: the client neither reads nor answers, its way is full; RRAS is told at once."""

    async def story() -> None:
        stage = talking(mode, pki, served, follow="full")
        async with staged(stage):
            gone = await dialled(stage)
            gone.writer.transport.pause_reading()  # type: ignore[attr-defined]  # a real transport
            await asyncio.sleep(0.5)
            stage.balancer.endings.add(stage.balancer.calls(), WHY)
            async with asyncio.timeout(1.0):
                await the_talker(stage).is_quiet.wait()
            await stage.ended()
            assert the_talker(stage).was_told
            client, backend = goodbyes(stage.balancer.ledger.ended[0])
            assert client in ("unsent", "unanswered")
            assert backend == "acknowledged"

    play(story)


@pytest.mark.usefixtures("impatient")
def test_who_is_silent_is_waited_for_and_noted(pki: LabPki, served: Issued) -> None:
    async def story() -> None:
        stage = talking("offload", pki, served)
        backend = stage.backends[0]
        assert isinstance(backend, TalkingBackend)
        backend.acknowledges = False
        async with staged(stage):
            client = await dialled(stage)
            caller = Talker(client.reader, client.writer)
            talk = asyncio.create_task(caller.talk())
            await asyncio.sleep(0.1)
            stage.balancer.endings.add(stage.balancer.calls(), WHY)
            await talk
            await stage.ended()
            assert goodbyes(stage.balancer.ledger.ended[0]) == ("acknowledged", "unanswered")

    play(story)


@pytest.mark.usefixtures("impatient")
def test_in_the_middle_of_a_packet_nothing_is_said(pki: LabPki, served: Issued) -> None:
    async def story() -> None:
        stage = Stage("offload", pki.root_path, served, count=1)
        stage.backends[0].mood = "deaf"
        async with staged(stage):
            client = await dialled(stage)
            await client.send(packet.data_packet(bytes(1000))[:700])
            await asyncio.sleep(0.1)
            stage.balancer.endings.add(stage.balancer.calls(), WHY)
            assert await client.receive(len(DISCONNECT)) == DISCONNECT, "that way stood well"
            await client.close()
            await stage.ended()
            assert goodbyes(stage.balancer.ledger.ended[0]) == ("closed", "no_place")

    play(story)


@pytest.mark.usefixtures("impatient")
def test_goodbyes_that_cross_are_acknowledged(pki: LabPki, served: Issued) -> None:
    async def story() -> None:
        stage = Stage("offload", pki.root_path, served, count=1)
        stage.backends[0].mood = "deaf"
        async with staged(stage):
            client = await dialled(stage)
            stage.balancer.endings.add(stage.balancer.calls(), WHY)
            assert await client.receive(len(DISCONNECT)) == DISCONNECT
            await client.send(DISCONNECT + ACKNOWLEDGEMENT)
            assert await client.receive(len(ACKNOWLEDGEMENT)) == ACKNOWLEDGEMENT
            await stage.ended()
            assert goodbyes(stage.balancer.ledger.ended[0])[0] == "acknowledged"

    play(story)


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("has_asked", [False, True])
def test_in_the_middle_of_an_opening_rras_answers_too(
    has_asked: bool, pki: LabPki, served: Issued
) -> None:
    """3.2.4.2: a far end acknowledges in whatever state it is."""

    async def story() -> None:
        async with Lab("offload", pki, served).running() as lab:
            client = await lab.stage.client()
            await client.open()
            if has_asked:
                await client.send(packet.connect_request().encode())
                ack = PacketReader().feed(await client.receive(48))[0]
                assert parse_message(ack.payload).type == MessageType.CALL_CONNECT_ACK
            lab.stage.balancer.endings.add(lab.stage.balancer.calls(), WHY)
            assert (await client.rest()).endswith(DISCONNECT)
            await lab.stage.ended()
            assert goodbyes(lab.stage.balancer.ledger.ended[0]) == ("unanswered", "acknowledged")

    play(story)


def test_an_abort_is_an_answer_too(pki: LabPki, served: Issued) -> None:
    async def story() -> None:
        stage = Stage("offload", pki.root_path, served, count=1)
        async with staged(stage):
            client = await dialled(stage)
            stage.balancer.endings.add(stage.balancer.calls(), WHY)
            assert await client.receive(len(DISCONNECT)) == DISCONNECT
            await client.send(packet.abort(StatusInfo()).encode())
            await stage.ended()
            assert goodbyes(stage.balancer.ledger.ended[0])[0] == "aborted"

    play(story)


@pytest.mark.parametrize(("mode", "polite"), [("passthrough", True), ("offload", False)])
def test_where_nothing_can_or_may_be_said_connections_end_in_order(
    mode: str, polite: bool, pki: LabPki, served: Issued
) -> None:
    async def story() -> None:
        stage = Stage(mode, pki.root_path, served, count=1)
        stage.listener["polite_endings"] = polite
        async with staged(stage):
            client = await dialled(stage)
            await stage.settled(1)
            sent = packet.data_packet(bytes(1000)) * 100
            assert await client.echo(sent)
            stage.balancer.endings.add(stage.balancer.calls(), WHY)
            assert await client.rest() == b"", "an end without a word"
            await stage.ended()
            record = stage.balancer.ledger.ended[0]
            assert goodbyes(record) == ("close_only", "close_only")
            assert record.reason == "ended_by_operator"

    play(story)


def test_a_quiet_call_is_ended_politely(pki: LabPki, served: Issued) -> None:
    async def story() -> None:
        stage = Stage("offload", pki.root_path, served, count=1)
        stage.limits["idle_timeout"] = "300ms"
        async with staged(stage):
            client = await dialled(stage)
            assert await client.receive(len(DISCONNECT)) == DISCONNECT
            await client.send(ACKNOWLEDGEMENT)
            await stage.ended()
            assert stage.reasons() == ["closed:idle_timeout"]
            assert stage.balancer.ledger.ended[0].client_goodbye is Goodbye.ACKNOWLEDGED

    play(story)


def test_a_call_that_is_cut_is_not_told(pki: LabPki, served: Issued) -> None:
    async def story() -> None:
        async with staged(Stage("offload", pki.root_path, served, count=1)) as stage:
            client = await dialled(stage)
            stage.balancer.end_calls(stage.balancer.calls(), WHY)
            assert await client.rest() == b""
            await stage.ended()
            assert stage.balancer.ledger.ended[0].client_goodbye is None

    play(story)


def test_a_goodbye_can_be_cut_short(pki: LabPki, served: Issued) -> None:
    async def story() -> None:
        async with staged(Stage("offload", pki.root_path, served, count=1)) as stage:
            client = await dialled(stage)
            (call,) = stage.balancer.calls()
            call.end(WHY, politely=True)
            call.end(WHY, politely=True)
            assert await client.receive(len(DISCONNECT)) == DISCONNECT
            async with asyncio.timeout(0.5):
                call.end(KilledError("enough"))
                await stage.ended()
            assert stage.balancer.ledger.ended[0].detail == "enough"

    play(story)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_stop_with_a_deadline_is_polite_and_paced(
    workers: int, pki: LabPki, served: Issued
) -> None:
    async def story() -> None:
        lab = Lab("offload", pki, served)
        lab.stage.workers = workers
        lab.stage.limits["endings_per_second"] = 10
        ended_at: list[float] = []
        loop = asyncio.get_running_loop()

        async def one() -> CallReport:
            report = await lab.call(hold_s=20)
            ended_at.append(loop.time())
            return report

        async with lab.running():
            calls = [asyncio.create_task(one()) for _ in range(8)]
            await connected(lab, 8)
            assert await lab.stage.balancer.stop(0.3) == 8
            for report in await asyncio.gather(*calls):
                assert report.steps[-1].sentence == "the server ended the call politely"
            assert lab.stage.reasons() == ["closed:stopped"] * 8
            for record in lab.stage.balancer.ledger.ended:
                assert goodbyes(record) == ("acknowledged", "acknowledged")
            assert ended_at[-1] - ended_at[0] > 0.5, "8 calls, ten in a second"

    play(story)


def test_the_old_process_of_an_upgrade_ends_its_calls_at_a_deadline(
    pki: LabPki, served: Issued, tmp_path: Path
) -> None:
    async def story() -> None:
        stage = Running(tmp_path, "offload", pki.root_path, served)
        stage.listener["polite_endings"] = True
        stage.more = {"admin": {"socket": str(tmp_path / "admin.sock")}}
        async with running(stage):
            old = await stage.client()
            await old.open()
            transport = httpx.AsyncHTTPTransport(uds=str(tmp_path / "admin.sock"))
            async with httpx.AsyncClient(
                transport=transport, base_url="http://sstplb/api/v1", timeout=30
            ) as ask:
                given = {"deadline_s": 1.0}
                stage.processes.append((await ask.post("/upgrade", json=given)).json()["process"])
            young = await stage.client()
            assert await young.open() == ANSWER
            assert await old.receive(len(DISCONNECT)) == DISCONNECT
            await old.send(ACKNOWLEDGEMENT)
            (ended,) = await stage.said("call_ended")
            assert (ended["reason"], ended["client_goodbye"]) == ("stopped", "acknowledged")
            async with asyncio.timeout(LIMIT_S):
                while is_alive(stage.processes[0]):
                    await asyncio.sleep(0.02)
            assert await young.echo(packet.data_packet(bytes(1000))), "not concerned"

    play(story)

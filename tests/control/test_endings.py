"""Ending calls by the operator's word: politely, in turn, and at a deadline."""

import asyncio
from pathlib import Path
from typing import Any, cast

import pytest

from sstplb.control.booking import Booking
from sstplb.control.endings import Endings
from sstplb.errors import CallError, DrainedError, StoppedError
from sstplb.lab.pki import Issued, LabPki
from sstplb.protocol import packet
from sstplb.protocol.packet import StatusInfo
from tests.characters import Client, packets, play, staged
from tests.control.test_api import RRAS1, error_of
from tests.desk import OperatedStage

VPN = "/listeners/vpn/standing"
DISCONNECT = packet.disconnect(StatusInfo()).encode()


class Patient:
    """A call that only notes when it is ended."""

    def __init__(self, number: int, ended: list[tuple[float, int, str]]) -> None:
        self.record = type("Record", (), {"id": number})
        self._number, self._ended = number, ended

    def end(self, why: CallError, *, politely: bool = False) -> None:
        assert politely
        now = asyncio.get_running_loop().time()
        self._ended.append((now, self._number, why.reason))


def patients(count: int) -> tuple[list[Booking], list[tuple[float, int, str]]]:
    ended: list[tuple[float, int, str]] = []
    return [cast("Booking", Patient(n, ended)) for n in range(count)], ended


async def until_all_are_over(ended: list[Any], count: int) -> None:
    async with asyncio.timeout(5):
        while len(ended) < count:
            await asyncio.sleep(0.01)


@pytest.mark.parametrize(("rate", "count", "least_s"), [(20.0, 6, 0.2), (1000.0, 300, 0.25)])
def test_many_are_ended_in_turn(rate: float, count: int, least_s: float) -> None:
    async def story() -> None:
        endings = Endings(lambda: rate)
        calls, ended = patients(count)
        endings.add(calls, StoppedError("time is over"))
        assert ended, "the first at once"
        await until_all_are_over(ended, count)
        assert [number for _, number, _ in ended] == list(range(count))
        assert least_s <= ended[-1][0] - ended[0][0] < 5 * least_s
        endings.stop()

    play(story)


def test_a_call_waits_once_and_not_when_it_is_over() -> None:
    async def story() -> None:
        endings = Endings(lambda: 50.0)
        calls, ended = patients(4)
        endings.add(calls, DrainedError("first"))
        endings.add(calls, StoppedError("second"))
        endings.forget(2)
        endings.forget(77)
        await until_all_are_over(ended, 4)
        # 0 was on its way out already when the second word came: harmless, a call ends once.
        assert [(number, why) for _, number, why in ended] == [
            (0, "drained"), (1, "drained"), (3, "drained"), (0, "stopped"),
        ]  # fmt: skip
        endings.stop()

    play(story)


def test_a_deadline_can_be_moved_and_taken_back() -> None:
    async def story() -> None:
        endings = Endings(lambda: 50.0)
        over: list[str] = []
        endings.set_deadline("a", 0.02, lambda: over.append("too early"))
        endings.set_deadline("a", 0.05, lambda: over.append("moved"))
        endings.set_deadline("b", 0.02, lambda: over.append("taken back"))
        endings.clear_deadline("b")
        await until_all_are_over(over, 1)
        await asyncio.sleep(0.1)
        assert over == ["moved"]
        endings.set_deadline("c", 0.02, lambda: over.append("after the end"))
        endings.stop()
        await asyncio.sleep(0.1)
        assert over == ["moved"]

    play(story)


async def say_yes(client: Client) -> None:
    """Answer CALL_DISCONNECT."""
    assert await client.receive(len(DISCONNECT)) == DISCONNECT
    await client.send(packet.DISCONNECT_ACK.encode())


def test_one_call_is_ended_politely(tmp_path: Path, pki: LabPki, served: Issued) -> None:
    async def story() -> None:
        async with staged(OperatedStage(tmp_path, "offload", pki.root_path, served)) as stage:
            client = await stage.opened()
            assert await client.echo(packets(5000))
            async with stage.asking() as ask:
                answering = asyncio.create_task(say_yes(client))
                shown = (await ask.post("/calls/1/end", json={"how": "polite"})).json()
                await answering
                assert (shown["state"], shown["reason"]) == ("ended", "ended_by_operator")
                # The backend of this stage echoes, so it "acknowledges", too.
                assert shown["client_goodbye"] == shown["backend_goodbye"] == "acknowledged"
                error_of(await ask.post("/calls/1/end", json={"how": "polite"}), 409)
                error_of(await ask.post("/calls/1/end", json={"how": "rude"}), 422)

    play(story)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_backend_is_drained_with_a_deadline(
    workers: int, tmp_path: Path, pki: LabPki, served: Issued
) -> None:
    async def story() -> None:
        stage = OperatedStage(tmp_path, "offload", pki.root_path, served)
        stage.workers = workers
        async with staged(stage):
            clients = [await stage.opened() for _ in range(4)]
            await stage.settled(4)
            where = {c.record.client: c.record.backend for c in stage.balancer.calls()}
            theirs = [c for c in clients if where[c.address] == "rras1"]
            others = [c for c in clients if where[c.address] == "rras2"]
            assert len(theirs) == len(others) == 2
            async with stage.asking() as ask:
                drain = {"standing": "draining", "deadline_s": 600}
                shown = (await ask.post(f"{RRAS1}/standing", json=drain)).json()
                now = (await ask.get("/overview")).json()["now_at"]
                assert 595 < shown["deadline_at"] - now < 605
                shown = (await ask.post(f"{RRAS1}/standing", json={"standing": "active"})).json()
                assert shown["deadline_at"] is None
                drain["deadline_s"] = 0.3
                await ask.post(f"{RRAS1}/standing", json=drain)
                for client in theirs:
                    await say_yes(client)
                await stage.ended(2)
                assert stage.reasons() == ["closed:drained"] * 2
                assert {str(r.client_goodbye) for r in stage.balancer.ledger.ended} == {
                    "acknowledged"
                }
                for client in others:
                    assert await client.echo(packets(5000)), "not concerned"

    play(story)


def test_a_backend_that_is_active_again_keeps_its_calls(
    tmp_path: Path, pki: LabPki, served: Issued
) -> None:
    async def story() -> None:
        async with staged(OperatedStage(tmp_path, "offload", pki.root_path, served)) as stage:
            client = await stage.opened()
            async with stage.asking() as ask:
                for standing in ("draining", "off"):
                    soon = {"standing": standing, "deadline_s": 0.1}
                    for number in (1, 2):
                        path = f"/pools/rras/backends/rras{number}/standing"
                        await ask.post(path, json=soon)
                        await ask.post(path, json={"standing": "active"})
                    await asyncio.sleep(0.2)
                    assert await client.echo(packets(1404))
                error = error_of(
                    await ask.post(
                        f"{RRAS1}/standing", json={"standing": "active", "deadline_s": 1}
                    ),
                    400,
                )
                assert "not for what is active" in error["message"]
                error_of(
                    await ask.post(
                        f"{RRAS1}/standing", json={"standing": "draining", "deadline_s": -1}
                    ),
                    422,
                )

    play(story)


def test_a_listener_is_drained_with_a_deadline(tmp_path: Path, pki: LabPki, served: Issued) -> None:
    async def story() -> None:
        async with staged(OperatedStage(tmp_path, "offload", pki.root_path, served)) as stage:
            client = await stage.opened()
            async with stage.asking() as ask:
                shown = (
                    await ask.post(VPN, json={"standing": "draining", "deadline_s": 0.2})
                ).json()
                assert shown["deadline_at"] is not None
                await say_yes(client)
                await stage.ended()
                assert stage.reasons() == ["closed:drained"]

    play(story)

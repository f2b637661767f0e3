"""Captures of real calls: what Wireshark makes of them, their limits, and what is not in them."""

import asyncio
import json
import os
import shutil
import subprocess
from functools import partial
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest

from sstplb.errors import CaptureError, KilledError
from sstplb.lab.pki import Issued, LabPki
from sstplb.net.capture import FILE_PATTERN, SECRETS_REMOVED, Capture, CaptureChoice, files_in
from sstplb.protocol.pcapng import BlockType, blocks
from sstplb.protocol.ppp_peer import Authentication
from tests.characters import Stage, packets, play, staged
from tests.stories.test_real_calls import Lab

SECRET = "correct horse battery"


def tshark(path: Path, *fields: str) -> list[list[str]]:
    """Return the fields of each frame, as Wireshark's own dissectors see them."""
    assert shutil.which("tshark"), "tshark is missing: apt-get install tshark"
    arguments = [word for name in fields for word in ("-e", name)]
    done = subprocess.run(
        ["tshark", "-n", "-r", str(path), "-T", "fields", *arguments],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    return [line.split("\t") for line in done.stdout.splitlines()]


def counted(directory: Path) -> list[tuple[int, int]]:
    """Return the calls and frames of each capture in a directory."""
    found = []
    for path in sorted(directory.glob(FILE_PATTERN)):
        kinds = [block.type for block in blocks(path.read_bytes())]
        calls, frames = BlockType.INTERFACE_DESCRIPTION, BlockType.ENHANCED_PACKET
        found.append((kinds.count(calls), kinds.count(frames)))
    return found


def allow(stage: Stage, directory: Path, **more: Any) -> Path:
    stage.capture = {"directory": str(directory), **more}
    return directory


def the_only(stage: Stage) -> Capture:
    (found,) = stage.carrier.recorder.captures.values()
    return found


@pytest.mark.parametrize("mode", ["offload", "reencrypt"])
@pytest.mark.parametrize("authentication", list(Authentication))
def test_wireshark_sees_lcp_authentication_and_ip(
    mode: str, authentication: Authentication, pki: LabPki, served: Issued, tmp_path: Path
) -> None:
    async def story() -> None:
        lab = Lab(mode, pki, served, authentication=authentication, accounts={"user": SECRET})
        allow(lab.stage, tmp_path, listener="vpn")
        async with lab.running():
            report = await lab.call(password=SECRET, data_bytes=20_000)
            assert report.ok, report.failure
            await lab.stage.ended()
            made = the_only(lab.stage)
            made.stop("the test has seen enough")
            record = lab.stage.balancer.ledger.ended[0]
        seen = tshark(
            made.path, "frame.protocols", "frame.p2p_dir",
            "frame.interface_name", "frame.comment", "chap.code", "pap.code",
        )  # fmt: skip
        text = json.dumps(seen)
        chain = [row[0].removeprefix("ppp:") for row in seen]
        auth = "chap" if authentication is Authentication.MSCHAPV2 else "pap"
        first = {name: chain.index(next(c for c in chain if name in c)) for name in
                 ("lcp", auth, "ipcp", "ip:icmp", "ip:udp")}  # fmt: skip
        assert list(first) == sorted(first, key=lambda name: first[name])
        assert "malformed" not in text.lower()
        assert {row[1] for row in seen} == {"0", "1"}, "both directions"
        assert {row[2] for row in seen} == {f"call {record.id} {report.correlation_id}"}
        assert "CALL_CONNECT_ACK" in text
        assert "CALL_CONNECTED" in text
        assert SECRETS_REMOVED in text
        assert made.frames == len(seen)
        total = made.path.read_bytes()
        assert SECRET.encode() not in total
        assert made.path.stat().st_mode & 0o777 == 0o600

    play(story)


def test_no_challenge_or_response_is_in_the_file_unless_asked_for(
    pki: LabPki, served: Issued, tmp_path: Path
) -> None:
    values: dict[bool, list[str]] = {}

    async def story(secrets: bool) -> None:
        lab = Lab("offload", pki, served)
        allow(lab.stage, tmp_path, listener="vpn", secrets=secrets)
        async with lab.running():
            assert (await lab.call()).ok
            await lab.stage.ended()
            made = the_only(lab.stage)
            made.stop("enough")
        rows = tshark(made.path, "chap.value", "chap.message", "chap.name")
        values[secrets] = [value for value, _, _ in rows if value]
        assert [name for _, _, name in rows if name], "names stay"
        messages = "".join(message for _, message, _ in rows)
        assert ("S=" + "0" * 40 in messages) is not secrets

    for secrets in (False, True):
        play(lambda secrets=secrets: story(secrets))  # type: ignore[misc]  # bound at once
    assert len(values[False]) == len(values[True]) == 2, "a challenge and a response"
    assert {character for value in values[False] for character in value} == {"0"}
    assert all(len(set(value)) > 4 for value in values[True])


@pytest.mark.parametrize("follow", ["full", "opening", "off"])
def test_a_call_that_runs_is_joined_at_a_packet(
    follow: str, pki: LabPki, served: Issued, tmp_path: Path
) -> None:
    async def story() -> None:
        stage = Stage("offload", pki.root_path, served)
        stage.listener["follow"] = follow
        allow(stage, tmp_path)
        async with staged(stage):
            client = await stage.client()
            await client.open()
            payload = packets(30 * 1404)
            assert await client.echo(payload + payload[:700])
            made = stage.carrier.recorder.start(CaptureChoice(call=1), stage.carrier.calls)
            assert await client.echo(payload[700:1404] + payload)
            await client.close()
            await stage.ended()
            assert made.ended_because == "its call has ended"
        ((calls, frames),) = counted(tmp_path)
        assert calls == 1
        # From where nobody counted, one packet more may pass until the next is found.
        assert frames in ((60,) if follow == "full" else (58, 59, 60))
        assert payload[4:1404] in made.path.read_bytes()

    play(story)


def test_a_call_that_says_goodbye_is_not_joined_any_more(
    pki: LabPki, served: Issued, tmp_path: Path
) -> None:
    """Its packets do not pass the relay; and a reload may be what begins the capture."""

    async def story() -> None:
        stage = Stage("offload", pki.root_path, served)
        allow(stage, tmp_path)
        async with staged(stage):
            client = await stage.client()
            await client.open()
            assert await client.echo(packets(1404))
            (call,) = stage.carrier.calls
            call.end(KilledError("enough"), politely=True)
            recorder = stage.carrier.recorder
            made = recorder.start(CaptureChoice(listener="vpn"), stage.carrier.calls)
            assert made.calls == 0
            with pytest.raises(CaptureError, match="call 1 has no packets that can be seen"):
                recorder.start(CaptureChoice(call=1), stage.carrier.calls)
            await client.close()
            await stage.ended()

    play(story)


def test_only_chosen_calls_are_recorded(pki: LabPki, served: Issued, tmp_path: Path) -> None:
    async def story() -> None:
        stage = Stage("offload", pki.root_path, served)
        allow(stage, tmp_path, client="127.0.0.9")
        async with staged(stage):
            chosen, other = await stage.client("127.0.0.9"), await stage.client("127.0.0.8")
            for client in (chosen, other):
                await client.open()
                assert await client.echo(packets(5 * 1404))
            made = the_only(stage)
            assert (made.calls, made.frames) == (1, 10)
            running = {call.client_address[0]: call for call in stage.carrier.calls}
            tapped = {
                host: any(pump._untapped for pump in call.relay.pumps)
                for host, call in running.items()
                if call.relay is not None
            }
            assert tapped == {"127.0.0.9": True, "127.0.0.8": False}
            made.stop("enough")
            assert await chosen.echo(packets(5 * 1404)), "its call goes on"
            assert made.frames == 10

    play(story)


def test_a_capture_ends_at_its_limits(pki: LabPki, served: Issued, tmp_path: Path) -> None:
    async def story() -> None:
        stage = Stage("reencrypt", pki.root_path, served)
        allow(stage, tmp_path, bytes_max="64KiB", calls_max=1, files_max=2)
        async with staged(stage):
            clients = [await stage.client() for _ in range(2)]
            for client in clients:
                await client.open()
            start = partial(stage.carrier.recorder.start, running=stage.carrier.calls)
            full = start(CaptureChoice(listener="vpn"))
            assert (full.calls, full.calls_left_out) == (1, 1), "calls_max"
            for client in clients:  # which of them is recorded is not said
                assert await client.echo(packets(200_000))
            assert full.ended_because == "its 64KiB are full"
            assert 60_000 < full.path.stat().st_size <= 65_536
            short = start(CaptureChoice(client=ip_network("127.0.0.0/8")), seconds_max=0.05)
            await asyncio.sleep(0.1)
            assert short.ended_because == "its 0.05 s are over"
            with pytest.raises(CaptureError, match="call 77 has no packets"):
                start(CaptureChoice(call=77))
            with pytest.raises(CaptureError, match="files_max"):
                start(CaptureChoice(listener="vpn"))
            assert not stage.carrier.recorder.captures

    play(story)


def test_a_full_disk_ends_the_capture_and_not_the_call(
    pki: LabPki, served: Issued, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, room = os.write, [70_000]

    def write(descriptor: int, data: bytes) -> int:
        if not room[0]:
            raise OSError(28, "No space left on device")
        written = real(descriptor, data[: room[0]])
        room[0] -= written
        return written

    async def story() -> None:
        stage = Stage("offload", pki.root_path, served)
        allow(stage, tmp_path, listener="vpn")
        async with staged(stage):
            client = await stage.client()
            await client.open()
            made = the_only(stage)
            monkeypatch.setattr(os, "write", write)
            assert await client.echo(packets(1_000_000))
            assert "No space left on device" in made.ended_because
            assert await client.echo(packets(1_000_000))
            monkeypatch.undo()
        (found,) = files_in(tmp_path)
        assert found.bytes == made.bytes, "nothing behind the last whole block"
        ((_, frames),) = counted(tmp_path)
        assert frames

    play(story)


def test_a_reload_begins_and_ends_captures(pki: LabPki, served: Issued, tmp_path: Path) -> None:
    async def story() -> None:
        stage = Stage("offload", pki.root_path, served)
        async with staged(stage):
            client = await stage.client()
            await client.open()
            with pytest.raises(CaptureError, match="not allowed"):
                stage.carrier.recorder.start(CaptureChoice(listener="vpn"), stage.carrier.calls)
            allow(stage, tmp_path, listener="vpn")
            await stage.reload()
            made = the_only(stage)
            assert made.calls == 1, "the call that runs is in it"
            await stage.reload()
            assert the_only(stage) is made, "a reload that changes nothing here keeps it"
            made.stop("enough")
            await stage.reload()
            assert not stage.carrier.recorder.captures, "and does not begin it again"
            allow(stage, tmp_path, listener="vpn", bytes_max="1MiB")
            await stage.reload()
            again = the_only(stage)
            stage.capture = {}
            await stage.reload()
            assert again.ended_because == "the configuration does not allow it any more"

    play(story)


def test_a_capture_lives_under_the_settings_it_began_with(
    pki: LabPki, served: Issued, tmp_path: Path
) -> None:
    async def story() -> None:
        stage = Stage("offload", pki.root_path, served)
        allow(stage, tmp_path, secrets=True)
        async with staged(stage):
            made = stage.carrier.recorder.start(CaptureChoice(listener="vpn"))
            allow(stage, tmp_path, secrets=False)
            await stage.reload()
            assert made.ended_because == "the configuration has changed"

    play(story)


def test_a_call_is_in_one_capture_at_a_time(pki: LabPki, served: Issued, tmp_path: Path) -> None:
    async def story() -> None:
        stage = Stage("offload", pki.root_path, served)
        allow(stage, tmp_path, calls_max=1)
        async with staged(stage):
            for _ in range(2):
                client = await stage.client()
                await client.open()
                assert await client.echo(packets(1404))
            recorder, running = stage.carrier.recorder, stage.carrier.calls
            made = recorder.start(CaptureChoice(call=1), running)
            with pytest.raises(CaptureError, match=f"being recorded already, by {made.name}"):
                recorder.start(CaptureChoice(call=1), running)
            with pytest.raises(CaptureError, match=r"\(capture.calls_max\)"):
                recorder.start(CaptureChoice(call=2), running)
            assert len(files_in(tmp_path)) == 1, "who is refused leaves no file"

    play(story)


def test_a_file_of_somebody_else_is_listed_as_such(tmp_path: Path) -> None:
    (tmp_path / "sstplb-1.pcapng").write_bytes(b"no capture at all")
    (tmp_path / "sstplb-2.pcapng").write_bytes(b"")
    (tmp_path / "other.pcapng").write_bytes(b"")
    found = files_in(tmp_path)
    assert [(file.name, file.about, file.bytes) for file in found] == [
        ("sstplb-1.pcapng", "no capture of ours", 17), ("sstplb-2.pcapng", "", 0),
    ]  # fmt: skip
    (tmp_path / "sstplb-3.pcapng").mkdir()
    with pytest.raises(CaptureError, match="cannot look into"):
        files_in(tmp_path)

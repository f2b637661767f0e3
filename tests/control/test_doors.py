"""Who may come in, and by which door."""

import asyncio
import os
import socket
import ssl
import stat
from pathlib import Path
from typing import Any

import httpx
import pytest

from sstplb.config.loader import parse
from sstplb.config.warnings import warnings
from sstplb.control.admin.access import load_access
from sstplb.errors import ConfigError
from sstplb.lab.pki import Issued, LabPki
from tests.characters import play, staged
from tests.config.samples import GOOD, hints, mistakes
from tests.desk import TOKEN, OperatedStage, address_of, token_file


async def status(url: str, **headers: str) -> int:
    async with httpx.AsyncClient(timeout=5) as ask:
        return (await ask.get(url, headers=headers)).status_code


def test_without_a_door_there_is_none(tmp_path: Path, pki: LabPki, served: Issued) -> None:
    async def story() -> None:
        stage = OperatedStage(tmp_path, "offload", pki.root_path, served)
        stage.admin = {}
        async with staged(stage):
            assert stage.doors is not None
            assert stage.doors.doors == {}

    play(story)


def test_the_socket_is_ours_alone_and_goes_with_us(
    tmp_path: Path, pki: LabPki, served: Issued
) -> None:
    async def story() -> None:
        before = os.umask(0)
        try:
            async with staged(OperatedStage(tmp_path, "offload", pki.root_path, served)) as stage:
                assert stat.S_IMODE(stage.socket.stat().st_mode) == 0o600
            assert not stage.socket.exists()
        finally:
            os.umask(before)

    play(story)


def test_the_socket_of_a_dead_process_is_replaced(
    tmp_path: Path, pki: LabPki, served: Issued
) -> None:
    async def story() -> None:
        stage = OperatedStage(tmp_path, "offload", pki.root_path, served)
        with socket.socket(socket.AF_UNIX) as dead:
            dead.bind(str(stage.socket))
        async with staged(stage), stage.asking() as ask:
            assert (await ask.get("/version")).status_code == 200

    play(story)


@pytest.mark.parametrize("kind", ["alive", "a file"])
def test_what_is_not_ours_is_left_alone(
    kind: str, tmp_path: Path, pki: LabPki, served: Issued
) -> None:
    async def story() -> None:
        stage = OperatedStage(tmp_path, "offload", pki.root_path, served)
        with socket.socket(socket.AF_UNIX) as other:
            if kind == "alive":
                other.bind(str(stage.socket))
                other.listen()
            else:
                stage.socket.write_text("mine")
            words = "running already" if kind == "alive" else "another kind"
            with pytest.raises(ConfigError, match=rf"admin\.socket: cannot listen.*{words}"):
                async with staged(stage):
                    pass
            assert stage.socket.exists()

    play(story)


def test_tcp_wants_the_token_for_all_but_the_page(
    tmp_path: Path, pki: LabPki, served: Issued
) -> None:
    async def story() -> None:
        stage = OperatedStage(tmp_path, "offload", pki.root_path, served)
        stage.admin = {"address": "127.0.0.1:0", "token_file": str(token_file(tmp_path))}
        stage.admin["address"] = "127.0.0.1:0"
        async with staged(stage):
            url = f"http://{address_of(stage)}"
            assert await status(f"{url}/api/v1/overview") == 401
            assert await status(f"{url}/api/v1/nothing") == 401, "not even what there is"
            for wrong in (f"Bearer {TOKEN}x", "Bearer", f"Basic {TOKEN}", TOKEN):
                assert await status(f"{url}/api/v1/overview", Authorization=wrong) == 401
            assert await status(f"{url}/api/v1/overview", Authorization=f"Bearer {TOKEN}") == 200
            assert await status(f"{url}/docs") == 200
            fresh = "fedcba9876543210fedcba9876543210"
            token_file(tmp_path, fresh)
            await stage.operator.configuration.reload()
            assert await status(f"{url}/api/v1/version", Authorization=f"Bearer {TOKEN}") == 401
            assert await status(f"{url}/api/v1/version", Authorization=f"Bearer {fresh}") == 200

    play(story)


def test_without_a_token_only_addresses_and_localhost_name_us(
    tmp_path: Path, pki: LabPki, served: Issued
) -> None:
    """A web site whose name resolves to loopback must not reach in (DNS rebinding)."""

    async def story() -> None:
        stage = OperatedStage(tmp_path, "offload", pki.root_path, served)
        stage.admin = {"address": "127.0.0.1:0"}
        async with staged(stage):
            url = f"http://{address_of(stage)}/api/v1/version"
            assert await status(url) == 200
            assert await status(url, Host="localhost:99") == 200
            assert await status(url, Host="[::1]:99") == 200
            assert await status(url, Host="evil.example.test") == 403
            said = stage.file.with_suffix(".log").read_text()
            assert "admin_without_token" in said

    play(story)


def test_tls_shows_the_certificate_for_the_name_and_renews_it(
    tmp_path: Path, pki: LabPki, served: Issued, rsa: Issued, other: Issued
) -> None:
    async def story() -> None:
        stage = OperatedStage(tmp_path, "offload", pki.root_path, served)
        stage.admin = {
            "address": "127.0.0.1:0",
            "certificates": [
                {"chain": str(issued.chain), "key": str(issued.key)} for issued in (served, rsa)
            ],
        }

        def shown(name: str) -> bytes:
            context = ssl.create_default_context(cafile=str(pki.root_path))
            host, _, port = address_of(stage).rpartition(":")
            with (
                socket.create_connection((host, int(port)), timeout=5) as plain,
                context.wrap_socket(plain, server_hostname=name) as secure,
            ):
                der = secure.getpeercert(binary_form=True)
                assert der is not None
                return der

        async def seen(name: str) -> bytes:
            return await asyncio.to_thread(shown, name)

        async with staged(stage):
            assert await seen("vpn.example.test") == served.certificate.leaf_der
            assert await seen("rsa.example.test") == rsa.certificate.leaf_der
            first: dict[str, Any] = {"chain": str(other.chain), "key": str(other.key)}
            stage.admin["certificates"][0] = first
            stage.write()
            await stage.operator.configuration.reload()
            assert await seen("vpn.example.test") == other.certificate.leaf_der

    play(story)


def test_a_reload_opens_and_shuts_doors(tmp_path: Path, pki: LabPki, served: Issued) -> None:
    async def story() -> None:
        stage = OperatedStage(tmp_path, "offload", pki.root_path, served)
        async with staged(stage):
            second = tmp_path / "second.sock"
            first, stage.admin = stage.admin, {"socket": str(second)}
            stage.write()
            async with stage.asking() as ask:
                answer = await ask.post("/config/reload")
                assert answer.status_code == 200, "asked by the door that is shut by it"
            assert second.exists()
            assert not stage.socket.exists()
            stage.admin = {**first, "address": "127.0.1.1:" + str(stage.backends[0].port)}
            stage.write()
            with pytest.raises(ConfigError, match=r"admin\.address: cannot listen"):
                await stage.operator.configuration.reload()
            assert second.exists(), "a reload that fails changes no door"
            assert not stage.socket.exists()

    play(story)


@pytest.mark.parametrize(
    ("admin", "said"),
    [
        ("address: '0.0.0.0:8444'", "is open to the network: set admin.token_file"),
        ("address: 'host.example.test:8444'", "expected an IP address to listen on"),
        ("address: 127.0.0.1", "expected a port as well"),
        ("token_file: t", "is for admin.address, which is not set"),
        (f"socket: /{'x' * 120}", "at most 107 bytes"),
    ],
)
def test_doors_that_cannot_be_are_mistakes(admin: str, said: str) -> None:
    assert any(said in text for text in mistakes(GOOD + f"admin: {{{admin}}}"))


def test_open_doors_are_warned_of() -> None:
    loopback = hints(GOOD + "admin: {address: '127.0.0.1:8444'}")
    assert any("everybody who can log in on this machine" in text for text in loopback)
    clear = hints(GOOD + "admin: {address: '0.0.0.0:8444', token_file: t}")
    assert any("in the clear" in text for text in clear)
    quiet = parse(GOOD + "admin: {socket: s}")
    assert not any("admin" in problem.path for problem in warnings(quiet))


@pytest.mark.parametrize("text", ["short\n", "", "ü" * 20])
def test_a_token_that_is_none_is_refused(text: str, tmp_path: Path) -> None:
    path = token_file(tmp_path, text)
    admin = parse(GOOD + f"admin: {{address: '127.0.0.1:1', token_file: {path}}}").admin
    problems: list[Any] = []
    load_access(admin, problems, [])
    assert "16 ASCII characters" in problems[0].message
    path.unlink()
    problems.clear()
    load_access(admin, problems, [])
    assert problems[0].path == "admin.token_file"


def test_a_token_never_shows(tmp_path: Path) -> None:
    admin = parse(GOOD + f"admin: {{address: '127.0.0.1:1', token_file: {token_file(tmp_path)}}}")
    access = load_access(admin.admin, [], [])
    assert TOKEN not in repr(access)
    assert TOKEN not in str(admin)

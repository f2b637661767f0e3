"""How a running balancer is found, and what is said when it is not, or does not let us in."""

import asyncio
import os
import socket
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from sstplb.lab.pki import Issued, LabPki
from tests.characters import free_port, play, staged
from tests.control.ctl.test_commands import TypedStage, ctl, typed
from tests.desk import TOKEN, OperatedStage, address_of, token_file


@pytest.fixture
def stage(tmp_path: Path, pki: LabPki, served: Issued) -> OperatedStage:
    return TypedStage(tmp_path, "offload", pki.root_path, served)


def test_the_socket_is_found_from_the_configuration(
    stage: OperatedStage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story() -> None:
        stage.admin = {"socket": "admin.sock"}
        async with staged(stage):
            assert (await asyncio.to_thread(typed, "version", "--conf", stage.file)).code == 0
            monkeypatch.setenv("SSTPLB_CONF", str(stage.file))
            assert (await asyncio.to_thread(typed, "version")).code == 0
            monkeypatch.delenv("SSTPLB_CONF")
            monkeypatch.chdir(tmp_path)
            assert (await asyncio.to_thread(typed, "version")).code == 0
            # Who is mending a typo elsewhere in the file still gets there, to read what is wrong.
            text = stage.file.read_text()
            stage.file.write_text(text.replace('"offload"', '"ofload"'))
            said = await asyncio.to_thread(typed, "reload")
            assert said.code == 3
            assert "ofload" in said.err

    play(story)


def test_options_may_stand_before_and_behind_the_command(stage: OperatedStage) -> None:
    async def story() -> None:
        async with staged(stage):
            for words in (
                ("--json", "--socket", stage.socket, "listeners"),
                ("listeners", f"--socket={stage.socket}", "--json"),
                ("listeners", "enable", "vpn", "--json", "--socket", stage.socket),
            ):
                said = await asyncio.to_thread(typed, *words)
                assert said.code == 0
                assert said.json

    play(story)


@pytest.mark.parametrize("secured", [False, True])
def test_over_tcp_the_file_s_token_and_certificate_are_used(
    secured: bool, stage: OperatedStage, tmp_path: Path, served: Issued, pki: LabPki
) -> None:
    async def story() -> None:
        port = free_port()
        stage.admin = {"address": f"127.0.0.1:{port}", "token_file": str(token_file(tmp_path))}
        if secured:
            files = {"chain": str(served.chain), "key": str(served.key)}
            stage.admin["certificates"] = [files]
        async with staged(stage):
            conf = await asyncio.to_thread(typed, "version", "--conf", stage.file)
            assert conf.code == 0, conf.err
            scheme = "https" if secured else "http"
            named = ("version", "--url", f"{scheme}://{address_of(stage)}/")
            ca = ("--ca", pki.root_path) if secured else ()
            said = await asyncio.to_thread(typed, *named, *ca, "--token-file", tmp_path / "token")
            assert said.code == 0, said.err
            said = await asyncio.to_thread(typed, *named, *ca)
            assert said.code == 6
            assert "it wants a token" in said.err
            token_file(tmp_path, TOKEN[::-1])
            said = await asyncio.to_thread(typed, "version", "--conf", stage.file, "--json")
            assert said.code == 6
            assert said.json["error"]["code"] == "unauthorized"
            assert "the token is not the balancer's" in said.err
            assert TOKEN[::-1] not in said.err + said.out
            if secured:
                said = await asyncio.to_thread(typed, *named)
                assert said.code == 5
                assert "its issuer is not among the trusted CAs (--ca)" in said.err

    play(story)


def test_who_shows_another_certificate_than_the_file_s_is_not_spoken_to(
    stage: OperatedStage, tmp_path: Path, served: Issued, other: Issued
) -> None:
    async def story() -> None:
        files = {"chain": str(served.chain), "key": str(served.key)}
        token = str(token_file(tmp_path))
        stage.admin = {"address": "127.0.0.1:0", "certificates": [files], "token_file": token}
        async with staged(stage):
            conf = tmp_path / "mine.yaml"
            conf.write_text(
                f"admin: {{address: '{address_of(stage)}', token_file: {token}, "
                f"certificates: [{{chain: {other.chain}, key: {other.key}}}]}}"
            )
            said = await asyncio.to_thread(typed, "version", "--conf", conf)
            assert said.code == 5
            assert "the server's certificate is not accepted" in said.err

    play(story)


def test_a_socket_nobody_answers_at_is_explained(tmp_path: Path) -> None:
    nothing = tmp_path / "nothing.sock"
    said = typed("status", "--socket", nothing, "--json")
    assert said.code == 5
    assert said.json["error"]["code"] == "unreachable"
    assert f"{nothing}: there is no such socket: is sstplb running" in said.err
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(nothing))
    said = typed("status", "--socket", nothing)
    assert said.code == 5
    assert "the sstplb that made this socket is gone" in said.err
    conf = tmp_path / "a.yaml"
    conf.write_text("admin: {socket: nothing.sock}")
    assert f"{nothing} (in {conf}): nobody answers" in typed("status", "--conf", conf).err
    (tmp_path / "file").write_text("")
    assert "is not a socket" in typed("status", "--socket", tmp_path / "file").err


def test_a_configuration_without_an_answer_is_explained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SSTPLB_CONF", raising=False)
    monkeypatch.setattr("sstplb.control.ctl.door.PLACES", (Path("sstplb.yaml"),))
    said = typed("status")
    assert said.code == 5
    assert "which balancer? There is no sstplb.yaml" in said.err
    conf = tmp_path / "sstplb.yaml"
    for text, code, words in (
        ("", 5, "opens no admin side: set admin.socket"),
        ("admin: [", 3, "not YAML"),
        ("admin: {sokcet: a}", 3, "sstplb.yaml:1: admin: cannot be understood"),
        ("admin: {address: '127.0.0.1:9', token_file: none}", 6, "token cannot be read"),
    ):
        conf.write_text(text)
        said = typed("status")
        assert (said.code, words in said.err) == (code, True), said.err
    assert typed("status", "--conf", tmp_path / "none.yaml").code == 3
    assert "expected a URL" in typed("status", "--url", "lb:8444").err


def test_somebody_else_s_web_server_is_no_balancer(stage: OperatedStage) -> None:
    async def story() -> None:
        async with staged(stage):
            server = await asyncio.start_server(web_server, "127.0.0.1", 0)
            port = server.sockets[0].getsockname()[1]
            said = await asyncio.to_thread(typed, "status", "--url", f"http://127.0.0.1:{port}")
            assert said.code == 5
            assert "not from the API of sstplb" in said.err
            server.close()
            await server.wait_closed()

    async def web_server(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello")
        await writer.drain()
        writer.close()

    play(story)


def test_over_tcp_what_is_in_the_way_is_said_in_our_words() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]

        def babble() -> None:
            for _ in range(2):
                caller, _ = server.accept()
                with caller:
                    caller.recv(4096)
                    caller.sendall(b"SSH-2.0-OpenSSH_9.2\r\n")

        with ThreadPoolExecutor() as pool:
            talking = pool.submit(babble)
            over_tls = typed("status", "--url", f"https://127.0.0.1:{port}")
            plain = typed("status", "--url", f"http://127.0.0.1:{port}")
            talking.result(10)
    refused = typed("status", "--url", f"http://127.0.0.1:{port}")
    for said, words in (
        (over_tls, "what came is not TLS: does the other side speak plain HTTP"),
        (plain, "what came is not HTTP"),
        (refused, "nobody answers: is sstplb running"),
    ):
        assert (said.code, words in said.err) == (5, True), said.err


def test_without_permission_it_says_who_may(tmp_path: Path) -> None:
    path = tmp_path / "admin.sock"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen()
        path.chmod(0)
        was_root = os.geteuid() == 0
        if was_root:
            os.seteuid(65534)
        try:
            said = typed("status", "--socket", path)
        finally:
            if was_root:
                os.seteuid(0)
    assert said.code == 6
    assert f"{path}: permission denied for" in said.err
    assert "root" in said.err


def test_a_balancer_that_says_nothing_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sstplb.control.ctl.api.LOOK_MAX_S", 0.2)
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(str(tmp_path / "s"))
        silent.listen()
        said = typed("status", "--socket", tmp_path / "s")
    assert said.code == 5
    assert "no answer in time" in said.err


def test_a_busy_balancer_s_words_are_passed_on(stage: OperatedStage) -> None:
    async def story() -> None:
        stage.admin["streams_max"] = 1
        async with staged(stage), stage.asking() as ask:
            async with ask.stream("GET", "/events/stream") as answer:
                assert answer.status_code == httpx.codes.OK
                said = await ctl(stage, "events", "--follow")
        assert said.code == 1
        assert "admin.streams_max" in said.err

    play(story)

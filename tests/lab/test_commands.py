"""``sstplb probe`` and ``sstplb call``, as typed, against a simulated RRAS."""

import asyncio
import re
import socket
import threading
from collections.abc import Iterator
from dataclasses import replace

import pytest
from typer.testing import CliRunner, Result

from sstplb.balance.health import Verdict
from sstplb.cli import app
from sstplb.config.schema import PoolTls
from sstplb.lab import commands
from sstplb.lab.caller import CallPlan, place_call
from sstplb.lab.pki import Issued, LabPki
from sstplb.lab.rras import Rras, RrasSettings
from sstplb.net.probe import Probed
from sstplb.tls.policy import ClientPolicy
from tests.characters import SERVER_NAME

LOGIN = ("--user", "user", "--password-env", "SSTPLB_TEST_LOGIN")
REFUSED = "RRAS expects another certificate"


@pytest.fixture(scope="module")
def server(served: Issued) -> Iterator[str]:
    """A server that shows ``served``, in a thread of its own: a command has its own event loop."""
    rras = Rras(RrasSettings(https=("127.0.4.9", 0), certificate=served.files))
    is_up = threading.Event()
    loop = asyncio.new_event_loop()
    over = asyncio.Event()

    async def serve() -> None:
        await rras.start()
        is_up.set()
        await over.wait()
        await rras.stop()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
    thread.start()
    assert is_up.wait(10)
    assert rras.https is not None
    yield f"127.0.4.9:{rras.https[1]}"
    loop.call_soon_threadsafe(over.set)
    thread.join(10)
    loop.close()


def sstplb(*arguments: object) -> Result:
    environment = {"SSTPLB_TEST_LOGIN": "password", "COLUMNS": "200"}
    return CliRunner().invoke(app, [str(a) for a in arguments], env=environment)


def test_a_login_probe_binds_to_the_certificate_it_is_given(
    server: str, pki: LabPki, served: Issued, other: Issued
) -> None:
    way = (server, "--ca", pki.root_path, "--server-name", SERVER_NAME)
    for cert, is_well in ((None, True), (served.chain, True), (other.chain, False)):
        binds = () if cert is None else ("--cert", cert)
        done = sstplb("probe", *way, "--method", "login", *LOGIN, *binds)
        assert (done.exit_code == 0) == is_well, done.output
        assert (REFUSED in done.output) != is_well
        assert (sstplb("call", *way, *LOGIN, *binds).exit_code == 0) == is_well


@pytest.mark.parametrize("given", [(), LOGIN[:2], LOGIN[2:]])
def test_a_login_needs_an_account(given: tuple[str, ...]) -> None:
    done = sstplb("probe", "127.0.4.9:9", "--method", "login", *given)
    assert done.exit_code == 2
    said = " ".join(re.sub(r"[│\n]", " ", done.output).split())
    assert "--method login needs an account: --user, and --password-file or" in said


@pytest.mark.parametrize(
    ("trust", "advice", "reason"),
    [
        (False, "among the trusted CAs (--ca)", "failed: certificate_untrusted"),
        (True, "give one that it holds with --server-name", "failed: certificate_name_mismatch"),
    ],
)
def test_advice_is_in_the_words_of_the_command_line(
    trust: bool, advice: str, reason: str, server: str, pki: LabPki
) -> None:
    way = (server, "--server-name", "elsewhere.test", *(("--ca", pki.root_path) if trust else ()))
    for done in (sstplb("probe", *way), sstplb("call", *way), sstplb("probe", *way, "--json")):
        assert done.exit_code == 1
        assert advice in done.output
        assert "tls." not in done.output
    assert reason in sstplb("call", *way).output


def test_silence_where_tls_was_spoken_may_be_plain_http(monkeypatch: pytest.MonkeyPatch) -> None:
    async def silent(*_way: object, **_more: object) -> Probed:
        return Probed(Verdict(False, reason="no answer within 4 s"))

    monkeypatch.setattr(commands, "probe_once", silent)
    assert "give --plain" in sstplb("probe", "127.0.4.9:9").output
    assert "--plain" not in sstplb("probe", "127.0.4.9:9", "--plain").output
    assert "--plain" not in sstplb("probe", "127.0.4.9:9", "--method", "tcp").output


def test_a_call_that_nobody_answers_asks_whether_it_is_plain_http(pki: LabPki) -> None:
    silent = socket.create_server(("127.0.4.9", 0))
    policy = ClientPolicy(PoolTls(ca_file=pki.root_path))
    with silent:
        plan = CallPlan(silent.getsockname(), "x", "user", "password", policy, timeout_s=0.1)
        failed = asyncio.run(place_call(plan)).failure
        assert failed is not None
        assert "(--plain)" in failed.sentence
        failed = asyncio.run(place_call(replace(plan, policy=None))).failure
        assert failed is not None
        assert "--plain" not in failed.sentence


def test_a_call_says_what_was_asked_and_times_the_handshake(server: str, pki: LabPki) -> None:
    way = (server, "--ca", pki.root_path, "--server-name", SERVER_NAME)
    for size in (1, 1300, 1301, 100_001):
        done = sstplb("call", *way, "--data", f"{size}B")
        assert f"  {size} bytes came back the same\n" in done.output, done.output
    first = next(line for line in done.output.splitlines() if " ms " in line)
    assert float(first.split()[1]) > 0, first

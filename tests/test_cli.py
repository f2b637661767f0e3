"""The command as a user types it: what it says, and its exit code."""

import asyncio
import contextlib
import io
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import pytest
import typer
from rich.console import Console
from typer.testing import CliRunner

from sstplb.cli import app
from sstplb.errors import ConfigError
from sstplb.lab import demo
from sstplb.lab.pki import Issued, LabPki
from sstplb.tls.openssl import libraries
from tests.characters import FakeBackend

ROOT = Path(__file__).parents[1]


def sstplb(*arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "sstplb", *map(str, arguments)],
        cwd=ROOT,
        env={**os.environ, "COLUMNS": "200", **environment},
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )


def document(served: Issued, **more: Any) -> dict[str, Any]:
    return {
        "listeners": [
            {
                "name": "vpn", "address": "127.0.0.1:0", "mode": "offload", "pool": "rras",
                "certificates": [{"chain": str(served.chain), "key": str(served.key)}],
            }
        ],
        "pools": {"rras": {"backends": [{"name": "rras1", "address": "127.0.1.99:9"}]}},
        **more,
    }  # fmt: skip


def write(path: Path, what: dict[str, Any]) -> Path:
    path.write_text(json.dumps(what))
    return path


def test_help_names_every_command() -> None:
    said = sstplb("--help").stdout
    commands = "run check fingerprint probe call rras certs schema version demo"
    assert all(name in said for name in commands.split())
    assert sstplb("version").stdout == sstplb("--version").stdout == "0.1.0\n"


def test_check_prints_the_effective_configuration_and_warns(tmp_path: Path, served: Issued) -> None:
    done = sstplb("check", write(tmp_path / "a.yaml", document(served)))
    assert done.returncode == 0, done.stderr
    assert "idle_timeout: 11m" in done.stdout
    assert "nobody says which certificate" in done.stderr
    assert served.certificate.sha256.hex() in done.stderr
    assert f"TLS engine: native ({libraries()[0].title})" in done.stderr
    assert sstplb("check", "--strict", "--quiet", tmp_path / "a.yaml").returncode == 1


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"listeners": []}, "at least one"),
        ({"limits": {"idle": 1}}, "did you mean idle_timeout?"),
        ({"log": {"level": "loud"}}, "log.level: expected"),
    ],
)
def test_a_wrong_configuration_is_exit_code_3(
    change: dict[str, Any], words: str, tmp_path: Path, served: Issued
) -> None:
    conf = write(tmp_path / "a.yaml", document(served, **change))
    for command in ("check", "run"):
        done = sstplb(command, conf)
        assert done.returncode == 3
        assert words in done.stderr
        assert "Traceback" not in done.stderr


def test_a_key_that_does_not_match_is_found_by_check(
    tmp_path: Path, served: Issued, other: Issued
) -> None:
    wrong = document(served)
    wrong["listeners"][0]["certificates"][0]["key"] = str(other.key)
    done = sstplb("check", write(tmp_path / "a.yaml", wrong))
    assert done.returncode == 3
    assert "does not belong" in done.stderr


def test_check_compares_declared_hashes_with_what_clients_are_shown(
    tmp_path: Path, served: Issued, other: Issued
) -> None:
    config = document(served)
    told = config["pools"]["rras"]["backends"][0]
    told["rras_certificate_sha256"] = other.certificate.sha256.hex()
    done = sstplb("check", "--quiet", write(tmp_path / "a.yaml", config))
    assert done.returncode == 0
    assert f"rras1 expects the certificate with SHA-256 {told['rras_certificate_sha256']}" in (
        done.stderr
    )
    told["rras_certificate_sha256"] = served.certificate.sha256.hex().upper()
    assert "0 warnings" in sstplb("check", write(tmp_path / "a.yaml", config)).stderr


def test_fingerprint_shows_the_command_for_rras(served: Issued) -> None:
    done = sstplb("fingerprint", served.chain)
    hashed = served.certificate.sha256.hex().upper()
    assert f"Enable-SSTPOffload -CertificateHash {hashed} -Restart" in done.stdout
    facts = json.loads(sstplb("fingerprint", served.chain, "--json").stdout)
    assert facts["sha1"] == served.certificate.sha1.hex().upper()


def test_certs_are_made_and_renewed(tmp_path: Path) -> None:
    made = sstplb("certs", "create", tmp_path / "c", "--for", "a.test", "--key", "p-256")
    assert made.returncode == 0, made.stderr
    first = (tmp_path / "c" / "vpn.pem").read_bytes()
    assert sstplb("certs", "renew", tmp_path / "c").returncode == 0
    assert (tmp_path / "c" / "vpn.pem").read_bytes() != first
    assert "a.test" in sstplb("certs", "list", tmp_path / "c").stdout


def _contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("there", ["vpn.key", "vpn.pem"])
def test_a_real_pair_is_never_replaced_unasked(tmp_path: Path, served: Issued, there: str) -> None:
    (tmp_path / there).write_bytes(served.key.read_bytes())
    before = _contents(tmp_path)
    refused = sstplb("certs", "create", tmp_path, "--for", "a.test")
    assert refused.returncode == 2
    assert all(word in refused.stderr for word in (there, "certs renew", "--force"))
    assert _contents(tmp_path) == before, "not even a root is made"
    forced = sstplb("certs", "create", tmp_path, "--for", "a.test", "--force")
    assert forced.returncode == 0, forced.stderr
    assert _contents(tmp_path)[there] != before[there]


@pytest.mark.parametrize("is_lab", [False, True])
def test_what_another_ca_issued_is_not_renewed_by_the_lab(
    tmp_path: Path, served: Issued, is_lab: bool
) -> None:
    if is_lab:
        assert sstplb("certs", "create", tmp_path, "--name", "other").returncode == 0
    (tmp_path / "vpn.pem").write_bytes(served.chain.read_bytes())
    (tmp_path / "vpn.key").write_bytes(served.key.read_bytes())
    before = _contents(tmp_path)
    refused = sstplb("certs", "renew", tmp_path)
    assert refused.returncode == 3
    assert "is not from the lab root" in refused.stderr
    assert _contents(tmp_path) == before


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("create", "new", "--days", "9999999"), 2, "3650"),
        (("create", "new", "--for", "bad name!"), 2, "expected a DNS name"),
        (("create", "new", "--for", "*"), 2, "expected a DNS name"),
        (("list", "new"), 2, "there is no directory new"),
    ],
)
def test_certs_that_make_no_sense_leave_nothing_behind(
    tmp_path: Path, arguments: tuple[str, ...], code: int, words: str
) -> None:
    first, folder, *rest = arguments
    done = sstplb("certs", first, tmp_path / folder, *rest)
    assert done.returncode == code
    assert words.replace("new", str(tmp_path / "new")) in " ".join(done.stderr.split())
    assert not list(tmp_path.iterdir())


def test_a_simulated_server_that_cannot_begin_says_why(served: Issued, other: Issued) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        done = sstplb("rras", "--http", address)
    assert done.returncode == 1
    assert f"cannot listen on {address}: address already in use (ss -ltnp" in done.stderr
    done = sstplb("rras", "--https", "127.0.0.1:0", "--cert", served.chain, "--key", other.key)
    assert done.returncode == 3
    assert f"{other.key}: this key does not belong to" in done.stderr


def test_a_certificate_without_a_name_is_served_under_its_subject(
    tmp_path: Path, pki: LabPki
) -> None:
    config = document(Issued(pki.root_path, pki.root_path.with_suffix(".key")))
    said = sstplb("check", "--quiet", write(tmp_path / "a.yaml", config)).stderr
    assert "vpn: serves no name, CN=sstplb lab root (" in said


def test_a_root_key_without_its_certificate_is_not_replaced(tmp_path: Path, served: Issued) -> None:
    (tmp_path / "root.key").write_bytes(served.key.read_bytes())
    done = sstplb("certs", "create", tmp_path)
    assert done.returncode == 3
    assert "root.pem is missing" in done.stderr
    assert (tmp_path / "root.key").read_bytes() == served.key.read_bytes()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("probe", "127.0.0.1:bad"), "Invalid value for 'HOST:PORT': expected an address"),
        (("call", "127.0.0.1:0"), "expected a port from 1 to 65535"),
        (("call", "127.0.0.1:1", "--data", "5x"), "expected a size"),
        (("rras",), "give --https or --http"),
        (("rras", "--http", "127.0.0.1:0", "--account", "x"), "user:password"),
        (("nonsense",), "No such command"),
    ],
)
def test_a_wrong_command_line_is_exit_code_2(arguments: tuple[str, ...], words: str) -> None:
    done = sstplb(*arguments)
    assert done.returncode == 2
    assert words in " ".join(re.sub(r"[│\n]", " ", done.stderr).split())


def test_probe_says_why_nobody_answers() -> None:
    done = sstplb("probe", "127.0.1.98:9", "--insecure")
    assert done.returncode == 1
    assert "connection refused" in done.stdout
    assert "nobody listens there" in done.stdout


def test_schema_is_json() -> None:
    assert json.loads(sstplb("schema").stdout)["title"] == "sstplb"


@contextlib.contextmanager
def process(*arguments: str | Path, **environment: str) -> Iterator[subprocess.Popen[str]]:
    """Run a command that stays; end it by its id."""
    running = subprocess.Popen(
        [sys.executable, "-m", "sstplb", *map(str, arguments)],
        cwd=ROOT, env={**os.environ, **environment},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        yield running
    finally:
        if running.poll() is None:
            running.kill()
        running.communicate()


def wait_for(log: Path, event: str, count: int = 1) -> dict[str, Any]:
    for _ in range(500):
        lines = log.read_text().splitlines() if log.exists() else []
        found = [e for e in map(json.loads, lines) if e["event"] == event]
        if len(found) >= count:
            return dict(found[-1])
        time.sleep(0.02)
    raise AssertionError(f"no {event} in {log}: {log.read_text() if log.exists() else 'no file'}")


def test_run_reloads_and_stops_on_signals(tmp_path: Path, served: Issued) -> None:
    log = tmp_path / "lb.log"
    conf = write(tmp_path / "a.yaml", document(served, log={"file": str(log)}))
    with process("run", conf) as running:
        wait_for(log, "ready")
        conf.write_text("listeners: [")
        running.send_signal(signal.SIGHUP)
        assert "not YAML" in wait_for(log, "reload_failed")["message"]
        write(conf, document(served, log={"file": str(log)}))
        log.rename(tmp_path / "rotated.log")
        running.send_signal(signal.SIGHUP)
        wait_for(log, "reloaded")
        running.send_signal(signal.SIGTERM)
        assert running.wait(10) == 0
        assert wait_for(log, "stopped")["message"] == "no call was cut"


def test_stopping_twice_cuts_what_runs_and_says_so(
    tmp_path: Path, served: Issued, pki: LabPki
) -> None:
    """A second SIGTERM does not wait for running calls; exit code 4 tells it."""
    log = tmp_path / "lb.log"
    backend = FakeBackend("rras1", "127.0.1.97", served)

    async def story() -> None:
        await backend.start()
        config = document(served, log={"file": str(log)})
        config["listeners"][0].pop("certificates")
        config["listeners"][0]["mode"] = "passthrough"
        config["pools"]["rras"]["backends"][0]["address"] = f"127.0.1.97:{backend.port}"
        with process("run", write(tmp_path / "a.yaml", config)) as running:
            address = (await asyncio.to_thread(wait_for, log, "listening"))["address"]
            host, _, port = address.rpartition(":")
            import ssl

            context = ssl.create_default_context(cafile=str(pki.root_path))
            reader, writer = await asyncio.open_connection(
                host, int(port), ssl=context, server_hostname="vpn.example.test"
            )
            running.send_signal(signal.SIGTERM)
            await asyncio.to_thread(wait_for, log, "stopping")
            await asyncio.sleep(0.2)
            assert running.poll() is None, "it waits for the call"
            running.send_signal(signal.SIGTERM)
            assert await asyncio.to_thread(running.wait, 10) == 4
            writer.transport.abort()
            assert reader is not None
        await backend.stop()

    asyncio.run(story())
    assert wait_for(log, "call_ended")["reason"] == "stopped"


@pytest.mark.timeout(120)
def test_the_demonstration_shows_what_it_says() -> None:
    done = sstplb("demo", "--once", "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    facts = json.loads(done.stdout)
    assert facts["ok"]
    assert all(claim["holds"] for claim in facts["claims"])
    assert {mode: seen["ok"] for mode, seen in facts["modes"].items()} == {
        "passthrough": 30, "offload": 30, "reencrypt": 30,
    }  # fmt: skip


def _path_parameters(group: typer.Typer, words: str) -> Iterator[tuple[str, Any]]:
    for command in group.registered_commands:
        assert command.callback is not None
        yield from _of_callback(command.callback, words)
    for inner in group.registered_groups:
        assert inner.typer_instance is not None
        if (callback := inner.typer_instance.registered_callback) is not None:
            assert callback.callback is not None
            yield from _of_callback(callback.callback, words)
        yield from _path_parameters(inner.typer_instance, f"{words} {inner.name or ''}")


def _of_callback(callback: Any, words: str) -> Iterator[tuple[str, Any]]:
    for name, hint in get_type_hints(callback, include_extras=True).items():
        kind, *info = get_args(hint) if get_origin(hint) is Annotated else (hint,)
        if "Path" in str(kind) and info:
            yield f"{words} {callback.__name__} {name}", info[0]


def test_a_file_without_permission_is_for_us_to_explain_not_a_usage_error() -> None:
    found = dict(_path_parameters(app, "sstplb"))
    assert len(found) > 25
    assert [name for name, info in found.items() if info.readable] == []


def test_an_unreadable_configuration_is_exit_code_3(tmp_path: Path) -> None:
    conf = tmp_path / "a.yaml"
    conf.write_text("listeners: []")
    conf.chmod(0)
    with unprivileged():
        done = CliRunner().invoke(app, ["check", str(conf)])
    assert isinstance(done.exception, ConfigError)
    assert "cannot be read: Permission denied" in str(done.exception)


def test_a_demonstration_that_is_terminated_leaves_nothing(tmp_path: Path) -> None:
    """Not even the keys of its certificates."""
    with process("demo", TMPDIR=str(tmp_path)) as running:
        for _ in range(1000):
            if list(tmp_path.glob("sstplb-demo-*/certs/*.key")):
                break
            time.sleep(0.02)
        else:
            raise AssertionError("it does not begin")
        running.send_signal(signal.SIGTERM)
        assert running.wait(20) == 128 + signal.SIGTERM
    assert not list(tmp_path.iterdir())


def test_the_table_of_the_demonstration_fits_a_terminal_of_80_columns() -> None:
    seen = {
        "ok": 30, "calls": 30, "backends": {"rras1": 10, "rras2": 10, "rras3": 10},
        "tls_handshakes_here": 60, "bytes": 12_500_000, "cpu_s": 10.02, "connect_ms": 1079.3,
    }  # fmt: skip
    out = io.StringIO()
    demo.show_table(Console(file=out, width=80), demo.Facts(dict.fromkeys(demo.MODES, seen)))
    said = out.getvalue()
    assert "…" not in said
    row = next(line for line in said.splitlines() if line.startswith("passthrough"))
    assert row.split()[:3] == ["passthrough", "30/30", "10/10/10"]


@contextlib.contextmanager
def unprivileged() -> Iterator[None]:
    was_root = os.geteuid() == 0
    if was_root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if was_root:
            os.seteuid(0)


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("schema", "--reference", "odd"), 3, "error: odd: is no page: not UTF-8"),
        (("schema", "--reference", "gone.md"), 3, "error: gone.md: no such file"),
        (("explain", "4", "--log", "gone"), 3, "error: gone: no such file"),
        (("explain", "4", "--log", "."), 3, "error: .: is a directory"),
        (("certs", "create", "odd"), 3, "error: odd: is there already, and no directory"),
        (("certs", "create", "odd/x"), 3, "error: odd/x: not a directory"),
    ],
)
def test_what_cannot_be_read_or_written_is_named(
    tmp_path: Path, arguments: tuple[str, ...], code: int, words: str
) -> None:
    (tmp_path / "odd").write_bytes(b"\xff\xfe")
    done = subprocess.run(
        [sys.executable, "-m", "sstplb", *arguments],
        cwd=tmp_path, capture_output=True, text=True, timeout=50, check=False,
    )  # fmt: skip
    assert (done.returncode, words in done.stderr) == (code, True), done.stderr

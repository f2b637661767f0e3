"""``sstplb init``: what it writes can be started, what it says fits the certificate."""

import os
import pty
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from sstplb.cli import app
from sstplb.config.loader import load
from sstplb.config.quantities import Endpoint
from sstplb.config.schema import Mode
from sstplb.control.first.commands import parse_server
from sstplb.control.first.text import Server, Wanted, compose
from sstplb.errors import CertificateError, ConfigError
from sstplb.lab.pki import Issued, LabPki
from tests.test_cli import ROOT


def typed(*words: object) -> Any:
    return CliRunner().invoke(app, list(map(str, words)), env={"COLUMNS": "200"})


@pytest.mark.parametrize("mode", Mode)
def test_what_it_writes_passes_a_strict_check(mode: Mode, tmp_path: Path, served: Issued) -> None:
    out = tmp_path / "vpn.yaml"
    words = ["init", "--mode", mode, "--backend", "10.0.0.11", "--backend", "b=10.0.0.12:8080"]
    if mode.terminates_tls:
        words += ["--certificate", str(served.chain), "--key", str(served.key)]
    done = typed(*words, "--listen", "[::]:8443", "--out", out)
    assert done.exit_code == 0, done.output
    config = load(out)
    (listener,) = config.listeners
    assert (listener.mode, listener.address) == (mode, Endpoint("::", 8443))
    backends = config.pools["rras"].backends
    port = 80 if mode is Mode.OFFLOAD else 443
    assert [(b.name, b.address) for b in backends] == [
        ("rras1", Endpoint("10.0.0.11", port)), ("b", Endpoint("10.0.0.12", 8080)),
    ]  # fmt: skip
    told = served.certificate.sha256.hex() if mode is Mode.OFFLOAD else None
    assert {b.rras_certificate_sha256 for b in backends} == {told}
    assert config.admin.socket == tmp_path / "admin.sock"
    checked = typed("check", "--strict", "--quiet", out)
    assert (checked.exit_code, "0 warnings" in checked.stderr) == (0, True), checked.output
    for words_of_next in ("sstplb check", "sstplb run", "sstplb ctl status --conf"):
        assert words_of_next in done.stdout
    assert (mode is Mode.PASSTHROUGH) == ("nothing changes" in done.stdout)


def test_each_mode_is_explained_with_the_certificate_s_own_hash(
    tmp_path: Path, served: Issued
) -> None:
    given = ("--backend", "rras1.corp.test", "--certificate", served.chain, "--key", served.key)
    sha256 = served.certificate.sha256.hex().upper()
    sha1 = served.certificate.sha1.hex()
    said = typed("init", "--mode", "offload", *given, "--out", tmp_path / "a").stdout
    assert f"Enable-SSTPOffload -CertificateHash {sha256} -Restart" in said
    assert "On each RRAS (rras1)" in said, "called by the host's name"
    assert "sstplb probe rras1.corp.test:80 --plain" in said
    said = typed("init", "--mode", "reencrypt", *given, "--out", tmp_path / "b").stdout
    assert f"Certificate Hash {sha1}" in said
    assert rf"Cert:\LocalMachine\My\{sha1.upper()}" in said
    assert f"openssl pkcs12 -export -in {served.chain} -inkey {served.key}" in said


def test_a_file_that_is_there_is_left_alone_unless_forced(tmp_path: Path) -> None:
    out = tmp_path / "vpn.yaml"
    out.write_text("mine")
    words = ("init", "--mode", "passthrough", "--backend", "10.0.0.11", "--out", out)
    done = typed(*words)
    assert (done.exit_code, out.read_text()) == (2, "mine")
    assert "--force overwrites it" in done.stderr
    assert typed(*words, "--force").exit_code == 0
    assert load(out).listeners[0].mode is Mode.PASSTHROUGH


@pytest.mark.parametrize("more", [(), ("--force",)])
def test_what_is_no_file_is_never_replaced(tmp_path: Path, more: tuple[str, ...]) -> None:
    out = tmp_path / "pipe"
    os.mkfifo(out)
    done = typed("init", "--mode", "passthrough", "--backend", "10.0.0.11", "--out", out, *more)
    assert isinstance(done.exception, ConfigError)
    assert "is there already, and no regular file; --out names another" in str(done.exception)
    assert out.is_fifo()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "give --mode, --backend and"),
        (("--mode", "offload", "--backend", "a"), "--certificate"),
        (("--mode", "passthrough", "--backend", "a", "--certificate", "c"), "leave it out"),
        (("--mode", "passthrough", "--backend", "a", "--ca", "c"), "--ca is for reencrypt"),
        (("--mode", "passthrough", "--backend", "x y=1.2.3.4"), "expected a name"),
        (("--mode", "passthrough", "--backend", "::1"), "IPv6 in brackets"),
        (("--mode", "sideways", "--backend", "a"), "sideways"),
    ],
)
def test_flags_that_make_no_sense_are_exit_code_2(
    words: tuple[str, ...], said: str, tmp_path: Path
) -> None:
    done = typed("init", *words, "--out", tmp_path / "x.yaml")
    assert (done.exit_code, said in done.stderr) == (2, True), done.stderr
    assert not (tmp_path / "x.yaml").exists()


def test_nothing_is_written_when_it_could_not_be_started(
    tmp_path: Path, served: Issued, other: Issued
) -> None:
    out = tmp_path / "x.yaml"
    given = ("init", "--mode", "offload", "--backend", "10.0.0.11", "--out", out)
    wrong_key = typed(*given, "--certificate", served.chain, "--key", other.key)
    assert isinstance(wrong_key.exception, CertificateError)
    missing = typed(*given, "--certificate", tmp_path / "none.pem")
    assert isinstance(missing.exception, CertificateError)
    twice = typed(
        "init", "--mode", "passthrough", "--backend", "a=10.0.0.1", "--backend", "a=10.0.0.2",
        "--out", out,
    )  # fmt: skip
    assert isinstance(twice.exception, ConfigError)
    assert not out.exists()


@pytest.mark.parametrize(("where", "words"), [("no/x.yaml", "no directory"), ("", "directory")])
def test_where_no_file_can_be_is_said_before_anything_is_asked(
    where: str, words: str, tmp_path: Path
) -> None:
    done = typed("init", "--force", "--out", tmp_path / where)
    assert isinstance(done.exception, ConfigError)
    (problem,) = done.exception.problems
    assert words in problem.message
    assert problem.file == str(tmp_path / where)


def test_the_key_beside_the_certificate_is_found(
    tmp_path: Path, served: Issued, pki: LabPki
) -> None:
    chain = tmp_path / "my certificate #1.pem"
    chain.write_bytes(served.chain.read_bytes())
    beside = chain.with_suffix(".key")
    beside.write_bytes(served.key.read_bytes())
    beside.chmod(0o600)
    out = tmp_path / "vpn.yaml"
    done = typed(
        "init", "--mode", "reencrypt", "--backend", "10.0.0.11", "--certificate", chain,
        "--ca", pki.root_path, "--out", out,
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    assert 'chain: "my certificate #1.pem"' in out.read_text(), "relative: both move together"
    (files,) = load(out).listeners[0].certificates
    assert (files.chain, files.key) == (chain, beside)
    assert load(out).pools["rras"].tls.ca_file == pki.root_path


def test_words_that_yaml_would_read_otherwise_are_quoted(tmp_path: Path) -> None:
    names = ("1", "true", "null", "off", "1.5")
    servers = tuple(Server(name, Endpoint(f"::{n}")) for n, name in enumerate(names, 1))
    out = tmp_path / "a.yaml"
    out.write_text(compose(Wanted(Mode.PASSTHROUGH, servers, Endpoint("::", 443)), out))
    assert tuple(b.name for b in load(out).pools["rras"].backends) == names


def test_in_etc_the_socket_is_the_service_s() -> None:
    wanted = Wanted(Mode.PASSTHROUGH, (Server("a", Endpoint("a")),), Endpoint("::", 443))
    assert "socket: /run/sstplb/admin.sock" in compose(wanted, Path("/etc/sstplb/sstplb.yaml"))


def test_servers_are_named() -> None:
    assert parse_server("10.0.0.11") == ("", Endpoint("10.0.0.11"))
    assert parse_server("a.b=[::1]:80") == ("a.b", Endpoint("::1", 80))


def test_on_a_terminal_it_asks_for_what_is_open(tmp_path: Path, served: Issued) -> None:
    ours, theirs = pty.openpty()
    answers = ("off", "rras1=10.0.0.11, 10.0.0.12", tmp_path / "none", served.chain, "bad:", "")
    out = tmp_path / "vpn.yaml"
    try:
        os.write(ours, "".join(f"{answer}\n" for answer in answers).encode())
        done = subprocess.run(
            [sys.executable, "-m", "sstplb", "init", "--out", out, "--key", served.key],
            cwd=ROOT, stdin=theirs, capture_output=True, text=True, timeout=50, check=False,
        )  # fmt: skip
    finally:
        os.close(ours)
        os.close(theirs)
    assert done.returncode == 0, done.stderr
    for question in ("How are calls carried?", "RRAS servers", "Certificate that", "Address to"):
        assert question in done.stderr
    assert "no such file" in done.stderr, "asked again"
    config = load(out)
    assert config.listeners[0].mode is Mode.OFFLOAD
    assert config.listeners[0].address == Endpoint("0.0.0.0", 443)
    assert [b.name for b in config.pools["rras"].backends] == ["rras1", "rras2"]

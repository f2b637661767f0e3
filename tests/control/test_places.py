"""Where the balancer will write is judged with the file, with its line, and not again later."""

import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from sstplb.config.loader import load
from sstplb.control import places, plan
from sstplb.errors import ConfigError
from tests.config.samples import changed, in_pool
from tests.test_service_files import value

PASSTHROUGH = changed("mode: offload", "mode: passthrough").replace(
    "    certificates: [{chain: a.pem, key: a.key}]\n", ""
)
LINE = PASSTHROUGH.count("\n") + 1
KNOBS: dict[str, Callable[[object], str]] = {
    "state_file": "state_file: {}\n".format,
    "log.file": "log: {{file: {}}}\n".format,
    "admin.socket": "admin: {{socket: {}}}\n".format,
    "capture.directory": "capture: {{directory: {}}}\n".format,
}


def mistakes(path: Path, text: str) -> list[str]:
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        plan.load(path)
    return [str(problem) for problem in caught.value.problems]


@pytest.mark.parametrize("knob", KNOBS)
def test_what_run_could_not_write_is_a_mistake_of_the_file(
    knob: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    conf, write = tmp_path / "a.yaml", KNOBS[knob]
    is_folder = knob == "capture.directory"
    where = f"{conf}:{LINE}: {knob}: "
    gone = "/nope" if is_folder else "/nope/x"
    assert mistakes(conf, PASSTHROUGH + write(gone)) == [f"{where}there is no directory /nope"]
    if not is_folder:
        said = mistakes(conf, PASSTHROUGH + write("."))
        assert said == [f"{where}{tmp_path} is a directory, expected a file in one"]
    good = PASSTHROUGH + write("." if is_folder else "x")
    conf.write_text(good)
    assert plan.load(conf).warnings == ()
    monkeypatch.setattr("os.access", lambda *_: False)
    said = mistakes(conf, good)
    assert said == [f"{where}{tmp_path} is no directory that this user can write to"]


def test_what_is_there_already_is_judged_as_it_will_be_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A log is written on, whoever may write to its directory; a socket may be another's gift."""
    conf, log, door = (tmp_path / name for name in ("a.yaml", "log", "door"))
    log.touch()
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(door))
    conf.write_text(PASSTHROUGH + KNOBS["log.file"](log) + KNOBS["admin.socket"](door))
    monkeypatch.setattr("os.access", lambda path, _: path == log)
    plan.load(conf)
    monkeypatch.setattr("os.access", lambda *_: False)
    with pytest.raises(ConfigError, match=rf"log\.file: this user cannot write to {log}"):
        plan.load(conf)


def test_what_the_service_makes_is_only_warned_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bases = {"/run": "Runtime", "/var/lib": "State", "/var/log": "Logs"}
    made = [Path(base, value(f"{kind}Directory")) for base, kind in bases.items()]
    assert made == list(places.SERVICE_DIRECTORIES)
    monkeypatch.setattr(places, "SERVICE_DIRECTORIES", (tmp_path / "later",))
    conf = tmp_path / "a.yaml"
    conf.write_text(PASSTHROUGH + KNOBS["admin.socket"]("later/admin.sock"))
    (hint,) = plan.load(conf).warnings
    assert (hint.path, "the service makes it" in hint.message) == ("admin.socket", True)
    conf.write_text(PASSTHROUGH + KNOBS["admin.socket"]("later/deeper/admin.sock"))
    with pytest.raises(ConfigError, match="there is no directory"):
        plan.load(conf)


def test_renewed_certificates_come_in_although_a_place_is_gone(tmp_path: Path) -> None:
    conf = tmp_path / "a.yaml"
    conf.write_text(PASSTHROUGH + KNOBS["log.file"]("gone/log"))
    plan.prepare(load(conf))


def test_what_cannot_be_loaded_comes_with_its_line_and_all_at_once(tmp_path: Path) -> None:
    text = in_pool("check: {method: login, username: u, password: {file: pw}}")
    said = mistakes(
        tmp_path / "odd.name.yaml",
        f"{text}state_file: /nope/x\ntls:\n  engine: native\n  library: gone.so\n",
    )
    lines = text.splitlines()
    places_of = ["certificates", "check"]
    numbers = [next(n for n, line in enumerate(lines, 1) if word in line) for word in places_of]
    expected = [
        (numbers[0], "listeners[0].certificates[0]: "),
        (numbers[1], "pools.rras.check.password: "),
        (len(lines) + 1, "state_file: "),
        (len(lines) + 4, "tls.library: "),
    ]
    file = tmp_path / "odd.name.yaml"
    assert len(said) == len(expected), said
    for one, (line, path) in zip(said, expected, strict=True):
        assert one.startswith(f"{file}:{line}: {path}")

"""The files of docs/service: systemd's own tools judge them, and they say what sstplb does."""

import subprocess
import sys
from pathlib import Path

from sstplb.config.loader import load
from sstplb.control.run import ExitCode

FOLDER = Path(__file__).parent.parent / "docs" / "service"
UNIT = FOLDER / "sstplb.service"
EXPOSURE_MAX = 14
"""Of ``systemd-analyze security``, in tenths; docs/operations.md states it."""


def values(path: Path, key: str) -> list[str]:
    """Return all that a unit file says of a key."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return [line.partition("=")[2] for line in lines if line.startswith(f"{key}=")]


def value(key: str) -> str:
    """Return the one thing the service says of a key."""
    (only,) = values(UNIT, key)
    return only


def test_the_unit_is_as_safe_as_we_say() -> None:
    command = ("systemd-analyze", "security", "--offline=yes", f"--threshold={EXPOSURE_MAX}")
    judged = subprocess.run((*command, UNIT), capture_output=True, text=True, check=False)
    assert judged.returncode == 0, judged.stdout + judged.stderr


def test_systemd_understands_the_units(tmp_path: Path) -> None:
    here = str(Path(sys.executable).parent / "sstplb")
    for path in (UNIT, FOLDER / "sstplb.socket"):
        text = path.read_text().replace("/usr/local/bin/sstplb", here)
        (tmp_path / path.name).write_text(text)
    command = ("systemd-analyze", "verify", "--man=no", str(tmp_path / "sstplb.socket"))
    judged = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (judged.returncode, judged.stderr) == (0, "")


def test_one_privilege_for_one_user() -> None:
    assert value("CapabilityBoundingSet") == value("AmbientCapabilities")
    assert value("AmbientCapabilities") == "CAP_NET_BIND_SERVICE"
    kind, user, *_ = (FOLDER / "sstplb.sysusers.conf").read_text().splitlines()[-1].split()
    assert (kind, user) == ("u", value("User"))
    directory = (FOLDER / "sstplb.tmpfiles.conf").read_text().splitlines()[-1].split()
    assert directory[:5] == ["d", "/etc/sstplb", "0750", "root", value("Group")]


def test_exit_codes_mean_to_systemd_what_they_mean_to_us() -> None:
    assert value("SuccessExitStatus") == str(int(ExitCode.CUT))
    usage, config = ExitCode.USAGE, ExitCode.CONFIG
    assert value("RestartPreventExitStatus") == f"{int(usage)} {int(config)}"


def test_a_reload_looks_at_the_file_that_runs() -> None:
    check, signal = values(UNIT, "ExecReload")
    program, command, path = value("ExecStart").split()
    assert command == "run"
    assert check.split() == [program, "check", "--quiet", path]
    assert signal.endswith("-HUP $MAINPID")


def test_the_socket_is_that_of_the_example_configuration() -> None:
    example = load(FOLDER.parent.parent / "conf" / "minimal.yaml")
    (address,) = values(FOLDER / "sstplb.socket", "ListenStream")
    assert address in {str(listener.address) for listener in example.listeners}

"""One call out of every log that tells of it: ours, the client's, the server's."""

import io
import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from rich.text import Text
from typer.testing import CliRunner

from sstplb.account.causes import Cause
from sstplb.cli import app
from sstplb.control.explain import Explained, Line, as_json, as_text, explain, from_log, timeline
from sstplb.errors import BadRequestError, UnknownThingError
from tests.control.test_windows_log import DIALS, ELSE, FAILED, GUID, RENDERED

CALL: dict[str, Any] = {
    "event": "call_ended", "timestamp": "2024-04-23T08:15:31.000000Z", "call": 7,
    "correlation_id": GUID, "client": "192.0.2.7:50000", "listener": "vpn", "mode": "offload",
    "server_name": "vpn.example.test", "tls_offered": "TLSv1.3", "tls_version": "TLSv1.3",
    "cipher": "TLS_AES_128_GCM_SHA256", "pool": "rras", "backend": "rras2",
    "tries": ["rras1:backend_refused"], "tries_why": ["rras1 answered 503 Service Unavailable"],
    "hello_s": 0.001, "tls_s": 0.002, "head_s": 0.001, "reach_s": 0.004, "relay_s": 0.4,
    "user": "CORP\\alice", "computer": "PC7",
    "steps": {"connect_request": 0.01, "connect_ack": 0.02, "authentication": 0.03,
              "not_authenticated": 0.04, "disconnect": 0.05},
    "step_details": {"not_authenticated": "error 691: wrong user name or password"},
    "duration_s": 0.5, "bytes_in": 400, "bytes_out": 300, "ended_by": "backend",
    "outcome": "completed", "reason": "disconnected_by_backend",
}  # fmt: skip
DOWN = {
    "event": "backend_down", "timestamp": "2024-04-23T08:15:40Z", "backend": "rras1",
    "reason": "expected HTTP 401, got 503 Service Unavailable (2 bad checks)",
}  # fmt: skip


def log(path: Path, *lines: Any) -> Path:
    text = "".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines)
    path.write_text(text)
    return path


def shown(explained: Explained) -> str:
    out = io.StringIO()
    Console(file=out, width=200).print(*as_text(explained), sep="\n")
    return out.getvalue()


@pytest.mark.parametrize("wanted", ["7", GUID, GUID.strip("{}").lower()])
def test_a_call_is_found_by_number_or_correlation_id(wanted: str, tmp_path: Path) -> None:
    earlier = {**CALL, "user": "CORP\\bob", "timestamp": "2024-04-22T08:15:31Z"}
    path = log(
        tmp_path / "log", "not json", earlier, {**CALL, "call": 8, "correlation_id": "x"}, CALL
    )
    known = from_log(path, wanted)
    assert known is not None
    assert known.fields["user"] == "CORP\\alice", "the latest of that number"
    text = shown(explain(wanted, known))
    for words in (
        "connects from 192.0.2.7:50000 to vpn",
        "asks for vpn.example.test (ClientHello, up to TLSv1.3)",
        f"opens the call, {GUID}",
        "rras1 was asked in vain (backend_refused): rras1 answered 503 Service Unavailable",
        "rras2 has the call",
        "begins authentication of CORP\\alice at PC7",
        "does not believe the user: error 691: wrong user name or password",
        "ends it: completed (disconnected_by_backend), 400 bytes in, 300 out",
        "[bad_password]",
        "[no_ports]",
        "+500.0 ms",
    ):
        assert words in text


def test_the_end_is_told_with_what_the_log_line_has_of_it(tmp_path: Path) -> None:
    drained = {
        **CALL, "outcome": "closed", "reason": "drained", "ended_by": "balancer",
        "detail": "rras2 is drained, and its deadline is over",
        "client_goodbye": "acknowledged", "backend_goodbye": "unanswered",
    }  # fmt: skip
    text = shown(explain("7", from_log(log(tmp_path / "log", drained), "7")))
    assert (
        "ends it: closed (drained), 400 bytes in, 300 out · rras2 is drained, and its deadline is "
        "over · goodbye: client acknowledged, backend unanswered"
    ) in text


def test_checks_that_fail_after_the_call_tell_something_about_it(tmp_path: Path) -> None:
    for down, cause in (
        (DOWN, Cause.SERVICE_STOPPED),
        ({**DOWN, "timestamp": "2024-04-23T09:15:40Z"}, Cause.NO_PORTS),
        ({**DOWN, "timestamp": "2024-04-23T08:15:00Z"}, Cause.NO_PORTS),
        ({**DOWN, "backend": "rras2"}, Cause.NO_PORTS),
    ):
        known = from_log(log(tmp_path / "log", CALL, down), "7")
        assert known is not None
        assert [d.cause for d in known.diagnoses] == [Cause.BAD_PASSWORD, cause]


def test_windows_events_are_joined_in_the_order_of_time(tmp_path: Path) -> None:
    exported = log(tmp_path / "client.xml", DIALS + ELSE + FAILED + RENDERED)
    known = from_log(log(tmp_path / "log", CALL), GUID)
    explained = explain(GUID, known, [exported])
    whos = [line.who for line in explained.lines]
    assert whos[0] == "pc7", "it dialled before anything came to us"
    assert whos.count("pc7") == 3
    times = [line.at for line in explained.lines]
    assert times == sorted(times)
    told = as_json(explained)
    assert told["windows"][0]["code"] == "0x800B0109"
    assert "root" in told["windows"][0]["words"]
    assert [d["cause"] for d in told["diagnoses"]] == ["bad_password", "no_ports"]
    assert json.loads(json.dumps(told)) == told
    assert "Windows says 0x800B0109: the client does not trust the root" in shown(explained)
    assert "CORP\\bob" not in shown(explained)


def test_a_call_that_never_came_to_us_is_told_by_windows_alone(tmp_path: Path) -> None:
    exported = log(tmp_path / "client.xml", FAILED)
    explained = explain(GUID, None, [exported])
    text = shown(explained)
    assert "No call with this id came to us" in text
    assert "0x800B0109" in text
    assert as_json(explained)["call"] is None


def test_a_good_call_is_called_good(tmp_path: Path) -> None:
    good = {**CALL, "steps": {"connect_request": 0.1, "authenticated": 0.2}, "tries": []}
    known = from_log(log(tmp_path / "log", good), "7")
    assert "Nothing wrong is seen from here." in shown(explain("7", known))


def test_what_cannot_be_explained_says_why(tmp_path: Path) -> None:
    path = log(tmp_path / "log", CALL)
    assert from_log(path, "99") is None
    with pytest.raises(UnknownThingError, match="knows no call 99; its line may be in the log"):
        explain("99", None)
    with pytest.raises(BadRequestError, match="expected the number of a call, or a correlation"):
        from_log(path, "alice")
    with pytest.raises(BadRequestError, match="expected a log in JSON"):
        from_log(log(tmp_path / "human", "08:15:31 info call_ended"), "7")
    with pytest.raises(BadRequestError, match="expected a log in JSON"):
        from_log(Path("/dev/zero"), "7")
    exported = log(tmp_path / "client.xml", FAILED)
    nameless = from_log(log(tmp_path / "log2", {**CALL, "correlation_id": None}), "7")
    with pytest.raises(BadRequestError, match="has no correlation id"):
        explain("7", nameless, [exported])


@pytest.mark.parametrize("is_terminal", [False, True])
def test_what_somebody_may_copy_is_in_one_line(
    is_terminal: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Piped nothing is wrapped; on a terminal its own wrapping is not in what is copied."""
    monkeypatch.setenv("COLUMNS", "40")
    if is_terminal:
        monkeypatch.setattr("rich.console.Console.is_terminal", True)
    path = log(tmp_path / "log", CALL)
    found = from_log(path, "7")
    assert found is not None
    remedy = f"remedy  {found.diagnoses[0].remedy}"
    assert len(remedy) > 40
    said = CliRunner().invoke(app, ["explain", GUID, "--log", str(path)]).stdout
    lines = [Text.from_ansi(line).plain for line in said.splitlines()]
    assert remedy in lines
    assert any(line.startswith(f"call {GUID}, from ") for line in lines)


def test_what_a_client_wrote_is_shown_as_it_is() -> None:
    """On whichever console: ``ctl call`` shows the same timeline on one that knows no markup."""
    said = r"[bold]connects[/bold] from [fd00::5]:4000 as LAB\\"
    for markup in (True, False):
        page = io.StringIO()
        Console(markup=markup, width=120, file=page).print(timeline([Line(1, "client", said)], 1))
        assert said in page.getvalue()

"""Exported Windows event logs: both shapes, every encoding, and what must not be believed."""

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sstplb.account.windows import CODES, WindowsEvent, canonical, known_code, shown_code
from sstplb.control import windows_log
from sstplb.control.windows_log import read_events
from sstplb.errors import WindowsLogError

GUID = "{0D528CAC-464E-423A-A399-9470E234BC54}"
OTHER = "{11111111-2222-3333-4444-555555555555}"
NAMESPACE = "http://schemas.microsoft.com/win/2004/08/events/event"


def event(
    provider: str, number: int, *values: str, time: str = "08:15:30.1234567", message: str = ""
) -> str:
    data = "".join(f"<Data>{value}</Data>" for value in values)
    rendered = f"<RenderingInfo><Message>{message}</Message></RenderingInfo>" if message else ""
    return (
        f"<Event xmlns='{NAMESPACE}'><System><Provider Name='{provider}'/>"
        f"<EventID Qualifiers='0'>{number}</EventID>"
        f"<TimeCreated SystemTime='2024-04-23T{time}Z'/>"
        f"<Computer>pc7.corp.example</Computer></System>"
        f"<EventData>{data}</EventData>{rendered}</Event>"
    )


FAILED = event("RasClient", 20227, GUID, "CORP\\alice", "Office VPN", "-2146762487")
DIALS = event("RasClient", 20221, GUID, "CORP\\alice", "Office VPN", time="08:15:29.5")
RENDERED = event(
    "Microsoft-Windows-RasSstp", 6, GUID, "0x800B0109",
    message=f"CoId={GUID}: security check failed, error code is 0x800B0109", time="08:15:31",
)  # fmt: skip
ELSE = event("RasClient", 20227, OTHER, "CORP\\bob", "Office VPN", "691")
SHAPES = {
    "viewer": '<?xml version="1.0" encoding="utf-8" standalone="yes"?>\n<Events>{}</Events>',
    "wevtutil": "{}",
    "lines": "{}\r\n",
}


def of_call(found: WindowsEvent) -> bool:
    return GUID in found.correlation_ids


def written(path: Path, text: str, encoding: str = "utf-8") -> Path:
    path.write_bytes(text.encode(encoding))
    return path


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le"])
@pytest.mark.parametrize("shape", SHAPES)
def test_events_of_one_call_in_the_order_of_time(shape: str, encoding: str, tmp_path: Path) -> None:
    text = SHAPES[shape].format(FAILED + ELSE + RENDERED + DIALS)
    found = read_events(written(tmp_path / "e.xml", text, encoding), of_call)
    assert [(e.provider, e.number) for e in found] == [
        ("RasClient", 20221), ("RasClient", 20227), ("Microsoft-Windows-RasSstp", 6),
    ]  # fmt: skip
    assert found[1].at == pytest.approx(1713860130.1234567)
    assert found[1].computer == "pc7.corp.example"
    assert found[1].values == (GUID, "CORP\\alice", "Office VPN", "-2146762487")
    assert found[1].codes == (0x800B0109,), "Windows shows it as a negative number, too"
    assert found[1].title == "dialling failed"
    assert found[2].text.startswith("CoId=")
    assert found[2].title.startswith("security check failed")
    assert found[2].codes == (0x800B0109,)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("<!DOCTYPE a [<!ENTITY b 'c'>]><Events/>", "no event log as XML"),
        (
            '<!DOCTYPE e [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;&a;">]><Events>&b;</Events>',
            "no event log as XML",
        ),
        ('<!DOCTYPE e SYSTEM "file:///etc/passwd"><Events/>', "no event log as XML"),
        ("<Events>&nbsp;</Events>", "no event log as XML"),
        ("<Events>", "no event log as XML"),
        ("not xml at all", "no event in it"),
        ("", "no event in it"),
        ("<a>" * 100, "nested too deep"),
        ("</sstplb><sstplb>" + FAILED, "no event log as XML"),
        ("<Events></Events>", "no event in it"),
    ],
)
def test_what_is_no_event_log_is_refused(text: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(WindowsLogError, match=words):
        read_events(written(tmp_path / "e.xml", text), of_call)


def test_sizes_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    long = event("RasClient", 20227, GUID, "x" * 500_000, *(["y"] * 500))
    (found,) = read_events(written(tmp_path / "long.xml", long), of_call)
    assert len(found.values) == windows_log.VALUES_MAX
    assert max(map(len, (*found.values, found.text))) <= 2000
    monkeypatch.setattr(windows_log, "EVENTS_MAX", 5)
    with pytest.raises(WindowsLogError, match="more than 5 events"):
        read_events(written(tmp_path / "many.xml", DIALS * 6), of_call)
    monkeypatch.setattr(windows_log, "FILE_BYTES_MAX", 100)
    with pytest.raises(WindowsLogError, match="export fewer"):
        read_events(tmp_path / "many.xml", of_call)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(data=st.binary(max_size=300))
def test_nothing_else_is_ever_raised(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "any.xml"
    path.write_bytes(data)
    with pytest.raises(WindowsLogError):
        read_events(path, lambda _: True)


@pytest.mark.parametrize(
    ("number", "known"),
    [
        (0x800B0109, 0x800B0109),
        (-2146762487, 0x800B0109),
        (691, 691),
        (0x80070000 + 691, 691),
        (1236, 0x800704D4),
        (12345, None),
    ],
)
def test_the_forms_of_an_error_number(number: int, known: int | None) -> None:
    assert known_code(number) == known


def test_every_code_has_words_and_a_remedy() -> None:
    for number, code in CODES.items():
        assert code.words
        assert code.remedy
        assert known_code(number) == number
    assert (shown_code(0x800B0109), shown_code(691)) == ("0x800B0109", "691")


def test_a_guid_is_known_however_it_is_written() -> None:
    bare = GUID.strip("{}").lower()
    assert canonical(bare) == canonical(GUID.lower()) == GUID
    assert canonical("17") == "17"

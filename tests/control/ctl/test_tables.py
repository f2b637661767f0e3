"""Tables for people: what is said in words."""

import io
from typing import Any

import pytest
from pydantic import TypeAdapter
from rich.console import Console, RenderableType

from sstplb.account.record import Goodbye, Moment, Outcome, Record, Story
from sstplb.control.ctl import tables
from sstplb.control.views import call_view
from tests.control.top.test_glance import overview


def test_why_a_backend_gets_no_calls_is_said() -> None:
    (shown, _) = overview()["pools"][0]["backends"]
    assert tables.why(shown, 100.0) == ""
    down = {**shown, "unusable_because": "down", "since_at": 40.0, "health_reason": "HTTP 503"}
    assert tables.why(down, 100.0) == "down, for 1 min: HTTP 503"
    assert tables.why({**shown, "unusable_because": "standing_off"}, 1.0) == "standing off"
    other = {**shown, "same_certificate": False}
    text = "it has another certificate than clients are shown"
    assert tables.why(other, 1.0) == f"{text}; calls go there all the same"
    refused = {**other, "unusable_because": "certificate_mismatch"}
    assert tables.why(refused, 1.0) == text


def test_the_cost_of_each_mode_is_told_where_there_are_several() -> None:
    shown = overview()
    one = {"mode": "offload", "cpu_s_per_gb": 1.25}
    shown["cost"]["modes"] = [one]
    assert tables.head(shown).plain.endswith("3.00 CPU s/GB")
    shown["cost"]["modes"] = [one, {"mode": "reencrypt", "cpu_s_per_gb": None}]
    assert tables.head(shown).plain.endswith("3.00 CPU s/GB (offload 1.25)")


@pytest.mark.parametrize("is_over", [False, True])
def test_a_call_is_shown_with_who_calls_and_its_steps(is_over: bool) -> None:
    story = Story(
        [Moment("connect_request", "client", 0.01), Moment("address", "backend", 0.05)],
        "CORP\\[red]alice", "PC7", "10.9.0.2", "MS-CHAPv2",
    )  # fmt: skip
    record = Record(7, "vpn", "offload", ("192.0.2.7", 50000), 1e9, 0.0, "rras", "rras1")
    record.story, record.ended_by = story, "balancer"
    if is_over:
        record.outcome, record.reason, record.detail = Outcome.CLOSED, "drained", "in words"
        record.client_goodbye = record.backend_goodbye = Goodbye.ACKNOWLEDGED
    view = TypeAdapter(dict[str, Any]).dump_python(call_view(record), mode="json")
    text = printed(tables.call(view))
    for words in ("CORP\\[red]alice", "PC7", "10.9.0.2", "MS-CHAPv2", "+10.0 ms", "asks for PPP",
                  "assigns the address 10.9.0.2"):  # fmt: skip
        assert words in text
    end = "closed (drained), 0 bytes in, 0 out · in words · goodbye: client acknowledged"
    assert (end in text) == is_over
    page = {"calls": [view], "total": 1}
    assert "CORP\\[red]alice" in printed(tables.calls(page))
    story.user = story.computer = story.address = None  # as ``privacy: hidden`` leaves them
    hidden = TypeAdapter(dict[str, Any]).dump_python(call_view(record), mode="json")
    text = printed(tables.call(hidden))
    assert "assigns the address (hidden)" in text
    assert "alice" not in text


def printed(shown: RenderableType) -> str:
    out = io.StringIO()
    Console(file=out, width=150).print(shown)
    return out.getvalue()

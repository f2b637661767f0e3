"""Tables for people: what is said in words."""

from sstplb.control.ctl import tables
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

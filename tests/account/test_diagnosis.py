"""Causes that no lab makes, from the fields of log lines; the others are in stories/."""

from typing import Any

import pytest

from sstplb.account.causes import Cause, Later
from sstplb.account.diagnosis import diagnose

OURS, THEIRS = "aa" * 32, "bb" * 32
CONNECTED = {"connect_request": 0.1, "connect_ack": 0.2, "authenticated": 0.3, "connected": 0.4}
REFUSED: dict[str, Any] = {
    "mode": "reencrypt", "outcome": "backend_failed", "reason": "binding_refused",
    "ended_by": "backend", "backend": "rras1", "steps": {**CONNECTED, "abort": 0.5},
    "step_details": {"abort": "CRYPTO_BINDING: VALUE_NOT_SUPPORTED"},
    "hash_protocol": "SHA256", "certificate_hash": OURS, "hash_whose": "ours",
    "nonce_echoed": True, "hash_offered": True, "served_sha256": OURS,
    "backend_sha256": OURS, "backend_sha256_from": "shown",
}  # fmt: skip


def causes(fields: dict[str, Any], *later: Later) -> list[Cause]:
    return [found.cause for found in diagnose(fields, later)]


@pytest.mark.parametrize(
    ("changes", "cause"),
    [
        ({}, Cause.COMPOUND_MAC_REFUSED),
        ({"backend_sha256": THEIRS}, Cause.DIFFERENT_CERTIFICATE),
        ({"mode": "offload"}, Cause.WRONG_OFFLOAD_HASH),
        (
            {"mode": "offload", "backend_sha256": None, "backend_sha256_from": None},
            Cause.WRONG_OFFLOAD_HASH,
        ),
        ({"nonce_echoed": False}, Cause.NONCE_NOT_ECHOED),
        ({"reason": "nonce_not_echoed", "ended_by": "client"}, Cause.NONCE_NOT_ECHOED),
        ({"reason": "hash_not_offered"}, Cause.HASH_NOT_OFFERED),
        ({"reason": "binding_missing", "hash_whose": None}, Cause.BINDING_MISSING),
        ({"hash_whose": "neither"}, Cause.TLS_INSPECTION),
        ({"hash_whose": "backend's"}, Cause.BACKEND_CERTIFICATE_SEEN),
        ({"reason": "aborted_by_backend"}, Cause.COMPOUND_MAC_REFUSED),
        (
            {"reason": "aborted_by_backend", "steps": {**CONNECTED, "data_from_backend": 1}},
            Cause.ABORTED,
        ),
        ({"reason": "aborted_by_backend", "steps": {"connect_request": 0.1}}, Cause.ABORTED),
    ],
)
def test_a_refused_binding(changes: dict[str, Any], cause: Cause) -> None:
    fields = {name: value for name, value in (REFUSED | changes).items() if value is not None}
    assert causes(fields) == [cause]


def test_the_hashes_stand_side_by_side() -> None:
    (found,) = diagnose(REFUSED | {"backend_sha256": THEIRS})
    assert found.evidence == (
        f"the client saw: SHA256 {OURS}",
        f"we served: SHA256 {OURS}",
        f"rras1: shows SHA-256 {THEIRS}",
        "rras1 aborted with CRYPTO_BINDING: VALUE_NOT_SUPPORTED",
    )


@pytest.mark.parametrize(
    ("detail", "method", "cause"),
    [
        ("error 691: wrong user name or password", "MS-CHAPv2", Cause.BAD_PASSWORD),
        ("", "PAP", Cause.BAD_PASSWORD),
        ("error 649: no dial-in permission", "MS-CHAPv2", Cause.AUTHENTICATION_REFUSED),
        ("error 648: password expired", "MS-CHAPv2", Cause.AUTHENTICATION_REFUSED),
        ("", "PEAP", Cause.AUTHENTICATION_REFUSED),
    ],
)
def test_who_was_not_let_in(detail: str, method: str, cause: Cause) -> None:
    fields: dict[str, Any] = {
        "mode": "offload", "outcome": "completed", "reason": "disconnected_by_backend",
        "ended_by": "backend", "authentication": method,
        "steps": {"authentication": 0.1, "not_authenticated": 0.2},
        "step_details": {"not_authenticated": detail} if detail else {},
    }  # fmt: skip
    assert causes(fields) == [cause]
    second = {**fields, "steps": {**fields["steps"], "authenticated": 0.3}}
    assert causes(second) == [], "the second time the password was right"


@pytest.mark.parametrize(
    ("why", "later", "cause"),
    [
        ("rras1 answered 503 Service Unavailable", "", Cause.NO_PORTS),
        (
            "rras1 answered 503 Service Unavailable",
            "expected HTTP 401, got 503 Service Unavailable",
            Cause.SERVICE_STOPPED,
        ),
        ("rras1 answered 503", "no answer within 4 s", Cause.NO_PORTS),
        ("rras1 answered 404 Not Found", "", Cause.SERVICE_STOPPED),
        ("rras1 answered 302 Found", "", Cause.NOT_RRAS),
    ],
)
def test_an_http_answer_other_than_200(why: str, later: str, cause: Cause) -> None:
    fields = {"reason": "backend_refused", "tries": ["rras1:backend_refused"], "tries_why": [why]}
    found = [Later("rras1", later)] if later else []
    assert causes(fields, *found) == [cause]
    assert (
        causes(fields, Later("rras2", "expected HTTP 401, got 503")) != [Cause.SERVICE_STOPPED]
        or " 404" in why
    ), "another backend's trouble"


@pytest.mark.parametrize(
    ("steps", "owed"),
    [
        (["connect_request"], "rras1 owed CALL_CONNECT_ACK"),
        (["connect_request", "connect_ack"], "rras1 owed the first LCP request"),
        (["authentication"], "the client or rras1 owed the rest of authentication"),
        (["authenticated"], "the client owed CALL_CONNECTED"),
    ],
)
def test_a_stalled_opening_says_whose_turn_it_was(steps: list[str], owed: str) -> None:
    fields = {
        "mode": "offload", "reason": "negotiation_timeout", "backend": "rras1",
        "steps": {step: number for number, step in enumerate(steps)},
    }  # fmt: skip
    (found,) = diagnose(fields)
    assert found.cause is Cause.OPENING_STALLED
    assert owed in found.sentence


@pytest.mark.parametrize(
    ("reason", "cause"),
    [
        ("call_nak", Cause.CALL_NAK),
        ("malformed_stream", Cause.MALFORMED_STREAM),
        ("aborted_by_client", Cause.ABORTED),
        ("client_no_shared_cipher", Cause.NO_COMMON_TLS),
        ("client_untrusted_by_peer", Cause.CLIENT_REJECTS_CERTIFICATE),
        ("handshake_timeout", Cause.CLIENT_SILENT),
    ],
)
def test_what_the_reason_alone_says(reason: str, cause: Cause) -> None:
    assert causes({"mode": "offload", "reason": reason, "detail": "in words"}) == [cause]


@pytest.mark.parametrize(
    ("reason", "outcome"),
    [
        ("disconnected_by_client", "completed"),
        ("client_ended", "completed"),
        ("health_check", "web"),
        ("not_sstp", "web"),
        ("stopped", "closed"),
        ("ended_by_operator", "closed"),
        ("", ""),
    ],
)
def test_what_needs_no_explanation(reason: str, outcome: str) -> None:
    fields = {**REFUSED, "reason": reason, "outcome": outcome, "steps": CONNECTED}
    assert causes(fields) == []


def test_backends_that_were_taken_out() -> None:
    out = ["rras1:draining", "rras2:standing_off"]
    fields = {"reason": "no_backend_available", "outcome": "refused", "passed_over": out}
    assert causes(fields) == [Cause.BACKENDS_TAKEN_OUT]
    down = {"passed_over_why": ["rras3: expected HTTP 401, got 503 Service Unavailable"]}
    assert causes({**fields, **down, "passed_over": [*out, "rras3:down"]}) == [
        Cause.SERVICE_STOPPED
    ]


def test_hellos_count_only_when_their_silence_ended_the_call() -> None:
    fields: dict[str, Any] = {
        "mode": "offload", "outcome": "completed", "reason": "backend_ended",
        "ended_by": "backend", "steps": CONNECTED, "hellos": ["backend 3/4 unanswered"],
    }  # fmt: skip
    assert causes(fields) == [Cause.CLIENT_DEAD]
    assert causes({**fields, "hellos": ["backend 4/4"]}) == []
    assert causes({**fields, "ended_by": "client"}) == [], "it was alive enough to hang up"
    dead = {**fields, "hellos": ["client 0/1 unanswered"], "ended_by": "client"}
    assert causes(dead) == [Cause.BACKEND_DEAD]


def test_several_backends_with_one_trouble_are_one_cause_with_all_their_answers() -> None:
    answers = ["rras1 answered 503 Service Unavailable", "rras2 answered 503 Service Unavailable"]
    fields = {"tries": ["rras1:backend_refused", "rras2:backend_refused"], "tries_why": answers}
    (found,) = diagnose(fields)
    assert found.cause is Cause.NO_PORTS
    assert list(found.evidence) == answers


@pytest.mark.parametrize(
    ("why", "cause"),
    [
        ("rras1 did not take the connection within 5 s", Cause.SERVER_UNREACHABLE),
        ("rras1 did not answer within 5 s", Cause.SERVER_SILENT),
    ],
)
def test_who_does_not_even_take_a_connection_is_not_silent(why: str, cause: Cause) -> None:
    assert causes({"tries": ["rras1:backend_timeout"], "tries_why": [why]}) == [cause]

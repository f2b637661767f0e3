"""Why a call went wrong: the cause in a sentence, what speaks for it, and what to do. Pure.

``diagnose`` works on the fields of a call's log line (``exposition.py`` lists them), so a call that
still is in memory and one that is only in a log file are judged alike. What was seen decides, not
what is likely: each rule asks for facts that only its own cause makes, and where two causes look
the same from here (a nonce, a hash or a MAC that RRAS does not like are one and the same abort) the
sentence says so.

Two things may be known besides the call itself: which checks found a backend down soon after
(``Later``), for out of ports and a stopped service both answer a call with 503, and only the second
fails a check.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any

from sstplb.account.backend_diagnosis import backend_troubles
from sstplb.account.causes import Cause, Diagnosis, Later, Seen


def diagnose(fields: Mapping[str, Any], later: Iterable[Later] = ()) -> tuple[Diagnosis, ...]:
    """Return what was wrong with a call, the most telling first; empty: nothing that we can see.

    ``fields``: those of its log line. A call that another backend took in the end is diagnosed
    too: what the first one lacked is a fault.
    """
    seen = Seen(fields, tuple(later))
    judged = (rule(seen) for rule in _RULES)
    of_call = next((diagnosis for diagnosis in judged if diagnosis is not None), None)
    found = {} if of_call is None else {of_call.cause: of_call}
    for trouble in backend_troubles(seen):
        known = found.setdefault(trouble.cause, trouble)
        if known is not trouble:  # several backends with one trouble: one cause, more evidence
            evidence = (*known.evidence, *trouble.evidence)
            found[trouble.cause] = replace(known, evidence=evidence)
    return tuple(found.values())


# --- the binding --------------------------------------------------------------------------------


def _binding(seen: Seen) -> Diagnosis | None:
    """Judge the crypto binding ([MS-SSTP] 3.2.5.2)."""
    whose = seen.text("hash_whose")
    if whose in ("neither", "backend's"):
        return _not_our_certificate(seen, whose)
    fault = _BINDING_FAULTS.get(seen.reason)
    if fault is None and seen.is_binding_refused and seen.fields.get("nonce_echoed") is False:
        fault = _BINDING_FAULTS["nonce_not_echoed"]
    if fault is not None:
        cause, sentence, remedy = fault
        return Diagnosis(cause, sentence.format(seen.backend), remedy, seen.hashes())
    if not seen.is_binding_refused:
        return None
    return _refused_offloaded(seen) if seen.mode == "offload" else _refused(seen)


_BINDING_FAULTS: Mapping[str, tuple[Cause, str, str]] = MappingProxyType(
    {
        "nonce_not_echoed": (
            Cause.NONCE_NOT_ECHOED,
            "the client did not echo the nonce of {}: somebody answers for it, or its program is "
            "wrong",
            "look for a device in the path that speaks SSTP itself; try another client",
        ),
        "hash_not_offered": (
            Cause.HASH_NOT_OFFERED,
            "the client bound with a hash that {} did not offer",
            "update the client; SHA-256 is what both should speak",
        ),
        "binding_missing": (
            Cause.BINDING_MISSING,
            "the client's CALL_CONNECTED carries no crypto binding that {} could check",
            "update the client: crypto binding is not optional",
        ),
    }
)


def _not_our_certificate(seen: Seen, whose: str) -> Diagnosis:
    if whose == "neither":
        return Diagnosis(
            Cause.TLS_INSPECTION,
            "the client saw a certificate that is neither ours nor the backend's: something "
            "between us and it opens TLS and shows a certificate of its own",
            "find the proxy, firewall or virus scanner on the client's side that inspects TLS, and "
            "have it leave this server name alone; SSTP cannot be inspected",
            seen.hashes(),
        )
    return Diagnosis(
        Cause.BACKEND_CERTIFICATE_SEEN,
        f"the client saw the certificate of {seen.backend}, and not the one we served: another "
        "device that holds it ends TLS between us and the client",
        "let calls come to us directly, or have that device pass TLS through",
        seen.hashes(),
    )


def _refused_offloaded(seen: Seen) -> Diagnosis:
    """RRAS was told one hash, and the client bound to what we served, which is another."""
    served = seen.text("served_sha256").upper()
    is_declared = seen.text("backend_sha256") == seen.text("served_sha256") != ""
    more = (
        " (the configuration declares the right one: RRAS was told another, or told none)"
        if is_declared
        else ""
    )
    return Diagnosis(
        Cause.WRONG_OFFLOAD_HASH,
        f"the call connects, then disconnects: {seen.backend} refused the crypto binding, for it "
        f"expects another certificate than the one we serve{more}",
        f"on {seen.backend}, in PowerShell as administrator (restarts RemoteAccess, its calls "
        f"drop): Enable-SSTPOffload -CertificateHash {served or '<SHA-256 of our certificate>'} "
        "-Restart; if it was told this very hash, the keys differ that both draw from "
        "authentication: see that the RADIUS server hands the MPPE keys to RRAS",
        (*seen.hashes(), *_abort_of(seen)),
    )


def _refused(seen: Seen) -> Diagnosis:
    """Re-encrypted: we know the certificate of the backend from our own handshake."""
    if seen.text("backend_sha256") == seen.text("served_sha256"):
        return Diagnosis(
            Cause.COMPOUND_MAC_REFUSED,
            f"{seen.backend} refused the crypto binding although the client saw the right "
            "certificate: the keys that both draw from authentication differ, or RRAS is bound to "
            "another certificate than http.sys shows (event 32)",
            "see that the RADIUS server hands the MPPE keys (or the EAP master key) to RRAS, and "
            f"compare certificate and SSTP binding on {seen.backend}: Get-RemoteAccess, netsh http "
            "show sslcert",
            (*seen.hashes(), *_abort_of(seen)),
        )
    return Diagnosis(
        Cause.DIFFERENT_CERTIFICATE,
        f"the call connects, then disconnects: {seen.backend} has another certificate than the "
        "one we serve, so the client's crypto binding can never fit",
        f"install the same certificate, with its key, here and on {seen.backend}; until then "
        "same_certificate: refuse keeps calls away from it",
        (*seen.hashes(), *_abort_of(seen)),
    )


def _abort_of(seen: Seen) -> tuple[str, ...]:
    detail = str(seen.details.get("abort", ""))
    return (f"{seen.backend} aborted with {detail}",) if detail else ()


# --- authentication -----------------------------------------------------------------------------

_BAD_PASSWORD = "691"  # noqa: S105 - RAS's number for it
_ERROR_NUMBER = re.compile(r"error (\d+)")


def _authentication(seen: Seen) -> Diagnosis | None:
    """Judge what the backend said to the client's credentials."""
    if "not_authenticated" not in seen.steps or "authenticated" in seen.steps:
        return None
    detail = str(seen.details.get("not_authenticated", ""))
    user = seen.text("user") or "the user"
    method = seen.text("authentication") or "authentication"
    evidence = (f"{seen.backend} answered {method} with {detail or 'a refusal, without a reason'}",)
    number = _ERROR_NUMBER.search(detail)
    if number is not None and number[1] == _BAD_PASSWORD:
        is_password = True
    else:
        is_password = not detail and method in ("PAP", "CHAP-MD5")
    if is_password:
        return Diagnosis(
            Cause.BAD_PASSWORD,
            f"{user} was not let in: wrong user name or password",
            "have the user type it again; look for the account, and its lock, in the domain or the "
            "RADIUS server's log (RRAS event 20271)",
            evidence,
        )
    return Diagnosis(
        Cause.AUTHENTICATION_REFUSED,
        f"{user} was not let in by {method}: {detail.partition(': ')[2] or 'refused'}",
        "look into the log of the RADIUS server or NPS for this user: policy, dial-in permission, "
        "certificate (RRAS event 20271)",
        evidence,
    )


# --- silence ------------------------------------------------------------------------------------


def _dead_peer(seen: Seen) -> Diagnosis | None:
    """Find a side that did not answer the last hello, and was given up for it."""
    for line in seen.lines("hellos"):
        asker, _, rest = line.partition(" ")
        silent = "backend" if asker == "client" else "client"
        if not rest.endswith("unanswered") or seen.ended_by == silent:
            continue
        is_client = silent == "client"
        who = "the client" if is_client else seen.backend
        return Diagnosis(
            Cause.CLIENT_DEAD if is_client else Cause.BACKEND_DEAD,
            f"{who} is gone without a word: it did not answer a hello, and was given up",
            "the client lost its network, slept or changed it; if many go so, look for a firewall "
            "or NAT that forgets connections"
            if is_client
            else f"look whether {seen.backend} hangs, lost its network or was restarted",
            (f"hellos of the {asker}: {rest.removesuffix(' unanswered')} answered",),
        )
    return None


def _idle(seen: Seen) -> Diagnosis | None:
    """Judge a call that we ended for its silence."""
    if seen.reason != "idle_timeout":
        return None
    if seen.mode != "passthrough" and seen.steps and not seen.is_connected:
        return _stalled(seen)
    return Diagnosis(
        Cause.IDLE,
        f"nobody sent anything, and our idle limit ended the call ({seen.text('detail')})",
        "SSTP says hello after 60 s of silence, so an idle limit (limits.idle_timeout) of 130 s or "
        "more cuts no healthy call; if it is that long, both ends had gone",
    )


def _stalled_opening(seen: Seen) -> Diagnosis | None:
    """Judge an opening that took too long for one of the ends."""
    is_late = seen.reason == "negotiation_timeout"
    return _stalled(seen) if is_late else None


def _stalled(seen: Seen) -> Diagnosis:
    last = next(reversed(list(seen.steps)), "")
    waits_for = _WAITS_FOR.get(last, ("one of the ends", "its next step"))
    who, what = (text.format(seen.backend) for text in waits_for)
    return Diagnosis(
        Cause.OPENING_STALLED,
        f"the opening came to a stop after {last or 'the 200'}: {who} owed {what}",
        "if it is the backend's turn, look at RRAS and the RADIUS server it asks; if it is the "
        "client's, at the user who may have been asked something",
        (f"steps: {', '.join(seen.steps) or 'none'}",),
    )


_WAITS_FOR: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "": ("the client", "CALL_CONNECT_REQUEST"),
        "connect_request": ("{}", "CALL_CONNECT_ACK"),
        "connect_ack": ("{}", "the first LCP request"),
        "lcp_open": ("{}", "the first question of authentication"),
        "authentication": ("the client or {}", "the rest of authentication"),
        "authenticated": ("the client", "CALL_CONNECTED"),
    }
)


# --- the client's side, before anything was handed over -----------------------------------------

_REJECTED = frozenset(
    {
        "client_untrusted_by_peer", "client_rejected_by_peer", "client_expired_for_peer",
        "client_revoked_for_peer",
    }
)  # fmt: skip
_NO_COMMON_TLS = frozenset(
    {
        "client_no_shared_cipher", "client_no_shared_group", "client_version_unsupported",
        "client_version_refused", "client_handshake_refused",
    }
)  # fmt: skip
_SILENT_CLIENT = frozenset({"handshake_timeout", "head_timeout", "preface_timeout"})


def _client_side(seen: Seen) -> Diagnosis | None:
    """Judge what ended a call before a backend had a part in it."""
    detail = seen.text("detail")
    if seen.reason in _REJECTED:
        return Diagnosis(
            Cause.CLIENT_REJECTS_CERTIFICATE,
            f"the client does not accept the certificate we serve: {detail}",
            "see that the client trusts its root, that it holds the name the client dials, and has "
            "not expired: sstplb check says what we serve (the client's own code, such as "
            "0x800B0109, says which: give its event log with --events)",
        )
    if seen.reason in _NO_COMMON_TLS:
        return Diagnosis(
            Cause.NO_COMMON_TLS,
            f"client and balancer found no TLS in common: {detail}",
            "compare tls.min_version, tls.ciphers and the certificate's key with what the client "
            "can do",
        )
    if seen.reason in _SILENT_CLIENT:
        return Diagnosis(
            Cause.CLIENT_SILENT,
            f"the client connected and then said too little: {detail}",
            "mostly a scanner or a lost connection; if real clients do, something on the way holds "
            "back what they send (MTU, a middle box)",
        )
    return None


# --- what is left -------------------------------------------------------------------------------


def _plain(seen: Seen) -> Diagnosis | None:
    """Judge by the reason alone."""
    detail = seen.text("detail")
    if seen.reason == "call_nak":
        return Diagnosis(
            Cause.CALL_NAK,
            f"{seen.backend} did not accept the client's call request: {detail}",
            "the client asked for something other than PPP: update it",
        )
    if seen.reason == "backend_closed_in_call":
        return Diagnosis(
            Cause.CLOSED_IN_CALL,
            f"{seen.backend} closed the connection of a connected call without CALL_DISCONNECT or "
            "CALL_ABORT: its SSTP service or the machine ended, or something on the way cut it",
            f"look into the event log of {seen.backend} at that time (System, Service Control "
            "Manager 7031 and 7034: a service ended unexpectedly; Application, 1000: it crashed; "
            "was RemoteAccess or SstpSvc restarted?); if nothing is there, look for a firewall "
            "between us that resets connections",
            (f"the call had run for {float(seen.text('duration_s') or 0):.1f} s",),
        )
    if seen.reason == "malformed_stream":
        return Diagnosis(
            Cause.MALFORMED_STREAM,
            detail,
            "something on the way changed bytes, or one of the ends does not speak SSTP: capture "
            "the call (sstplb capture) and look",
        )
    if seen.reason in ("aborted_by_client", "aborted_by_backend"):
        return Diagnosis(
            Cause.ABORTED,
            detail,
            "look into the log of the side that aborted, by the correlation id "
            f"{seen.text('correlation_id')}",
            _abort_of(seen),
        )
    if seen.outcome == "refused" and seen.reason.endswith(("_max", "client_rate")):
        return Diagnosis(
            Cause.LIMIT_REACHED,
            f"a limit of ours was reached: {detail or seen.reason}",
            "if the calls were wanted, raise it under limits; if not, it did what it is for",
        )
    return None


_RULES: tuple[Callable[[Seen], Diagnosis | None], ...] = (
    _binding,
    _authentication,
    _dead_peer,
    _idle,
    _stalled_opening,
    _client_side,
    _plain,
)
"""Asked in this order; the first that knows is believed."""

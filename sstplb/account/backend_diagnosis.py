"""What a backend lacked that was asked for a call in vain, or was not even asked. Pure.

A try that failed has a reason (a slug), and an answer in words; a backend that was passed over has
its health's words. ``NO_PORTS`` and ``SERVICE_STOPPED`` answer a call alike (503): only a check
tells them apart, so what checks found later counts (``Later``).
"""

from collections.abc import Iterator, Mapping
from types import MappingProxyType

from sstplb.account.causes import Cause, Diagnosis, Later, Seen


def backend_troubles(seen: Seen) -> Iterator[Diagnosis]:
    """Yield what each backend lacked that was asked in vain, or was not even asked."""
    told = [_split(line) for line in seen.lines("tries")]
    words = iter(seen.lines("tries_why"))
    for name, reason in told:
        why = next(words, "")
        if why or reason != "backend_refused":  # without its answer nobody can tell
            yield _of_try(name, reason, why, seen)
    out: list[str] = []
    words_by_name = dict(line.partition(": ")[::2] for line in seen.lines("passed_over_why"))
    for name, reason in (_split(line) for line in seen.lines("passed_over")):
        why = words_by_name.get(name, "")
        if reason in ("down", "set_aside"):
            yield _of_health(name, reason, why)
        elif reason == "certificate_mismatch":
            yield _known_mismatch(name, seen)
        else:
            out.append(f"{name} {reason}")
    if out and len(out) == len(seen.lines("passed_over")):
        yield Diagnosis(
            Cause.BACKENDS_TAKEN_OUT,
            f"no backend may take calls: {', '.join(out)}",
            "active again: sstplb ctl enable BACKEND; calls_max: raise it or add a server",
        )


def _split(line: str) -> tuple[str, str]:
    name, _, reason = line.rpartition(":")
    return name, reason


_TRIES: Mapping[str, Cause] = MappingProxyType(
    {
        "backend_connect_failed": Cause.SERVER_UNREACHABLE,
        "backend_closed": Cause.SERVER_CLOSES,
        "backend_protocol_error": Cause.NOT_RRAS,
        "certificate_mismatch": Cause.DIFFERENT_CERTIFICATE,
        "backend_certificate_expired": Cause.BACKEND_CERTIFICATE_EXPIRED,
        "backend_certificate_not_yet_valid": Cause.BACKEND_CERTIFICATE_EXPIRED,
        "backend_certificate_untrusted": Cause.BACKEND_CERTIFICATE_UNTRUSTED,
        "backend_certificate_self_signed": Cause.BACKEND_CERTIFICATE_UNTRUSTED,
        "backend_certificate_not_pinned": Cause.BACKEND_CERTIFICATE_UNTRUSTED,
        "backend_certificate_revoked": Cause.BACKEND_CERTIFICATE_UNTRUSTED,
        "backend_certificate_weak": Cause.BACKEND_CERTIFICATE_UNTRUSTED,
        "backend_certificate_wrong_purpose": Cause.BACKEND_CERTIFICATE_UNTRUSTED,
        "backend_certificate_name_mismatch": Cause.BACKEND_CERTIFICATE_NAME,
    }
)
"""The reason of a try that failed, where it alone says the cause."""

_UNREACHED = "did not take the connection"


def _of_try(name: str, reason: str, why: str, seen: Seen) -> Diagnosis:
    if reason == "backend_refused":
        cause = _cause_of_answer(name, why, seen.later)
    elif reason == "backend_timeout":
        cause = Cause.SERVER_UNREACHABLE if _UNREACHED in why else Cause.SERVER_SILENT
    else:
        cause = _TRIES.get(reason, Cause.BACKEND_TLS)
    if cause is Cause.DIFFERENT_CERTIFICATE:
        return _known_mismatch(name, seen, why)
    return _backend(cause, name, why)


def _cause_of_answer(name: str, why: str, later: tuple[Later, ...]) -> Cause:
    """Tell a service without ports from one that is stopped, and both from something else.

    A stopped service fails the next check too (its health says so later); what answers 404 does
    not know the SSTP URI.
    """
    if " 404" in why:
        return Cause.SERVICE_STOPPED
    if " 503" not in why and " 500" not in why:
        return Cause.NOT_RRAS
    has_failed_since = any(
        found.backend == name and _cause_in_words(found.why) is Cause.SERVICE_STOPPED
        for found in later
    )
    return Cause.SERVICE_STOPPED if has_failed_since else Cause.NO_PORTS


_WORDS: tuple[tuple[str, Cause], ...] = (
    ("got 503", Cause.SERVICE_STOPPED),
    ("got 404", Cause.SERVICE_STOPPED),
    ("got 500", Cause.SERVICE_STOPPED),
    ("expected HTTP", Cause.NOT_RRAS),
    ("is no HTTP", Cause.NOT_RRAS),
    ("answered no HTTP", Cause.NOT_RRAS),
    ("answered 404", Cause.SERVICE_STOPPED),
    ("answered 5", Cause.NO_PORTS),
    ("has expired", Cause.BACKEND_CERTIFICATE_EXPIRED),
    ("not valid yet", Cause.BACKEND_CERTIFICATE_EXPIRED),
    ("name", Cause.BACKEND_CERTIFICATE_NAME),
    ("certificate is not accepted", Cause.BACKEND_CERTIFICATE_UNTRUSTED),
    ("refused the crypto binding", Cause.WRONG_OFFLOAD_HASH),
    ("binding_refused", Cause.WRONG_OFFLOAD_HASH),
    (_UNREACHED, Cause.SERVER_UNREACHABLE),
    ("cannot connect", Cause.SERVER_UNREACHABLE),
    ("no answer within", Cause.SERVER_SILENT),
    ("did not answer within", Cause.SERVER_SILENT),
    ("closed", Cause.SERVER_CLOSES),
    ("connection broke", Cause.SERVER_CLOSES),
)
"""What a check or a failed call says in words, and what that means; the first that fits."""


def _cause_in_words(why: str) -> Cause:
    return next((cause for words, cause in _WORDS if words in why), Cause.BACKEND_TLS)


def _of_health(name: str, reason: str, why: str) -> Diagnosis:
    cause = _cause_in_words(why)
    how = "its check says" if reason == "down" else "set aside after calls that failed:"
    return _backend(cause, name, f"{name}: {how} {why}")


_BACKENDS: Mapping[Cause, tuple[str, str]] = MappingProxyType(
    {
        Cause.NO_PORTS: (
            "{} has no SSTP port left: it answers checks, and refuses calls",
            "raise the number of ports (RRAS console: Ports, WAN Miniport (SSTP)), end stale "
            "connections on {}, or set its calls_max to what it can take",
        ),
        Cause.SERVICE_STOPPED: (
            "the SSTP service on {} is stopped: its port is open, for http.sys answers there, but "
            "nobody serves the SSTP URI",
            "on {}: Start-Service SstpSvc, RemoteAccess; then look why it stopped",
        ),
        Cause.SERVER_SILENT: (
            "{} does not answer: connections to it stay without a word",
            "look whether {} hangs (CPU, memory, disk) or a firewall lets connections in but no "
            "answer out; if it is only slow, raise the time limits of check and pool",
        ),
        Cause.SERVER_UNREACHABLE: (
            "{} cannot be reached: nobody listens at its address, or the way there is closed",
            "see that the machine runs, the address and port in the configuration are right, and "
            "no firewall is in the way",
        ),
        Cause.SERVER_CLOSES: (
            "{} closes connections before it answers",
            "see whether it speaks what we speak to it (TLS or plain HTTP, see transport), and "
            "whether a device in between resets connections",
        ),
        Cause.NOT_RRAS: (
            "what answers at the address of {} is not an SSTP server",
            "see that the address and port are RRAS's own, and not a web site's",
        ),
        Cause.BACKEND_CERTIFICATE_EXPIRED: (
            "the certificate of {} has expired, or is not valid yet",
            "renew it on {}, and here too, for both must have the same one; check the clocks",
        ),
        Cause.BACKEND_CERTIFICATE_UNTRUSTED: (
            "we do not trust the certificate of {}",
            "name its root in the pool's tls.ca_file, or issue one for {} from a CA that is there",
        ),
        Cause.BACKEND_CERTIFICATE_NAME: (
            "the certificate of {} does not hold the name we asked for",
            "set the pool's tls.server_name to a name in it, or issue one for {} with the name",
        ),
        Cause.BACKEND_TLS: (
            "TLS with {} failed",
            "compare versions and ciphers with {}: sstplb probe shows the handshake",
        ),
        Cause.WRONG_OFFLOAD_HASH: (
            "{} refuses crypto bindings: it expects another certificate than the one we serve",
            "run on {} what sstplb fingerprint shows: Enable-SSTPOffload -CertificateHash …",
        ),
    }
)


def _backend(cause: Cause, name: str, why: str) -> Diagnosis:
    sentence, remedy = _BACKENDS[cause]
    evidence = (why,) if why else ()
    return Diagnosis(cause, sentence.format(name), remedy.format(name), evidence)


def _known_mismatch(name: str, seen: Seen, why: str = "") -> Diagnosis:
    """Judge what the same-certificate rule kept us from: nothing was torn down."""
    if seen.mode == "offload":
        remedy = (
            f"on {name}: Enable-SSTPOffload -CertificateHash "
            f"{seen.text('served_sha256').upper() or '<see sstplb fingerprint>'} -Restart; then "
            "declare it (rras_certificate_sha256)"
        )
        cause = Cause.WRONG_OFFLOAD_HASH
    else:
        remedy = f"install the same certificate, with its key, here and on {name}"
        cause = Cause.DIFFERENT_CERTIFICATE
    sentence = (
        f"{name} expects another certificate than the one we serve, so no call was sent there: it "
        "would connect, then disconnect"
    )
    return Diagnosis(cause, sentence, remedy, (why,) if why else ())

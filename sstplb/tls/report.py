"""OpenSSL's errors as sentences: what happened, and who has to do what.

OpenSSL says ``[('SSL routines', '', 'tlsv1 alert unknown ca')]``. An operator needs to hear that
*the other side* does not trust *our* certificate, and that the root belongs into its store. The
table below is the whole translation: reason → (slug, sentence). Reasons it does not know are
passed on as they are.

An alert's spelling depends on OpenSSL's version (``sslv3 alert bad certificate`` in 3.0,
``ssl/tls alert …`` in 3.2, ``tls alert …`` in 4.0), so the table names alerts without it.
"""

import re
import ssl
from collections.abc import Mapping
from types import MappingProxyType

from OpenSSL import SSL

from sstplb.errors import TlsError

_ALERT_SPELLING = re.compile(r"(?:sslv3|ssl/tls|tlsv13|tlsv1|tls) (?:alert )?")

REASONS: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "alert unknown ca": (
            "untrusted_by_peer",
            "the other side does not trust the certificate it was shown: "
            "put its root into the other side's store of trusted roots",
        ),
        "alert bad certificate": (
            "rejected_by_peer",
            "the other side rejected the certificate it was shown: most often it does not hold "
            "the name that was asked for",
        ),
        "alert certificate unknown": (
            "rejected_by_peer",
            "the other side rejected the certificate it was shown, without saying why "
            "(Windows says so for an untrusted root or a name that does not match)",
        ),
        "alert certificate expired": (
            "expired_for_peer",
            "the other side holds the certificate it was shown for expired: renew it, "
            "or set the other side's clock",
        ),
        "alert certificate revoked": (
            "revoked_for_peer",
            "the other side holds the certificate it was shown for revoked",
        ),
        "alert unsupported certificate": (
            "rejected_by_peer",
            "the other side cannot use the kind of certificate it was shown: serve an RSA one",
        ),
        "alert handshake failure": (
            "handshake_refused",
            "the other side refused the handshake: most often no cipher in common, or it wants "
            "a client certificate",
        ),
        "alert insufficient security": (
            "handshake_refused",
            "the other side holds all ciphers it was offered for too weak",
        ),
        "alert protocol version": (
            "version_refused",
            "the other side speaks none of the TLS versions offered (see min_version, max_version)",
        ),
        "alert unrecognized name": (
            "name_refused",
            "the other side has no certificate for the server name it was asked for",
        ),
        "alert internal error": ("peer_internal_error", "the other side failed internally"),
        "alert decrypt error": (
            "decrypt_error",
            "the other side could not verify the handshake",
        ),
        "alert access denied": ("access_denied", "the other side denied access"),
        "alert user cancelled": ("cancelled_by_peer", "the other side gave up the handshake"),
        "alert bad record mac": (
            "damaged_for_peer",
            "a TLS record of ours came damaged to the other side: something on the way changed "
            "bytes",
        ),
        "alert certificate required": (
            "certificate_required",
            "the other side wants a client certificate: SSTP clients have none",
        ),
        "no shared cipher": (
            "no_shared_cipher",
            "no cipher in common: the client offers none of those in tls.ciphers that fit the "
            "certificate's key",
        ),
        "no suitable signature algorithm": (
            "no_shared_cipher",
            "no signature algorithm in common that fits the certificate's key",
        ),
        "no suitable key share": (
            "no_shared_group",
            "no key exchange group in common: the client offers none that OpenSSL has enabled",
        ),
        "unsupported protocol": (
            "version_unsupported",
            "the client speaks only TLS versions older than tls.min_version",
        ),
        "no protocols available": (
            "version_unsupported",
            "no TLS version is left between min_version and max_version",
        ),
        "wrong version number": (
            "not_tls",
            "what came is not TLS: does the other side speak plain HTTP on this port?",
        ),
        "http request": ("not_tls", "a plain HTTP request came where TLS was expected"),
        "packet length too long": (
            "not_tls",
            "what came is not TLS: does the other side speak plain HTTP on this port?",
        ),
        "decryption failed or bad record mac": (
            "damaged_record",
            "a TLS record came damaged: something on the way changed bytes",
        ),
        "encrypted length too long": (
            "damaged_record",
            "a record longer than TLS allows came: something on the way changed bytes",
        ),
        "bad record type": ("damaged_record", "bytes came that are not a TLS record"),
        "unexpected message": ("unexpected_message", "a TLS message came out of order"),
        "no renegotiation": (
            "renegotiation",
            "the other side asked for renegotiation, which is off",
        ),
    }
)

VERIFY_REASONS: Mapping[int, tuple[str, str]] = MappingProxyType(
    {
        2: ("untrusted", "its issuer's certificate is not among the trusted CAs ({ca})"),
        10: ("expired", "it has expired: renew it"),
        9: ("not_yet_valid", "it is not valid yet: is the clock right?"),
        18: ("self_signed", "it is self-signed: trust it with tls.verify: pin, or issue another"),
        19: ("untrusted", "the root at the end of its chain is not trusted ({ca})"),
        20: ("untrusted", "its issuer is not among the trusted CAs ({ca})"),
        21: ("untrusted", "its chain is incomplete: the server must send the intermediates"),
        23: ("revoked", "it is revoked"),
        24: ("untrusted", "a certificate in its chain is no CA"),
        26: ("wrong_purpose", "it is not meant for servers (EKU serverAuth is missing)"),
        66: ("weak", "its key is too short: renew it with RSA-2048 or P-256"),
        67: ("weak", "the key of a CA in its chain is too short"),
        68: ("weak", "it or a CA in its chain is signed with SHA-1 or MD5: renew it with SHA-256"),
    }
)
"""OpenSSL's X509_V_ERR numbers (x509_vfy.h). ``{ca}``: what names the CAs to trust."""


_NOT_TLS = "not_tls"
RAGGED_END = "tls_closed"
"""The slug for an end without close_notify: an ordinary end, except during a handshake."""


def ragged_end() -> TlsError:
    """Return the error for a connection that ended in the middle of TLS."""
    return TlsError("the other side closed the connection during TLS", reason=RAGGED_END)


def translate(error: SSL.Error) -> TlsError:
    """Return pyOpenSSL's error as ours, with a sentence and a slug."""
    stack = error.args[0] if error.args and isinstance(error.args[0], list) else []
    reasons = [str(entry[-1]) for entry in stack if entry and entry[-1]]
    return ragged_end() if isinstance(error, SSL.SysCallError) else sentence_for(reasons)


def sentence_for(reasons: list[str]) -> TlsError:
    """Return OpenSSL's reasons as our error: the first that is known counts, none is an end."""
    lowered = [reason.lower() for reason in reasons]
    for reason in lowered:
        known = _ALERT_SPELLING.sub("alert ", reason, count=1)
        if known in REASONS:
            slug, sentence = REASONS[known]
            return TlsError(sentence, reason=slug)
    if not lowered or "unexpected eof while reading" in lowered:
        return ragged_end()
    return TlsError(f"TLS failed: {'; '.join(lowered)}")


def after_handshake(error: TlsError) -> TlsError:
    """Return an error of the records as it is meant once hands are shaken.

    TLS 1.2 calls garbage "wrong version number" even then; who spoke TLS so far is no stranger.
    """
    if error.reason != _NOT_TLS:
        return error
    slug, sentence = REASONS["bad record type"]
    return TlsError(sentence, reason=slug)


def translate_verify(number: int, words: str = "", *, ca: str = "tls.ca_file") -> TlsError:
    """Return a failed verification as our error; ``number`` is an X509_V_ERR.

    ``words``: OpenSSL's own, for a number that is not known. ``ca`` names the CAs to trust.
    """
    unknown = words or f"OpenSSL's reason {number}"
    slug, sentence = VERIFY_REASONS.get(number, ("untrusted", unknown))
    return TlsError(
        f"the server's certificate is not accepted: {sentence.replace('{ca}', ca)}",
        reason=f"certificate_{slug}",
    )


def translate_standard(error: ssl.SSLError, *, ca: str) -> TlsError:
    """Return an error of the standard library's TLS as ours. ``ca`` names the CAs to trust."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return translate_verify(error.verify_code, error.verify_message.rstrip("."), ca=ca)
    return sentence_for([error.reason.replace("_", " ")] if error.reason else [])

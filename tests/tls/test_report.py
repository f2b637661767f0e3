"""Sentences for what really happens: each from a real handshake with the standard library."""

import os
import ssl
from collections.abc import Callable
from datetime import timedelta

import pytest
from OpenSSL import SSL

from sstplb.config.schema import TlsVersion
from sstplb.errors import TlsError
from sstplb.lab.pki import Issued, LabPki
from sstplb.tls.certificate import now_utc
from sstplb.tls.report import translate
from tests.tls.test_engine import (
    NAME,
    VERSIONS,
    Library,
    carry,
    failure,
    library_client,
    library_server,
    our_client,
    our_server,
    pin_version,
    shake,
)


def alerting_server(issued: Issued, alert: ssl.AlertDescription) -> Library:
    """A server that answers every ClientHello with that alert."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(issued.chain, issued.key)
    context.sni_callback = lambda *_: int(alert)
    return Library(context, server_side=True)


def demanding_server(issued: Issued, pki: LabPki, version: TlsVersion) -> Library:
    """A server that wants a client certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(issued.chain, issued.key)
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(pki.root_path)
    pin_version(context, version)
    return Library(context, server_side=True)


def rsa_only_server(issued: Issued) -> Library:
    """A server whose ciphers do not fit its P-256 key."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(issued.chain, issued.key)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers("ECDHE-RSA-AES128-GCM-SHA256")
    return Library(context, server_side=True)


def said(ours: TlsError | None) -> str:
    assert ours is not None, "the handshake was expected to fail"
    assert not str(ours).startswith("TLS failed"), "OpenSSL's words instead of a sentence"
    return ours.reason


@pytest.mark.parametrize("version", VERSIONS)
def test_a_client_that_refuses_our_certificate_says_why(
    pki: LabPki, served: Issued, version: TlsVersion
) -> None:
    expired = pki.issue("expired", (NAME,), not_after=now_utc() - timedelta(days=1))
    ours, _ = failure(our_server(expired), library_client(pki, version))
    assert said(ours) == "expired_for_peer"
    ours, _ = failure(our_server(served), library_client(pki, version, "elsewhere.test"))
    assert said(ours) == "rejected_by_peer"


@pytest.mark.parametrize(
    ("alert", "reason"),
    [
        ("CERTIFICATE_UNKNOWN", "rejected_by_peer"),  # what Windows says
        ("UNSUPPORTED_CERTIFICATE", "rejected_by_peer"),
        ("CERTIFICATE_REVOKED", "revoked_for_peer"),
        ("UNKNOWN_CA", "untrusted_by_peer"),
        ("HANDSHAKE_FAILURE", "handshake_refused"),
        ("INSUFFICIENT_SECURITY", "handshake_refused"),
        ("PROTOCOL_VERSION", "version_refused"),
        ("UNRECOGNIZED_NAME", "name_refused"),
        ("INTERNAL_ERROR", "peer_internal_error"),
        ("ACCESS_DENIED", "access_denied"),
        ("DECRYPT_ERROR", "decrypt_error"),
        ("USER_CANCELLED", "cancelled_by_peer"),
        ("BAD_RECORD_MAC", "damaged_for_peer"),
    ],
)
def test_every_alert_that_is_met_in_the_field_has_a_sentence(
    pki: LabPki, served: Issued, alert: str, reason: str
) -> None:
    number = getattr(ssl, f"ALERT_DESCRIPTION_{alert}")
    ours, _ = failure(our_client(pki)[0], alerting_server(served, number))
    assert said(ours) == reason


@pytest.mark.parametrize("spelling", ["sslv3 alert", "ssl/tls alert", "tls alert"])
def test_an_alert_is_known_in_the_spelling_of_every_openssl(spelling: str) -> None:
    error = translate(SSL.Error([("SSL routines", "", f"{spelling} certificate unknown")]))
    assert error.reason == "rejected_by_peer"


def test_what_openssl_says_and_we_do_not_know_is_passed_on() -> None:
    error = translate(SSL.Error([("SSL routines", "", "moon phase")]))
    assert (str(error), error.reason) == ("TLS failed: moon phase", "tls_error")


def test_a_backend_without_a_common_cipher(pki: LabPki, served: Issued) -> None:
    ours, _ = failure(our_client(pki)[0], rsa_only_server(served))
    assert said(ours) == "handshake_refused"


def test_a_backend_of_old_versions(pki: LabPki, served: Issued) -> None:
    engine, _ = our_client(pki, min_version=TlsVersion.TLS13)
    ours, _ = failure(engine, library_server(served, TlsVersion.TLS12))
    assert said(ours) == "version_refused"


@pytest.mark.parametrize(
    ("version", "reason"),
    [(TlsVersion.TLS12, "handshake_refused"), (TlsVersion.TLS13, "certificate_required")],
)
def test_a_backend_that_wants_a_client_certificate(
    pki: LabPki, served: Issued, version: TlsVersion, reason: str
) -> None:
    ours, _ = failure(our_client(pki)[0], demanding_server(served, pki, version))
    assert said(ours) == reason


def test_a_backend_of_an_unknown_ca(
    pki: LabPki, served: Issued, tmp_path_factory: pytest.TempPathFactory
) -> None:
    stranger = LabPki(tmp_path_factory.mktemp("stranger"))
    ours, _ = failure(our_client(pki, ca_file=stranger.root_path)[0], library_server(served))
    assert said(ours) == "certificate_untrusted"


GARBAGE: dict[str, Callable[[], bytes]] = {
    "text": lambda: b"hello, this is no TLS at all, and a little more of it",
    "another protocol": lambda: b"GET / HTTP/1.1\r\n\r\n",
    "a forged record": lambda: b"\x17\x03\x03\x00\x40" + os.urandom(64),
    "an oversized record": lambda: b"\x17\x03\x03\xff\xff" + os.urandom(64),
    "a forged alert": lambda: b"\x15\x03\x03\x00\x02\x02\x28",
}


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("kind", GARBAGE)
def test_garbage_after_the_handshake_is_damage_and_no_stranger(
    pki: LabPki, served: Issued, version: TlsVersion, kind: str
) -> None:
    engine, library = our_server(served), library_client(pki, version)
    shake(engine, library)
    carry(engine, library)
    engine.receive_ciphertext(GARBAGE[kind]())
    with pytest.raises(TlsError) as caught:
        engine.read(100)
    assert said(caught.value) == "damaged_record"

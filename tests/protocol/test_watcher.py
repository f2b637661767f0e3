"""The watcher sees the same whatever the split, and names what went wrong."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sstplb.config.schema import Follow
from sstplb.protocol import binding, packet
from sstplb.protocol.packet import CryptoBinding, StatusInfo
from sstplb.protocol.registry import AttributeId, HashProtocol, MessageType, Status
from sstplb.protocol.watcher import (
    ALL_BYTES,
    ENDING_BYTES_MAX,
    PACKETS_AFTER_CONNECTED,
    CallPhase,
    Watcher,
    may_end_call,
)

NONCE = bytes(range(32))
SERVED = binding.certificate_hash(HashProtocol.SHA256, b"our leaf")
DATA = packet.data_packet(b"\xff\x03\x00\x21" + bytes(1400))
REFUSAL = packet.abort(StatusInfo(AttributeId.CRYPTO_BINDING, Status.VALUE_NOT_SUPPORTED)).encode()
ECHO = packet.Message(MessageType.ECHO_REQUEST).encode()
ACK = packet.connect_ack(NONCE, 3).encode()


def connected(seen: bytes = SERVED, nonce: bytes = NONCE, hash_protocol: int = 2) -> bytes:
    return packet.connected(CryptoBinding(hash_protocol, nonce, seen, bytes(32))).encode()


def watch(follow: Follow = Follow.FULL) -> Watcher:
    return Watcher(follow, frozenset({SERVED}))


def opened(follow: Follow = Follow.FULL, **fields: object) -> Watcher:
    watcher = watch(follow)
    watcher.from_client(packet.connect_request().encode(), 0.0)
    watcher.from_backend(ACK, 0.0)
    watcher.from_client(connected(**fields), 0.0)  # type: ignore[arg-type]  # the fields of connected
    return watcher


def test_a_good_opening_is_followed_without_a_fault() -> None:
    watcher = opened()
    assert watcher.phase is CallPhase.CONNECTED
    assert watcher.fault is None
    assert (watcher.packets_from_client, watcher.packets_from_backend) == (2, 1)


@given(st.lists(st.integers(1, 3000), min_size=1, max_size=60))
def test_any_split_gives_the_same_view(sizes: list[int]) -> None:
    stream = packet.connect_request().encode() + DATA * 3 + connected() + DATA + DATA[:50]
    watcher, at = watch(), 0
    watcher.from_backend(ACK, 0.0)
    for size in sizes:
        watcher.from_client(stream[at : at + size], 0.0)
        at += size
    watcher.from_client(stream[at:], 0.0)
    assert watcher.packets_from_client == 7
    assert watcher.phase is CallPhase.CONNECTED
    assert watcher.fault is None


def test_byte_by_byte() -> None:
    watcher = watch()
    for byte in packet.connect_request().encode() + DATA + connected():
        watcher.from_client(bytes([byte]), 0.0)
    assert watcher.packets_from_client == 3
    assert watcher.phase is CallPhase.CONNECTED


@pytest.mark.parametrize(
    ("reason", "fields"),
    [
        ("client_certificate_hash_mismatch", {"seen": bytes(32)}),
        ("nonce_not_echoed", {"nonce": bytes(32)}),
        ("hash_not_offered", {"hash_protocol": 4}),
    ],
)
def test_a_wrong_binding_is_named(reason: str, fields: dict[str, object]) -> None:
    fault = opened(**fields).fault  # type: ignore[arg-type]  # the fields of connected
    assert fault is not None
    assert fault.reason == reason


def test_a_refused_binding_is_named_with_the_clients_hash() -> None:
    watcher = opened()
    watcher.from_backend(DATA + REFUSAL, 0.0)
    assert watcher.fault is not None
    assert watcher.fault.reason == "binding_refused"
    assert SERVED.hex() in watcher.fault.sentence


def test_following_the_opening_only_still_sees_the_refusal() -> None:
    watcher = opened(Follow.OPENING)
    watcher.from_backend(DATA * (PACKETS_AFTER_CONNECTED - 1), 0.0)
    assert watcher.looks_at_bytes == ALL_BYTES
    watcher.from_backend(REFUSAL, 0.0)
    assert watcher.fault is not None
    assert watcher.fault.reason == "binding_refused"


def test_after_the_opening_only_endings_are_looked_at() -> None:
    watcher = opened(Follow.OPENING)
    watcher.from_backend(DATA * PACKETS_AFTER_CONNECTED, 0.0)
    assert watcher.looks_at_bytes == ENDING_BYTES_MAX
    assert watcher.packets_from_client is None, "from now on they are not counted"
    watcher.from_client(DATA * 10, 0.0)
    watcher.from_client(b"\x10\x01\x00\x14 a lie in the middle of a packet", 0.0)
    watcher.from_client(ECHO, 0.0)
    ending = watcher.ending
    assert ending is None
    watcher.from_client(packet.disconnect().encode(), 0.0)
    assert watcher.ending is not None
    assert watcher.ending.reason == "disconnected_by_client"


def test_following_off_looks_at_nothing() -> None:
    watcher = opened(Follow.OFF)
    assert watcher.looks_at_bytes == 0
    watcher.from_client(packet.disconnect().encode(), 0.0)
    assert watcher.ending is None
    assert watcher.packets_from_client is None


@pytest.mark.parametrize(
    ("stream", "reason"),
    [
        (packet.connect_nak(StatusInfo(1, Status.VALUE_NOT_SUPPORTED)).encode(), "call_nak"),
        (packet.abort(StatusInfo(0, Status.NEGOTIATION_TIMEOUT)).encode(), "negotiation_timeout"),
        (packet.abort(StatusInfo(0, Status.RETRY_COUNT_EXCEEDED)).encode(), "aborted_by_backend"),
        (b"HTTP/1.1 503", "malformed_stream"),
        (b"\x10\x01\x00\x08\x00\x02\x00\x09", "malformed_stream"),
    ],
)
def test_faults_of_the_backend_are_named(stream: bytes, reason: str) -> None:
    watcher = watch()
    watcher.from_backend(stream, 0.0)
    assert watcher.fault is not None
    assert watcher.fault.reason == reason


def test_who_is_waited_for_is_blamed_for_a_negotiation_timeout() -> None:
    timeout = packet.abort(StatusInfo(0, Status.NEGOTIATION_TIMEOUT)).encode()
    for said_before, waits, blamed in (
        (b"", "backend", "client"),  # no call request ever came
        (packet.connect_request().encode(), "backend", "backend"),
        (packet.connect_request().encode(), "client", "backend"),
    ):
        watcher = watch()
        watcher.from_client(said_before, 0.0)
        (watcher.from_backend if waits == "backend" else watcher.from_client)(timeout, 0.0)
        assert watcher.fault is not None
        assert (watcher.fault.reason, watcher.fault.side) == ("negotiation_timeout", blamed)


def test_a_polite_end_is_no_fault() -> None:
    watcher = opened()
    watcher.from_client(packet.disconnect().encode(), 0.0)
    watcher.from_backend(packet.DISCONNECT_ACK.encode(), 0.0)
    assert watcher.fault is None
    assert watcher.ending is not None
    assert watcher.ending.reason == "disconnected_by_client"


GOODBYES = (
    packet.disconnect().encode(),
    packet.disconnect(StatusInfo()).encode(),
    packet.DISCONNECT_ACK.encode(),
    REFUSAL,
)


@pytest.mark.parametrize("goodbye", GOODBYES)
@pytest.mark.parametrize("before", [b"", ECHO, DATA, DATA * 9])
def test_a_goodbye_behind_data_is_seen_at_a_glance_whole_or_torn(
    goodbye: bytes, before: bytes
) -> None:
    assert may_end_call(memoryview(before + goodbye))
    for size in range(1, len(goodbye)):
        assert may_end_call(memoryview(goodbye[size:])), "the rest of one that came in two chunks"


@pytest.mark.parametrize(
    "chunk", [DATA, DATA * 9, packet.ECHO_RESPONSE.encode(), DATA + DATA[:900]]
)
def test_a_chunk_without_a_goodbye_is_told_apart(chunk: bytes) -> None:
    assert not may_end_call(memoryview(chunk))


def test_in_midst_is_who_is_connected_and_has_seen_nobody_end_it() -> None:
    assert not watch().is_in_midst
    assert opened().is_in_midst
    terminate = packet.data_packet(b"\xff\x03\xc0\x21\x05\x02\x00\x04")
    for end in (*GOODBYES, terminate, ECHO):
        watcher = opened()
        watcher.from_backend(end, 0.0)
        assert not watcher.is_in_midst
    watcher = opened()
    watcher.from_backend(ECHO, 0.0)
    watcher.from_client(packet.ECHO_RESPONSE.encode(), 1.0)
    assert watcher.is_in_midst, "its hello was answered"

"""The caller and the simulated server on a fake wire: two pure machines and a clock of ours."""

import os
from collections.abc import Callable
from ipaddress import IPv4Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sstplb.lab.rras_call import BOTH_HASHES, RrasCall, ServerSettings
from sstplb.protocol import binding, ipv4, packet
from sstplb.protocol.caller import CallerMachine, CallerSettings, StepKind
from sstplb.protocol.head import simple_answer, sstp_response
from sstplb.protocol.packet import StatusInfo
from sstplb.protocol.registry import HashProtocol, Status

LEAF = b"the leaf as the client saw it"
ANSWER = sstp_response("Mon, 21 Feb 2011 05:37:00 GMT")
HASHES = frozenset(binding.certificate_hash(h, LEAF) for h in HashProtocol)


class Wire:
    """A caller and a server; every chunk may be cut by ``cut`` on its way."""

    def __init__(
        self,
        cut: Callable[[bytes], list[bytes]] = lambda data: [data],
        *,
        leaf: bytes = LEAF,
        password: str = "secret",
        hash_protocols: int = BOTH_HASHES,
        stops_at_ack: bool = False,
    ) -> None:
        self.now = 100.0
        self.cut = cut
        self.caller = CallerMachine(
            CallerSettings("vpn.test", "{X}", leaf, "ada", password, stops_at_ack=stops_at_ack),
            os.urandom,
        )
        settings = ServerSettings(
            {"ada": "secret"}, IPv4Address("10.9.0.1"), HASHES, hash_protocols=hash_protocols
        )
        self.events: list[tuple[int, str]] = []
        self.server = RrasCall(
            settings,
            IPv4Address("10.9.0.2"),
            os.urandom,
            lambda number, text: self.events.append((number, text)),
            self.now,
        )

    def open(self) -> None:
        self.caller.start(self.now)
        self.run(self.caller.receive(ANSWER, self.now))

    def run(self, to_server: bytes) -> None:
        """Carry bytes to and fro until nobody has anything to say."""
        while to_server:
            to_client = b"".join(
                self.server.receive(part, self.now) for part in self.cut(to_server)
            )
            to_server = b"".join(
                self.caller.receive(part, self.now) for part in self.cut(to_client) if part
            )

    def reason(self) -> str | None:
        return self.caller.failure.reason if self.caller.failure else None


@given(st.integers(1, 50))
def test_any_split_connects(size: int) -> None:
    wire = Wire(lambda data: [data[at : at + size] for at in range(0, len(data), size)])
    wire.open()
    assert wire.caller.connected
    assert wire.server.connected
    assert wire.caller.address == IPv4Address("10.9.0.2")
    kinds = [step.kind for step in wire.caller.steps]
    assert kinds == [
        StepKind.REQUESTED, StepKind.ANSWERED, StepKind.ACCEPTED, StepKind.LINK,
        StepKind.AUTHENTICATED, StepKind.BOUND, StepKind.ADDRESS,
    ]  # fmt: skip
    assert wire.events[0][0] == 20274


def test_ip_goes_through_and_the_call_ends_politely() -> None:
    wire = Wire()
    wire.open()
    here, there = IPv4Address("10.9.0.2"), IPv4Address("10.9.0.1")
    wire.run(wire.caller.send_ip(ipv4.echo_request(here, there, 1, 2, b"hi")))
    (got,) = wire.caller.take_ip()
    parsed = ipv4.parse(got)
    assert parsed is not None
    assert ipv4.is_echo_reply(parsed, 1, 2, b"hi")
    wire.run(wire.caller.hang_up(wire.now))
    assert wire.caller.finished
    assert wire.server.finished
    assert wire.caller.failure is None


@pytest.mark.parametrize(
    ("wire", "reason", "refusal"),
    [
        (Wire(leaf=b"another leaf"), "binding_refused", "certificate_hash_mismatch"),
        (Wire(password="wrong"), "authentication_failed", ""),
        (Wire(hash_protocols=HashProtocol.SHA1), None, ""),
        (Wire(stops_at_ack=True), None, ""),
    ],
)
def test_how_a_call_can_go(wire: Wire, reason: str | None, refusal: str) -> None:
    wire.open()
    assert wire.reason() == reason
    assert wire.server.binding_failure == refusal


def test_stopping_at_the_ack_ends_politely() -> None:
    wire = Wire(stops_at_ack=True)
    wire.open()
    assert wire.caller.finished
    assert wire.server.finished
    assert [s.kind for s in wire.caller.steps][-2:] == [StepKind.ACCEPTED, StepKind.DISCONNECTED]


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (simple_answer(503, "Service Unavailable"), "http_status"),
        (b"\x00" * 20 + b"\r\n\r\n", "bad_head"),
        (ANSWER + b"\x99\x00\x00\x08", "bad_packet"),
        (
            ANSWER + packet.connect_nak(StatusInfo(1, Status.VALUE_NOT_SUPPORTED)).encode(),
            "call_nak",
        ),
        (ANSWER + packet.abort(StatusInfo()).encode(), "aborted"),
        (ANSWER + packet.disconnect().encode(), "disconnected"),
        (ANSWER + packet.ECHO_REQUEST.encode(), "unexpected_message"),
        (ANSWER + packet.Message(2).encode(), "binding_missing"),
    ],
)
def test_what_a_server_can_do_wrong(answer: bytes, reason: str) -> None:
    wire = Wire()
    wire.caller.start(wire.now)
    wire.caller.receive(answer, wire.now)
    assert wire.reason() == reason
    assert wire.caller.finished
    assert wire.caller.wake_at is None


def test_a_server_that_closes_or_says_nothing() -> None:
    wire = Wire()
    wire.caller.start(wire.now)
    wire.caller.closed(wire.now)
    assert wire.reason() == "server_closed"
    wire = Wire()
    wire.caller.start(wire.now)
    assert wire.caller.wake_at == wire.now + 60
    wire.caller.wake(wire.now + 60)
    assert wire.reason() == "http_timeout"
    wire = Wire()
    wire.caller.start(wire.now)
    wire.caller.receive(ANSWER, wire.now)
    wire.caller.wake(wire.now + 60)
    assert wire.reason() == "negotiation_timeout"


def test_silence_is_met_with_a_hello_and_then_with_the_end() -> None:
    wire = Wire()
    wire.open()
    wire.now += 60
    assert wire.caller.wake_at == wire.now
    hello = wire.caller.wake(wire.now)
    assert hello == packet.ECHO_REQUEST.encode()
    wire.run(hello)
    assert wire.caller.hellos_answered == 1
    wire.now += 60
    assert wire.caller.wake(wire.now) == packet.ECHO_REQUEST.encode()
    wire.now += 60
    wire.caller.wake(wire.now)
    assert wire.reason() == "hello_timeout"


def test_the_server_says_hello_too_and_drops_who_is_dead() -> None:
    wire = Wire()
    wire.open()
    assert wire.server.wake(wire.now + 60) == packet.ECHO_REQUEST.encode()
    assert not wire.server.finished
    wire.server.wake(wire.now + 120)
    assert wire.server.finished


def test_a_half_opened_call_is_aborted_by_the_server_in_time() -> None:
    wire = Wire()
    assert wire.server.wake_at == wire.now + 60
    out = wire.server.wake(wire.now + 60)
    (got,) = packet.PacketReader().feed(out)
    status = packet.parse_message(got.payload).status
    assert status is not None
    assert status.status == Status.NEGOTIATION_TIMEOUT
    wire.server.wake(wire.now + 63)
    assert wire.server.finished


def test_echo_before_connected_is_a_protocol_error_for_the_server() -> None:
    wire = Wire()
    out = wire.server.receive(packet.ECHO_REQUEST.encode(), wire.now)
    (got,) = packet.PacketReader().feed(out)
    assert packet.parse_message(got.payload).name == "CALL_ABORT"

"""Two ends and a fake wire: they agree, whatever gets lost, and refuse what they must."""

from collections.abc import Callable
from ipaddress import IPv4Address
from itertools import count

import pytest

from sstplb.protocol import ipv4, mschap, ppp
from sstplb.protocol.ppp import Code, PppPacket, Protocol
from sstplb.protocol.ppp_peer import (
    AddressAssigned,
    Authenticated,
    Authentication,
    AuthenticationFailed,
    ClientEnd,
    LinkOpened,
    PppEvent,
    PppPeer,
    ServerEnd,
    Terminated,
)

SERVER_ADDRESS, CLIENT_ADDRESS = IPv4Address("10.9.0.1"), IPv4Address("10.9.0.7")


def numbered() -> Callable[[int], bytes]:
    """Random bytes that are the same in every run."""
    numbers = count(1)
    return lambda size: next(numbers).to_bytes(4, "big") * (size // 4)


class Wire:
    """A client and a server; ``lose`` says which frame (counted from 0) gets lost."""

    def __init__(
        self,
        authentication: Authentication = Authentication.MSCHAPV2,
        password: str = "secret",
        lose: Callable[[int], bool] = lambda _: False,
    ) -> None:
        self.client = PppPeer(ClientEnd("CORP\\ada", password), numbered())
        self.server = PppPeer(
            ServerEnd({"ada": "secret"}, SERVER_ADDRESS, CLIENT_ADDRESS, authentication), numbered()
        )
        self.lose, self.number, self.now = lose, 0, 0.0
        self.client_events: list[PppEvent] = []
        self.server_events: list[PppEvent] = []

    def run(self, seconds: float = 30.0) -> None:
        to_server, to_client = self.client.start(0.0), self.server.start(0.0)
        while True:
            while to_server or to_client:
                to_server, to_client = self._carry(to_server, to_client)
            self.client_events += self.client.take_events()
            self.server_events += self.server.take_events()
            wakes = [t for t in (self.client.wake_at, self.server.wake_at) if t is not None]
            if not wakes or min(wakes) > seconds:
                return
            self.now = min(wakes)
            to_server, to_client = self.client.wake(self.now), self.server.wake(self.now)

    def _carry(
        self, to_server: list[bytes], to_client: list[bytes]
    ) -> tuple[list[bytes], list[bytes]]:
        back = [
            f for frame in to_server if self._kept() for f in self.server.receive(frame, self.now)
        ]
        on = [
            f for frame in to_client if self._kept() for f in self.client.receive(frame, self.now)
        ]
        return on, back

    def _kept(self) -> bool:
        self.number += 1
        return not self.lose(self.number - 1)


@pytest.mark.parametrize("authentication", list(Authentication))
def test_two_ends_agree(authentication: Authentication) -> None:
    wire = Wire(authentication)
    wire.run()
    assert wire.client_events == [
        LinkOpened(authentication),
        Authenticated("CORP\\ada", authentication),
        AddressAssigned(CLIENT_ADDRESS, SERVER_ADDRESS),
    ]
    assert wire.server_events == wire.client_events
    assert wire.client.hlak == wire.server.hlak
    assert (wire.client.hlak == bytes(32)) == (authentication is Authentication.PAP)


@pytest.mark.parametrize("lost", range(5))
def test_any_one_frame_may_get_lost_while_the_link_opens(lost: int) -> None:
    wire = Wire(lose=lambda number: number == lost)
    wire.run()
    assert wire.client_events[-1] == AddressAssigned(CLIENT_ADDRESS, SERVER_ADDRESS)
    assert wire.server_events == wire.client_events


def test_a_server_that_is_deaf_at_first_is_asked_again() -> None:
    wire = Wire(lose=lambda number: number < 6)
    wire.run()
    assert wire.client_events[-1] == AddressAssigned(CLIENT_ADDRESS, SERVER_ADDRESS)


def test_a_server_that_never_answers_is_given_up() -> None:
    wire = Wire(lose=lambda _: True)
    wire.run()
    assert wire.client_events == [Terminated("no answer to 10 LCP requests")]


@pytest.mark.parametrize("authentication", list(Authentication))
def test_a_wrong_password_is_refused_without_being_shown(authentication: Authentication) -> None:
    wire = Wire(authentication, password="wr0ng")
    wire.run(3.0)
    refusal = AuthenticationFailed("CORP\\ada", "wrong user name or password")
    assert wire.client_events[-1] == refusal
    assert wire.server_events[-1] == refusal
    assert wire.client.hlak is None
    assert "wr0ng" not in repr((wire.client.end, wire.client_events))


def test_a_server_that_does_not_know_the_password_is_refused() -> None:
    client = PppPeer(ClientEnd("ada", "secret"), numbered())
    wire = Wire()
    wire.client = client
    wire.run()
    assert isinstance(wire.client_events[-1], AddressAssigned)
    liar = PppPeer(ClientEnd("ada", "secret"), numbered())
    liar.start(0.0)
    open_link(liar)
    challenge = PppPacket(1, 1, b"\x10" + bytes(16) + b"RRAS")
    liar.receive(ppp.encode_frame(Protocol.CHAP, challenge.encode()), 0.0)
    success = PppPacket(3, 1, b"S=" + b"0" * 40)
    liar.receive(ppp.encode_frame(Protocol.CHAP, success.encode()), 0.0)
    assert liar.take_events()[-1] == AuthenticationFailed(
        "ada", "the server does not know the password"
    )


def open_link(peer: PppPeer) -> None:
    """Bring LCP up by hand: a request with MS-CHAPv2, and the Ack of the peer's own."""
    options = ppp.encode_options([ppp.Option(3, ppp.MSCHAPV2_AUTHENTICATION)])
    request = PppPacket(Code.CONFIGURE_REQUEST, 9, options)
    peer.receive(ppp.encode_frame(Protocol.LCP, request.encode()), 0.0)
    ack = PppPacket(Code.CONFIGURE_ACK, 0)
    peer.receive(ppp.encode_frame(Protocol.LCP, ack.encode()), 0.0)


def test_eap_is_naked_towards_mschapv2_and_unknown_options_are_rejected() -> None:
    peer = PppPeer(ClientEnd("ada", "secret"), numbered())
    peer.start(0.0)
    eap = ppp.encode_options([ppp.Option(3, b"\xc2\x27")])
    (answer,) = peer.receive(
        ppp.encode_frame(Protocol.LCP, PppPacket(Code.CONFIGURE_REQUEST, 1, eap).encode()), 0.0
    )
    got = ppp.parse_packet(ppp.parse_frame(answer)[1])
    assert got.code == Code.CONFIGURE_NAK
    assert ppp.parse_options(got.data) == [ppp.Option(3, ppp.MSCHAPV2_AUTHENTICATION)]
    odd = ppp.encode_options([ppp.Option(0x11, b"\x05\xdc"), ppp.Option(5, b"abcd")])
    (answer,) = peer.receive(
        ppp.encode_frame(Protocol.LCP, PppPacket(Code.CONFIGURE_REQUEST, 2, odd).encode()), 0.0
    )
    got = ppp.parse_packet(ppp.parse_frame(answer)[1])
    assert (got.code, ppp.parse_options(got.data)) == (
        Code.CONFIGURE_REJECT,
        [ppp.Option(0x11, b"\x05\xdc")],
    )


def test_ccp_is_rejected_as_rras_does() -> None:
    peer = PppPeer(ClientEnd("ada", "secret"), numbered())
    peer.start(0.0)
    open_link(peer)
    (answer,) = peer.receive(ppp.encode_frame(Protocol.CCP, b"\1\1\0\4"), 0.0)
    assert ppp.parse_packet(ppp.parse_frame(answer)[1]).code == Code.PROTOCOL_REJECT


def test_ip_goes_through_echo_and_terminate_too() -> None:
    wire = Wire()
    wire.run()
    ping = ipv4.echo_request(CLIENT_ADDRESS, SERVER_ADDRESS, 7, 1, b"hello")
    wire.server.receive(ppp.encode_frame(Protocol.IP, ping), 0.0)
    (got,) = wire.server.take_packets()
    packet = ipv4.parse(got)
    assert packet is not None
    reply = ipv4.answer(packet)
    assert reply is not None
    parsed = ipv4.parse(reply)
    assert parsed is not None
    assert ipv4.is_echo_reply(parsed, 7, 1, b"hello")
    for answer in wire.server.receive(wire.client.echo(), 0.0):
        wire.client.receive(answer, 0.0)
    assert wire.client.echo_replies == 1
    for frame in wire.client.terminate():
        for answer in wire.server.receive(frame, 0.0):
            wire.client.receive(answer, 0.0)
    assert wire.client.terminated
    assert wire.server.terminated


def test_the_keys_are_those_of_rfc_3079() -> None:
    wire = Wire()
    wire.run()
    assert wire.client.mppe_keys == wire.server.mppe_keys
    assert wire.client.mppe_keys is not None
    assert b"".join(wire.client.mppe_keys) == wire.client.hlak
    assert len(mschap.hlak("x", bytes(24))) == 32


def test_udp_echo_and_other_packets() -> None:
    datagram = ipv4.udp((CLIENT_ADDRESS, 999), (SERVER_ADDRESS, ipv4.ECHO_PORT), b"load")
    packet = ipv4.parse(datagram)
    assert packet is not None
    back = ipv4.answer(packet)
    assert back is not None
    parsed = ipv4.parse(back)
    assert parsed is not None
    assert ipv4.udp_payload(parsed) == b"load"
    assert ipv4.parse(b"\x60" + bytes(40)) is None
    assert ipv4.parse(datagram[:10]) is None

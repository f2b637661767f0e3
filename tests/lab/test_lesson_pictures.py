"""Pictures as text and as SVG, and conversations turned into arrows."""

from xml.etree import ElementTree as ET

import pytest

from sstplb.lab.lessons import anatomy, svg_picture, text_picture
from sstplb.lab.lessons.journal import Conversation, arrows
from sstplb.lab.lessons.page import Arrow, Bar, Bars, Line, Remark, Sequence, Table
from sstplb.protocol import packet, ppp
from sstplb.protocol.head import sstp_request, sstp_response
from sstplb.protocol.packet import PacketReader, StatusInfo

REQUEST = sstp_request("vpn.example.test", "{0D528CAC-464E-423A-A399-9470E234BC54}")
ANSWER = sstp_response("Mon, 21 Feb 2011 05:37:00 GMT")
IP = packet.data_packet(ppp.encode_frame(ppp.Protocol.IP, bytes(84)))


def test_a_diagram_as_text_draws_each_row_between_its_lifelines() -> None:
    diagram = Sequence(
        "x",
        ("client", "sstplb", "rras1"),
        (
            Arrow(0.001, "client", "rras1", "through"),
            Arrow(0.002, "rras1", "sstplb", "no", Line.BAD),
            Arrow(0.003, "client", "sstplb", "sealed", Line.SEALED),
            Remark(0.004, "sstplb", "something to say"),
        ),
    )
    names, _, through, bad, sealed, remark, _ = text_picture.sequence(diagram)
    client, middle, server = (names.index(name) + len(name) // 2 for name in diagram.lifelines)
    assert through[client + 1] == "─"
    assert through[middle] not in "│ ", "an arrow passes over the lifeline of who only carries"
    assert through[server - 1] == "▶"
    assert bad[middle + 1] == "✗"
    assert "═ sealed ═" in sealed
    assert remark[middle] == "●"
    assert [line.split()[0] for line in (through, bad, sealed, remark)] == [
        "1.0", "2.0", "3.0", "4.0",
    ]  # fmt: skip


def test_words_that_do_not_fit_stand_above_the_arrow() -> None:
    text = "a label that is much longer than the room between two of five lifelines"
    diagram = Sequence("x", ("a", "b", "c", "d", "e"), (Arrow(0, "a", "b", text),))
    lines = text_picture.sequence(diagram)
    assert len(lines) > 4
    assert all(len(line) <= text_picture.WIDTH for line in lines)


def test_pictures_are_well_formed_and_hold_their_words() -> None:
    diagram = Sequence(
        "a < b", ("client", "rras1"),
        (Arrow(0, "client", "rras1", "<&>"), Remark(0.1, "rras1", "at the right edge")),
    )  # fmt: skip
    root = ET.fromstring(svg_picture.sequence(diagram))
    assert "<&>" in [one.text for one in root.iter("{http://www.w3.org/2000/svg}text")]
    bars = Bars("x", "ms", (Bar("one", (("a", 3.0), ("b", 1.0))), Bar("two", (("a", 2.0),))), "how")
    root = ET.fromstring(svg_picture.bars(bars))
    widths = [float(r.get("width", 0)) for r in root.iter("{http://www.w3.org/2000/svg}rect")][1:4]
    assert widths[0] == pytest.approx(3 * widths[1])
    lines = text_picture.bars(bars)
    assert lines[0].count("█") == 3 * lines[0].count("▒") or lines[0].count("█") > 30
    assert "4 ms (a 3, b 1)" in lines[0]
    assert text_picture.table(Table("t", ("a", "b"), (("1", "2"),)))[2].split() == ["1", "2"]


def test_the_fields_of_a_packet_are_the_packet() -> None:
    samples = [
        packet.connect_request().encode(),
        packet.connect_ack(bytes(range(32)), 3).encode(),
        packet.abort(StatusInfo(3, 4)).encode(),
        packet.DISCONNECT_ACK.encode(),
        IP,
    ]
    for raw in samples:
        (got,) = PacketReader().feed(raw)
        shown = anatomy.packet(got)
        assert b"".join(one.data for one in shown.fields) == raw
    head = anatomy.head(REQUEST, "head")
    assert b"".join(one.data for one in head.fields) == REQUEST


def test_what_authenticates_is_never_shown() -> None:
    secret = bytes(range(1, 50))
    frame = ppp.encode_frame(ppp.Protocol.CHAP, ppp.PppPacket(2, 1, secret).encode())
    (got,) = PacketReader().feed(packet.data_packet(frame))
    shown = b"".join(one.data for one in anatomy.packet(got).fields)
    assert secret not in shown
    assert len(shown) == len(got.encode())


def test_what_arrived_unchanged_is_one_arrow_and_the_rest_two() -> None:
    client, server = Conversation("client"), Conversation("rras1", ("127.0.0.1", 1))
    for heard in (client, server):
        heard.hear(True, REQUEST[:10])
        heard.hear(True, REQUEST[10:])
        heard.hear(False, ANSWER)
        heard.hear(True, packet.connect_request().encode())
    client.hear(True, IP + IP)  # which the server never got
    rows = arrows(client, [server], 0.0, middle="sstplb")
    ways = [(r.source, r.target, r.text) for r in rows if isinstance(r, Arrow)]
    assert ("client", "sstplb", "SSTP_DUPLEX_POST") in ways
    assert ("sstplb", "rras1", "SSTP_DUPLEX_POST") in ways
    assert ("client", "rras1", "CALL_CONNECT_REQUEST") in ways
    assert ("client", "sstplb", "2 IP packets, 168 bytes") in ways
    assert len(ways) == 6

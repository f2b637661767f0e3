"""What does this SSTP stream say? Bytes in hexadecimal, packet by packet ([MS-SSTP] 2.2).

python examples/read_packets.py 1001000e00010001000100060001
python examples/read_packets.py < a-stream.hex
"""

import sys

from sstplb.errors import ProtocolError
from sstplb.protocol import ppp
from sstplb.protocol.packet import Packet, PacketReader, parse_message
from sstplb.protocol.registry import AttributeId, name_of


def sentences(stream: bytes) -> list[str]:
    """Return a line for each packet, and its attributes below. Raises ProtocolError."""
    reader, lines = PacketReader(), []
    for packet in reader.feed(stream):
        lines += _control(packet) if packet.is_control else [_data(packet)]
    if reader.buffered:
        lines.append(f"{reader.buffered} bytes of a packet that is not complete")
    return lines


def _control(packet: Packet) -> list[str]:
    message = parse_message(packet.payload)
    lines = [f"control  {message.name}"]
    for attribute in message.attributes:
        name = name_of(AttributeId, attribute.id)
        lines.append(f"         {name}: {attribute.value.hex()}")
    if message.status is not None:
        lines.append(f"         ({message.status})")
    return lines


def _data(packet: Packet) -> str:
    protocol, information = ppp.parse_frame(packet.payload)
    return f"data     PPP {name_of(ppp.Protocol, protocol)}, {len(information)} bytes"


if __name__ == "__main__":
    text = "".join(sys.argv[1:]) or sys.stdin.read()
    try:
        print("\n".join(sentences(bytes.fromhex(text))))
    except (ValueError, ProtocolError) as error:
        sys.exit(f"this cannot be read: {error}")

"""The message by which pppd's SSTP plugins hand over MPPE keys (sstp-client's sstp-api).

Little-endian: magic, payload length, type (1: auth); then attributes: type (1 send, 2 receive),
length, value padded to 4.
"""

import struct

MAGIC = 0x73737470


def key_message(*, send: bytes, receive: bytes) -> bytes:
    """Return the message for two 16-byte keys."""
    attributes = b"".join(
        struct.pack("<HH", kind, len(key)) + key for kind, key in ((1, send), (2, receive))
    )
    return struct.pack("<IHH", MAGIC, len(attributes), 1) + attributes

"""The numbers of [MS-SSTP] (v20240423), each under the name the specification gives it.

Nothing here is computed and nothing here is ours: whoever wonders about a hexadecimal number
elsewhere finds it here with its section. Enumerations keep unknown numbers out of the code, not
out of the wire: parsers decide what to do about those.
"""

from enum import IntEnum

VERSION = 0x10
"""2.2.1: major 1, minor 0."""
HEADER_BYTES = 4
"""2.2.1: version, reserved bits and C bit, 12-bit length that counts the header."""
CONTROL_BYTES_MIN = 8
"""2.2.2: header, message type, number of attributes."""
PACKET_BYTES_MAX = 0x0FFF
LENGTH_MASK = 0x0FFF
CONTROL_BIT = 0x01
ATTRIBUTE_HEADER_BYTES = 4
NONCE_BYTES = 32
CONNECTED_BYTES = 112
"""2.2.11: header, message header and one Crypto Binding attribute."""
NAK_VALUE_BYTES_MAX = 64
"""2.2.8: how much of an offending attribute a NAK quotes."""

DUPLEX_METHOD = "SSTP_DUPLEX_POST"
"""3.2.4.1: the method of the HTTP request that opens a call."""
CONTENT_LENGTH = "18446744073709551615"
"""3.2.4.1: ULONGLONG_MAX, for a body that never ends."""
CORRELATION_HEADER = "SSTPCORRELATIONID"
TENANT_PARAMETER = "tenantid"

HTTP_TIMEOUT_S = 60.0
"""3.2.2: how long a client waits for the HTTP answer."""
NEGOTIATION_TIMEOUT_S = 60.0
"""3.2.2 and 3.3.2: how long the opening may take, on either side."""
HELLO_TIMEOUT_S = 60.0
"""3.1.2: silence before an Echo Request, and again before the call is given up."""
ABORT_SENDER_TIMEOUT_S = 3.0
ABORT_RECEIVER_TIMEOUT_S = 1.0
DISCONNECT_SENDER_TIMEOUT_S = 5.0
DISCONNECT_RECEIVER_TIMEOUT_S = 1.0


class MessageType(IntEnum):
    """2.2.3: what a control packet says."""

    CALL_CONNECT_REQUEST = 0x0001
    CALL_CONNECT_ACK = 0x0002
    CALL_CONNECT_NAK = 0x0003
    CALL_CONNECTED = 0x0004
    CALL_ABORT = 0x0005
    CALL_DISCONNECT = 0x0006
    CALL_DISCONNECT_ACK = 0x0007
    ECHO_REQUEST = 0x0008
    ECHO_RESPONSE = 0x0009


class AttributeId(IntEnum):
    """2.2.4: what an attribute is."""

    NO_ERROR = 0x00
    ENCAPSULATED_PROTOCOL_ID = 0x01
    STATUS_INFO = 0x02
    CRYPTO_BINDING = 0x03
    CRYPTO_BINDING_REQUEST = 0x04


class Status(IntEnum):
    """2.2.8: what a Status Info attribute reports."""

    NO_ERROR = 0x00
    DUPLICATE_ATTRIBUTE = 0x01
    UNRECOGNIZED_ATTRIBUTE = 0x02
    INVALID_ATTRIB_VALUE_LENGTH = 0x03
    VALUE_NOT_SUPPORTED = 0x04
    UNACCEPTED_FRAME_RECEIVED = 0x05
    RETRY_COUNT_EXCEEDED = 0x06
    INVALID_FRAME_RECEIVED = 0x07
    NEGOTIATION_TIMEOUT = 0x08
    ATTRIB_NOT_SUPPORTED_IN_MSG = 0x09
    REQUIRED_ATTRIBUTE_MISSING = 0x0A
    STATUS_INFO_NOT_SUPPORTED_IN_MSG = 0x0B


class HashProtocol(IntEnum):
    """2.2.6 and 2.2.7: the hash of the crypto binding; in a request these are bits of a mask."""

    SHA1 = 0x01
    SHA256 = 0x02


class EncapsulatedProtocol(IntEnum):
    """2.2.5: what data packets carry; there is only one."""

    PPP = 0x0001


def name_of(kind: type[IntEnum], number: int) -> str:
    """Return the specification's name for a number, or the number itself when it has none."""
    try:
        return kind(number).name
    except ValueError:
        return f"{number:#06x}"

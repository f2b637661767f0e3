"""Making PPP frames fit to be kept: what authenticates somebody is overwritten with zeros. Pure.

What goes, and what stays because a capture is for learning why a call failed:

========  ===================================  ====================================================
PAP       the password                         the user's name, the answer (RFC 1334)
CHAP      challenge and response; in a result  names; the result's code and error number
          the authenticator and new challenge  (RFC 1994, RFC 2759)
EAP       what a method says, unless it is     identity, notification, refusal, and methods that
          under TLS of its own                 do it under TLS (RFC 3748)
others    everything above 0xC000 that is not  LCP, link quality
          known to be harmless
========  ===================================  ====================================================

A Protocol-Reject quotes the packet it rejects: the quotation is treated as the packet would be.
Lengths stay as they were, so a reader still sees how long a password is. What travels inside IP
is the user's own and is not looked at.
"""

import re

from sstplb.errors import PppError
from sstplb.protocol.ppp import ChapCode, Code, PapCode, Protocol, parse_frame

_EAP = 0xC227
_LINK_QUALITY = 0xC025
_CONTROLS_OF_THE_LINK = 0xC000
"""RFC 1661 2: protocols from here on negotiate and authenticate the link."""
_PACKET_HEADER_BYTES = 4
_RESULT_SECRETS = re.compile(rb"(?<=[SC]=)[0-9A-Fa-f]+")
"""In the text of an MS-CHAP result (RFC 2759 5, 6): the authenticator, a challenge to try again."""
_EAP_WITH_TYPE = frozenset({1, 2})
_EAP_WITHOUT_DATA = frozenset({3, 4})
_EAP_OPEN_TYPES = frozenset({1, 2, 3, 13, 21, 25, 43, 55})
"""Identity, notification, refusal; TLS, TTLS, PEAP, FAST, TEAP, whose credentials TLS covers."""


def without_secrets(frame: bytes) -> bytes:
    """Return a frame of the same length without what authenticates anybody."""
    try:
        protocol, information = parse_frame(frame)
    except PppError:
        return bytes(len(frame))
    if protocol < _CONTROLS_OF_THE_LINK or protocol == _LINK_QUALITY:
        return frame
    kept = _kept(protocol, information)
    return frame[: len(frame) - len(information)] + kept + bytes(len(information) - len(kept))


def _kept(protocol: int, information: bytes) -> bytes:
    """Return the beginning of a packet as it may be kept; what it lacks is to be zeros."""
    header, data = information[:_PACKET_HEADER_BYTES], information[_PACKET_HEADER_BYTES:]
    code = header[0] if header else 0
    match protocol:
        case Protocol.LCP:
            return header + _kept_of_lcp(code, data)
        case Protocol.PAP:
            return header + _kept_of_pap(code, data)
        case Protocol.CHAP:
            return header + _kept_of_chap(code, data)
        case _ if protocol == _EAP:
            return header + _kept_of_eap(code, data)
    return header


def _kept_of_lcp(code: int, data: bytes) -> bytes:
    if code != Code.PROTOCOL_REJECT:
        return data
    rejected = int.from_bytes(data[:2], "big")
    if rejected < _CONTROLS_OF_THE_LINK:
        return data
    return data[:2] + _kept(rejected, data[2:])


def _kept_of_pap(code: int, data: bytes) -> bytes:
    if code in (PapCode.ACK, PapCode.NAK):
        return data
    name = 1 + (data[0] if data else 0)
    return data[: name + 1]  # with the password's length, without the password


def _kept_of_chap(code: int, data: bytes) -> bytes:
    if code in (ChapCode.CHALLENGE, ChapCode.RESPONSE):
        size = data[0] if data else 0
        return data[:1] + bytes(min(size, max(0, len(data) - 1))) + data[1 + size :]
    if code in (ChapCode.SUCCESS, ChapCode.FAILURE):
        return _RESULT_SECRETS.sub(lambda found: b"0" * len(found[0]), data)
    return b""


def _kept_of_eap(code: int, data: bytes) -> bytes:
    if code in _EAP_WITHOUT_DATA:
        return data
    if code in _EAP_WITH_TYPE and data[:1] and data[0] in _EAP_OPEN_TYPES:
        return data
    return data[:1]

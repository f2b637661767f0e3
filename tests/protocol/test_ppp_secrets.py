"""What authenticates somebody does not stay in a frame; what explains a failure does."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sstplb.protocol.ppp import (
    ChapCode,
    Code,
    PapCode,
    PppPacket,
    Protocol,
    encode_frame,
)
from sstplb.protocol.ppp_secrets import without_secrets

EAP = 0xC227
SECRET = b"\xa5secret\x5a"


def frame(protocol: int, code: int, data: bytes) -> bytes:
    return encode_frame(protocol, PppPacket(code, 7, data).encode())


PAP = frame(Protocol.PAP, PapCode.REQUEST, b"\x04user" + bytes([len(SECRET)]) + SECRET)
HIDDEN = {
    "PAP": (PAP, b"\x04user\x08"),
    "CHAP challenge": (
        frame(Protocol.CHAP, ChapCode.CHALLENGE, b"\x08" + SECRET + b"rras1"), b"rras1",
    ),
    "CHAP response": (
        frame(Protocol.CHAP, ChapCode.RESPONSE, b"\x08" + SECRET + b"CORP\\user"), b"CORP\\user",
    ),
    "change of a password": (frame(Protocol.CHAP, 7, SECRET * 8), b""),
    "EAP-MSCHAPv2": (frame(EAP, 2, b"\x1a\x02\x07\x00\x20" + SECRET + b"user"), b""),
    "EAP-MD5": (frame(EAP, 1, b"\x04\x08" + SECRET), b""),
    "EAP token": (frame(EAP, 2, b"\x06" + SECRET), b""),
    "an unknown protocol": (frame(0xC281, 1, SECRET), b""),
    "what was rejected": (
        frame(Protocol.LCP, Code.PROTOCOL_REJECT, b"\xc0\x23" + PAP[4:]), b"user",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("given", "stays"), HIDDEN.values(), ids=HIDDEN)
def test_secrets_go_and_names_stay(given: bytes, stays: bytes) -> None:
    kept = without_secrets(given)
    assert SECRET not in kept
    assert b"secret" not in kept
    assert stays in kept
    assert len(kept) == len(given)
    assert kept[:8] == given[:8], "protocol, code, identifier and length"


def test_results_keep_their_number_and_lose_their_proof() -> None:
    success = frame(Protocol.CHAP, ChapCode.SUCCESS, b"S=" + b"AB" * 20 + b" M=welcome")
    failure = frame(Protocol.CHAP, ChapCode.FAILURE, b"E=691 R=1 C=" + b"0F" * 16 + b" V=3 M=no")
    assert without_secrets(success) == success.replace(b"AB" * 20, b"0" * 40)
    assert without_secrets(failure) == failure.replace(b"0F" * 16, b"0" * 32)


@pytest.mark.parametrize(
    "harmless",
    [
        frame(Protocol.LCP, Code.CONFIGURE_REQUEST, b"\x05\x06\x01\x02\x03\x04"),
        frame(Protocol.LCP, Code.PROTOCOL_REJECT, b"\x80\xfd\x01\x01\x00\x04"),
        frame(Protocol.IPCP, Code.CONFIGURE_ACK, b"\x03\x06\x0a\x09\x00\x02"),
        frame(Protocol.PAP, PapCode.NAK, b"\x02no"),
        frame(EAP, 2, b"\x01CORP\\user"),
        frame(EAP, 1, b"\x0d\x20"),
        frame(EAP, 3, b""),
        encode_frame(Protocol.IP, SECRET),
        b"\x21" + SECRET,
    ],
)
def test_the_rest_is_left_alone(harmless: bytes) -> None:
    assert without_secrets(harmless) == harmless


@pytest.mark.parametrize("prefix", [b"", b"\xff\x03"])
def test_with_and_without_address_bytes(prefix: bytes) -> None:
    assert without_secrets(prefix + PAP[2:]) == prefix + without_secrets(PAP)[2:]


@given(
    st.sampled_from([Protocol.PAP, Protocol.CHAP, EAP, Protocol.LCP, 0xC123]),
    st.binary(max_size=80),
)
def test_no_frame_is_too_strange(protocol: int, information: bytes) -> None:
    given = encode_frame(protocol, information)
    assert len(without_secrets(given)) == len(given)

"""The specification's vectors (4.7), and every way a binding can fail."""

from dataclasses import replace

import pytest

from sstplb.errors import BindingError
from sstplb.protocol import binding
from sstplb.protocol.packet import CryptoBinding, Message, connected
from sstplb.protocol.registry import HashProtocol, MessageType

HLAK_SHA256 = bytes.fromhex("2A1BB40D55AB0F5EF32F06F2B3CC73C48FD3FAC41D7A1315A19228D9024CA164")
HLAK_SHA1 = bytes.fromhex("4B3128F43925D9006EEFB1C4E86515A1D88E56BAB3CA2BDF0373B7F5A8A13B19")
NONCE = bytes(range(32))
SHA256 = HashProtocol.SHA256


def test_the_specifications_key_for_sha256() -> None:
    key = binding.compound_mac_key(HashProtocol.SHA256, HLAK_SHA256)
    assert key.hex() == "ecf59ac9fe155cf0a9e7d66adc1b363c1ad7ba91a9217f0cec2a534298828df6"


def test_the_specifications_key_for_sha1() -> None:
    key = binding.compound_mac_key(HashProtocol.SHA1, HLAK_SHA1)
    assert key.hex() == "a98b862a38cc7e224b42cd128586acb22f0bd1e9"


def good(protocol: HashProtocol = SHA256) -> tuple[CryptoBinding, bytes]:
    seen = binding.certificate_hash(protocol, b"leaf")
    made = binding.bind(protocol, hlak=HLAK_SHA256, nonce=NONCE, certificate_hash=seen)
    return made, seen


@pytest.mark.parametrize("protocol", list(HashProtocol))
def test_what_bind_makes_verify_accepts(protocol: HashProtocol) -> None:
    made, seen = good(protocol)
    binding.verify(
        connected(made), hlak=HLAK_SHA256, nonce=NONCE, offered=3, certificate_hashes={seen}
    )
    assert len(connected(made).encode()) == 112


MADE, SEEN = good()
FAULTS = [
    ("binding_missing", Message(MessageType.CALL_CONNECTED)),
    ("nonce_mismatch", connected(replace(MADE, nonce=bytes(32)))),
    ("certificate_hash_mismatch", connected(replace(MADE, certificate_hash=bytes(32)))),
    ("mac_mismatch", connected(replace(MADE, compound_mac=bytes(32)))),
    ("hash_not_offered", connected(good(HashProtocol.SHA1)[0])),
    ("hash_not_offered", connected(replace(MADE, hash_protocol=4))),
]


@pytest.mark.parametrize(("reason", "message"), FAULTS)
def test_each_fault_is_named(reason: str, message: Message) -> None:
    with pytest.raises(BindingError) as caught:
        binding.verify(
            message, hlak=HLAK_SHA256, nonce=NONCE, offered=SHA256, certificate_hashes={SEEN}
        )
    assert caught.value.reason == reason


def test_a_binding_of_the_wrong_length_is_named() -> None:
    message = connected(MADE)
    short = replace(message.attributes[0], value=message.attributes[0].value[:-1])
    with pytest.raises(BindingError) as caught:
        binding.verify(
            Message(message.type, (short,)),
            hlak=HLAK_SHA256, nonce=NONCE, offered=2, certificate_hashes={SEEN},
        )  # fmt: skip
    assert caught.value.reason == "binding_length"


def test_another_key_does_not_verify() -> None:
    with pytest.raises(BindingError, match="compound MAC"):
        binding.verify(
            connected(MADE), hlak=HLAK_SHA1, nonce=NONCE, offered=2, certificate_hashes={SEEN}
        )

"""Crypto binding: the proof that TLS and PPP end at the same two machines ([MS-SSTP] 3.2.5.2).

A man in the middle can end a client's TLS, begin his own to the server and pass PPP through. The
binding catches him. After PPP has authenticated, both ends hold a key he does not (the HLAK,
from MS-CHAPv2 or EAP); with it the client signs a packet that holds the server's nonce and the
hash of *the certificate the client saw*. The server compares that hash with the certificate it
shows, or was told to expect, and checks the signature:

    CMK = first N bytes of HMAC_H(HLAK, "SSTP inner method derived CMK" | N as uint16, little
          endian | 0x01), N = 20 (SHA-1) or 32 (SHA-256)
    MAC = HMAC_H(CMK, the 112 bytes of CALL_CONNECTED with the MAC field zeroed)

A TLS-terminating balancer *is* a man in the middle. It is let through only because the server
expects the certificate the balancer shows: told so by the administrator (offload), or because
both hold the same one (re-encrypt). That is the same-certificate rule.
"""

import hashlib
import hmac
from collections.abc import Collection

from sstplb.errors import BindingError, PacketError
from sstplb.protocol.packet import HASH_BYTES, CryptoBinding, Message, connected
from sstplb.protocol.registry import HashProtocol

HLAK_BYTES = 32
NO_HLAK = bytes(HLAK_BYTES)
"""For authentication that makes no keys (PAP, CHAP-MD5): 3.2.5.2.1."""
_SEED = b"SSTP inner method derived CMK"


def _algorithm(hash_protocol: HashProtocol) -> str:
    return "sha1" if hash_protocol is HashProtocol.SHA1 else "sha256"


def certificate_hash(hash_protocol: HashProtocol, leaf_der: bytes) -> bytes:
    """Return the hash of a certificate (DER) as the binding wants it: 20 or 32 bytes."""
    return hashlib.new(_algorithm(hash_protocol), leaf_der).digest()


def compound_mac_key(hash_protocol: HashProtocol, hlak: bytes) -> bytes:
    """Return the CMK: 20 or 32 bytes. ``hlak`` is 32 bytes."""
    size = dict(HASH_BYTES)[hash_protocol]
    text = _SEED + size.to_bytes(2, "little") + b"\x01"
    return hmac.digest(hlak, text, _algorithm(hash_protocol))[:size]


def compound_mac(hash_protocol: HashProtocol, hlak: bytes, binding: CryptoBinding) -> bytes:
    """Return the MAC over the CALL_CONNECTED that carries ``binding``; its own MAC is ignored."""
    unsigned = CryptoBinding(hash_protocol, binding.nonce, binding.certificate_hash, b"")
    key = compound_mac_key(hash_protocol, hlak)
    return hmac.digest(key, connected(unsigned).encode(), _algorithm(hash_protocol))


def bind(
    hash_protocol: HashProtocol, *, hlak: bytes, nonce: bytes, certificate_hash: bytes
) -> CryptoBinding:
    """Return the client's finished binding."""
    unsigned = CryptoBinding(hash_protocol, nonce, certificate_hash, b"")
    mac = compound_mac(hash_protocol, hlak, unsigned)
    return CryptoBinding(hash_protocol, nonce, certificate_hash, mac)


def verify(
    message: Message,
    *,
    hlak: bytes,
    nonce: bytes,
    offered: int,
    certificate_hashes: Collection[bytes],
) -> None:
    """Check a CALL_CONNECTED as a server does, in the order of 3.3.5.2.3.

    ``offered`` is the mask sent in CALL_CONNECT_ACK; ``certificate_hashes`` are those the server
    accepts (SHA-1 and SHA-256 of its certificate, or the one it was told). Raises BindingError
    with a reason that names what failed.
    """
    try:
        binding = message.binding
    except PacketError as error:
        raise BindingError(str(error), reason="binding_length") from error
    if binding is None:
        raise BindingError("CALL_CONNECTED carries no crypto binding", reason="binding_missing")
    if binding.hash_protocol not in (1, 2) or not binding.hash_protocol & offered:
        raise BindingError(
            f"expected a hash among those offered ({offered:#x}), got {binding.hash_protocol:#x}",
            reason="hash_not_offered",
        )
    if not hmac.compare_digest(binding.nonce, nonce):
        raise BindingError("the nonce is not the one that was sent", reason="nonce_mismatch")
    if binding.certificate_hash not in certificate_hashes:
        accepted = ", ".join(sorted(known.hex() for known in certificate_hashes)) or "none"
        raise BindingError(
            f"the client saw a certificate with hash {binding.certificate_hash.hex()}, "
            f"this server accepts {accepted}",
            reason="certificate_hash_mismatch",
        )
    expected = compound_mac(HashProtocol(binding.hash_protocol), hlak, binding)
    if not hmac.compare_digest(binding.compound_mac, expected):
        raise BindingError("the compound MAC is wrong: other keys", reason="mac_mismatch")

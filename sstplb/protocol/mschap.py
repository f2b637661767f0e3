"""MS-CHAPv2 and the keys it leaves behind (RFC 2759, RFC 3079), pure.

SSTP needs two things of it: that the user proves the password without showing it, and that both
ends then hold the HLAK, 32 bytes nobody else has, with which the crypto binding is signed.

MD4 and single DES come from pycryptodome: OpenSSL 3 has retired them, and rightly so; here they
are what the protocol is made of. Passwords, responses and keys are arguments and results only:
nothing here keeps or prints one.
"""

import hashlib

from Crypto.Cipher import DES
from Crypto.Hash import MD4

CHALLENGE_BYTES = 16

_SIGN_1 = b"Magic server to client signing constant"
_SIGN_2 = b"Pad to make it do more than one iteration"
_MASTER = b"This is the MPPE Master Key"
_CLIENT_SEND = (
    b"On the client side, this is the send key; on the server side, it is the receive key."
)
_CLIENT_RECEIVE = (
    b"On the client side, this is the receive key; on the server side, it is the send key."
)
_PAD_1, _PAD_2 = bytes(40), b"\xf2" * 40


def nt_response(
    authenticator_challenge: bytes, peer_challenge: bytes, user: str, password: str
) -> bytes:
    """RFC 2759 8.1: return the 24-byte answer to two 16-byte challenges."""
    challenge = _challenge_hash(peer_challenge, authenticator_challenge, user)
    return _challenge_response(challenge, _password_hash(password))


def authenticator_response(
    authenticator_challenge: bytes,
    peer_challenge: bytes,
    user: str,
    password: str,
    response: bytes,
) -> str:
    """RFC 2759 8.7: return ``S=`` and 40 hex digits, the server's own proof."""
    hash_hash = _md4(_password_hash(password))
    digest = hashlib.sha1(hash_hash + response + _SIGN_1).digest()  # noqa: S324 - RFC 2759
    challenge = _challenge_hash(peer_challenge, authenticator_challenge, user)
    proof = hashlib.sha1(digest + challenge + _SIGN_2)  # noqa: S324 - RFC 2759
    return f"S={proof.hexdigest().upper()}"


def mppe_keys(password: str, response: bytes) -> tuple[bytes, bytes]:
    """RFC 3079 3.4: return the client's (send, receive) keys, 16 bytes each."""
    hash_hash = _md4(_password_hash(password))
    master = hashlib.sha1(hash_hash + response + _MASTER).digest()[:16]  # noqa: S324 - RFC 3079
    send = hashlib.sha1(master + _PAD_1 + _CLIENT_SEND + _PAD_2)  # noqa: S324 - RFC 3079
    receive = hashlib.sha1(master + _PAD_1 + _CLIENT_RECEIVE + _PAD_2)  # noqa: S324 - RFC 3079
    return send.digest()[:16], receive.digest()[:16]


def hlak(password: str, response: bytes) -> bytes:
    """[MS-SSTP] 3.2.5.2.1: return the 32-byte HLAK, the same on both sides."""
    return b"".join(mppe_keys(password, response))


def _password_hash(password: str) -> bytes:
    return _md4(password.encode("utf-16-le"))


def _md4(data: bytes) -> bytes:
    return MD4.new(data).digest()  # noqa: S303 - RFC 2759


def _challenge_hash(peer_challenge: bytes, authenticator_challenge: bytes, user: str) -> bytes:
    """RFC 2759 8.2; the user without its domain, as 4 has it."""
    name = user.rpartition("\\")[2].encode()
    return hashlib.sha1(peer_challenge + authenticator_challenge + name).digest()[:8]  # noqa: S324 - RFC 2759


def _challenge_response(challenge: bytes, password_hash: bytes) -> bytes:
    """RFC 2759 8.5: three DES keys from the padded hash, one block each."""
    padded = password_hash.ljust(21, b"\0")
    blocks = (
        DES.new(_with_parity(padded[at : at + 7]), DES.MODE_ECB).encrypt(challenge)  # noqa: S304 - RFC 2759
        for at in (0, 7, 14)
    )
    return b"".join(blocks)


def _with_parity(key: bytes) -> bytes:
    """Spread 56 bits over 8 bytes, leaving the parity bits DES ignores."""
    bits = int.from_bytes(key, "big")
    return bytes(((bits >> shift) & 0x7F) << 1 for shift in range(49, -1, -7))

"""What a TLS handshake agreed on, whichever engine made it."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class TlsInfo:
    """Version, cipher, and who answered."""

    version: str
    """``TLSv1.2`` or ``TLSv1.3``."""
    cipher: str
    peer_leaf_der: bytes | None
    """The other side's certificate; None on a server, for clients show none. After a handshake that
    failed, what was shown if it came to that: nobody has verified it."""

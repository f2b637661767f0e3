"""The same-certificate rule: which backends will do for the certificate a client was shown.

Crypto binding ([MS-SSTP] 3.2.5.2) ties a call to the hash of the certificate at the client's end
of TLS, and RRAS compares it with the one it believes to be its own: the leaf it shows itself when
we re-encrypt, the one in its registry when TLS is offloaded. A call to a backend that expects
another certificate connects, then disconnects. So it is no candidate.
"""

from sstplb.balance.backend import Backend
from sstplb.config.schema import MismatchPolicy, Mode
from sstplb.errors import CertificateMismatchError


def objection(
    mode: Mode, policy: MismatchPolicy, shown_sha256: bytes | None, backend: Backend
) -> str | None:
    """Return why a backend will not do for a client that was shown that leaf, as a slug.

    ``shown_sha256`` None: no TLS ended here, or no binding will be checked; then anybody will do.
    """
    if shown_sha256 is None or policy is not MismatchPolicy.REFUSE:
        return None
    expected = expected_sha256(mode, backend)
    if expected is None or expected == shown_sha256:
        return None
    return CertificateMismatchError.reason


def expected_sha256(mode: Mode, backend: Backend) -> bytes | None:
    """Return the SHA-256 of the certificate a backend is known to expect, if any."""
    if mode is Mode.OFFLOAD:
        declared = backend.config.rras_certificate_sha256
        return bytes.fromhex(declared) if declared else None
    return backend.leaf_sha256


def mismatch_sentence(name: str, theirs: bytes, ours: bytes) -> str:
    """Say what the mismatch is and what to do about it."""
    return (
        f"{name} expects the certificate with SHA-256 {theirs.hex()}, clients are shown "
        f"{ours.hex()}: every call would be torn down after authentication; put the same "
        "certificate on both"
    )

"""What calls and login checks have taught of the certificate an offloaded RRAS accepts.

An RRAS that is offloaded holds exactly one SHA-256 (Enable-SSTPOffload) and does not say which. But
each call says something: a binding that was accepted proves the certificate its client was shown,
one that was refused speaks against it. Acceptance is believed at once, for no client can fake it.
A refusal a client *can* fake, with a wrong compound MAC; so it is believed when clients of
``WITNESSES`` networks had it and nobody was accepted in between, or when it was our own check's.

Where the operator has declared the hash (``rras_certificate_sha256``), nothing needs to be learnt.
"""

from collections import OrderedDict

WITNESSES = 2
"""Client networks whose calls must be refused before a refusal is believed."""
REFUSED_MAX = 16
"""Certificates whose refusals are remembered; the one refused longest ago is forgotten."""


class Learnt:
    """What is known of one backend."""

    def __init__(self) -> None:
        self.sha256: bytes | None = None
        """The certificate it was last seen to accept; None: nobody knows."""
        self._refused: OrderedDict[bytes, set[bytes]] = OrderedDict()
        """Who was refused with each certificate since then; the latest refusal stands last."""

    def accepted(self, sha256: bytes) -> None:
        """Note a binding that was accepted: this is the one, and there is only one."""
        self.sha256 = sha256
        self._refused.clear()

    def refused(self, sha256: bytes, client: bytes | None) -> None:
        """Note a binding that was refused; ``client`` None: our own, made with the right keys."""
        witnesses = self._refused.setdefault(sha256, set())
        self._refused.move_to_end(sha256)
        if client is None:
            witnesses.update(bytes([number]) for number in range(WITNESSES))
        elif len(witnesses) < WITNESSES:
            witnesses.add(client)
        if len(self._refused) > REFUSED_MAX:
            self._refused.popitem(last=False)
        if sha256 == self.sha256 and len(witnesses) >= WITNESSES:
            self.sha256 = None

    def forget(self) -> None:
        """Start anew, as when another machine stands there."""
        self.sha256 = None
        self._refused.clear()

    def doubt(self, sha256: bytes) -> int:
        """Return how much speaks against a certificate: 0 nothing, more the later it was refused.

        Who has to try one takes the least doubtful: so all get their turn.
        """
        for place, (refused, witnesses) in enumerate(self._refused.items(), 1):
            if refused == sha256:
                return place if len(witnesses) >= WITNESSES else 0
        return 0

"""What may be told of who calls: shown, hashed or hidden, as ``privacy:`` has it. Pure.

A hash is keyed (HMAC-SHA-256), for user names are few and a bare hash of one is found by trying
them out. Each kind of value is hashed for itself, without regard to case, as Windows compares
names. Sixteen hexadecimal digits are kept: enough that no two users of one installation meet.
"""

import hashlib
import hmac
from dataclasses import dataclass, field

from sstplb.config import schema
from sstplb.config.schema import Disclosure

_DIGITS = 16


@dataclass(frozen=True, slots=True)
class Discretion:
    """The rules of one configuration."""

    rules: schema.Privacy
    key: bytes = field(repr=False)

    def user(self, name: str) -> str | None:
        """Return what may be told of a user's name; None: nothing."""
        return self._told(self.rules.user, "user", name)

    def computer(self, name: str) -> str | None:
        """Return what may be told of a computer's name; None: nothing."""
        return self._told(self.rules.computer, "computer", name)

    def address(self, address: str) -> str | None:
        """Return what may be told of an assigned address; None: nothing."""
        return self._told(self.rules.address, "address", address)

    def _told(self, rule: Disclosure, kind: str, value: str) -> str | None:
        if not value or rule is Disclosure.HIDDEN:
            return None
        if rule is Disclosure.SHOWN:
            return value
        said = f"{kind}\0{value.casefold()}".encode()
        return "#" + hmac.new(self.key, said, hashlib.sha256).hexdigest()[:_DIGITS]


def key_of(secret: bytes) -> bytes:
    """Return the key for hashes that is made from a secret."""
    return hmac.new(secret, b"sstplb privacy", hashlib.sha256).digest()

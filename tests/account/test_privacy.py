"""Who calls is told as the configuration has it, and a hash cannot be looked up."""

import hashlib
import hmac

from sstplb.account.privacy import Discretion, key_of
from sstplb.config.schema import Disclosure, Privacy

HASHED = Privacy(user=Disclosure.HASHED, computer=Disclosure.HASHED, address=Disclosure.HIDDEN)


def test_shown_by_default() -> None:
    discretion = Discretion(Privacy(), key_of(b"x"))
    assert discretion.user("CORP\\alice") == "CORP\\alice"
    assert discretion.address("10.9.0.2") == "10.9.0.2"
    assert discretion.user("") is None


def test_hashes_are_keyed_and_of_one_kind() -> None:
    ours, others = Discretion(HASHED, key_of(b"ours")), Discretion(HASHED, key_of(b"others"))
    hashed = ours.user("alice")
    assert hashed is not None
    assert hashed.startswith("#")
    assert len(hashed) == 17
    assert hashed == ours.user("ALICE"), "Windows does not tell them apart"
    assert hashed != ours.user("bob")
    assert hashed != ours.computer("alice"), "a name as a user is not a name as a computer"
    assert hashed != others.user("alice")
    for bare in (b"alice", b"user\0alice"):
        assert hashlib.sha256(bare).hexdigest()[:16] not in hashed
        assert hmac.new(b"", bare, hashlib.sha256).hexdigest()[:16] not in hashed


def test_hidden_is_nothing_at_all() -> None:
    assert Discretion(HASHED, key_of(b"x")).address("10.9.0.2") is None


def test_the_key_is_in_no_repr() -> None:
    assert repr(key_of(b"secret")) not in repr(Discretion(Privacy(), key_of(b"secret")))

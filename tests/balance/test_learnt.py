"""What calls teach of the certificate that an offloaded RRAS accepts."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sstplb.balance.backend import Backend
from sstplb.balance.learnt import REFUSED_MAX, Learnt
from sstplb.balance.same_certificate import Accepted, Source, accepted, choice, objection
from sstplb.config import schema
from sstplb.config.schema import MismatchPolicy, Mode

OLD, NEW, FOREIGN = (bytes([n]) * 32 for n in (1, 2, 3))
OURS = (OLD, NEW)


def backend(**settings: object) -> Backend:
    config = schema.Backend.model_validate({"name": "b", "address": "10.0.0.1:80", **settings})
    return Backend("p", config, schema.Check(), schema.Passive())


def test_acceptance_is_believed_at_once() -> None:
    learnt = Learnt()
    learnt.refused(NEW, b"a")
    learnt.accepted(NEW)
    assert (learnt.sha256, learnt.doubt(NEW)) == (NEW, 0)


def test_one_client_alone_cannot_make_us_doubt() -> None:
    learnt = Learnt()
    learnt.accepted(OLD)
    for _ in range(20):
        learnt.refused(OLD, b"mallory")
    before = learnt.sha256
    learnt.refused(OLD, b"alice")
    assert (before, learnt.sha256, learnt.doubt(OLD)) == (OLD, None, 1)


def test_our_own_check_is_believed_alone() -> None:
    learnt = Learnt()
    learnt.accepted(OLD)
    learnt.refused(OLD, None)
    assert learnt.sha256 is None


def test_who_has_to_try_gives_each_its_turn() -> None:
    """An RRAS that refuses both may be told of either at any moment."""
    subject, tried = backend(), []
    for _ in range(4):
        tried.append(choice(Mode.OFFLOAD, subject, OURS, OURS))
        subject.learnt.refused(tried[-1] or b"", None)
    assert tried == [OLD, NEW, OLD, NEW]


@given(st.lists(st.tuples(st.binary(min_size=1, max_size=2), st.binary(max_size=1))))
def test_memory_is_bounded(refusals: list[tuple[bytes, bytes]]) -> None:
    learnt = Learnt()
    for sha256, client in refusals:
        learnt.refused(sha256, client)
    assert len(learnt._refused) <= REFUSED_MAX
    assert all(len(witnesses) <= 2 for witnesses in learnt._refused.values())


def test_how_we_know() -> None:
    told = backend(rras_certificate_sha256=NEW.hex())
    told.learnt.accepted(OLD)
    assert accepted(Mode.OFFLOAD, told, OURS) == Accepted(NEW, Source.DECLARED), "the last word"
    shows = backend()
    assert accepted(Mode.REENCRYPT, shows, OURS) == Accepted(None, Source.UNKNOWN)
    shows.leaf_sha256 = FOREIGN
    assert accepted(Mode.REENCRYPT, shows, OURS) == Accepted(FOREIGN, Source.LEAF)
    taught = backend()
    taught.learnt.accepted(OLD)
    assert accepted(Mode.OFFLOAD, taught, OURS) == Accepted(OLD, Source.LEARNT)
    assert accepted(Mode.OFFLOAD, taught, (NEW,)) == Accepted(None, Source.UNKNOWN), (
        "it may have been told of the new one: only trying would tell"
    )


@pytest.mark.parametrize(
    ("accepts", "shown", "chosen"),
    [
        (OLD, (OLD, NEW), OLD),
        (NEW, (OLD, NEW), NEW),
        (NEW, (OLD,), None),
        (FOREIGN, (OLD, NEW), None),
        (None, (NEW, OLD), NEW),
    ],
)
@pytest.mark.parametrize("mode", [Mode.OFFLOAD, Mode.REENCRYPT])
def test_the_certificate_that_it_accepts_is_chosen(
    mode: Mode, accepts: bytes | None, shown: tuple[bytes, ...], chosen: bytes | None
) -> None:
    subject = backend(rras_certificate_sha256=accepts.hex() if accepts else None)
    subject.leaf_sha256 = accepts
    assert choice(mode, subject, shown, OURS) == chosen
    refused = objection(mode, MismatchPolicy.REFUSE, shown, OURS, subject)
    assert refused == ("certificate_mismatch" if chosen is None else None)
    assert objection(mode, MismatchPolicy.WARN, shown, OURS, subject) is None
    assert objection(mode, MismatchPolicy.REFUSE, (), OURS, subject) is None, "a web visitor"

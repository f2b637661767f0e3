"""From what a call's watcher sees to what its record tells: here ``privacy:`` is kept.

The watcher knows a user's name, for it reads PPP; the record goes to log, API and page. So the
story is written into the record step by step, as it unfolds, and what is told of who calls passes
the configuration's ``Discretion`` on its way.
"""

from functools import lru_cache

from sstplb.account.privacy import Discretion
from sstplb.account.record import Binding, Hellos, Moment, Outcome, Record, Story
from sstplb.config import schema
from sstplb.protocol.registry import HashProtocol, name_of
from sstplb.protocol.story import Step, hash_names
from sstplb.protocol.watcher import BindingSeen, Watcher
from sstplb.tls.certificate import CERTIFICATES_KEPT, leaf_hashes, leaf_sha256

HELLO_SLACK_S = 0.1
"""A hello was the last thing that passed if no byte did later than this after it."""


def tell_certificates(
    record: Record, shown_sha256: bytes | None, leaf_der: bytes | None, backend: schema.Backend
) -> tuple[bytes, ...]:
    """Write down which certificate the client saw and which one its backend expects, as known.

    ``leaf_der``: what the backend has just shown us, if it speaks TLS with us. Returns the hashes
    by which a client would name the backend's certificate.
    """
    record.served_sha256 = _hex(shown_sha256) if shown_sha256 is not None else None
    if shown_sha256 is None:
        return ()
    if leaf_der is not None:
        record.backend_sha256, record.backend_sha256_from = _hex(leaf_sha256(leaf_der)), "shown"
        return leaf_hashes(leaf_der)
    if backend.rras_certificate_sha256 is not None:
        declared = bytes.fromhex(backend.rras_certificate_sha256)
        record.backend_sha256, record.backend_sha256_from = _hex(declared), "declared"
        return (declared,)
    record.backend_sha256 = record.backend_sha256_from = None
    return ()


def tell(record: Record, watcher: Watcher, discretion: Discretion, began: float) -> None:
    """Write what is new of a call's story into its record; ``began`` is when the call did."""
    if record.story is None:
        record.story = Story()
    story, teller = record.story, watcher.story
    for news in teller.take_news():
        at_s = round(max(0.0, news.at - began), 6)
        story.moments.append(Moment(news.step.value, news.side, at_s, news.detail))
    story.user = discretion.user(teller.user)
    story.computer = discretion.computer(teller.computer)
    story.address = discretion.address(str(teller.address or ""))
    story.authentication = teller.authentication or None
    story.is_proven = watcher.is_proven
    if watcher.binding is not None and story.binding is None:
        story.binding = _binding(watcher.binding)
    if record.correlation_id is None and teller.correlation_id:
        record.correlation_id = teller.correlation_id


def tell_hellos(story: Story, watcher: Watcher, moved_at: float) -> None:
    """Write what became of hellos; one is unanswered if not a byte passed after it."""
    story.hellos = tuple(
        Hellos(
            side,
            seen.asked,
            seen.answered,
            None if seen.last_s is None else round(seen.last_s, 6),
            None if seen.longest_s is None else round(seen.longest_s, 6),
            seen.waiting_since is not None and moved_at - seen.waiting_since < HELLO_SLACK_S,
        )
        for side in ("client", "backend")
        if (seen := watcher.story.hellos.get(side)) is not None
    )


def ended_by(record: Record, outcome: Outcome, *, client_first: bool | None) -> str:
    """Return who ended a call: ``client``, ``backend`` or ``balancer``.

    ``client_first``: whose bytes ended first; None: neither's did.
    """
    if outcome in (Outcome.REFUSED, Outcome.CLOSED):
        return "balancer"
    if record.story is not None:
        said = (m.side for m in record.story.moments if m.step in (Step.ABORT, Step.DISCONNECT))
        if (side := next(said, None)) is not None:
            return side
    if client_first is not None:
        return "client" if client_first else "backend"
    return {Outcome.CLIENT_FAILED: "client", Outcome.BACKEND_FAILED: "backend"}.get(
        outcome, "balancer"
    )


@lru_cache(maxsize=CERTIFICATES_KEPT)
def _hex(digest: bytes) -> str:
    """Write a hash in hexadecimal; the record of each call names the same few."""
    return digest.hex()


def _binding(seen: BindingSeen) -> Binding:
    return Binding(
        name_of(HashProtocol, seen.hash_protocol),
        hash_names(seen.offered) if seen.offered else "",
        _hex(seen.certificate_hash),
        seen.whose.value,
        seen.is_nonce_echoed,
        seen.is_hash_offered,
    )

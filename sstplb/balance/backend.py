"""One RRAS server, as the balancer knows it: the only object of a pool that changes.

Whether it may take a call follows from facts that different people establish, each kept by
itself: the operator's *standing*, the checks' and calls' *health*, the *address* its name resolved
to, and how many calls it has. ``unusable_because`` puts them together, in the order in which an
operator should hear of them. The certificate it was seen with is remembered too; whether that one
will do depends on what a client was shown, so each call decides for itself (``net/failover.py``).

A backend outlives a reload when its name and configured address stay: the new pool takes over
the object itself (``pool.py``), so running calls and their end are counted in one place.

**When the answer of the name server changes**, the current address is kept as long as it is among
the answers. Otherwise new calls go to the first answer; running calls stay where they are, and
still count towards ``calls_max``; what was learnt about the old machine is forgotten: its
certificate, its health (the next check decides alone), its passive marks. An empty answer changes
nothing: a name server that fails is no reason to lose a backend that works.
"""

from collections import Counter
from dataclasses import dataclass

from sstplb.balance.health import Flip, Health, Verdict
from sstplb.balance.learnt import Learnt
from sstplb.config import schema
from sstplb.config.schema import Standing


@dataclass(frozen=True, slots=True)
class LastCheck:
    """The latest check of a backend, for who asks "why is it down?"."""

    at: float
    """When it ended (seconds, monotonic)."""
    seconds: float
    """How long it took."""
    verdict: Verdict
    saw_certificate: bool = False
    """Whether the backend showed one, whatever came of it."""


class Backend:
    """One server's configuration, standing, health and calls."""

    def __init__(
        self, pool: str, config: schema.Backend, check: schema.Check, passive: schema.Passive
    ) -> None:
        self.pool = pool
        self.name = config.name
        self.config = config
        self.standing = config.standing
        """The operator's word; may be changed while running."""
        self.deadline: float | None = None
        """When the calls it still has are ended (seconds, monotonic), while it is not active."""
        self.health = Health(check, passive)
        self.address: str | None = None if config.address.is_name else config.address.host
        """Where new calls go (never a name); None until its name is resolved."""
        self.leaf_sha256: bytes | None = None
        """SHA-256 of the certificate it was last seen with; None: not seen, or plain HTTP."""
        self.learnt = Learnt()
        """Which certificate it accepts, where it shows none and nobody declared one."""
        self.last_check: LastCheck | None = None
        self.claimed = 0
        """Calls that will ask it first, and are still opening: no place is taken yet."""
        self.dialing = 0
        """Calls that are trying it: a place is taken, the hand-over has not come."""
        self.calls = 0
        """Calls handed over and running."""
        self.calls_total = 0
        """Calls ever handed over."""
        self.failures_total: Counter[str] = Counter()
        """Calls and tries that failed on its side, by reason."""

    def __repr__(self) -> str:
        return f"<Backend {self.pool}/{self.name} at {self.address}>"

    @property
    def places_taken(self) -> int:
        """How many of its ``calls_max`` are taken, by calls running or on their way."""
        return self.calls + self.dialing

    def out_of_service_because(self, *, claimed: bool = False) -> str | None:
        """Return the slug of what keeps it from being asked at all, or None.

        ``standing_off`` · ``draining`` · ``unresolved`` · ``down``; who was ``claimed`` before it
        drained still answers that call.
        """
        if self.standing is Standing.OFF:
            return "standing_off"
        if self.standing is Standing.DRAINING and not claimed:
            return "draining"
        if self.address is None:
            return "unresolved"
        return None if self.health.is_up else "down"

    def unusable_because(
        self, now: float, *, spared: bool = False, claimed: bool = False
    ) -> str | None:
        """Return the slug of what keeps new calls away, or None when it can take one.

        Those of ``out_of_service_because`` · ``set_aside`` (unless it is ``spared``: the pool
        cannot do without it) · ``calls_max``
        """
        if (slug := self.out_of_service_because(claimed=claimed)) is not None:
            return slug
        if self.health.is_set_aside(now) and not spared:
            return "set_aside"
        return "calls_max" if self.places_taken >= self.config.calls_max else None

    def call_failed(
        self, reason: str, why: str, now: float, client: bytes | None = None
    ) -> Flip | None:
        """Count a call or a try that failed on its side, and tell its health.

        ``reason`` is a slug, ``why`` a sentence; ``client`` as for ``Health.call_failed``.
        """
        self.failures_total[reason] += 1
        return self.health.call_failed(why, now, client)

    def set_address(self, answers: tuple[str, ...], now: float) -> bool:
        """Take the addresses its name resolved to; return whether new calls go elsewhere now."""
        if not answers or self.address in answers:
            return False
        if self.address is not None:
            self.leaf_sha256 = None
            self.learnt.forget()
            self.health.reset(now)
        self.address = answers[0]
        return True

    def reconfigure(
        self, config: schema.Backend, check: schema.Check, passive: schema.Passive
    ) -> None:
        """Take over what a reload changed; ``config`` has the same name and address.

        The file's standing is taken only when the file changed it: a reload for another reason
        must not undo what the operator said while we were running.
        """
        if config.standing is not self.config.standing:
            self.standing = config.standing
        self.config = config
        self.health.reconfigure(check, passive)

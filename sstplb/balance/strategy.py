"""Who is asked first, and who next: four strategies behind one small protocol.

``order`` puts usable backends in the order in which they should be asked for one call; looking
changes nothing. ``spend_turn`` is said when the first of them is really asked because of that
order (and not because the client is remembered): it moves the strategy on. A turn is spent by
being asked first; what comes of it, and who had to help out, changes nobody's turn. Only when there
was nothing to ask after all (a visitor that is no call) it is given back (``give_back``), and whose
turn it was is asked next.

*Round robin* goes round the configured order: next is the first usable backend after the one that
had the last turn. While the usable set stands still this is exact: any n·k turns in a row give
each of n backends exactly k. When the set changes, whoever is away is skipped and, back again, is
met at its place in the round; so nobody gets two turns in a row unless it is alone, and the next
n·k turns are exact again.

*Weighted round robin* is smooth: a backend of weight 5 among ones of weight 1 does not get five
calls in a row. Each turn, every competitor earns its weight in credit; the one with the most pays
for the turn with all that was earned. With a set that stands still each round of as many turns
as the sum of weights is exact. Whoever is away neither earns nor pays, and keeps its credit.

*Least calls* asks the one that would be least loaded with the call, counting running calls and
those on their way, in proportion to weight; equals are asked round robin.

*Source hash* needs no memory: every backend draws a number from hash(client, backend), stretched
by weight, and the highest wins (rendezvous hashing; -w/ln(h), Wang and Ravishankar 1998 with the
weights of Schindelhauer and Schomaker 2005). When a backend leaves only its own clients move,
when one comes it takes just its share from the others. The hash is BLAKE2b over the names, so the
answer is the same in every process and after every restart, as Python's ``hash`` is not.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from hashlib import blake2b
from types import MappingProxyType
from typing import Protocol

from sstplb.balance.backend import Backend
from sstplb.config import schema
from sstplb.config.schema import Strategy


class PickOrder(Protocol):
    """What a pool needs of a strategy."""

    def order(self, backends: Sequence[Backend], key: bytes) -> list[Backend]:
        """Return ``backends`` in the order to ask them for a call from client network ``key``."""

    def spend_turn(self, first: Backend, backends: Sequence[Backend]) -> None:
        """Note that ``first`` is asked, out of ``backends``, because ``order`` put it first."""

    def give_back(self, first: Backend, backends: Sequence[Backend]) -> None:
        """Note that ``first`` was not asked after all; arguments as they were spent."""

    def inherit(self, previous: "PickOrder") -> None:
        """Go on, after a reload, where ``previous`` was; another strategy leaves nothing."""


class RoundRobin:
    """Each in turn."""

    def __init__(self, configs: Sequence[schema.Backend]) -> None:
        self.position = {config.name: index for index, config in enumerate(configs)}
        self.last = len(configs) - 1
        self.owed: Counter[str] = Counter()
        """Turns that were given back; they go round by themselves, and move the round nowhere."""
        self.last_owed = self.last

    def order(self, backends: Sequence[Backend], key: bytes) -> list[Backend]:  # noqa: ARG002 - not of the client
        """Return the backends as they follow the last turn; whoever is owed one first."""
        owed = [backend for backend in backends if self.owed[backend.name]]
        owed.sort(key=lambda backend: self._distance(backend, self.last_owed))
        rest = [backend for backend in backends if not self.owed[backend.name]]
        return owed + sorted(rest, key=self.distance)

    def distance(self, backend: Backend) -> int:
        """Return how many places after the last turn ``backend`` stands, from 0."""
        return self._distance(backend, self.last)

    def _distance(self, backend: Backend, last: int) -> int:
        return (self.position[backend.name] - last - 1) % len(self.position)

    def spend_turn(self, first: Backend, backends: Sequence[Backend]) -> None:  # noqa: ARG002 - all the same to us
        """Go on after ``first``, unless the turn was owed."""
        if self.owed[first.name]:
            self.owed[first.name] -= 1
            self.last_owed = self.position[first.name]
        else:
            self.last = self.position[first.name]

    def give_back(self, first: Backend, backends: Sequence[Backend]) -> None:  # noqa: ARG002 - all the same to us
        """Owe ``first`` a turn."""
        if first.name in self.position:
            self.owed[first.name] += 1

    def inherit(self, previous: PickOrder) -> None:
        """Go on after the last one before the old position that is still there."""
        if isinstance(previous, RoundRobin):
            names = list(previous.position)
            passed = names[previous.last :: -1] + names[: previous.last : -1]
            self.last = next((self.position[n] for n in passed if n in self.position), self.last)


class WeightedRoundRobin:
    """Each in turn, some more often, evenly spread."""

    def __init__(self, configs: Sequence[schema.Backend]) -> None:
        self.weight = {config.name: config.weight for config in configs}
        self.credit = dict.fromkeys(self.weight, 0)

    def order(self, backends: Sequence[Backend], key: bytes) -> list[Backend]:  # noqa: ARG002 - not of the client
        """Return the backends by what their credit would be with this turn's earnings."""
        return sorted(backends, key=lambda b: -(self.credit[b.name] + self.weight[b.name]))

    def spend_turn(self, first: Backend, backends: Sequence[Backend]) -> None:
        """Let everyone earn, and ``first`` pay."""
        for backend in backends:
            self.credit[backend.name] += self.weight[backend.name]
        self.credit[first.name] -= sum(self.weight[backend.name] for backend in backends)

    def give_back(self, first: Backend, backends: Sequence[Backend]) -> None:
        """Undo it: everyone returns what was earned, and ``first`` gets back what it paid."""
        for backend in backends:
            self.credit[backend.name] -= self.weight[backend.name]
        self.credit[first.name] += sum(self.weight[backend.name] for backend in backends)

    def inherit(self, previous: PickOrder) -> None:
        """Keep the credit of those who stay, unless a weight changed: old debts are too large."""
        if not isinstance(previous, WeightedRoundRobin):
            return
        staying = self.weight.keys() & previous.weight.keys()
        if all(self.weight[name] == previous.weight[name] for name in staying):
            self.credit.update({name: previous.credit[name] for name in staying})


class LeastCalls:
    """Whoever has least to do, for its weight."""

    def __init__(self, configs: Sequence[schema.Backend]) -> None:
        self.turns = RoundRobin(configs)

    def order(self, backends: Sequence[Backend], key: bytes) -> list[Backend]:  # noqa: ARG002 - not of the client
        """Return the backends by their load with one more call; equals round robin."""
        return sorted(backends, key=lambda b: (_load_with_one_more(b), self.turns.distance(b)))

    def spend_turn(self, first: Backend, backends: Sequence[Backend]) -> None:
        """Go on after ``first`` among equals."""
        self.turns.spend_turn(first, backends)

    def give_back(self, first: Backend, backends: Sequence[Backend]) -> None:
        """Nothing to undo: load decides, and there was none."""

    def inherit(self, previous: PickOrder) -> None:
        """Go on among equals where ``previous`` was."""
        if isinstance(previous, LeastCalls):
            self.turns.inherit(previous.turns)


class SourceHash:
    """The same one for the same client, without remembering."""

    def __init__(self, configs: Sequence[schema.Backend]) -> None:
        self.weight = {config.name: config.weight for config in configs}

    def order(self, backends: Sequence[Backend], key: bytes) -> list[Backend]:
        """Return the backends by the number they draw for this client, highest first."""
        return sorted(backends, key=lambda b: (-self._draw(b.name, key), b.name))

    def _draw(self, name: str, key: bytes) -> float:
        """Return -w/ln(h) for h evenly drawn from (0, 1): highest with probability w/Σw.

        52 bits and a half keep h off both 0 and 1 without rounding.
        """
        drawn = blake2b(name.encode() + b"\0" + key, digest_size=8).digest()
        h = ((int.from_bytes(drawn, "big") >> 12) + 0.5) / (1 << 52)
        return -self.weight[name] / math.log(h)

    def spend_turn(self, first: Backend, backends: Sequence[Backend]) -> None:
        """Nothing to note."""

    def give_back(self, first: Backend, backends: Sequence[Backend]) -> None:
        """Nothing to undo."""

    def inherit(self, previous: PickOrder) -> None:
        """Nothing to take over."""


_STRATEGIES: Mapping[Strategy, type[RoundRobin | WeightedRoundRobin | LeastCalls | SourceHash]] = (
    MappingProxyType(
        {
            Strategy.ROUND_ROBIN: RoundRobin,
            Strategy.WEIGHTED_ROUND_ROBIN: WeightedRoundRobin,
            Strategy.LEAST_CALLS: LeastCalls,
            Strategy.SOURCE_HASH: SourceHash,
        }
    )
)


def pick_order(strategy: Strategy, configs: Sequence[schema.Backend]) -> PickOrder:
    """Return a fresh strategy for the backends of ``configs``, in their configured order."""
    return _STRATEGIES[strategy](configs)


def _load_with_one_more(backend: Backend) -> float:
    """Return calls per weight. Equal fractions give equal floats: division rounds correctly."""
    return (backend.places_taken + 1) / backend.config.weight

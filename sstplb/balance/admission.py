"""May this call come in at all? Caps and rates, counted exactly.

A call takes a ``Ticket`` before anything is spent on it and gives it back at its very end. Five
limits are looked at, in this order, and the first that is reached is the one that is named:

=====================  ===================================================================
slug                   limit
=====================  ===================================================================
``calls_max``          calls at one time, all listeners together
``listener_calls_max`` calls at one time on this listener
``openings_max``       calls at one time that are not handed over yet
``client_calls_max``   calls at one time from this client network
``client_rate``        new calls per second from this client network, after a burst
=====================  ===================================================================

The rate is a token bucket per client network: it holds ``accept_burst_per_client`` tokens, gains
``accept_rate_per_client`` a second, and a call costs one. A call that is refused, for whatever
reason, costs nothing: a client that hammers gets exactly its rate. A bucket that has had time to
fill is the same as none and is forgotten; beyond ``client_networks_max`` the least recently used
is forgotten too.

Behind a trusted proxy the client is not known until its PROXY preface is read: then a ticket is
taken without a client, and ``Ticket.client_is`` settles the last two limits.
"""

from collections import Counter, OrderedDict
from enum import Enum
from typing import TypeVar

from sstplb.balance.affinity import client_network
from sstplb.config.schema import Limits
from sstplb.errors import LimitReachedError

K = TypeVar("K")


class _Stage(Enum):
    OPENING = "opening"
    OPENED = "opened"
    GIVEN_BACK = "given back"


class Ticket:
    """One call's place among all. Made by ``Admission.admit``."""

    __slots__ = ("_admission", "_client", "_listener", "_stage")

    def __init__(self, admission: "Admission", listener: str, client: bytes | None) -> None:
        self._admission = admission
        self._listener = listener
        self._client = client
        self._stage = _Stage.OPENING
        admission.calls += 1
        admission.openings += 1
        admission.calls_by_listener[listener] += 1

    def client_is(self, client_host: str, now: float) -> None:
        """Count the call for its client network. Raises LimitReachedError, and then it is not.

        Raises RuntimeError when the client is known already: that is a mistake of ours.
        """
        if self._client is not None or self._stage is _Stage.GIVEN_BACK:
            raise RuntimeError("a ticket can be given a client once, while it is held")
        self._client = self._admission.take_client(client_host, now)

    def opened(self) -> None:
        """Note the hand-over: the call no longer counts as an opening.

        Raises RuntimeError when said twice or after ``release``: that is a mistake of ours.
        """
        if self._stage is not _Stage.OPENING:
            raise RuntimeError(f"hand-over of a ticket that is {self._stage.value}")
        self._stage = _Stage.OPENED
        self._admission.openings -= 1

    def release(self) -> None:
        """Give everything back: the call is over. Again: changes nothing."""
        if self._stage is _Stage.GIVEN_BACK:
            return
        if self._stage is _Stage.OPENING:
            self._admission.openings -= 1
        self._stage = _Stage.GIVEN_BACK
        self._admission.calls -= 1
        _count_down(self._admission.calls_by_listener, self._listener)
        if self._client is not None:
            _count_down(self._admission.calls_by_client, self._client)


class Admission:
    """All tickets given out, and the rates of those who ask."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self.calls = 0
        self.openings = 0
        self.calls_by_listener: Counter[str] = Counter()
        self.calls_by_client: Counter[bytes] = Counter()
        """By client network; only those that have calls."""
        self.admitted_total = 0
        self.refused_total: Counter[str] = Counter()
        """By slug."""
        self._buckets: OrderedDict[bytes, tuple[float, float]] = OrderedDict()
        """Tokens, and when they were counted; least recently used first."""

    def admit(
        self, listener: str, listener_calls_max: int, client_host: str | None, now: float
    ) -> Ticket:
        """Give a ticket. Raises LimitReachedError, whose ``reason`` names the limit.

        ``client_host`` None: not known yet, see ``Ticket.client_is``. Raises ValueError when it
        is not an IP address.
        """
        limits = self._limits
        self._insist(self.calls < limits.calls_max, "calls_max", limits.calls_max)
        self._insist(
            self.calls_by_listener[listener] < listener_calls_max,
            "listener_calls_max",
            listener_calls_max,
        )
        self._insist(self.openings < limits.openings_max, "openings_max", limits.openings_max)
        client = None if client_host is None else self.take_client(client_host, now)
        self.admitted_total += 1
        return Ticket(self, listener, client)

    def reconfigure(self, limits: Limits) -> None:
        """Go by other limits. Nobody is sent away: a lowered cap refuses until it is met.

        With other prefix lengths rates begin afresh, and running calls go on counting for the
        network they were admitted for.
        """
        before, self._limits = self._limits, limits
        if (before.client_prefix_v4, before.client_prefix_v6) != (
            limits.client_prefix_v4,
            limits.client_prefix_v6,
        ):
            self._buckets.clear()
        self._forget_buckets(limits.client_networks_max)

    def take_client(self, client_host: str, now: float) -> bytes:
        """Count a call for a client network and return it. Raises LimitReachedError."""
        limits = self._limits
        client = client_network(client_host, limits.client_prefix_v4, limits.client_prefix_v6)
        most = limits.calls_max_per_client
        self._insist(self.calls_by_client.get(client, 0) < most, "client_calls_max", most)
        rate = limits.accept_rate_per_client
        self._insist(self._take_token(client, now), "client_rate", rate)
        self.calls_by_client[client] += 1
        return client

    def _take_token(self, client: bytes, now: float) -> bool:
        """Spend a token of the client's bucket, if it has one."""
        rate, burst = self._limits.accept_rate_per_client, self._limits.accept_burst_per_client
        self._forget_full_buckets(now, burst / rate)
        tokens, counted_at = self._buckets.pop(client, (float(burst), now))
        tokens = min(float(burst), tokens + rate * max(0.0, now - counted_at))
        enough = tokens >= 1.0
        self._forget_buckets(self._limits.client_networks_max - 1)
        self._buckets[client] = (tokens - enough, now)
        return enough

    def _forget_full_buckets(self, now: float, fill_s: float) -> None:
        """Forget who has not called for as long as any bucket takes to fill."""
        while self._buckets and now - next(iter(self._buckets.values()))[1] >= fill_s:
            self._buckets.popitem(last=False)

    def _forget_buckets(self, most: int) -> None:
        while len(self._buckets) > most:
            self._buckets.popitem(last=False)

    def _insist(self, ok: bool, slug: str, limit: float) -> None:
        if not ok:
            self.refused_total[slug] += 1
            raise LimitReachedError(f"the limit {slug} of {limit:g} is reached", reason=slug)


def _count_down(counts: Counter[K], key: K) -> None:
    """Count one less, and drop the key with the last: the table holds only who has calls."""
    counts[key] -= 1
    if not counts[key]:
        del counts[key]

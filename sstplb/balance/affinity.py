"""Source affinity: a client that returns finds the backend it had.

RRAS keeps state a client comes back for, and IKEv2 beside SSTP must reach the same server. A
client is its network: the address under a prefix length per family. An IPv4 address written as
IPv6 (``::ffff:192.0.2.1``, what a socket on ``[::]`` says of it) is the IPv4 client it is.

What is remembered is the backend that last *took* a call, never one that was merely tried: the
pool says ``remember`` at hand-over. While calls of a client run, its entry does not expire; with
the end of the last one its time-out begins. Looking an entry up does not prolong it.

A backend that *fails* a client (a refused binding, an opening it lets time out: ``failed``) is not
remembered any more but avoided: the client's next calls ask it last, until one is handed over or
the entry times out. Other calls of that client which run well there do not hold it: they stay
where they are, and to be sent elsewhere costs a client nothing, to be sent back to who refuses it
costs every call. An office behind one address is one client too.

An operator may *pin* a client to a backend: that outlives calls and time-outs, and is looked up
first. Pins are bounded by ``entries_max`` too, and nothing evicts one: a pin too many is refused.

Bounded, and every step O(1): entries without calls stand in the order in which their last call
ended, which is also the order in which they expire. Beyond ``entries_max`` the first of those is
forgotten. When there is none, all remembered clients being in the middle of calls, the client
whose latest hand-over is longest ago is forgotten: the bound is the stronger promise. Its calls
run on, and their end finds nobody to count for. (By default there can be five times fewer calls
than entries, so this happens only where somebody set the two the other way round.)
"""

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv6Address, ip_address, ip_network

from sstplb.config.schema import Affinity


@lru_cache(maxsize=4096)  # a call asks for it four times
def client_network(host: str, prefix_v4: int, prefix_v6: int) -> bytes:
    """Return the network of a client address: 4 or 16 bytes, those beyond the prefix zero.

    Raises ValueError when ``host`` is not an IP address.
    """
    address = ip_address(host)
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    prefix = prefix_v4 if address.version == 4 else prefix_v6
    beyond = address.max_prefixlen - prefix
    return (int.from_bytes(address.packed, "big") >> beyond << beyond).to_bytes(
        address.max_prefixlen // 8, "big"
    )


@dataclass(slots=True, eq=False)
class Entry:
    """One client remembered. Who holds calls keeps it, and gives it back to ``release``."""

    key: bytes
    backend: str
    """The name of the backend that took its latest call."""
    calls: int = 0
    """Its calls that run."""
    is_avoided: bool = False
    """Whether that backend failed it since: it is asked last then, not first."""
    expires_at: float = 0.0
    """When it is forgotten, once no call runs."""


@dataclass(frozen=True, slots=True)
class KnownClient:
    """One client of the table, for an operator."""

    client: str
    """Its network: ``10.0.0.0/32``."""
    backend: str
    is_pinned: bool
    expires_in_s: float | None
    """None: not while it is pinned or has calls."""


@dataclass(slots=True)
class AffinityCounters:
    """What the table did since the start."""

    hits: int = 0
    """Look-ups that found a backend."""
    misses: int = 0
    """Look-ups that found none."""
    expired: int = 0
    """Entries that timed out."""
    evicted: int = 0
    """Entries forgotten because the table was full."""
    moved: int = 0
    """Hand-overs to another backend than the one remembered."""


class AffinityTable:
    """Which backend each client network had last."""

    def __init__(self, config: Affinity) -> None:
        self.config = config
        self.counters = AffinityCounters()
        self._busy: OrderedDict[bytes, Entry] = OrderedDict()
        """With running calls, in the order of their latest hand-over."""
        self._idle: OrderedDict[bytes, Entry] = OrderedDict()
        """Without, in the order in which their last call ended."""
        self._pinned: dict[bytes, str] = {}
        """The operator's word, by client; not counted as entries."""

    def __len__(self) -> int:
        return len(self._busy) + len(self._idle)

    def key(self, host: str) -> bytes:
        """Return the client network of an address. Raises ValueError when it is none."""
        return client_network(host, self.config.prefix_v4, self.config.prefix_v6)

    def lookup(self, key: bytes, now: float) -> str | None:
        """Return the name of the backend that ``key`` had last, or None."""
        self._expire(now)
        if (pinned := self._pinned.get(key)) is not None:
            self.counters.hits += 1
            return pinned
        entry = self._busy.get(key) or self._idle.get(key)
        if entry is None or entry.is_avoided:
            self.counters.misses += 1
            return None
        self.counters.hits += 1
        return entry.backend

    def avoided(self, key: bytes) -> str | None:
        """Return the name of the backend that failed ``key`` last, or None."""
        entry = self._busy.get(key) or self._idle.get(key)
        return entry.backend if entry is not None and entry.is_avoided else None

    def remember(self, key: bytes, backend: str, now: float) -> Entry:
        """Note a call handed over to ``backend``; its end is said with ``release``."""
        self._expire(now)
        entry = self._busy.pop(key, None) or self._idle.pop(key, None)
        if entry is None:
            self._make_room(self.config.entries_max - 1)
            entry = Entry(key, backend)
        elif entry.backend != backend:
            self.counters.moved += 1
            entry.backend = backend
        entry.is_avoided = False
        entry.calls += 1
        self._busy[key] = entry
        return entry

    @staticmethod
    def failed(entry: Entry, backend: str) -> None:
        """Note that ``backend`` failed a call; nothing changes if another has been remembered."""
        entry.is_avoided = entry.is_avoided or entry.backend == backend

    def release(self, entry: Entry, now: float) -> None:
        """Note the end of a call that ``remember`` was told of, once for each."""
        entry.calls -= 1
        if entry.calls or self._busy.get(entry.key) is not entry:
            return
        entry.expires_at = now + self.config.timeout
        self._idle[entry.key] = self._busy.pop(entry.key)

    def reconfigure(self, config: Affinity) -> None:
        """Go on under other rules, with the same prefix lengths: a key must mean the same.

        A changed time-out holds for calls that end from now on.
        """
        self.config = config
        self._make_room(config.entries_max)

    def count(self, now: float) -> int:
        """Return how many clients are remembered now, pins aside."""
        self._expire(now)
        return len(self)

    @property
    def pins_count(self) -> int:
        """How many clients are pinned."""
        return len(self._pinned)

    # --- what an operator may do --------------------------------------------------------------

    def remembered(self, now: float) -> Iterator[KnownClient]:
        """Yield all that would be found now: pins, clients with calls, then the others."""
        self._expire(now)
        for key, backend in self._pinned.items():
            yield KnownClient(self.show(key), backend, is_pinned=True, expires_in_s=None)
        for entry in (*self._busy.values(), *self._idle.values()):
            if entry.key not in self._pinned and not entry.is_avoided:
                left = None if entry.calls else entry.expires_at - now
                yield KnownClient(
                    self.show(entry.key), entry.backend, is_pinned=False, expires_in_s=left
                )

    def pin(self, key: bytes, backend: str) -> bool:
        """Send a client to ``backend`` until ``forget``; False: there are too many pins."""
        if key not in self._pinned and len(self._pinned) >= self.config.entries_max:
            return False
        self._pinned[key] = backend
        return True

    def forget(self, key: bytes) -> bool:
        """Forget a client, pinned or not; return whether there was anything. Its calls run on."""
        found = [table.pop(key, None) for table in (self._pinned, self._busy, self._idle)]
        return any(found)

    def forget_pins_to(self, backend: str) -> None:
        """Unpin everybody from a backend that is no more."""
        self._pinned = {key: name for key, name in self._pinned.items() if name != backend}

    # --- what outlives the process ------------------------------------------------------------

    def pins(self) -> dict[bytes, str]:
        """Return the operator's word, by client."""
        return dict(self._pinned)

    def kept(self, now: float) -> Iterator[tuple[bytes, str, float]]:
        """Yield clients, their backends and the seconds they would still be remembered.

        Those with calls come last, with the whole time-out: for whoever reads this, the calls will
        have ended.
        """
        self._expire(now)
        for entry in self._idle.values():
            if not entry.is_avoided:
                yield entry.key, entry.backend, entry.expires_at - now
        for entry in self._busy.values():
            if not entry.is_avoided:
                yield entry.key, entry.backend, self.config.timeout

    def restore(self, key: bytes, backend: str, expires_at: float) -> None:
        """Remember a client that somebody else remembered; in the order of their time-outs."""
        if key not in self._busy and key not in self._idle:
            self._make_room(self.config.entries_max - 1)
            # The order of these is that of their time-outs.
            last = next(reversed(self._idle.values()), None)
            at = expires_at if last is None else max(expires_at, last.expires_at)
            self._idle[key] = Entry(key, backend, expires_at=at)

    def show(self, key: bytes) -> str:
        """Return a client network as text: ``10.0.0.0/24``."""
        prefix = self.config.prefix_v4 if len(key) == 4 else self.config.prefix_v6
        return str(ip_network((key, prefix)))

    def _expire(self, now: float) -> None:
        """Forget who timed out; each entry is looked at once, so this is O(1) over time."""
        while self._idle and next(iter(self._idle.values())).expires_at <= now:
            self._idle.popitem(last=False)
            self.counters.expired += 1

    def _make_room(self, entries_max: int) -> None:
        while len(self) > entries_max:
            (self._idle or self._busy).popitem(last=False)
            self.counters.evicted += 1

"""What a call asks and tells where calls are decided: its *booking*.

Limits, turns, affinity and health hold for the whole balancer, so one place decides on them
(``control/booking.py``), whichever process carries the call. A session speaks to that place
through this interface alone: in the deciding process it is the booking itself, in a worker a
stub that passes every word on (``control/worker.py``). What is asked is awaited; what is told
is not.
"""

from dataclasses import dataclass
from typing import Protocol

from sstplb.account.record import Address, Outcome, Record
from sstplb.config import schema


@dataclass(frozen=True, slots=True)
class Chosen:
    """A backend that may be tried: a place on it is taken."""

    config: schema.Backend
    host: str
    """Where it is: never a name."""


class Booking(Protocol):
    """One call's booking."""

    record: Record

    async def client_is(self, source: Address) -> None:
        """Say who is really calling, after a PROXY preface. Raises LimitReachedError."""

    async def claim(self, pool: str, certificates: tuple[bytes, ...]) -> bytes:
        """Ask which of several certificates (SHA-256, the preferred first) to show a client.

        It is the one that the best candidate accepts. The strategy moves on, and ``first`` goes by
        the same candidates; when there is no ``first``, the turn is given back.
        """

    async def first(self, pool: str, shown_sha256: bytes | None) -> Chosen:
        """Ask for the best candidate of a pool, for a client that was shown that certificate.

        The strategy moves on. Raises NoBackendAvailableError when there is none.
        """

    async def next(self) -> Chosen | None:
        """Ask for the next candidate; None: there are no more."""

    async def could_be_served(self, pool: str, shown_sha256: bytes | None) -> bool:
        """Ask whether there would be a candidate now; nobody's turn is spent."""

    async def handed_over(self) -> None:
        """Have it noted that the client gets the candidate's answer: the call runs there."""

    def saw_leaf(self, sha256: bytes) -> None:
        """Tell which certificate the candidate has just shown."""

    def try_failed(self, reason: str | None, why: str) -> None:
        """Give the candidate's place back; a ``reason`` (a slug) counts against it, None does not.

        ``why`` says it in words.
        """

    def did_well(self, *, proven: bool = False) -> None:
        """Tell that the call proved its backend's worth; ``proven``: its binding was accepted."""

    def did_badly(self, reason: str, why: str) -> None:
        """Tell that the backend failed the call: a slug, and in words."""

    def close(self, outcome: Outcome, reason: str, detail: str) -> None:
        """Close the record: exactly once."""

    def release(self) -> None:
        """Give everything back: the call is over."""

"""Which calls an operator wants to see: what may be asked, and whether a record fits."""

import ipaddress
from dataclasses import dataclass

from sstplb.account.record import Outcome, Record
from sstplb.errors import BadRequestError

_FAILED = (Outcome.REFUSED, Outcome.CLIENT_FAILED, Outcome.BACKEND_FAILED)


@dataclass(frozen=True, slots=True)
class Selection:
    """Which calls to list."""

    state: str = "all"
    """``running``, ``ended``, ``failed`` (ended, and not well) or ``all``."""
    listener: str | None = None
    pool: str | None = None
    backend: str | None = None
    client: str | None = None
    """An address or a network."""
    text: str | None = None
    """Some text in client, server name, backend, correlation id, reason, detail, or in
    what the story tells of who calls."""
    limit: int = 200
    offset: int = 0


class Matcher:
    """Whether a record is one of a selection's.

    Raises BadRequestError at once for a client that is no address and no network.
    """

    def __init__(self, wanted: Selection) -> None:
        self._wanted = wanted
        self._text = (wanted.text or "").strip().casefold()
        self._network = None
        if wanted.client:
            try:
                self._network = ipaddress.ip_network(wanted.client, strict=False)
            except ValueError:
                text = f"expected an address or a network such as 10.0.0.0/8, got {wanted.client!r}"
                raise BadRequestError(text, "client") from None

    def __call__(self, record: Record) -> bool:
        """Return whether it fits all that is asked."""
        wanted = self._wanted
        return (
            wanted.listener in (None, record.listener)
            and wanted.pool in (None, record.pool)
            and wanted.backend in (None, record.backend)
            and (wanted.state != "failed" or record.outcome in _FAILED)
            and (self._network is None or ipaddress.ip_address(record.client[0]) in self._network)
            and (not self._text or self._text in _searched(record))
        )


def _searched(record: Record) -> str:
    """Return what a text is looked for in."""
    story = record.story
    parts = (
        str(record.id),
        record.client[0],
        record.server_name,
        record.backend,
        record.correlation_id,
        record.outcome,
        record.reason,
        record.detail,
        *((story.user, story.computer, story.address) if story is not None else ()),
    )
    return "\n".join(part for part in parts if part).casefold()

"""What the operator's desk knows of the admin side: doors that are opened, settled and left.

The doors themselves are in ``admin/side.py``, which loads a web framework; a balancer without an
admin side has none of it, and the desk works all the same.
"""

import socket
from typing import Protocol

from sstplb.control.plan import Prepared
from sstplb.control.takeover import Place


class Doors(Protocol):
    """The admin side's sockets, which a reload may change."""

    def open(self, prepared: Prepared) -> None:
        """Bind what is new. Raises ConfigError, and then nothing has changed."""

    def settle(self, prepared: Prepared | None) -> None:
        """Let what was opened serve and what is no longer wanted go; None: as it was before."""

    def sockets(self) -> dict[Place, socket.socket]:
        """Return them, to be shared with another process."""

    def leave(self) -> None:
        """Let go of them, for another process serves there."""


class NoDoors:
    """The admin side of a balancer that has none."""

    def open(self, prepared: Prepared) -> None:
        """Nothing to bind."""

    def settle(self, prepared: Prepared | None) -> None:
        """Nothing to swap."""

    def sockets(self) -> dict[Place, socket.socket]:
        """There are none."""
        return {}

    def leave(self) -> None:
        """Nothing to let go."""

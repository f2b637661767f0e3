"""The operator's desk: everything that can be seen of a running balancer, and done to it.

It stands between those who ask (the API, signals, the watch over certificates) and what carries
calls, and has four parts:

=================  =====================================================================
``sight``          what there is to see; looking changes nothing
``orders``         what is done to what runs: standings, ends of calls, pins, captures
``configuration``  what is in force: reloaded, changed without the file, written back
``departure``      the end of the process: it stops, or another takes over
=================  =====================================================================

Who looks changes nothing, and who changes something lets ``sight`` say how it looks now. All raise
what ``errors.py`` has for operators. Here the parts are made, with what they share; nothing else.
"""

from pathlib import Path

from sstplb.control.balancer import Balancer
from sstplb.control.configuration import Configuration
from sstplb.control.departure import Departure
from sstplb.control.logs import Logs
from sstplb.control.manager import ServiceManager
from sstplb.control.metrics import Tally
from sstplb.control.orders import Orders
from sstplb.control.sight import Sight
from sstplb.control.state import Keeper
from sstplb.control.turns import Turns


class Operator:
    """All that can be asked of a running balancer."""

    def __init__(
        self, balancer: Balancer, file: Path, logs: Logs, manager: ServiceManager | None = None
    ) -> None:
        manager = manager or ServiceManager()
        turns = Turns()
        self.events = logs.events
        """The latest events."""
        self.tally = Tally()
        self.keeper = Keeper(balancer)
        self.configuration = Configuration(balancer, file, turns, self.tally, logs, manager)
        self.orders = Orders(balancer, turns, self.keeper)
        self.departure = Departure(
            balancer, turns, self.tally, self.keeper, self.configuration, manager
        )
        self.sight = Sight(balancer, self.events, self.configuration, self.departure, self.tally)
        self.is_closing = False
        """Whether the admin side is: nobody may begin to follow events."""

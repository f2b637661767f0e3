"""All that can be seen of a running balancer. Looking changes nothing.

Answers are plain shapes (``views.py``, ``rollout.py``, the metrics): who asks never holds a
``Backend`` or a ``Call``. So they look the same whether one process carries the calls or several.
What is done to the balancer is in ``orders.py``, ``configuration.py`` and ``departure.py``.
"""

import asyncio
import time

from sstplb import __version__
from sstplb.account.diagnosis import diagnose
from sstplb.account.exposition import log_fields
from sstplb.account.metrics import Measured
from sstplb.account.record import Outcome
from sstplb.control import views
from sstplb.control.balancer import Balancer
from sstplb.control.configuration import Configuration
from sstplb.control.cost import SINCE_START_BYTES_MIN, CostMeter, per_gb
from sstplb.control.departure import Departure
from sstplb.control.events import EventLog
from sstplb.control.finding import (
    find_backend,
    find_listener,
    find_pool,
    find_record,
    records,
    running_calls,
)
from sstplb.control.metrics import Tally, measure
from sstplb.control.rollout import PoolRollout, rollout
from sstplb.control.selection import Matcher, Selection
from sstplb.control.views import (
    BackendView,
    CallView,
    CapturesView,
    CertificateView,
    ListenerView,
    Overview,
    PoolView,
    Remembered,
    Volumes,
)
from sstplb.net import capture
from sstplb.net.call import now_s
from sstplb.net.listener import Listener

EVENTS_LOOKED_AT = 2000
"""For what checks found after a call: more than are kept."""


class Sight:
    """What an operator sees."""

    def __init__(
        self,
        balancer: Balancer,
        events: EventLog,
        configuration: Configuration,
        departure: Departure,
        tally: Tally,
    ) -> None:
        self.started_at = time.time()
        self._balancer = balancer
        self._events = events
        self._configuration = configuration
        self._departure = departure
        self._tally = tally
        self._meter = CostMeter()

    # --- the whole ----------------------------------------------------------------------------

    def overview(self) -> Overview:
        """Return everything at once."""
        balancer, ledger = self._balancer, self._balancer.ledger
        volumes = Volumes(balancer)
        bytes_in, bytes_out = volumes.bytes_in.total(), volumes.bytes_out.total()
        outcomes = dict.fromkeys(map(str, Outcome), 0)
        for (_, outcome, _), count in ledger.outcomes_total.items():
            outcomes[str(outcome)] += count
        cpu_s = time.process_time() + balancer.crew.cpu_s()
        return Overview(
            version=__version__,
            now_at=time.time(),
            started_at=self.started_at,
            engine=balancer.prepared.engine,
            workers=balancer.crew.count,
            config_file=str(self._configuration.file),
            draining=self._departure.is_draining,
            totals=views.Totals(
                ledger.opened_total, len(ledger.running), bytes_in, bytes_out, outcomes
            ),
            listeners=self._listener_views(volumes),
            pools=self.pools(),
            ways=views.way_views(balancer.listeners, volumes),
            cost=self._cost(cpu_s, bytes_in + bytes_out, volumes),
        )

    def measure(self) -> Measured:
        """Return the values of all metrics."""
        return measure(
            self._balancer,
            self._tally,
            self._events.by_level,
            started_at=self.started_at,
            drift_values=len(self._configuration.drift()),
            is_stopping=self._departure.is_draining,
        )

    def _cost(self, cpu_s: float, moved: int, volumes: Volumes) -> views.Cost:
        services = self._balancer.plan.services
        modes = {name: str(service.listener.mode) for name, service in services.items()}
        meter = self._meter
        meter.look(cpu_s, volumes.by_mode(modes))
        by_mode = tuple(
            views.ModeCost(
                mode,
                meter.cpu_s.get(mode, 0.0),
                meter.moved.get(mode, 0),
                per_gb(meter.cpu_s.get(mode, 0.0), meter.moved.get(mode, 0)),
            )
            for mode in dict.fromkeys(modes.values())
        )
        return views.Cost(cpu_s, per_gb(cpu_s, moved, SINCE_START_BYTES_MIN), by_mode)

    # --- listeners, and what they show --------------------------------------------------------

    def listeners(self) -> tuple[ListenerView, ...]:
        """Return every listener."""
        return self._listener_views(Volumes(self._balancer))

    def listener(self, name: str) -> ListenerView:
        """Return one listener. Raises UnknownThingError."""
        return self._listener_view(find_listener(self._balancer, name), Volumes(self._balancer))

    def _listener_views(self, volumes: Volumes) -> tuple[ListenerView, ...]:
        listeners = self._balancer.listeners.values()
        return tuple(self._listener_view(listener, volumes) for listener in listeners)

    def _listener_view(self, listener: Listener, volumes: Volumes) -> ListenerView:
        name = listener.service.listener.name
        calls = self._balancer.admission.calls_by_listener[name]
        return views.listener_view(name, listener, volumes, calls)

    def certificates(self) -> dict[str, list[CertificateView]]:
        """Return the certificates clients are shown, by listener."""
        return {
            name: [views.certificate_view(s.certificate) for s in service.server_policy.served]
            for name, service in self._balancer.plan.services.items()
            if service.server_policy is not None
        }

    def rollout(self) -> list[PoolRollout]:
        """Return where each pool stands that accepts certificates of ours."""
        found = (rollout(checks) for checks in self._balancer.plan.checks.values())
        return [pool for pool in found if pool is not None]

    # --- pools, and whom they remember --------------------------------------------------------

    def pools(self) -> tuple[PoolView, ...]:
        """Return every pool with its backends."""
        filed = self._configuration.standings_in_file()
        return tuple(
            views.pool_view(checks, filed, self.started_at)
            for checks in self._balancer.plan.checks.values()
        )

    def backend(self, pool: str, name: str) -> BackendView:
        """Return one backend. Raises UnknownThingError."""
        checks, backend = find_backend(self._balancer, pool, name)
        filed = self._configuration.standings_in_file().get((pool, name))
        usability = checks.usability(now_s())
        return views.backend_view(checks, backend, usability, filed, self.started_at)

    def affinity(self, pool: str, limit: int) -> tuple[int, list[Remembered]]:
        """Return how many clients a pool remembers, and the first of them.

        Raises UnknownThingError.
        """
        table = find_pool(self._balancer, pool).pool.affinity
        found = list(table.remembered(now_s()))
        return len(found), [
            Remembered(r.client, r.backend, r.is_pinned, r.expires_in_s) for r in found[:limit]
        ]

    # --- calls --------------------------------------------------------------------------------

    def calls(self, wanted: Selection) -> tuple[int, list[CallView]]:
        """Return how many calls match, and one page of them, the newest first.

        Raises BadRequestError.
        """
        is_wanted = Matcher(wanted)
        found = [r for r in records(self._balancer, wanted.state) if is_wanted(r)]
        page = found[wanted.offset : wanted.offset + wanted.limit]
        running = running_calls(self._balancer)
        return len(found), [views.call_view(r, running.get(r.id)) for r in page]

    def call(self, number: int) -> CallView:
        """Return one call, diagnosed. Raises UnknownThingError: it never was, or is long gone."""
        record = find_record(self._balancer, number)
        shown = views.call_view(record, running_calls(self._balancer).get(number))
        later = views.downs_after(record, self._events.after(0, EVENTS_LOOKED_AT))
        return {**shown, "diagnoses": diagnose(log_fields(record), later)}

    async def captures(self) -> CapturesView:
        """Return what is recorded, and was. Raises CaptureError or UnavailableError."""
        directory = self._configuration.in_force.capture.directory
        if directory is None:
            return CapturesView(None, (), ())
        files = await asyncio.to_thread(capture.files_in, directory)
        running = await self._balancer.crew.captures()
        return CapturesView(str(directory), tuple(running), tuple(files))

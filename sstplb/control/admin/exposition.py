"""The metrics page: what was measured, written by Prometheus's own client library.

A registry is made for each answer and holds that answer's values alone: there is no state beside
the balancer's. Who asks for OpenMetrics gets it (Accept), everybody else the text format.
"""

import math
from collections.abc import Iterable, Iterator

from prometheus_client import CollectorRegistry
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from sstplb.account.histogram import Distribution
from sstplb.account.metrics import Family, Kind, Measured

Values = Iterable[tuple[tuple[str, ...], float | Distribution]]


def render(measured: Measured, accept: str) -> tuple[bytes, str]:
    """Return the page and its content type."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Once(measured))
    encode, content_type = choose_encoder(accept)
    return encode(registry), content_type


class _Once(Collector):
    """Collects one measurement."""

    def __init__(self, measured: Measured) -> None:
        self._measured = measured

    def collect(self) -> Iterator[Metric]:
        """Yield each family that has values."""
        for metric, values in self._measured.values.items():
            if values:
                yield _family(metric.family, values.items())


def _family(family: Family, values: Values) -> Metric:
    if family.kind is Kind.HISTOGRAM:
        histogram = HistogramMetricFamily(family.full_name, family.help, labels=family.labels)
        for labels, value in values:
            assert isinstance(value, Distribution), family.name
            buckets = [
                ("+Inf" if bound == math.inf else repr(float(bound)), count)
                for bound, count in value.cumulative
            ]
            histogram.add_metric(labels, buckets, value.sum)
        return histogram
    kind = CounterMetricFamily if family.kind is Kind.COUNTER else GaugeMetricFamily
    found = kind(family.full_name, family.help, labels=family.labels)
    for labels, value in values:
        assert not isinstance(value, Distribution), family.name
        found.add_metric(labels, value)
    return found

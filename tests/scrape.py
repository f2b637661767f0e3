"""One more character: Prometheus, as far as it reads a page of metrics."""

from collections.abc import Iterator

from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families


class Scrape:
    """What one page says."""

    def __init__(self, page: str) -> None:
        self.families: list[Metric] = list(text_string_to_metric_families(page))
        self.samples: list[tuple[str, dict[str, str], float]] = [
            (sample.name, sample.labels, sample.value)
            for family in self.families
            for sample in family.samples
        ]
        keys = [(name, tuple(sorted(labels.items()))) for name, labels, _ in self.samples]
        assert len(keys) == len(set(keys)), "a series is there twice"

    def __call__(self, name: str, /, **labels: str) -> float:
        """Return the sum of all series of ``sstplb_<name>`` that have these labels."""
        found = list(self.matching(name, **labels))
        assert found, f"there is no sstplb_{name} with {labels}"
        return sum(found)

    def matching(self, name: str, /, **labels: str) -> Iterator[float]:
        for known, theirs, value in self.samples:
            if known == f"sstplb_{name}" and labels.items() <= theirs.items():
                yield value

    def labels_by_name(self) -> dict[str, set[str]]:
        """Return the labels of each name a query may use."""
        found: dict[str, set[str]] = {}
        for name, labels, _ in self.samples:
            found.setdefault(name, set()).update(labels)
        return found

    def never_lower_than(self, before: "Scrape") -> bool:
        """Whether no counter went down."""
        kinds = {sample.name: family.type for family in self.families for sample in family.samples}
        now = {(name, *sorted(labels.items())): value for name, labels, value in self.samples}
        return all(
            now[name, *sorted(labels.items())] >= value
            for name, labels, value in before.samples
            if kinds.get(name) in ("counter", "histogram")
        )

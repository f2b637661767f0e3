"""One more character: who reads PromQL, and knows what Prometheus would make of it.

``Reader.labels_of`` walks a query as its parser understands it and returns the labels of its
result. On the way it insists that every metric exists, that every label that is matched, grouped or
joined by is really there, and that both sides of an operation can meet at all: what a query may get
wrong without anybody being told, for Prometheus answers it with nothing.
"""

from collections.abc import Mapping

import promql_parser as promql

TARGET_LABELS = frozenset({"job", "instance"})
"""What Prometheus adds to everything it scrapes."""
Labels = frozenset[str] | None
"""None: a number, which has none."""


class Reader:
    """Reads queries against the metrics that there are."""

    def __init__(self, labels_by_name: Mapping[str, set[str]]) -> None:
        self._known = {name: TARGET_LABELS | labels for name, labels in labels_by_name.items()}
        self._known["up"] = TARGET_LABELS
        self.matched: list[tuple[str, str]] = []
        """Labels and the values they were compared with."""
        self.names: set[str] = set()

    def labels_of(self, query: str) -> frozenset[str]:
        """Return the labels of a query's result. Raises AssertionError: it cannot work."""
        try:
            return self._of(promql.parse(query)) or frozenset()
        except ValueError as error:
            raise AssertionError(f"{query}: {error}") from error

    def _of(self, expr: object) -> Labels:
        if isinstance(expr, promql.VectorSelector):
            return self._of_selector(expr)
        if isinstance(expr, promql.MatrixSelector):
            return self._of_selector(expr.vector_selector)
        if isinstance(expr, promql.ParenExpr | promql.UnaryExpr | promql.SubqueryExpr):
            return self._of(expr.expr)
        if isinstance(expr, promql.NumberLiteral | promql.StringLiteral):
            return None
        if isinstance(expr, promql.Call):
            return self._of_call(expr)
        if isinstance(expr, promql.AggregateExpr):
            return self._of_aggregate(expr)
        assert isinstance(expr, promql.BinaryExpr), f"{expr!r} is not understood"
        return self._of_binary(expr)

    def _of_selector(self, expr: promql.VectorSelector) -> Labels:
        name = expr.name
        assert name in self._known, f"there is no metric {name}"
        self.names.add(name)
        for matcher in expr.matchers.matchers:
            assert matcher.name in self._known[name], f"{name} has no label {matcher.name}"
            self.matched.append((matcher.name, matcher.value))
        return frozenset(self._known[name])

    def _of_call(self, expr: promql.Call) -> Labels:
        vectors = [labels for arg in expr.args if (labels := self._of(arg)) is not None]
        if not vectors:
            return None
        (labels,) = vectors
        if expr.func.name == "histogram_quantile":
            assert "le" in labels, f"{expr.prettify()}: the buckets' le was aggregated away"
            return labels - {"le"}
        return labels

    def _of_aggregate(self, expr: promql.AggregateExpr) -> Labels:
        labels = self._of(expr.expr)
        assert labels is not None, f"{expr.prettify()}: a number cannot be aggregated"
        if expr.modifier is None:
            return frozenset()
        named = frozenset(expr.modifier.labels)
        assert named <= labels, f"{expr.prettify()}: there is no {sorted(named - labels)}"
        is_by = expr.modifier.type == promql.AggModifierType.By
        return named if is_by else labels - named

    def _of_binary(self, expr: promql.BinaryExpr) -> Labels:
        left, right = self._of(expr.lhs), self._of(expr.rhs)
        if left is None or right is None:
            return right if left is None else left
        text, modifier = expr.prettify(), expr.modifier
        if str(expr.op) == "or":
            return left | right
        if modifier is None or modifier.matching is None:
            assert left == right, f"{text}: the sides never meet: {sorted(left ^ right)}"
            return left
        named = frozenset(modifier.matching.labels)
        assert modifier.matching.type == promql.LabelModifierType.Include, f"{text}: write on (…)"
        assert named <= left & right, (
            f"{text}: {sorted(named - (left & right))} is not on both sides"
        )
        if str(expr.op) in ("and", "unless"):
            return left
        card = modifier.card
        if card == promql.VectorMatchCardinality.OneToOne:
            assert named in (left, right), f"{text}: several on both sides would match"
            return named
        assert card == promql.VectorMatchCardinality.ManyToOne, f"{text}: write group_left"
        brought = frozenset(modifier.group_labels or ())
        assert brought <= right, f"{text}: there is no {sorted(brought - right)} to be brought"
        return left | brought

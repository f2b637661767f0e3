"""Metrics of a balancer that carried real lab calls, and everything that is built on them.

One scene is played with one process and with two workers: calls that go well, one that a backend
refuses, one behind a proxy. What Prometheus is told then is what documents, dashboard and alarms
are held to.
"""

import asyncio
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from sstplb.account.metrics import Kind, Metric
from sstplb.account.record import Outcome
from sstplb.lab.pki import Issued, LabPki
from sstplb.lab.rras import Fault
from sstplb.protocol.proxy import encode_v1
from tests.characters import REQUEST, play
from tests.desk import TOKEN, OperatedStage, address_of, token_file
from tests.promql import TARGET_LABELS, Reader
from tests.scrape import Scrape
from tests.stories.test_real_calls import Lab

ROOT = Path(__file__).parent.parent.parent
MARK = "<!-- every metric, from sstplb/account/metrics.py -->"


@pytest.fixture(scope="module", params=[1, 2], ids=["one process", "two workers"])
def scrape(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    pki: LabPki,
    served: Issued,
) -> Scrape:
    """Return what Prometheus is told after the scene."""
    workers: int = request.param
    folder = tmp_path_factory.mktemp("metrics")
    pages: list[Scrape] = []

    async def story() -> None:
        lab = Lab("reencrypt", pki, served)
        stage = OperatedStage(folder, "reencrypt", pki.root_path, served, count=0)
        stage.workers = workers
        stage.admin = {
            "address": "127.0.0.1:0",
            "token_file": str(token_file(folder)),
            "certificates": [{"chain": str(served.chain), "key": str(served.key)}],
        }
        stage.more_listeners = [
            {
                "name": "proxied",
                "address": "127.0.0.2:0",
                "mode": "passthrough",
                "pool": "rras",
                "proxy_protocol_from": ["127.0.0.0/8"],
            }
        ]
        lab.stage = stage
        async with lab.running():
            await carry_some(lab, stage)
            pages.append(await asked(stage))

    play(story)
    return pages[0]


async def carry_some(lab: Lab, stage: OperatedStage) -> None:
    for _ in range(4):
        assert (await lab.call(data_bytes=20_000)).ok
    lab.servers[0].fault = Fault.NO_PORTS
    for _ in range(2):
        assert (await lab.call()).ok, "the other one takes it"
    visitor = await stage.visitor("proxied")
    await visitor.send(encode_v1(("192.0.2.7", 4711), ("192.0.2.1", 443)) + REQUEST)
    await visitor.rest()  # not TLS
    async with asyncio.timeout(10):
        while len(stage.balancer.ledger.ended) < 7 or (
            workers_cpu_s(stage) == 0.0 and stage.workers > 1
        ):
            await asyncio.sleep(0.01)


def workers_cpu_s(stage: OperatedStage) -> float:
    return stage.balancer.crew.cpu_s()


async def asked(stage: OperatedStage) -> Scrape:
    """Ask as Prometheus does: over TLS, with the token."""
    async with httpx.AsyncClient(timeout=10, verify=stage.context()) as ask:
        answer = await ask.get(
            f"https://{address_of(stage)}/metrics", headers={"Authorization": f"Bearer {TOKEN}"}
        )
    assert answer.status_code == 200, answer.text
    return Scrape(answer.text)


def test_calls_are_counted(scrape: Scrape) -> None:
    assert scrape("calls_accepted_total", listener="vpn") == 6
    assert scrape("calls_handed_over_total", listener="vpn") == 6
    assert scrape("calls_ended_total", outcome="completed", reason="disconnected_by_client") == 6
    assert scrape("backend_failures_total", backend="rras1", reason="backend_refused") >= 1
    assert scrape("call_duration_seconds_count", listener="vpn") == 6
    assert scrape("call_bytes_total", listener="vpn", direction="in") > 4 * 20_000
    assert scrape("call_preface_seconds_count", listener="proxied") == 1
    assert scrape("backend_same_certificate") == 2


def test_every_metric_of_the_table_is_there_with_its_labels_and_no_other(scrape: Scrape) -> None:
    seen = {
        family.name: (
            family.type,
            {tuple(sorted(s.labels.keys() - {"le"})) for s in family.samples},
        )
        for family in scrape.families
    }
    expected = {
        metric.family.full_name.removesuffix("_total"): (
            str(metric.family.kind),
            {tuple(sorted(metric.family.labels))},
        )
        for metric in Metric
    }
    assert seen == expected


def test_the_document_lists_every_metric() -> None:
    _, mark, rest = (ROOT / "docs/metrics.md").read_text(encoding="utf-8").partition(MARK)
    assert mark, f"docs/metrics.md has no line {MARK}"
    table = rest.strip().split("\n\n")[0]
    assert table == expected_table(), f"put this below {MARK}:\n\n{expected_table()}"


def expected_table() -> str:
    rows = ["| metric | type | labels | what |", "|---|---|---|---|"]
    for metric in Metric:
        family = metric.family
        labels = ", ".join(f"`{label}`" for label in family.labels)
        kind = "histogram (s)" if family.kind is Kind.HISTOGRAM else str(family.kind)
        rows.append(f"| `{family.full_name}` | {kind} | {labels} | {family.help} |")
    return "\n".join(rows)


# --- dashboard and alarms ---------------------------------------------------------------------

DASHBOARD = ROOT / "docs/grafana/sstplb.json"
ALERTS = ROOT / "docs/grafana/alerts.yaml"
VARIABLES = {"$__rate_interval": "5m", "$__range": "1h"}


def things(value: Any) -> Iterator[dict[str, Any]]:
    """Yield every object of a JSON document, outer ones first."""
    if isinstance(value, dict):
        yield value
    for below in value.values() if isinstance(value, dict) else value:
        if isinstance(below, dict | list):
            yield from things(below)


def dashboard() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(DASHBOARD.read_text(encoding="utf-8"))
    return found


def rules() -> list[dict[str, Any]]:
    groups = yaml.safe_load(ALERTS.read_text(encoding="utf-8"))["groups"]
    return [rule for group in groups for rule in group["rules"]]


def plain(query: str) -> str:
    """Return a query of the dashboard with Grafana's own variables filled in."""
    for name, value in VARIABLES.items():
        query = query.replace(name, value)
    return query


def placeholders(text: str) -> set[str]:
    """Return the labels that a legend names: ``{{backend}}``."""
    return set(re.findall(r"{{\s*(\w+)\s*}}", text))


def test_every_query_of_the_dashboard_can_work(scrape: Scrape) -> None:
    reader = Reader(scrape.labels_by_name())
    count = 0
    for thing in things(dashboard()):
        if "expr" in thing:
            labels = reader.labels_of(plain(thing["expr"]))
            named = placeholders(thing.get("legendFormat", "") + thing.get("textFormat", ""))
            assert named <= labels, f"{thing['expr']}: a legend names {sorted(named - labels)}"
            count += 1
    assert count > 50
    insist_on_known_values(reader, scrape)


@pytest.mark.parametrize(
    ("query", "why"),
    [
        ("sstplb_calls_runing", "there is no metric sstplb_calls_runing"),
        ('sstplb_calls_running{mode="offload"}', "has no label mode"),
        ("sum by (client) (sstplb_calls_running)", "there is no .'client'."),
        ("sstplb_calls_running / sstplb_calls_max", "the sides never meet: .'listener'."),
        ("sstplb_calls_max * on (listener) sstplb_calls_running", "not on both sides"),
        (
            "sstplb_backend_up * on (job, instance) sstplb_affinity_pins",
            "several on both sides would match",
        ),
        (
            "sstplb_calls_running * on (listener) group_left (weight) sstplb_listener_info",
            "there is no .'weight'. to be brought",
        ),
        (
            "histogram_quantile(0.9, sum(rate(sstplb_call_tls_seconds_bucket[5m])))",
            "le was aggregated away",
        ),
        ("sum(rate(sstplb_calls_running[5m])", "sum"),
    ],
)
def test_a_query_that_cannot_work_is_found(query: str, why: str, scrape: Scrape) -> None:
    with pytest.raises(AssertionError, match=why):
        Reader(scrape.labels_by_name()).labels_of(query)


def test_the_dashboards_variables_are_found(scrape: Scrape) -> None:
    reader = Reader(scrape.labels_by_name())
    for variable in dashboard()["templating"]["list"]:
        if variable["type"] == "query":
            found = re.fullmatch(r"label_values\((.+), (\w+)\)", variable["definition"])
            assert found, variable["definition"]
            assert found[2] == variable["name"] in reader.labels_of(found[1])
            assert variable["query"]["query"] == variable["definition"]
    names = {variable["name"] for variable in dashboard()["templating"]["list"]}
    used = set(re.findall(r"\$\{?(\w+)", DASHBOARD.read_text(encoding="utf-8")))
    assert used - {name.strip("$") for name in VARIABLES} - {"__all"} == names


def test_every_panel_is_told_apart_and_says_what_it_shows() -> None:
    panels = dashboard()["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        place = panel["gridPos"]
        cells = {
            (place["x"] + column, place["y"] + line)
            for column in range(place["w"])
            for line in range(place["h"])
        }
        assert max(column for column, _ in cells) < 24
        assert not cells & taken, f"{panel['title']} lies on another panel"
        taken |= cells
        assert panel["title"]


@pytest.mark.parametrize("rule", rules(), ids=lambda rule: str(rule["alert"]))
def test_every_alarm_can_be_raised_and_says_what_to_do(
    rule: dict[str, Any], scrape: Scrape
) -> None:
    reader = Reader(scrape.labels_by_name())
    labels = reader.labels_of(rule["expr"])
    assert labels & TARGET_LABELS, "it must say which balancer"
    insist_on_known_values(reader, scrape)
    texts = rule["annotations"]
    named = set(re.findall(r"\$labels\.(\w+)", texts["summary"] + texts["description"]))
    assert named <= labels, f"the text names {sorted(named - labels)}"
    assert rule["labels"]["severity"] in ("critical", "warning", "info")
    assert rule["alert"].startswith("Sstplb")
    assert texts["description"].strip()


def test_alarms_have_names_of_their_own() -> None:
    names = [rule["alert"] for rule in rules()]
    assert len(names) == len(set(names))


def insist_on_known_values(reader: Reader, scrape: Scrape) -> None:
    """A label that is compared with a word nobody ever writes there never matches."""
    known: dict[str, set[str]] = {}
    for _, labels, _ in scrape.samples:
        for label, value in labels.items():
            known.setdefault(label, set()).add(value)
    known["outcome"] |= set(Outcome)
    life = (ROOT / "docs/life-of-a-call.md").read_text(encoding="utf-8")
    known["reason"] |= set(re.findall(r"`([a-z_]+)`", life))
    for label, value in reader.matched:
        if label not in TARGET_LABELS and not value.startswith("$"):
            assert set(value.split("|")) <= known[label], f"{label} is never {value}"

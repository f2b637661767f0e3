"""Two workers beside one: ``python -m bench workers``.

On a machine whose cores the load shares, a rate says little: the load would starve. So each run
moves the same bytes with one worker and with two, from two client processes, and says what a GB
costs each time, and how evenly the two workers shared it. Twice the cores carry twice the calls
when the cost stays flat and nobody idles; nothing here is pinned.
"""

import dataclasses
import json
import statistics
import tempfile
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

from bench.cells import stream_cell
from bench.load import Job
from bench.proxies import OURS, Proxy, cpu_s, start
from bench.run import Helper, Stage, stage

COUNTS = (1, 2)
LOADS = (
    ("passthrough", "bulk"), ("offload", "bulk"), ("offload", "packets"), ("reencrypt", "bulk"),
)  # fmt: skip
CLIENTS = 2
BLOCKS = 96


def measure(rounds: int, console: Console) -> dict[str, object]:
    """Run; show a table; return the figures."""
    rows: list[dict[str, object]] = []
    with tempfile.TemporaryDirectory(prefix="sstplb-bench-") as name, stage(Path(name), ()) as on:
        for mode, pattern in LOADS:
            costs: dict[int, list[float]] = {count: [] for count in COUNTS}
            shares: list[float] = []
            for count in COUNTS * rounds:
                cost, share = _one(on, count, mode, pattern)
                costs[count].append(cost)
                shares += [share] if count > 1 else []
            one, two = (statistics.median(costs[count]) for count in COUNTS)
            rows.append(
                {
                    "mode": mode, "load": pattern, "one_s_per_gb": one, "two_s_per_gb": two,
                    "carries": 2 * one / two, "least_share": statistics.median(shares),
                }
            )  # fmt: skip
    table = Table(title="two workers beside one", title_justify="left")
    for head in ("load", "1 worker, s/GB", "2 workers, s/GB", "two carry, times one",
                 "share of the idler worker"):  # fmt: skip
        table.add_column(head, justify="right")
    for row in rows:
        table.add_row(
            f"{row['mode']} {row['load']}", f"{row['one_s_per_gb']:.3g}",
            f"{row['two_s_per_gb']:.3g}", f"{row['carries']:.2f}", f"{row['least_share']:.0%}",
        )  # fmt: skip
    console.print(table)
    return {"workers": rows}


def _one(on: Stage, count: int, mode: str, pattern: str) -> tuple[float, float]:
    """Return CPU s/GB of all processes, and what share of the work the idlest worker had."""
    on.scene.values["workers"] = str(count)
    proxy = start(OURS, on.scene, None)
    try:
        cell = stream_cell(mode, pattern, "up", BLOCKS)
        job = Job(
            proxy.ports[mode], mode, cell.calls, cell.errand, 0.0, 0.0,
            on.scene.values["ca_file"], on.scene.values["chain"],
        )  # fmt: skip
        told = json.dumps(dataclasses.asdict(job))
        clients = [Helper("bench.load", "client", told, core=None) for _ in range(CLIENTS)]
        try:
            for client in clients:
                client.expect("ready")
            time.sleep(1.2)  # a worker reports once a second: let the opening be over
            before = _each(proxy)
            for client in clients:
                client.say("go")
            moved = sum(json.loads(client.expect())["bytes"] for client in clients)
            used = {pid: cpu - before.get(pid, 0.0) for pid, cpu in _each(proxy).items()}
        finally:
            for client in clients:
                client.end()
    finally:
        proxy.stop()
    carrying = sorted(used.values(), reverse=True)[:count]
    return sum(used.values()) / moved * 1e9, min(carrying) / sum(carrying)


def _each(proxy: Proxy) -> dict[int, float]:
    return {pid: cpu_s(pid) for pid in proxy.processes()}

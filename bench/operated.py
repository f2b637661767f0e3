"""``python -m bench.operated``: what operating costs those who call, and how soon it is answered.

Two questions, asked of sstplb alone:

- **How long does a request wait** while calls keep the balancer's core as busy as it can be? Every
  resource is asked for in turn, and the answer timed, beside streams and a storm of RSA handshakes.
- **What do a page and a scraper take** from the data plane? The same stream with nobody looking,
  and with one page (the event stream, and the rows in view each second) and a scrape of the metrics
  every five seconds: CPU per GB, rounds interleaved. And the CPU of both beside many quiet calls.

The balancer carries in its own process (``workers: 1``), where both share one loop: the hard case.
Where the machine has other things to do, ``--realtime`` runs all of it before them, and who asks
before the load: else what is timed is how long *we* wait for a core.
"""

import argparse
import dataclasses
import json
import os
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx

from bench.cells import stream_cell
from bench.handshakes import Handshakes
from bench.load import Errand, Job
from bench.proxies import OURS, Proxy
from bench.run import Helper, Stage, stage

API = "http://sstplb/api/v1"
PATHS = (
    "/overview",
    "/calls?limit=200",
    "/calls?state=running&limit=60",
    "/pools/plain/affinity?limit=200",
    "/pools/plain/backends/plain1",
    "/certificates",
    "/config",
    "/events?limit=200",
    "/metrics",
)
ROWS_IN_VIEW = "/calls?state=all&limit=60"
SCRAPE_EVERY_S = 5.0
LOOK_EVERY_S = 1.0
STORM_RATE = 300.0
"""Handshakes a second."""
BLOCKS = 100_000
"""More than any measurement waits for."""


def main() -> None:
    """Run."""
    parser = argparse.ArgumentParser(prog="bench.operated", description=__doc__)
    parser.add_argument("--rounds", type=int, default=8, help="of the cost with and without")
    parser.add_argument("--seconds", type=float, default=10.0, help="of each round")
    parser.add_argument("--requests", type=int, default=40, help="of each resource")
    parser.add_argument("--quiet-calls", type=int, default=2000)
    parser.add_argument("--engine", default="auto", help="the portable one is easier to saturate")
    parser.add_argument("--realtime", action="store_true", help="as root: before everything else")
    arguments = parser.parse_args()
    come_before(1 if arguments.realtime else 0)
    if (os.cpu_count() or 1) > 1:
        os.sched_setaffinity(0, {1})  # the balancer has core 0
    with tempfile.TemporaryDirectory(prefix="sstplb-bench-") as directory:
        admin = Path(directory) / "admin.sock"
        more = f"admin: {{socket: {admin}}}\ntls: {{engine: {arguments.engine}}}\n"
        with stage(Path(directory), (OURS,), more) as on:
            desk = Desk(admin)
            with streaming(on), storming(on):
                come_before(2 if arguments.realtime else 0)  # what was started stays as it is
                waits = ask(desk, arguments.requests, on)
            come_before(1 if arguments.realtime else 0)
            costs = compare(desk, on, arguments.rounds, arguments.seconds)
            with quiet(on, arguments.quiet_calls):
                share = cpu_share(desk, on, arguments.seconds)
    report(waits, costs, share, arguments.quiet_calls)


def come_before(priority: int) -> None:
    """Run, with all that is started from now on, before what has less; 0: like everybody."""
    if priority:
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(priority))


class Desk:
    """Who operates."""

    def __init__(self, admin: Path) -> None:
        self._admin = admin

    def client(self) -> httpx.Client:
        """Return a connection."""
        return httpx.Client(transport=httpx.HTTPTransport(uds=str(self._admin)), timeout=30.0)

    @contextmanager
    def looking(self) -> Iterator[None]:
        """Have a page open, and a scraper at work."""
        over = threading.Event()
        jobs = (self._follow, self._look, self._scrape)
        threads = [threading.Thread(target=job, args=(over,)) for job in jobs]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            over.set()
            for thread in threads:
                thread.join()

    def _follow(self, over: threading.Event) -> None:
        with self.client() as client, client.stream("GET", f"{API}/events/stream") as answer:
            for _ in answer.iter_raw():
                if over.is_set():
                    return

    def _look(self, over: threading.Event) -> None:
        self._repeat(over, ROWS_IN_VIEW, LOOK_EVERY_S)

    def _scrape(self, over: threading.Event) -> None:
        self._repeat(over, "/metrics", SCRAPE_EVERY_S)

    def _repeat(self, over: threading.Event, path: str, every_s: float) -> None:
        with self.client() as client:
            while not over.wait(every_s):
                client.get(where(path)).raise_for_status()


def where(path: str) -> str:
    """Return the address of a resource; metrics are beside the API."""
    return f"http://sstplb{path}" if path == "/metrics" else API + path


@contextmanager
def streaming(on: Stage) -> Iterator[Helper]:
    """Keep the balancer as busy as it can be."""
    errand = dataclasses.replace(stream_cell("offload", "packets", "both", 1).errand)
    errand = dataclasses.replace(errand, up_blocks=BLOCKS, down_blocks=BLOCKS)
    with calls(on, 4, errand) as client:
        client.say("go")
        time.sleep(1.0)
        yield client


@contextmanager
def storming(on: Stage) -> Iterator[None]:
    """Have calls come and go, with the handshake that costs a server most."""
    told = Handshakes(
        on.proxies[OURS].ports["offload_rsa"], on.scene.values["ca_file"], rate=STORM_RATE
    )
    storm = Helper("bench.handshakes", json.dumps(dataclasses.asdict(told)), core=on.load_core)
    try:
        storm.expect("ready")
        storm.say("go")
        time.sleep(1.0)
        yield
    finally:
        storm.end()


@contextmanager
def quiet(on: Stage, count: int) -> Iterator[Helper]:
    """Have many calls open that say nothing."""
    with calls(on, count, Errand()) as client:
        yield client


@contextmanager
def calls(on: Stage, count: int, errand: Errand) -> Iterator[Helper]:
    """Open calls; ``go`` begins what they are to do."""
    job = Job(
        on.proxies[OURS].ports["offload"], "offload", count, errand,
        ca_file=on.scene.values["ca_file"], chain=on.scene.values["chain"],
    )  # fmt: skip
    client = Helper("bench.load", "client", json.dumps(dataclasses.asdict(job)), core=on.load_core)
    try:
        client.expect("ready")
        yield client
    finally:
        client.end()


def ask(desk: Desk, requests: int, on: Stage) -> Mapping[str, list[float]]:
    """Return how long each answer took, by resource; and how busy the balancer's core was."""
    waits: dict[str, list[float]] = {path: [] for path in PATHS}
    proxy = on.proxies[OURS]
    with desk.client() as client:
        client.get(where("/overview"))
        began, cpu_s = time.monotonic(), proxy.cpu_s()
        for _ in range(requests):
            for path in PATHS:
                asked = time.monotonic()
                client.get(where(path)).raise_for_status()
                waits[path].append(time.monotonic() - asked)
                time.sleep(0.02)
        busy = (proxy.cpu_s() - cpu_s) / (time.monotonic() - began)
    print(f"the balancer used {busy:.0%} of its core while it was asked")
    return waits


def compare(desk: Desk, on: Stage, rounds: int, seconds: float) -> dict[str, list[float]]:
    """Return CPU s/GB with nobody looking and with somebody, interleaved."""
    costs: dict[str, list[float]] = {"nobody": [], "somebody": []}
    for number in range(rounds):
        with streaming(on):  # anew: a load gives up after a minute
            for who in ("nobody", "somebody") if number % 2 else ("somebody", "nobody"):
                if who == "somebody":
                    with desk.looking():
                        costs[who].append(cost_of_gb(desk, on.proxies[OURS], seconds))
                else:
                    costs[who].append(cost_of_gb(desk, on.proxies[OURS], seconds))
    return costs


def cost_of_gb(desk: Desk, proxy: Proxy, seconds: float) -> float:
    """Return CPU s/GB over a while."""
    before, cpu_s = moved(desk), proxy.cpu_s()
    time.sleep(seconds)
    used, after = proxy.cpu_s() - cpu_s, moved(desk)
    return used / (after - before) * 1e9


def moved(desk: Desk) -> int:
    """Return the bytes that went through until now."""
    with desk.client() as client:
        totals = client.get(where("/overview")).json()["totals"]
    return int(totals["bytes_in"] + totals["bytes_out"])


def cpu_share(desk: Desk, on: Stage, seconds: float) -> float:
    """Return what a page and a scraper use of one core, beside quiet calls."""
    proxy = on.proxies[OURS]
    idle = _rate(proxy, lambda: time.sleep(seconds), seconds)
    with desk.looking():
        time.sleep(1.0)
        return _rate(proxy, lambda: time.sleep(seconds), seconds) - idle


def _rate(proxy: Proxy, during: Callable[[], None], seconds: float) -> float:
    before = proxy.cpu_s()
    during()
    return (proxy.cpu_s() - before) / seconds


def report(
    waits: Mapping[str, list[float]],
    costs: Mapping[str, list[float]],
    share: float,
    quiet_calls: int,
) -> None:
    """Print the figures."""
    print(f"{'resource':<36}{'p50 ms':>8}{'p99 ms':>8}{'most':>8}")
    for path, values in {**waits, "all": [v for each in waits.values() for v in each]}.items():
        ranked = sorted(values)
        p99 = ranked[min(len(ranked) - 1, int(len(ranked) * 0.99))]
        middle = statistics.median(ranked)
        print(f"{path:<36}{middle * 1e3:8.1f}{p99 * 1e3:8.1f}{ranked[-1] * 1e3:8.1f}")
    for who, values in costs.items():
        print(f"{who} looking: {statistics.median(values):.3f} CPU s/GB (of {len(values)} rounds)")
    pairs = [b / a - 1 for a, b in zip(costs["nobody"], costs["somebody"], strict=True)]
    print(f"more with a page and a scraper: {statistics.median(pairs):+.2%} (median of the pairs)")
    print(f"page and scraper beside {quiet_calls} quiet calls: {share:.2%} of a core")


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        main()

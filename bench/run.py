"""Runs the grid: every proxy in turn, round after round, and keeps what each cost.

Interleaved rounds: within a round each proxy gets the same load one after the other, so a noisy
minute hits all of them. The figure is the median of the rounds; the spread (highest less lowest,
over the median) says how much to believe. Proxies run on core 0, the load on core 1; where there
is one core only, nothing is pinned, and the result says so.
"""

import dataclasses
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from bench.cells import Cell, Measure, Size, grid
from bench.handshakes import Handshakes
from bench.load import Job
from bench.proxies import (
    OURS,
    OURS_ON_SYSTEMS,
    CannotStartError,
    Proxy,
    Scene,
    cpu_s,
    issue,
    make_scene,
    read_text,
    start,
)
from sstplb.lab.pki import KeyKind, LabPki
from sstplb.tls.openssl import OpenSsl, libraries

OPENING_RATE = 40.0
"""Calls a second where it counts how long one takes to open: few enough that none waits."""
SETTLE_S = 0.05
BUSY_RATE = 200.0


@dataclass
class Row:
    """One cell's figures."""

    cell: Cell
    figures: dict[str, list[float]] = field(default_factory=dict)
    """By proxy, one per round."""
    rates: dict[str, list[float]] = field(default_factory=dict)
    """By proxy: GB/s, messages/s or calls/s."""
    backend: dict[str, list[float]] = field(default_factory=dict)
    """By proxy: what the backend's side cost, in the same unit (CPU cells only)."""
    failures: dict[str, str] = field(default_factory=dict)

    def median(self, name: str) -> float | None:
        """Return a proxy's figure."""
        values = self.figures.get(name)
        return statistics.median(values) if values else None

    def best_peer(self) -> tuple[str, float] | None:
        """Return the peer with the lowest figure."""
        peers = {n: m for n in self._peers if (m := self.median(n)) is not None}
        if not peers:
            return None
        name = min(peers, key=lambda n: peers[n])
        return name, peers[name]

    @property
    def _peers(self) -> list[str]:
        return [name for name in self.figures if name not in (OURS, OURS_ON_SYSTEMS)]

    def ratio(self) -> float | None:
        """Return our figure over the best peer's."""
        ours, best = self.median(OURS), self.best_peer()
        return ours / best[1] if ours is not None and best is not None and best[1] else None

    def to_target(self) -> float | None:
        """Return what the target is held against: our figure over that of whom it names."""
        if not self.cell.against:
            return self.ratio()
        ours, theirs = self.median(OURS), self.median(self.cell.against)
        return ours / theirs if ours is not None and theirs else None

    def reached(self) -> bool | None:
        """Whether the target is reached; None: there is none, or nothing to compare with."""
        ratio = self.to_target()
        return None if self.cell.target is None or ratio is None else ratio <= self.cell.target

    def spread(self, name: str) -> float:
        """Return (highest - lowest) / median of a proxy's rounds."""
        values, middle = self.figures.get(name, []), self.median(name)
        return (max(values) - min(values)) / middle if values and middle else 0.0

    def as_json(self) -> dict[str, object]:
        """Return the row as it is written to the results."""
        best, ratio = self.best_peer(), self.ratio()
        return {
            "mode": self.cell.mode,
            "load": self.cell.load,
            "direction": self.cell.direction,
            "figure": str(self.cell.measure),
            "unit": str(self.cell.measure).partition(" ")[0]
            if self.cell.measure is Measure.KIB_PER_CALL
            else str(self.cell.measure),
            "ours": _rounded(self.median(OURS)),
            "ours_on_systems_openssl": _rounded(self.median(OURS_ON_SYSTEMS)),
            "peers": {n: _rounded(self.median(n)) for n in self._peers},
            "best_peer": best[0] if best else None,
            "ratio": _rounded(ratio),
            "target": self.cell.target,
            "against": self.cell.against or None,
            "ratio_to_target": _rounded(self.to_target()),
            "reached": self.reached(),
            "spread": {n: _rounded(self.spread(n)) for n in self.figures},
            "rounds": {n: [_rounded(v) for v in values] for n, values in self.figures.items()},
            "rate": {n: _rounded(statistics.median(v)) for n, v in self.rates.items() if v},
            "backend": {n: _rounded(statistics.median(v)) for n, v in self.backend.items() if v},
            "failures": self.failures,
        }


def _rounded(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.4g}")


# --- the processes of the load ------------------------------------------------------------------


class Helper:
    """A process of the load, spoken to by lines."""

    def __init__(self, module: str, *arguments: str, core: int | None) -> None:
        pin = ["taskset", "-c", str(core)] if core is not None else []
        self.process = subprocess.Popen(
            [*pin, sys.executable, "-m", module, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def expect(self, word: str | None = None) -> str:
        """Return its next line. Raises CannotStartError with its last words when it ended."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline().strip()
        if not line or (word is not None and line != word):
            self.process.kill()
            said = self.process.stderr.read() if self.process.stderr else ""
            raise CannotStartError(said.strip().splitlines()[-1] if said.strip() else "it ended")
        return line

    def say(self, word: str) -> None:
        """Send a line."""
        assert self.process.stdin is not None
        self.process.stdin.write(word + "\n")
        self.process.stdin.flush()

    def cpu_s(self) -> float:
        """Return its CPU seconds."""
        return cpu_s(self.process.pid)

    def end(self) -> None:
        """End it, whatever it is doing."""
        self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout, self.process.stderr):
            if stream is not None:
                with suppress(OSError):
                    stream.close()


@dataclass
class Stage:
    """All that runs during a bench."""

    scene: Scene
    backends: dict[str, Helper]
    """``plain`` and ``tls``."""
    proxies: dict[str, Proxy]
    proxy_core: int | None
    load_core: int | None

    def backend_of(self, mode: str) -> Helper:
        """Return the backend that a mode's calls reach."""
        return self.backends["tls" if mode == "reencrypt" else "plain"]


@contextmanager
def stage(directory: Path, names: Sequence[str], more: str = "") -> Iterator[Stage]:
    """Start backends and proxies; end them. Raises CannotStartError when ours does not start.

    ``more``: lines for the configuration of each.
    """
    cores = (0, 1) if (os.cpu_count() or 1) > 1 else (None, None)
    shown = issue(LabPki(directory / "pki"), KeyKind.P256)
    files = json.dumps({"chain": str(shown.chain), "key": str(shown.key)})
    backends: dict[str, Helper] = {}
    proxies: dict[str, Proxy] = {}
    try:
        for name, told in (("plain", "null"), ("tls", files)):
            backends[name] = Helper("bench.load", "backend", told, core=cores[1])
        ports = {name: int(helper.expect()) for name, helper in backends.items()}
        scene = make_scene(directory, ports["plain"], ports["tls"])
        for name in names:
            try:
                proxies[name] = start(name, scene, cores[0], more)
            except CannotStartError as error:
                if name == OURS:
                    raise
                print(f"  without {name}: {error}", file=sys.stderr)
        yield Stage(scene, backends, proxies, *cores)
    finally:
        for proxy in proxies.values():
            proxy.stop()
        for helper in backends.values():
            helper.end()


# --- one measurement ----------------------------------------------------------------------------


def measure(cell: Cell, proxy: Proxy, on: Stage, row: Row) -> None:
    """Give one proxy one round of a cell; what it costs goes to the row."""
    try:
        if cell.load.startswith(("handshake", "opening")):
            _measure_handshakes(cell, proxy, on, row)
        else:
            _measure_calls(cell, proxy, on, row)
    except CannotStartError as error:
        row.failures[proxy.name] = str(error)


def _measure_calls(cell: Cell, proxy: Proxy, on: Stage, row: Row) -> None:
    backend = on.backend_of(cell.mode)
    memory_before = proxy.resident_bytes() if cell.load.startswith("idle") else 0
    job = Job(
        proxy.ports[cell.port or cell.mode], cell.mode, cell.calls, cell.errand,
        cell.seconds, cell.interval_s, on.scene.values["ca_file"], on.scene.values["chain"],
    )  # fmt: skip
    client = Helper("bench.load", "client", json.dumps(dataclasses.asdict(job)), core=on.load_core)
    storm: Helper | None = None
    try:
        client.expect("ready")
        time.sleep(SETTLE_S)
        if cell.load.startswith("idle"):
            time.sleep(0.5)
            row.figures.setdefault(proxy.name, []).append(
                (proxy.resident_bytes() - memory_before) / cell.calls / 1024
            )
            return
        if cell.load == "busy":
            storm = _storm(cell, proxy, on)
        before, backend_before = proxy.cpu_s(), backend.cpu_s()
        client.say("go")
        result = json.loads(client.expect())
        cost, backend_cost = proxy.cpu_s() - before, backend.cpu_s() - backend_before
    finally:
        client.end()
        if storm is not None:
            storm.end()
    _note(cell, proxy.name, row, result, cost, backend_cost)
    time.sleep(SETTLE_S)


def _note(
    cell: Cell, name: str, row: Row, result: dict[str, float], cost: float, backend_cost: float
) -> None:
    figures = row.figures.setdefault(name, [])
    match cell.measure:
        case Measure.CPU_S_PER_GB:
            figures.append(cost / result["bytes"] * 1e9)
            row.backend.setdefault(name, []).append(backend_cost / result["bytes"] * 1e9)
            row.rates.setdefault(name, []).append(result["bytes"] / result["seconds"] / 1e9)
        case Measure.CPU_US_PER_MESSAGE:
            figures.append(cost / result["messages"] * 1e6)
            row.backend.setdefault(name, []).append(backend_cost / result["messages"] * 1e6)
            row.rates.setdefault(name, []).append(result["messages"] / result["seconds"])
        case Measure.LATENCY_P50_MS:
            figures.append(result["p50_s"] * 1e3)
        case _:
            figures.append(result["p99_s"] * 1e3)


def _storm(cell: Cell, proxy: Proxy, on: Stage) -> Helper:
    """Start handshakes at a steady rate beside the running calls."""
    told = Handshakes(proxy.ports[cell.mode], on.scene.values["ca_file"], rate=BUSY_RATE)
    storm = Helper("bench.handshakes", json.dumps(dataclasses.asdict(told)), core=on.load_core)
    storm.expect("ready")
    storm.say("go")
    time.sleep(0.2)
    return storm


def _measure_handshakes(cell: Cell, proxy: Proxy, on: Stage, row: Row) -> None:
    told = Handshakes(
        proxy.ports[cell.port],
        on.scene.values["ca_file"],
        calls=cell.calls,
        rate=OPENING_RATE if cell.measure is Measure.OPENING_P50_MS else 0.0,
        resumed=cell.direction == "resumed",
    )
    backend = on.backend_of(cell.mode)
    client = Helper("bench.handshakes", json.dumps(dataclasses.asdict(told)), core=on.load_core)
    try:
        client.expect("ready")
        before, backend_before = proxy.cpu_s(), backend.cpu_s()
        client.say("go")
        result = json.loads(client.expect())
        time.sleep(SETTLE_S)
        cost, backend_cost = proxy.cpu_s() - before, backend.cpu_s() - backend_before
    finally:
        client.end()
    if result["failures"]:
        raise CannotStartError(f"{result['failures']} calls failed: {result['first_failure']}")
    if cell.direction == "resumed" and result["resumed"] < cell.calls * 0.9:
        raise CannotStartError(f"only {result['resumed']} of {cell.calls} sessions were resumed")
    if cell.measure is Measure.OPENING_P50_MS:
        row.figures.setdefault(proxy.name, []).append(result["p50_s"] * 1e3)
        return
    row.figures.setdefault(proxy.name, []).append(cost / cell.calls * 1e3)
    row.backend.setdefault(proxy.name, []).append(backend_cost / cell.calls * 1e3)
    row.rates.setdefault(proxy.name, []).append(result["calls"] / result["seconds"])


# --- the whole ----------------------------------------------------------------------------------


class Progress:
    """What the bench tells while it runs."""

    def begin(self, cells: int, rounds: int) -> None:
        """Begin."""

    def measured(self, cell: Cell, name: str) -> None:
        """Note that one proxy has had one round of a cell."""

    def row(self, row: Row) -> None:
        """Note that a cell is complete."""


def run(size: Size, directory: Path, progress: Progress, only: str = "") -> dict[str, object]:
    """Run the grid (or the cells whose name contains ``only``); return the results."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    cells = [cell for cell in grid(size) if only in cell.name]
    progress.begin(len(cells), size.rounds)
    began = time.time()
    rows: list[Row] = []
    try:
        with stage(directory, (OURS, *size.peers)) as on:
            versions = {name: proxy.version for name, proxy in on.proxies.items()}
            with suppress(KeyboardInterrupt):  # what is complete by then is a result, too
                for cell in cells:
                    rows.append(_row(cell, on, size.rounds, progress))
                    progress.row(rows[-1])
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return {
        "format": 1,
        "began_at": round(began),
        "took_s": round(time.time() - began),
        "machine": machine(),
        "versions": versions,
        "rounds": size.rounds,
        "rows": [row.as_json() for row in rows],
    }


def _row(cell: Cell, on: Stage, rounds: int, progress: Progress) -> Row:
    """Measure one cell: every proxy that serves it, round after round."""
    row = Row(cell)
    able = [p for p in on.proxies.values() if (cell.port or cell.mode) in p.ports]
    for number in range(1 if cell.load.startswith("idle") else rounds):
        # Another one begins each round: who comes first has no advantage.
        turn = number % len(able)
        for proxy in able[turn:] + able[:turn]:
            if proxy.name not in row.failures:
                _round(cell, proxy, on, row)
            progress.measured(cell, proxy.name)
    return row


def _round(cell: Cell, proxy: Proxy, on: Stage, row: Row) -> None:
    """Measure once; memory on a fresh process, for a used one has freed pages to fill."""
    if not cell.load.startswith("idle"):
        measure(cell, proxy, on, row)
        return
    fresh = start(proxy.name, on.scene, on.proxy_core)
    try:
        measure(cell, fresh, on, row)
    finally:
        fresh.stop()


def machine() -> dict[str, object]:
    """Say what the figures were taken on."""
    model = [
        line.partition(":")[2].strip()
        for line in read_text(Path("/proc/cpuinfo")).splitlines()
        if line.startswith("model name")
    ]
    return {
        "cpu": model[0] if model else platform.machine(),
        "cores": os.cpu_count(),
        "kernel": platform.release(),
        "ktls": Path("/proc/net/tls_stat").exists(),
        "python": platform.python_version(),
        "openssl": libraries()[0].version,
        "systems_openssl": OpenSsl().version,
        "pinned": (os.cpu_count() or 1) > 1,
    }

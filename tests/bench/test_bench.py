"""The bench: its load notices what a proxy does to the bytes; its ratios compare fairly."""

import io
import os
import threading
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from bench import document, report
from bench.cells import FULL, QUICK, Measure, grid
from bench.load import BrokenLoadError, Errand, Receiver
from bench.proxies import cpu_s
from bench.run import Row
from bench.stream import DONE, pattern
from sstplb.config.schema import Follow
from sstplb.protocol.watcher import Watcher


@pytest.mark.parametrize("name", ["bulk", "packets", "imix", "64", "4000"])
def test_a_load_is_a_valid_stream_of_packets(name: str) -> None:
    wanted = pattern(name)
    watcher = Watcher(Follow.FULL, frozenset())
    watcher.from_client(wanted.block, 0.0)
    assert watcher.fault is None
    assert sum(wanted.units) == len(wanted.block)


@pytest.mark.parametrize("size", [1, 1399, 65536])
def test_whatever_the_split_the_right_bytes_are_right(size: int) -> None:
    wanted = pattern("packets")
    total = 2 * len(wanted.block)
    whole = wanted.block[: 3 * size + 10]
    receiver = Receiver(wanted, total)
    for at in range(0, len(whole), size):
        receiver.take(whole[at : at + size])
    assert receiver.received == len(whole)
    assert not receiver.complete


def test_what_follows_the_stream_is_the_signal() -> None:
    wanted = pattern("packets")
    receiver = Receiver(wanted, len(wanted.block))
    receiver.take(wanted.block[:-5])
    receiver.take(wanted.block[-5:] + DONE)
    assert receiver.complete
    assert receiver.signal == DONE


@pytest.mark.parametrize("fault", ["lost", "changed", "reordered"])
def test_no_proxy_wins_by_damaging_bytes(fault: str) -> None:
    wanted = pattern("packets")
    first, second = wanted.block[:1400], wanted.block[1400:2800]
    damaged = {
        "lost": second,
        "changed": first[:700] + bytes([first[700] ^ 1]) + first[701:],
        "reordered": second + first,
    }[fault]
    with pytest.raises(BrokenLoadError):
        Receiver(wanted, len(wanted.block)).take(damaged)


def test_cells_have_names_of_their_own() -> None:
    for size in (FULL, QUICK):
        names = [cell.name for cell in grid(size)]
        assert len(set(names)) == len(names)


def test_a_ratio_is_to_the_best_peer() -> None:
    cell = next(c for c in grid(QUICK) if c.measure is Measure.CPU_S_PER_GB)
    row = Row(cell, figures={"sstplb": [3.0, 1.0, 2.0], "nginx": [4.0], "haproxy": [5.0]})
    assert row.best_peer() == ("nginx", 4.0)
    assert row.ratio() == 0.5
    assert row.spread("sstplb") == 1.0


def test_ours_on_the_systems_openssl_is_no_peer() -> None:
    row = Row(next(grid(QUICK)), figures={"sstplb": [2.0], "sstplb-system": [1.0], "nginx": [4.0]})
    assert row.best_peer() == ("nginx", 4.0)
    assert row.as_json()["ours_on_systems_openssl"] == 1.0


def test_a_target_may_be_held_against_one_peer_only() -> None:
    cell = next(c for c in grid(QUICK) if c.against == "haproxy" and c.target is not None)
    row = Row(cell, figures={"sstplb": [18.0], "haproxy": [20.0], "envoy": [10.0]})
    assert row.ratio() == 1.8
    assert row.to_target() == 0.9
    assert row.reached()
    assert Row(cell, figures={"sstplb": [18.0], "envoy": [10.0]}).reached() is None


def result(ratio: float, spread: float = 0.1) -> dict[str, Any]:
    row = {
        "mode": "offload", "load": "bulk", "direction": "up", "ratio": ratio,
        "best_peer": "nginx", "spread": {"sstplb": spread, "nginx": spread},
    }  # fmt: skip
    return {"format": 1, "rows": [row]}


@pytest.mark.parametrize(
    ("ratio", "spread", "good", "word"),
    [(1.5, 0.1, False, "worse"), (0.5, 0.1, True, "better"), (1.15, 0.3, True, "no cell")],
)
def test_compare_tells_what_is_beyond_the_noise(
    ratio: float, spread: float, good: bool, word: str
) -> None:
    said = io.StringIO()
    assert report.compare(result(1.0, spread), result(ratio, spread), Console(file=said)) is good
    assert word in said.getvalue()


def whole_result() -> dict[str, Any]:
    cells = [cell for cell in grid(FULL) if cell.mode == "offload"]
    rows = []
    for number, cell in enumerate(cells, 1):
        row = Row(cell, figures={"sstplb": [float(number)], "nginx": [2.0]})
        rows.append(row.as_json())
    versions = {"sstplb": "0.1", "nginx": "1.22"}
    machine = {
        "cpu": "a CPU",
        "cores": 2,
        "kernel": "6",
        "python": "3.11",
        "ktls": False,
        "openssl": "3.5.9",
        "systems_openssl": "3.0.19",
    }
    return {
        "format": 1, "rows": rows, "versions": versions, "machine": machine, "rounds": 1,
        "took_s": 60,
    }  # fmt: skip


def test_a_page_holds_every_cell_and_says_what_was_missed(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"before\n{document.BEGIN}\nold\n{document.END}\nafter\n")
    document.write(whole_result(), page)
    text = page.read_text()
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert "old" not in text
    assert text.count("\n| ") >= len([c for c in grid(FULL) if c.mode == "offload"])
    assert "(missed)" in text
    with pytest.raises(ValueError, match="no marks"):
        document.write(whole_result(), Path(__file__))


def test_a_cell_can_be_measured_again() -> None:
    old, new = whole_result(), whole_result()
    new["rows"] = [{**new["rows"][3], "ours": 123.0}]
    after = report.updated(old, new)
    assert [row["ours"] for row in after["rows"]][3] == 123.0
    assert len(after["rows"]) == len(old["rows"])
    assert after["took_s"] == 120


def test_what_threads_used_counts_when_they_have_ended() -> None:
    before = cpu_s(os.getpid())
    worker = threading.Thread(target=lambda: sum(range(3_000_000)))
    worker.start()
    worker.join()
    assert cpu_s(os.getpid()) - before > 0.005


def test_an_errand_travels_in_the_head() -> None:
    errand = Errand("stream", "imix", 3, 0)
    assert Errand(**errand.__dict__) == errand

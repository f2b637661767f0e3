"""``python -m bench``: run the grid, show it, keep it; compare two runs; write the page."""

import argparse
import dataclasses
import json
import signal
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console

from bench import document, report, workers
from bench.cells import FULL, QUICK
from bench.proxies import KINDS, OURS, CannotStartError
from bench.run import run

RESULTS = Path(__file__).parent / "results"
DOCS = Path(__file__).parent.parent / "docs"
PAGE, PICTURES = DOCS / "benchmarks.md", DOCS / "pictures" / "bench"


def main() -> None:
    """Run."""
    parser = argparse.ArgumentParser(prog="bench", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    running = commands.add_parser("run", help="measure ours beside the peers")
    running.add_argument("--quick", action="store_true", help="a small grid, under three minutes")
    running.add_argument("--only", default="", metavar="TEXT", help="cells whose name contains it")
    running.add_argument("--rounds", type=int, help="interleaved rounds of each cell")
    running.add_argument("--peers", help="comma-separated, out of: " + ", ".join(_peers()))
    running.add_argument("--output", type=Path, help="default: latest.json, or quick.json")
    running.add_argument(
        "--update", action="store_true", help="keep the other rows that the output file has"
    )
    running.add_argument("--no-pictures", action="store_true")
    comparing = commands.add_parser("compare", help="show what changed between two results")
    comparing.add_argument("old", type=Path)
    comparing.add_argument("new", type=Path)
    scaling = commands.add_parser("workers", help="measure two workers beside one")
    scaling.add_argument("--rounds", type=int, default=3)
    scaling.add_argument("--output", type=Path, default=RESULTS / "workers.json")
    writing = commands.add_parser("document", help="write a result into docs/benchmarks.md")
    writing.add_argument("result", type=Path, nargs="?", default=RESULTS / "latest.json")
    arguments = parser.parse_args()
    console = Console()
    if arguments.command == "workers":
        figures = workers.measure(arguments.rounds, console)
        _keep(arguments.output, figures)
        return
    if arguments.command == "document":
        result = report.load(arguments.result)
        document.write(result, PAGE)
        _draw(result, PICTURES, console)
        return
    if arguments.command == "compare":
        old, new = report.load(arguments.old), report.load(arguments.new)
        raise SystemExit(0 if report.compare(old, new, console) else 1)
    # However it is told to end, what it started ends with it, and what is complete is kept.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    size = QUICK if arguments.quick else FULL
    output = arguments.output or RESULTS / ("quick.json" if arguments.quick else "latest.json")
    peers = tuple(arguments.peers.split(",")) if arguments.peers else size.peers
    if unknown := set(peers) - set(_peers()):
        parser.error(f"no such peer: {', '.join(sorted(unknown))}; there are {', '.join(_peers())}")
    size = dataclasses.replace(size, peers=peers, rounds=arguments.rounds or size.rounds)
    shown = report.Terminal(console)
    try:
        with tempfile.TemporaryDirectory(prefix="sstplb-bench-") as directory:
            result = run(size, Path(directory), shown, arguments.only)
    except CannotStartError as error:
        raise SystemExit(f"bench: {error}") from error
    finally:
        shown.end()
    if arguments.update:
        result = report.updated(report.load(output), result)
    _keep(output, result)
    console.print(report.table(result))
    console.print(f"kept in {output}; took {result['took_s']} s")
    if not arguments.no_pictures:
        _draw(result, output.parent, console)


def _keep(path: Path, result: dict[str, object]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result, indent=1) + "\n")


def _draw(result: Mapping[str, Any], directory: Path, console: Console) -> None:
    from bench import pictures  # noqa: PLC0415 - slow to load, and only here

    directory.mkdir(parents=True, exist_ok=True)
    for path in pictures.draw(result, directory):
        console.print(f"picture: {path}")


def _peers() -> list[str]:
    return [name for name in KINDS if name != OURS]


if __name__ == "__main__":
    main()

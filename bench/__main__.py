"""``python -m bench``: run the grid, show it, keep it; or compare two runs."""

import argparse
import dataclasses
import json
import tempfile
from pathlib import Path

from rich.console import Console

from bench import report
from bench.cells import FULL, QUICK
from bench.proxies import KINDS, CannotStartError
from bench.run import OURS, run

RESULTS = Path(__file__).parent / "results"


def main() -> None:
    """Run."""
    parser = argparse.ArgumentParser(prog="bench", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    running = commands.add_parser("run", help="measure ours beside the peers")
    running.add_argument("--quick", action="store_true", help="a small grid, under three minutes")
    running.add_argument("--only", default="", metavar="TEXT", help="cells whose name contains it")
    running.add_argument("--rounds", type=int, help="interleaved rounds of each cell")
    running.add_argument("--peers", help="comma-separated, out of: " + ", ".join(_peers()))
    running.add_argument("--output", type=Path, default=RESULTS / "latest.json")
    running.add_argument("--no-pictures", action="store_true")
    comparing = commands.add_parser("compare", help="show what changed between two results")
    comparing.add_argument("old", type=Path)
    comparing.add_argument("new", type=Path)
    arguments = parser.parse_args()
    console = Console()
    if arguments.command == "compare":
        old, new = report.load(arguments.old), report.load(arguments.new)
        raise SystemExit(0 if report.compare(old, new, console) else 1)
    size = QUICK if arguments.quick else FULL
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
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    arguments.output.write_text(json.dumps(result, indent=1) + "\n")
    console.print(report.table(result))
    console.print(f"kept in {arguments.output}; took {result['took_s']} s")
    if not arguments.no_pictures:
        for path in report.draw(result, arguments.output.parent):
            console.print(f"picture: {path}")


def _peers() -> list[str]:
    return [name for name in KINDS if name != OURS]


if __name__ == "__main__":
    main()

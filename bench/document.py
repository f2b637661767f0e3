"""Writes a result into ``docs/benchmarks.md``, between two marks: nobody types figures."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from bench.proxies import OURS
from bench.report import cost

Result = Mapping[str, Any]
BEGIN, END = "<!-- results: written by python -m bench document -->", "<!-- end of results -->"


def write(result: Result, page: Path) -> None:
    """Replace what stands between the marks. Raises ValueError when the page has none."""
    text = page.read_text(encoding="utf-8")
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{page} has no marks {BEGIN} and {END}")
    body = "\n".join(_lines(result))
    page.write_text(f"{before}{begin}\n\n{body}\n\n{end}{after}", encoding="utf-8")


def _lines(result: Result) -> Iterator[str]:
    machine, names = result["machine"], list(result["versions"])
    yield (
        f"{machine['cpu']}, {machine['cores']} cores, Linux {machine['kernel']}, Python "
        f"{machine['python']}, {'with' if machine['ktls'] else 'without'} kTLS in the kernel; "
        f"OpenSSL {machine['openssl']} (sstplb) and {machine['systems_openssl']} (the system's); "
        f"{result['rounds']} interleaved rounds, {result['took_s'] / 60:.0f} minutes in all."
    )
    yield ""
    for name, version in result["versions"].items():
        yield f"- {name}: {version}"
    for mode in dict.fromkeys(row["mode"] for row in result["rows"]):
        rows = [row for row in result["rows"] if row["mode"] == mode]
        yield from ("", f"### {mode}", "")
        heads = (*names, "ratio to the best", "target", "spread: ours, the best's")
        yield f"| load | unit | {' | '.join(heads)} |"
        yield "|---|---|" + "---:|" * (len(names) + 3)
        for row in rows:
            figures = [cost(row, name) for name in names]
            yield (
                f"| {row['load']} {row['direction']} | {row['unit']} | "
                f"{' | '.join(_number(f) for f in figures)} | {_verdict(row)} | "
                f"{_target(row)} | {_spreads(row)} |"
            )
    yield from _both_sides(result)


def _spreads(row: Result) -> str:
    both = (row["spread"].get(name) for name in (OURS, row["best_peer"]))
    return ", ".join(map(_percent, both))


def _both_sides(result: Result) -> Iterator[str]:
    """Yield what a mode costs the balancer and the server behind it, beside passthrough."""
    rows = {(r["mode"], r["load"], r["direction"]): r for r in result["rows"]}
    yield from ("", "### What offload and re-encryption cost each side (ours, CPU s/GB)", "")
    yield "| load | side | passthrough | offload | reencrypt |"
    yield "|---|---|---:|---:|---:|"
    for load, direction in dict.fromkeys((r["load"], r["direction"]) for r in result["rows"]):
        found = [rows.get((m, load, direction)) for m in ("passthrough", "offload", "reencrypt")]
        if any(row is None or row["unit"] != "CPU s/GB" for row in found):
            continue
        sides = (("balancer", "ours"), ("server", "backend"))
        for side, key in sides:
            figures = [
                row[key] if key == "ours" else row[key].get(OURS)
                for row in found
                if row is not None
            ]
            yield (f"| {load} {direction} | {side} | {' | '.join(_number(f) for f in figures)} |")


def _verdict(row: Result) -> str:
    if row["ratio"] is None:
        return "-"
    return f"**{row['ratio']:.2f}** (missed)" if row["reached"] is False else f"{row['ratio']:.2f}"


def _target(row: Result) -> str:
    """Return a row's target; of one that names a peer, with our ratio to that."""
    if row["target"] is None or not row["against"]:
        return _number(row["target"])
    to_whom = f"{row['against']}: {_number(row['ratio_to_target'])}"
    return f"{row['target']:.3g} (to {to_whom})"


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{share:.0%}"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}"

"""docs/operations.md lists every event and every reason there is, and none that is not."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from typer.testing import CliRunner

from sstplb.balance.health import FlipKind
from sstplb.cli import app
from sstplb.errors import CallError, HeadError, PrefaceError
from sstplb.tls import report

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "sstplb"
PAGE = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")

NARROWED = {
    "call_failed", "client_error", "backend_error", "refused", "ended",  # the roots
    "limit_reached", "client_timeout", "client_protocol_error", "draining",
}  # fmt: skip
"""Reasons of errors that are never raised without a narrower one."""
OF_TLS = {"client_tls_error", "backend_tls_error"}
"""These are in the other table, as ``tls_error``."""
LEVELS = {"debug", "info", "warning", "error", "exception", "critical"}
SLUG = re.compile(r"[a-z]+(_[a-z0-9]+)+")


def documented(heading: str) -> set[str]:
    """Return the names in the first column of the table under a heading."""
    section = PAGE.partition(f"\n### {heading}\n")[2].partition("\n#")[0]
    cells = [line.split("|")[1] for line in section.splitlines() if line.startswith("| `")]
    return {name for cell in cells for name in re.findall(r"`([^`]+)`", cell)}


def nodes(*places: str) -> Iterator[tuple[Path, ast.AST]]:
    for place in places:
        path = PACKAGE / place
        for file in sorted(path.rglob("*.py")) if path.is_dir() else [path]:
            tree = ast.parse(file.read_text(encoding="utf-8"))
            for node in ast.walk(_Constants(tree).visit(tree)):
                yield file, node


class _Constants(ast.NodeTransformer):
    """Puts a module's named strings where they are used."""

    def __init__(self, module: ast.Module) -> None:
        self._known = {
            node.targets[0].id: node.value
            for node in module.body
            if isinstance(node, ast.Assign)
            and isinstance(node.targets[0], ast.Name)
            and isinstance(node.value, ast.Constant)
            and isinstance(node.value.value, str)
        }

    def visit_Name(self, node: ast.Name) -> ast.expr:
        return self._known.get(node.id, node) if isinstance(node.ctx, ast.Load) else node


def spelled(node: ast.expr | None) -> set[str]:
    """Return what an expression can be, as far as it is spelled out."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return {node.value}
    if isinstance(node, ast.IfExp):
        return spelled(node.body) | spelled(node.orelse)
    if isinstance(node, ast.JoinedStr):
        text = ast.unparse(node)[2:-1]
        if "{side}" in text or "{stream.side}" in text:
            return {re.sub(r"\{[a-z.]*side\}", side, text) for side in ("client", "backend")}
        if "{kind.reason}" in text:
            return {text.replace("{kind.reason}", f"{s}_tls_error") for s in ("client", "backend")}
        if "{flip.kind}" in text:
            return {text.replace("{flip.kind}", str(kind)) for kind in FlipKind}
    return set()


def test_the_commands_it_names_exist() -> None:
    named = set(re.findall(r"sstplb ctl ([a-z][a-z-]+)", PAGE))
    assert len(named) > 12
    for command in named:
        asked = CliRunner().invoke(app, ["ctl", command, "--help"])
        assert asked.exit_code == 0, f"sstplb ctl {command}: {asked.output}"


# --- events -------------------------------------------------------------------------------------


def events() -> set[str]:
    """Return the names of all that is written to the log while calls are carried."""
    found: set[str] = set()
    for _, node in nodes("net", "control", "tls"):
        if isinstance(node, ast.Call) and node.args:
            name = ast.unparse(node.func)
            logs = name.startswith("log.") and name[4:] in LEVELS
            if logs or name == "say":
                found |= spelled(node.args[0])
        elif isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "event":
            found |= spelled(node.value)
    return found


def test_every_event_is_explained() -> None:
    assert sorted(events() - documented("Events")) == [], "write their rows in docs/operations.md"
    assert sorted(documented("Events") - events()) == [], "these do not exist any more"


# --- reasons ------------------------------------------------------------------------------------


def leaves(kind: type[CallError]) -> Iterator[type[CallError]]:
    for below in kind.__subclasses__():
        yield below
        yield from leaves(below)


def reasons() -> set[str]:
    """Return why calls may end, without what TLS has to say."""
    found = {kind.reason for kind in leaves(CallError) if kind.__module__ == "sstplb.errors"}
    found |= {HeadError.reason, PrefaceError.reason}  # passed on as they are (net/opening.py)
    places = ("net", "control", "balance/admission.py", "protocol/watcher.py", "protocol/head.py")
    for file, node in nodes(*places, "tls/hello.py"):
        if {"admin", "ctl"} & set(file.parts):  # their reasons are the API's
            continue
        if isinstance(node, ast.Call):
            name = ast.unparse(node.func).rpartition(".")[2]
            found |= {
                text
                for keyword in node.keywords
                if keyword.arg == "reason"
                for text in spelled(keyword.value)
            }
            at = {"close": 1, "_note": 0, "_insist": 1, "Finding": 0}.get(name)
            if at is not None and len(node.args) > at:
                found |= spelled(node.args[at])
        elif isinstance(node, ast.Return) and isinstance(node.value, ast.Tuple):
            found |= {t for part in node.value.elts for t in spelled(part) if SLUG.fullmatch(t)}
    return found - NARROWED - OF_TLS


def tls_reasons() -> set[str]:
    """Return what stands behind ``client_`` or ``backend_`` when TLS fails."""
    found = {slug for slug, _ in report.REASONS.values()} | {report.RAGGED_END, "tls_error"}
    found |= {f"certificate_{slug}" for slug, _ in report.VERIFY_REASONS.values()}
    for _, node in nodes("tls/policy.py"):
        if isinstance(node, ast.keyword) and node.arg == "reason":
            found |= spelled(node.value)
    return found


def test_every_reason_is_explained() -> None:
    known = documented("Reasons")
    assert sorted(reasons() - known) == [], "write their rows in docs/operations.md"
    assert sorted(known - reasons()) == [], "these do not exist any more"


def test_every_reason_of_tls_is_explained() -> None:
    known = documented("Reasons of TLS")
    assert sorted(tls_reasons() - known) == [], "write their rows in docs/operations.md"
    assert sorted(known - tls_reasons()) == [], "these do not exist any more"


def test_narrowed_reasons_are_always_narrowed() -> None:
    """Who raises one of those says why more closely."""
    kinds = {kind.__name__ for kind in leaves(CallError) if kind.reason in NARROWED}
    for file, node in nodes("net", "control", "balance"):
        if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
            name = ast.unparse(node.exc.func)
            has_reason = any(keyword.arg == "reason" for keyword in node.exc.keywords)
            assert name not in kinds or has_reason, f"{file}:{node.lineno}: {name} without a reason"

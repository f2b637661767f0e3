"""Imports go down only, and the pure rooms stay pure. The house rules as tables."""

import ast
import re
from collections import defaultdict
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "sstplb"
ROOMS = PACKAGE.parent / "docs" / "architecture.md"

#: room -> the rooms it may import (itself always); see docs/architecture.md
RUNGS: dict[str, set[str]] = {
    "errors": set(),
    "config": {"errors"},
    "protocol": {"config", "errors"},
    "tls": {"config", "errors"},
    "balance": {"config", "errors"},
    "account": {"config", "errors"},
    "net": {"protocol", "tls", "balance", "account", "config", "errors"},
    "control": {"net", "protocol", "tls", "balance", "account", "config", "errors"},
    "lab": {"control", "net", "protocol", "tls", "balance", "account", "config", "errors"},
    "cli": {"lab", "control", "net", "protocol", "tls", "balance", "account", "config", "errors"},
    "__init__": set(),
    "__main__": {"cli"},
}

#: invariant 1: these understand, they never wait, look at the clock, roll dice or log
PURE_ROOMS = {"protocol", "balance", "account"}
IMPURE_MODULES = {
    "asyncio", "uvloop", "socket", "selectors", "select", "time", "random", "secrets", "logging",
    "structlog", "os", "threading", "subprocess",
}  # fmt: skip

MODULES = sorted(PACKAGE.rglob("*.py"))


def room_of(path: Path) -> str:
    first = path.relative_to(PACKAGE).parts[0]
    return first.removesuffix(".py")


def imports_of(path: Path) -> list[tuple[str, int]]:
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found += [(alias.name, node.lineno) for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            found += [(f"{node.module}.{alias.name}", node.lineno) for alias in node.names]
    return found


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_go_down_only(path: Path) -> None:
    room = room_of(path)
    assert room in RUNGS, f"{path} is in no room of docs/architecture.md"
    for name, line in imports_of(path):
        parts = name.split(".")
        if parts[0] != "sstplb" or len(parts) < 2 or parts[1] == "__version__":
            continue
        assert parts[1] in RUNGS[room] | {room}, f"{path}:{line}: {room} may not import {parts[1]}"


@pytest.mark.parametrize(
    "path",
    [p for p in MODULES if room_of(p) in PURE_ROOMS],
    ids=lambda p: str(p.relative_to(PACKAGE)),
)
def test_pure_rooms_stay_pure(path: Path) -> None:
    for name, line in imports_of(path):
        top = name.split(".")[0]
        assert top not in IMPURE_MODULES, f"{path}:{line}: a pure room imports {name}"


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_no_module_level_mutable_state(path: Path) -> None:
    """Invariant 8. Tables are fine when nobody can change them: tuple, frozenset, Mapping proxy."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in tree.body:
        if not isinstance(node, ast.Assign | ast.AnnAssign):
            continue
        if isinstance(node.value, ast.List | ast.Dict | ast.Set | ast.ListComp | ast.DictComp):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names = [ast.unparse(target) for target in targets]
            assert names == ["__all__"], f"{path}:{node.lineno}: mutable module state {names}"


def test_room_introductions_hold_no_code() -> None:
    for path in PACKAGE.glob("*/__init__.py"):
        body = ast.parse(path.read_text(encoding="utf-8")).body
        assert len(body) == 1, f"{path} holds code"
        assert isinstance(body[0], ast.Expr), f"{path} holds code"


def test_every_module_is_named_in_its_room() -> None:
    """Newcomers find a module by the list; and it names none that is gone."""
    named: dict[str, set[str]] = defaultdict(set)
    for room, text in re.findall(
        r"^- \*\*([a-z/]+)\*\*(.*?)(?=^- \*\*|^#)",
        ROOMS.read_text(encoding="utf-8"),
        re.MULTILINE | re.DOTALL,
    ):
        named[room.partition("/")[0]] |= set(re.findall(r"`([a-z0-9_]+)`", text))
    there: dict[str, set[str]] = defaultdict(set)
    for path in MODULES:
        is_lesson = path.read_text(encoding="utf-8").startswith('"""Lesson ')
        if path.parent != PACKAGE and path.stem != "__init__" and not is_lesson:
            there[room_of(path)].add(path.stem)
    assert named == there

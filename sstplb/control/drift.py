"""Where the running configuration differs from the file, and how it is written back.

What an operator changes at run time (a backend's standing, weight or calls, backends added or
removed, the log level) is *drift* until it is saved or dropped. ``differences`` compares any two
configurations, value by value; things in lists are known by their names, so a backend is
``pools.rras.backends.rras1`` wherever it stands.

``written_back`` edits the file's own text (ruamel.yaml keeps comments, order and quotes) and then
reads the result as a start would: only a text that means exactly what is running is written. What
cannot be said by such an edit (an alias shared by two backends, for one) is refused, not guessed.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from sstplb.config import loader, schema
from sstplb.config.schema import LogLevel, Standing
from sstplb.control.files import replace_file
from sstplb.control.plan import Plan
from sstplb.errors import ConfigError, ConflictError

WIDTH_MAX = 1 << 20
"""Lines are never folded: they are the operator's."""


@dataclass(frozen=True, slots=True)
class Difference:
    """One value that differs; None: it is not there."""

    path: str
    before: Any
    after: Any


@dataclass(frozen=True, slots=True)
class Review:
    """What reloading the file would do, or did."""

    problems: tuple[str, ...]
    """Why it cannot be used; empty: it can."""
    warnings: tuple[str, ...]
    changes: tuple[Difference, ...]
    """Between the file as it was loaded and as it is now."""
    drift_lost: tuple[Difference, ...]
    """What was changed at run time and will not be any more: from running to file."""


def plain(config: schema.Config) -> dict[str, Any]:
    """Return a configuration as plain values, durations and sizes as they are written."""
    values: dict[str, Any] = config.model_dump(mode="json")
    return values


def differences(before: schema.Config, after: schema.Config) -> list[Difference]:
    """Return every value that differs, in the order of the file."""
    return list(_differences(plain(before), plain(after), ""))


def _differences(before: Any, after: Any, path: str) -> Iterator[Difference]:
    before, after = _by_name(before), _by_name(after)
    if isinstance(before, dict) and isinstance(after, dict):
        for key in dict.fromkeys((*before, *after)):
            below = f"{path}.{key}" if path else str(key)
            if key in before and key in after:
                yield from _differences(before[key], after[key], below)
            else:
                yield Difference(below, before.get(key), after.get(key))
    elif before != after:
        yield Difference(path, before, after)


def _by_name(value: Any) -> Any:
    """Return a list of named things as a section of them."""
    if isinstance(value, list) and value and all(_is_named(item) for item in value):
        return {item["name"]: item for item in value}
    return value


def _is_named(item: Any) -> bool:
    return isinstance(item, dict) and "name" in item


# --- what is lived, and what a reload would leave of it ----------------------------------------


def standings(config: schema.Config) -> dict[tuple[str, str], str]:
    """Return the standing a configuration gives each backend, by pool and name, as its word."""
    return {
        (name, backend.name): str(backend.standing)
        for name, pool in config.pools.items()
        for backend in pool.backends
    }


def lived(config: schema.Config, plan: Plan, level: LogLevel) -> schema.Config:
    """Return a configuration as it is lived: with today's standings and log level."""
    today = {
        (name, backend.name): backend.standing
        for name, checks in plan.checks.items()
        for backend in checks.pool.backends
    }
    log = config.log.model_copy(update={"level": level})
    return _with_standings(config, today).model_copy(update={"log": log})


def put_in_force(filed: schema.Config, running: schema.Config) -> schema.Config:
    """Return what is in force once a file was loaded: ``workers`` stay as many as are running."""
    if filed.workers_count == running.workers_count:
        return filed
    return filed.model_copy(update={"workers": running.workers})


def after_reload(new: schema.Config, plan: Plan) -> schema.Config:
    """Return what would be running after a reload: standings survive where they may."""
    kept: dict[tuple[str, str], Standing] = {}
    for name, checks in plan.checks.items():
        filed = new.pools[name].backends if name in new.pools else ()
        for backend in checks.pool.backends:
            for config in filed:
                is_it = (config.name, config.address) == (backend.name, backend.config.address)
                if is_it and config.standing is backend.config.standing:
                    kept[name, backend.name] = backend.standing
    return _with_standings(new, kept)


def _with_standings(
    config: schema.Config, standings: Mapping[tuple[str, str], Standing]
) -> schema.Config:
    pools = {
        name: pool.model_copy(
            update={
                "backends": tuple(
                    b.model_copy(update={"standing": standings.get((name, b.name), b.standing)})
                    for b in pool.backends
                )
            }
        )
        for name, pool in config.pools.items()
    }
    return config.model_copy(update={"pools": pools})


# --- writing back -----------------------------------------------------------------------------


def save(file: Path, filed: schema.Config, running: schema.Config) -> None:
    """Write what differs back to the file, atomically. Raises ConflictError or ConfigError.

    ``filed`` is what the file put in force when it was loaded: if it says something else by now,
    somebody edits it, and nothing is written.
    """
    target = file.resolve()
    try:
        text = loader.read_text(target)
    except ConfigError as error:
        raise ConflictError(f"{file} {error.problems[0].message}") from error

    def means(text: str) -> dict[str, Any]:
        said = loader.parse(text, file=str(file), base=target.parent)
        return plain(put_in_force(said, running))

    if means(text) != plain(filed):
        raise ConflictError(f"{file} was changed since it was loaded: reload it first, or restore")
    edited = written_back(text, filed, running)
    try:
        says = means(edited)
    except ConfigError as error:
        raise ConflictError(f"{file} cannot be edited for this: {error}") from error
    if says != plain(running):
        raise ConflictError(
            f"{file} cannot be edited so that it says what is running (does it use YAML aliases "
            "for backends?): change it by hand, then reload"
        )
    try:
        replace_file(target, edited)
    except OSError as error:
        raise ConflictError(f"{file} cannot be written: {error.strerror}") from error


def written_back(text: str, filed: schema.Config, running: schema.Config) -> str:
    """Return the file's text with the differences in its backends and log level worked in.

    Raises ConflictError when the text cannot be edited.
    """
    yaml = YAML()
    yaml.preserve_quotes = True
    yaml.width = WIDTH_MAX
    try:
        mapping, dash = _indents(text)
        yaml.indent(mapping=mapping, sequence=dash + 2, offset=dash)
        document = yaml.load(text)
        for name, pool in running.pools.items():
            before = {backend.name: backend for backend in filed.pools[name].backends}
            _edit_backends(document["pools"][name]["backends"], before, pool.backends)
        if running.log.level is not filed.log.level:
            document.setdefault("log", {})["level"] = str(running.log.level)
        written = StringIO()
        yaml.dump(document, written)
    except (YAMLError, KeyError, TypeError, AttributeError) as error:
        raise ConflictError(f"the file cannot be edited: {error}") from error
    return written.getvalue()


def _indents(text: str) -> tuple[int, int]:
    """Return how far the file indents sections, and the dashes of its lists."""
    steps = [len(m[1]) for m in re.finditer(r"^( +)[^ #\n-]", text, re.MULTILINE)]
    mapping = min(steps, default=2)
    dashes = re.search(
        r"^( *)[^ #\n-][^\n]*:[ \t]*(?:#[^\n]*)?\n(?: *#[^\n]*\n)*( *)- ", text, re.MULTILINE
    )
    return mapping, len(dashes[2]) - len(dashes[1]) if dashes is not None else 2


def _edit_backends(
    items: Any, before: Mapping[str, schema.Backend], running: tuple[schema.Backend, ...]
) -> None:
    """Make the file's list of backends say what is running."""
    wanted = {backend.name: backend for backend in running}
    for number in reversed(range(len(items))):
        if str(items[number]["name"]) not in wanted:
            del items[number]
    for item in items:
        name = str(item["name"])
        was, now = (b.model_dump(mode="json") for b in (before[name], wanted[name]))
        for key in (key for key in now if now[key] != was[key]):
            item[key] = now[key]
    for name, backend in wanted.items():
        if name not in before:
            items.append(backend.model_dump(mode="json", exclude_defaults=True))

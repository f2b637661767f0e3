"""The schema for readers: ``docs/configuration.md``, ``conf/full.yaml``, and editors' JSON Schema.

The first two are written by ``make docs`` from the models' own docstrings and defaults, and a test
holds what is committed against what would be written: a knob cannot be without its page.
"""

import textwrap
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from typing import Any, get_args, get_origin

import yaml
from pydantic import BaseModel, PlainSerializer
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from sstplb.config import quantities, schema

WIDTH = 96
_EXAMPLE = """\
listeners:
  - name: vpn
    address: 0.0.0.0:443
    mode: reencrypt
    pool: rras
    certificates:
      - chain: ../certs/vpn.pem
        key: ../certs/vpn.key
pools:
  rras:
    backends:
      - name: rras1
        address: 10.0.0.11:443
"""
"""What a knob without a default is set to in ``conf/full.yaml``."""

MARK = "<!-- The rest is written by `make docs`. -->"


def with_reference(page: str) -> str:
    """Return a page with everything below its mark replaced by the reference."""
    above, mark, _ = page.partition(MARK)
    return f"{above}{mark or MARK}\n\n{reference()}"


def reference() -> str:
    """Return the reference: a heading per section and knob, in Markdown."""
    return "\n".join(_section(schema.Config, ""))


def full_yaml() -> str:
    """Return a configuration with every knob at its default, each with its reason."""
    lines = [
        "# Every knob at its default, with its reason. Written by `make docs` from the schema.",
        "# Knobs that are off by default are commented out. Start from minimal.yaml instead.",
        *_yaml_section(schema.Config, yaml.safe_load(_EXAMPLE), 0),
    ]
    return "\n".join(lines) + "\n"


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema of the file, for editors; defaults are shown as they are written."""
    made = schema.Config.model_json_schema()
    for section in _sections(schema.Config):
        shown = made if section is schema.Config else made["$defs"][section.__name__]
        for name, field in section.model_fields.items():
            known = shown["properties"][name]
            known["description"] = _prose(field)
            if "default" in known:
                known["default"] = _plain_default(field)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **made, "title": "sstplb"}


def _sections(model: type[BaseModel]) -> Iterator[type[BaseModel]]:
    yield model
    for field in model.model_fields.values():
        inner, _ = model_of(field)
        if inner is not None:
            yield from _sections(inner)


def _section(model: type[BaseModel], path: str) -> Iterator[str]:
    """Yield a section's own knobs, then the sections inside it: each knob below its own heading."""
    inside: list[str] = []
    for name, field in model.model_fields.items():
        inner, many = model_of(field)
        shown = path + name + {"list": "[]", "dict": ".NAME", "": ""}[many]
        if inner is None:
            yield f"### `{shown}`\n\n{_prose(field)}\n"
            yield f"{_shown_kind(field)}Default: {_shown_default(field)}.\n"
        else:
            inside += [f"## `{shown}`\n\n{_prose(field)}\n", *_section(inner, f"{shown}.")]
    yield from inside


def _yaml_section(model: type[BaseModel], example: dict[str, Any], depth: int) -> Iterator[str]:
    indent = "  " * depth
    for name, field in model.model_fields.items():
        inner, many = model_of(field)
        if depth == 0:
            yield ""
        yield from _comment(_prose(field), indent)
        given = example.get(name)
        if inner is None:
            value = given if given is not None else _plain_default(field)
            dumped = yaml.safe_dump({name: value}, default_flow_style=True, width=10**6).strip()
            off = value is None
            yield f"{indent}{'# ' if off else ''}{dumped[1:-1]}"
        elif many == "list":
            if not given:
                yield f"{indent}{name}: []"
                continue
            yield f"{indent}{name}:"
            for item in given:
                body = list(_yaml_section(inner, item, depth + 2))
                at = next(i for i, line in enumerate(body) if not line.lstrip().startswith("#"))
                yield from (line[2:] for line in body[:at])
                yield f"{indent}  - {body[at].lstrip()}"
                yield from body[at + 1 :]
        elif many == "dict":
            yield f"{indent}{name}:"
            for key, item in (given or {}).items():
                yield f"{indent}  {key}:"
                yield from _yaml_section(inner, item, depth + 2)
        elif given is None and _plain_default(field) is None:
            yield f"{indent}# {name}:"
            for within, knob in inner.model_fields.items():
                yield f"{indent}#   {within}: null  # {_prose(knob)}"
        else:
            yield f"{indent}{name}:"
            yield from _yaml_section(inner, given or {}, depth + 1)


def model_of(field: FieldInfo) -> tuple[type[BaseModel] | None, str]:
    """Return the section a field holds, if it does, and whether in a ``list`` or a ``dict``."""
    annotation = field.annotation
    origin = getattr(annotation, "__origin__", None)
    many = {tuple: "list", dict: "dict"}.get(origin, "") if origin else ""
    for candidate in (annotation, *getattr(annotation, "__args__", ())):
        if isinstance(candidate, type) and issubclass(candidate, BaseModel):
            return candidate, many
    return None, ""


def _prose(field: FieldInfo) -> str:
    return " ".join((field.description or "").replace("``", "`").split())


def _comment(text: str, indent: str) -> list[str]:
    plain = text.replace("`", "")
    return [f"{indent}# {line}" for line in textwrap.wrap(plain, WIDTH - len(indent))]


def _plain_default(field: FieldInfo) -> Any:
    """Return a default as it would stand in the file; None: there is none, or it is off."""
    default = field.get_default(call_default_factory=True)
    if default is PydanticUndefined or default is None:
        return None
    if isinstance(default, BaseModel):
        return default.model_dump(mode="json")
    if isinstance(default, tuple):
        return list(default)
    for metadata in field.metadata:
        if isinstance(metadata, PlainSerializer):
            return metadata.func(default)  # type: ignore[call-arg]  # plain functions of one value
    return str(default) if isinstance(default, str) else default


def _shown_default(field: FieldInfo) -> str:
    if field.is_required():
        return "none, it must be set"
    value = _plain_default(field)
    if value is None:
        return "not set"
    if value in ([], {}):
        return "none"
    if isinstance(value, str):
        return f"`{value}`"
    dumped: str = yaml.safe_dump(value, default_flow_style=True, width=10**6)
    return f"`{dumped.splitlines()[0]}`"


def _shown_kind(field: FieldInfo) -> str:
    """Return what a knob takes, with its unit or bounds: ``A duration. ``; nothing for a word."""
    parts = [*field.metadata, *_parts(field.annotation)]
    kinds = [part for part in parts if isinstance(part, type)]
    for kind in kinds:
        if issubclass(kind, StrEnum):
            return f"One of {', '.join(f'`{choice}`' for choice in kind)}. "
    units = [part.func for part in parts if isinstance(part, PlainSerializer)]
    if quantities.format_duration in units:
        return "A duration, such as `10s`, `500ms` or `2m`. "
    if quantities.format_size in units:
        return "A size, such as `16KiB` or `1MiB`. "
    if quantities.format_workers in units:
        return f"`auto`, or a whole number from 1 to {quantities.WORKERS_MAX}. "
    if bool in kinds:
        return "`true` or `false`. "
    if int in kinds or float in kinds:
        return f"A {'whole ' if int in kinds else ''}number{_shown_bounds(parts)}. "
    if tuple in kinds:
        return "A list. "
    return "The path of a file. " if Path in kinds else ""


def _shown_bounds(parts: list[Any]) -> str:
    words = (("gt", " above {}"), ("ge", " from {}"), ("le", " to {}"))
    found = ((getattr(part, name, None), text) for name, text in words for part in parts)
    return "".join(text.format(bound) for bound, text in found if bound is not None)


def _parts(annotation: Any) -> Iterator[Any]:
    """Yield the types an annotation allows, and what is said about them."""
    if isinstance(annotation, FieldInfo):
        yield from annotation.metadata
    elif get_origin(annotation) is tuple:
        yield tuple
    elif get_args(annotation):
        for inner in get_args(annotation):
            yield from _parts(inner)
    else:
        yield annotation

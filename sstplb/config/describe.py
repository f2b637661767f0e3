"""The schema as text for people: the reference of ``docs/configuration.md`` and ``conf/full.yaml``.

Both are written by ``make docs`` from the models' own docstrings and defaults, and a test holds
what is committed against what would be written: a knob cannot be without its page.
"""

import textwrap
from collections.abc import Iterator
from enum import StrEnum
from typing import Any

import yaml
from pydantic import BaseModel, PlainSerializer
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from sstplb.config import schema

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


def _section(model: type[BaseModel], path: str) -> Iterator[str]:
    for name, field in model.model_fields.items():
        where = f"{path}{name}"
        inner, many = model_of(field)
        shown = {"list": f"{where}[]", "dict": f"{where}.NAME", "": where}[many]
        yield f"{'##' if inner else '###'} `{shown}`\n"
        yield _prose(field) + "\n"
        if inner is None:
            yield f"Default: {_shown_default(field)}{_shown_choices(field)}\n"
        else:
            yield from _section(inner, f"{shown}.")


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
                first, *rest = [line for line in _yaml_section(inner, item, depth + 2) if line]
                body = [first, *rest]
                at = next(i for i, line in enumerate(body) if not line.lstrip().startswith("#"))
                body[at] = f"{indent}  - {body[at].lstrip()}"
                yield from body
        elif many == "dict":
            yield f"{indent}{name}:"
            for key, item in (given or {}).items():
                yield f"{indent}  {key}:"
                yield from _yaml_section(inner, item, depth + 2)
        elif given is None and _plain_default(field) is None:
            yield f"{indent}# {name}:"
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


def _shown_choices(field: FieldInfo) -> str:
    """Return the choices of an enumeration."""
    for candidate in (field.annotation, *getattr(field.annotation, "__args__", ())):
        if isinstance(candidate, type) and issubclass(candidate, StrEnum):
            return f" (one of {', '.join(f'`{choice}`' for choice in candidate)})"
    return ""

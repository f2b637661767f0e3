"""Schema, `conf/full.yaml`, the reference and the editors' schema say the same."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel

from sstplb.config import describe, schema
from sstplb.config.loader import json_schema, load
from sstplb.config.schema import Config

ROOT = Path(__file__).parents[2]
FULL = ROOT / "conf" / "full.yaml"
REFERENCE = ROOT / "docs" / "configuration.md"


def knobs(model: type[BaseModel] = Config, path: str = "") -> Iterator[str]:
    """Every section and knob, as the reference calls them."""
    for name, field in model.model_fields.items():
        inner, many = describe.model_of(field)
        shown = path + name + {"list": "[]", "dict": ".NAME", "": ""}[many]
        yield shown
        if inner is not None:
            yield from knobs(inner, f"{shown}.")


def test_full_yaml_and_the_reference_are_what_make_docs_writes() -> None:
    assert FULL.read_text() == describe.full_yaml()
    page = REFERENCE.read_text()
    assert page == describe.with_reference(page)


def test_every_knob_has_one_heading() -> None:
    headings = re.findall(r"^##+ `(.*)`$", REFERENCE.read_text(), re.MULTILINE)
    assert sorted(headings) == sorted(knobs())


def test_a_knob_stands_below_the_heading_of_its_section() -> None:
    section = ""
    for level, name in re.findall(r"^(##+) `(.*)`$", REFERENCE.read_text(), re.MULTILINE):
        if level == "##":
            section = name
        else:
            assert name.rpartition(".")[0] == section


def test_full_yaml_names_every_knob() -> None:
    named = set(re.findall(r"^[ #-]*([a-z0-9_]+):", FULL.read_text(), re.MULTILINE))
    assert named >= {knob.split(".")[-1].removesuffix("[]") for knob in knobs()} - {"NAME"}


def test_full_yaml_shows_every_default() -> None:
    config = load(FULL)
    assert (config.limits, config.log, config.tls) == (schema.Limits(), schema.Log(), schema.Tls())
    usual = schema.Listener(
        **config.listeners[0].model_dump(include={"name", "address", "mode", "pool"}),
        certificates=config.listeners[0].certificates,
    )
    assert config.listeners[0] == usual
    pool = config.pools["rras"]
    filled_in = pool.model_copy(
        update={
            "transport": None,
            "check": pool.check.model_copy(update={"method": None}),
            "tls": pool.tls.model_copy(update={"verify": None}),
        }
    )
    assert filled_in == schema.Pool(backends=pool.backends)
    backend = pool.backends[0]
    assert backend == schema.Backend(name=backend.name, address=backend.address)


def test_the_reference_says_what_a_knob_takes() -> None:
    page = REFERENCE.read_text()
    for knob, said in (
        ("limits.idle_timeout", "A duration, such as `10s`, `500ms` or `2m`. Default: `11m`."),
        ("limits.relay_buffer", "A size, such as `16KiB` or `1MiB`. Default: `256KiB`."),
        ("pools.NAME.check.port", "A whole number from 1 to 65535. Default: not set."),
        ("pools.NAME.check.down_after", "A duration, such as `10s`, `500ms` or `2m`. Default: not"),
        ("pools.NAME.check.preset", "One of `kemp`, `f5`. Default: not set."),
        ("limits.accept_rate_per_client", "A number above 0. Default: `200.0`."),
    ):
        entry = page.partition(f"### `{knob}`\n")[2].partition("\n#")[0]
        assert said in entry, entry


def test_the_json_schema_knows_every_section() -> None:
    made = json_schema()
    assert {"listeners", "pools", "limits", "log"} <= made["properties"].keys()
    assert made["additionalProperties"] is False


def defaults(made: Any) -> Iterator[tuple[dict[str, Any], Any]]:
    if isinstance(made, dict):
        if "default" in made:
            yield made, made["default"]
        for inner in made.values():
            yield from defaults(inner)
    elif isinstance(made, list):
        for inner in made:
            yield from defaults(inner)


def test_the_json_schema_shows_defaults_as_they_are_written() -> None:
    found = list(defaults(json_schema()))
    assert found
    for knob, default in found:
        if knob.get("type") == "string":
            assert isinstance(default, str), knob
        if "pattern" in knob:
            assert re.fullmatch(knob["pattern"], default), knob
        assert "``" not in knob["description"]


@pytest.mark.parametrize("path", sorted((ROOT / "conf").glob("*.yaml")), ids=lambda p: p.name)
def test_the_examples_use_only_keys_the_json_schema_knows(path: Path) -> None:
    made = json_schema()

    def look(value: Any, knob: dict[str, Any]) -> None:
        while "$ref" in knob:
            knob = made["$defs"][knob["$ref"].rpartition("/")[2]]
        if isinstance(value, list):
            for item in value:
                look(item, knob.get("items", {}))
        elif isinstance(value, dict) and "properties" in knob:
            assert value.keys() <= knob["properties"].keys()
            for key, inner in value.items():
                look(inner, knob["properties"][key])
        elif isinstance(value, dict):
            for inner in value.values():
                look(inner, knob.get("additionalProperties") or {})

    look(yaml.safe_load(path.read_text()), made)

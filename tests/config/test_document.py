"""A document is plain values with lines; whatever else YAML can be is said, never raised raw."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sstplb.config import document
from sstplb.errors import ConfigError


def mistakes(text: str) -> str:
    return "\n".join(str(problem) for problem in document.read(text, "x.yaml").problems)


def refusal(text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        document.read(text, "x.yaml")
    return str(caught.value)


def test_every_key_and_item_has_its_line() -> None:
    found = document.read("a:\n  b:\n    - c: 1\n    - d\n", "x.yaml")
    assert found.values == {"a": {"b": [{"c": 1}, "d"]}}
    assert [found.line(path) for path in (("a",), ("a", "b", 0, "c"), ("a", "b", 1))] == [1, 3, 4]


def test_what_is_not_there_has_the_line_of_what_is_around_it() -> None:
    found = document.read("a:\n  b:\n    c: 1\n", "x.yaml")
    assert found.line(("a", "b", "missing", 7)) == 2


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: 1\nb: 2\na: 3", "x.yaml:3: a: a was given before, in line 1"),
        ("p: {a: 1, a: 2}", "x.yaml:1: p.a: a was given before, in line 1"),
        ("5: 1\n'5': 2", "x.yaml:2: 5: 5 was given before, in line 1"),
        (
            "a: 1\nb: !!python/object:os.system x",
            "x.yaml:2: b: expected a plain value, got the tag",
        ),
        ("a: !!set {x, y}", "x.yaml:1: a: expected a plain value, got the tag"),
        ("a: !mine [x]", "x.yaml:1: a: expected a plain value, got the tag !mine"),
    ],
)
def test_what_can_be_read_on_is_noted(text: str, said: str) -> None:
    assert said in mistakes(text)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: [", "x.yaml:1: not YAML"),
        ("a: 1\n\tb: 2", "x.yaml:2: not YAML: a tab, where a line must be indented with spaces"),
        ("a: 1\n---\nb: 2", "x.yaml:2: not YAML: but found another document"),
        ("a: 1\nb: \x00", "x.yaml:2: not YAML: the character '\\x00' cannot stand in a text"),
        ("a: \ud800", "cannot stand in a text"),
        ("a: !!int word", "x.yaml: not YAML"),
        ("? [a]\n: b", "x.yaml:1: not YAML"),
        ("a: *gone", "x.yaml:1: not YAML"),
        ("a: &a [*a]", "nested too deeply, or in itself"),
        ("a: " + "[" * 5000, "nested too deeply, or in itself"),
        ("#" * document.DOCUMENT_BYTES_MAX + "#", "expected at most 1 MiB"),
    ],
)
def test_what_cannot_be_read_is_refused_in_words(text: str, said: str) -> None:
    assert said in refusal(text)


def test_a_bomb_of_aliases_is_refused() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 9)]
    assert "expected at most 100000 values, with aliases followed" in refusal("\n".join(lines))


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("off", "off"),
        ("no", "no"),
        ("true", True),
        ("12:30", "12:30"),
        ("010", "010"),
        ("0x10", "0x10"),
        ("2026-13-45", "2026-13-45"),
        ("1" * 64, "1" * 64),
        ("1e5", "1e5"),
        ("-5", -5),
        ("1.2", 1.2),
        ("~", None),
        ("", None),
    ],
)
def test_words_stay_words(written: str, meant: object) -> None:
    assert document.read(f"a: {written}", "x.yaml").values == {"a": meant}


def test_aliases_may_be_used_in_moderation() -> None:
    assert document.read("a: &a [1]\nb: *a", "x.yaml").values == {"a": [1], "b": [1]}


@given(st.text(alphabet="ab:-[]{}&*!|>'\"#?%@,\n\t \\0~<\x00é", max_size=40))
def test_no_text_gets_past_as_a_raw_error(text: str) -> None:
    with contextlib.suppress(ConfigError):
        document.read(text, "x.yaml")

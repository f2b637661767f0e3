"""The validation library's findings in our words: expected / got, and the nearest known spelling.

The library knows what is wrong with each value but speaks to programmers. Values under a secret
are never repeated: who writes a password where its file's name belongs must not meet it again in
a log.
"""

import difflib
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType

from pydantic import BaseModel
from pydantic_core import ErrorDetails

from sstplb.config import describe, document
from sstplb.config.document import Document
from sstplb.config.schema import Config, Secret
from sstplb.errors import Problem

SHOWN_MAX = 80
"""The most characters of a mistaken value that a message repeats."""

_PATTERNS: Mapping[str, str] = MappingProxyType(
    {
        r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,62}$": "a name of letters, digits, - _ and .",
        r"^[0-9a-f]{64}$": "a SHA-256: 64 hex digits (sstplb fingerprint shows it)",
        r"^1\.[01]$": "1.0 or 1.1",
        r"^[1-5][0-9][0-9](-[1-5][0-9][0-9])?$": "a status such as 401, or a range such as 200-299",
        r"^[A-Z]+$": "a method such as HEAD or GET",
        r"^/[!-~]*$": "a path that begins with / and has no spaces",
        r"^[!-~]+$": "a word without spaces",
    }
)
_BOUNDS: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "greater_than": ("gt", "more than {}"),
        "greater_than_equal": ("ge", "{} or more"),
        "less_than": ("lt", "less than {}"),
        "less_than_equal": ("le", "at most {}"),
    }
)
_KINDS: Mapping[str, str] = MappingProxyType(
    {
        "int_type": "a whole number",
        "int_parsing": "a whole number",
        "int_parsing_size": "a smaller number",
        "int_from_float": "a whole number",
        "float_type": "a number",
        "float_parsing": "a number",
        "finite_number": "a finite number",
        "bool_type": "true or false",
        "bool_parsing": "true or false",
        "string_type": "text (put it in quotes?)",
        "path_type": "the path of a file",
        "tuple_type": "a list",
        "list_type": "a list",
        "model_type": "a section with keys",
        "model_attributes_type": "a section with keys",
        "dict_type": "a section with keys",
    }
)


def problems(details: Sequence[ErrorDetails], found: Document) -> Iterator[Problem]:
    """Yield a problem for each finding, with its place in the document."""
    for detail in details:
        path = path_of(detail)
        if (secret := _secret_around(path)) is not None:
            message = "expected file or env, to say where the secret is kept; never the secret"
            yield Problem(message, document.show(secret), found.file, found.line(path))
        else:
            yield Problem(_message(detail, path), document.show(path), found.file, found.line(path))


def without_echoes(details: Sequence[ErrorDetails]) -> list[ErrorDetails]:
    """Leave out "expected at least one" where there is one, with a mistake in it."""

    def is_echo(detail: ErrorDetails) -> bool:
        at = detail["loc"]
        return detail["type"] == "too_short" and any(
            other["loc"][: len(at)] == at for other in details if other is not detail
        )

    return [detail for detail in details if not is_echo(detail)]


def path_of(detail: ErrorDetails) -> document.Path:
    """Return where a finding is."""
    return tuple(part for part in detail["loc"] if part != "[key]")


def nearest(path: document.Path) -> str | None:
    """Return the known key that an unknown one looks like, if there is one."""
    near = difflib.get_close_matches(str(path[-1]), _section_at(path[:-1]).model_fields, 1, 0.5)
    return near[0] if near else None


def _message(detail: ErrorDetails, path: document.Path) -> str:
    kind, context, given = detail["type"], detail.get("ctx", {}), detail["input"]
    if kind == "extra_forbidden":
        return _unknown_key(path)
    if kind == "missing":
        return "is missing"
    if kind in ("too_short", "string_too_short"):
        return "expected at least one" if kind == "too_short" else "expected some text, got none"
    if given is None:
        return "is empty: give it a value, or leave it out"
    if kind == "value_error":
        return _shortened(str(context["error"]), 2 * SHOWN_MAX)
    got = f"got {_shortened(repr(given), SHOWN_MAX)}"
    if kind == "enum":
        return f"expected {context['expected']}, {got}{_nearest_choice(str(given), context)}"
    if kind == "string_pattern_mismatch":
        return f"expected {_PATTERNS.get(context['pattern'], context['pattern'])}, {got}"
    if kind in _BOUNDS:
        bound, words = _BOUNDS[kind]
        return f"expected {words.format(format(context[bound], 'g'))}, {got}"
    return f"expected {_KINDS.get(kind, 'another kind of value')}, {got}"


def _unknown_key(path: document.Path) -> str:
    """Name the nearest known spelling of an unknown key."""
    if path[-1] == "<<":
        return "merging with << is not supported: write the keys out"
    if (near := nearest(path)) is not None:
        return f"unknown key; did you mean {near}?"
    return f"unknown key; known here: {', '.join(_section_at(path[:-1]).model_fields)}"


def _nearest_choice(given: str, context: Mapping[str, str]) -> str:
    choices = context["expected"].replace(" or ", ", ").replace("'", "").split(", ")
    near = difflib.get_close_matches(given, choices, 1)
    return f"; did you mean {near[0]}?" if near else ""


def _secret_around(path: document.Path) -> document.Path | None:
    """Return the place of the secret that a path is, or is in."""
    places = (path[: end + 1] for end in range(len(path)))
    return next((place for place in places if _section_at(place) is Secret), None)


def _section_at(path: document.Path) -> type[BaseModel]:
    """Return the section a path is in, by walking the models along it."""
    section: type[BaseModel] = Config
    for part in path:
        if isinstance(part, str) and part in section.model_fields:
            section = describe.model_of(section.model_fields[part])[0] or section
    return section


def _shortened(text: str, size_max: int) -> str:
    return text if len(text) <= size_max else f"{text[:size_max]}… ({len(text)} characters)"

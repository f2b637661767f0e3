"""A YAML document with the line of everything in it.

PyYAML's safe loader builds plain values and forgets where they stood; an operator with a mistake
wants the line. So the document is composed to nodes (which know their lines), looked through for
what YAML itself allows and a configuration must not (duplicate keys, tags, anchors that multiply),
and then built. ``Document.line`` finds the line of a path such as ``("pools", "rras", "tls")``.

Words stay words: of YAML 1.1's many ideas only ``null``, ``true``/``false`` and plain decimal
numbers are kept, so that ``standing: off`` is not False, ``12:30`` not 750, ``010`` not 8, and a
fingerprint that happens to be all digits is no number. Keys are always text.
"""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import yaml

from sstplb.errors import ConfigError, Problem

DOCUMENT_BYTES_MAX = 1 << 20
NODES_MAX = 100_000
"""After aliases are followed: "billion laughs" is a configuration nobody meant."""

Path = tuple[str | int, ...]

_LAST_PART = re.compile(r"(?:(?:^|\.)[^.\[]*|\[[0-9]+\])$")
"""Of a path as ``show`` writes it."""
_NULL, _BOOL, _INT, _FLOAT, _TEXT, _LIST, _SECTION = (
    f"tag:yaml.org,2002:{kind}" for kind in ("null", "bool", "int", "float", "str", "seq", "map")
)
_TAGS = frozenset((_NULL, _BOOL, _INT, _FLOAT, _TEXT, _LIST, _SECTION))


class _Loader(yaml.SafeLoader):
    """The safe loader, with fewer ideas about what an unquoted word might be."""

    yaml_implicit_resolvers = {  # noqa: RUF012 - PyYAML's own way of saying it
        first: [(tag, regexp) for tag, regexp in resolvers if tag == _NULL]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


_Loader.add_implicit_resolver(
    _BOOL, re.compile(r"(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF")
)
_Loader.add_implicit_resolver(
    _INT, re.compile(r"[-+]?(?:0|[1-9][0-9]{0,17})$"), list("-+0123456789")
)
_Loader.add_implicit_resolver(
    _FLOAT, re.compile(r"[-+]?[0-9]{1,17}\.[0-9]{1,17}$"), list("-+0123456789")
)


@dataclass(slots=True)
class Document:
    """The values of a YAML file, and their lines."""

    file: str
    values: object
    lines: dict[Path, int] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    """What is wrong with the document as such, although it can be read on."""

    def line(self, path: Path) -> int | None:
        """Return the line of a path, or of the nearest thing around it that has one."""
        while path not in self.lines and path:
            path = path[:-1]
        return self.lines.get(path)

    @contextmanager
    def placing(self) -> Iterator[None]:
        """Give file and line to the problems of who only knows their paths."""
        try:
            yield
        except ConfigError as error:
            lines = {show(path): line for path, line in self.lines.items()}
            placed = (self._placed(problem, lines) for problem in error.problems)
            raise ConfigError(sorted(placed, key=lambda problem: problem.line or 0)) from error

    def _placed(self, problem: Problem, lines: Mapping[str, int]) -> Problem:
        path = problem.path
        while path and path not in lines:
            path = _LAST_PART.sub("", path)
        return replace(problem, file=self.file, line=lines.get(path))


def read(text: str, file: str) -> Document:
    """Read one YAML document; its ``problems`` are for the caller to report with the others.

    Raises ConfigError, with the line, when nothing can be read on.
    """
    if len(text.encode(errors="replace")) > DOCUMENT_BYTES_MAX:
        message = f"expected at most {DOCUMENT_BYTES_MAX >> 20} MiB"
        raise ConfigError([Problem(message, file=file)])
    document = Document(file, None)
    try:
        _fill(document, text)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = None if mark is None else mark.line + 1
        message = f"not YAML: {error.problem}"
        if "'\\t'" in message:
            message = "not YAML: a tab, where a line must be indented with spaces"
        raise ConfigError([Problem(message, file=file, line=line)]) from error
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        message = f"not YAML: the character {chr(error.character)!a} cannot stand in a text"
        raise ConfigError([Problem(message, file=file, line=line)]) from error
    except (yaml.YAMLError, ValueError) as error:
        raise ConfigError([Problem(f"not YAML: {error}", file=file)]) from error
    except RecursionError as error:
        raise ConfigError([Problem("is nested too deeply, or in itself", file=file)]) from error
    return document


def show(path: Path) -> str:
    """Show a path as ``pools.rras.backends[0].weight``."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else str(part)
    return text


def _fill(document: Document, text: str) -> None:
    loader = _Loader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return
        for count, (path, child, problem) in enumerate(_walk(node, ())):
            line = child.start_mark.line + 1
            if count > NODES_MAX:
                message = f"expected at most {NODES_MAX} values, with aliases followed"
                raise ConfigError([Problem(message, file=document.file, line=line)])
            document.lines.setdefault(path, line)
            if problem:
                document.problems.append(Problem(problem, show(path), document.file, line))
        document.values = loader.construct_document(node)
    finally:
        loader.dispose()


def _walk(node: yaml.Node, path: Path) -> Iterator[tuple[Path, yaml.Node, str]]:
    """Yield every key and item with its path, and what is wrong with it, if anything."""
    yield path, node, ""
    if node.tag not in _TAGS:
        yield path, node, f"expected a plain value, got the tag {node.tag}"
        node.tag = _plain_tag(node)  # it is reported; without the tag the rest can be read
    if isinstance(node, yaml.MappingNode):
        seen: dict[str, int] = {}
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                yield path, key, "expected a word as a key"
                continue
            key.tag = _TEXT
            name = str(key.value)
            twice = f"{name} was given before, in line {seen[name]}" if name in seen else ""
            seen.setdefault(name, key.start_mark.line + 1)
            yield (*path, name), key, twice
            yield from _walk(value, (*path, name))
    elif isinstance(node, yaml.SequenceNode):
        for number, item in enumerate(node.value):
            yield from _walk(item, (*path, number))


def _plain_tag(node: yaml.Node) -> str:
    if isinstance(node, yaml.MappingNode):
        return _SECTION
    return _LIST if isinstance(node, yaml.SequenceNode) else _TEXT

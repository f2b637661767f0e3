"""A YAML document with the line of everything in it.

PyYAML's safe loader builds plain values and forgets where they stood; an operator with a mistake
wants the line. So the document is composed to nodes (which know their lines), checked for what
YAML itself allows and a configuration must not (duplicate keys, anchors that multiply), and then
built. ``Document.line`` finds the line of a path such as ``("pools", "rras", "backends", 0)``.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

import yaml

from sstplb.errors import ConfigError, Problem

DOCUMENT_BYTES_MAX = 1 << 20
NODES_MAX = 100_000
"""After aliases are followed: "billion laughs" is a configuration nobody meant."""

Path = tuple[str | int, ...]


class _Loader(yaml.SafeLoader):
    """YAML 1.2's idea of true and false: ``off`` is a word, as in ``standing: off``."""

    yaml_implicit_resolvers = {  # noqa: RUF012 - PyYAML's own way of saying it
        first: [(tag, regexp) for tag, regexp in resolvers if tag != "tag:yaml.org,2002:bool"]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:bool", re.compile(r"true|True|TRUE|false|False|FALSE"), list("tTfF")
)


@dataclass(slots=True)
class Document:
    """The values of a YAML file, and their lines."""

    file: str
    values: object
    lines: dict[Path, int] = field(default_factory=dict)

    def line(self, path: Path) -> int | None:
        """Return the line of a path, or of the nearest thing around it that has one."""
        while path not in self.lines and path:
            path = path[:-1]
        return self.lines.get(path)


def read(text: str, file: str) -> Document:
    """Read one YAML document. Raises ConfigError, with lines, for all that is no plain document."""
    if len(text.encode()) > DOCUMENT_BYTES_MAX:
        raise ConfigError([Problem(f"expected at most {DOCUMENT_BYTES_MAX} bytes", file=file)])
    loader = _Loader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return Document(file, None)
        document = Document(file, None)
        problems: list[Problem] = []
        for count, (path, child, problem) in enumerate(_walk(node, ())):
            if count > NODES_MAX:
                problems.append(Problem(f"expected at most {NODES_MAX} values", file=file))
                break
            line = child.start_mark.line + 1
            document.lines.setdefault(path, line)
            if problem:
                problems.append(Problem(problem, show(path), file, line))
        if problems:
            raise ConfigError(problems)
        document.values = loader.construct_document(node)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = None if mark is None else mark.line + 1
        raise ConfigError([Problem(f"not YAML: {error.problem}", file=file, line=line)]) from error
    except yaml.YAMLError as error:
        raise ConfigError([Problem(f"not YAML: {error}", file=file)]) from error
    finally:
        loader.dispose()
    return document


def show(path: Path) -> str:
    """Show a path as ``pools.rras.backends[0].weight``."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else str(part)
    return text


def _walk(node: yaml.Node, path: Path) -> Iterator[tuple[Path, yaml.Node, str]]:
    """Yield every key and item with its path, and what is wrong with it, if anything."""
    yield path, node, ""
    if isinstance(node, yaml.MappingNode):
        seen: dict[str, int] = {}
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode) or key.tag == "tag:yaml.org,2002:merge":
                yield path, key, "expected plain keys"
                continue
            name = str(key.value)
            first = seen.setdefault(name, key.start_mark.line + 1)
            twice = f"{name} was given before, in line {first}"
            yield (*path, name), key, twice if first != key.start_mark.line + 1 else ""
            yield from _walk(value, (*path, name))
    elif isinstance(node, yaml.SequenceNode):
        for number, item in enumerate(node.value):
            yield from _walk(item, (*path, number))

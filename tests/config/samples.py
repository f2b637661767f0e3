"""A good configuration for tests to spoil, and what is then said about it."""

import pytest

from sstplb.config.loader import parse
from sstplb.config.warnings import warnings
from sstplb.errors import ConfigError

GOOD = """\
listeners:
  - name: vpn
    address: 127.0.0.1:443
    mode: offload
    pool: rras
    certificates: [{chain: a.pem, key: a.key}]
pools:
  rras:
    backends:
      - {name: rras1, address: 10.0.0.11}
"""


def changed(before: str, after: str, text: str = GOOD) -> str:
    assert before in text
    return text.replace(before, after)


def in_listener(line: str, text: str = GOOD) -> str:
    return changed("    pool: rras\n", f"    pool: rras\n    {line}\n", text)


def in_pool(line: str, text: str = GOOD) -> str:
    return changed("  rras:\n", f"  rras:\n    {line}\n", text)


def in_backend(more: str, text: str = GOOD) -> str:
    return changed("10.0.0.11}", f"10.0.0.11, {more}}}", text)


def another_backend(backend: str, text: str = GOOD) -> str:
    return changed("10.0.0.11}\n", f"10.0.0.11}}\n      - {{{backend}}}\n", text)


def another_listener(listener: str, text: str = GOOD) -> str:
    return changed("pools:\n", f"  - {{{listener}}}\npools:\n", text)


def another_pool(pool: str, text: str = GOOD) -> str:
    return changed("pools:\n", f"pools:\n  {pool}\n", text)


def reencrypt(text: str = GOOD) -> str:
    return changed("mode: offload", "mode: reencrypt", text)


def mistakes(text: str) -> list[str]:
    """Each problem of a configuration that does not load, with its place."""
    with pytest.raises(ConfigError) as caught:
        parse(text, file="x.yaml")
    return [str(problem) for problem in caught.value.problems]


def hints(text: str) -> list[str]:
    """Each warning about a configuration that loads, but for the one GOOD itself is due."""
    said = [str(warning) for warning in warnings(parse(text))]
    return [hint for hint in said if "nobody says which certificate" not in hint]

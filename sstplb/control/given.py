"""What a command line gives: read by the configuration's own parsers, refused in their words."""

from collections.abc import Callable
from typing import TypeVar

import typer

T = TypeVar("T")


def by(parse: Callable[[object], T]) -> Callable[[str], T]:
    """Return a parser for a typer option: what ``parse`` objects to is a usage error.

    (A ValueError would get words of typer's libraries in front, or lose its own.)
    """

    def read(text: str) -> T:
        try:
            return parse(text)
        except ValueError as error:
            raise typer.BadParameter(str(error)) from error

    return read

"""How the API answers: JSON of plain shapes, and every error in one shape.

``{"error": {"code": …, "message": …, "path": …}}``; what is wrong with a configuration comes with
``"problems"`` beside it, one sentence each.
"""

from dataclasses import dataclass
from typing import Any

from pydantic_core import to_json
from starlette.responses import Response


class Reply(Response):
    """An answer in JSON, written by pydantic's serialiser: it knows dataclasses, and is quick."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        """Return the content as JSON."""
        return to_json(content)


@dataclass(frozen=True, slots=True)
class Failed:
    """What went wrong."""

    code: str
    """A stable slug."""
    message: str
    """A sentence with the way out."""
    path: str | None = None
    """What it is about, as in the configuration."""


@dataclass(frozen=True, slots=True)
class Failure:
    """The one shape of errors."""

    error: Failed
    problems: tuple[str, ...] | None = None
    """All that is wrong with a configuration; only where one is judged."""


def failure(
    status: int,
    code: str,
    message: str,
    path: str | None = None,
    problems: tuple[str, ...] | None = None,
) -> Reply:
    """Return an error."""
    content: dict[str, Any] = {"error": Failed(code, message, path)}
    if problems is not None:
        content["problems"] = problems
    return Reply(content, status)

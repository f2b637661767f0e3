"""The API's application: its routes, its page, its description, and how it says that it cannot.

FastAPI gives the description (``/openapi.json``) and judges what comes in. What goes out is made
by ``Reply`` from the shapes (``shapes.py``) that are named beside each route. Handlers are thin:
they name what is asked for and hand it to the ``Operator``. All are ``async`` on purpose, for a
plain function would run in a thread beside the event loop that carries the calls.

Nothing is loaded from elsewhere: the page (``control/page``) and the documentation are files of
ours, read once, at the start.
"""

import mimetypes
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from types import MappingProxyType

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from sstplb import __version__
from sstplb.control.admin import api
from sstplb.control.admin.reply import Failure, failure
from sstplb.control.admin.streams import Streams
from sstplb.control.operator import Operator
from sstplb.errors import ConfigError, OperatorError

DOCS = Path(__file__).parent / "docs"
PAGE = Path(__file__).parent.parent / "page"
CODES: Mapping[int, str] = MappingProxyType({404: "not_found", 405: "method_not_allowed"})

Handler = Callable[[Request], Awaitable[Response]]

log = structlog.get_logger()


def make_app(operator: Operator) -> FastAPI:
    """Return the application that asks ``operator``."""
    app = FastAPI(
        title="sstplb",
        version=__version__,
        description="See and operate a running SSTP balancer. Durations end in `_s` (seconds), "
        "times of day in `_at` (seconds since 1970); sizes are bytes.",
        docs_url=None,
        redoc_url=None,
        swagger_ui_oauth2_redirect_url=None,
        responses={
            "4XX": {"model": Failure, "description": "It cannot be done; nothing has changed."},
            422: {"model": Failure, "description": "A value makes no sense."},
        },
    )
    app.state.operator = operator
    app.state.streams = Streams(operator)
    app.add_exception_handler(OperatorError, _operator_error)
    app.add_exception_handler(ConfigError, _config_error)
    app.add_exception_handler(RequestValidationError, _request_error)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(Exception, _internal_error)
    app.include_router(api.router, prefix="/api/v1")
    app.include_router(api.outside)
    _serve_files(app, "/docs", DOCS)
    _serve_files(app, "/", PAGE)
    return app


# --- errors, in one shape ---------------------------------------------------------------------


async def _operator_error(_request: Request, error: Exception) -> Response:
    assert isinstance(error, OperatorError)
    return failure(error.http_status, error.reason, str(error), error.path)


async def _config_error(_request: Request, error: Exception) -> Response:
    """Say all that is wrong with a file that cannot be put in force."""
    assert isinstance(error, ConfigError)
    problems = tuple(map(str, error.problems))
    path = error.problems[0].path or None
    return failure(409, error.reason, "\n".join(problems), path, problems)


async def _request_error(_request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    path = ".".join(str(part) for part in first["loc"][1:])
    message = str(first["msg"]).removeprefix("Value error, ")
    return failure(422, "bad_value", f"{path}: {message}" if path else message, path or None)


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    code = CODES.get(error.status_code, "http_error")
    message = f"{request.method} {request.url.path}: {str(error.detail).lower()}; see /docs"
    response = failure(error.status_code, code, message)
    response.headers.update(error.headers or {})
    return response


async def _internal_error(request: Request, error: Exception) -> Response:
    what = f"{request.method} {request.url.path}"
    log.error("internal_error", message=f"{what}: {error!r}", exc_info=error)
    return failure(500, "internal_error", "a mistake of ours: see the log")


# --- files ------------------------------------------------------------------------------------


def _serve_files(app: FastAPI, root: str, directory: Path) -> None:
    """Serve what a directory holds, with its index.html at ``root`` itself."""
    if not directory.is_dir():
        return
    base = root.rstrip("/")
    for path in sorted(directory.iterdir()):
        if not path.is_file() or path.name.startswith(("_", ".")) or path.suffix == ".py":
            continue
        where = root if path.name == "index.html" else f"{base}/{path.name}"
        app.add_route(where, _file(path), ["GET"], include_in_schema=False)


def _file(path: Path) -> Handler:
    kind = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
    content = path.read_bytes()

    async def send(_request: Request) -> Response:
        return Response(content, media_type=kind)

    return send

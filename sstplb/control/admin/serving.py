"""Serving one door: uvicorn in the balancer's own event loop, and the guard in front of the API.

uvicorn brings its own signal handlers and log; here it has neither, for the balancer has them.
No access log: what is *done* is in the balancer's log, with what changed.

The guard (``Guard``) stands before the framework and decides who comes in:

- over TCP, ``/api`` and ``/metrics`` want the bearer token, if there is one; the page and the
  documentation are no secret and ask for the token themselves,
- over TCP without a token the Host must be an address or ``localhost``, so that no web site can
  reach in through a name that resolves to loopback (DNS rebinding),
- a browser that changes something must do so from our own page (Origin),
- a request's body is small.
"""

import asyncio
import contextlib
import ssl
from collections.abc import Iterator, Mapping
from ipaddress import ip_address
from types import MappingProxyType
from typing import TYPE_CHECKING

import uvicorn
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sstplb.control.admin.app import make_app
from sstplb.control.admin.reply import failure
from sstplb.control.operator import Operator

if TYPE_CHECKING:
    from sstplb.control.admin.side import Door

BODY_BYTES_MAX = 65536
GRACE_S = 2
"""How long a request that is being answered may take when the door is shut."""
_GUARDED = ("/api/", "/metrics")
_SAFE_METHODS = ("GET", "HEAD", "OPTIONS")
_HEADERS: Mapping[str, str] = MappingProxyType(
    {
        "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
        "img-src 'self'; connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; "
        "form-action 'none'; require-trusted-types-for 'script'; trusted-types 'none'",
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
        "Cache-Control": "no-store",
    }
)


class Serving:
    """A server behind one door."""

    def __init__(self, door: "Door", operator: Operator) -> None:
        app = make_app(operator)
        config = uvicorn.Config(
            Guard(app, door),
            http="h11",
            ws="none",
            lifespan="off",
            log_config=None,
            log_level="critical",
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=GRACE_S,
        )
        config.load()
        if door.access.shown:
            config.ssl = _context(door)
        self._server = _Server(config)
        # The door's socket is shut by the door: uvicorn closes what it is given.
        task = self._server.serve(sockets=[door.sock.dup()])
        self._task = asyncio.create_task(task, name=f"admin at {door.address}")

    async def end(self) -> None:
        """Answer what is being asked, then stop."""
        self._server.should_exit = True
        await self._task


class _Server(uvicorn.Server):
    """uvicorn's server, leaving the process's signals alone."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Capture none."""
        yield


def _context(door: "Door") -> ssl.SSLContext:
    """Return a context that shows whatever certificates the door has at that moment."""
    front = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    front.minimum_version = ssl.TLSVersion.TLSv1_2

    def choose(connection: ssl.SSLObject, server_name: str | None, _front: ssl.SSLContext) -> None:
        connection.context = door.access.context_for(server_name)

    front.sni_callback = choose
    return front


class Guard:
    """Decides who comes in by one door."""

    def __init__(self, app: ASGIApp, door: "Door") -> None:
        self._app = app
        self._door = door

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request in, or say why not (ASGI)."""

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        refusal = self._refusal(scope["method"], scope["path"], Headers(scope=scope))
        if refusal is None:
            await self._app(scope, receive, send_with_headers)
        else:
            status, code, message = refusal
            response = failure(status, code, message)
            if status == 401:
                response.headers["WWW-Authenticate"] = 'Bearer realm="sstplb"'
            await response(scope, receive, send_with_headers)

    def _refusal(self, method: str, path: str, headers: Headers) -> tuple[int, str, str] | None:
        length = headers.get("content-length", "0")
        if not length.isdigit() or int(length) > BODY_BYTES_MAX or "transfer-encoding" in headers:
            return (
                413,
                "too_large",
                f"expected a body of at most {BODY_BYTES_MAX} bytes, its size said",
            )
        origin, host = headers.get("origin"), headers.get("host", "")
        changes = method not in _SAFE_METHODS
        if changes and origin is not None and origin.partition("://")[2].lower() != host.lower():
            return 403, "foreign_origin", f"a page of {origin} may not change anything here"
        if not self._door.is_tcp:
            return None
        if not self._door.access.token:
            if not _is_local_name(host):
                text = f"{host or 'no host'} is no address: use one, localhost, or a token"
                return 403, "foreign_host", text
        elif path.startswith(_GUARDED) and not self._door.access.admits(
            headers.get("authorization", "")
        ):
            text = "send the token of admin.token_file: Authorization: Bearer TOKEN"
            return 401, "unauthorized", text
        return None


def _is_local_name(host: str) -> bool:
    """Whether a Host header names an address or ``localhost``."""
    name = host.rpartition(":")[0] if host.rpartition(":")[2].isdigit() else host
    try:
        ip_address(name.strip("[]"))
    except ValueError:
        return name.lower() == "localhost"
    return True

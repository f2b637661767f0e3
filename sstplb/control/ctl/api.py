"""Speaking to the API of a running balancer: a request, its JSON, or one error in plain words.

What the balancer itself says is passed on in its own words (``AskError``); that it was not reached
or did not let us in is said with the reason and the way out. Nothing of httpx leaves this module.
"""

import getpass
import json
import os
import pwd
import socket
import ssl
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote

import httpx

from sstplb.control.ctl.door import Door
from sstplb.errors import AskError, NotAdmittedError, UnreachableError
from sstplb.tls.report import translate_standard

LOOK_MAX_S = 10.0
"""For an answer that only looks."""
DO_MAX_S = 90.0
"""For one that has to do something: loading a configuration, starting a new process."""
SILENT_MAX_S = 30.0
"""Between two signs of life of the event stream, which has one every second."""

_HTTP_ERROR = 400
_NOT_ADMITTED = (401, 403)


class Api:
    """One balancer's API. A context manager; errors are ``AskError`` and those below it."""

    def __init__(self, door: Door) -> None:
        self.door = door
        headers = {"Authorization": f"Bearer {door.token}"} if door.token else {}
        verify = True if door.context is None else door.context
        self._client = httpx.Client(
            transport=httpx.HTTPTransport(
                uds=None if door.socket is None else str(door.socket), verify=verify
            ),
            base_url=f"{door.url}/api/v1",
            headers=headers,
            trust_env=False,  # operating a machine takes no detour over a proxy
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Hang up."""
        self._client.close()

    def get(self, *path: str, **query: str | int | None) -> Any:
        """Ask for something. Parts of a path are names as they are."""
        return self._ask("GET", path, LOOK_MAX_S, query=query)

    def post(self, *path: str, content: Any = None) -> Any:
        """Have something done."""
        return self._ask("POST", path, DO_MAX_S, content=content)

    def put(self, *path: str, content: Any) -> Any:
        """Set something."""
        return self._ask("PUT", path, DO_MAX_S, content=content)

    def delete(self, *path: str, **query: str | int | None) -> Any:
        """Remove something."""
        return self._ask("DELETE", path, DO_MAX_S, query=query)

    def stream(self) -> Iterator[tuple[str, Any]]:
        """Yield the kind and the content of each server-sent event, until the balancer ends it."""
        timeout = httpx.Timeout(LOOK_MAX_S, read=SILENT_MAX_S)
        with (
            self._in_words(),
            self._client.stream("GET", "/events/stream", timeout=timeout) as answer,
        ):
            if answer.status_code >= _HTTP_ERROR:
                answer.read()
                raise self._said_no(answer)
            kind = ""
            for line in answer.iter_lines():
                name, _, value = line.partition(": ")
                if name == "event":
                    kind = value
                elif name == "data":
                    yield kind, json.loads(value)

    def _ask(
        self,
        method: str,
        path: tuple[str, ...],
        max_s: float,
        query: dict[str, str | int | None] | None = None,
        content: Any = None,
    ) -> Any:
        url = "".join(f"/{quote(part, safe='')}" for part in path)
        wanted = {name: value for name, value in (query or {}).items() if value is not None}
        timeout = httpx.Timeout(LOOK_MAX_S, read=max_s)
        with self._in_words():
            answer = self._client.request(method, url, params=wanted, json=content, timeout=timeout)
        if answer.status_code >= _HTTP_ERROR:
            raise self._said_no(answer)
        try:
            return answer.json()
        except ValueError as error:
            raise self._stranger(answer) from error

    def _said_no(self, answer: httpx.Response) -> AskError:
        """Return the balancer's own words."""
        try:
            body = answer.json()
            error = body["error"]
            code, message, path = error["code"], error["message"], error["path"]
            problems = body.get("problems") or ()
        except (ValueError, KeyError, TypeError):
            return self._stranger(answer)
        kind = NotAdmittedError if answer.status_code in _NOT_ADMITTED else AskError
        if kind is NotAdmittedError:
            gave = "the token is not the balancer's" if self.door.token else "it wants a token"
            message = f"{self.door}: {gave} ({message})"
        return kind(message, reason=code, path=path, problems=problems)

    def _stranger(self, answer: httpx.Response) -> UnreachableError:
        return UnreachableError(
            f"{self.door}: HTTP {answer.status_code}, but not from the API of sstplb: is that "
            "its admin address?"
        )

    @contextmanager
    def _in_words(self) -> Iterator[None]:
        """Turn what goes wrong on the way into a sentence."""
        try:
            if self.door.socket is not None:
                _knock(self.door.socket)
            yield
        except (httpx.TimeoutException, TimeoutError) as error:
            message = f"{self.door}: no answer in time: it is very busy, or stuck"
            raise UnreachableError(message) from error
        except OSError as error:
            raise self._not_reached(error) from error
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise UnreachableError(f"{self.door}: {_why(error)}") from error

    def _not_reached(self, error: OSError) -> AskError:
        """Return why the socket could not be knocked at."""
        path = self.door.socket
        assert path is not None, "only a socket is knocked at"
        if isinstance(error, PermissionError):
            return NotAdmittedError(_not_permitted(path))
        if isinstance(error, FileNotFoundError):
            text = "there is no such socket: is sstplb running, and started with this admin.socket?"
        elif isinstance(error, ConnectionRefusedError):
            is_socket = stat.S_ISSOCK(path.stat().st_mode)
            gone = "nobody answers: the sstplb that made this socket is gone"
            text = gone if is_socket else "is not a socket"
        else:
            text = _lowered(error.strerror or str(error))
        return UnreachableError(f"{self.door}: {text}")


def _knock(path: Path) -> None:
    """Connect and hang up. Raises OSError: the system's own, where httpx would say less.

    (And httpx leaves the socket open that could not be connected.)
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as knock:
        knock.settimeout(LOOK_MAX_S)
        knock.connect(str(path))


def _why(error: BaseException) -> str:
    """Say what httpx, or what is below it, means."""
    below: BaseException | None = error
    while below is not None and not isinstance(below, OSError):
        below = below.__cause__ or below.__context__
    if isinstance(below, ssl.SSLError):
        return str(translate_standard(below, ca="--ca"))
    if isinstance(below, ConnectionRefusedError):
        return "nobody answers: is sstplb running, and started with this admin.address?"
    if isinstance(below, OSError) and below.strerror:
        return _lowered(below.strerror.partition("] ")[2] or below.strerror)
    if isinstance(error, httpx.RemoteProtocolError):
        return "what came is not HTTP: is it https?"
    return _lowered(str(error))


def _lowered(text: str) -> str:
    return text[:1].lower() + text[1:]


def _not_permitted(path: Path) -> str:
    """Say who may."""
    denied = f"{path}: permission denied for {_myself()}: "
    try:
        owner = pwd.getpwuid(path.stat().st_uid).pw_name
    except (OSError, KeyError):  # its directory is closed to us, too
        return f"{denied}only the user sstplb runs as, and root, may use it"
    if owner == "root":
        return f"{denied}only root may use it; try it with sudo"
    return f"{denied}only {owner} and root may use it; try it with sudo -u {owner}"


def _myself() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return f"user {os.geteuid()}"

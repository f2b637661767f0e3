"""Log lines for a syslog server, beside where they are written anyway (RFC 5424).

The event is the message's id, its text is the same JSON as in a file. UDP (RFC 5426), TCP with
counted octets (RFC 6587), and the datagram socket of a local daemon; no TLS: a local daemon can
forward over it.

Writing a line never waits. What the network does not take at once is kept, up to ``LINES_MAX``
lines; more are dropped and counted, and the count is told when lines flow again. A server that is
not there is tried again every ``RETRY_S``. UDP knows of no losses but those it is told of.
"""

import asyncio
import errno
import json
import os
import socket
from collections import deque
from collections.abc import Mapping, MutableMapping
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any

import structlog

from sstplb.config.quantities import Endpoint, SyslogServer
from sstplb.config.schema import SyslogFacility
from sstplb.net import tcp

LINES_MAX = 1000
LINE_BYTES_MAX = 8192
"""Longer ones are cut."""
RETRY_S = 1.0

_FACILITIES: Mapping[SyslogFacility, int] = MappingProxyType(
    {SyslogFacility.USER: 1, SyslogFacility.DAEMON: 3}
    | {facility: 16 + int(facility[5:]) for facility in SyslogFacility if facility[5:].isdecimal()}
)
_SEVERITIES: Mapping[str, int] = MappingProxyType(
    {"debug": 7, "info": 6, "warning": 4, "error": 3, "critical": 2}
)

log = structlog.get_logger()


class Syslog:
    """Sends log lines to one server."""

    def __init__(self, server: SyslogServer, facility: SyslogFacility) -> None:
        self.server, self.facility = server, facility
        self._loop = asyncio.get_running_loop()
        self._host = socket.gethostname() or "-"
        self._waiting: deque[bytes] = deque()
        """What was not taken yet; the first may be half sent."""
        self._first_is_partial = False
        self._dropped = 0
        self._is_failing = False
        self._socket: socket.socket | None = None
        self._is_connected = False
        self._retry: asyncio.TimerHandle | None = None
        self._connect()

    def note(
        self, _logger: Any, _method: str, values: MutableMapping[str, Any]
    ) -> MutableMapping[str, Any]:
        """Send an event and pass it on unchanged (a structlog processor)."""
        if len(self._waiting) >= LINES_MAX:
            self._dropped += 1
            return values
        self._waiting.append(self._framed(self._line(values)))
        if self._is_connected and len(self._waiting) == 1:
            self._flush()
        return values

    def close(self) -> None:
        """Send no more; what still waits is lost."""
        if self._retry is not None:
            self._retry.cancel()
        self._hang_up()

    # --- the line ---------------------------------------------------------------------------------

    def _line(self, values: MutableMapping[str, Any]) -> bytes:
        """Render ``<PRI>1 TIMESTAMP HOST APP PROCID MSGID - TEXT`` (RFC 5424, 6)."""
        level, event = str(values.get("level", "info")), str(values.get("event", "-"))
        priority = 8 * _FACILITIES[self.facility] + _SEVERITIES.get(level, 6)
        now = datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
        text = json.dumps(
            {name: value for name, value in values.items() if name != "timestamp"},
            default=str,
            ensure_ascii=False,
        )
        head = f"<{priority}>1 {now} {self._host} sstplb {os.getpid()} {event} - "
        line = (head + text).encode()[:LINE_BYTES_MAX]
        return line.decode(errors="ignore").encode()  # no half a character at the end

    def _framed(self, line: bytes) -> bytes:
        return b"%d %b" % (len(line), line) if self.server.transport == "tcp" else line

    # --- the connection ---------------------------------------------------------------------------

    def _connect(self) -> None:
        transport, address = self.server
        where: Any
        if isinstance(address, Endpoint):
            kind = socket.SOCK_STREAM if transport == "tcp" else socket.SOCK_DGRAM
            sock, where = socket.socket(tcp.family_of(address.host), kind), tuple(address)
        else:
            sock, where = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM), str(address)
        sock.setblocking(False)
        self._socket = sock
        error = sock.connect_ex(where)
        if error == errno.EINPROGRESS:
            self._loop.add_writer(sock.fileno(), self._answered)
        elif error:
            self._failed(OSError(error, os.strerror(error)))
        else:
            self._connected()

    def _answered(self) -> None:
        """Go on with a TCP connection that was made, or refused."""
        assert self._socket is not None, "it was being connected"
        self._loop.remove_writer(self._socket.fileno())
        if error := self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            self._failed(OSError(error, os.strerror(error)))
        else:
            self._connected()

    def _connected(self) -> None:
        assert self._socket is not None, "it was being connected"
        self._is_connected = True
        if self.server.transport == "tcp":  # the one way to learn that the server has gone
            self._loop.add_reader(self._socket.fileno(), self._heard)
        self._flush()

    def _heard(self) -> None:
        """Throw away what a server says: none should say anything but its end."""
        assert self._socket is not None, "it is connected"
        try:
            if not self._socket.recv(4096):
                self._failed(OSError(errno.EPIPE, "it closed the connection"))
        except BlockingIOError:
            pass
        except OSError as error:
            self._failed(error)

    def _flush(self) -> None:
        """Send what waits, as far as it is taken."""
        while self._waiting and self._socket is not None:
            line = self._waiting[0]
            try:
                sent = self._socket.send(line)
            except BlockingIOError:
                self._loop.add_writer(self._socket.fileno(), self._flush)
                return
            except OSError as error:
                if self.server.transport == "udp":  # an earlier one did not arrive; go on
                    self._dropped += 1
                    self._waiting.popleft()
                    continue
                self._failed(error)
                return
            if sent < len(line):  # TCP only
                self._waiting[0], self._first_is_partial = line[sent:], True
            else:
                self._waiting.popleft()
                self._first_is_partial = False
        if self._socket is not None:
            self._loop.remove_writer(self._socket.fileno())
            self._recovered()

    def _recovered(self) -> None:
        """Say how many lines were lost, now that it can be said."""
        if self._is_failing or self._dropped:
            lost, self._dropped, self._is_failing = self._dropped, 0, False
            text = f"{self.server} takes lines again; {lost} were lost"
            self._loop.call_soon(lambda: log.warning("syslog_back", message=text, lost=lost))

    def _failed(self, error: OSError) -> None:
        """Try again later; say so once."""
        self._hang_up()
        if self._first_is_partial:  # the new connection must not begin with half a line
            self._waiting.popleft()
            self._first_is_partial = False
            self._dropped += 1
        self._retry = self._loop.call_later(RETRY_S, self._connect)
        if not self._is_failing:
            self._is_failing = True
            text = f"{self.server}: {error.strerror}; up to {LINES_MAX} lines are kept"
            self._loop.call_soon(lambda: log.warning("syslog_failed", message=text))

    def _hang_up(self) -> None:
        self._is_connected = False
        if self._socket is not None:
            self._loop.remove_reader(self._socket.fileno())
            self._loop.remove_writer(self._socket.fileno())
            self._socket.close()
            self._socket = None

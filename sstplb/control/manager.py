"""What we tell the service manager that started us (sd_notify(3)): ready, alive, and how it goes.

One datagram for each word, to the socket that ``NOTIFY_SOCKET`` names; when it names none nobody
hears, and nothing else changes. No call waits for it: a manager that does not listen misses a word,
but for the few that it must know, for which we wait a moment.

- **Alive** is said at half of the time the watchdog allows, by a timer of the loop: a loop that is
  stuck says nothing, and the manager starts us again.
- **After an upgrade** another process is the service. The old one says so, being the one that is
  believed, and from then on only the new one speaks (``MAINPID``).
- **Stopping** says how long calls may take to end, so that the manager's own patience need not be
  kept in step with ``limits.stop_timeout``.
"""

import asyncio
import contextlib
import os
import socket
import time
from collections.abc import MutableMapping

MICRO = 1_000_000
WAIT_S = 0.25
"""How long a word that matters may take to be heard, where the manager is busy."""
STOP_SPARE_S = 15.0
"""What stopping may take beside waiting for calls."""


class ServiceManager:
    """Speaks to who started us."""

    def __init__(self, address: str = "", watchdog_s: float | None = None) -> None:
        """``address`` empty: there is nobody. It may be abstract: ``@`` stands for the NUL."""
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self._watchdog_s = watchdog_s
        self._socket: socket.socket | None = None
        self._beat: asyncio.TimerHandle | None = None
        self._status = ""
        if address:
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)

    @classmethod
    def from_environment(cls, environment: MutableMapping[str, str]) -> "ServiceManager":
        """Find out who listens; what is said of the watchdog may be meant for another process."""
        usec, process = environment.get("WATCHDOG_USEC", ""), environment.pop("WATCHDOG_PID", "")
        is_ours = process in ("", str(os.getpid()))
        watchdog_s = int(usec) / MICRO if usec.isdecimal() and int(usec) and is_ours else None
        return cls(environment.get("NOTIFY_SOCKET", ""), watchdog_s)

    @property
    def listens(self) -> bool:
        """Whether anybody hears."""
        return self._socket is not None

    def ready(self, status: str) -> None:
        """Say that we do our work: after the start, and after each reload."""
        self._say("READY=1", self._with_status(status), wait_s=WAIT_S)
        if self._beat is None:
            self._stay_alive()

    def reloading(self) -> None:
        """Say that another configuration is being read; ``ready`` follows, however it goes."""
        self._say("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def status(self, text: str) -> None:
        """Say how it goes, in words for people, if they are new ones."""
        if text != self._status:
            self._say(self._with_status(text))

    def stopping(self, patience_s: float) -> None:
        """Say that we end, and how long that may take."""
        extended = round((patience_s + STOP_SPARE_S) * MICRO)
        self._say("STOPPING=1", f"EXTEND_TIMEOUT_USEC={extended}", wait_s=WAIT_S)

    def succeeded_by(self, process_id: int) -> None:
        """Say that another process is the service from now on, and fall silent."""
        self._say(f"MAINPID={process_id}", wait_s=WAIT_S)
        self.close()

    def close(self) -> None:
        """Say nothing more."""
        if self._beat is not None:
            self._beat.cancel()
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _with_status(self, text: str) -> str:
        self._status = " ".join(text.split())  # a line break would be another word
        return f"STATUS={self._status}"

    def _stay_alive(self) -> None:
        if self._watchdog_s is not None and self._socket is not None:
            self._say("WATCHDOG=1")
            loop = asyncio.get_running_loop()
            self._beat = loop.call_later(self._watchdog_s / 2, self._stay_alive)

    def _say(self, *words: str, wait_s: float = 0.0) -> None:
        if self._socket is not None:
            self._socket.settimeout(wait_s)
            with contextlib.suppress(OSError):
                self._socket.sendto("\n".join(words).encode(), self._address)

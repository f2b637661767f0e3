"""Starts PyPI's sstp-server with its HDLC codec replaced.

Its own codec is a C module that crashes on Python 3.10 and later. This puts ours in its place,
from outside: everything else is the package as published. Run as a program; arguments are
``sstpd``'s own.
"""

import asyncio
import configparser
import runpy
import sys
import types

from sstplb.protocol.hdlc import HdlcReader, encode


class PppDecoder:
    """What ``sstpd.codec`` offers for reading."""

    def __init__(self) -> None:
        self._reader = HdlcReader()

    def unescape(self, data: bytes) -> list[bytes]:
        """Return the frames that ``data`` completes."""
        return self._reader.feed(bytes(data))


def escape(frame: bytes) -> bytes:
    """What ``sstpd.codec`` offers for writing."""
    return encode(bytes(frame))


def run() -> None:
    """Run the package's own main, in surroundings it still understands."""
    codec = types.ModuleType("sstpd.codec")
    vars(codec).update(escape=escape, PppDecoder=PppDecoder)
    # Without uvloop it makes its own loop; with today's uvloop it finds none.
    sys.modules.update({"sstpd.codec": codec, "uvloop": None})  # type: ignore[dict-item]  # import system: None means absent
    vars(configparser).setdefault("SafeConfigParser", configparser.ConfigParser)
    asyncio.set_event_loop(asyncio.new_event_loop())
    runpy.run_module("sstpd", run_name="__main__")


if __name__ == "__main__":
    run()

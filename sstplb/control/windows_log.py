"""Reading exported Windows event logs, which come from users and so are not to be trusted.

Two shapes: Event Viewer's "Save All Events As… XML" (one root), and ``wevtutil qe … /f:xml`` (event
after event, no root); in UTF-8 or, redirected by PowerShell, in UTF-16. The parser is expat, piece
by piece, inside of a root of ours: there no document type can stand, so no entity can be declared.
Depth, text and size are bounded, nothing is fetched and no tree is built. What is kept is what the
caller wants.
"""

import codecs
import re
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from xml.parsers import expat

from sstplb.account.windows import TEXT_CHARACTERS_MAX, WindowsEvent
from sstplb.config.reading import open_file
from sstplb.errors import WindowsLogError

FILE_BYTES_MAX = 512 << 20
EVENTS_MAX = 2000
"""Events that are kept; a call has a dozen."""
DEPTH_MAX = 32
VALUES_MAX = 64
_PIECE_BYTES = 65536
_DECLARATION = re.compile(r"<\?xml[^>]{0,200}\?>")
_ROOT, _END = "<sstplb>", "</sstplb>"
"""Put around everything: events without a root are a document then, and a document type is none."""


def read_events(path: Path, wanted: Callable[[WindowsEvent], bool]) -> list[WindowsEvent]:
    """Return the wanted events of a file, the oldest first. Raises WindowsLogError, or OSError."""
    if path.stat().st_size > FILE_BYTES_MAX:
        raise WindowsLogError(f"{path}: expected at most {FILE_BYTES_MAX >> 20} MiB; export fewer")
    reader = _Reader(path, wanted)
    for piece in _pieces(path):
        reader.feed(piece)
    return sorted(reader.end(), key=lambda event: event.at)


def _pieces(path: Path) -> Iterator[str]:
    """Yield the text of a file, whatever its encoding, without its XML declaration."""
    with open_file(path) as file:
        start = file.read(4)
        file.seek(0)
        decoder = codecs.getincrementaldecoder(_encoding_of(start))(errors="replace")
        is_first = True
        while data := file.read(_PIECE_BYTES):
            text = decoder.decode(data)
            if is_first:
                text = _DECLARATION.sub("", text.lstrip("\ufeff\r\n\t "), count=1)
                is_first = False
            yield text
        yield decoder.decode(b"", final=True)


def _encoding_of(start: bytes) -> str:
    if start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16"
    if start[1:2] == b"\0":
        return "utf-16-le"
    return "utf-8"


class _Reader:
    """Gathers events out of what expat tells."""

    def __init__(self, path: Path, wanted: Callable[[WindowsEvent], bool]) -> None:
        self._path, self._wanted = path, wanted
        self._found: list[WindowsEvent] = []
        self._events = 0
        self._depth = 0
        self._name = ""
        self._text: list[str] = []
        self._text_characters = 0
        self._event: dict[str, str] | None = None
        self._values: list[str] = []
        self._parser = parser = expat.ParserCreate("UTF-8", " ")
        parser.buffer_text = True
        parser.StartElementHandler = self._start
        parser.EndElementHandler = self._finish
        parser.CharacterDataHandler = self._characters
        self.feed(_ROOT)

    def feed(self, text: str) -> None:
        """Take a piece. Raises WindowsLogError."""
        try:
            self._parser.Parse(text.encode("utf-8", "replace"), False)
        except expat.ExpatError as error:
            raise WindowsLogError(
                f"{self._path}: no event log as XML: {error}; export it with wevtutil qe … /f:xml, "
                "or save it as XML in Event Viewer"
            ) from error

    def end(self) -> list[WindowsEvent]:
        """Return what was found. Raises WindowsLogError."""
        self.feed(_END)
        if not self._events:
            raise WindowsLogError(f"{self._path}: there is no event in it")
        return self._found

    def _start(self, tag: str, attributes: dict[str, str]) -> None:
        self._depth += 1
        if self._depth > DEPTH_MAX:
            raise WindowsLogError(f"{self._path}: elements are nested too deep for an event log")
        self._name = name = tag.rpartition(" ")[2]
        self._text.clear()
        self._text_characters = 0
        if name == "Event":
            self._event, self._values = {}, []
        elif self._event is not None:
            if name == "Provider":
                said = attributes.get("Name") or attributes.get("EventSourceName") or ""
                self._event["provider"] = said[:TEXT_CHARACTERS_MAX]
            elif name == "TimeCreated":
                self._event["time"] = attributes.get("SystemTime", "")[:TEXT_CHARACTERS_MAX]

    def _characters(self, text: str) -> None:
        if self._event is not None and self._text_characters < TEXT_CHARACTERS_MAX:
            self._text.append(text[: TEXT_CHARACTERS_MAX - self._text_characters])
            self._text_characters += len(self._text[-1])

    def _finish(self, tag: str) -> None:
        self._depth -= 1
        name, event = tag.rpartition(" ")[2], self._event
        text = "".join(self._text).strip() if name == self._name else ""
        self._text.clear()
        self._text_characters = 0
        if event is None:
            return
        if name in ("EventID", "Computer", "Message"):
            event[name] = text
        elif name == "Data" and text and len(self._values) < VALUES_MAX:
            self._values.append(text)
        elif name == "Event":
            self._event = None
            self._keep(event)

    def _keep(self, said: dict[str, str]) -> None:
        self._events += 1
        number = said.get("EventID", "")
        event = WindowsEvent(
            _seconds(said.get("time", "")),
            said.get("provider", ""),
            int(number) if number.isascii() and number.isdigit() and len(number) < 10 else 0,
            said.get("Computer", ""),
            said.get("Message") or "; ".join(self._values)[:TEXT_CHARACTERS_MAX],
            tuple(self._values),
        )
        if self._wanted(event):
            if len(self._found) >= EVENTS_MAX:
                raise WindowsLogError(f"{self._path}: more than {EVENTS_MAX} events of one call")
            self._found.append(event)


def _seconds(text: str) -> float:
    """Return SystemTime (``2024-04-23T08:15:30.1234567Z``) in seconds since 1970; 0: it is none."""
    whole, _, fraction = text.strip().removesuffix("Z").partition(".")
    try:
        seconds = datetime.fromisoformat(f"{whole}+00:00").timestamp()
    except ValueError:
        return 0.0
    return seconds + (float(f"0.{fraction}") if fraction.isdigit() else 0.0)

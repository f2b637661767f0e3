"""Writing a file so that there is always a whole one: the old, or the new. Never a half."""

import os
import tempfile
from pathlib import Path

NEW_MODE = 0o600


def replace_file(target: Path, text: str) -> None:
    """Write a text in a file's place, with the same owner and mode. Raises OSError.

    A file that is not there yet is made for our eyes only. The new one is on the disk before it
    takes the name (fsync(2), rename(2)), so a crash leaves one or the other.
    """
    try:
        known = target.stat()
    except FileNotFoundError:
        known = None
    number, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    fresh = Path(name)
    try:
        with os.fdopen(number, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fchmod(file.fileno(), NEW_MODE if known is None else known.st_mode & 0o7777)
            if known is not None and (known.st_uid, known.st_gid) != (os.geteuid(), os.getegid()):
                os.fchown(file.fileno(), known.st_uid, known.st_gid)
            os.fsync(file.fileno())
        fresh.replace(target)
    except BaseException:
        fresh.unlink(missing_ok=True)
        raise
    directory = os.open(target.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)

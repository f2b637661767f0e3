"""Writing a file so that there is always a whole one: the old, or the new. Never a half.

And whether it can be written at all, for who would rather know before.
"""

import os
import tempfile
from pathlib import Path

NEW_MODE = 0o600


def why_no_place(target: Path) -> str | None:
    """Say why no file can be made or replaced there by this user; None: it can."""
    folder = target.parent
    if os.path.isdir(target):  # noqa: PTH112 - pathlib's raises where this user may not look
        return f"{target} is a directory, expected a file in one"
    if not os.path.isdir(folder):  # noqa: PTH112 - as above
        return f"there is no directory {folder}"
    if not os.access(folder, os.W_OK | os.X_OK):
        return f"{folder} is no directory that this user can write to"
    return None


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

"""Reading a file that an operator names: a regular one, and no more of it than makes sense.

A device has no end and a FIFO may never have a beginning, and a mistyped path is easily one of
them. What is wrong is always an OSError with the file's name, whose ``strerror`` is in our words.
"""

import errno
import os
import stat
from pathlib import Path
from typing import BinaryIO

FILE_BYTES_MAX = 1 << 20
"""What is kept in memory as a whole: a configuration, a certificate chain, a key, CAs."""

_KINDS = (
    (stat.S_ISFIFO, "a FIFO (named pipe)"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
    (stat.S_ISSOCK, "a socket"),
)


def open_file(path: Path) -> BinaryIO:
    """Open a regular file; never waits for a writer. Raises OSError."""
    number = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        mode = os.fstat(number).st_mode
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, "is a directory, expected a file", str(path))
        for is_kind, name in _KINDS:
            if is_kind(mode):
                message = f"is {name}, expected a regular file"
                raise OSError(errno.EINVAL, message, str(path))
        return os.fdopen(number, "rb")
    except BaseException:
        os.close(number)
        raise


def read_file(path: Path, bytes_max: int = FILE_BYTES_MAX) -> bytes:
    """Return the content of a file. Raises OSError, also for a larger one."""
    with open_file(path) as file:
        data = file.read(bytes_max + 1)
    if len(data) > bytes_max:
        size = f"{bytes_max >> 20} MiB" if bytes_max >= 1 << 20 else f"{bytes_max} bytes"
        raise OSError(errno.EFBIG, f"expected at most {size}", str(path))
    return data


def in_words(error: OSError) -> str:
    """Say what is wrong with which file, and where there is one the way out."""
    text = error.strerror or str(error)
    if error.filename is None:
        return text
    folder = os.path.dirname(os.fsdecode(error.filename)) or "."  # noqa: PTH120 - as it was given
    if isinstance(error, FileNotFoundError) and not os.path.exists(folder):  # noqa: PTH110 - as above
        text = f"there is no directory {folder}"
    elif isinstance(error, PermissionError):
        text += ": try it as its owner, or as root"
    elif isinstance(error, FileExistsError):
        text = "is there already, and no directory"
    return f"{error.filename}: {text[:1].lower()}{text[1:]}"

"""Only regular files are read, and only so much of them; each error says which file."""

import os
from pathlib import Path

import pytest

from sstplb.config.reading import in_words, read_file


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("/dev/zero", "/dev/zero: is a device, expected a regular file"),
        ("pipe", "pipe: is a FIFO (named pipe), expected a regular file"),
        (".", "is a directory, expected a file"),
        ("large", "large: expected at most 10 bytes"),
        ("gone", "gone: no such file or directory"),
        ("nowhere/gone", "nowhere"),
        ("large/gone", "large/gone: not a directory"),
    ],
)
def test_what_is_not_read_says_why_and_which(name: str, words: str, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "large").write_bytes(b"a" * 11)
    with pytest.raises(OSError, match=r"\[Errno") as caught:
        read_file(tmp_path / name, 10)
    assert words in in_words(caught.value)


def test_a_file_of_the_largest_size_is_read(tmp_path: Path) -> None:
    (tmp_path / "full").write_bytes(b"a" * 10)
    assert read_file(tmp_path / "full", 10) == b"a" * 10


def test_without_permission_somebody_else_may_try() -> None:
    error = PermissionError(13, "Permission denied", "a.key")
    assert in_words(error) == "a.key: permission denied: try it as its owner, or as root"


def test_an_error_without_a_file_keeps_its_words() -> None:
    assert in_words(OSError(111, "Connection refused")) == "Connection refused"

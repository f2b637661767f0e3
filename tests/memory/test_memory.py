"""Every OpenSSL object is freed, and exactly once: thousands of connections, watched.

Each test is a process of its own under glibc's checking allocator (libc_malloc_debug.so), which
ends it when something is freed twice. Whether what is freed gets filled with rubbish matters: with
it, use after free is noticed, but an SSL that is freed a second time has a huge reference count,
and nothing happens; so everything runs both ways. What these watchers see is tested as well: they
must see the mistakes.
"""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from sstplb.tls.openssl import SYSTEM, OpenSsl, libraries
from tests.memory.connections import KINDS, MISTAKES, issue

TREE = Path(__file__).parents[2]
COUNT = 5000
BYTES_GROWN_MAX = 32_768
"""Of the heap in COUNT connections: asyncio keeps up to 255 objects of a kind to use again."""
BLOCKS_GROWN_MAX = 20
"""Of OpenSSL's in half as many. One that is forgotten by one kind of connection makes over 50."""
RUBBISH = {"left as it was": "0", "filled with rubbish": "165"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("memory")
    issue(made)
    return made


def counted(folder: Path, freed: str, library: str, *more: str) -> subprocess.CompletedProcess[str]:
    environment = {
        **os.environ,
        "LD_PRELOAD": "libc_malloc_debug.so.0",
        "MALLOC_CHECK_": "3",
        "MALLOC_PERTURB_": RUBBISH[freed],
        "PYTHONMALLOC": "malloc",
    }
    return subprocess.run(
        [sys.executable, "-m", "tests.memory.counted", folder, library, *more],
        check=False, capture_output=True, text=True, cwd=TREE, env=environment,
    )  # fmt: skip


def result_of(child: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    assert child.returncode == 0, child.stderr
    assert not child.stderr, "the linker says there that it has no such library"
    result: dict[str, Any] = json.loads(child.stdout)
    return result


@pytest.mark.parametrize("freed", RUBBISH)
@pytest.mark.parametrize("openssl", libraries(), ids=lambda library: library.version)
def test_thousands_of_connections_are_freed_exactly_once(
    openssl: OpenSsl, freed: str, folder: Path
) -> None:
    result = result_of(counted(folder, freed, openssl.name, str(COUNT)))
    assert result["version"] == openssl.version
    print(json.dumps(result, indent=2))
    assert result["connections"] >= 1.5 * COUNT
    assert len(result["kinds"]) == len(KINDS)
    assert min(result["versions"].values()) > 0.7 * COUNT
    assert result["blocks held"] > 100, "OpenSSL's blocks were not seen"
    assert result["blocks grown"] <= BLOCKS_GROWN_MAX, result["lines"]
    assert result["bytes grown"] <= BYTES_GROWN_MAX


def test_what_is_never_freed_is_counted(folder: Path) -> None:
    result = result_of(counted(folder, "left as it was", SYSTEM, "10", "kept_for_ever"))
    assert result["blocks grown"] > BLOCKS_GROWN_MAX
    assert max(result["lines"], key=result["lines"].get).startswith("native.py:")


@pytest.mark.parametrize(
    ("mistake", "freed"),
    [("freed_twice", "left as it was"), ("used_when_freed", "filled with rubbish")],
)
def test_what_is_freed_twice_or_used_then_ends_the_process(
    mistake: str, freed: str, folder: Path
) -> None:
    assert mistake in MISTAKES
    child = counted(folder, freed, SYSTEM, "10", mistake)
    assert child.returncode in (-signal.SIGABRT, -signal.SIGSEGV), child.stdout

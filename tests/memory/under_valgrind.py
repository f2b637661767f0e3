"""Runs connections, and then a balancer with calls, under valgrind: ``make test-valgrind``.

Valgrind sees every access to memory that is not allocated or not any more, everything that is
freed twice, every value that was never set and decides something, and at the end every block that
nobody points to. Each of these fails the run, but for what ``valgrind.supp`` explains. First it
must see the mistakes, or the rest would prove nothing.

What is slow here is real work done by an interpreter of machine code, some thirty times slower.
"""

import argparse
import asyncio
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from sstplb.control.run import ExitCode
from sstplb.lab.pki import Issued, LabPki
from sstplb.tls.openssl import SYSTEM, libraries
from tests import characters, running
from tests.characters import ANSWER, SERVER_NAME, Client, packets, play
from tests.memory.connections import MISTAKES, issue
from tests.running import Running

HERE = Path(__file__).parent
FOUND = 99
"""The exit status when valgrind has found something."""
VALGRIND = (
    "valgrind",
    f"--suppressions={HERE / 'valgrind.supp'}",
    f"--error-exitcode={FOUND}",
    "--leak-check=full",
    "--show-leak-kinds=definite",
    "--errors-for-leak-kinds=definite",
    "--keep-debuginfo=yes",
    "--num-callers=40",
)
WORDS: Mapping[str, str] = MappingProxyType(
    {
        "freed_twice": r"Invalid free\(\)",
        "used_when_freed": r"Invalid read of size",
        "kept_for_ever": r"are definitely lost",
    }
)
"""What valgrind calls each mistake."""
MODES = ("offload", "reencrypt")
PATIENCE_S = 300.0
AT_ONCE = 5
"""Calls that are open at the same time."""


def log_option(log: Path) -> str:
    return f"--log-file={log}"


def environment() -> dict[str, str]:
    # Each object of Python is a block of its own, that valgrind knows.
    return {**os.environ, "PYTHONMALLOC": "malloc"}


def connections(folder: Path, log: Path, library: str, count: int, *mistake: str) -> int:
    """Make connections under valgrind; return the exit status."""
    command = [*VALGRIND, log_option(log), sys.executable, "-m", "tests.memory.connections"]
    quiet = subprocess.DEVNULL if mistake else None  # it ends in a mess
    return subprocess.run(
        [*command, folder, library, str(count), *mistake], check=False, cwd=HERE.parents[1],
        env=environment(), stdout=quiet, stderr=quiet,
    ).returncode  # fmt: skip


def sees(mistake: str, folder: Path, log: Path) -> bool:
    """Make a mistake under valgrind; return whether it calls it by its name."""
    status = connections(folder, log, SYSTEM, 42, mistake)
    seen = status == FOUND and re.search(WORDS[mistake], log.read_text()) is not None
    print(f"{'seen' if seen else 'NOT SEEN'}: {mistake.replace('_', ' ')}")
    return seen


def said_in(log: Path) -> list[str]:
    """Return valgrind's summaries: how many allocations, what is lost, how many errors."""
    found = re.findall(
        r"== +((?:total heap usage|definitely lost|indirectly lost|ERROR SUMMARY): .*)",
        log.read_text(),
    )
    return [line.strip() for line in found]


def tell(title: str, log: Path, status: int, began: float, good: int = 0) -> bool:
    """Print what valgrind found; return whether that is nothing, and the exit status is good."""
    print(f"  {time.monotonic() - began:.0f} s")
    for line in said_in(log):
        print(f"  {line}")
    if status != good:
        print(f"{title}: expected exit status {good}, got {status}; valgrind begins with:")
        print(log.read_text()[:8000])
    return status == good


class Watched(Running):
    """A balancer under valgrind."""

    def __init__(self, folder: Path, mode: str, root: Path, served: Issued) -> None:
        super().__init__(folder, mode, root, served)
        self.launcher = (*VALGRIND, log_option(folder / "valgrind.log"))
        self.environment = environment()

    @property
    def status(self) -> int:
        """The exit status, once it has ended."""
        assert self._first is not None
        assert self._first.returncode is not None
        return self._first.returncode


async def call(stage: Watched, number: int) -> str:
    """Make one call; return how it went."""
    if number % 7 == 0:
        visitor = await asyncio.open_connection(*stage.address)
        visitor[1].write(b"garbage, garbage" if number % 2 else b"\x16\x03\x01\x02\x00\x01")
        await asyncio.sleep(0.05)
        visitor[1].transport.abort()
        return "gave up in the handshake"
    client: Client = await stage.client()
    assert await client.open() == ANSWER
    assert await client.echo(packets(100_000 if number % 3 else 1404))
    if number % 5 == 0:
        client.reset()
        return "reset"
    await client.close()
    return "closed"


async def calls(stage: Watched, count: int) -> Counter[str]:
    """Make calls through it, some at once; reload meanwhile; stop it with calls open."""
    how: Counter[str] = Counter()
    async with running.running(stage):
        for first in range(0, count, AT_ONCE):
            stage.backends[0].mood = "refuse" if first % 2 else "well"
            numbers = range(first, min(count, first + AT_ONCE))
            how.update(await asyncio.gather(*(call(stage, number) for number in numbers)))
            if first % 100 == 0:
                os.kill(stage.processes[-1], signal.SIGHUP)
        for _ in range(AT_ONCE):
            client = await stage.client()
            assert await client.open() == ANSWER
            how["open at the end"] += 1
        os.kill(stage.processes[-1], signal.SIGTERM)
        await stage.end()  # the second time it hurries
    return how


def watch_balancer(folder: Path, mode: str, count: int, library: str | None) -> bool:
    """Run a balancer under valgrind, with calls; return whether nothing was found."""
    folder.mkdir()
    pki = LabPki(folder)
    stage = Watched(folder, mode, pki.root_path, pki.issue("vpn", (SERVER_NAME, "127.0.0.1")))
    stage.more["tls"] = {"engine": "native", **({"library": library} if library else {})}
    began = time.monotonic()

    async def story() -> None:
        how = await calls(stage, count)
        told = ", ".join(f"{number} {word}" for word, number in sorted(how.items()))
        print(f"  {how.total()} calls: {told}")
        assert how.total() - how["never more than a connection"] == len(stage.find("call_ended"))
        reloads = len(stage.find("reloaded"))
        assert reloads
        print(f"  {reloads} reloads")

    play(story, limit_s=3600.0)
    return tell(mode, folder / "valgrind.log", stage.status, began, ExitCode.CUT)


def main(arguments: Sequence[str]) -> int:
    """Return 0 when nothing was found."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--connections", type=int, default=10_000)
    parser.add_argument("--library", help="as tls.library; else each that can be loaded")
    parser.add_argument("--calls", type=int, default=300, help="in each of two modes")
    options = parser.parse_args(arguments)
    running.PATIENCE_S = characters.LIMIT_S = PATIENCE_S
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    good = True
    folder = Path(tempfile.mkdtemp(prefix="sstplb-valgrind-"))
    try:
        issue(folder)
        print("mistakes that must be seen:")
        for mistake in MISTAKES:
            good &= sees(mistake, folder, folder / "log")
        for openssl in libraries(options.library) if options.connections else ():
            print(f"{options.connections} connections by OpenSSL {openssl.version}:")
            began = time.monotonic()
            status = connections(folder, folder / "log", openssl.name, options.connections)
            good &= tell("connections", folder / "log", status, began)
        for mode in MODES if options.calls else ():
            print(f"a balancer in {mode}:")
            good &= watch_balancer(folder / mode, mode, options.calls, options.library)
    finally:
        shutil.rmtree(folder)
    print("nothing found" if good else "FOUND")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

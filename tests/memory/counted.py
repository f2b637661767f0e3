"""Makes connections, and counts what is left of them: ``counted.py FOLDER LIBRARY COUNT …``.

It counts twice. First the bytes of the whole heap that are in use, as the C library sees it:
with ``PYTHONMALLOC=malloc`` Python's objects are among them, and libuv's, and cffi's. Then to the
block what OpenSSL holds. OpenSSL lets a program choose its allocator, once, before it allocates at
all; here it gets Python's (``PyMem_RawMalloc``), which ``tracemalloc`` watches: every block is
known, with the line of Python whose call it was allocated in. What more OpenSSL holds after
thousands of connections than before, has leaked. (That is why nothing may be imported first that
wakes OpenSSL, as ``ssl`` does. And tracemalloc grows a little: it starts after the first count.)

The tests run this under glibc's checking allocator, which ends the process when a block is freed
that is not allocated, or was written past its end.
"""

import ctypes
import gc
import json
import sys
import tracemalloc
from collections import Counter
from pathlib import Path

from sstplb.tls.openssl import OpenSsl

WARM_UP = 1000
"""Connections after which everything that is made once has been made."""


class _Heap(ctypes.Structure):
    """What mallinfo2(3) returns."""

    _fields_ = tuple(
        (name, ctypes.c_size_t)
        for name in (
            "arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks",
            "fordblks", "keepcost",
        )
    )  # fmt: skip


def heap_bytes() -> int:
    """Return how many bytes of the C library's heap are in use, those with a mapping included."""
    # By its version: else the linker passes over that of the checking allocator, which has none
    # that it calls the default.
    find = ctypes.CDLL(None).dlvsym
    find.restype = ctypes.c_void_p
    address = find(None, b"mallinfo2", b"GLIBC_2.33")
    heap = ctypes.CFUNCTYPE(_Heap)(address)()
    return int(heap.uordblks + heap.hblkhd)


def held_by_line() -> Counter[str]:
    """Return how many blocks are held by ``sstplb/tls``, by the line that they come from."""
    found: Counter[str] = Counter()
    for line in tracemalloc.take_snapshot().statistics("lineno"):
        path = Path(line.traceback[0].filename)
        if path.parent.name == "tls":
            found[f"{path.name}:{line.traceback[0].lineno}"] += line.count
    gc.collect()
    return found


def give_python_s_allocator(openssl: OpenSsl) -> None:
    """Have OpenSSL allocate where tracemalloc sees it."""
    openssl.ffi.cdef("int CRYPTO_set_mem_functions(void *, void *, void *);")
    functions = (
        openssl.ffi.cast("void *", ctypes.cast(function, ctypes.c_void_p).value)
        for function in (
            # OpenSSL hands file and line to each as well; nobody looks at them.
            ctypes.pythonapi.PyMem_RawMalloc,
            ctypes.pythonapi.PyMem_RawRealloc,
            ctypes.pythonapi.PyMem_RawFree,
        )
    )
    assert openssl.lib.CRYPTO_set_mem_functions(*functions) == 1, "OpenSSL has allocated before"


def main(folder: Path, library: str, count: int, mistake: str = "") -> None:
    """Make ``count`` connections, then half as many; print what came of it, as JSON.

    ``library`` is the one to load; a mistake is made at the end.
    """
    openssl = OpenSsl(library)
    give_python_s_allocator(openssl)
    from tests.memory.connections import MISTAKES, Company

    company = Company(openssl, folder)
    company.run(WARM_UP)
    heap_bytes()  # this takes some, once
    heap = heap_bytes()
    company.run(count)
    bytes_grown = heap_bytes() - heap

    tracemalloc.start()
    company.run(WARM_UP)  # what tracemalloc did not see made is freed
    before = held_by_line()
    company.run(count // 2)
    if mistake:
        MISTAKES[mistake](company)
        gc.collect()
    grown = held_by_line()
    grown.subtract(before)
    result = {
        "version": openssl.version,
        "connections": company.made.total(),
        "versions": company.made_of,
        "kinds": company.made,
        "bytes grown": bytes_grown,
        "blocks held": before.total(),
        "blocks grown": grown.total(),
        "lines": +grown,
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), *sys.argv[4:])

"""The load of calls that only open: ``python -m bench.handshakes``.

A few threads with the standard library's TLS open a call, read the 200 and hang up, again and
again, as fast as they can or at a given rate. Speaks with the bench as ``load.py`` does.
"""

import json
import socket
import ssl
import sys
import threading
import time
from dataclasses import dataclass

from bench.load import DATE, HEAD_END, HOST, SERVER_NAME, Errand
from sstplb.config.schema import SRA_PATH

THREADS = 8


@dataclass(frozen=True)
class Handshakes:
    """What to do."""

    port: int
    ca_file: str
    calls: int = 0
    """How many; 0: until told to stop."""
    rate: float = 0.0
    """Calls a second; 0: as fast as they go."""
    resumed: bool = False


def main() -> None:  # noqa: C901 - one script, read from top to bottom
    """Run as the bench asks."""
    job = Handshakes(**json.loads(sys.argv[1]))
    context = ssl.create_default_context(cafile=job.ca_file)
    errand = json.dumps(Errand().__dict__)
    request = (
        f"SSTP_DUPLEX_POST {SRA_PATH} HTTP/1.1\r\n"
        "SSTPCORRELATIONID: {0D528CAC-464E-423A-A399-9470E234BC54}\r\n"
        f"X-Load: {errand}\r\n"
        f"Content-Length: 18446744073709551615\r\nHost: {SERVER_NAME}\r\n\r\n"
    ).encode()
    took: list[float] = []
    failures: list[str] = []
    resumed = 0
    lock, stopping = threading.Lock(), threading.Event()
    left = [job.calls]

    def open_one(session: ssl.SSLSession | None) -> tuple[ssl.SSLSession | None, bool]:
        sock = socket.create_connection((HOST, job.port), timeout=10)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with context.wrap_socket(sock, server_hostname=SERVER_NAME, session=session) as tls:
            tls.sendall(request)
            answer = b""
            while HEAD_END not in answer:
                data = tls.recv(4096)
                if not data:
                    raise OSError("closed before the 200")
                answer += data
            if DATE.encode() not in answer:
                raise OSError(f"not the backend's answer: {answer[:64]!r}")
            return tls.session, bool(tls.session_reused)

    def work(number: int) -> None:
        nonlocal resumed
        session: ssl.SSLSession | None = None
        due = time.monotonic() + (number / job.rate if job.rate else 0.0)
        while not stopping.is_set():
            with lock:
                if job.calls:
                    if not left[0]:
                        return
                    left[0] -= 1
            if job.rate:
                time.sleep(max(0.0, due - time.monotonic()))
                due += THREADS / job.rate
            began = time.monotonic()
            try:
                made, reused = open_one(session if job.resumed else None)
            except OSError as error:
                failures.append(str(error))
                continue
            session = made
            with lock:
                took.append(time.monotonic() - began)
                resumed += reused

    print("ready", flush=True)
    sys.stdin.readline()
    began = time.monotonic()
    threads = [threading.Thread(target=work, args=(n,), daemon=True) for n in range(THREADS)]
    for thread in threads:
        thread.start()
    if not job.calls:
        sys.stdin.readline()
        stopping.set()
    for thread in threads:
        thread.join()
    took.sort()
    result = {
        "calls": len(took),
        "failures": len(failures),
        "first_failure": failures[0] if failures else "",
        "resumed": resumed,
        "seconds": time.monotonic() - began,
        "p50_s": took[len(took) // 2] if took else 0.0,
        "p99_s": took[int(len(took) * 0.99)] if took else 0.0,
    }
    print(json.dumps(result), flush=True)
    sys.stdin.readline()


if __name__ == "__main__":
    main()

"""The balancers under test: ours and its peers, each started as an operator would start it.

Their configurations lie in ``peers/``, with ``$names`` for what differs from run to run. Each
serves every mode it can on a port of its own, has one worker, and is pinned to one core while the
load has the other.
"""

import os
import shutil
import socket
import string
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from bench.load import HOST, SERVER_NAME
from sstplb.lab.pki import Issued, KeyKind, LabPki
from sstplb.tls.openssl import SYSTEM

PEERS = Path(__file__).parent / "peers"
MODES = ("passthrough", "offload", "reencrypt")
PORTS = (*MODES, "offload_rsa")
START_S = 20.0
_CPU_CLOCK = 2
"""With it Linux makes a clock's number of a process's: what clock_getcpuclockid(3) computes."""
_NGINX_STREAM = ("/usr/lib/nginx/modules/ngx_stream_module.so", "modules/ngx_stream_module.so")


@dataclass(frozen=True)
class Scene:
    """Certificates and backends, shared by all proxies of a run."""

    directory: Path
    values: dict[str, str]
    """What the templates may name."""


@dataclass
class Proxy:
    """One balancer that runs."""

    name: str
    version: str
    ports: Mapping[str, int]
    """By mode, and ``offload_rsa``."""
    process: subprocess.Popen[bytes] = field(repr=False)

    def processes(self) -> list[int]:
        """Return the ids of its process and all below it."""
        found, queue = [], [self.process.pid]
        while queue:
            pid = queue.pop()
            found.append(pid)
            for task in Path(f"/proc/{pid}/task").glob("*/children"):
                queue += [int(child) for child in read_text(task).split()]
        return found

    def cpu_s(self) -> float:
        """Return the CPU seconds its processes have used, threads that ended included."""
        return sum(cpu_s(pid) for pid in self.processes())

    def resident_bytes(self) -> int:
        """Return its memory: the proportional set size, so that shared pages count once."""
        lines = [
            line
            for pid in self.processes()
            for line in read_text(Path(f"/proc/{pid}/smaps_rollup")).splitlines()
            if line.startswith("Pss:")
        ]
        return sum(int(line.split()[1]) for line in lines) * 1024

    def stop(self) -> None:
        """End it."""
        self.process.terminate()
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def cpu_s(pid: int) -> float:
    """Return the CPU seconds a process has used; nothing when it has ended."""
    try:
        return time.clock_gettime(~pid << 3 | _CPU_CLOCK)
    except OSError:
        return 0.0


class CannotStartError(Exception):
    """A balancer is not installed, or did not start."""


def read_text(path: Path) -> str:
    """Return a file of /proc; nothing when the process has ended."""
    try:
        return path.read_text()
    except OSError:
        return ""


def make_scene(directory: Path, plain_port: int, tls_port: int) -> Scene:
    """Return the scene: a lab PKI in ``directory`` and the ports of the backends."""
    pki = LabPki(directory / "pki")
    issued = {kind: issue(pki, kind) for kind in (KeyKind.P256, KeyKind.RSA)}
    p256, rsa = issued[KeyKind.P256], issued[KeyKind.RSA]
    values = {
        "directory": str(directory),
        "workers": "1",
        "ca_file": str(pki.root_path),
        "chain": str(p256.chain),
        "key": str(p256.key),
        "bundle": _bundle(p256),
        "chain_rsa": str(rsa.chain),
        "key_rsa": str(rsa.key),
        "bundle_rsa": _bundle(rsa),
        "plain_port": str(plain_port),
        "tls_port": str(tls_port),
        "server_name": SERVER_NAME,
        "nginx_stream_module": next((m for m in _NGINX_STREAM if Path(m).exists()), ""),
        "user": "nobody" if os.geteuid() == 0 else "",
    }
    return Scene(directory, values)


def issue(pki: LabPki, kind: KeyKind) -> Issued:
    """Return the certificate of the scene with a key of ``kind``: one per directory."""
    known = {issued.chain.stem: issued for issued in pki.issued()}
    return known.get(str(kind)) or pki.issue(str(kind), (SERVER_NAME,), kind)


def _bundle(issued: Issued) -> str:
    path = issued.chain.with_suffix(".bundle")
    path.touch(mode=0o600)
    path.write_bytes(issued.chain.read_bytes() + issued.key.read_bytes())
    return str(path)


def _beside_python(name: str) -> str:
    return str(Path(sys.executable).parent / name)


def _run_ours(path: str) -> list[str]:
    return [sys.executable, "-m", "sstplb", "run", path]


# --- starting them ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Kind:
    """How one kind of balancer is started and what it can do."""

    template: str
    command: Callable[[str], list[str]]
    """From the path of its configuration."""
    version: list[str]
    serves: tuple[str, ...] = PORTS
    more: str = ""
    """Lines for its configuration, below the template."""


OURS = "sstplb"
OURS_ON_SYSTEMS = "sstplb-system"
"""Ours with the OpenSSL that the peers from Debian use: no peer, but what it costs without the
extra ``openssl`` is worth a column."""
_OFFLOAD = ("offload", "offload_rsa")
KINDS: Mapping[str, Kind] = {
    OURS: Kind("sstplb.yaml", _run_ours, [sys.executable, "-m", "sstplb", "version"]),
    OURS_ON_SYSTEMS: Kind(
        "sstplb.yaml",
        _run_ours,
        [sys.executable, "-m", "sstplb", "version"],
        (*_OFFLOAD, "reencrypt"),
        f"tls: {{library: {SYSTEM}}}\n",
    ),
    "haproxy": Kind("haproxy.cfg", lambda path: ["haproxy", "-db", "-f", path], ["haproxy", "-v"]),
    "nginx": Kind("nginx.conf", lambda path: ["nginx", "-c", path], ["nginx", "-v"]),
    "envoy": Kind(
        "envoy.yaml",
        lambda path: [
            _beside_python("envoy"), "-c", path, "--concurrency", "1", "--log-level", "critical",
            "--use-dynamic-base-id",
        ],
        [_beside_python("envoy"), "--version"],
    ),
    "stunnel": Kind(
        "stunnel.conf", lambda path: ["stunnel4", path], ["stunnel4", "-version"], _OFFLOAD
    ),
    "hitch": Kind(
        "hitch.conf",
        lambda path: ["hitch", f"--config={path}"],
        ["hitch", "--version"],
        _OFFLOAD,
    ),
}  # fmt: skip


def start(name: str, scene: Scene, core: int | None, more: str = "") -> Proxy:
    """Start a balancer and wait until it answers. Raises CannotStartError.

    ``more``: lines for its configuration.
    """
    kind = KINDS[name]
    free = dict(zip(PORTS, _free_ports(len(PORTS)), strict=True))
    values = {**scene.values, **{f"{mode}_port": str(port) for mode, port in free.items()}}
    ports = {mode: free[mode] for mode in kind.serves}
    text = string.Template((PEERS / kind.template).read_text()).substitute(values)
    path = scene.directory / f"{name}-{kind.template}"
    path.write_text(text + kind.more + more)
    command = kind.command(str(path))
    if shutil.which(command[0]) is None:
        raise CannotStartError(f"{command[0]} is not installed")
    log = (scene.directory / f"{name}.log").open("wb")
    pinned = ["taskset", "-c", str(core), *command] if core is not None else command
    process = subprocess.Popen(pinned, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
    proxy = Proxy(name, _version(kind), ports, process)
    until = time.monotonic() + START_S
    for port in ports.values():
        while not _answers(port):
            if process.poll() is not None or time.monotonic() > until:
                proxy.stop()
                said = (scene.directory / f"{name}.log").read_text(errors="replace")[-500:]
                raise CannotStartError(f"{name} did not start: {said}")
            time.sleep(0.05)
    return proxy


def _version(kind: Kind) -> str:
    done = subprocess.run(kind.version, capture_output=True, text=True, check=False)
    # Some name themselves by their path, which is nobody's business.
    said = (done.stdout + done.stderr).replace(f"{Path(kind.version[0]).parent}/", "")
    lines = said.splitlines()
    return next((line.strip() for line in lines if any(c.isdigit() for c in line)), "unknown")


def _free_ports(count: int) -> list[int]:
    held = [socket.create_server((HOST, 0)) for _ in range(count)]
    ports = [int(sock.getsockname()[1]) for sock in held]
    for sock in held:
        sock.close()
    return ports


def _answers(port: int) -> bool:
    try:
        socket.create_connection((HOST, port), timeout=0.2).close()
    except OSError:
        return False
    return True

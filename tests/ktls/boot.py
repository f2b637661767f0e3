"""Runs a command in a virtual machine whose kernel knows kTLS: ``python boot.py COMMAND …``.

The machine is QEMU without KVM, with Debian's own kernel (stock: the cloud kernel has no 9p) and
this machine's file system, read-only, with a layer in memory above it. So the command finds the
same Python and the same source tree as here, and can leave nothing behind. There is no network
but the guest's own loopback. What the guest prints goes to standard output; the exit status is
the command's, 124 when it takes too long, 125 when the guest ends without saying one.

Only the standard library: it runs before anything is installed. Needs the programs of the
packages that the Makefile lists: qemu-system-x86, busybox-static, kmod, cpio; and apt-get, which
fetches the kernel into a folder of its own (it is not installed).
"""

import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

TREE = Path(__file__).resolve().parents[2]
CACHE = TREE / ".cache" / "ktls"
"""The kernel's package stays here between runs."""
MODULES = (
    "virtio_pci", "9pnet_virtio", "9p", "overlay", "tls",
    "aesni_intel", "gcm", "ghash_clmulni_intel",
)  # fmt: skip
TIMEOUT_S = 400.0
MEMORY = "1024M"
STATUS = re.compile(r"exit status of the command: (\d+)")

INIT = """#!/bin/busybox sh
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t sysfs sys /sys
/bin/busybox mount -t devtmpfs dev /dev
for module in {modules}; do /bin/busybox insmod "$module"; done
cd /
b=/bin/busybox
$b mount -t 9p -o trans=virtio,version=9p2000.L,ro,msize=512000,cache=loose root /below
$b mount -t tmpfs layer /layer
$b mkdir /layer/upper /layer/work
$b mount -t overlay -o lowerdir=/below,upperdir=/layer/upper,workdir=/layer/work all /all
$b mount -t proc proc /all/proc
$b mount -t sysfs sys /all/sys
$b mount --rbind /dev /all/dev
$b mount -t tmpfs run /all/run
$b ip link set lo up
echo "the guest is up"
$b chroot /all /bin/sh -c {command}
echo "exit status of the command: $?"
$b poweroff -f
"""


def main(command: list[str]) -> int:
    """Run ``command`` in this tree, in the guest."""
    if platform.machine() != "x86_64":
        print(f"boot.py: written for x86_64 kernels, this is {platform.machine()}")
        return 125
    package = fetch_kernel()
    with tempfile.TemporaryDirectory(prefix="sstplb-ktls-") as name:
        directory = Path(name)
        subprocess.run(["dpkg", "-x", package, directory / "kernel"], check=True)
        kernel = next((directory / "kernel" / "boot").glob("vmlinuz-*"))
        version = kernel.name.removeprefix("vmlinuz-")
        initrd = make_initrd(directory, version, f"cd {TREE} && {shlex.join(command)}")
        print(f"booting Debian's kernel {version}", flush=True)
        return run(kernel, initrd)


def fetch_kernel() -> Path:
    """Return the newest stock kernel's package, from the cache while it is the newest."""
    found = newest_kernel()
    if found is None and os.geteuid() == 0:  # a fresh machine has no lists
        subprocess.run(["apt-get", "-qq", "update"], check=True)
        found = newest_kernel()
    if found is None:
        raise SystemExit("boot.py: apt knows no kernel; run apt-get update")
    CACHE.mkdir(parents=True, exist_ok=True)
    if not (known := sorted(CACHE.glob(f"{found}_*.deb"))):
        for old in CACHE.glob("*.deb"):
            old.unlink()
        # As root apt would become another user, who may not write here.
        mine = ["-o", "APT::Sandbox::User=root"] if os.geteuid() == 0 else []
        subprocess.run(["apt-get", "-qq", *mine, "download", found], check=True, cwd=CACHE)
        known = sorted(CACHE.glob(f"{found}_*.deb"))
    return known[-1]


def newest_kernel() -> str | None:
    """Return the name of the stock kernel's package, as far as apt knows one."""
    listed = subprocess.run(
        ["apt-cache", "depends", "linux-image-amd64"],
        check=False, capture_output=True, text=True,
    ).stdout  # fmt: skip
    match = re.search(r"linux-image-\d\S*-amd64", listed)
    return match[0] if match else None


def make_initrd(directory: Path, version: str, command: str) -> Path:
    """Make the file system that the guest starts from: busybox, modules, a script."""
    root = directory / "initrd"
    for name in ("bin", "proc", "sys", "dev", "below", "layer", "all", "modules"):
        (root / name).mkdir(parents=True)
    shutil.copy("/bin/busybox", root / "bin" / "busybox")
    inserted = []
    for module in modules(directory / "kernel", version):
        shutil.copy(module, root / "modules" / module.name)
        inserted.append(f"/modules/{module.name}")
    init = root / "init"
    init.write_text(INIT.format(modules=" ".join(inserted), command=shlex.quote(command)))
    init.chmod(0o755)
    path = directory / "initrd.cpio"
    names = "\n".join(str(p.relative_to(root)) for p in root.rglob("*"))
    with path.open("wb") as file:
        subprocess.run(
            ["cpio", "--quiet", "-o", "-H", "newc"],
            input=names.encode(), stdout=file, cwd=root, check=True,
        )  # fmt: skip
    return path


def modules(base: Path, version: str) -> Iterator[Path]:
    """Yield the files of all modules that are needed, each after those it needs."""
    subprocess.run(["depmod", "-b", base, version], check=True)
    seen = set()
    for name in MODULES:
        listed = subprocess.run(
            ["modprobe", "-d", base, "-S", version, "--show-depends", name],
            check=True, capture_output=True, text=True,
        ).stdout  # fmt: skip
        for word in listed.split():
            if word.endswith(".ko") and word not in seen:
                seen.add(word)
                yield Path(word)


def run(kernel: Path, initrd: Path) -> int:
    """Boot, pass on what the guest prints, and return the command's exit status."""
    arguments = [
        "qemu-system-x86_64", "-nographic", "-no-reboot", "-m", MEMORY, "-smp", "2", "-cpu", "max",
        "-net", "none",
        "-kernel", str(kernel), "-initrd", str(initrd),
        "-append", "console=ttyS0 quiet panic=-1",
        "-virtfs", "local,path=/,mount_tag=root,security_model=none,readonly=on,multidevs=remap",
    ]  # fmt: skip
    ends = time.monotonic() + TIMEOUT_S
    status = 125
    with subprocess.Popen(
        ["timeout", "--kill-after=5", str(TIMEOUT_S), *arguments],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, errors="replace",
    ) as machine:  # fmt: skip
        assert machine.stdout is not None
        for line in machine.stdout:  # the first are the firmware's
            if "the guest is up" in line:
                break
        for line in machine.stdout:
            if (said := STATUS.search(line)) is not None:
                status = int(said[1])
            else:
                print(line.rstrip(), flush=True)
    return 124 if status == 125 and time.monotonic() >= ends else status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

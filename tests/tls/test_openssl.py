"""Which OpenSSL the native engine loads."""

import ctypes.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from sstplb.config.loader import load, parse
from sstplb.control.plan import prepare
from sstplb.errors import ConfigError
from sstplb.lab.pki import Issued
from sstplb.tls import kernel, openssl
from sstplb.tls.openssl import SYSTEM, OpenSsl, libraries


def systems_file() -> Path:
    """Return the file of the system's library."""
    OpenSsl()
    lines = Path("/proc/self/maps").read_text().splitlines()
    return next(Path(line.split()[-1]) for line in lines if line.endswith(f"/{SYSTEM}"))


def document(served: Issued, **tls: str) -> str:
    return f"""
        listeners:
          - name: vpn
            address: 127.0.0.1:0
            mode: offload
            pool: rras
            certificates: [{{chain: "{served.chain}", key: "{served.key}"}}]
        pools: {{rras: {{backends: [{{name: a, address: 127.0.0.1}}]}}}}
        tls: {tls}
        """


def prepared_engine(served: Issued, **tls: str) -> str:
    return prepare(parse(document(served, **tls))).engine


def test_the_extra_brings_a_library_and_the_newest_is_first() -> None:
    found = libraries()
    assert len(found) == 2, "the extra `openssl` is part of what tests need"
    assert sorted((library.release for library in found), reverse=True) == [
        library.release for library in found
    ]
    assert {library.name == SYSTEM for library in found} == {True, False}


def test_of_equals_it_is_the_systems(monkeypatch: pytest.MonkeyPatch) -> None:
    same = str(systems_file())
    monkeypatch.setattr(openssl, "_carried", lambda: [same])
    assert [library.name for library in libraries()] == [SYSTEM, same]


def test_without_the_extra_it_is_the_systems(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openssl, "CARRIER", "a-package-that-nobody-has")
    assert [library.name for library in libraries()] == [SYSTEM]


def test_a_library_that_does_not_fit_is_named(tmp_path: Path) -> None:
    libc = ctypes.util.find_library("c")
    assert libc is not None
    for other in (libc, "libcrypto.so.3"):  # which has a version, too
        with pytest.raises(OSError, match="is no libssl: it has no "):
            libraries(str(other))
    with pytest.raises(OSError, match=r"^the dynamic linker finds no library nowhere"):
        libraries("nowhere")
    broken = tmp_path / "libssl.so.3"
    broken.write_bytes(b"not a library")
    with pytest.raises(OSError, match=str(broken)):
        libraries(str(broken))


def test_an_extra_that_does_not_load_is_told_of(
    served: Issued, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not prepare(parse(document(served))).warnings
    broken = tmp_path / "libssl.so.3"
    broken.write_bytes(b"not a library")
    monkeypatch.setattr(openssl, "_carried", lambda: [str(broken)])
    prepared = prepare(parse(document(served)))
    assert "native (the system's OpenSSL" in prepared.engine
    (warning,) = prepared.warnings
    assert warning.path == "tls.library"
    assert "the one installed with sstplb is of no use" in warning.message
    assert str(broken) in warning.message
    assert not prepare(parse(document(served, library=SYSTEM))).warnings, "nobody misses it"


@pytest.mark.parametrize("name", [SYSTEM, "the extra's"])
def test_one_that_makes_no_context_is_not_used(name: str, tmp_path: Path) -> None:
    """In a process of its own: OpenSSL reads its configuration once."""
    configuration = tmp_path / "openssl.cnf"
    configuration.write_text(
        "openssl_conf = all\nconfig_diagnostics = 1\n[all]\nproviders = p\n[p]\nnone = none\n"
        f"[none]\nactivate = 1\nmodule = {tmp_path}/none.so\n"
    )
    file = SYSTEM if name == SYSTEM else next(x.name for x in libraries() if x.name != SYSTEM)
    done = subprocess.run(
        [sys.executable, "-c", f"from sstplb.tls.openssl import libraries; libraries({file!r})"],
        env={**os.environ, "OPENSSL_CONF": str(configuration)},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1, "not a crash"
    assert f"OSError: {file} makes no TLS context (is OPENSSL_CONF right?): " in done.stderr


def test_each_library_is_loaded_once() -> None:
    """Each reload asks for them again, and cffi never lets go of one."""
    assert [library.lib for library in libraries()] == [library.lib for library in libraries()]


def test_what_stands_in_the_file_counts(served: Issued, tmp_path: Path) -> None:
    newest = libraries()[0]
    assert f"native ({newest.title})" in prepared_engine(served)
    assert "native (the system's OpenSSL 3." in prepared_engine(served, library=SYSTEM)
    mine = tmp_path / "mine.so.3"
    shutil.copy(systems_file(), mine)
    assert f"native (OpenSSL {OpenSsl().version} of {mine})" in prepared_engine(
        served, library=str(mine)
    )
    configuration = tmp_path / "sstplb.yaml"
    configuration.write_text(document(served, library="./mine.so.3"))
    assert f"of {mine})" in prepare(load(configuration)).engine, "beside the file that names it"
    with pytest.raises(ConfigError, match=r"tls\.library: the native engine cannot be loaded"):
        prepared_engine(served, library=str(tmp_path / "none.so"))


def test_the_kernel_goes_before_the_version(
    served: Issued, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kernel, "why_not", lambda: None)
    monkeypatch.setattr(
        kernel, "trial", lambda library: "sending with TLS 1.3" if library.name == SYSTEM else ""
    )
    engine = prepared_engine(served)
    assert engine.startswith("native (the system's OpenSSL")
    assert engine.endswith("kTLS for sending with TLS 1.3")
    assert libraries()[0].title in prepared_engine(served, ktls="off")
    monkeypatch.setattr(kernel, "trial", lambda _library: "")
    assert libraries()[0].title in prepared_engine(served)

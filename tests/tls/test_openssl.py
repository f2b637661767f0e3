"""Which OpenSSL the native engine loads."""

import ctypes.util
import shutil
from pathlib import Path

import pytest

from sstplb.config.loader import parse
from sstplb.control.plan import prepare
from sstplb.errors import ConfigError
from sstplb.lab.pki import Issued
from sstplb.tls import kernel, openssl
from sstplb.tls.openssl import SYSTEM, OpenSsl, libraries


def loaded_file(name: str) -> Path:
    """Return the file of a library that this process has loaded."""
    lines = Path("/proc/self/maps").read_text().splitlines()
    return next(Path(line.split()[-1]) for line in lines if line.endswith(f"/{name}"))


def prepared_engine(served: Issued, **tls: str) -> str:
    document = f"""
        listeners:
          - name: vpn
            address: 127.0.0.1:0
            mode: offload
            pool: rras
            certificates: [{{chain: "{served.chain}", key: "{served.key}"}}]
        pools: {{rras: {{backends: [{{name: a, address: 127.0.0.1}}]}}}}
        tls: {tls}
        """
    return prepare(parse(document)).engine


def test_the_extra_brings_a_library_and_the_newest_is_first() -> None:
    found = libraries()
    assert len(found) == 2, "the extra `openssl` is part of what tests need"
    assert sorted((library.release for library in found), reverse=True) == [
        library.release for library in found
    ]
    assert {library.name == SYSTEM for library in found} == {True, False}


def test_of_equals_it_is_the_systems(monkeypatch: pytest.MonkeyPatch) -> None:
    OpenSsl()
    same = str(loaded_file(SYSTEM))
    monkeypatch.setattr(openssl, "_carried", lambda: [same])
    assert [library.name for library in libraries()] == [SYSTEM, same]


def test_without_the_extra_it_is_the_systems(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openssl, "CARRIER", "a-package-that-nobody-has")
    assert [library.name for library in libraries()] == [SYSTEM]


def test_a_library_that_does_not_fit_is_named(tmp_path: Path) -> None:
    libc = ctypes.util.find_library("c")
    assert libc is not None
    with pytest.raises(OSError, match="is no libssl"):
        libraries(libc)
    broken = tmp_path / "libssl.so.3"
    broken.write_bytes(b"not a library")
    with pytest.raises(OSError, match=str(broken)):
        libraries(str(broken))


def test_what_stands_in_the_file_counts(served: Issued, tmp_path: Path) -> None:
    newest = libraries()[0]
    assert f"native ({newest.title})" in prepared_engine(served)
    assert "native (the system's OpenSSL 3." in prepared_engine(served, library=SYSTEM)
    mine = tmp_path / "mine.so.3"
    shutil.copy(loaded_file(SYSTEM), mine)
    assert f"native (OpenSSL {OpenSsl().version} of {mine})" in prepared_engine(
        served, library=str(mine)
    )
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

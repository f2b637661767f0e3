"""From a YAML file to a ``Config``: every mistake at once, each with its line and the way out.

Three passes: the document (``document.py``), each value by itself (the models of ``schema.py``;
their library's messages are put into our words in ``wording.py``), and what can only be judged
with several values in view (``judge.py``). A pass does not wait for the one before it to be
happy: what it objected to is left out, and the rest is looked at.

Then what follows from elsewhere is filled in: paths become absolute, a pool's transport follows
from the listeners that use it, ports, the default check and verification from the transport.

What loads but will hurt is in ``warnings.py``.
"""

from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError
from pydantic_core import ErrorDetails

from sstplb.config import describe, document, wording
from sstplb.config.document import Document
from sstplb.config.judge import judge, pools_of, transport_of, with_port
from sstplb.config.reading import read_file
from sstplb.config.schema import (
    Admin,
    CertificateFiles,
    CheckMethod,
    Config,
    Listener,
    Mode,
    Pool,
    Secret,
    Transport,
    Verify,
)
from sstplb.errors import ConfigError, Problem

ROUNDS_MAX = 8
"""How often mistaken parts are left out: one round per level of the document, and some to spare."""


def load(path: Path) -> Config:
    """Read a configuration file. Raises ConfigError with every problem."""
    return load_with_lines(path)[0]


def load_with_lines(path: Path) -> tuple[Config, Document]:
    """Read a configuration file; return where everything stands in it, too. As ``load``."""
    found = document.read(read_text(path), str(path))
    return _built(found, path.resolve().parent), found


def read_text(path: Path) -> str:
    """Return the text of a file that is a configuration. Raises ConfigError."""
    try:
        return read_file(path, document.DOCUMENT_BYTES_MAX).decode("utf-8")
    except OSError as error:
        message = f"cannot be read: {error.strerror}"
        raise ConfigError([Problem(message, file=str(path))]) from error
    except UnicodeDecodeError as error:
        raise ConfigError([Problem(f"is not UTF-8: {error.reason}", file=str(path))]) from error


def parse(text: str, *, file: str = "configuration", base: Path | None = None) -> Config:
    """Read a configuration from text; paths in it are relative to ``base``.

    Raises ConfigError with every problem, in the order of the file.
    """
    return _built(document.read(text, file), base or Path.cwd())


def _built(found: Document, base: Path) -> Config:
    file = found.file
    if not isinstance(found.values, dict):
        wanted = "begin with listeners and pools (sstplb init writes a first one)"
        message = f"expected a section with keys: {wanted}"
        empty = found.values is None
        raise ConfigError(
            [Problem(f"is empty: {wanted}" if empty else message, file=file, line=found.line(()))]
        )
    problems = list(found.problems)
    config = _without_mistakes(found, problems)
    if problems or config is None:
        raise ConfigError(sorted(dict.fromkeys(problems), key=lambda problem: problem.line or 0))
    return _fill_in(config, base)


def effective(config: Config) -> str:
    """Return a configuration as YAML, every knob shown, secrets only by where they are kept."""
    values = config.model_dump(mode="json")
    return str(
        yaml.safe_dump(values, sort_keys=False, allow_unicode=True, default_flow_style=False)
    )


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema of the file, for editors."""
    return describe.json_schema()


# --- each value by itself, then together --------------------------------------------------------


def _without_mistakes(found: Document, problems: list[Problem]) -> Config | None:
    """Note what is wrong, and return the rest; None when there is nothing to speak of."""
    left_out: set[document.Path] = set()
    for _ in range(ROUNDS_MAX):
        kept: dict[document.Path, list[int]] = {}
        values = _copy(found.values, (), left_out, kept)
        try:
            config = Config.model_validate(values)
        except ValidationError as error:
            details = wording.without_echoes(error.errors(include_url=False))
            if not left_out:
                problems += wording.problems(details, found)
            left_out |= {path for detail in details for path in _mistaken(detail, found, kept)}
            continue
        problems += _judged(config, found, left_out, kept)
        return config
    return None


def _mistaken(
    detail: ErrorDetails, found: Document, kept: dict[document.Path, list[int]]
) -> list[document.Path]:
    """Return what to leave out: a mistaken value, or the section a required one is missing from.

    A key that looks like one that is not there is taken for an attempt at it: it is in doubt, too.
    """
    path = _original(wording.path_of(detail), kept)
    if detail["type"] == "missing":
        return [path[:-1]]
    if detail["type"] == "extra_forbidden" and (near := wording.nearest(path)) is not None:
        meant = (*path[:-1], near)
        return [path] if meant in found.lines else [path, meant]
    return [path]


def _judged(
    config: Config,
    found: Document,
    left_out: set[document.Path],
    kept: dict[document.Path, list[int]],
) -> list[Problem]:
    """Return what ``judge`` says, where it does not rest on something left out."""
    problems: list[Problem] = []

    def is_doubtful(path: document.Path) -> bool:
        return any(out[: len(path)] == path or path[: len(out)] == out for out in left_out)

    def report(path: document.Path, message: str, *relies_on: document.Path) -> None:
        path = _original(path, kept)
        if not any(is_doubtful(_original(other, kept)) for other in relies_on):
            problems.append(Problem(message, document.show(path), found.file, found.line(path)))

    judge(config, report)
    return problems


def _copy(
    value: Any,
    path: document.Path,
    left_out: set[document.Path],
    kept: dict[document.Path, list[int]],
) -> Any:
    """Copy values but for what is left out; note which items of each list were ``kept``."""
    if isinstance(value, dict):
        return {
            key: _copy(inner, (*path, key), left_out, kept)
            for key, inner in value.items()
            if (*path, key) not in left_out
        }
    if isinstance(value, list):
        kept[path] = [n for n in range(len(value)) if (*path, n) not in left_out]
        return [_copy(value[n], (*path, n), left_out, kept) for n in kept[path]]
    return value


def _original(path: document.Path, kept: dict[document.Path, list[int]]) -> document.Path:
    """Return where in the file something stood that ``_copy`` may have moved up a list."""
    result: document.Path = ()
    for part in path:
        numbers = kept.get(result, [])
        if isinstance(part, int) and part < len(numbers):
            part = numbers[part]  # noqa: PLW2901 - the same item, under its number in the file
        result = (*result, part)
    return result


# --- what follows from elsewhere --------------------------------------------------------------


def _fill_in(config: Config, base: Path) -> Config:
    """Return the configuration with everything said that was left to be understood."""

    def absolute(path: Path | None) -> Path | None:
        return None if path is None else base / path

    def library(name: str | None) -> str | None:
        # A name without a directory is the dynamic linker's to find.
        return name if name is None or "/" not in name else str(base / name)

    def secret(value: Secret | None) -> Secret | None:
        return value and value.model_copy(update={"file": absolute(value.file)})

    def certificates(value: tuple[CertificateFiles, ...]) -> tuple[CertificateFiles, ...]:
        return tuple(
            files.model_copy(
                update={
                    "chain": absolute(files.chain),
                    "key": absolute(files.key),
                    "key_passphrase": secret(files.key_passphrase),
                }
            )
            for files in value
        )

    def listener(value: Listener) -> Listener:
        address = with_port(value.address, Transport.TLS.port)
        return value.model_copy(
            update={"address": address, "certificates": certificates(value.certificates)}
        )

    def admin(value: Admin) -> Admin:
        return value.model_copy(
            update={
                "socket": absolute(value.socket),
                "token_file": absolute(value.token_file),
                "certificates": certificates(value.certificates),
            }
        )

    def pool(name: str, value: Pool) -> Pool:
        transport = transport_of(config, name)
        backends = tuple(
            backend.model_copy(update={"address": with_port(backend.address, transport.port)})
            for backend in value.backends
        )
        users = [item.mode for item in config.listeners if name in dict(pools_of(item))]
        only_passed_through = bool(users) and all(mode is Mode.PASSTHROUGH for mode in users)
        verify = value.tls.verify or (Verify.OFF if only_passed_through else Verify.CA)
        usual = CheckMethod.HTTPS if transport is Transport.TLS else CheckMethod.HTTP
        check = value.check.model_copy(
            update={
                "method": value.check.method or usual,
                "password": secret(value.check.password),
            }
        )
        tls = value.tls.model_copy(
            update={"verify": verify, "ca_file": absolute(value.tls.ca_file)}
        )
        return value.model_copy(
            update={"transport": transport, "backends": backends, "check": check, "tls": tls}
        )

    return config.model_copy(
        update={
            "listeners": tuple(listener(value) for value in config.listeners),
            "pools": {name: pool(name, value) for name, value in config.pools.items()},
            "log": config.log.model_copy(update={"file": absolute(config.log.file)}),
            "admin": admin(config.admin),
            "state_file": absolute(config.state_file),
            "capture": config.capture.model_copy(
                update={"directory": absolute(config.capture.directory)}
            ),
            "privacy": config.privacy.model_copy(update={"key": secret(config.privacy.key)}),
            "tls": config.tls.model_copy(update={"library": library(config.tls.library)}),
        }
    )

"""From a YAML file to a ``Config``: every mistake at once, each with its line and the way out.

Three passes, each collecting what it finds: the document (``document.py``), each value by itself
(the models of ``schema.py``; their library's messages are put into our words here), and what can
only be judged with several values in view. Then what follows from elsewhere is filled in: paths
become absolute, a pool's transport follows from the listeners that use it, ports, the default
check and verification from the transport.

What loads but will hurt is in ``warnings.py``.
"""

import difflib
import re
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from sstplb.config import document, schema
from sstplb.config.document import Document
from sstplb.config.judge import judge, pools_of, transport_of
from sstplb.config.schema import (
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


def load(path: Path) -> Config:
    """Read a configuration file. Raises ConfigError with every problem."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError([Problem(f"cannot be read: {error.strerror}", file=str(path))]) from error
    except UnicodeDecodeError as error:
        raise ConfigError([Problem(f"is not UTF-8: {error.reason}", file=str(path))]) from error
    return parse(text, file=str(path), base=path.resolve().parent)


def parse(text: str, *, file: str = "configuration", base: Path | None = None) -> Config:
    """Read a configuration from text; paths in it are relative to ``base``.

    Raises ConfigError with every problem.
    """
    found = document.read(text, file)
    if not isinstance(found.values, dict):
        message = "expected a mapping with listeners and pools" if found.values else "is empty"
        raise ConfigError([Problem(message, file=file, line=found.line(()))])
    try:
        config = Config.model_validate(found.values)
    except ValidationError as error:
        details = _without_echoes(error.errors(include_url=False))
        raise ConfigError(_in_our_words(detail, found) for detail in details) from error
    problems: list[Problem] = []

    def report(path: document.Path, message: str) -> None:
        problems.append(Problem(message, document.show(path), file, found.line(path)))

    judge(config, report)
    if problems:
        raise ConfigError(problems)
    return _fill_in(config, base or Path.cwd())


def effective(config: Config) -> str:
    """Return a configuration as YAML, every knob shown, secrets only by where they are kept."""
    values = config.model_dump(mode="json")
    return str(
        yaml.safe_dump(values, sort_keys=False, allow_unicode=True, default_flow_style=False)
    )


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema of the file, for editors."""
    made = Config.model_json_schema()
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **made, "title": "sstplb"}


# --- each value by itself ---------------------------------------------------------------------


def _without_echoes(details: list[ErrorDetails]) -> list[ErrorDetails]:
    """Drop "expected at least one" where there is one, with a mistake in it."""

    def is_echo(detail: ErrorDetails) -> bool:
        at = detail["loc"]
        return detail["type"] == "too_short" and any(
            other["loc"][: len(at)] == at for other in details if other is not detail
        )

    return [detail for detail in details if not is_echo(detail)]


def _in_our_words(detail: ErrorDetails, found: Document) -> Problem:
    path = tuple(part for part in detail["loc"] if part != "[key]")
    kind, context = detail["type"], detail.get("ctx", {})
    message = detail["msg"]
    given = detail["input"]
    match kind:
        case "extra_forbidden":
            message = _unknown_key(path)
        case "missing":
            message = "is missing"
        case "enum" | "literal_error":
            message = f"expected {context['expected']}, got {given!r}"
            near = difflib.get_close_matches(str(given), re.findall(r"'(.*?)'", message)[:-1], 1)
            message += f"; did you mean {near[0]}?" if near else ""
        case "value_error":
            message = str(context["error"])
        case "too_short":
            message = "expected at least one"
        case "string_pattern_mismatch":
            message = (
                f"expected {_PATTERNS.get(context['pattern'], context['pattern'])}, got {given!r}"
            )
        case "int_type" | "int_parsing" | "int_from_float":
            message = f"expected a whole number, got {given!r}"
        case "model_type" | "model_attributes_type" | "dict_type":
            message = f"expected a section with keys, got {given!r}"
        case "tuple_type" | "list_type":
            message = f"expected a list, got {given!r}"
        case "string_type":
            message = f"expected text, got {given!r} (put it in quotes?)"
        case "bool_type" | "bool_parsing":
            message = f"expected true or false, got {given!r}"
        case _:
            message = f"{message.removeprefix('Input ').removeprefix('Value ')}, got {given!r}"
    return Problem(message, document.show(path), found.file, found.line(path))


_PATTERNS: Mapping[str, str] = MappingProxyType(
    {
        r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,62}$": "a name of letters, digits, - _ and .",
        r"^[0-9a-f]{64}$": "a SHA-256: 64 hex digits (sstplb fingerprint shows it)",
        r"^1\.[01]$": "1.0 or 1.1",
        r"^[1-5]\d\d(-[1-5]\d\d)?$": "a status such as 401, or a range such as 200-299",
    }
)


def _unknown_key(path: document.Path) -> str:
    """Name the nearest known spelling of an unknown key."""
    key = str(path[-1])
    known = _keys_at(path[:-1])
    near = difflib.get_close_matches(key, known, 1, cutoff=0.5)
    if near:
        return f"unknown key; did you mean {near[0]}?"
    return f"unknown key; known here: {', '.join(known)}"


def _keys_at(path: document.Path) -> list[str]:
    """Return the keys known in a section, by walking the models along the path."""
    model: type[BaseModel] = Config
    for part in path:
        if isinstance(part, str) and part in model.model_fields:
            inner = _model_in(model.model_fields[part].annotation)
            model = inner or model
    return list(model.model_fields)


def _model_in(annotation: Any) -> type[BaseModel] | None:
    """Return the model a field's type is about, inside whatever tuple, dict or union."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for argument in getattr(annotation, "__args__", ()):
        if (found := _model_in(argument)) is not None:
            return found
    return None


# --- what follows from elsewhere --------------------------------------------------------------


def _fill_in(config: Config, base: Path) -> Config:
    """Return the configuration with everything said that was left to be understood."""

    def absolute(path: Path | None) -> Path | None:
        return None if path is None else base / path

    def secret(value: Secret | None) -> Secret | None:
        return value and value.model_copy(update={"file": absolute(value.file)})

    def listener(value: Listener) -> Listener:
        certificates = tuple(
            files.model_copy(
                update={
                    "chain": absolute(files.chain),
                    "key": absolute(files.key),
                    "key_passphrase": secret(files.key_passphrase),
                }
            )
            for files in value.certificates
        )
        address = value.address
        if address.port is None:
            address = schema.Endpoint(address.host, Transport.TLS.port)
        return value.model_copy(update={"address": address, "certificates": certificates})

    def pool(name: str, value: Pool) -> Pool:
        transport = transport_of(config, name)
        backends = tuple(
            backend
            if backend.address.port is not None
            else backend.model_copy(
                update={"address": schema.Endpoint(backend.address.host, transport.port)}
            )
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
        }
    )

"""Mistakes that only show with several values in view: names, references, combinations.

Each is reported with its path and the way out; ``loader.py`` knows the line. It also answers the
one question that needs the whole configuration: what do a pool's backends speak?
"""

import difflib
import re
from collections.abc import Callable, Iterator

from sstplb.config import document, schema
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

Report = Callable[[document.Path, str], None]


def judge(config: Config, report: Report) -> None:
    """Report every mistake that needs more than one value to be seen."""
    names: dict[str, int] = {}
    addresses: dict[schema.Endpoint, str] = {}
    for number, listener in enumerate(config.listeners):
        path: document.Path = ("listeners", number)
        if names.setdefault(listener.name, number) != number:
            report((*path, "name"), f"{listener.name} is the name of another listener too")
        other = addresses.setdefault(listener.address, listener.name)
        if other != listener.name:
            report((*path, "address"), f"{listener.address} is the address of {other} too")
        if listener.address.is_name:
            report((*path, "address"), f"expected an IP address, got {listener.address.host}")
        _judge_listener(config, listener, path, report)
    for name, pool in config.pools.items():
        _judge_pool(pool, ("pools", name), report)
        transport_of(config, name, report)


def _judge_listener(
    config: Config, listener: Listener, path: document.Path, report: Report
) -> None:
    for wanted, where in pools_of(listener):
        if wanted not in config.pools:
            near = difflib.get_close_matches(wanted, config.pools, 1, cutoff=0.4)
            hint = f"; did you mean {near[0]}?" if near else f"; known: {', '.join(config.pools)}"
            report((*path, *where), f"there is no pool {wanted}{hint}")
    if listener.mode.terminates_tls:
        if not listener.certificates:
            report(
                (*path, "mode"),
                f"{listener.mode} ends the clients' TLS here and needs certificates: "
                "list at least one with chain and key",
            )
        for number, files in enumerate(listener.certificates):
            _judge_secret(
                files.key_passphrase, (*path, "certificates", number, "key_passphrase"), report
            )
        if listener.tls.min_version > listener.tls.max_version:
            report((*path, "tls", "min_version"), "is newer than max_version")
    else:
        if listener.certificates:
            report(
                (*path, "certificates"),
                "passthrough shows the backends' own certificates: leave this out, or choose "
                "offload or reencrypt",
            )
        if listener.web_pool is not None:
            report(
                (*path, "web_pool"),
                "passthrough cannot see what a visitor wants: leave this out, or choose offload "
                "or reencrypt",
            )


def _judge_pool(pool: Pool, path: document.Path, report: Report) -> None:
    names: set[str] = set()
    addresses: set[schema.Endpoint] = set()
    for number, backend in enumerate(pool.backends):
        where = (*path, "backends", number)
        if backend.name in names:
            report((*where, "name"), f"{backend.name} is the name of another backend too")
        if backend.address in addresses:
            report((*where, "address"), f"{backend.address} is the address of another backend too")
        names.add(backend.name)
        addresses.add(backend.address)
    if pool.tls.verify is Verify.PIN and not pool.tls.pins:
        report((*path, "tls", "verify"), "pin needs pins: the SHA-256 of each accepted certificate")
    if pool.tls.pins and pool.tls.verify is not Verify.PIN:
        report((*path, "tls", "pins"), "pins are only looked at with verify: pin")
    _judge_check(pool.check, (*path, "check"), report)
    if pool.total_timeout < pool.try_timeout:
        report((*path, "total_timeout"), "is shorter than try_timeout: no try could use its time")


def _judge_check(check: schema.Check, path: document.Path, report: Report) -> None:
    if check.expect_regex is not None:
        try:
            re.compile(check.expect_regex.encode())
        except re.error as error:
            report((*path, "expect_regex"), f"is no regular expression: {error}")
    for number, span in enumerate(check.expect_status):
        first, _, last = span.partition("-")
        if last and first > last:
            report((*path, "expect_status", number), f"{span} ends before it begins")
    if check.method is CheckMethod.LOGIN and not (check.username and check.password):
        report((*path, "method"), "login needs the username and password of a test account")
    _judge_secret(check.password, (*path, "password"), report)


def _judge_secret(secret: Secret | None, path: document.Path, report: Report) -> None:
    if secret is not None and (secret.file is None) == (secret.env is None):
        report(path, "expected either file or env, to say where the secret is kept")


def pools_of(listener: Listener) -> Iterator[tuple[str, document.Path]]:
    """Yield each pool a listener names, and where it does."""
    yield listener.pool, ("pool",)
    for sni, name in listener.sni_pools.items():
        yield name, ("sni_pools", sni)
    if listener.web_pool is not None:
        yield listener.web_pool, ("web_pool",)


def transport_of(config: Config, name: str, report: Report | None = None) -> Transport:
    """Return what a pool's backends speak: as configured, or as the listeners using it need."""
    needed: dict[Transport, str] = {}
    for listener in config.listeners:
        if name in (listener.pool, *listener.sni_pools.values()) or (
            name == listener.web_pool and not needed and config.pools[name].transport is None
        ):
            plain = listener.mode is Mode.OFFLOAD
            needed.setdefault(Transport.PLAIN if plain else Transport.TLS, listener.name)
    configured = config.pools[name].transport
    if report is not None and len(needed) > 1:
        report(
            ("pools", name),
            f"listener {needed[Transport.PLAIN]} (offload) needs its backends to speak plain HTTP "
            f"and {needed[Transport.TLS]} needs TLS: make two pools",
        )
    elif report is not None and configured is not None and needed and configured not in needed:
        ((wanted, user),) = needed.items()
        report(("pools", name, "transport"), f"listener {user} needs {wanted}, got {configured}")
    return configured or next(iter(needed), Transport.TLS)

"""Mistakes that only show with several values in view: names, references, combinations.

Each is reported with its path and the way out; ``loader.py`` knows the line. A report also says
which other places it *relies on*: where one of them is itself mistaken (and so left out of what is
judged here), the report is dropped, for it would only be an echo.

This module also answers the one question that needs the whole configuration: what do a pool's
backends speak?
"""

import difflib
import re
from collections.abc import Iterator
from ipaddress import ip_address
from typing import Protocol

from sstplb.config import document, quantities
from sstplb.config.quantities import Endpoint
from sstplb.config.schema import (
    Admin,
    Backend,
    Check,
    CheckMethod,
    Config,
    Listener,
    ListenerTls,
    Mode,
    Pool,
    PoolTls,
    ProxyVersion,
    Secret,
    Transport,
    UnknownTenant,
    Verify,
)

_SERVER_NAME = re.compile(r"(?:\*\.)?[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+)*(?::[0-9]{1,5})?")


class Report(Protocol):
    """Where mistakes go."""

    def __call__(self, path: document.Path, message: str, *relies_on: document.Path) -> None:
        """Note a mistake at ``path``, true if the places in ``relies_on`` are as written."""


def judge(config: Config, report: Report) -> None:
    """Report every mistake that needs more than one value to be seen."""
    _judge_addresses(config, report)
    _judge_admin(config.admin, report)
    names: set[str] = set()
    for number, listener in enumerate(config.listeners):
        path: document.Path = ("listeners", number)
        if listener.name in names:
            report((*path, "name"), f"{listener.name} is the name of another listener too")
        names.add(listener.name)
        _judge_references(config, listener, path, report)
        if listener.mode.terminates_tls:
            _judge_terminating(listener, path, report)
        else:
            _judge_passthrough(listener, path, report)
    for name, pool in config.pools.items():
        path = ("pools", name)
        transport = transport_of(config, name, report)
        _judge_backends(pool.backends, transport, (*path, "backends"), report)
        _judge_pool(pool, path, report)
        _judge_check(pool.check, (*path, "check"), report)
    _judge_capture(config, report)
    _judge_secret(config.privacy.key, ("privacy", "key"), report)


def pools_of(listener: Listener) -> Iterator[tuple[str, document.Path]]:
    """Yield each pool a listener names, and where it does."""
    yield listener.pool, ("pool",)
    for sni, name in listener.sni_pools.items():
        yield name, ("sni_pools", sni)
    for tenant, name in listener.tenant_pools.items():
        yield name, ("tenant_pools", tenant)
    if listener.web_pool is not None:
        yield listener.web_pool, ("web_pool",)


def call_pools_of(listener: Listener) -> frozenset[str]:
    """Return the pools that answer a listener's calls; its web pool answers none."""
    others = (*listener.sni_pools.values(), *listener.tenant_pools.values())
    return frozenset((listener.pool, *others))


def transport_of(config: Config, name: str, report: Report | None = None) -> Transport:
    """Return what a pool's backends speak: as configured, or as the listeners using it need.

    A web pool speaks what its listener's calls would, unless it says otherwise.
    """
    configured = config.pools[name].transport
    needed: dict[Transport, str] = {}
    for listener in config.listeners:
        if name in call_pools_of(listener):
            needed.setdefault(_transport_for(listener.mode), listener.name)
    if not needed and configured is None:
        for listener in config.listeners:
            if name == listener.web_pool:
                needed.setdefault(_transport_for(listener.mode), listener.name)
    if report is not None:
        _judge_transport(configured, needed, ("pools", name), report)
    return configured or next(iter(needed), Transport.TLS)


def with_port(address: Endpoint, port: int) -> Endpoint:
    """Return an address with its port said."""
    return address if address.port is not None else Endpoint(address.host, port)


# --- the admin side ---------------------------------------------------------------------------

SOCKET_BYTES_MAX = 107
"""What the kernel takes as a unix socket's path (unix(7): 108 with the final zero)."""


def _judge_admin(admin: Admin, report: Report) -> None:
    if admin.socket is not None and len(bytes(admin.socket)) > SOCKET_BYTES_MAX:
        report(("admin", "socket"), f"expected a path of at most {SOCKET_BYTES_MAX} bytes")
    if admin.address is None:
        for name in ("token_file", "certificates"):
            if getattr(admin, name):
                report(("admin", name), "is for admin.address, which is not set")
        return
    for number, files in enumerate(admin.certificates):
        where = ("admin", "certificates", number, "key_passphrase")
        _judge_secret(files.key_passphrase, where, report)
    path: document.Path = ("admin", "address")
    if admin.address.is_name:
        report(path, f"expected an IP address to listen on, got the name {admin.address.host}")
    elif admin.address.port is None:
        report(path, f"expected a port as well, such as {admin.address}:8444")
    elif admin.token_file is None and not ip_address(admin.address.host).is_loopback:
        report(
            path,
            f"{admin.address} is open to the network: set admin.token_file, or use a loopback "
            "address or admin.socket",
        )


# --- listeners --------------------------------------------------------------------------------


def _judge_addresses(config: Config, report: Report) -> None:
    """Hold listening addresses against one another: the kernel gives each out once."""
    taken: dict[Endpoint, str] = {}
    for number, listener in enumerate(config.listeners):
        path: document.Path = ("listeners", number, "address")
        address = with_port(listener.address, Transport.TLS.port)
        if address.is_name:
            report(path, f"expected an IP address to listen on, got the name {address.host}")
            continue
        other = next((name for known, name in taken.items() if _overlap(address, known)), None)
        if other is not None:
            report(
                path,
                f"{address} is taken by listener {other} already"
                + (" ([::] takes IPv4 too)" if address not in taken else ""),
            )
        taken.setdefault(address, listener.name)


def _overlap(one: Endpoint, other: Endpoint) -> bool:
    """Whether two listening addresses cannot both be bound (``net/tcp.py``: ``::`` has both)."""
    if one.host == other.host or one.port != other.port or one.port == 0:
        return one == other
    ours, theirs = ip_address(one.host), ip_address(other.host)
    if "::" in (one.host, other.host):
        return True
    return ours.version == theirs.version and (ours.is_unspecified or theirs.is_unspecified)


def _judge_references(
    config: Config, listener: Listener, path: document.Path, report: Report
) -> None:
    for wanted, where in pools_of(listener):
        if wanted not in config.pools:
            near = difflib.get_close_matches(wanted, config.pools, 1, cutoff=0.4)
            hint = f"; did you mean {near[0]}?" if near else f"; known: {', '.join(config.pools)}"
            report((*path, *where), f"there is no pool {wanted}{hint}", ("pools", wanted))
    seen: set[str] = set()
    for sni in listener.sni_pools:
        if not _SERVER_NAME.fullmatch(sni):
            report(
                (*path, "sni_pools", sni),
                f"expected a server name such as vpn2.example.test or *.example.test, got {sni!r}",
            )
        elif sni.lower() in seen:
            report((*path, "sni_pools", sni), f"{sni} was given before, in other letters")
        seen.add(sni.lower())
    seen.clear()
    for tenant in listener.tenant_pools:
        if tenant.lower() in seen:
            message = f"{tenant} was given before, in other letters"
            report((*path, "tenant_pools", tenant), message)
        seen.add(tenant.lower())


def _judge_terminating(listener: Listener, path: document.Path, report: Report) -> None:
    if not listener.certificates:
        report(
            (*path, "mode"),
            f"{listener.mode} ends the clients' TLS here and needs certificates: "
            "list at least one with chain and key",
            (*path, "certificates"),
        )
    for number, files in enumerate(listener.certificates):
        _judge_secret(
            files.key_passphrase, (*path, "certificates", number, "key_passphrase"), report
        )
    _judge_versions(listener.tls, (*path, "tls"), report)


def _judge_versions(tls: ListenerTls | PoolTls, path: document.Path, report: Report) -> None:
    if tls.min_version > tls.max_version:
        report(
            (*path, "min_version"),
            f"{tls.min_version} is newer than max_version {tls.max_version}: "
            "no version would be left",
        )


def _judge_passthrough(listener: Listener, path: document.Path, report: Report) -> None:
    way_out = "leave this out, or choose offload or reencrypt"
    if listener.certificates:
        report(
            (*path, "certificates"),
            f"passthrough shows the backends' own certificates: {way_out}",
        )
    if listener.web_pool is not None:
        report(
            (*path, "web_pool"),
            f"passthrough cannot see what a visitor wants: {way_out}",
        )
    if listener.tenant_pools:
        report(
            (*path, "tenant_pools"),
            "passthrough cannot see the tenant, which is named inside TLS: route by server name "
            f"(sni_pools), or {way_out}",
        )
    elif listener.unknown_tenant is not UnknownTenant.DEFAULT:
        report(
            (*path, "unknown_tenant"),
            f"passthrough cannot see the tenant, which is named inside TLS: {way_out}",
        )


# --- pools ------------------------------------------------------------------------------------


def _transport_for(mode: Mode) -> Transport:
    return Transport.PLAIN if mode is Mode.OFFLOAD else Transport.TLS


def _judge_transport(
    configured: Transport | None,
    needed: dict[Transport, str],
    path: document.Path,
    report: Report,
) -> None:
    if len(needed) > 1:
        report(
            path,
            f"listener {needed[Transport.PLAIN]} (offload) needs its backends to speak plain HTTP "
            f"and {needed[Transport.TLS]} needs TLS: make two pools",
        )
    elif configured is not None and needed and configured not in needed:
        ((wanted, user),) = needed.items()
        report(
            (*path, "transport"),
            f"listener {user} needs {wanted}, got {configured}: leave this out, or make two pools",
        )


def _judge_backends(
    backends: tuple[Backend, ...], transport: Transport, path: document.Path, report: Report
) -> None:
    names: set[str] = set()
    addresses: set[Endpoint] = set()
    for number, backend in enumerate(backends):
        where = (*path, number)
        address = with_port(backend.address, transport.port)
        address = Endpoint(address.host.lower(), address.port)
        if backend.name in names:
            report((*where, "name"), f"{backend.name} is the name of another backend too")
        if address in addresses:
            report((*where, "address"), f"{address} is the address of another backend too")
        if address.port == 0:
            report((*where, "address"), "expected a port from 1 to 65535, got 0")
        names.add(backend.name)
        addresses.add(address)


def _judge_pool(pool: Pool, path: document.Path, report: Report) -> None:
    tls: document.Path = (*path, "tls")
    _judge_versions(pool.tls, tls, report)
    if pool.tls.verify is Verify.PIN and not pool.tls.pins:
        report(
            (*tls, "verify"),
            "pin needs pins: the SHA-256 of each accepted certificate",
            (*tls, "pins"),
        )
    if pool.tls.pins and pool.tls.verify is not Verify.PIN:
        report(
            (*tls, "pins"),
            "pins are only looked at with verify: pin; set it, or leave the pins out",
            (*tls, "verify"),
        )
    if pool.transparent_source and pool.proxy_protocol is not ProxyVersion.OFF:
        report(
            (*path, "proxy_protocol"),
            "with transparent_source the backend sees the client's own address: choose one",
        )
    if pool.total_timeout < pool.try_timeout:
        report(
            (*path, "total_timeout"),
            f"{_text(pool.total_timeout)} is shorter than the try_timeout of "
            f"{_text(pool.try_timeout)}: no try could use its time",
            (*path, "try_timeout"),
        )
    if pool.passive.back_off_max < pool.passive.back_off:
        report(
            (*path, "passive", "back_off_max"),
            f"{_text(pool.passive.back_off_max)} is shorter than the back_off of "
            f"{_text(pool.passive.back_off)} it bounds",
            (*path, "passive", "back_off"),
        )


def _judge_check(check: Check, path: document.Path, report: Report) -> None:
    if check.expect_regex is not None:
        try:
            re.compile(check.expect_regex.encode())
        except re.error as error:
            report((*path, "expect_regex"), f"is no regular expression: {error}")
    if check.send is not None:
        try:
            check.send.encode("latin-1").decode("unicode_escape").encode("latin-1")
        except UnicodeError as error:
            report((*path, "send"), f"cannot be sent: {error}; escapes look like \\r\\n or \\xff")
    for number, span in enumerate(check.expect_status):
        first, _, last = span.partition("-")
        if last and first > last:
            report((*path, "expect_status", number), f"{span} ends before it begins")
    if check.preset is not None and check.method not in (None, CheckMethod.HTTP, CheckMethod.HTTPS):
        report(
            (*path, "preset"),
            f"{check.preset} imitates an HTTP check, got method: {check.method}; leave one out",
        )
    if check.method is CheckMethod.LOGIN and not (check.username and check.password):
        report(
            (*path, "method"),
            "login needs the username and password of a test account",
            (*path, "username"),
            (*path, "password"),
        )
    if check.preset is None and (check.down_after or check.interval) < check.interval:
        report(
            (*path, "down_after"),
            f"is shorter than the interval of {_text(check.interval)}: "
            "every backend would be down between two checks",
            (*path, "interval"),
        )
    _judge_secret(check.password, (*path, "password"), report)


def _judge_capture(config: Config, report: Report) -> None:
    wanted, path = config.capture.listener, ("capture", "listener")
    found = next((listener for listener in config.listeners if listener.name == wanted), None)
    if wanted is not None and found is None:
        known = ", ".join(listener.name for listener in config.listeners)
        report(path, f"there is no listener {wanted}; known: {known}", ("listeners",))
    elif found is not None and not found.mode.terminates_tls:
        report(path, f"{wanted} is passthrough: TLS does not end here, so nothing can be seen")


def _judge_secret(secret: Secret | None, path: document.Path, report: Report) -> None:
    if secret is not None and (secret.file is None) == (secret.env is None):
        message = "expected either file or env, to say where the secret is kept"
        report(path, message, path)


def _text(seconds: float) -> str:
    return quantities.format_duration(seconds)

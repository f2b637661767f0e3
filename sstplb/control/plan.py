"""From a configuration to the objects that carry calls, in two steps.

``prepare`` does everything that can fail: certificates, keys, contexts, CAs, secrets. It reports
all that is wrong at once, and what will hurt later. ``sstplb check`` stops there.

``lay_out`` cannot fail: it wires pools and services out of what was prepared, taking over from
the previous plan what must outlive a reload (``balance/pool.py``).
"""

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType

from sstplb.account.privacy import Discretion, key_of
from sstplb.balance.backend import Backend
from sstplb.balance.pool import Pool, Usability
from sstplb.balance.same_certificate import mismatch_sentence, objection
from sstplb.config import loader, schema
from sstplb.config.judge import call_pools_of
from sstplb.config.schema import Ktls, MismatchPolicy, Mode, Transport
from sstplb.config.warnings import warnings as config_warnings
from sstplb.control.admin.access import Access, load_access
from sstplb.control.places import judge_places
from sstplb.errors import CertificateError, ConfigError, Problem, TlsError
from sstplb.net.service import Route, Service
from sstplb.tls import kernel
from sstplb.tls.certificate import (
    Certificate,
    Identity,
    key_warnings,
    load_identity,
    now_utc,
    read_secret,
    warnings,
)
from sstplb.tls.native import TICKET_KEYS_BYTES
from sstplb.tls.openssl import OpenSsl, libraries, why_extra_is_of_no_use
from sstplb.tls.policy import ClientPolicy, ServerPolicy

PRIVACY_KEY_MIN = 16


@dataclass(frozen=True, slots=True)
class Prepared:
    """A configuration with everything loaded that it names."""

    config: schema.Config
    server_policies: Mapping[str, ServerPolicy]
    """By listener name; the terminating ones only."""
    client_policies: Mapping[str, ClientPolicy]
    """By pool name; those with TLS transport only."""
    passwords: Mapping[str, str]
    """By pool name: the password of the login check."""
    discretion: Discretion
    """What may be told of who calls."""
    access: Access
    """Who may come in by the admin side's TCP door."""
    ticket_keys: bytes
    """What TLS session tickets are sealed with, in all processes."""
    engine: str
    """Which TLS engine works, and why, in words."""
    warnings: tuple[Problem, ...]

    def __repr__(self) -> str:  # never show passwords or keys
        return f"Prepared({len(self.config.listeners)} listeners, {len(self.config.pools)} pools)"


@dataclass(frozen=True, slots=True)
class PooledChecks:
    """How the backends of one pool are checked."""

    pool: Pool
    config: schema.Pool
    policy: ClientPolicy | None
    password: str
    served: tuple[Certificate, ...]
    """What clients whose calls end up here are shown; empty in passthrough."""
    modes: frozenset[Mode]
    """How calls come here."""
    shown: Mapping[str, tuple[bytes, ...]]
    """By listener whose calls come here, the SHA-256 of what its clients may be shown; empty in
    passthrough."""

    @property
    def mode(self) -> Mode:
        """How its backends accept a certificate: they were told of it (offload), or show it."""
        return Mode.OFFLOAD if Mode.OFFLOAD in self.modes else Mode.REENCRYPT

    @property
    def ours(self) -> tuple[bytes, ...]:
        """The SHA-256 of each certificate in ``served``."""
        return tuple(certificate.sha256 for certificate in self.served)

    def usability(self, now: float) -> Usability:
        """Return what keeps the calls of every listener from each backend."""
        return self.pool.usability(now, self._objection)

    def shut_out(self, backend: Backend) -> Mapping[str, tuple[bytes, ...]]:
        """Return the part of ``shown`` that does not suit a backend, if the rule is kept."""
        return {
            name: shown
            for name, shown in self.shown.items()
            if objection(self.mode, MismatchPolicy.REFUSE, shown, self.ours, backend) is not None
        }

    def is_kept_out(self, backend: Backend) -> bool:
        """Whether its certificate keeps the calls of some listener from a backend."""
        policy = self.config.tls.same_certificate
        return policy is MismatchPolicy.REFUSE and bool(self.shut_out(backend))

    def _objection(self, backend: Backend) -> str | None:
        """Return why a backend will do for no call, whichever listener it comes from."""
        policy = self.config.tls.same_certificate
        found = [
            objection(self.mode, policy, shown, self.ours, backend) for shown in self.shown.values()
        ]
        return found[0] if found and None not in found else None


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything that carries calls, for one configuration."""

    config: schema.Config
    services: Mapping[str, Service]
    """By listener name."""
    checks: Mapping[str, PooledChecks]
    """By pool name."""


def load(file: Path) -> Prepared:
    """Read a configuration file and all it names.

    Raises ConfigError: every problem of the file, or else of what it names, each with its line.
    """
    config, found = loader.load_with_lines(file)
    problems: list[Problem] = []
    hints: list[Problem] = []
    judge_places(config, problems, hints)
    with found.placing():
        try:
            prepared = prepare(config)
        except ConfigError as error:
            raise ConfigError([*error.problems, *problems]) from error
        if problems:
            raise ConfigError(problems)
    return replace(prepared, warnings=(*prepared.warnings, *hints))


def prepare(config: schema.Config, ticket_keys: bytes | None = None) -> Prepared:
    """Load what the configuration names. Raises ConfigError with every problem.

    ``ticket_keys``: those of another process that shares the work; by default new ones.
    """
    ticket_keys = ticket_keys or os.urandom(TICKET_KEYS_BYTES)
    problems: list[Problem] = []
    hints: list[Problem] = []
    server_policies: dict[str, ServerPolicy] = {}
    client_policies: dict[str, ClientPolicy] = {}
    passwords: dict[str, str] = {}
    openssl, engine = _engine(config, problems, hints)
    for number, listener in enumerate(config.listeners):
        path = f"listeners[{number}]"
        identities = _load_identities(listener, path, problems, hints)
        if listener.mode.terminates_tls and len(identities) == len(listener.certificates):
            try:
                server_policies[listener.name] = ServerPolicy(
                    listener.tls, identities, openssl, ticket_keys
                )
            except CertificateError as error:
                problems.append(Problem(str(error), f"{path}.tls"))
    for name, pool in config.pools.items():
        with _noting(problems, f"pools.{name}.tls.ca_file"):
            if pool.transport is Transport.TLS:
                client_policies[name] = ClientPolicy(pool.tls, openssl)
        with _noting(problems, f"pools.{name}.check.password"):
            if pool.check.password is not None:
                passwords[name] = read_secret(pool.check.password)
    discretion = _load_discretion(config.privacy, ticket_keys, problems)
    access = load_access(config.admin, problems, hints)
    hints += _declared_mismatches(config, server_policies)
    if problems:
        raise ConfigError(problems)
    return Prepared(
        config,
        MappingProxyType(server_policies),
        MappingProxyType(client_policies),
        MappingProxyType(passwords),
        discretion,
        access,
        ticket_keys,
        engine,
        tuple(hints),
    )


@contextlib.contextmanager
def _noting(problems: list[Problem], path: str) -> Iterator[None]:
    """Note what is wrong with something that is loaded."""
    try:
        yield
    except CertificateError as error:
        problems.append(Problem(str(error), path))


def all_warnings(prepared: Prepared) -> list[Problem]:
    """Return what will hurt: in the configuration, and in the certificates it names."""
    return [*config_warnings(prepared.config), *prepared.warnings]


def _load_discretion(rules: schema.Privacy, made_up: bytes, problems: list[Problem]) -> Discretion:
    """Load the key of ``privacy.key``, or make one from ``made_up``, as all processes do alike."""
    secret = made_up
    if rules.key is not None:
        try:
            secret = read_secret(rules.key).encode()
        except CertificateError as error:
            problems.append(Problem(str(error), "privacy.key"))
        else:
            if len(secret) < PRIVACY_KEY_MIN:
                message = (
                    f"expected {PRIVACY_KEY_MIN} characters or more; "
                    "make some with: openssl rand -hex 32"
                )
                problems.append(Problem(message, "privacy.key"))
    return Discretion(rules, key_of(secret))


def _engine(
    config: schema.Config, problems: list[Problem], hints: list[Problem]
) -> tuple[OpenSsl | None, str]:
    """Load an OpenSSL, if that is wanted and there is one (else None); and say so in words."""
    wanted = config.tls.engine
    if wanted is schema.Engine.PORTABLE:
        if config.tls.ktls is Ktls.REQUIRED:
            problems.append(Problem("the portable engine knows no kTLS", "tls.ktls"))
        return None, "portable (pyOpenSSL), as tls.engine says"
    try:
        found = libraries(config.tls.library)
    except OSError as error:
        path, way_out = "tls.engine", "auto takes the portable one then"
        if config.tls.library is not None:
            path, way_out = "tls.library", "leave it out for the newest there is"
        if wanted is schema.Engine.NATIVE or config.tls.library is not None:
            message = f"the native engine cannot be loaded: {error}; {way_out}"
            problems.append(Problem(message, path))
        return None, f"portable (pyOpenSSL), for no OpenSSL can be loaded: {error}"
    openssl, ktls = _ktls(found, config, problems)
    if config.tls.library is None and (why_not := why_extra_is_of_no_use()) is not None:
        message = (
            f"{openssl.title} is used, for the one installed with sstplb is of no use: {why_not}"
        )
        hints.append(Problem(message, "tls.library"))
    return openssl, f"native ({openssl.title}), {ktls}"


def _ktls(
    found: Sequence[OpenSsl], config: schema.Config, problems: list[Problem]
) -> tuple[OpenSsl, str]:
    """Choose a library, the first whose connections the kernel can take over if that is wanted.

    What it takes over is said in words; the library is told to offer them.
    """
    newest = found[0]
    if config.tls.ktls is Ktls.OFF:
        return newest, "no kTLS, as tls.ktls says"
    why_not = kernel.why_not()
    if why_not is None:
        for openssl in found:
            openssl.offers_kernel = True
            with contextlib.suppress(OSError, TlsError):  # then nothing can be handed over
                if taken_over := kernel.trial(openssl):
                    return openssl, f"kTLS for {taken_over}"
            openssl.offers_kernel = False
        why_not = f"OpenSSL {newest.version} hands nothing over to it"
    ends_tls = any(listener.mode.terminates_tls for listener in config.listeners)
    if ends_tls and config.tls.ktls is Ktls.REQUIRED:  # else there is nothing to hand over
        message = f"there is no kTLS: {why_not}; or do without it: tls.ktls: auto"
        problems.append(Problem(message, "tls.ktls"))
    return newest, f"no kTLS: {why_not}"


def _load_identities(
    listener: schema.Listener, path: str, problems: list[Problem], hints: list[Problem]
) -> list[Identity]:
    """Load a listener's certificates; what is wrong goes to ``problems``, the rest to ``hints``."""
    identities: list[Identity] = []
    for number, files in enumerate(listener.certificates):
        where = f"{path}.certificates[{number}]"
        try:
            identity = load_identity(files)
        except CertificateError as error:
            problems.append(Problem(str(error), where))
            continue
        identities.append(identity)
        found = warnings(identity.certificate, now_utc())
        hints += [Problem(f"{files.chain} {text}", where) for text in found]
        hints += [Problem(text, where) for text in key_warnings(files)]
    return identities


def _declared_mismatches(
    config: schema.Config, server_policies: Mapping[str, ServerPolicy]
) -> Iterator[Problem]:
    """Say where an offloaded RRAS was declared to expect a certificate no client is shown."""
    for listener in config.listeners:
        if listener.mode is not Mode.OFFLOAD or listener.name not in server_policies:
            continue
        ours = [shown.certificate.sha256 for shown in server_policies[listener.name].served]
        for name in sorted(call_pools_of(listener)):
            for number, backend in enumerate(config.pools[name].backends):
                told = bytes.fromhex(backend.rras_certificate_sha256 or "")
                if told and told not in ours:
                    yield Problem(
                        mismatch_sentence(backend.name, told, *ours),
                        f"pools.{name}.backends[{number}].rras_certificate_sha256",
                    )


def lay_out(prepared: Prepared, previous: Plan | None = None) -> Plan:
    """Wire pools and services. Changes the backends it takes over: call it last in a reload."""
    config = prepared.config
    pools = {
        name: Pool(name, pool, _previous_pool(previous, name))
        for name, pool in config.pools.items()
    }
    checks = {name: _checks(prepared, pool) for name, pool in pools.items()}
    return Plan(config, lay_out_services(prepared), MappingProxyType(checks))


def lay_out_services(prepared: Prepared) -> Mapping[str, Service]:
    """Wire what those who carry calls need, by listener name."""
    listeners = prepared.config.listeners
    return MappingProxyType({value.name: _service(prepared, value) for value in listeners})


def served_sha256(prepared: Prepared) -> Mapping[str, tuple[bytes, ...]]:
    """Return the SHA-256 of the certificates each listener would show."""
    return {
        name: tuple(shown.certificate.sha256 for shown in policy.served)
        for name, policy in prepared.server_policies.items()
    }


def _previous_pool(previous: Plan | None, name: str) -> Pool | None:
    found = previous.checks.get(name) if previous is not None else None
    return found.pool if found is not None else None


def _service(prepared: Prepared, listener: schema.Listener) -> Service:
    def route(name: str, *, carries_sstp: bool = True) -> Route:
        # In passthrough the bytes go on as they are, TLS and all: the dial is plain TCP.
        policy = prepared.client_policies.get(name) if listener.mode.terminates_tls else None
        return Route(name, prepared.config.pools[name], policy, carries_sstp)

    return Service(
        listener,
        prepared.config.limits,
        prepared.server_policies.get(listener.name),
        prepared.discretion,
        route(listener.pool),
        MappingProxyType({sni.lower(): route(name) for sni, name in listener.sni_pools.items()}),
        MappingProxyType({key.lower(): route(name) for key, name in listener.tenant_pools.items()}),
        route(listener.web_pool, carries_sstp=False) if listener.web_pool else None,
    )


def _checks(prepared: Prepared, pool: Pool) -> PooledChecks:
    users = [
        listener for listener in prepared.config.listeners if pool.name in call_pools_of(listener)
    ]
    by_listener = served_sha256(prepared)
    served = {
        shown.certificate.sha256: shown.certificate
        for listener in users
        if listener.name in prepared.server_policies
        for shown in prepared.server_policies[listener.name].served
    }
    return PooledChecks(
        pool,
        pool.config,
        prepared.client_policies.get(pool.name),
        prepared.passwords.get(pool.name, ""),
        tuple(served.values()),
        frozenset(listener.mode for listener in users),
        MappingProxyType({user.name: by_listener.get(user.name, ()) for user in users}),
    )

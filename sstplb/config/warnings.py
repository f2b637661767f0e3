"""What loads, and will hurt: warnings for ``sstplb check`` and the log at start.

They concern the configuration alone; what is wrong with a certificate's file is the TLS room's.
"""

from collections.abc import Iterator

from sstplb.config import schema
from sstplb.config.judge import pools_of
from sstplb.config.schema import (
    CheckMethod,
    Config,
    Listener,
    MismatchPolicy,
    Mode,
    Pool,
    TlsVersion,
    Verify,
)
from sstplb.errors import Problem

HELLO_S = 60.0
SAFE_IDLE_S = 130.0
"""[MS-SSTP] 3.1.2: hello after 60 s of silence, given up 60 s later; and a little slack."""


def warnings(config: Config) -> list[Problem]:
    """Say what will hurt, each with its path and what to do. ``config`` comes from ``load``."""
    found = list(_limit_warnings(config))
    used: dict[str, list[Listener]] = {}
    for listener in config.listeners:
        for name, _ in pools_of(listener):
            used.setdefault(name, []).append(listener)
        if listener.tls.max_version is TlsVersion.TLS12 and listener.mode.terminates_tls:
            found.append(
                Problem("TLS 1.3 is off: Windows 11 clients would use it", f"{listener.name}.tls")
            )
    for name, pool in config.pools.items():
        users = used.get(name, [])
        if not users:
            found.append(Problem("no listener uses this pool", f"pools.{name}"))
        found += _pool_warnings(f"pools.{name}", pool, {listener.mode for listener in users})
    return found


def _limit_warnings(config: Config) -> Iterator[Problem]:
    idle, path = config.limits.idle_timeout, "limits.idle_timeout"
    if idle <= HELLO_S:
        yield Problem(
            f"{schema.format_duration(idle)} kills healthy calls: SSTP says hello only after 60 s "
            "of silence; set 130s or more",
            path,
        )
    elif idle < SAFE_IDLE_S:
        yield Problem(
            f"{schema.format_duration(idle)} is less than the 120 s after which SSTP itself gives "
            "a silent call up; set 130s or more",
            path,
        )
    if config.limits.openings_max > config.limits.calls_max:
        yield Problem("is more than calls_max and will never be reached", "limits.openings_max")


def _pool_warnings(path: str, pool: Pool, modes: set[Mode]) -> Iterator[Problem]:
    if pool.check.method is CheckMethod.TCP:
        yield Problem(
            "a tcp check misleads: the port belongs to the kernel's http.sys and stays open when "
            "the SSTP service is dead; leave method out to ask for the SSTP URI",
            f"{path}.check.method",
        )
    if pool.check.timeout > pool.check.interval:
        yield Problem("is longer than the interval: checks will be late", f"{path}.check.timeout")
    if pool.proxy_protocol is not schema.ProxyVersion.OFF:
        yield Problem(
            "RRAS does not understand a PROXY preface and drops the connection; accel-ppp and "
            "sstp-server do",
            f"{path}.proxy_protocol",
        )
    if pool.transparent_source:
        yield Problem(
            "needs CAP_NET_ADMIN here and routing that brings the backends' answers back here",
            f"{path}.transparent_source",
        )
    if Mode.OFFLOAD in modes:
        yield from _offload_warnings(path, pool)
    if Mode.REENCRYPT in modes:
        yield from _reencrypt_warnings(path, pool)


def _offload_warnings(path: str, pool: Pool) -> Iterator[Problem]:
    for number, backend in enumerate(pool.backends):
        if backend.rras_certificate_sha256 is None:
            yield Problem(
                f"{backend.name}: nobody says which certificate this RRAS was told to expect; "
                "set it to what `sstplb fingerprint` shows, so that a wrong one is found "
                "before a call fails",
                f"{path}.backends[{number}].rras_certificate_sha256",
            )


def _reencrypt_warnings(path: str, pool: Pool) -> Iterator[Problem]:
    if pool.tls.verify is Verify.OFF:
        yield Problem(
            "verification is off: anybody between here and the backends can read every call",
            f"{path}.tls.verify",
        )
    if pool.tls.same_certificate is not MismatchPolicy.REFUSE:
        yield Problem(
            f"{pool.tls.same_certificate}: calls will go to backends with another certificate, "
            "and be torn down after authentication",
            f"{path}.tls.same_certificate",
        )

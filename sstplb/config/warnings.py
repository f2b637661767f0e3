"""What loads, and will hurt: warnings for ``sstplb check`` and the log at start.

They concern the configuration alone; what is wrong with a certificate's file is the TLS room's.
Three kinds: what cuts or endangers calls, what never works, and what has no effect (an operator
who sets something believes that it does something).
"""

from collections.abc import Iterator
from ipaddress import ip_address

from sstplb.config import quantities, schema
from sstplb.config.judge import call_pools_of, pools_of
from sstplb.config.schema import (
    Admin,
    Capture,
    Check,
    CheckMethod,
    CheckPreset,
    Config,
    Engine,
    Ktls,
    Limits,
    Listener,
    MismatchPolicy,
    Mode,
    Pool,
    Standing,
    Strategy,
    TlsVersion,
    Transport,
    Verify,
)
from sstplb.errors import Problem

HELLO_S = 60.0
SAFE_IDLE_S = 130.0
"""[MS-SSTP] 3.1.2: hello after 60 s of silence, given up 60 s later; and a little slack."""
CLIENT_PATIENCE_S = 60.0
"""[MS-SSTP] 3.2.2.1: how long a client waits for the answer to its opening."""

_HTTP_METHODS = (CheckMethod.HTTP, CheckMethod.HTTPS)


def warnings(config: Config) -> list[Problem]:
    """Say what will hurt, each with its path and what to do. ``config`` comes from ``load``."""
    found = list(_limit_warnings(config.limits))
    found += _admin_warnings(config.admin)
    if config.tls.engine is Engine.PORTABLE and config.tls.library is not None:
        found.append(Problem("has no effect: the portable engine has its own", "tls.library"))
    if config.tls.ktls is Ktls.REQUIRED and not any(
        listener.mode.terminates_tls for listener in config.listeners
    ):
        found.append(Problem("has no effect: TLS ends here in no listener", "tls.ktls"))
    modes: dict[str, set[Mode]] = {name: set() for name in config.pools}
    visited: set[str] = set()
    for number, listener in enumerate(config.listeners):
        found += _listener_warnings(f"listeners[{number}]", listener, config.limits)
        visited.update(name for name, _ in pools_of(listener))
        for name in call_pools_of(listener):
            modes[name].add(listener.mode)
    for name, pool in config.pools.items():
        path = f"pools.{name}"
        if name not in visited:
            found.append(Problem("no listener uses this pool", path))
        found += _pool_warnings(path, pool)
        found += _check_warnings(f"{path}.check", pool)
        if modes[name]:
            found += _call_warnings(path, pool, modes[name])
        elif name in visited:
            found += _web_warnings(path, pool)
    return [*found, *_capture_warnings(config.capture)]


# --- limits and listeners ---------------------------------------------------------------------


def _limit_warnings(limits: Limits) -> Iterator[Problem]:
    idle, path = limits.idle_timeout, "limits.idle_timeout"
    if idle <= HELLO_S:
        yield Problem(
            f"{_text(idle)} kills healthy calls: SSTP says hello only after 60 s "
            "of silence; set 130s or more",
            path,
        )
    elif idle < SAFE_IDLE_S:
        yield Problem(
            f"{_text(idle)} is less than the 120 s after which SSTP itself gives "
            "a silent call up; set 130s or more",
            path,
        )
    if limits.half_closed_timeout > idle:
        yield Problem(
            "is longer than idle_timeout, which it shortens", "limits.half_closed_timeout"
        )
    for name in ("openings_max", "calls_max_per_client"):
        if name in limits.model_fields_set and getattr(limits, name) > limits.calls_max:
            message = f"is more than calls_max ({limits.calls_max}) and will never be reached"
            yield Problem(message, f"limits.{name}")


def _capture_warnings(capture: Capture) -> Iterator[Problem]:
    chosen = capture.client is not None or capture.listener is not None
    if capture.directory is None:
        if chosen or capture.secrets:
            yield Problem("has no effect without a directory", "capture")
        return
    if capture.secrets:
        message = "passwords, and what passwords can be guessed from, may be recorded"
        yield Problem(message, "capture.secrets")
    if chosen:
        yield Problem("calls are recorded: what their users send and receive is kept", "capture")


def _listener_warnings(path: str, listener: Listener, limits: Limits) -> Iterator[Problem]:
    if "calls_max" in listener.model_fields_set and listener.calls_max > limits.calls_max:
        yield Problem(
            f"is more than limits.calls_max ({limits.calls_max}) and will never be reached",
            f"{path}.calls_max",
        )
    if listener.mode.terminates_tls:
        if listener.tls.max_version is TlsVersion.TLS12:
            yield Problem("TLS 1.3 is off: Windows 11 clients would use it", f"{path}.tls")
        return
    if listener.tls != schema.ListenerTls():
        yield Problem("has no effect in passthrough: TLS does not end here", f"{path}.tls")
    if "polite_endings" in listener.model_fields_set and listener.polite_endings:
        yield Problem(
            "nobody can be told in passthrough: TLS does not end here, and so connections are "
            "ended without a word",
            f"{path}.polite_endings",
        )


# --- the admin side ---------------------------------------------------------------------------


def _admin_warnings(admin: Admin) -> Iterator[Problem]:
    if admin.address is None:
        return
    if admin.token_file is None:
        yield Problem(
            f"everybody who can log in on this machine may do everything through {admin.address}: "
            "set admin.token_file, or use admin.socket",
            "admin.address",
        )
    if not admin.certificates and not ip_address(admin.address.host).is_loopback:
        yield Problem(
            f"the token crosses the network in the clear on its way to {admin.address}: "
            "set admin.certificates",
            "admin.address",
        )


# --- pools ------------------------------------------------------------------------------------


def _pool_warnings(path: str, pool: Pool) -> Iterator[Problem]:
    if all(backend.standing is not Standing.ACTIVE for backend in pool.backends):
        yield Problem("no backend is active: every call will be refused", f"{path}.backends")
    elif all(backend.backup for backend in pool.backends):
        yield Problem("every backend is a backup, so none is", f"{path}.backends")
    if pool.strategy is Strategy.ROUND_ROBIN and any(b.weight != 1 for b in pool.backends):
        yield Problem(
            "round_robin does not look at weights; weighted_round_robin does", f"{path}.strategy"
        )
    if pool.total_timeout >= CLIENT_PATIENCE_S:
        yield Problem(
            f"{_text(pool.total_timeout)}: clients give up after 60 s, and will not see the answer",
            f"{path}.total_timeout",
        )
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
    usual = schema.PoolTls(verify=pool.tls.verify)  # the loader has filled this one in
    if pool.transport is Transport.PLAIN and pool.tls != usual:
        yield Problem("has no effect: these backends speak plain HTTP", f"{path}.tls")


def _call_warnings(path: str, pool: Pool, modes: set[Mode]) -> Iterator[Problem]:
    """Warn about a pool that answers calls, which listeners of these modes send."""
    for number, backend in enumerate(pool.backends):
        where, is_told = f"{path}.backends[{number}]", backend.rras_certificate_sha256 is not None
        if Mode.OFFLOAD in modes and not is_told:
            yield Problem(
                f"{backend.name}: nobody says which certificate this RRAS was told to expect; "
                "set it to what `sstplb fingerprint` shows, so that a wrong one is found "
                "before a call fails",
                f"{where}.rras_certificate_sha256",
            )
        elif is_told and Mode.OFFLOAD not in modes:
            yield Problem(
                "has no effect: only an offloaded RRAS is told a hash",
                f"{where}.rras_certificate_sha256",
            )
    if Mode.REENCRYPT in modes:
        yield from _verify_warnings(path, pool)
        if pool.tls.same_certificate is not MismatchPolicy.REFUSE:
            yield Problem(
                f"{pool.tls.same_certificate}: calls will go to backends with another certificate, "
                "and be torn down after authentication",
                f"{path}.tls.same_certificate",
            )


def _web_warnings(path: str, pool: Pool) -> Iterator[Problem]:
    """Warn about a pool for visitors that do not speak SSTP."""
    check = pool.check
    if check.method in _HTTP_METHODS and check.path == schema.SRA_PATH and check.send is None:
        yield Problem(
            "asks for the SSTP URI, which a web server does not have; set http_method, path and "
            "expect_status to something it answers",
            f"{path}.check.path",
        )
    if pool.transport is Transport.TLS:
        yield from _verify_warnings(path, pool)


def _verify_warnings(path: str, pool: Pool) -> Iterator[Problem]:
    if pool.tls.verify is Verify.OFF:
        yield Problem(
            "verification is off: anybody between here and the backends can read everything",
            f"{path}.tls.verify",
        )


# --- checks -----------------------------------------------------------------------------------


def _check_warnings(path: str, pool: Pool) -> Iterator[Problem]:
    check = pool.check
    if check.method is CheckMethod.TCP:
        yield Problem(
            "a tcp check misleads: the port belongs to the kernel's http.sys and stays open when "
            "the SSTP service is dead; leave method out to ask for the SSTP URI",
            f"{path}.method",
        )
    if check.timeout > check.interval and check.preset is None:
        yield Problem("is longer than the interval: checks will be late", f"{path}.timeout")
    speaks = CheckMethod.HTTPS if pool.transport is Transport.TLS else CheckMethod.HTTP
    if check.method in _HTTP_METHODS and check.method is not speaks and check.port is None:
        yield Problem(
            f"the backends speak {pool.transport} on the port that is checked, so this fails; "
            f"leave method out, or name another port",
            f"{path}.method",
        )
    for name in _idle_knobs(check):
        yield Problem("has no effect with this kind of check", f"{path}.{name}")


def _idle_knobs(check: Check) -> Iterator[str]:
    """Yield what is set in a check but not looked at."""
    usual = Check()
    request = ("http_method", "path", "http_version", "host")
    unread: tuple[str, ...] = ()
    if check.method not in _HTTP_METHODS:
        unread = ("http_method", "path", "http_version", "send", "expect_status", "expect_regex")
    elif check.send is not None:
        unread = request
    if check.method is not CheckMethod.LOGIN:
        unread += ("username", "password")
    if check.down_after is not None or check.preset is CheckPreset.F5:
        unread += ("fall",)
    yield from (name for name in unread if getattr(check, name) != getattr(usual, name))


def _text(seconds: float) -> str:
    return quantities.format_duration(seconds)

"""Everything that can be set, in one place: each knob with its unit, its default and why.

The models are frozen: a configuration is a snapshot, replaced as a whole at reload. Field names
are the YAML keys. ``docs/configuration.md`` has a heading per knob and ``conf/full.yaml`` shows
each at its default; a test holds the three together.

What one value may be, and how its text is read, is said in ``quantities.py``. What can only be
judged with two knobs in view (a certificate in a passthrough listener, a pool that does not exist)
is judged in ``judge.py``; ``loader.py`` reports all mistakes at once with their lines, and fills in
what follows from elsewhere (a pool's transport, a backend's default port).
"""

import os
from enum import StrEnum
from typing import Annotated

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    WithJsonSchema,
)

from sstplb.config.quantities import (
    Address,
    Bytes,
    File,
    FileBytes,
    Name,
    Network,
    Seconds,
    SecondsOrZero,
    Sha256Hex,
    StatusRange,
    SyslogTarget,
    TenantId,
    Word,
    Workers,
    as_text,
    ascii_name,
)

SRA_PATH = "/sra_{BA195980-CD49-458b-9E23-C84EE0ADCD75}/"
"""The URI of SSTP ([MS-SSTP] 2.2.1); the whole world uses this one GUID."""

# --- choices ---------------------------------------------------------------------------------


class Mode(StrEnum):
    """How a listener carries a call."""

    PASSTHROUGH = "passthrough"
    OFFLOAD = "offload"
    REENCRYPT = "reencrypt"

    @property
    def terminates_tls(self) -> bool:
        """Whether the client's TLS ends here."""
        return self is not Mode.PASSTHROUGH


class Transport(StrEnum):
    """What a backend speaks on its port."""

    TLS = "tls"
    PLAIN = "plain"

    @property
    def port(self) -> int:
        """The usual port: 443 or 80."""
        return 443 if self is Transport.TLS else 80


class Strategy(StrEnum):
    """Who is asked first when affinity has no answer."""

    ROUND_ROBIN = "round_robin"
    WEIGHTED_ROUND_ROBIN = "weighted_round_robin"
    LEAST_CALLS = "least_calls"
    SOURCE_HASH = "source_hash"


class Standing(StrEnum):
    """The operator's word on a backend."""

    ACTIVE = "active"
    DRAINING = "draining"
    OFF = "off"


class CheckMethod(StrEnum):
    """How a backend is asked whether it is well."""

    HTTPS = "https"
    HTTP = "http"
    SSTP = "sstp"
    LOGIN = "login"
    TCP = "tcp"


class CheckPreset(StrEnum):
    """Products whose timing and judgement a check can imitate."""

    KEMP = "kemp"
    F5 = "f5"


class Verify(StrEnum):
    """How a backend's certificate is verified."""

    CA = "ca"
    PIN = "pin"
    OFF = "off"


class MismatchPolicy(StrEnum):
    """What to do when a backend expects another certificate than we serve."""

    REFUSE = "refuse"
    WARN = "warn"
    OFF = "off"


class UnknownTenant(StrEnum):
    """What happens to a call that names a tenant without a pool."""

    DEFAULT = "default"
    REFUSE = "refuse"


class OnDown(StrEnum):
    """What happens to running calls when their backend goes down."""

    KEEP = "keep"
    CLOSE = "close"


class ProxyVersion(StrEnum):
    """Which PROXY protocol preface a backend is sent."""

    OFF = "off"
    V1 = "v1"
    V2 = "v2"


class TlsVersion(StrEnum):
    """TLS versions we speak; older ones are not offered at all."""

    TLS12 = "1.2"
    TLS13 = "1.3"


Version = Annotated[
    TlsVersion, BeforeValidator(as_text), WithJsonSchema({"enum": ["1.2", "1.3", 1.2, 1.3]})
]
"""A TLS version; with or without quotes in the file."""


class Follow(StrEnum):
    """How much of the SSTP conversation a terminating listener looks at."""

    FULL = "full"
    """Every packet's header: counts packets, finds a malformed stream, sees every ending."""
    OPENING = "opening"
    """All until the binding is accepted; then only what could be an ending."""
    OFF = "off"


class Disclosure(StrEnum):
    """How something about a user is shown in log, API and page."""

    SHOWN = "shown"
    HASHED = "hashed"
    HIDDEN = "hidden"


class Engine(StrEnum):
    """Which OpenSSL does the work."""

    AUTO = "auto"
    NATIVE = "native"
    PORTABLE = "portable"


class Ktls(StrEnum):
    """Whether the kernel seals and opens TLS records."""

    AUTO = "auto"
    OFF = "off"
    REQUIRED = "required"


class LogFormat(StrEnum):
    """How log lines look; ``auto`` is human on a terminal and JSON elsewhere."""

    AUTO = "auto"
    HUMAN = "human"
    JSON = "json"


class SyslogFacility(StrEnum):
    """What kind of program syslog takes us for."""

    DAEMON = "daemon"
    USER = "user"
    LOCAL0 = "local0"
    LOCAL1 = "local1"
    LOCAL2 = "local2"
    LOCAL3 = "local3"
    LOCAL4 = "local4"
    LOCAL5 = "local5"
    LOCAL6 = "local6"
    LOCAL7 = "local7"


class LogLevel(StrEnum):
    """The least severe level that is written."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class Model(BaseModel):
    """The ground of every section: frozen, and unknown keys are mistakes."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False
    )


class Secret(Model):
    """A secret, named by where it is kept; never written in the configuration itself."""

    file: File | None = None
    """A file that holds the secret; a trailing newline is dropped."""
    env: Word | None = None
    """An environment variable that holds the secret."""


# --- listeners ------------------------------------------------------------------------------


class CertificateFiles(Model):
    """One certificate we serve, and its key."""

    chain: File
    """PEM file: the server's certificate first, then the intermediates."""
    key: File | None = None
    """PEM file of the private key; left out when the chain file holds the key too."""
    key_passphrase: Secret | None = None
    """Where the passphrase of an encrypted key is kept."""


class ListenerTls(Model):
    """TLS towards the client, where it ends here."""

    min_version: Version = TlsVersion.TLS12
    """The oldest version accepted; Windows 10 and later speak 1.2, Windows 11 also 1.3."""
    max_version: Version = TlsVersion.TLS13
    """The newest version offered."""
    ciphers: str = (
        "ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256:"
        "ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-RSA-AES256-GCM-SHA384:"
        "ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-RSA-CHACHA20-POLY1305"
    )
    """TLS 1.2 suites in OpenSSL's notation: forward secret and authenticated ones only."""
    ciphersuites: str = "TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256"
    """TLS 1.3 suites in OpenSSL's notation."""
    session_resumption: bool = True
    """Whether a returning client may resume its session (tickets) and save a full handshake."""
    session_lifetime: Seconds = 7200.0
    """How long a session may be resumed."""


class Listener(Model):
    """One address that accepts calls."""

    name: Name
    """How logs and metrics call this listener."""
    address: Address
    """Where to listen: ``0.0.0.0:443``, ``[::]:443`` (both families) or one address."""
    mode: Mode
    """``passthrough``, ``offload`` or ``reencrypt``."""
    pool: Name
    """The pool that answers calls."""
    certificates: tuple[CertificateFiles, ...] = ()
    """Certificates to serve, chosen by SNI; the first is for clients that name no server. Of
    several for the same name, a client is shown the one that its backend accepts (see
    docs/certificates.md)."""
    tls: ListenerTls = ListenerTls()
    """TLS towards clients."""
    sni_pools: dict[str, Name] = Field(default_factory=dict)
    """Other pools by server name (``vpn2.example.test`` or ``*.example.test``)."""
    tenant_pools: dict[TenantId, Name] = Field(default_factory=dict)
    """Other pools by tenant: what a client writes after ``?tenantid=`` in the URI (3.2.4.1),
    in whatever case. It goes before the server name; clients that name no tenant go by that."""
    unknown_tenant: UnknownTenant = UnknownTenant.DEFAULT
    """A call that names a tenant which is not in ``tenant_pools``: ``default`` lets it go where it
    would without one, ``refuse`` answers 404, so that no tenant lands among others by a typo."""
    web_pool: Name | None = None
    """Where visitors go that do not speak SSTP; without it they get a 404."""
    proxy_protocol_from: tuple[Network, ...] = ()
    """Networks whose connections must begin with a PROXY protocol preface (v1 or v2)."""
    follow: Follow = Follow.OPENING
    """How much of a call's SSTP packets is looked at: ``opening`` until the crypto binding is
    accepted (PPP's control packets too, for the call's story), then endings only; ``full`` all
    headers and control packets, which costs a tenth of the CPU of small packets; ``off`` none, so
    wrong hashes go unnoticed."""
    polite_endings: bool = True
    """Whether client and RRAS are sent a CALL_DISCONNECT when it is us who end a call (drain, stop,
    silence). It is the only thing we ever say inside a tunnel: without it a client takes the end
    for a broken line. Where TLS does not end here there is only the end of the connection."""
    calls_max: Annotated[int, Field(ge=1)] = 10000
    """Calls at one time on this listener."""
    backlog: Annotated[int, Field(ge=1, le=65535)] = 1024
    """Connections the kernel holds for us before we accept them."""


# --- pools ----------------------------------------------------------------------------------


class Backend(Model):
    """One RRAS server."""

    name: Name
    """How logs and metrics call this backend."""
    address: Address
    """Where it is: an address or a name; the port defaults to 443, or 80 when offloading."""
    weight: Annotated[int, Field(ge=1, le=1000)] = 1
    """Its share of calls, for the weighted strategies and source hash."""
    calls_max: Annotated[int, Field(ge=1)] = 1000
    """Calls at one time; give it the number of SSTP ports RRAS is configured with."""
    backup: bool = False
    """Used only when no other backend of the pool can be."""
    standing: Standing = Standing.ACTIVE
    """``active``; ``draining``: running calls stay, no new ones; ``off``: not even checked."""
    rras_certificate_sha256: Sha256Hex | None = None
    """Offload: the hash this RRAS was told with Enable-SSTPOffload, compared with ours. It may be
    changed at run time; without it, login checks and calls teach what is accepted."""


class Affinity(Model):
    """Source affinity: a client that returns finds the same backend."""

    enabled: bool = True
    """Whether to remember. A backend that fails a client's call after the 200 (a refused binding, a
    NAK, a time-out) is asked last by it from then on, not first; a restart or an upgrade forgets
    that."""
    timeout: SecondsOrZero = 360.0
    """How long after the last call of a client it is remembered (Kemp's usual 6 minutes)."""
    prefix_v4: Annotated[int, Field(ge=0, le=32)] = 32
    """Bits of an IPv4 address that make a client."""
    prefix_v6: Annotated[int, Field(ge=0, le=128)] = 64
    """Bits of an IPv6 address that make a client; 64, for privacy addresses change below it."""
    entries_max: Annotated[int, Field(ge=1)] = 100_000
    """Clients remembered; beyond it the least recently used is forgotten."""


class Check(Model):
    """How a backend is asked whether it is well."""

    preset: CheckPreset | None = None
    """Imitate the timing and judgement of ``kemp`` or ``f5``; what is set beside it wins."""
    method: CheckMethod | None = None
    """``https``, ``http``, ``sstp``, ``login`` or ``tcp``; by default HTTP as the pool speaks."""
    port: Annotated[int, Field(ge=1, le=65535)] | None = None
    """Another port to check than the one calls go to."""
    http_method: Annotated[str, StringConstraints(pattern=r"^[A-Z]+$")] = "HEAD"
    """The request's method."""
    path: Annotated[str, StringConstraints(pattern=r"^/[!-~]*$")] = SRA_PATH
    """The request's path."""
    http_version: Annotated[
        str,
        BeforeValidator(as_text),
        StringConstraints(pattern=r"^1\.[01]$"),
        WithJsonSchema({"enum": ["1.0", "1.1", 1.0, 1.1]}),
    ] = "1.1"
    """The request's HTTP version."""
    host: Word | None = None
    """The request's Host header; by default the pool's server name or the address."""
    send: str | None = None
    """A whole request to send instead, in F5's notation with ``\\r\\n`` escapes."""
    expect_status: tuple[StatusRange, ...] = ("401",)
    """Statuses that mean well; RRAS answers HEAD with 401 while its SSTP service runs."""
    expect_regex: str | None = None
    """A regular expression the first 4 KiB of the answer must contain as well."""
    interval: Seconds = 5.0
    """From the start of one check to the start of the next."""
    timeout: Seconds = 4.0
    """How long one check may take."""
    rise: Annotated[int, Field(ge=1)] = 2
    """Good answers in a row that make a backend up."""
    fall: Annotated[int, Field(ge=1)] = 3
    """Bad answers in a row that make a backend down."""
    wrong_answer_is_final: bool = False
    """Kemp's judgement: retries are for silence only, a wrong answer is down at once."""
    down_after: Seconds | None = None
    """F5's judgement: down when no good answer came for this long, instead of ``fall``."""
    jitter: Annotated[float, Field(ge=0, le=1)] = 0.1
    """Each interval is drawn this much longer or shorter, so that checks do not march in step."""
    initially_up: bool = False
    """Whether a backend may be used before its first check; that check decides alone."""
    username: Annotated[str, StringConstraints(min_length=1)] | None = None
    """Test account for ``login``; ``DOMAIN\\user`` is allowed."""
    password: Secret | None = None
    """Where the test account's password is kept."""


class Passive(Model):
    """What real calls tell of a backend's health."""

    failures: Annotated[int, Field(ge=0)] = 3
    """Failed calls that put a backend aside when none goes well in between; 0 turns this off."""
    good_calls_per_failure: Annotated[int, Field(ge=1)] = 3
    """Good calls that make up for a failed one. With 3, a backend that fails more than one call in
    four is found out however many go well in between, and one that fails fewer never is."""
    client_failures_max: Annotated[int, Field(ge=1)] = 2
    """Of the failures that count, how many may be one client network's. It concerns what comes
    after the 200 (a refused binding, a time-out), which a client can bring about: below
    ``failures``, no client alone can put a server aside. Raise it where all share an address."""
    back_off: Seconds = 10.0
    """How long it stays aside the first time; doubled each time it fails again at once."""
    back_off_max: Seconds = 300.0
    """The longest it stays aside."""
    set_aside_percent_max: Annotated[int, Field(ge=1, le=100)] = 50
    """How many of the backends in service may be kept away like this at one time: at least one,
    never the last. What fails everywhere (a RADIUS server) is no backend's own fault, and must
    not empty the pool; those set aside first come back first."""


class PoolTls(Model):
    """TLS towards the backends."""

    verify: Verify | None = None
    """``ca``, ``pin`` or ``off``; by default ``ca`` when re-encrypting, ``off`` for the checks
    of a passthrough pool, where the client itself is who verifies."""
    ca_file: File | None = None
    """PEM file of the CAs that ``ca`` trusts; by default the system's."""
    pins: tuple[Sha256Hex, ...] = ()
    """SHA-256 of the leaf certificates that ``pin`` accepts."""
    server_name: Annotated[Word, BeforeValidator(ascii_name)] | None = None
    """SNI to send and name to verify; by default the backend's own name or, if it has none,
    the first name in the certificate we serve (both sides hold the same one)."""
    min_version: Version = TlsVersion.TLS12
    """The oldest version spoken to a backend."""
    max_version: Version = TlsVersion.TLS13
    """The newest version offered to a backend. A session that is resumed costs both sides more
    with 1.3, which agrees on new keys for it, than with 1.2, which does not."""
    session_resumption: bool = True
    """Whether a session with a backend is resumed, which saves both sides most of a handshake.
    Checks never resume: a certificate that was renewed is seen by the next one, and the sessions
    with the old one are forgotten. The native engine only."""
    same_certificate: MismatchPolicy = MismatchPolicy.REFUSE
    """The same-certificate rule: ``refuse`` a backend whose leaf differs from ours, ``warn``
    or ``off``. A different one makes every call fail after authentication."""


class Pool(Model):
    """RRAS servers that answer for one another."""

    backends: Annotated[tuple[Backend, ...], Field(min_length=1)]
    """The servers."""
    transport: Transport | None = None
    """``tls`` or ``plain``; by default what the listeners that use the pool need."""
    strategy: Strategy = Strategy.ROUND_ROBIN
    """Who is asked first when affinity has no answer."""
    affinity: Affinity = Affinity()
    """Source affinity."""
    check: Check = Check()
    """Health checks."""
    passive: Passive = Passive()
    """What real calls tell of health."""
    tls: PoolTls = PoolTls()
    """TLS towards the backends."""
    on_down: OnDown = OnDown.KEEP
    """Whether running calls are kept or closed when their backend goes down."""
    proxy_protocol: ProxyVersion = ProxyVersion.OFF
    """Send a PROXY preface. RRAS does not understand it; accel-ppp and sstp-server do."""
    transparent_source: bool = False
    """Dial with the client's own address (IP_TRANSPARENT); needs routing, see the docs."""
    tries_max: Annotated[int, Field(ge=1)] = 3
    """Backends asked for one call before giving up."""
    try_timeout: Seconds = 10.0
    """How long one backend may take from dial to its 200."""
    total_timeout: Seconds = 25.0
    """How long all tries together may take; Windows clients give up at 60 s."""


# --- the whole ------------------------------------------------------------------------------


class Limits(Model):
    """Bounds that hold for the whole balancer."""

    calls_max: Annotated[int, Field(ge=1)] = 20_000
    """Calls at one time."""
    calls_max_per_client: Annotated[int, Field(ge=1)] = 2000
    """Calls at one time from one client network; an office behind NAT counts as one."""
    openings_max: Annotated[int, Field(ge=1)] = 2000
    """Calls at one time that are not handed over yet (handshakes, heads, dials)."""
    accept_rate_per_client: Annotated[float, Field(gt=0)] = 200.0
    """New calls per second from one client network."""
    accept_burst_per_client: Annotated[int, Field(ge=1)] = 400
    """New calls one client network may make at once before the rate counts."""
    client_prefix_v4: Annotated[int, Field(ge=0, le=32)] = 32
    """Bits of an IPv4 address that make a client network."""
    client_prefix_v6: Annotated[int, Field(ge=0, le=128)] = 64
    """Bits of an IPv6 address that make a client network."""
    client_networks_max: Annotated[int, Field(ge=1)] = 100_000
    """Client networks whose rate is remembered."""
    preface_timeout: Seconds = 5.0
    """How long a PROXY preface may take."""
    handshake_timeout: Seconds = 10.0
    """How long a client's TLS handshake may take."""
    head_timeout: Seconds = 10.0
    """How long the head of the request may take after the handshake."""
    head_bytes_max: Bytes = 16384
    """The largest head, of a request or an answer."""
    idle_timeout: Seconds = 660.0
    """A call without a byte either way for this long is ended. SSTP says hello after 60 s of
    silence and gives up after 120 s: under 130 s healthy quiet calls would be cut."""
    half_closed_timeout: Seconds = 30.0
    """The same limit, once one side has finished sending."""
    relay_buffer: Bytes = 262_144
    """The most that is read from one side before it is written to the other. A receiver that does
    not keep up holds one in memory; of many in one process, the 65th and those after it 32 KiB each
    (not with the portable engine)."""
    tcp_keepalive: SecondsOrZero = 120.0
    """Silence after which TCP asks the far end whether it still lives; 0 turns it off."""
    stop_timeout: SecondsOrZero = 30.0
    """How long running calls may go on after SIGTERM before they are ended; with 0 they are cut."""
    endings_per_second: Annotated[float, Field(gt=0)] = 100.0
    """Calls that are ended in a second when there are many (stop, drain, a backend that went
    down): their clients will call again, and should not all do so at once. A stop that finds 1000
    calls at the end of ``stop_timeout`` takes 10 s longer."""


class Log(Model):
    """What is written where."""

    format: LogFormat = LogFormat.AUTO
    """``auto``, ``human`` or ``json``."""
    level: LogLevel = LogLevel.INFO
    """The least severe level that is written; a call's line is INFO."""
    file: File | None = None
    """A file to append to; by default standard error."""
    syslog: SyslogTarget | None = None
    """A syslog server that gets each line too (RFC 5424, the text is JSON): ``udp://10.0.0.5:514``,
    ``tcp://10.0.0.5:601``, or a local daemon's socket such as ``/dev/log``."""
    syslog_facility: SyslogFacility = SyslogFacility.DAEMON
    """``daemon``, ``user``, or ``local0`` to ``local7``."""


class Admin(Model):
    """How the balancer is operated: API, page, metrics. Closed unless a door is set."""

    socket: File | None = None
    """A unix socket (mode 0600): whoever may open it may do everything."""
    address: Address | None = None
    """A TCP address, such as ``127.0.0.1:8444``; beyond loopback it needs ``token_file``."""
    token_file: File | None = None
    """A file with the bearer token that requests over TCP must carry, 16 characters or more."""
    certificates: tuple[CertificateFiles, ...] = ()
    """TLS for ``address``: certificates to serve, chosen by SNI; without one it is plain HTTP."""
    streams_max: Annotated[int, Field(ge=1)] = 32
    """Pages and programs that may follow events live at one time."""


class Capture(Model):
    """Recording what chosen calls say inside TLS, as files for Wireshark (pcapng).

    Such a file holds what users send and receive: allow it only while you need it.
    """

    directory: File | None = None
    """Where captures are written, readable by the balancer's user only. Without it there are none;
    with it operators may begin them (``sstplb capture begin``, the API). It must exist."""
    client: Network | None = None
    """Capture calls from here. With this or ``listener`` a capture begins when the configuration
    comes into force, of calls that run (as far as they can be joined) and of new ones."""
    listener: Name | None = None
    """Capture calls of this listener; it must end TLS. With ``client``, both must fit."""
    seconds_max: Seconds = 300.0
    """How long a capture lasts at most."""
    bytes_max: FileBytes = 64 << 20
    """How large a capture's file becomes. Each worker writes a file of its own."""
    calls_max: Annotated[int, Field(ge=1)] = 16
    """Calls that are recorded at one time, by all captures of a worker together."""
    files_max: Annotated[int, Field(ge=1)] = 32
    """Captures in the directory; with so many no new one begins until you remove some."""
    secrets: bool = False
    """Whether passwords, challenges and responses are recorded too; else zeros stand for them."""


class Privacy(Model):
    """What log, API and page tell of who calls, where TLS ends here and calls are followed.

    RRAS writes all three into its own log, and a help desk that is called begins with a name: so
    they are shown unless you say otherwise. ``hashed`` makes calls of one user recognisable without
    a name, ``hidden`` leaves it out. Challenges, responses and passwords are never kept, whatever
    stands here.
    """

    user: Disclosure = Disclosure.SHOWN
    """The name a user authenticates with: ``shown``, ``hashed`` or ``hidden``."""
    computer: Disclosure = Disclosure.SHOWN
    """The name of the user's computer, which Windows tells."""
    address: Disclosure = Disclosure.SHOWN
    """The address RRAS assigns inside the tunnel."""
    key: Secret | None = None
    """What hashes are keyed with, 16 characters or more, so that nobody can try out names. Without
    it a new key is made at each start and reload, and hashes do not compare beyond that."""


class Tls(Model):
    """How TLS is done, for the whole balancer."""

    engine: Engine = Engine.AUTO
    """``native``: OpenSSL on the socket itself, the cheapest per byte; ``portable``: pyOpenSSL's
    own over memory, everywhere; ``auto``: native where an OpenSSL 3 can be loaded."""
    library: str | None = None
    """Which OpenSSL the native engine loads: a ``libssl.so.3`` by its path, or by that name the
    system's. By default the newer one of the system's and, where it is installed, the one of the
    extra ``openssl``; but where only one of them can use the kernel's TLS, that one. ``check``
    says which it is."""
    ktls: Ktls = Ktls.AUTO
    """Whether the kernel seals and opens the records, so that bytes can pass without entering this
    program: ``auto`` where kernel and OpenSSL can (``modprobe tls``; ``check`` says what they can);
    ``required`` does not start without. The native engine only."""
    watch_files: bool = True
    """Whether certificates and keys are read again when their files change."""


class Config(Model):
    """The whole configuration: one YAML file."""

    listeners: Annotated[tuple[Listener, ...], Field(min_length=1)]
    """Addresses that accept calls."""
    pools: Annotated[dict[Name, Pool], Field(min_length=1)]
    """RRAS servers, in groups that answer for one another."""
    workers: Workers = 0
    """Processes that carry calls: a number, or ``auto``, one for each core. With 1 there is a
    single process; else one more decides, and round robin, affinity and limits stay exact. Another
    number takes effect with a restart or an upgrade, not with a reload."""
    limits: Limits = Limits()
    """Bounds that hold for the whole balancer."""
    tls: Tls = Tls()
    """How TLS is done."""
    log: Log = Log()
    """What is written where."""
    admin: Admin = Admin()
    """How the balancer is operated while it runs."""
    state_file: File | None = None
    """Where standings, pins and the affinity table are kept for the next start; its directory must
    be writable. Without it a restart forgets them; an upgrade never does."""
    capture: Capture = Capture()
    """Recording what chosen calls say."""
    privacy: Privacy = Privacy()
    """What is told of who calls."""

    @property
    def workers_count(self) -> int:
        """How many processes carry calls on this machine."""
        return self.workers or len(os.sched_getaffinity(0))

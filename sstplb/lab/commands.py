"""The lab's commands: look at a server, place calls, play a server, make certificates, the demo.

Thin: each says what it does, calls a room, shows the result. ``cli.py`` puts them beside the
balancer's own commands. Exit codes are those of ``control/run.py``.
"""

import asyncio
import json
from collections.abc import Callable
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated, NoReturn

import typer
from rich.table import Table

from sstplb.balance.health import apply_preset
from sstplb.config import quantities, schema
from sstplb.config.quantities import Endpoint, parse_endpoint, parse_target
from sstplb.config.schema import Check, CheckMethod, CheckPreset, PoolTls, Secret, Transport, Verify
from sstplb.control import given
from sstplb.control.ctl import group, rolling
from sstplb.control.run import ExitCode
from sstplb.errors import AskError, CertificateError, ConfigError
from sstplb.lab import demo as lab_demo
from sstplb.lab import lifetime
from sstplb.lab.caller import CallPlan, CallReport, place_call, place_calls
from sstplb.lab.lessons.commands import app as lesson_app
from sstplb.lab.pki import ROOT_DAYS, SERVER_DAYS, KeyKind, LabPki, parse_name
from sstplb.lab.rras import Fault, Rras, RrasSettings
from sstplb.net.call import now_s
from sstplb.net.dial import Way
from sstplb.net.probe import Probed
from sstplb.net.probe import probe as probe_once
from sstplb.net.tcp import Address, resolve
from sstplb.protocol.caller import Step, StepKind
from sstplb.protocol.ppp_peer import Authentication
from sstplb.tls.certificate import days_left, load_certificate, read_secret
from sstplb.tls.policy import ClientPolicy

app = typer.Typer()
certs_app = typer.Typer(
    help="Lab certificates: a root, and servers' certificates from it; and where a renewal stands.",
    no_args_is_help=True,
)
app.add_typer(certs_app, name="certs")
app.add_typer(lesson_app, name="lesson")
out, err = group.console(markup=True), group.console(is_error=True, markup=True)

Target = Annotated[
    Endpoint,
    typer.Argument(
        help="Where: HOST:PORT; IPv6 as [::1]:443.",
        metavar="HOST:PORT",
        parser=given.by(parse_target),
    ),
]
Listen = Annotated[
    Endpoint | None,
    typer.Option(help="Where to listen.", metavar="HOST:PORT", parser=given.by(parse_endpoint)),
]
Directory = Annotated[
    Path, typer.Argument(help="Where they are kept.", metavar="DIR", readable=False)
]
CertName = Annotated[str, typer.Option(help="File name without ending.")]
Days = Annotated[
    int, typer.Option(help="How long it is valid: at most as a root.", min=1, max=ROOT_DAYS)
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]
Plain = Annotated[bool, typer.Option("--plain", help="Speak plain HTTP, as to an offloaded RRAS.")]
CaFile = Annotated[
    Path | None,
    typer.Option("--ca", help="CAs to trust (PEM); by default the system's.", readable=False),
]
Insecure = Annotated[bool, typer.Option("--insecure", help="Do not verify the certificate.")]
ServerName = Annotated[
    str | None, typer.Option("--server-name", help="SNI to send and name to verify.")
]
User = Annotated[str, typer.Option("--user", help="Account; DOMAIN\\user is allowed.")]
PasswordFile = Annotated[
    Path | None,
    typer.Option("--password-file", help="File that holds the password.", readable=False),
]
PasswordEnv = Annotated[
    str, typer.Option("--password-env", help="Environment variable that holds the password.")
]
BindTo = Annotated[
    Path | None,
    typer.Option(
        "--cert", help="Bind to this certificate instead of the one that is seen.", readable=False
    ),
]
Size = Annotated[
    int,
    typer.Option(
        help="Bytes to send through the tunnel and expect back, e.g. 1MiB.",
        metavar="SIZE",
        parser=given.by(quantities.parse_size),
    ),
]
Duration = Annotated[
    float,
    typer.Option(
        help="How long to stay afterwards, e.g. 10s.",
        metavar="TIME",
        parser=given.by(quantities.parse_duration),
    ),
]


class ProbeMethod(StrEnum):
    """What ``probe --method`` takes: a check, or a product's way of making it."""

    HTTPS = "https"
    HTTP = "http"
    SSTP = "sstp"
    LOGIN = "login"
    TCP = "tcp"
    KEMP = "kemp"
    F5 = "f5"


@app.command()
def probe(
    target: Target,
    method: Annotated[
        ProbeMethod | None, typer.Option(help="How to ask; by default as calls are carried.")
    ] = None,
    plain: Plain = False,
    ca: CaFile = None,
    insecure: Insecure = False,
    server_name: ServerName = None,
    user: User = "",
    password_file: PasswordFile = None,
    password_env: PasswordEnv = "",
    cert: BindTo = None,
    as_json: Json = False,
) -> None:
    """Make one health check, show its transcript, and explain the result.

    Exit codes: 0 the backend is well; 1 it is not.
    """
    name = method.value if method is not None else ("http" if plain else "https")
    preset = CheckPreset(name) if name in set(CheckPreset) else None
    kind = ("http" if plain else "https") if preset is not None else name
    settings = apply_preset(Check(preset=preset, method=CheckMethod(kind), username=user or None))
    over_tls = not plain and kind not in ("http", "tcp")
    policy = _policy(ca, insecure) if over_tls else None
    usual = Transport.TLS if over_tls or kind == "tcp" else Transport.PLAIN
    password = _password(password_file, password_env)
    if kind == "login" and not (user and password):
        _usage("--method login needs an account: --user, and --password-file or --password-env")
    leaf = load_certificate(cert).leaf_der if cert is not None else b""

    async def ask() -> Probed:
        address = await resolve(target.host, target.port or usual.port)
        way = Way(address, policy, server_name or target.host)
        return await probe_once(way, settings, password=password, leaf_der=leaf)

    result = lifetime.run(ask())
    verdict = result.verdict
    reason, transcript = _in_options(verdict.reason), _in_options(verdict.transcript)
    if as_json:
        facts = {
            "good": verdict.good,
            "reason": reason,
            "seconds": round(result.seconds, 6),
            "transcript": transcript.splitlines(),
        }
        out.print_json(json.dumps(facts))
    else:
        out.print(transcript, markup=False, soft_wrap=True)
        word = "[green]well[/green]" if verdict.good else "[red]not well[/red]"
        out.print(f"\n{word} after {result.seconds * 1000:.1f} ms: ", end="")
        # No certificate was seen, for hands were not shaken: it may not speak TLS at all.
        hint = _NO_TLS if over_tls and result.leaf_der is None and "no answer" in reason else ""
        said = _explain(name, reason, hint, good=verdict.good)
        out.print(said, markup=False, soft_wrap=True)
    _leave(ExitCode.OK if verdict.good else ExitCode.FAILED)


_NO_TLS = (
    "if it speaks plain HTTP on this port (an offloaded RRAS), give --plain; else look for a "
    "firewall on the way."
)


def _explain(method: str, reason: str, otherwise: str, *, good: bool) -> str:
    """Say what a probe's result means for an operator."""
    if good and method == "tcp":
        return (
            f"{reason}. Do not trust this check: ask for the SSTP URI instead (leave out --method)."
        )
    if good:
        return f"{reason}."
    hints = (
        ("got 404", "http.sys answers, but nobody serves the SSTP URI: is RemoteAccess running?"),
        ("got 503", "http.sys answers, but the SSTP service does not: is SstpSvc running?"),
        ("got 200", "some web server answers for every path: is this RRAS at all?"),
        ("plain HTTP", "if this RRAS is offloaded, probe it with --plain."),
        ("connection refused", "nobody listens there: wrong port, or the machine is starting."),
        ("trusted CAs", "give its CA with --ca, or look without verifying: --insecure."),
        ("without an answer", "if it speaks TLS on this port, leave out --plain."),
        ("crypto binding", "RRAS expects another certificate: compare with sstplb fingerprint."),
    )
    hint = next((text for words, text in hints if words in reason), otherwise)
    return f"{reason}. {hint}".rstrip()


@app.command()
def call(
    target: Target,
    user: User = "user",
    password_file: PasswordFile = None,
    password_env: PasswordEnv = "",
    plain: Plain = False,
    ca: CaFile = None,
    insecure: Insecure = False,
    server_name: ServerName = None,
    cert: BindTo = None,
    data: Size = 0,
    hold: Duration = 0.0,
    tenant: Annotated[str | None, typer.Option(help="?tenantid= of the request.")] = None,
    calls: Annotated[int, typer.Option(help="How many calls to place.", min=1)] = 1,
    at_once: Annotated[int, typer.Option(help="How many at one time.", min=1)] = 10,
    rate: Annotated[
        float, typer.Option(help="New calls per second; 0: as fast as they end.", min=0)
    ] = 0,
    as_json: Json = False,
) -> None:
    """Place a real SSTP call, and say at each step what happened.

    TLS, HTTP opening, CALL_CONNECT, PPP (LCP, MS-CHAPv2 or PAP, IPCP), crypto binding, a ping
    through the tunnel, disconnect. With --calls it makes load instead, and shows a summary.

    Exit codes: 0 every call went well; 1 one did not.
    """
    policy = None if plain else _policy(ca, insecure)
    password = _password(password_file, password_env) or "password"
    bind_to = load_certificate(cert) if cert is not None else None

    async def place() -> list[CallReport]:
        usual = Transport.PLAIN if plain else Transport.TLS
        address = await resolve(target.host, target.port or usual.port)
        plan = CallPlan(
            address, server_name or target.host, user, password, policy, bind_to,
            data_bytes=data, hold_s=hold, tenant_id=tenant,
        )  # fmt: skip
        if calls > 1:
            plans = [plan] * calls
            with out.status("placing calls…") as status:
                reports = []
                async for report in place_calls(plans, at_once=at_once, rate_per_s=rate):
                    reports.append(report)
                    failed = sum(not r.ok for r in reports)
                    status.update(f"{len(reports)} of {calls} calls ended, {failed} failed")
            return reports
        return [await place_call(plan, None if as_json else _show_step(now_s()))]

    reports = lifetime.run(place())
    if as_json:
        out.print_json(json.dumps([_call_facts(report) for report in reports]))
    elif calls > 1:
        _show_calls(reports)
    else:
        _show_call(reports[0])
    _leave(ExitCode.OK if all(report.ok for report in reports) else ExitCode.FAILED)


def _show_step(began: float) -> Callable[[Step], None]:
    def show(step: Step) -> None:
        mark = "[red]✗[/red]" if step.kind is StepKind.FAILED else "[green]✓[/green]"
        out.print(f"{mark} {(step.at - began) * 1000:8.1f} ms  ", end="")
        out.print(_in_options(step.sentence), markup=False, soft_wrap=True)

    return show


def _call_facts(report: CallReport) -> dict[str, object]:
    return {
        "ok": report.ok,
        "reason": report.failure.reason if report.failure else None,
        "sentence": _in_options(report.failure.sentence) if report.failure else None,
        "correlation_id": report.correlation_id,
        "certificate_sha256": report.certificate.sha256.hex() if report.certificate else None,
        "tls_version": report.tls_version or None,
        "address": report.address or None,
        "connect_s": report.connect_s,
        "ping_s": report.ping_s,
        "echoed_bytes": report.echoed_bytes,
        "steps": [
            {
                "step": str(step.kind.value),
                "at_s": round(step.at - report.began, 6),
                "sentence": _in_options(step.sentence),
            }
            for step in report.steps
        ],
    }


def _show_call(report: CallReport) -> None:
    if report.ping_s is not None:
        out.print(f"  ping through the tunnel: {report.ping_s * 1000:.2f} ms")
    if report.echoed_bytes and report.ok:
        out.print(f"  {report.echoed_bytes} bytes came back the same")
    out.print(f"  correlation id {report.correlation_id}: find it in the logs of both sides")
    if report.failure is not None:
        err.print(f"failed: {report.failure.reason}", style="red")


def _show_calls(reports: list[CallReport]) -> None:
    table = Table("result", "calls", title=f"{len(reports)} calls")
    reasons = [report.failure.reason if report.failure else "ok" for report in reports]
    for reason in sorted(set(reasons)):
        table.add_row(reason, str(reasons.count(reason)))
    out.print(table)
    times = sorted(r.connect_s for r in reports if r.connect_s is not None)
    if times:
        middle, late = times[len(times) // 2], times[int(len(times) * 0.99)]
        out.print(f"time to connect: median {middle * 1000:.1f} ms, p99 {late * 1000:.1f} ms")


@app.command()
def rras(
    https: Listen = None,
    http: Listen = None,
    cert: Annotated[
        Path | None, typer.Option(help="Its certificate (PEM).", readable=False)
    ] = None,
    key: Annotated[Path | None, typer.Option(help="Its key (PEM).", readable=False)] = None,
    offload_hash: Annotated[
        str | None,
        typer.Option(help="The SHA-256 that Enable-SSTPOffload told it.", metavar="HEX"),
    ] = None,
    account: Annotated[
        list[str] | None, typer.Option(help="user:password; may be repeated.")
    ] = None,
    ports: Annotated[int, typer.Option(help="SSTP ports.", min=1, max=65000)] = 128,
    authentication: Annotated[
        Authentication, typer.Option(help="What clients are asked for.")
    ] = Authentication.MSCHAPV2,
    fault: Annotated[Fault, typer.Option(help="What to make wrong.")] = Fault.NONE,
) -> None:
    """Run a simulated RRAS server, and print its events under Windows' numbers.

    What of Windows it assumes is marked in sstplb/lab/rras.py. Default account: user:password.
    """
    if https is None and http is None:
        _usage("give --https or --http: where to listen")
    if https is not None and cert is None:
        _usage("--https needs --cert and --key (make some: sstplb certs create DIR)")
    settings = RrasSettings(
        https=_address(https), http=_address(http),
        certificate=schema.CertificateFiles(chain=cert, key=key) if cert else None,
        offload_sha256=_hash(offload_hash),
        accounts=dict(_account(text) for text in account or ["user:password"]),
        ports_max=ports,
        authentication=authentication,
    )  # fmt: skip

    def report(number: int, text: str) -> None:
        label = f"event {number}" if number else "event"
        out.print(f"{datetime.now():%H:%M:%S} {label:<12} {text}", markup=False, soft_wrap=True)  # noqa: DTZ005 - for a person

    async def serve() -> None:
        server = Rras(settings, report)
        server.fault = fault
        await server.start()
        for scheme, where in (("https", server.https), ("http", server.http)):
            if where is not None:
                out.print(f"listening: {scheme} on {where[0]}:{where[1]} (fault: {fault})")
        try:
            await asyncio.Event().wait()
        finally:
            await server.stop()

    try:
        lifetime.run(serve())
    except KeyboardInterrupt:
        out.print("stopped")


@certs_app.command()
def create(
    directory: Directory = Path("certs"),
    name: CertName = "vpn",
    names: Annotated[
        list[str] | None,
        typer.Option(
            "--for",
            help="DNS name or address; may be repeated.",
            metavar="NAME",
            parser=given.by(parse_name),
        ),
    ] = None,
    key: Annotated[KeyKind, typer.Option(help="Kind of key.")] = KeyKind.RSA,
    days: Days = SERVER_DAYS,
    force: Annotated[
        bool, typer.Option("--force", help="Overwrite a certificate and key that are there.")
    ] = False,
) -> None:
    """Make a lab root (once) and a server certificate from it. Keys are written 0600.

    Exit codes: 0 made; 2 the command line makes no sense, or a file is there already: nothing is
    written.
    """
    pki = LabPki(directory)
    files = pki.files_of(name)
    there = [str(path) for path in (files.chain, files.key) if path.exists()]
    if there and not force:
        _usage(
            f"already there: {' and '.join(there)}. A certificate of this lab is issued anew with "
            "sstplb certs renew; --name takes another name; --force overwrites, key and all"
        )
    issued = pki.issue(name, tuple(names or ("vpn.example.test", "127.0.0.1")), key, days=days)
    out.print(f"root         {pki.root_path}  (clients and sstplb trust this)")
    out.print(f"certificate  {issued.chain}\nkey          {issued.key}")
    out.print(f"SHA-256      {issued.certificate.sha256.hex()}")


@certs_app.command()
def renew(
    directory: Directory = Path("certs"),
    name: CertName = "vpn",
    same_key: Annotated[
        bool, typer.Option(help="Keep the key; the hash changes all the same.")
    ] = False,
    days: Days = SERVER_DAYS,
) -> None:
    """Issue a certificate anew, for the same names: every RRAS that pins its hash must be told."""
    pki = LabPki(directory)
    old = load_certificate(pki.files_of(name).chain)
    if not pki.has_issued(old):
        raise CertificateError(
            f"{old.path} is not from the lab root of {directory}, so it cannot be renewed here: "
            "its CA issues the new one (docs/certificates.md)"
        )
    kind = KeyKind.RSA if old.key_type.startswith("RSA") else KeyKind.P256
    issued = pki.issue(name, old.names, kind, days=days, same_key=same_key)
    out.print(f"was {old.sha256.hex()}\nnow {issued.certificate.sha256.hex()}")


@certs_app.command("list")
def list_certs(
    directory: Directory = Path("certs"),
) -> None:
    """List the certificates that lie there with their keys."""
    if not directory.is_dir():
        _usage(f"there is no directory {directory}: sstplb certs create {directory} makes one")
    table = Table("file", "names", "key", "days left", "SHA-256")
    for issued in LabPki(directory).issued():
        certificate = issued.certificate
        table.add_row(
            issued.chain.name, ", ".join(certificate.names), certificate.key_type,
            str(days_left(certificate)),
            certificate.sha256.hex(),
        )  # fmt: skip
    out.print(table)


@certs_app.command("rollout")
def certificate_rollout(
    conf: group.Conf = None,
    socket: group.Socket = None,
    url: group.Url = None,
    token_file: group.TokenFile = None,
    ca: group.Ca = None,
    as_json: Json = False,
) -> None:
    """Show, of a running balancer, who accepts which certificate, and what to do next.

    The same as sstplb ctl certs rollout; docs/certificates.md tells the whole story. Exit codes
    are those of sstplb ctl.
    """
    try:
        by = group.Asked(group.told(conf, socket, url, token_file, ca), as_json, yes=True)
        rolling.show_rollout(by)
    except (AskError, ConfigError) as error:
        _leave(group.fail(error, as_json=as_json))


@app.command()
def demo(
    once: Annotated[
        bool, typer.Option("--once", help="End by itself; 0 only if all that was shown happened.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Watch SSTP calls go through all three modes, on this machine alone.

    Lab certificates, simulated RRAS servers, the balancer, a crowd of callers: round robin and
    affinity at work, a TCP check that lies, a wrong offload hash explained. Shows a table in under
    a minute; then everything stays, to be tried, until Ctrl-C. --once ends there.
    """
    _leave(lifetime.run(lab_demo.demo(out, once=once, as_json=as_json)))


# --- small change -----------------------------------------------------------------------------


def _policy(ca: Path | None, insecure: bool) -> ClientPolicy:
    return ClientPolicy(PoolTls(verify=Verify.OFF if insecure else Verify.CA, ca_file=ca))


def _password(file: Path | None, env: str) -> str:
    if file is not None:
        return read_secret(Secret(file=file))
    return read_secret(Secret(env=env)) if env else ""


_OPTIONS = (
    ("tls.ca_file", "--ca"),
    ("set tls.server_name to a name it holds", "give one that it holds with --server-name"),
    ("trust it with tls.verify: pin", "look without verifying (--insecure)"),
    ("set tls.verify: pin", "look without verifying (--insecure)"),
)
"""Advice for who has a configuration, and the same for who has a command line."""


def _in_options(text: str) -> str:
    for setting, option in _OPTIONS:
        text = text.replace(setting, option)
    return text


def _address(endpoint: Endpoint | None) -> Address | None:
    return None if endpoint is None else (endpoint.host, endpoint.port or 0)


def _hash(text: str | None) -> bytes | None:
    try:
        return bytes.fromhex(text.replace(":", "")) if text else None
    except ValueError:
        _usage(f"--offload-hash: expected hex digits, got {text!r}")


def _account(text: str) -> tuple[str, str]:
    user, colon, password = text.partition(":")
    if not colon:
        _usage("--account: expected user:password")
    return user, password


def _usage(message: str) -> NoReturn:
    raise typer.BadParameter(message)


def _leave(code: ExitCode) -> NoReturn:
    raise typer.Exit(int(code))

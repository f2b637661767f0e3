"""Every fault the lab can make against every diagnosis there is: a table without a wrong cell.

Each row is a fault, made for real: simulated RRAS servers, the balancer, callers, a middle box. The
call that meets it is explained twice, by the running balancer over its API and from its JSON log;
both must name exactly the causes of the row, so every other cell of the row is checked as well.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Any, Self

import pytest

from sstplb.account.causes import Cause
from sstplb.config.schema import PoolTls, Verify
from sstplb.control.explain import Known, explain, from_api, from_log
from sstplb.lab.caller import CallPlan, CallReport, place_call
from sstplb.lab.inspector import Inspector
from sstplb.lab.pki import Issued, LabPki
from sstplb.lab.rras import Fault, Rras, RrasSettings
from sstplb.protocol.ppp_peer import Authentication
from sstplb.tls.certificate import now_utc
from sstplb.tls.policy import ClientPolicy
from tests.characters import SERVER_NAME, play, staged
from tests.desk import OperatedStage

EXTRA = {"interval": "1m"}


class Certificates:
    """What servers and middle boxes may show."""

    def __init__(self, pki: LabPki, served: Issued, other: Issued) -> None:
        self.pki, self.served, self.other = pki, served, other

    def shown(self, kind: str) -> Issued:
        names = (SERVER_NAME, "127.0.0.1")
        match kind:
            case "expired":
                return self.pki.issue("gone", names, not_after=now_utc() - timedelta(days=1))
            case "untrusted":
                return LabPki(self.pki.directory / "foreign").issue("foreign", names)
            case "misnamed":
                return self.pki.issue("misnamed", ("elsewhere.example.test",))
            case "other":
                return self.other
        return self.served


class Theatre:
    """Two simulated RRAS servers, an operated balancer, and a caller."""

    def __init__(self, row: "Row", folder: Path, certificates: Certificates) -> None:
        self.row, self.certificates = row, certificates
        pki, served = certificates.pki, certificates.served
        self.stage = OperatedStage(folder, row.mode, pki.root_path, served, count=0)
        self.stage.listener.update(row.listener)
        self.stage.limits.update(row.limits)
        plain = row.mode == "offload"
        shown, told = certificates.shown(row.shows), certificates.shown(row.told)
        self.servers = [
            Rras(
                RrasSettings(
                    name=f"rras{n}",
                    https=None if plain else (f"127.0.7.{n}", 0),
                    http=(f"127.0.7.{n}", 0) if plain else None,
                    certificate=None if plain else shown.files,
                    offload_sha256=told.certificate.sha256 if plain else None,
                    **row.settings,
                )
            )
            for n in (1, 2)
        ]
        self.plan = CallPlan(
            ("", 0), SERVER_NAME, "CORP\\user", "password",
            ClientPolicy(PoolTls(verify=Verify.CA, ca_file=pki.root_path)),
        )  # fmt: skip

    @contextlib.asynccontextmanager
    async def playing(self) -> AsyncIterator[Self]:
        for server in self.servers:
            await server.start()
            if self.row.fault_before:
                server.fault = self.row.fault
        self.stage.pool.update(
            backends=[
                {
                    "name": server.settings.name,
                    "address": "{}:{}".format(*(server.https or server.http or ())),
                    **self.row.backend(self.certificates),
                }
                for server in self.servers
            ],
            check={"timeout": "5s", **EXTRA},
        )
        for name, value in self.row.pool.items():
            known = self.stage.pool.get(name, {})
            self.stage.pool[name] = {**known, **value} if isinstance(value, dict) else value
        try:
            async with staged(self.stage):
                address = self.stage.balancer.listeners["vpn"].address
                self.plan = replace(self.plan, address=address)
                for server in self.servers:
                    server.fault = self.row.fault
                yield self
        finally:
            for server in self.servers:
                await server.stop()

    async def call(self, **changes: Any) -> CallReport:
        return await place_call(replace(self.plan, **changes))

    async def explained(self, wanted: str = "1") -> tuple[Known, Known]:
        """Explain a call over the API and from the log; return both."""
        await self.stage.ended()
        async with self.stage.asking() as ask:
            asked = await _ask_all(ask, wanted)
        by_api = from_api(asked, wanted)
        by_log = from_log(self.stage.file.with_suffix(".log"), wanted)
        assert by_api is not None
        assert by_log is not None
        return by_api, by_log


class _Answers:
    """The API's answers, asked for beforehand: ``from_api`` does not wait."""

    def __init__(self, answers: dict[tuple[str, ...], Any]) -> None:
        self._answers = answers

    def get(self, *path: str, **_query: object) -> Any:
        return self._answers[path]


async def _ask_all(ask: Any, wanted: str) -> _Answers:
    listed = (await ask.get("/calls", params={"text": wanted})).json()
    number = listed["calls"][0]["id"] if listed["calls"] else wanted
    one = (await ask.get(f"/calls/{number}")).json()
    return _Answers({("calls",): listed, ("calls", str(number)): one})


Act = Callable[[Theatre], Awaitable[None]]


async def just_call(theatre: Theatre) -> None:
    await theatre.call()


@dataclass(frozen=True)
class Row:
    """One fault: how it is made, and what it is called."""

    name: str
    mode: str
    causes: tuple[Cause, ...] = ()
    fault: Fault = Fault.NONE
    fault_before: bool = False
    """Whether the first check sees it already."""
    shows: str = "served"
    """The certificate the servers show."""
    told: str = "served"
    """The one whose hash they were told."""
    declares: str = ""
    """The one that the configuration declares for them."""
    settings: dict[str, Any] = field(default_factory=dict)
    pool: dict[str, Any] = field(default_factory=dict)
    listener: dict[str, Any] = field(default_factory=dict)
    limits: dict[str, Any] = field(default_factory=dict)
    act: Act = just_call

    def backend(self, certificates: Certificates) -> dict[str, Any]:
        if not self.declares:
            return {}
        declared = certificates.shown(self.declares).certificate.sha256.hex()
        return {"rras_certificate_sha256": declared}


def calling(**changes: Any) -> Act:
    async def act(theatre: Theatre) -> None:
        await theatre.call(**changes)

    return act


def through_a_box(shows: str) -> Act:
    async def act(theatre: Theatre) -> None:
        box = Inspector(theatre.certificates.shown(shows), theatre.plan.address)
        await box.start()
        try:
            await theatre.call(address=box.address)
        finally:
            await box.stop()

    return act


async def stop_after_the_check(theatre: Theatre) -> None:
    """Stop the service, call before a check has noticed, and have it noticed then."""
    for server in theatre.servers:
        server.fault = Fault.STOPPED
    await theatre.call()
    backends = theatre.stage.balancer.plan.checks["rras"].pool.backends
    await theatre.stage.until(lambda: not any(backend.health.is_up for backend in backends))


async def with_nobody_there(theatre: Theatre) -> None:
    for server in theatre.servers:
        await server.stop()
    await theatre.call()


async def untrusting(theatre: Theatre) -> None:
    foreign = LabPki(theatre.certificates.pki.directory / "untrusting")
    await theatre.call(policy=ClientPolicy(PoolTls(verify=Verify.CA, ca_file=foreign.root_path)))


async def silent_client(theatre: Theatre) -> None:
    client = await theatre.stage.client()
    await theatre.stage.ended()
    await client.close()


async def one_too_many(theatre: Theatre) -> None:
    holding = asyncio.create_task(theatre.call(hold_s=20.0))
    await theatre.stage.settled(1)
    await theatre.call()
    await theatre.stage.ended()
    number = theatre.stage.balancer.ledger.ended[0].id
    assert number == 2
    holding.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await holding


def cut(*, reset: bool = False, **changes: Any) -> Act:
    """Have the servers end all connections without a word, as a crash does, in mid-call."""

    async def act(theatre: Theatre) -> None:
        calling = asyncio.create_task(theatre.call(hold_s=20.0, **changes))
        await theatre.stage.until(lambda: sum(server.connected_total for server in theatre.servers))
        await asyncio.sleep(0.1)
        for server in theatre.servers:
            server.fault = Fault.RESET if reset else Fault.NONE
            server.cut_calls()
        await calling

    return act


async def mute(theatre: Theatre) -> None:
    """Have the servers fall silent once the call is up."""
    calling = asyncio.create_task(theatre.call(hold_s=20.0, hello_timeout_s=1.0))
    await theatre.stage.until(lambda: sum(server.connected_total for server in theatre.servers))
    await asyncio.sleep(0.1)
    for server in theatre.servers:
        server.fault = Fault.MUTE
    await calling


FALL = {"check": {"fall": 1, "interval": "100ms"}}
UNSEEN = {"check": {"method": "tcp"}}
NO_RULE = {"tls": {"same_certificate": "off"}}
IMPATIENT = {"try_timeout": "1s", "total_timeout": "5s"}

_C = Cause
ROWS = (
    Row("nothing", "passthrough"),
    Row("nothing", "offload"),
    Row("nothing", "reencrypt"),
    Row("nothing, PAP", "offload", settings={"authentication": Authentication.PAP}),
    Row("nothing, full", "reencrypt", listener={"follow": "full"}, act=calling(hold_s=0.2)),
    Row("nothing, hellos", "offload", settings={"hello_timeout_s": 1.0}, act=calling(hold_s=2.5)),
    Row("wrong hash", "offload", (_C.WRONG_OFFLOAD_HASH,), told="other"),
    Row(
        "wrong hash, the right one declared", "offload", (_C.WRONG_OFFLOAD_HASH,),
        told="other", declares="served",
    ),
    Row(
        "wrong hash, as declared", "offload", (_C.WRONG_OFFLOAD_HASH,),
        told="other", declares="other",
    ),
    Row(
        "different certificate", "reencrypt", (_C.DIFFERENT_CERTIFICATE,),
        shows="other", pool=NO_RULE,
    ),
    Row("different certificate, avoided", "reencrypt", (_C.DIFFERENT_CERTIFICATE,), shows="other"),
    Row("middle box", "offload", (_C.TLS_INSPECTION,), act=through_a_box("other")),
    Row("middle box", "reencrypt", (_C.TLS_INSPECTION,), act=through_a_box("other")),
    Row(
        "middle box with the backend's certificate", "reencrypt", (_C.BACKEND_CERTIFICATE_SEEN,),
        shows="other", pool=NO_RULE, act=through_a_box("other"),
    ),
    Row("expired", "reencrypt", (_C.BACKEND_CERTIFICATE_EXPIRED,), shows="expired", pool=NO_RULE),
    Row(
        "expired, unchecked", "reencrypt", (_C.BACKEND_CERTIFICATE_EXPIRED,),
        shows="expired", pool={**UNSEEN, **NO_RULE},
    ),
    Row("untrusted", "reencrypt", (_C.BACKEND_CERTIFICATE_UNTRUSTED,), shows="untrusted"),
    Row(
        "untrusted, unchecked", "reencrypt", (_C.BACKEND_CERTIFICATE_UNTRUSTED,),
        shows="untrusted", pool=UNSEEN,
    ),
    Row("wrong name", "reencrypt", (_C.BACKEND_CERTIFICATE_NAME,), shows="misnamed"),
    Row(
        "wrong name, unchecked", "reencrypt", (_C.BACKEND_CERTIFICATE_NAME,),
        shows="misnamed", pool=UNSEEN,
    ),
    Row("no ports", "offload", (_C.NO_PORTS,), fault=Fault.NO_PORTS),
    Row("no ports", "reencrypt", (_C.NO_PORTS,), fault=Fault.NO_PORTS),
    Row("service stopped", "offload", (_C.SERVICE_STOPPED,), fault=Fault.STOPPED,
        fault_before=True),
    Row("service stopped", "reencrypt", (_C.SERVICE_STOPPED,), fault=Fault.STOPPED,
        fault_before=True),
    Row("service just stopped", "offload", (_C.SERVICE_STOPPED,), pool=FALL,
        act=stop_after_the_check),
    Row("silent server", "offload", (_C.SERVER_SILENT,), fault=Fault.SILENT, fault_before=True,
        pool={"check": {"timeout": "300ms"}}),
    Row("silent server, unchecked", "reencrypt", (_C.SERVER_SILENT,), fault=Fault.SILENT,
        pool=IMPATIENT),
    Row("reset", "offload", (_C.SERVER_CLOSES,), fault=Fault.RESET),
    Row("nobody there", "offload", (_C.SERVER_UNREACHABLE,), act=with_nobody_there),
    Row("nobody there", "passthrough", (_C.SERVER_UNREACHABLE,), act=with_nobody_there),
    Row("bad password", "offload", (_C.BAD_PASSWORD,), act=calling(password="wr0ng")),
    Row("bad password", "reencrypt", (_C.BAD_PASSWORD,), act=calling(password="wr0ng")),
    Row("bad password, PAP", "offload", (_C.BAD_PASSWORD,), act=calling(password="wr0ng"),
        settings={"authentication": Authentication.PAP}),
    Row("dead client", "offload", (_C.CLIENT_DEAD,), settings={"hello_timeout_s": 1.0},
        act=calling(mute_s=3.5)),
    Row("dead client", "reencrypt", (_C.CLIENT_DEAD,), settings={"hello_timeout_s": 1.0},
        listener={"follow": "full"}, act=calling(mute_s=3.5)),
    Row("dead server", "offload", (_C.BACKEND_DEAD,), act=mute),
    Row("crash", "offload", (_C.CLOSED_IN_CALL,), act=cut()),
    Row("crash", "reencrypt", (_C.CLOSED_IN_CALL,), act=cut(reset=True, data_bytes=100_000)),
    Row("crash", "reencrypt", (_C.CLOSED_IN_CALL,), act=cut(), listener={"follow": "full"}),
    Row("crash, which is not seen", "reencrypt", act=cut(), listener={"follow": "off"}),
    Row("crash, which is not seen", "passthrough", act=cut()),
    Row("idle client", "offload", (_C.IDLE,), limits={"idle_timeout": "2s"},
        act=calling(mute_s=4.0)),
    Row("idle client", "passthrough", (_C.IDLE,), limits={"idle_timeout": "2s"},
        act=calling(mute_s=4.0)),
    Row("our certificate is not trusted", "offload", (_C.CLIENT_REJECTS_CERTIFICATE,),
        act=untrusting),
    Row("a client that says nothing", "offload", (_C.CLIENT_SILENT,),
        limits={"head_timeout": "200ms"}, act=silent_client),
)  # fmt: skip


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row.name}, {row.mode}")
def test_every_fault_is_named_and_no_other(
    row: Row, tmp_path: Path, pki: LabPki, served: Issued, other: Issued
) -> None:
    async def story() -> None:
        theatre = Theatre(row, tmp_path, Certificates(pki, served, other))
        async with theatre.playing():
            await row.act(theatre)
            for known in await theatre.explained():
                table = {cause: cause in {d.cause for d in known.diagnoses} for cause in Cause}
                right = {cause: cause in row.causes for cause in Cause}
                assert table == right, known
                for found in known.diagnoses:
                    assert found.sentence
                    assert found.remedy
                assert "wr0ng" not in repr(known)
                assert [line.at for line in explain("1", known).lines]

    play(story)


def test_a_limit_is_named(tmp_path: Path, pki: LabPki, served: Issued, other: Issued) -> None:
    row = Row("limit", "offload", listener={"calls_max": 1})

    async def story() -> None:
        theatre = Theatre(row, tmp_path, Certificates(pki, served, other))
        async with theatre.playing():
            await one_too_many(theatre)
            for known in await theatre.explained("2"):
                assert [d.cause for d in known.diagnoses] == [Cause.LIMIT_REACHED]

    play(story)


def test_a_fault_that_failover_hid_is_named_too(
    tmp_path: Path, pki: LabPki, served: Issued, other: Issued
) -> None:
    async def story() -> None:
        theatre = Theatre(Row("x", "offload"), tmp_path, Certificates(pki, served, other))
        async with theatre.playing():
            theatre.servers[0].fault = Fault.NO_PORTS
            assert (await theatre.call()).ok
            for known in await theatre.explained():
                (found,) = known.diagnoses
                assert str(found.cause) == "no_ports"
                assert "rras1" in found.sentence

    play(story)


def test_the_hashes_stand_side_by_side_with_the_command_that_mends(
    tmp_path: Path, pki: LabPki, served: Issued, other: Issued
) -> None:
    async def story() -> None:
        row = Row("x", "offload", told="other", declares="served")
        theatre = Theatre(row, tmp_path, Certificates(pki, served, other))
        async with theatre.playing():
            report = await theatre.call()
            ours = served.certificate.sha256.hex()
            for known in await theatre.explained(report.correlation_id):
                (found,) = known.diagnoses
                assert found.evidence[:3] == (
                    f"the client saw: SHA256 {ours}",
                    f"we served: SHA256 {ours}",
                    f"rras1: is declared to expect {ours}",
                )
                assert (
                    f"Enable-SSTPOffload -CertificateHash {ours.upper()} -Restart" in found.remedy
                )
                assert "RRAS was told another" in found.sentence

    play(story)

"""What is in the log, and what never is."""

import json
from pathlib import Path

import pytest
import structlog
from Crypto.Hash import MD4

from sstplb.config.schema import Log, LogLevel
from sstplb.control.logs import Logs
from sstplb.lab.pki import Issued, LabPki
from sstplb.protocol import mschap
from sstplb.protocol.ppp_peer import Authentication
from tests.characters import play
from tests.stories.test_real_calls import Lab

PASSWORD = "correct horse battery"


@pytest.mark.parametrize("mode", ["offload", "reencrypt"])
@pytest.mark.parametrize("authentication", list(Authentication))
def test_no_line_holds_a_secret(
    mode: str,
    authentication: Authentication,
    pki: LabPki,
    served: Issued,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("CHECK_PASSWORD", PASSWORD)

    exchanged: list[bytes] = []
    respond = mschap.nt_response

    def overheard(theirs: bytes, ours: bytes, user: str, password: str) -> bytes:
        response = respond(theirs, ours, user, password)
        exchanged.extend((theirs, ours, response))
        return response

    monkeypatch.setattr(mschap, "nt_response", overheard)

    async def story() -> None:
        logs, file = Logs(), tmp_path / "log"
        logs.apply(Log(level=LogLevel.DEBUG, file=file))
        try:
            lab = Lab(mode, pki, served, authentication=authentication, accounts={"user": PASSWORD})
            lab.stage.pool["check"] = {
                "method": "login", "interval": "1s", "timeout": "5s", "username": "user",
                "password": {"env": "CHECK_PASSWORD"},
            }  # fmt: skip
            async with lab.running():
                assert (await lab.call(password=PASSWORD, data_bytes=20_000)).ok
                wrong = await lab.call(password="Tr0ub4dor&3")
                assert not wrong.ok
                await lab.stage.ended(2)
                events = json.dumps(logs.events.after(0, 10_000))
                transcripts = [
                    backend.last_check.verdict.transcript
                    for checks in lab.stage.balancer.plan.checks.values()
                    for backend in checks.pool.backends
                    if backend.last_check is not None
                ]
            assert len(transcripts) == 2
        finally:
            logs.close()
        written = file.read_text()
        assert written.count('"call_ended"') >= 2
        secrets = [PASSWORD, "Tr0ub4dor&3", served.key.read_text().splitlines()[1]]
        secrets.append(MD4.new(PASSWORD.encode("utf-16-le")).hexdigest())
        secrets += [spelling for value in exchanged for spelling in (value.hex(), repr(value))]
        assert bool(exchanged) is (authentication is Authentication.MSCHAPV2)
        for text in (written, events, *transcripts):
            assert not [secret for secret in secrets if secret.lower() in text.lower()]

    play(story)


def test_the_level_is_changed_while_it_runs(tmp_path: Path) -> None:
    logs, file = Logs(), tmp_path / "log"
    logs.apply(Log(file=file))
    try:
        log = structlog.get_logger()
        log.debug("quiet")
        logs.set_level(LogLevel.DEBUG)
        log.debug("loud")
        logs.set_level(LogLevel.WARNING)
        log.info("quiet_again")
    finally:
        logs.close()
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert [(line["event"], line["level"]) for line in lines] == [("loud", "debug")]

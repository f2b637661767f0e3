"""What outlives the process: it ages, fits what is configured, and never stops a start."""

import asyncio
import os
from pathlib import Path

import pytest

from sstplb.config.loader import parse
from sstplb.config.schema import Standing
from sstplb.control import state
from sstplb.control.balancer import Balancer
from sstplb.control.plan import Plan, lay_out, prepare
from sstplb.control.state import Keeper, State
from sstplb.net.call import now_s

FILE = """\
listeners: [{name: vpn, address: "127.0.0.1:0", mode: passthrough, pool: rras}]
pools:
  rras:
    affinity: {timeout: 100s}
    backends: [{name: rras1, address: 10.0.0.11}, {name: rras2, address: 10.0.0.12}]
"""


def plan_of(text: str = FILE) -> Plan:
    return lay_out(prepare(parse(text)))


def remembered(plan: Plan) -> dict[str, tuple[str, bool]]:
    table = plan.checks["rras"].pool.affinity
    return {r.client: (r.backend, r.is_pinned) for r in table.remembered(now_s())}


def a_day_of(plan: Plan) -> None:
    pool = plan.checks["rras"].pool
    pool.affinity.remember(pool.affinity.key("192.0.2.1"), "rras1", now_s())
    entry = pool.affinity.remember(pool.affinity.key("192.0.2.2"), "rras2", now_s())
    pool.affinity.release(entry, now_s())
    pool.affinity.pin(pool.affinity.key("2001:db8::1"), "rras2")
    pool.backends[0].standing = Standing.DRAINING


def test_a_round_trip_keeps_standings_pins_and_affinity(tmp_path: Path) -> None:
    old, new = plan_of(), plan_of()
    a_day_of(old)
    old.checks["rras"].pool.backends[1].learnt.accepted(b"\x17" * 32)
    state.save(tmp_path / "s", state.state_of(old))
    assert (tmp_path / "s").stat().st_mode & 0o777 == 0o600
    kept = state.load(tmp_path / "s")
    assert kept is not None
    state.restore(new, kept)
    assert remembered(new) == remembered(old)
    assert [b.standing for b in new.checks["rras"].pool.backends] == ["draining", "active"]
    assert [b.learnt.sha256 for b in new.checks["rras"].pool.backends] == [None, b"\x17" * 32]


def test_time_passes_while_nobody_runs() -> None:
    old, new = plan_of(), plan_of()
    a_day_of(old)
    kept = state.state_of(old)
    kept.saved_at -= 99
    state.restore(new, kept)
    (left, *_) = [
        r.expires_in_s
        for r in new.checks["rras"].pool.affinity.remembered(now_s())
        if not r.is_pinned
    ]
    assert left is not None
    assert left < 2
    later = plan_of()
    kept.saved_at -= 2
    state.restore(later, kept)
    assert list(remembered(later).values()) == [("rras2", True)], "only the pin"


def test_what_the_configuration_does_not_know_any_more_is_forgotten() -> None:
    old = plan_of()
    a_day_of(old)
    kept = state.state_of(old)
    new = plan_of(FILE.replace("{name: rras2, address: 10.0.0.12}", "{name: x, address: 10.0.0.9}"))
    state.restore(new, kept)
    assert set(remembered(new).values()) == {("rras1", False)}


def test_a_standing_the_file_has_changed_since_is_the_files() -> None:
    old = plan_of()
    a_day_of(old)
    new = plan_of(FILE.replace("name: rras1,", 'name: rras1, standing: "off",'))
    state.restore(new, state.state_of(old))
    assert new.checks["rras"].pool.backends[0].standing is Standing.OFF


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b'{"format": 9, "saved_at": 1}', b"\x00", b"{}", b"\xff\xfe\x80"]
)
def test_a_damaged_file_is_set_aside(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "s"
    path.write_bytes(content)
    assert state.load(path) is None
    assert not path.exists()
    assert (tmp_path / "s.damaged").read_bytes() == content


def test_without_a_file_there_is_nothing(tmp_path: Path) -> None:
    assert state.load(tmp_path / "none") is None


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert state.load(tmp_path / "pipe") is None


def test_bad_keys_in_a_file_are_skipped() -> None:
    plan = plan_of()
    pools = {"rras": {"affinity": [("zz", "rras1", 9.0), ("00", "rras1", 9.0)]}}
    kept = State.model_validate({"saved_at": 1e12, "pools": pools})
    state.restore(plan, kept)
    assert not remembered(plan)


def test_only_news_are_written(tmp_path: Path) -> None:
    async def story() -> None:
        balancer = Balancer(prepare(parse(f"state_file: {tmp_path / 's'}\n{FILE}")))
        keeper = Keeper(balancer)
        await keeper.save()
        first = (tmp_path / "s").stat().st_ino
        await keeper.save()
        assert (tmp_path / "s").stat().st_ino == first
        a_day_of(balancer.plan)
        await keeper.save()
        assert (tmp_path / "s").stat().st_ino != first

    asyncio.run(story())

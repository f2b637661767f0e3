"""Words to the service manager, as systemd would hear them."""

import asyncio
import os
import socket
from pathlib import Path

from sstplb.control.manager import ServiceManager
from tests.characters import play


class Ear:
    """What a service manager listens with."""

    def __init__(self, path: str) -> None:
        self.address = path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind("\0" + path[1:] if path.startswith("@") else path)
        self._socket.setblocking(False)

    def heard(self) -> list[str]:
        """Return the words since the last time, one by one."""
        words: list[str] = []
        while True:
            try:
                words += self._socket.recv(4096).decode().splitlines()
            except BlockingIOError:
                return words

    def close(self) -> None:
        self._socket.close()


def test_nobody_listens() -> None:
    async def story() -> None:
        manager = ServiceManager.from_environment({})
        assert not manager.listens
        manager.ready("well")
        manager.reloading()
        manager.stopping(3.0)
        manager.succeeded_by(7)
        manager.close()

    play(story)


def test_ready_status_reload_and_stop(tmp_path: Path) -> None:
    async def story() -> None:
        ear = Ear(str(tmp_path / "notify"))
        manager = ServiceManager.from_environment({"NOTIFY_SOCKET": ear.address})
        manager.ready("2 listeners,\n3 calls")
        assert ear.heard() == ["READY=1", "STATUS=2 listeners, 3 calls"]
        manager.status("2 listeners, 3 calls")
        assert ear.heard() == [], "that is known"
        manager.status("2 listeners, 4 calls")
        assert ear.heard() == ["STATUS=2 listeners, 4 calls"]
        manager.reloading()
        reloading, since = ear.heard()
        assert reloading == "RELOADING=1"
        assert since.startswith("MONOTONIC_USEC=")
        manager.stopping(30.0)
        assert ear.heard() == ["STOPPING=1", "EXTEND_TIMEOUT_USEC=45000000"]
        manager.close()
        ear.close()

    play(story)


def test_the_socket_may_be_abstract() -> None:
    async def story() -> None:
        ear = Ear(f"@sstplb-test-{os.getpid()}")
        manager = ServiceManager(ear.address)
        manager.ready("well")
        assert ear.heard() == ["READY=1", "STATUS=well"]
        manager.close()
        ear.close()

    play(story)


def test_alive_only_while_the_loop_turns(tmp_path: Path) -> None:
    async def story() -> None:
        ear = Ear(str(tmp_path / "notify"))
        environment = {
            "NOTIFY_SOCKET": ear.address,
            "WATCHDOG_USEC": "40000",
            "WATCHDOG_PID": str(os.getpid()),
        }
        manager = ServiceManager.from_environment(environment)
        assert "WATCHDOG_PID" not in environment, "it is not for those we start"
        await asyncio.sleep(0.05)
        assert ear.heard() == [], "not before it is ready"
        manager.ready("well")
        await asyncio.sleep(0.21)
        beats = ear.heard().count("WATCHDOG=1")
        assert 5 <= beats <= 12
        manager.succeeded_by(4711)
        assert ear.heard()[-1:] == ["MAINPID=4711"]
        await asyncio.sleep(0.06)
        assert ear.heard() == [], "the other process speaks from now on"
        ear.close()

    play(story)


def test_a_watchdog_for_another_process_is_not_ours(tmp_path: Path) -> None:
    async def story() -> None:
        ear = Ear(str(tmp_path / "notify"))
        manager = ServiceManager.from_environment(
            {"NOTIFY_SOCKET": ear.address, "WATCHDOG_USEC": "1000", "WATCHDOG_PID": "1"}
        )
        manager.ready("well")
        await asyncio.sleep(0.02)
        assert "WATCHDOG=1" not in ear.heard()
        manager.close()
        ear.close()

    play(story)


def test_a_manager_that_is_gone_disturbs_nobody(tmp_path: Path) -> None:
    async def story() -> None:
        manager = ServiceManager(str(tmp_path / "nowhere"), 0.01)
        manager.ready("well")
        await asyncio.sleep(0.03)
        manager.close()

    play(story)

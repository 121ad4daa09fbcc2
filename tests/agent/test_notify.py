"""sd_notify: what the service manager is told, over a NOTIFY_SOCKET of the test's own."""

from __future__ import annotations

import asyncio
import os
import socket
import tempfile
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from svcnat.agent.notify import Notifier


class Manager:
    """The service manager's end of the socket."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind("\0" + address[1:] if address.startswith("@") else address)
        self.socket.settimeout(10)

    def heard(self) -> list[str]:
        """The assignments of the next message."""
        return self.socket.recv(65536).decode().split("\n")

    def silent(self) -> bool:
        """True if nothing waits."""
        self.socket.setblocking(False)
        try:
            return not self.socket.recv(65536)
        except BlockingIOError:
            return True
        finally:
            self.socket.settimeout(10)


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest) -> Iterator[Manager]:
    """A manager whose socket has a path, and one whose socket has an abstract name."""
    # Paths of sockets are short, and pytest's temporary folders are not.
    with tempfile.TemporaryDirectory() as folder:
        abstract = f"@svcnat-test/{uuid.uuid4().hex}"
        made = Manager(abstract if request.param == "abstract" else str(Path(folder, "notify")))
        yield made
        made.socket.close()


def test_a_life(manager: Manager) -> None:
    """Each message of a service's life is one datagram of sd_notify's assignments."""
    environment = {"NOTIFY_SOCKET": manager.address}
    with Notifier.of_environment(environment) as notifier:
        assert notifier.status("reading 3 services")
        assert manager.heard() == ["STATUS=reading 3 services"]
        assert notifier.ready("3 services, in sync")
        assert manager.heard() == ["READY=1", "STATUS=3 services, in sync"]
        before = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        assert notifier.reloading()
        reloading, moment = manager.heard()
        assert reloading == "RELOADING=1"
        name, _, microseconds = moment.partition("=")
        assert name == "MONOTONIC_USEC"
        assert before <= int(microseconds) <= time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        assert notifier.ready()
        assert manager.heard() == ["READY=1"]
        assert notifier.stopping("leaving the rules")
        assert manager.heard() == ["STOPPING=1", "STATUS=leaving the rules"]


def test_untrusted_words(manager: Manager) -> None:
    """No name of an object becomes an assignment of its own, and none is longer than a datagram may be."""
    with Notifier.of_environment({"NOTIFY_SOCKET": manager.address}) as notifier:
        notifier.status("node\nMAINPID=1\x1b[31m \udcff")
        assert manager.heard() == ["STATUS=node\\u000aMAINPID=1\\u001b[31m \\udcff"]
        assert notifier.ready("x" * 10_000_000)
        assert len("\n".join(manager.heard())) < 1000


def test_signs_of_life(manager: Manager) -> None:
    """WATCHDOG=1 comes at half of the period, by itself, while the agent is alive; when it is not, nothing comes."""
    environment = {"NOTIFY_SOCKET": manager.address, "WATCHDOG_USEC": "100000", "WATCHDOG_PID": str(os.getpid())}
    state = {"alive": True, "asked": 0}

    def alive() -> bool:
        state["asked"] += 1
        return state["alive"]

    async def run() -> None:
        with Notifier.of_environment(environment) as notifier:
            assert notifier.watchdog == 0.1
            task = asyncio.create_task(notifier.keep_alive(alive))
            for _ in range(3):
                assert await asyncio.to_thread(manager.heard) == ["WATCHDOG=1"]
            state["alive"] = False
            asked = state["asked"]
            while not manager.silent():
                pass
            while state["asked"] < asked + 3:
                await asyncio.sleep(0.01)
            assert manager.silent()
            state["alive"] = True
            assert await asyncio.to_thread(manager.heard) == ["WATCHDOG=1"]
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    asyncio.run(run())
    assert environment == {}


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"NOTIFY_SOCKET": ""},
        {"NOTIFY_SOCKET": "vsock:2:1234", "WATCHDOG_USEC": "1"},
        {"NOTIFY_SOCKET": "relative"},
        {"NOTIFY_SOCKET": "/run/nobody/listens"},
        {"NOTIFY_SOCKET": "/" + "x" * 200},
        {"NOTIFY_SOCKET": "@" + "x" * 200},
        {"NOTIFY_SOCKET": "/null\0byte"},
        {"WATCHDOG_USEC": "100000"},
    ],
    ids=str,
)
def test_nobody_listens(environment: dict[str, str]) -> None:
    """Outside of systemd, or with a socket that is none, the agent runs as well, and sends nothing."""

    async def run() -> None:
        with Notifier.of_environment(environment) as notifier:
            assert not notifier.ready("ready")
            assert not notifier.stopping()
            if not notifier.watchdog:
                await notifier.keep_alive(lambda: pytest.fail("nobody watches"))

    asyncio.run(run())


@pytest.mark.parametrize("environment", [{"WATCHDOG_PID": "1"}, {"WATCHDOG_USEC": "soon"}, {"WATCHDOG_USEC": "0"}])
def test_watchdogs_of_others(manager: Manager, environment: dict[str, str]) -> None:
    """A watchdog that is meant for another process, or none, is not fed."""
    given = {"NOTIFY_SOCKET": manager.address, "WATCHDOG_USEC": "1000"} | environment
    with Notifier.of_environment(given) as notifier:
        assert notifier.watchdog == 0
        assert notifier.ready()


def test_a_manager_that_does_not_listen(manager: Manager) -> None:
    """A full socket costs a moment, and no error; what is sent after the end goes nowhere."""
    with Notifier(manager.address, patience=0.01) as notifier:
        sent = 0
        while notifier.status("again"):
            sent += 1
            assert sent < 100_000
        manager.heard()
        assert notifier.status("now")
    assert not notifier.status("closed")

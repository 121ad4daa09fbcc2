"""Listeners that anybody may connect to: how many may, for how long, and that the agent is not short of files."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import resource
import signal
import socket
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
from aiohttp import web

from svcnat.agent.http import MOST_CONNECTIONS, Listener, listen
from svcnat.agent.mishaps import Mishaps
from svcnat.kernel import netns
from svcnat.store.sqlite import Store
from tests.agent.running import Running, differences, nft
from tests.agent.running import web as make_web
from tests.agents import CONFIG, PATIENCE, until

GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.fixture(autouse=True)
def _inside(make_netns: Callable[[], str]) -> Iterator[None]:
    """In a network namespace of each test's own, where the loopback is up and no port is anybody else's."""
    name = make_netns()
    subprocess.run(["ip", "-n", name, "link", "set", "lo", "up"], check=True)
    with netns.entered(name):
        yield


async def hello(request: web.BaseRequest) -> web.Response:
    return web.Response(text="hello")


@contextlib.asynccontextmanager
async def serving(**how: float) -> AsyncIterator[tuple[Listener, tuple[str, int]]]:
    """A listener on a port that is free, and where it is."""
    listening = listen("127.0.0.1", 0)
    place = listening.getsockname()
    listener = Listener(listening, hello, logging.getLogger("test"), **how)
    await listener.start()
    try:
        yield listener, place
    finally:
        await listener.close()


async def hung_up(reader: asyncio.StreamReader) -> bytes:
    """What comes until the other side hangs up, in whichever way."""
    said = b""
    async with asyncio.timeout(PATIENCE):
        with contextlib.suppress(ConnectionResetError):
            while part := await reader.read(65536):
                said += part
    return said


async def become(listener: Listener, count: int) -> None:
    async with asyncio.timeout(PATIENCE):
        while len(listener.connections) != count:
            await asyncio.sleep(0.01)


def test_one_too_many_is_hung_up_on() -> None:
    """Those who were first are answered; when one of them goes, there is room again."""

    async def main() -> None:
        async with serving() as (listener, place):
            first = [await asyncio.open_connection(*place) for _ in range(MOST_CONNECTIONS)]
            await become(listener, MOST_CONNECTIONS)
            for _ in range(20):
                reader, writer = await asyncio.open_connection(*place)
                assert await hung_up(reader) == b""
                writer.close()
            reader, writer = first[0]
            writer.write(GET)
            assert (await reader.readline()).startswith(b"HTTP/1.1 200 ")
            writer.close()
            await become(listener, MOST_CONNECTIONS - 1)
            first.append(await asyncio.open_connection(*place))
            first[-1][1].write(GET)
            assert (await first[-1][0].readline()).startswith(b"HTTP/1.1 200 ")
            for _, writer in first:
                writer.close()
            await become(listener, 0)

    asyncio.run(main())


def test_the_process_has_a_share_for_all_of_its_listeners() -> None:
    """A quarter of its files: several sockets of one host do not add up."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)

    async def main() -> None:
        async with serving() as (one, first), serving() as (other, second):
            resource.setrlimit(resource.RLIMIT_NOFILE, (256, limits[1]))
            connections = [await asyncio.open_connection(*first) for _ in range(40)]
            await become(one, 40)
            connections += [await asyncio.open_connection(*second) for _ in range(40)]
            await become(other, 24)
            for _, writer in connections:
                writer.close()

    try:
        asyncio.run(main())
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


@pytest.mark.parametrize("drip", [b"", b"x"], ids=["silent", "slow"])
def test_who_never_ends_a_request_is_hung_up_on(drip: bytes) -> None:
    """Saying a little now and then is no better than saying nothing, at first or after an answer."""

    async def main() -> None:
        async with serving(request_seconds=0.3) as (listener, place):
            for begin in (b"", GET):
                reader, writer = await asyncio.open_connection(*place)
                if begin:
                    writer.write(begin)
                    assert (await reader.readuntil(b"hello")).startswith(b"HTTP/1.1 200 ")
                    writer.write(b"GET /")
                waiting = asyncio.create_task(hung_up(reader))
                while not waiting.done():
                    writer.write(drip)
                    await asyncio.sleep(0.02)
                assert not (await waiting).startswith(b"HTTP/1.1 200 ")
                writer.close()
            await become(listener, 0)

    asyncio.run(main())


def test_who_waits_between_requests_may_stay() -> None:
    """The time is that of a request: a prober that keeps its connection is asked for nothing more."""

    async def main() -> None:
        async with serving(request_seconds=0.2) as (listener, place):
            reader, writer = await asyncio.open_connection(*place)
            for _ in range(3):
                writer.write(GET)
                assert (await reader.readuntil(b"hello")).startswith(b"HTTP/1.1 200 ")
                await asyncio.sleep(0.4)
                assert len(listener.connections) == 1
            writer.close()

    asyncio.run(main())


# --- mishaps -----------------------------------------------------------------------------------------------------


def test_mishaps_are_told_in_a_line_and_not_too_often(caplog: pytest.LogCaptureFixture) -> None:
    """One of a kind a minute, with how many were not told; mistakes of ours keep their traceback."""
    now = 0.0
    mishaps = Mishaps(lambda: now)
    loop = asyncio.new_event_loop()
    loop.set_exception_handler(mishaps)
    full = OSError(24, "Too many open files")
    for _ in range(50):
        loop.call_exception_handler({"message": "socket.accept() out of system resource", "exception": full})
    loop.call_exception_handler({"message": "a mistake", "exception": ValueError("x")})
    loop.call_exception_handler({"message": "Unclosed connection"})
    now = 61.0
    loop.call_exception_handler({"message": "socket.accept() out of system resource", "exception": full})
    loop.close()
    said = [
        (each.levelname, each.getMessage(), bool(each.exc_info), vars(each).get("untold")) for each in caplog.records
    ]
    assert said == [
        ("WARNING", "socket.accept() out of system resource: Too many open files", False, None),
        ("ERROR", "a mistake", True, None),
        ("ERROR", "Unclosed connection", False, None),
        ("WARNING", "socket.accept() out of system resource: Too many open files", False, 49),
    ]


def test_mishaps_of_very_many_kinds_are_not_kept(caplog: pytest.LogCaptureFixture) -> None:
    """Whoever makes up messages fills no memory."""
    mishaps = Mishaps(lambda: 0.0)
    loop = asyncio.new_event_loop()
    for number in range(1000):
        mishaps(loop, {"message": f"kind {number}"})
    loop.close()
    assert len(mishaps._kinds) <= 100


# --- an agent ----------------------------------------------------------------------------------------------------


def test_an_agent_whose_pages_are_stormed_repairs_its_rules(folder: Path, store: Store, empty_netns: str) -> None:
    """More connections than it may have files: it has files enough for its work, and answers when they are gone."""
    make_web(store)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    config = CONFIG.replace('metricsBindAddress: ""', f'metricsBindAddress: "127.0.0.1:{port}"')
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(4096, hard), hard))
    connections: list[socket.socket] = []
    try:
        with Running(folder, empty_netns, config=config) as agent:
            resource.prlimit(agent.pid, resource.RLIMIT_NOFILE, (512, hard))
            for _ in range(1100):
                made = socket.socket()
                made.settimeout(PATIENCE)
                connections.append(made)
                made.connect(("127.0.0.1", port))
            for number in range(1, 4):
                nft(empty_netns, "flush ruleset")
                until(lambda number=number: agent.target.drift == number and agent.in_step(), "repaired")
            assert len(os.listdir(f"/proc/{agent.pid}/fd")) < 256  # noqa: PTH208
            agent.signal(signal.SIGHUP)
            until(lambda: agent.said("the configuration was read again"), "it can open files")
            for each in connections:
                each.close()
            connections.clear()
            until(lambda: _asked(port), "answered again")
            assert not agent.said("Too many open files")
    finally:
        for each in connections:
            each.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert not differences(agent.state, empty_netns)


def _asked(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as client:
        client.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
        return client.recv(100).startswith(b"HTTP/1.0 200 ")
    return False

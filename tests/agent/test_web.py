"""The agent's pages: /metrics, /healthz, /livez, where the configuration says, in kube-proxy's words."""

from __future__ import annotations

import asyncio
import http.client
import json
import re
import socket
import subprocess
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime

import pytest
from prometheus_client.parser import text_string_to_metric_families

from svcnat.agent.freshness import Health
from svcnat.agent.metrics import Metrics
from svcnat.agent.web import Pages
from svcnat.kernel import netns
from svcnat.model.configuration import Bind

METRICS, HEALTHZ = Bind("127.0.0.1", 10249), Bind("127.0.0.1", 10256)

Run = Callable[[Coroutine[None, None, None]], None]
Answer = tuple[int, dict[str, str], str]


@pytest.fixture
def run(make_netns: Callable[[], str]) -> Run:
    """A function that runs a coroutine in a network namespace of its own, so that no port is anybody else's."""
    name = make_netns()
    subprocess.run(["ip", "-n", name, "link", "set", "lo", "up"], check=True)
    return lambda work: netns.call(name, lambda: asyncio.run(work))


class World:
    """Pages, and what they tell."""

    def __init__(self) -> None:
        self.health, self.alive = Health(fresh=True, updated=0.0), True
        self.metrics = Metrics()
        self.pages = Pages(lambda: self.health, lambda: self.alive, self.metrics)


def request(place: Bind, path: str, method: str = "GET") -> Answer | str:
    connection = http.client.HTTPConnection(place.address, place.port, timeout=10)
    try:
        connection.request(method, path)
        response = connection.getresponse()
        return response.status, dict(response.getheaders()), response.read().decode()
    except OSError as error:
        return type(error).__name__
    finally:
        connection.close()


async def ask(place: Bind, path: str, method: str = "GET") -> Answer | str:
    return await asyncio.to_thread(request, place, path, method)


async def code(place: Bind, path: str, method: str = "GET") -> int | str:
    answer = await ask(place, path, method)
    return answer if isinstance(answer, str) else answer[0]


def test_healthz(run: Run) -> None:
    """kube-proxy's body and headers: 200 while fresh, else 503; each answer is counted."""

    async def work() -> None:
        world = World()
        async with world.pages:
            assert await world.pages.update(METRICS, HEALTHZ) == ()
            world.health = Health(fresh=True, updated=1_700_000_000.25)
            status, headers, body = await ask(HEALTHZ, "/healthz")
            assert status == 200
            headers.pop("Date")
            assert headers == {
                "Content-Type": "application/json",
                "Content-Length": str(len(body)),
                "X-Content-Type-Options": "nosniff",
                "Server": "svcnat",
            }
            found = re.fullmatch(r'\{"lastUpdated": "(.*)","currentTime": "(.*)", "nodeEligible": true\}', body)
            assert found
            assert found[1] == "2023-11-14 22:13:20.250000 +0000 UTC"
            shown = datetime.strptime(found[2], "%Y-%m-%d %H:%M:%S.%f +0000 UTC").replace(tzinfo=UTC)
            assert abs((datetime.now(UTC) - shown).total_seconds()) < 600
            world.health = Health(fresh=False, updated=0.0)
            status, _, body = await ask(HEALTHZ, "/healthz")
            assert status == 503
            assert json.loads(body)["nodeEligible"] is True
            assert await code(HEALTHZ, "/healthz", "HEAD") == 503
            text = world.metrics.text().decode()
            assert 'kubeproxy_proxy_healthz_total{code="200"} 1.0' in text
            assert 'kubeproxy_proxy_healthz_total{code="503"} 2.0' in text

    run(work())


def test_a_node_that_is_about_to_go(run: Run) -> None:
    """Load balancers are to send it no more clients, but nobody is to restart its agent (KEP-3836)."""

    async def work() -> None:
        world = World()
        async with world.pages:
            await world.pages.update(METRICS, HEALTHZ)
            world.health = Health(fresh=True, updated=0.0, eligible=False)
            status, _, body = await ask(HEALTHZ, "/healthz")
            assert (status, json.loads(body)["nodeEligible"]) == (503, False)
            assert await code(HEALTHZ, "/livez") == 200

    run(work())


def test_livez(run: Run) -> None:
    """Late rules are no reason to restart the agent; one that does not work any more is."""

    async def work() -> None:
        world = World()
        async with world.pages:
            await world.pages.update(METRICS, HEALTHZ)
            world.health = Health(fresh=False, updated=0.0)
            status, _, body = await ask(HEALTHZ, "/livez")
            assert status == 200
            assert set(json.loads(body)) == {"lastUpdated", "currentTime"}
            world.alive = False
            assert await code(HEALTHZ, "/livez") == 503
            assert 'kubeproxy_proxy_livez_total{code="503"} 1.0' in world.metrics.text().decode()

    run(work())


def test_metrics(run: Run) -> None:
    """Prometheus' text format, with its content type, on its own port."""

    async def work() -> None:
        world = World()
        async with world.pages:
            await world.pages.update(METRICS, HEALTHZ)
            world.metrics.passed("n1", "full", 0.1)
            answers = await asyncio.gather(*(ask(METRICS, "/metrics") for _ in range(20)))
            for status, headers, body in answers:
                assert status == 200
                assert headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
                names = {family.name for family in text_string_to_metric_families(body)}
                assert "kubeproxy_sync_proxy_rules_duration_seconds" in names
            assert [await code(METRICS, path) for path in ("/", "/healthz", "/metrics/", "/livez")] == [404] * 4
            assert await code(HEALTHZ, "/metrics") == 404
            assert await code(METRICS, "/metrics?name[]=x") == 200
            assert await code(METRICS, "/metrics", "HEAD") == 200
            for place, path in ((METRICS, "/metrics"), (HEALTHZ, "/healthz")):
                assert await code(place, path, "POST") == 405

    run(work())


def test_addresses_follow_the_configuration(run: Run) -> None:
    """A reload moves, closes and opens; both on one address is possible, and so is neither, and IPv6."""

    async def work() -> None:
        world = World()
        other, sixth = Bind("127.0.0.2", 9999), Bind("::1", 10256)
        async with world.pages:
            assert await world.pages.update(None, None) == ()
            assert await code(METRICS, "/metrics") == "ConnectionRefusedError"
            await world.pages.update(METRICS, sixth)
            assert await code(METRICS, "/metrics") == await code(sixth, "/healthz") == 200
            await world.pages.update(other, other)
            assert [await code(other, path) for path in ("/metrics", "/healthz", "/livez")] == [200] * 3
            assert await code(METRICS, "/metrics") == "ConnectionRefusedError"
            await world.pages.update(None, other)
            assert [await code(other, path) for path in ("/metrics", "/healthz")] == [404, 200]
            await world.pages.update(other, None)
            assert [await code(other, path) for path in ("/metrics", "/healthz")] == [200, 404]
        assert await code(other, "/metrics") == "ConnectionRefusedError"

    run(work())


def test_all_addresses(run: Run) -> None:
    """One address is all that a configuration names: [::] answers both families, 0.0.0.0 its own."""

    async def work() -> None:
        world = World()
        async with world.pages:
            for every, answers in (("::", [200, 200]), ("0.0.0.0", [200, "ConnectionRefusedError"])):
                assert await world.pages.update(None, Bind(every, 10256)) == ()
                assert [await code(Bind(each, 10256), "/livez") for each in ("127.0.0.1", "::1")] == answers

    run(work())


def test_a_port_in_use(run: Run) -> None:
    """A warning and not the agent's end; the rest is served, and the next update tries again."""

    async def work() -> None:
        world = World()
        busy = socket.create_server((METRICS.address, METRICS.port))
        async with world.pages:
            absent = Bind("192.0.2.1", 10256)
            assert await world.pages.update(METRICS, absent) == (
                "/healthz and /livez: cannot be served on 192.0.2.1:10256: Cannot assign requested address",
                "/metrics: cannot be served on 127.0.0.1:10249: Address already in use",
            )
            assert len(await world.pages.update(METRICS, HEALTHZ)) == 1
            assert await code(HEALTHZ, "/healthz") == 200
            busy.close()
            assert await world.pages.update(METRICS, HEALTHZ) == ()
            assert await code(METRICS, "/metrics") == 200

    run(work())


def test_a_connection_stays_open_over_updates(run: Run) -> None:
    """A prober that keeps its connection sees every change on it."""

    async def work() -> None:
        world = World()
        async with world.pages:
            await world.pages.update(METRICS, HEALTHZ)
            connection = http.client.HTTPConnection(HEALTHZ.address, HEALTHZ.port, timeout=10)
            connection.auto_open = 0
            await asyncio.to_thread(connection.connect)

            def once() -> int:
                connection.request("GET", "/healthz")
                answer = connection.getresponse()
                answer.read()
                return answer.status

            assert await asyncio.to_thread(once) == 200
            world.health = Health(fresh=False, updated=0.0)
            await world.pages.update(None, HEALTHZ)
            assert await asyncio.to_thread(once) == 503
            connection.close()

    run(work())


def test_without_metrics(run: Run) -> None:
    """Pages that have no metrics serve none, and their health all the same."""

    async def work() -> None:
        async with Pages(lambda: Health(fresh=True, updated=0.0)) as pages:
            assert await pages.update(METRICS, HEALTHZ) == ()
            assert await code(METRICS, "/metrics") == "ConnectionRefusedError"
            assert [await code(HEALTHZ, path) for path in ("/healthz", "/livez")] == [200, 200]

    run(work())


def test_garbage(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    """What is no HTTP gets a 400 and no line in the log; a bug of ours gets a 500 and a traceback."""

    async def work() -> None:
        world = World()
        async with world.pages:
            await world.pages.update(METRICS, HEALTHZ)

            def spoil() -> bytes:
                with socket.create_connection(HEALTHZ, timeout=10) as client:
                    client.sendall(b"\x16\x03\x01 garbage\r\n\r\n")
                    return client.recv(1000)

            assert b" 400 Bad Request" in await asyncio.to_thread(spoil)
            assert not caplog.records
            world.health = None  # type: ignore[assignment]
            assert await code(HEALTHZ, "/healthz") == 500
            assert [each.name for each in caplog.records] == ["svcnat.agent.web"]

    run(work())

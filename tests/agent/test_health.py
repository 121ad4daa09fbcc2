"""healthCheckNodePort: load balancers learn over HTTP which nodes have endpoints, as they do from kube-proxy."""

from __future__ import annotations

import asyncio
import http.client
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from svcnat import api
from svcnat.agent.health import HealthServers, Unserved
from svcnat.cli.frame import main
from svcnat.errors import MissingError
from svcnat.kernel import netns
from svcnat.kernel.links import Device, Veth, build
from svcnat.ruleset.plan import HealthCheck
from svcnat.store.sqlite import Store
from tests.lab.conftest import namespaces_of, runtime, unused_name

__all__ = ["runtime"]  # a fixture

pytestmark = pytest.mark.packets

NODE = ("10.0.0.1", "fd00::1")
OTHER = ("10.0.0.3", "fd00::3")  # the node's too, but no address for node ports
TRIES = 300

ZERO = """\
{
	"service": {
		"namespace": "default",
		"name": "web"
	},
	"localEndpoints": 0,
	"serviceProxyHealthy": true
}"""
"""kube-proxy's body, as its dedent.Dedent leaves it."""


def check(count: int = 1, port: int = 31500, name: str = "web") -> HealthCheck:
    return HealthCheck(port, "default", name, count)


def eventually(ask: Callable[[], object], wanted: object) -> None:
    """Ask until the answer is the one that is wanted."""
    for _ in range(TRIES):
        if (answer := ask()) == wanted:
            return
        time.sleep(0.05)
    assert answer == wanted


def get(address: str, port: int = 31500, method: str = "GET", path: str = "/healthz") -> int | str:
    """The status of an answer, or why there is none."""
    connection = http.client.HTTPConnection(address, port, timeout=10)
    try:
        connection.request(method, path)
        return connection.getresponse().status
    except OSError as error:
        return type(error).__name__
    finally:
        connection.close()


def exchange(address: str, port: int, request: str) -> str:
    """What a server answers to `request` before it hangs up."""
    with socket.create_connection((address, port), timeout=10) as client:
        client.sendall(request.encode())
        parts = []
        while part := client.recv(65536):
            parts.append(part)
    return b"".join(parts).decode()


def sockets() -> list[str]:
    """What listens in the namespace of the thread: one line each, of both families."""
    tables = [Path(f"/proc/thread-self/net/{name}").read_text().splitlines()[1:] for name in ("tcp", "tcp6")]
    return [line for table in tables for line in table if line.split()[3] == "0A"]


class Node:
    """A network namespace that is a node, and another one for who asks."""

    def __init__(self, make_netns: Callable[[], str]) -> None:
        self.name, self.outside = make_netns(), make_netns()
        far = Device(netns.path(self.outside), "eth0", ("10.0.0.2/24", "fd00::2/64"))
        mine = tuple(f"{address}/{64 if ':' in address else 24}" for address in (*NODE, *OTHER))
        build([Veth(Device(netns.path(self.name), "eth0", mine), far)])

    async def ask(self, function: Callable[..., int | str], *arguments: str | int) -> int | str:
        """What `function` returns outside of the node, while the servers run."""
        return await asyncio.to_thread(netns.call, self.outside, lambda: function(*arguments))

    def listening(self) -> int:
        return len(netns.call(self.name, sockets))


@pytest.fixture
def node(make_netns: Callable[[], str]) -> Node:
    """A node with two addresses of each family."""
    return Node(make_netns)


def test_answers_what_kube_proxy_answers(node: Node) -> None:
    """Headers and body to the byte, 200 with endpoints and 503 without, for any path, GET and HEAD, both families."""

    async def run() -> None:
        async with HealthServers(node.name) as servers:
            assert await servers.update([check(2)], NODE) == ()
            for address in NODE:
                said = str(await node.ask(exchange, address, 31500, "GET / HTTP/1.0\r\n\r\n"))
                head, _, body = said.partition("\r\n\r\n")
                assert body == ZERO.replace("0", "2")
                status, *headers = re.sub("Date: .*", "Date: now", head).split("\r\n")
                assert status == "HTTP/1.0 200 OK"
                assert sorted(headers) == [
                    f"Content-Length: {len(body)}",
                    "Content-Type: application/json",
                    "Date: now",
                    "Server: svcnat",
                    "X-Content-Type-Options: nosniff",
                    "X-Load-Balancing-Endpoint-Weight: 2",
                ]
                for method in ("GET", "HEAD"):
                    assert await node.ask(get, address, 31500, method, "/some/where?else") == 200
                headless = str(await node.ask(exchange, address, 31500, "HEAD / HTTP/1.0\r\n\r\n"))
                assert headless.endswith("\r\n\r\n")
                assert "X-Load-Balancing-Endpoint-Weight: 2\r\n" in headless
            assert await servers.update([check(0)], NODE) == ()
            for address in NODE:
                said = str(await node.ask(exchange, address, 31500, "GET /healthz HTTP/1.0\r\n\r\n"))
                assert said.startswith("HTTP/1.0 503 Service Unavailable\r\n")
                assert "\r\nX-Load-Balancing-Endpoint-Weight: 0\r\n" in said
                assert said.endswith("\r\n\r\n" + ZERO)

    asyncio.run(run())
    assert node.listening() == 0


def test_rules_that_do_not_keep_up_get_no_clients(node: Node) -> None:
    """However many endpoints there are, as with kube-proxy; the body says that it is not for want of them."""
    healthy = [True]

    async def run() -> None:
        async with HealthServers(node.name, lambda: healthy[0]) as servers:
            await servers.update([check(2)], NODE)
            for healthy[0], status, word in ((True, "200 OK", "true"), (False, "503 Service Unavailable", "false")):
                said = str(await node.ask(exchange, NODE[0], 31500, "GET / HTTP/1.0\r\n\r\n"))
                assert said.startswith(f"HTTP/1.0 {status}\r\n")
                assert "\r\nX-Load-Balancing-Endpoint-Weight: 2\r\n" in said
                assert said.endswith(ZERO.replace("0", "2").replace("true", word))

    asyncio.run(run())


def test_a_count_changes_under_an_open_connection(node: Node) -> None:
    """A load balancer that keeps its connection open sees every change on it, and that the check is gone."""

    def ask(connection: http.client.HTTPConnection) -> int | str:
        try:
            connection.request("GET", "/")
            answer = connection.getresponse()
            answer.read()
        except (OSError, http.client.HTTPException):
            return "gone"
        return answer.status

    async def run() -> None:
        async with HealthServers(node.name) as servers:
            await servers.update([check(1)], NODE)
            connection = http.client.HTTPConnection(NODE[0], 31500, timeout=10)
            connection.auto_open = 0
            await asyncio.to_thread(netns.call, node.outside, connection.connect)
            for count, status in ((1, 200), (0, 503), (3, 200)):
                await servers.update([check(count)], NODE)
                assert await asyncio.to_thread(ask, connection) == status
            await servers.update([], NODE)
            assert await asyncio.to_thread(ask, connection) == "gone"
            connection.close()

    asyncio.run(run())


def test_ports_and_addresses_follow(node: Node) -> None:
    """Only the addresses given answer; another port or address replaces the one before; without any, all answer."""

    async def run() -> None:
        async with HealthServers(node.name) as servers:
            await servers.update([check()], NODE)
            assert [await node.ask(get, address) for address in (*NODE, *OTHER)] == [
                200,
                200,
                "ConnectionRefusedError",
                "ConnectionRefusedError",
            ]
            await servers.update([check(port=31501)], NODE)
            assert node.listening() == 2
            assert await node.ask(get, NODE[0], 31500) == "ConnectionRefusedError"
            assert await node.ask(get, NODE[1], 31501) == 200
            # A port may change hands in one step.
            assert await servers.update([check(0, 31501, "other"), check()], NODE) == ()
            assert [await node.ask(get, NODE[0], port) for port in (31500, 31501)] == [200, 503]
            await servers.update([check()], OTHER)
            assert await node.ask(get, NODE[0]) == "ConnectionRefusedError"
            assert await node.ask(get, OTHER[1]) == 200
            assert await servers.update([check()]) == ()
            assert [await node.ask(get, address) for address in (*NODE, *OTHER)] == [200] * 4
            assert node.listening() == 2
            await servers.update([])
            assert node.listening() == 0

    asyncio.run(run())


def test_what_cannot_be_bound_is_reported(node: Node) -> None:
    """A port in use, an address that is not there and a second owner are named; the rest works, and is tried again."""

    async def run() -> None:
        async with HealthServers(node.name) as servers:
            with netns.entered(node.name):
                stranger = socket.create_server((NODE[0], 31500))
            mine, next_one, rival = check(), check(port=31501, name="next"), check(port=31501, name="rival")
            assert await servers.update([mine, next_one, rival], [*NODE, "10.0.0.9"]) == (
                Unserved(rival, NODE[0], "the port is that of default/next"),
                Unserved(rival, NODE[1], "the port is that of default/next"),
                Unserved(rival, "10.0.0.9", "the port is that of default/next"),
                Unserved(mine, NODE[0], "Address already in use"),
                Unserved(mine, "10.0.0.9", "Cannot assign requested address"),
                Unserved(next_one, "10.0.0.9", "Cannot assign requested address"),
            )
            assert await node.ask(get, NODE[1], 31500) == 200
            assert [await node.ask(get, address, 31501) for address in NODE] == [200, 200]
            stranger.close()
            assert await servers.update([mine], NODE) == ()
            assert await node.ask(get, NODE[0], 31500) == 200

    asyncio.run(run())
    assert node.listening() == 0


def test_another_namespace_of_the_same_name(make_netns: Callable[[], str]) -> None:
    """The servers are in the namespace that has the name now; without one they are closed, and it is said."""
    name = make_netns()

    async def run() -> None:
        async with HealthServers(name) as servers:
            await servers.update([check()])
            old = os.open(netns.path(name), os.O_RDONLY)
            netns.delete(name)
            try:
                with pytest.raises(MissingError, match="does not exist"):
                    await servers.update([check()])
                assert netns.call(f"/proc/{os.getpid()}/fd/{old}", sockets) == []
            finally:
                netns.create(name)
                os.close(old)
            await servers.update([check()])
            assert len(netns.call(name, sockets)) == 2

    asyncio.run(run())


def test_garbage_is_refused_without_a_word(node: Node, caplog: pytest.LogCaptureFixture) -> None:
    """Whoever speaks no HTTP gets 400, and cannot fill the log."""

    async def run() -> None:
        async with HealthServers(node.name) as servers:
            await servers.update([check()], NODE)
            for request in ("\x16\x03\x01\x02\r\n\r\n", "GET / HTTP/1.1\r\nBad Header\r\n\r\n", "GET\r\n\r\n"):
                assert " 400 " in str(await node.ask(exchange, NODE[0], 31500, request))
            assert await node.ask(get, NODE[0]) == 200

    asyncio.run(run())
    assert not [record for record in caplog.records if record.levelname != "DEBUG"]


def test_without_aiohttp_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """The library is an optional extra: who lacks it is told its name."""
    monkeypatch.setitem(sys.modules, "aiohttp.web", None)
    with pytest.raises(MissingError, match=r"aiohttp: pip install '\.\[agent\]'"):
        HealthServers()


# --- in a lab --------------------------------------------------------------------------------------------------

MANIFESTS = """\
apiVersion: svcnat.io/v1alpha1
kind: Topology
nodes: [{name: node-1}, {name: node-2}]
---
apiVersion: v1
kind: Pod
metadata: {name: one, labels: {app: web}}
spec: {nodeName: node-1, containers: [{name: c, image: x, ports: [{containerPort: 80}]}]}
---
apiVersion: v1
kind: Pod
metadata: {name: two, labels: {app: web}}
spec: {nodeName: node-1, containers: [{name: c, image: x, ports: [{containerPort: 80}]}]}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  type: LoadBalancer
  externalTrafficPolicy: Local
  healthCheckNodePort: 31500
  ipFamilyPolicy: PreferDualStack
  selector: {app: web}
  ports: [{port: 80}]
"""
SERVICE = MANIFESTS.rpartition("---\n")[2]
WITHOUT_CHECK = SERVICE.replace("Policy: Local", "Policy: Cluster").replace("  healthCheckNodePort: 31500\n", "")
POD = MANIFESTS.split("---\n")[1]


@pytest.fixture
def lab(runtime: Path, tmp_path: Path) -> Iterator[api.Lab]:
    """Two nodes; the endpoints of the service are on the first."""
    (tmp_path / "lab.yml").write_text(MANIFESTS)
    lab = api.Lab.up(unused_name(), tmp_path / "lab.yml")
    yield lab
    lab.down()
    assert namespaces_of(lab.built.name) == []


def statuses(lab: api.Lab, port: int = 31500) -> list[int | str]:
    """What an outsider is told by the nodes: the first's IPv4 and IPv6 address, then the second's."""
    addresses = [address for node in lab.built.topology.nodes for address in node.addresses]
    return lab.run("client", lambda: [get(address, port) for address in addresses])


def move(lab: api.Lab, name: str, node: str) -> None:
    """Let a pod end, and one of its name begin on a node."""
    (found,) = api.load(text=POD.replace("one", name)).manifests
    lab.delete([found.resource])
    lab.apply(api.load(text=POD.replace("name: one", f"name: {name}").replace("node-1", node)))


# --- the agent --------------------------------------------------------------------------------------------------


@pytest.fixture
def start(tmp_path: Path, runtime: Path) -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """A function that runs an agent, which ends after the test if it did not before."""
    started: list[subprocess.Popen[bytes]] = []

    def run(*arguments: str) -> subprocess.Popen[bytes]:
        with (tmp_path / "agent.log").open("ab") as log:
            started.append(subprocess.Popen([sys.executable, "-m", "svcnat", "run", *arguments], stderr=log))
        return started[-1]

    yield run
    for each in started:
        each.kill()
        each.wait()


def test_the_agent_of_a_lab_answers_on_every_node(lab: api.Lab) -> None:
    """It sees changes of pods and of the port, and stops when nobody asks for the check any more."""
    eventually(lambda: statuses(lab), [200, 200, 503, 503])
    move(lab, "one", "node-2")
    eventually(lambda: statuses(lab), [200, 200, 200, 200])
    move(lab, "two", "node-2")
    eventually(lambda: statuses(lab), [503, 503, 200, 200])
    lab.apply(api.load(text=WITHOUT_CHECK))
    eventually(lambda: statuses(lab), ["ConnectionRefusedError"] * 4)
    lab.apply(api.load(text=SERVICE.replace("31500", "31501")))
    eventually(lambda: statuses(lab, 31501), [503, 503, 200, 200])


def test_the_agent_of_a_state_file_answers(
    node: Node, tmp_path: Path, start: Callable[..., subprocess.Popen[bytes]]
) -> None:
    """One namespace, and a state file that is replaced by another one; SIGTERM closes every port."""
    config = tmp_path / "config.yaml"
    config.write_text(
        "apiVersion: svcnat.io/v1alpha1\nkind: Configuration\nhostnameOverride: here\n"
        f"nodePortAddresses: [{NODE[0]}/32, '{NODE[1]}/128']\nmetricsBindAddress: ''\nhealthzBindAddress: ''\n"
    )
    common = ("--netns", node.name, "--config", str(config), "--state")
    (tmp_path / "web.yml").write_text(SERVICE)
    (tmp_path / "more.yml").write_text(SERVICE.replace("name: web", "name: more").replace("31500", "31502"))

    def outside(port: int) -> list[int | str]:
        return netns.call(node.outside, lambda: [get(address, port) for address in NODE])

    assert main(["apply", "-f", str(tmp_path / "web.yml"), *common, str(tmp_path / "state.db")]) == 0
    agent = start(*common, str(tmp_path / "state.db"))
    eventually(lambda: outside(31500), [503, 503])
    with Store.open(tmp_path / "other.db") as other, other.transaction() as transaction:
        for manifest in api.load(tmp_path / "more.yml").manifests:
            transaction.apply(manifest.document)
    for suffix in ("-wal", "-shm"):
        (tmp_path / f"state.db{suffix}").unlink(missing_ok=True)
    (tmp_path / "other.db").replace(tmp_path / "state.db")
    eventually(lambda: outside(31502), [503, 503])
    eventually(lambda: outside(31500), ["ConnectionRefusedError"] * 2)
    # The rules say whom they follow now, so commands with the new file may go on when the agent has ended.
    agent.terminate()
    assert agent.wait(timeout=60) == 0
    assert outside(31502) == ["ConnectionRefusedError"] * 2
    assert main(["apply", "-f", str(tmp_path / "more.yml"), *common, str(tmp_path / "state.db")]) == 0

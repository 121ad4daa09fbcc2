"""Limits of each client: connections at a time, and new connections in a time; other clients are not concerned."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator

import pytest

from svcnat.kernel import netns
from tests.bed import PATIENCE
from tests.packets.cluster import Cluster, temporary_cluster
from tests.packets.journeys import Declared, compiled, declare

pytestmark = pytest.mark.packets

MOST = 3
VERSIONS = (4, 6)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with temporary_cluster() as made:
        yield made


def program(cluster: Cluster, name: str, limit: str, value: str) -> Declared:
    """Make a service with that limit the only one."""
    services = declare({name: {"endpoints": ["a1", "a2"], "annotations": {f"svcnat.io/{limit}": value}}})
    cluster.program(compiled(services))
    return services[name]


class Clients:
    """Connections that last; both ends are ours."""

    def __init__(self, cluster: Cluster, service: Declared, version: int) -> None:
        self._cluster = cluster
        self._service = service
        self._family = socket.AF_INET6 if version == 6 else socket.AF_INET
        self._version = version
        self._held: list[tuple[socket.socket, socket.socket]] = []

    def __enter__(self) -> Clients:
        return self

    def __exit__(self, *_: object) -> None:
        while self._held:
            self.hang_up()

    def connect(self, source: str, frontend: str) -> str:
        """Make one more: ``reached``, or ``refused``."""
        with netns.entered(self._cluster.netns(source)):
            client = socket.socket(self._family)
        client.settimeout(PATIENCE)
        try:
            client.connect(self._service.address(frontend, self._version))
        except ConnectionRefusedError:
            client.close()
            return "refused"
        self._held.append((client, self._cluster.accept()[0]))
        return "reached"

    def hang_up(self) -> None:
        """End the newest one, as both sides do it when they are done."""
        for end in self._held.pop():
            end.close()


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("frontend", ["", "node-1", "lb"])
@pytest.mark.parametrize("source", ["client", "c1", "node-1"])
def test_max_connections(cluster, source, frontend, version) -> None:
    """One more than the limit is refused at once, another client's is not, and closing one frees a place."""
    service = program(cluster, f"most-{source}-{frontend}-{version}".replace("--", "-"), "max-connections", str(MOST))
    with Clients(cluster, service, version) as others, Clients(cluster, service, version) as mine:
        assert [mine.connect(source, frontend) for _ in range(MOST + 2)] == ["reached"] * MOST + ["refused"] * 2
        assert [others.connect("client-2", frontend) for _ in range(MOST + 1)] == ["reached"] * MOST + ["refused"]
        mine.hang_up()
        for _ in range(100):  # the kernel counts anew with its next tick
            if mine.connect(source, frontend) == "reached":
                break
            time.sleep(0.02)
        else:
            raise AssertionError("a place that is not freed")
        assert mine.connect(source, frontend) == "refused"


@pytest.mark.parametrize("version", VERSIONS)
def test_max_connections_counts_all_frontends_together(cluster, version) -> None:
    """A client does not get a second helping by another address of the service port."""
    service = program(cluster, f"together-{version}", "max-connections", str(MOST))
    with Clients(cluster, service, version) as mine:
        assert [mine.connect("client", frontend) for frontend in ("", "lb", "node-1")] == ["reached"] * MOST
        assert [mine.connect("client", frontend) for frontend in ("", "lb", "ext", "node-1")] == ["refused"] * 4


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("protocol", ["TCP", "UDP"])
@pytest.mark.parametrize("frontend", ["", "node-1", "lb"])
def test_connection_rate(cluster, frontend, protocol, version) -> None:
    """So many in the time, however fast, and then refusals; another client still has all of its own."""
    name = f"rate-{frontend}-{protocol.lower()}-{version}".replace("--", "-")
    address, port = program(cluster, name, "connection-rate", f"{MOST}/hour").address(frontend, version)
    for source in ("client", "client-2", "c1", "node-1"):
        ends = [cluster.probe(source, address, port, protocol, patience=PATIENCE).what for _ in range(MOST + 3)]
        assert ends == ["reached"] * MOST + ["refused"] * 3


def test_a_limit_leaves_other_services_alone(cluster) -> None:
    """Whoever used up one service's rate is as welcome as before at another."""
    limited = {"endpoints": ["a1"], "annotations": {"svcnat.io/connection-rate": "1/day"}}
    services = declare({"limited": limited, "open": {"endpoints": ["a1"]}})
    cluster.program(compiled(services))
    for name, ends in (("limited", {"reached", "refused"}), ("open", {"reached"})):
        address, port = services[name].address("", 4)
        assert {cluster.probe("client", address, port, patience=PATIENCE).what for _ in range(5)} == ends

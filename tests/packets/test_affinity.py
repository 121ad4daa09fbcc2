"""sessionAffinity ClientIP, learned by the packets: who stays where, for how long, and who must not."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.bed import PATIENCE, Seen
from tests.packets.cluster import ADDRESSES, Cluster, temporary_cluster
from tests.packets.journeys import compiled, declare

pytestmark = pytest.mark.packets

EVERYWHERE = ["a1", "b1", "a2", "b2"]
SOURCES = ("a1", "b1", "c1", "c2", "node-1", "node-2", "client", "client-2")
VERSIONS = (4, 6)
IN_A_ROW = 15
# Four endpoints, no affinity: the chance to stay with one for so long is below 1e-8, to miss one below 1e-4 of that.
MANY = 100


class Service:
    """One service of the cluster, by a name that no other test has: what clients remember of it is its own."""

    def __init__(self, cluster: Cluster, name: str) -> None:
        self._cluster = cluster
        self._name = name

    def has(
        self,
        endpoints: list[Any],
        *,
        affinity: bool = True,
        seconds: int | None = None,
        weights: dict[str, int] | None = None,
        **spec: Any,
    ) -> None:
        """Make the rules of both nodes send the service to these endpoints."""
        if affinity:
            config = {"sessionAffinityConfig": {"clientIP": {"timeoutSeconds": seconds}}} if seconds else {}
            spec |= {"sessionAffinity": "ClientIP", **config}
        self._declared = declare({self._name: {"spec": spec, "endpoints": endpoints, "weights": weights or {}}})[
            self._name
        ]
        self._cluster.program(compiled({self._name: self._declared}))

    def ask(self, source: str, frontend: str = "", protocol: str = "TCP", version: int = 4) -> Seen:
        """Where one connection goes."""
        address, port = self._declared.address(frontend, version)
        seen = self._cluster.probe(source, address, port, protocol, patience=PATIENCE)
        assert seen.what == "reached"
        return seen

    def met(self, source: str, frontend: str = "", times: int = IN_A_ROW, **how: Any) -> set[str]:
        """The endpoints that so many connections in a row met."""
        return {self.ask(source, frontend, **how).pod for _ in range(times)}


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with temporary_cluster() as made:
        yield made


@pytest.fixture
def service(cluster, request) -> Service:
    """A service named after the test."""
    return Service(cluster, re.sub("[^a-z0-9]+", "-", request.node.name.lower())[:60].strip("-"))


@pytest.mark.parametrize("protocol", ["TCP", "UDP"])
def test_on_and_off(service, protocol) -> None:
    """On, a client meets one endpoint 15 times in a row; off, all of them; and it can be switched either way."""
    ways = [(frontend, version) for frontend in ("", "node-1", "lb", "ext") for version in VERSIONS]
    service.has(EVERYWHERE)
    for frontend, version in ways:
        for source in ("c1", "node-1", "client", "client-2"):
            assert len(service.met(source, frontend, protocol=protocol, version=version)) == 1
    service.has(EVERYWHERE, affinity=False)
    for frontend, version in ways:
        assert service.met("client", frontend, MANY, protocol=protocol, version=version) == set(EVERYWHERE)
    service.has(EVERYWHERE)
    for frontend, version in ways:
        assert len(service.met("client", frontend, protocol=protocol, version=version)) == 1


def test_clients_are_told_apart(service) -> None:
    """Each has its own endpoint, whatever the others do in between."""
    service.has(EVERYWHERE)
    clients = [(source, version) for source in SOURCES for version in VERSIONS]
    rounds = [{client: service.ask(client[0], version=client[1]).pod for client in clients} for _ in range(IN_A_ROW)]
    assert all(each == rounds[0] for each in rounds)
    assert len(set(rounds[0].values())) > 1


def test_the_vips_of_a_port_share_it(service) -> None:
    """A client that comes by another address of the same service port stays where it was (by one node, that is)."""
    service.has(["a2"])
    clients = [(source, version) for source in ("c1", "node-1", "client") for version in VERSIONS]
    for source, version in clients:
        service.ask(source, version=version)
    service.has(EVERYWHERE)
    for source, version in clients:
        for frontend in ("", "lb", "ext", "node-1"):
            assert service.met(source, frontend, version=version) == {"a2"}


def test_protocols_are_ports_of_their_own(service) -> None:
    """TCP and UDP under one number are two service ports: each remembers for itself."""
    clients = [(source, version) for source in SOURCES for version in VERSIONS]
    service.has(["a1"])
    for source, version in clients:
        service.ask(source, protocol="TCP", version=version)
    service.has(EVERYWHERE)
    assert {service.ask(source, protocol="TCP", version=version).pod for source, version in clients} == {"a1"}
    assert {service.ask(source, protocol="UDP", version=version).pod for source, version in clients} - {"a1"}


def test_it_ends_with_its_timeout(service) -> None:
    """After timeoutSeconds without a new connection a client is a stranger again: sooner or later it goes elsewhere."""
    clients = {(source, version) for source in ("c1", "client", "node-1") for version in VERSIONS}
    service.has(["a1"], seconds=1)
    for source, version in clients:
        service.ask(source, version=version)
    service.has(EVERYWHERE, seconds=1)
    for _ in range(40):  # each time it stays by chance with one in four
        time.sleep(1.2)
        clients = {client for client in clients if service.ask(client[0], version=client[1]).pod == "a1"}
        if not clients:
            return
    raise AssertionError(f"some stayed for ever: {clients}")


def test_new_connections_renew_it(service) -> None:
    """A client that asks again within the timeout stays for twice its length, and more."""
    clients = [(source, version) for source in ("c1", "client", "node-1") for version in VERSIONS]
    for _ in range(5):
        service.has(["a1"], seconds=1)
        for source, version in clients:
            service.ask(source, version=version)
        service.has(EVERYWHERE, seconds=1)
        begin = last = time.monotonic()
        longest, pods = 0.0, set()
        while last - begin < 2.2:
            pods |= {service.ask(source, version=version).pod for source, version in clients}
            longest, last = max(longest, time.monotonic() - last), time.monotonic()
            time.sleep(0.15)
        if pods == {"a1"}:
            return
        assert longest > 0.7, "forgotten, although it asked in time"
    pytest.skip("this machine does not find the time to ask once a second")


LEAVING = {"conditions": {"ready": False, "serving": True, "terminating": True}}
UNREADY = {"conditions": {"ready": False}}


@pytest.mark.parametrize("how", [None, LEAVING, UNREADY], ids=["gone", "leaving", "unready"])
def test_never_to_an_endpoint_that_is_gone(service, how) -> None:
    """Its clients go to another and stay there, even when it comes back; clients of others notice nothing."""
    clients = [(source, version) for source in ("c1", "client", "node-1") for version in VERSIONS]
    others = [(source, version) for source in ("b1", "client-2", "c2", "node-2") for version in VERSIONS]
    service.has(["a1"])
    for source, version in clients:
        service.ask(source, version=version)
    service.has(["a1", "b1", "a2"])
    kept = {client: service.met(client[0], version=client[1]) for client in others}
    service.has(["b1", "a2", *([{"a1": how}] if how else [])])
    for source, version in clients:
        moved = service.met(source, version=version)
        assert len(moved) == 1
        assert moved <= {"b1", "a2"}
        kept[source, version] = moved
    service.has(["a1", "b1", "a2"])
    for (source, version), pods in kept.items():
        assert len(pods) == 1
        if pods != {"a1"}:
            assert service.met(source, version=version) == pods


def test_nobody_is_lost_when_an_unrelated_endpoint_goes_or_comes(service) -> None:
    """Every client keeps its endpoint through changes of the others."""
    clients = [(source, version) for source in SOURCES for version in VERSIONS]
    service.has(["a1", "b1"])
    kept = {client: service.met(client[0], version=client[1]) for client in clients}
    for endpoints in (["a1", "b1", "a2"], ["a1", "b1"], EVERYWHERE, ["a1", "b1", "b2"]):
        service.has(endpoints)
        for source, version in clients:
            assert service.met(source, times=5, version=version) == kept[source, version]


@pytest.mark.parametrize("endpoint", ["node-1", "node-2"])
def test_endpoints_on_the_host_network(service, endpoint) -> None:
    """An endpoint on the node itself is remembered, too, though its flows end at the input hook."""
    clients = [
        (source, {"protocol": protocol, "version": version})
        for source in ("c1", "client", "node-1", "c2", "node-2")
        for protocol in ("TCP", "UDP")
        for version in VERSIONS
    ]
    service.has([endpoint])
    for source, how in clients:
        service.ask(source, **how)
    service.has(["node-1", "node-2", "a1", "a2"])
    for source, how in clients:
        assert service.met(source, **how) == {endpoint}
        assert service.met(source, "lb", **how) == {endpoint}


def test_beside_a_strangers_masquerade(service, cluster) -> None:
    """A table that masquerades everything at priority 100 does not make all clients one: we learn before it."""
    for family in ("ip", "ip6"):
        hook = "type nat hook postrouting priority 100;"
        cluster.run("node-1", "nft", f"table {family} stranger {{ chain post {{ {hook} masquerade; }}; }}")
    try:
        service.has(EVERYWHERE)
        clients = [(source, version) for source in ("a1", "b1", "c1", "client", "client-2") for version in VERSIONS]
        rounds = [{client: service.ask(client[0], version=client[1]) for client in clients} for _ in range(IN_A_ROW)]
        met = [{client: seen.pod for client, seen in each.items()} for each in rounds]
        assert {seen.source for seen in rounds[0].values()} == set(ADDRESSES["node-1"])  # the stranger is at work
        assert all(each == met[0] for each in met)
        assert len(set(met[0].values())) > 1
    finally:
        for family in ("ip", "ip6"):
            cluster.run("node-1", "nft", f"delete table {family} stranger")


def test_policy_local_never_sends_an_outsider_to_another_node(service) -> None:
    """Not even one who met an endpoint there through the cluster IP; it would not be masqueraded on its way."""
    policy = {"externalTrafficPolicy": "Local"}
    for frontend in ("lb", "ext", "node-1"):
        service.has(["a2"], **policy)
        for version in VERSIONS:
            service.ask("client", version=version)
        service.has(EVERYWHERE, **policy)
        for version in VERSIONS:
            assert service.met("client", version=version) == {"a2"}
            seen = [service.ask("client", frontend, version=version) for _ in range(IN_A_ROW)]
            assert len({each.pod for each in seen}) == 1
            assert seen[0].pod in {"a1", "b1"}
            assert {each.source for each in seen} <= set(ADDRESSES["client"])


def test_policy_local_lets_pods_and_nodes_stay_anywhere(service) -> None:
    """They meet all endpoints under that policy, and one each with affinity."""
    policy = {"externalTrafficPolicy": "Local"}
    clients = [(source, version) for source in ("c1", "node-1") for version in VERSIONS]
    service.has(["a2"], **policy)
    for source, version in clients:
        service.ask(source, version=version)
    service.has(EVERYWHERE, **policy)
    for source, version in clients:
        for frontend in ("lb", "ext", "node-1", ""):
            assert service.met(source, frontend, version=version) == {"a2"}


def test_internal_policy_local_stays_on_the_node(service) -> None:
    """Who met another node's endpoint through the load balancer meets this node's through the cluster IP."""
    policy = {"internalTrafficPolicy": "Local"}
    clients = [(source, version) for source in ("c1", "client") for version in VERSIONS]
    service.has(["a2"], **policy)
    for source, version in clients:
        service.ask(source, "lb", version=version)
    service.has(EVERYWHERE, **policy)
    for source, version in clients:
        assert service.met(source, "lb", version=version) == {"a2"}
        here = service.met(source, version=version)
        assert len(here) == 1
        assert here < {"a1", "b1"}


def test_a_drained_endpoint_is_not_remembered(service) -> None:
    """Weight 0: nothing new goes there, affinity or not."""
    service.has(["a1"])
    for version in VERSIONS:
        service.ask("client", version=version)
    service.has(["a1", "b1"], weights={"a1": 0})
    for version in VERSIONS:
        assert service.met("client", version=version) == {"b1"}

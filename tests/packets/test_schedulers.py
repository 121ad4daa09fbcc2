"""How flows are spread: weights, round robin, source hash and maglev, each measured with real flows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pytest

from tests.bed import PATIENCE
from tests.packets.cluster import ADDRESSES, Cluster, temporary_cluster
from tests.packets.journeys import Declared, compiled, declare

pytestmark = pytest.mark.packets

FLOWS = 3000
CRITICAL = {1: 10.828, 2: 13.816, 3: 16.266}  # chi-square by degrees of freedom, p = 0.001
EVERYWHERE = ("a1", "b1", "a2", "b2")
WEIGHTS = {"a1": 1, "b1": 2, "a2": 7}
MANY_CLIENTS = {
    4: tuple(f"192.0.2.{host}" for host in range(100, 132)),
    6: tuple(f"2001:db8:c::{host:x}" for host in range(100, 132)),
}
# One port and few frontends: a maglev table has a thousand elements for each.
SLIM = {
    "type": "NodePort",
    "externalIPs": [],
    "ports": [{"name": "udp", "protocol": "UDP", "port": 80, "targetPort": 8080, "nodePort": 30010}],
}
OTHER = {"other": {"endpoints": ["c1", "c2"]}}


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with temporary_cluster() as made:
        for version, prefix, flags in ((4, 24, ()), (6, 64, ("nodad",))):
            for address in MANY_CLIENTS[version]:
                made.run("client", "ip", "address", "add", f"{address}/{prefix}", "dev", "eth0", *flags)
        yield made


def program(
    cluster: Cluster, scheduler: str, endpoints: Sequence[Any], *more: Mapping[str, Any], **short: Any
) -> Declared:
    """Make the service ``web`` of this scheduler the only one, but for `more`."""
    web = {"endpoints": list(endpoints), "annotations": {"svcnat.io/scheduler": scheduler}, **short}
    services = declare({"web": web, **{name: each for part in more for name, each in part.items()}})
    cluster.program(compiled(services))
    return services["web"]


def spread(
    cluster: Cluster, web: Declared, ports: range, source: str, frontend: str, protocol: str, version: int
) -> dict[int, str]:
    """The endpoint that a flow from each of these source ports meets; all are new flows, for the ports differ."""
    address, port = web.address(frontend, version)
    here = ADDRESSES[source][version == 6]
    return {
        number: cluster.probe(source, address, port, protocol, patience=PATIENCE, bind=(here, number)).pod
        for number in ports
    }


def chi_square(counts: Counter[str], weights: Mapping[str, int]) -> float:
    total = sum(weights.values())
    expected = {name: counts.total() * weight / total for name, weight in weights.items()}
    return sum((counts[name] - number) ** 2 / number for name, number in expected.items())


@pytest.mark.parametrize(
    ("source", "frontend", "protocol", "version"),
    [
        ("c1", "", "TCP", 4),
        ("client", "lb", "UDP", 4),
        ("node-1", "", "UDP", 6),
        ("client", "node-1", "TCP", 6),
        ("c2", "node-2", "TCP", 4),
    ],
)
@pytest.mark.parametrize("weights", [dict.fromkeys(EVERYWHERE, 1), WEIGHTS], ids=["even", "1-2-7"])
def test_random(cluster, weights, source, frontend, protocol, version) -> None:
    """Each endpoint gets its share: 3,000 flows pass a chi-square test at p > 0.001.

    A fair die fails that test once in a thousand throws, so a failure is thrown once more: both fail once in a million.
    """
    web = program(cluster, "random", list(weights), weights=weights)
    for last in (False, True):
        cluster.forget()
        counts = Counter(
            spread(cluster, web, range(20000, 20000 + FLOWS), source, frontend, protocol, version).values()
        )
        assert set(counts) == set(weights)
        if chi_square(counts, weights) < CRITICAL[len(weights) - 1]:
            return
        assert not last, f"not the shares that were asked for, twice: {counts}"


@pytest.mark.parametrize("frontend", ["", "lb", "node-1"])
def test_round_robin_is_exact(cluster, frontend) -> None:
    """N * k connections: exactly k for each endpoint, whoever makes them; with weights, exactly their shares."""
    for weights in (dict.fromkeys(EVERYWHERE, 1), WEIGHTS):
        web = program(cluster, "round-robin", list(weights), weights=weights)
        slots = sum(weights.values())
        for protocol in ("TCP", "UDP"):
            for version in (4, 6):
                counts: Counter[str] = Counter()
                for source in ("c1", "client", "node-1", "client-2"):
                    ports = range(20000, 20000 + 7 * slots)
                    counts.update(spread(cluster, web, ports, source, frontend, protocol, version).values())
                assert counts == {name: 4 * 7 * weight for name, weight in weights.items()}


def test_round_robin_takes_turns(cluster) -> None:
    """No endpoint is met twice before each was met once; a service port has turns of its own."""
    again = {"again": {"endpoints": list(EVERYWHERE), "annotations": {"svcnat.io/scheduler": "round-robin"}}}
    web = program(cluster, "round-robin", EVERYWHERE, again)
    other = declare({"web": {}, **again})["again"]
    met = []
    for number in range(20000, 20000 + 5 * len(EVERYWHERE)):
        met += spread(cluster, web, range(number, number + 1), "c1", "", "TCP", 4).values()
        spread(cluster, other, range(3 * number - 40000, 3 * number - 39997), "c1", "", "TCP", 4)
    for turn in range(0, len(met), len(EVERYWHERE)):
        assert set(met[turn : turn + len(EVERYWHERE)]) == set(EVERYWHERE)


def by_client(cluster: Cluster, web: Declared, frontend: str, version: int, protocol: str = "TCP") -> dict[str, str]:
    """The endpoint that each of many clients meets, the same three times in a row."""
    address, port = web.address(frontend, version)
    met = {}
    for client in MANY_CLIENTS[version]:
        how = {"patience": PATIENCE, "bind": (client, 0)}
        pods = {cluster.probe("client", address, port, protocol, **how).pod for _ in range(3)}
        assert len(pods) == 1, f"{client} wandered over {pods}"
        met[client] = pods.pop()
    return met


@pytest.mark.parametrize("version", [4, 6])
def test_source_hash_is_stable(cluster, version) -> None:
    """A client meets the same endpoint by any protocol and frontend, after a fresh load, and beside other services."""
    web = program(cluster, "source-hash", EVERYWHERE)
    met = by_client(cluster, web, "", version)
    assert set(met.values()) == set(EVERYWHERE)
    assert by_client(cluster, web, "", version, "UDP") == met
    assert by_client(cluster, web, "lb", version) == met
    assert by_client(cluster, web, "node-1", version) == met
    assert by_client(cluster, web, "node-2", version) == met  # nodes agree
    program(cluster, "source-hash", EVERYWHERE, OTHER)
    assert by_client(cluster, web, "", version) == met
    cluster.program(
        {
            node: {family: type(table)(family) for family, table in rules.items()}
            for node, rules in cluster.rules.items()
        }
    )
    program(cluster, "source-hash", EVERYWHERE)
    assert by_client(cluster, web, "", version) == met


@pytest.mark.parametrize("version", [4, 6])
def test_source_hash_follows_weights(cluster, version) -> None:
    """Clients are spread by weight, roughly: a drained endpoint has none, the heaviest most."""
    web = program(cluster, "source-hash", ["a1", "b1", "a2"], weights={"a1": 0, "b1": 1, "a2": 7})
    counts = Counter(by_client(cluster, web, "", version).values())
    assert set(counts) <= {"b1", "a2"}
    assert counts["a2"] > counts["b1"]


@pytest.mark.parametrize("version", [4, 6])
def test_maglev_moves_few_flows(cluster, version) -> None:
    """One endpoint of N goes: its own flows move, and of all flows fewer than 2/N; it comes back, and so do they."""
    endpoints = (*EVERYWHERE, "c1", "c2")
    ports = range(20000, 21500)

    def flows(frontend: str = "") -> dict[int, str]:
        cluster.forget()
        return spread(cluster, web, ports, "client", frontend, "UDP", version)

    web = program(cluster, "maglev", endpoints, spec=SLIM)
    before = flows()
    assert flows() == before
    assert flows("node-2") == before  # by the other node
    counts = Counter(before.values())
    fair = len(ports) / len(endpoints)
    assert set(counts) == set(endpoints)
    assert all(0.7 * fair < count < 1.3 * fair for count in counts.values()), counts
    program(cluster, "maglev", [name for name in endpoints if name != "b1"], spec=SLIM)
    after = flows()
    moved = [number for number in ports if before[number] != after[number]]
    assert "b1" not in after.values()
    assert len(moved) < 2 / len(endpoints) * len(ports)
    program(cluster, "maglev", endpoints, OTHER, spec=SLIM)
    assert flows() == before


@pytest.mark.parametrize("scheduler", ["random", "round-robin", "source-hash", "maglev"])
def test_every_scheduler_obeys_the_policies(cluster, scheduler) -> None:
    """Local endpoints for outsiders under policy Local, all for pods; and a lone endpoint gets everything."""
    ports = range(20000, 20040)
    for version in (4, 6):
        # One family at a time: in a user namespace net.core.wmem_max limits what one transaction can hold.
        cluster.program(compiled({}))
        address, _ = declare({"web": {}})["web"].address("", version)
        family = {"ipFamilyPolicy": "SingleStack", "clusterIP": address, "clusterIPs": [address]}
        web = program(cluster, scheduler, EVERYWHERE, spec={**SLIM, **family, "externalTrafficPolicy": "Local"})
        assert set(spread(cluster, web, ports, "client", "node-1", "UDP", version).values()) <= {"a1", "b1"}
        assert set(spread(cluster, web, ports, "client", "node-2", "UDP", version).values()) <= {"a2", "b2"}
        if scheduler != "source-hash":  # a pod has but one of all endpoints then
            assert set(spread(cluster, web, ports, "c1", "node-1", "UDP", version).values()) == set(EVERYWHERE)
    cluster.program(compiled({}))
    web = program(cluster, scheduler, ["b2"], spec=SLIM)
    for version in (4, 6):
        for frontend in ("", "node-1"):
            assert set(spread(cluster, web, ports, "client", frontend, "UDP", version).values()) == {"b2"}

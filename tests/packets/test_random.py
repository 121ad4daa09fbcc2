"""Services that nobody thought of, and packets to them: the kernel does what the interpreter says it may."""

from __future__ import annotations

import random
from typing import Any

import pytest

from svcnat.model.configuration import Configuration
from tests.bed import PATIENCE
from tests.packets.chances import short
from tests.packets.cluster import ADDRESSES, BALANCED, HOME, NODES, Cluster, temporary_cluster
from tests.packets.journeys import CLUSTER_CIDR, KEPT, SERVICE_CIDR, Declared, End, compiled, declare, journey

pytestmark = pytest.mark.packets

_ROUNDS, _SERVICES, _PACKETS = 3, 12, 120
_SILENCE = 0.1  # seconds
_FRONTENDS = {
    "ClusterIP": ["", ":81", "ext"],
    "NodePort": ["", ":81", "ext", *NODES],
    "LoadBalancer": ["", ":81", *BALANCED, *NODES],
}


def expected(ends: dict[End, Any], source: str, version: int) -> set[tuple[str, str, str]]:
    """What a probe may see: how it ended, which pod answered, and which address that pod saw."""
    seen = {"reset": "refused", "rejected": "refused", "dropped": "silence"}
    return {
        ("reached", end.endpoint, ADDRESSES[source if end.sees == KEPT else end.sees][version == 6])
        if end.what == "reached"
        else (seen[end.what], "", "")
        for end in ends
    }


def send(cluster: Cluster, services: dict[str, Declared], chance: random.Random) -> None:
    """Send one packet from anywhere to any frontend."""
    service = services[chance.choice(list(services))]
    frontend = chance.choice(_FRONTENDS[service.spec["type"]])
    source, version = chance.choice(list(ADDRESSES)), chance.choice([4, 6])
    protocol = chance.choice(["TCP", "UDP"])
    address, port = service.address(frontend, version)
    ends = journey(cluster.rules, source, address, port, protocol)
    elsewhere = frontend in NODES and frontend != HOME.get(source)
    if any(
        end.sees == KEPT and (elsewhere or HOME.get(source) != HOME.get(end.endpoint, end.endpoint)) for end in ends
    ):
        # The answer may not come by the node that translated: a datagram need not be answered.
        protocol, ends = "UDP", journey(cluster.rules, source, address, port, "UDP")
    may = expected(ends, source, version)
    silent = ("silence", "", "") in may
    seen = cluster.probe(
        source, address, port, protocol, patience=_SILENCE if silent else PATIENCE, answered=protocol == "TCP"
    )
    where = f"{source} > {service.name}/{frontend or 'cluster IP'} {protocol} over IPv{version}"
    assert (seen.what, seen.pod, seen.source) in may, f"{where}: {service}"


@pytest.mark.parametrize("seed", range(_ROUNDS))
def test_the_kernel_does_what_the_interpreter_allows(seed) -> None:
    """Types, policies, affinity, schedulers, weights, hints, ranges and conditions in any combination; two nodes."""
    chance = random.Random(seed)
    services = declare({f"s{number}": short(chance) for number in range(_SERVICES)})
    config = Configuration(
        cluster_cidr=chance.choice([CLUSTER_CIDR, ""]),
        masquerade_all=chance.random() < 0.2,
        service_cidr=SERVICE_CIDR,
    )
    with temporary_cluster(compiled(services, config)) as cluster:
        for _ in range(_PACKETS):
            send(cluster, services, chance)

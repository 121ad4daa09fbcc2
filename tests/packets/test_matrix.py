"""The masquerade matrix: pod, node, outsider x every frontend x every policy, in four configurations.

What kube-proxy does is the truth (its nftables mode, and KEP-2086, KEP-1669 for the policies).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from svcnat.model.configuration import Configuration
from tests.packets import rows
from tests.packets.cluster import BRIDGE, Cluster, temporary_cluster
from tests.packets.journeys import CLUSTER_CIDR, compiled, declare
from tests.packets.rows import Row

NEAR, FAR = ("a1", "b1"), ("a2", "b2")
ALL = (*NEAR, *FAR)
SPECS = {"Cluster": {}, "Local": {"externalTrafficPolicy": "Local"}, "internal": {"internalTrafficPolicy": "Local"}}
SERVICES = declare({policy.lower(): {"spec": spec, "endpoints": ALL} for policy, spec in SPECS.items()})
CONFIGURATIONS = {
    "clusterCIDR": Configuration(cluster_cidr=CLUSTER_CIDR),
    "nothing": Configuration(),
    "masqueradeAll": Configuration(cluster_cidr=CLUSTER_CIDR, masquerade_all=True),
    "bridged": Configuration(cluster_cidr=CLUSTER_CIDR, bridge_masquerade="on"),
}
RULES = {
    name: compiled(SERVICES, config, bridges=(BRIDGE,) if name == "bridged" else ())
    for name, config in CONFIGURATIONS.items()
}
LINES = yaml.safe_load(Path(__file__).with_name("matrix.yaml").read_text())


def parse(configuration: str) -> Iterator[Row]:
    """The rows of one configuration."""
    column = list(CONFIGURATIONS).index(configuration)
    for line in LINES:
        source, frontend, policy, *cells = (cell.strip() for cell in line.split("|"))
        reach, sees = cells[column].split()
        cell = [
            f"{name}@node-1" if sees == "bridged" and name in NEAR else name
            for name in {"near": NEAR, "all": ALL}[reach]
        ]
        to = policy.lower() if frontend == "service" else f"{policy.lower()}/{frontend}"
        whom = "node-1" if sees == "node-1" else "kept"
        astray = FAR if sees == "astray" else ()
        for row in rows.parse([f"{source} | {to} | {' '.join(cell)} | {whom}"]):
            yield replace(row, astray=astray)


CELLS = [pytest.param(name, row, id=f"{name}-{row.name}") for name in CONFIGURATIONS for row in parse(name)]


@pytest.fixture(scope="module")
def routed() -> Iterator[Cluster]:
    with temporary_cluster() as made:
        yield made


@pytest.fixture(scope="module")
def bridged() -> Iterator[Cluster]:
    with temporary_cluster(bridged=True) as made:
        yield made


@pytest.fixture
def cluster(name, request) -> Cluster:
    """The cluster that the configuration is for, with its rules in force."""
    found = request.getfixturevalue("bridged" if name == "bridged" else "routed")
    if found.rules is not RULES[name]:
        found.program(RULES[name])
    return found


def test_the_matrix_is_whole() -> None:
    """Three sources, four frontends, three policies: each once, and in four configurations."""
    keys = {tuple(cell.strip() for cell in line.split("|")[:3]) for line in LINES}
    assert len(keys) == len(LINES) == 3 * 4 * 3
    assert {line.count("|") for line in LINES} == {2 + len(CONFIGURATIONS)}


@pytest.mark.parametrize(("name", "row"), CELLS)
def test_interpreter(name, row) -> None:
    """Through the rules of each node on its way, with exact probabilities."""
    rows.check_interpreter(row, SERVICES, RULES[name], bridged=name == "bridged")


@pytest.mark.packets
@pytest.mark.parametrize(("name", "row"), CELLS)
def test_kernel(name, row, cluster) -> None:
    """With real packets."""
    rows.check_kernel(row, SERVICES, cluster)

"""Whom a service's connections go to, and what the pods see of the one who asked."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from svcnat.testing.lab import LabFixture

MANIFESTS = Path(__file__).parent / "back-end.yaml"


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("port", ["http", "dns"])
def test_every_pod_gets_its_share(svcnat_lab: LabFixture, port: str, family: int) -> None:
    """TCP and UDP, IPv4 and IPv6: 80 flows, and no pod is forgotten; a pod is seen with its own address."""
    svcnat_lab.apply(MANIFESTS)
    flows = svcnat_lab.flows(80, to=f"back-end:{port}", from_="front-end", family=family)
    assert set(flows.pods) == {each.pod for each in svcnat_lab.endpoints("back-end")}
    assert min(flows.pods.values()) >= 15
    front_end = svcnat_lab.pod("front-end").addresses[0 if family == 4 else 1]
    assert set(flows.sources) == {front_end}


def test_a_client_outside_reaches_a_node_port(svcnat_lab: LabFixture) -> None:
    """A client sees one address, the node's; the pods see the node, which masquerades."""
    svcnat_lab.apply(MANIFESTS)
    svcnat_lab.apply(
        """
        apiVersion: v1
        kind: Service
        metadata: {name: back-end}
        spec:
          type: NodePort
          selector: {app: back-end}
          ports: [{name: http, port: 80, nodePort: 30080}]
        """
    )
    flows = svcnat_lab.client.flows(20, to="node-1:30080")
    assert len(flows.pods) == 2
    assert set(flows.sources) == {svcnat_lab.at("node-1").address}


def test_a_service_without_pods_refuses(svcnat_lab: LabFixture) -> None:
    """Clients are told at once that nobody is there: they do not wait."""
    svcnat_lab.apply("{apiVersion: v1, kind: Service, metadata: {name: nobody}, spec: {ports: [{port: 80}]}}")
    with pytest.raises(ConnectionRefusedError):
        svcnat_lab.connect("nobody:80")

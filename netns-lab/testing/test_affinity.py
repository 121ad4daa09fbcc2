"""sessionAffinity: a client's connections all go to the pod that got its first one."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from svcnat.testing.lab import LabFixture

MANIFESTS = """
apiVersion: svcnat.io/v1alpha1
kind: Topology
clients: 2
---
apiVersion: v1
kind: Service
metadata: {name: shop}
spec:
  selector: {app: shop}
  sessionAffinity: ClientIP
  ports: [{port: 80}]
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: shop}
spec:
  replicas: 4
  selector: {matchLabels: {app: shop}}
  template:
    metadata: {labels: {app: shop}}
    spec: {containers: [{name: shop, image: shop, ports: [{containerPort: 80}]}]}
"""


def test_a_client_comes_back_to_its_pod(svcnat_lab: LabFixture) -> None:
    """Thirty connections of each client, and one pod for each of them."""
    svcnat_lab.apply(MANIFESTS)
    for client in ("client", "client-2"):
        assert len(svcnat_lab.flows(30, to="shop", from_=client).pods) == 1


def test_affinity_ends_with_the_pod(svcnat_lab: LabFixture) -> None:
    """A client whose pod is gone gets another one, and keeps that."""
    svcnat_lab.apply(MANIFESTS)
    first = svcnat_lab.connect("shop").pod
    svcnat_lab.kill(first)
    flows = svcnat_lab.flows(30, to="shop")
    assert len(flows.pods) == 1
    assert first not in flows.pods

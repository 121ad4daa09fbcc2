"""An endpoint dies, another is not ready yet: nobody who asks the service notices."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from svcnat.testing.lab import LabFixture

MANIFESTS = Path(__file__).parent / "back-end.yaml"

PROBED = """
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: web}, ports: [{port: 80}]}
---
apiVersion: v1
kind: Pod
metadata: {name: web-1, labels: {app: web}}
spec: {containers: [{name: web, image: web, ports: [{containerPort: 80}]}]}
---
apiVersion: v1
kind: Pod
metadata: {name: web-2, labels: {app: web}}
spec:
  containers:
  - name: web
    image: web
    ports: [{containerPort: 80}]
    readinessProbe: {exec: {command: [test, -e, FILE]}, periodSeconds: 1, failureThreshold: 1}
"""


def test_a_pod_dies_and_the_service_does_not(svcnat_lab: LabFixture) -> None:
    """The next connection goes to another pod, and to the new one that the Deployment starts in its place."""
    svcnat_lab.apply(MANIFESTS)
    front_end = svcnat_lab.pod("front-end")
    victim = front_end.connect("back-end:80").pod
    svcnat_lab.kill(victim)
    flows = front_end.flows(60, to="back-end:80")  # any that failed would fail the test
    assert victim not in flows.pods
    assert len(flows.pods) == 2


def test_a_connection_that_lasts_keeps_its_pod(svcnat_lab: LabFixture) -> None:
    """A change of the service's endpoints leaves connections alone that do not concern it."""
    svcnat_lab.apply(MANIFESTS)
    with svcnat_lab.pod("front-end").socket("back-end:80") as connection:
        connection.sendall(b"hello\n")
        mine = connection.recv(1000).split()[0].decode()
        svcnat_lab.kill(*(each.pod for each in svcnat_lab.endpoints("back-end") if each.pod != mine))
        connection.sendall(b"still there?\n")
        assert connection.recv(1000).split()[0].decode() == mine


def test_a_pod_gets_connections_when_it_is_ready(svcnat_lab: LabFixture, tmp_path: Path) -> None:
    """A readiness probe decides, here a command that looks for a file: the test makes it and takes it away."""
    pytest.importorskip("aiohttp", reason="probes need the extra svcnat[agent]")
    ready = tmp_path / "ready"
    svcnat_lab.apply(PROBED.replace("FILE", str(ready)))
    assert set(svcnat_lab.flows(20, to="web").pods) == {"web-1"}
    ready.touch()
    svcnat_lab.wait()
    assert set(svcnat_lab.flows(40, to="web").pods) == {"web-1", "web-2"}
    ready.unlink()
    svcnat_lab.wait(
        lambda: not all(each.ready for each in svcnat_lab.endpoints("web")), what="an endpoint is not ready"
    )
    assert set(svcnat_lab.flows(20, to="web").pods) == {"web-1"}

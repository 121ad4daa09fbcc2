"""Workloads in a lab: scaled, restarted and found again, before the command returns."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.cli.conftest import Result
from tests.lab.conftest import namespaces_of, runtime, unused_name

__all__ = ["runtime"]  # a fixture

Run = Callable[..., Result]

MANIFESTS = """\
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 3
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec: {containers: [{name: c, image: x, ports: [{containerPort: 80}]}]}
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: db}
spec:
  serviceName: db
  replicas: 2
  selector: {matchLabels: {app: db}}
  template:
    metadata: {labels: {app: db}}
    spec: {containers: [{name: c, image: x}]}
---
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: log}
spec:
  selector: {matchLabels: {app: log}}
  template:
    metadata: {labels: {app: log}}
    spec: {containers: [{name: c, image: x}]}
---
apiVersion: svcnat.io/v1alpha1
kind: Topology
nodes: [{name: node-1}, {name: node-2}]
"""


@pytest.fixture
def lab(svcnat: Run, runtime: Path, tmp_path: Path) -> Iterator[str]:
    """A lab of two nodes."""
    name = unused_name()
    (tmp_path / "app.yml").write_text(MANIFESTS)
    assert svcnat("lab", "up", name, "-f", str(tmp_path)).code == 0
    yield name
    svcnat("lab", "down", name)
    assert namespaces_of(name) == []


def test_workloads_live_in_a_lab(svcnat: Run, lab: str) -> None:
    """Every pod runs when a command returns; a restart gives each another address, and some their old names."""

    def pods() -> dict[str, str]:
        found = json.loads(svcnat("--lab", lab, "get", "pods", "-o", "json").out)["items"]
        assert all(each["status"]["phase"] == "Running" for each in found)
        return {each["metadata"]["name"]: each["status"]["podIP"] for each in found}

    before = pods()
    assert len(before) == 7
    assert {"db-0", "db-1"} <= set(before)
    restarted = svcnat("--lab", lab, "rollout", "restart", "deploy/web", "sts/db", "ds/log")
    assert restarted.code == 0
    for workload in ("deploy/web", "sts/db", "ds/log"):
        assert svcnat("--lab", lab, "rollout", "status", workload, "--timeout=30s").code == 0
    after = pods()
    assert len(after) == 7
    assert {"db-0", "db-1"} <= set(after)
    assert not set(after.values()) & set(before.values())
    assert svcnat("--lab", lab, "scale", "sts/db", "deploy/web", "--replicas=4").code == 0
    assert len(pods()) == 10
    assert svcnat("--lab", lab, "scale", "sts/db", "deploy/web", "--replicas=1").code == 0
    assert sorted(name for name in pods() if name.startswith("db")) == ["db-0"]

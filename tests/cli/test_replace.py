"""replace, for real: what goes, what stays, and what it refuses."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.conftest import Result
from tests.cli.test_verbs import rules

Run = Callable[..., Result]

SERVICE = """\
apiVersion: v1
kind: Service
metadata: {name: web, labels: {app: web}}
spec: {type: NodePort, selector: {app: web}, ports: [{port: 80}]}
"""
SLICE = """\
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: web-1, labels: {kubernetes.io/service-name: web}}
addressType: IPv4
ports: [{port: 80}]
endpoints: [{addresses: [10.244.0.5]}]
"""


@pytest.fixture
def cluster(bare_cluster: Run) -> Run:
    """``svcnat`` with a state file that has a Service and a slice."""
    Path("all.yml").write_text(f"{SERVICE}---\n{SLICE}")
    assert bare_cluster("apply", "-f", "all.yml").code == 0
    return bare_cluster


def test_what_goes_and_what_stays(cluster: Run, empty_netns: str) -> None:
    """Labels that are left out go, what the system gave stays, and the rules follow."""
    before = json.loads(cluster("get", "svc", "web", "-o", "json").out)
    Path("all.yml").write_text(f"{SERVICE.replace(', labels: {app: web}', '')}---\n{SLICE.replace('0.5', '0.6')}")
    assert cluster("replace", "-f", "all.yml", "--dry-run=server").out == (
        "service/web replaced (server dry run)\nendpointslice.discovery.k8s.io/web-1 replaced (server dry run)\n"
    )
    assert "10.244.0.5 . 80" in rules(empty_netns)
    assert cluster("replace", "-f", "all.yml") == Result(
        0, "service/web replaced\nendpointslice.discovery.k8s.io/web-1 replaced\n", ""
    )
    after = json.loads(cluster("get", "svc", "web", "-o", "json").out)
    assert "labels" not in after["metadata"]
    assert after["spec"]["clusterIP"] == before["spec"]["clusterIP"]
    assert after["spec"]["ports"] == before["spec"]["ports"]
    assert "10.244.0.6 . 80" in rules(empty_netns)
    assert "10.244.0.5 . 80" not in rules(empty_netns)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (SERVICE.replace("name: web", "name: other"), 'services "other" not found\n'),
        (SERVICE.replace("name: web", "name: web, resourceVersion: '1'"), "Operation cannot be fulfilled on services"),
        (
            SERVICE.replace("port: 80", "port: 0"),
            "bad.yml:4: Service default/web: spec.ports[0].port: Invalid value: 0",
        ),
        ("[", "bad.yml:1: "),
    ],
)
def test_mistakes_change_nothing(
    cluster: Run, condition: Callable[[], tuple[int, int]], text: str, message: str
) -> None:
    """Not even the objects that are fine."""
    before = condition()
    Path("bad.yml").write_text(text)
    Path("slice.yml").write_text(SLICE.replace("0.5", "0.6"))
    result = cluster("replace", "-f", "slice.yml", "-f", "bad.yml")
    assert (result.code, result.out) == (1, "")
    assert result.err.startswith(f"error: {message}"), result.err
    assert condition() == before

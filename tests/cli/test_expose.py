"""expose, for real: what the Service gets from the object and from the flags, and that it answers."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from svcnat import api
from svcnat.model.objects import Service
from tests.cli.conftest import Result
from tests.lab.conftest import namespaces_of, runtime, unused_name
from tests.lab.pods import ask_tcp

__all__ = ["runtime"]  # a fixture

Run = Callable[..., Result]

MANIFESTS = """\
apiVersion: v1
kind: Pod
metadata: {name: bare}
spec: {containers: [{name: c, image: x}]}
---
apiVersion: v1
kind: Pod
metadata: {name: web-1, labels: {app: web}}
spec: {containers: [{name: c, image: x, ports: [{containerPort: 8080}]}]}
---
apiVersion: v1
kind: Service
metadata: {name: dns, labels: {tier: names}}
spec: {selector: {app: dns}, ports: [{name: a, port: 53}, {name: b, port: 53, protocol: UDP}, {name: c, port: 9153}]}
---
apiVersion: v1
kind: Service
metadata: {name: db}
spec: {ports: [{port: 5432}]}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, labels: {team: a}}
spec:
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web, version: "1"}}
    spec: {containers: [{name: c, image: x, ports: [{containerPort: 80}]}]}
---
apiVersion: apps/v1
kind: ReplicaSet
metadata: {name: odd}
spec:
  replicas: 0
  selector: {matchExpressions: [{key: app, operator: Exists}]}
  template: {metadata: {labels: {app: odd}}, spec: {containers: [{name: c, image: x}]}}
"""


@pytest.fixture
def cluster(bare_cluster: Run) -> Run:
    """``svcnat`` with a state file that has something of each kind."""
    Path("all.yml").write_text(MANIFESTS)
    assert bare_cluster("apply", "-f", "all.yml").code == 0
    return bare_cluster


def service(cluster: Run, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(cluster("get", "svc", name, "-o", "json").out)
    return found


def test_what_follows_from_the_object(cluster: Run) -> None:
    """Name, labels, selector and ports."""
    assert cluster("expose", "deployment", "web") == Result(0, "service/web exposed\n", "")
    web = service(cluster, "web")
    assert web["metadata"]["labels"] == {"team": "a"}
    assert web["spec"]["selector"] == {"app": "web"}
    assert web["spec"]["ports"] == [{"port": 80, "protocol": "TCP", "targetPort": 80}]
    assert cluster("expose", "pod/web-1", "--port=80", "--target-port=8080").out == "service/web-1 exposed\n"
    assert service(cluster, "web-1")["spec"]["ports"] == [{"port": 80, "protocol": "TCP", "targetPort": 8080}]
    assert cluster("expose", "svc", "dns", "--name=names").code == 0
    names = service(cluster, "names")
    assert names["metadata"]["labels"] == {"tier": "names"}
    assert [(each["name"], each["port"], each["protocol"]) for each in names["spec"]["ports"]] == [
        ("port-1", 53, "TCP"),
        ("port-2", 53, "UDP"),
        ("port-3", 9153, "TCP"),
    ]


def test_what_the_flags_say(cluster: Run) -> None:
    """All of them."""
    flags = [
        "--name=out",
        "--port=443,80",
        "--target-port=https",
        "--type=LoadBalancer",
        "--selector=a=b,c=",
        "-l",
        "x=y",
    ]
    flags += ["--external-ip=192.0.2.1", "--load-balancer-ip=192.0.2.2", "--session-affinity=ClientIP"]
    assert cluster("expose", "deploy/web", *flags, "--protocol=udp", "--cluster-ip=10.96.7.7").code == 0
    out = service(cluster, "out")
    spec = out["spec"]
    assert out["metadata"]["labels"] == {"x": "y"}
    assert (spec["type"], spec["selector"], spec["clusterIP"]) == ("LoadBalancer", {"a": "b", "c": ""}, "10.96.7.7")
    assert (spec["externalIPs"], spec["loadBalancerIP"]) == (["192.0.2.1"], "192.0.2.2")
    assert spec["sessionAffinity"] == "ClientIP"
    assert [(each["name"], each["port"], each["protocol"], each["targetPort"]) for each in spec["ports"]] == [
        ("port-1", 443, "UDP", "https"),
        ("port-2", 80, "UDP", "https"),
    ]
    assert cluster("expose", "pod", "web-1", "--name=headless", "--cluster-ip=None").code == 0
    assert service(cluster, "headless")["spec"]["clusterIP"] == "None"


def test_a_dry_run_prints_a_manifest(cluster: Run) -> None:
    """Without an address that was drawn for nothing; create takes it."""
    shown = cluster("expose", "deploy", "web", "--dry-run=client", "-o", "yaml")
    assert shown == Result(
        0,
        "apiVersion: v1\nkind: Service\nmetadata:\n  labels:\n    team: a\n  name: web\n  namespace: default\n"
        "spec:\n  ports:\n  - port: 80\n    protocol: TCP\n    targetPort: 80\n  selector:\n    app: web\n",
        "",
    )
    assert cluster("expose", "deploy", "web", "--dry-run=server").out == "service/web exposed (server dry run)\n"
    assert cluster("get", "svc", "web").code == 1
    Path("web.yml").write_text(shown.out)
    assert cluster("create", "-f", "web.yml").out == "service/web created\n"


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["pod", "bare"], 2, "couldn't retrieve selectors via --selector flag or introspection: the pod has no labels"),
        (["pod", "bare", "--selector=a=b"], 2, "couldn't find port via --port flag or introspection\n"),
        (["svc", "db", "--name=x"], 2, "couldn't retrieve selectors via --selector flag or introspection: the service"),
        (
            ["rs", "odd", "--port=80"],
            2,
            "couldn't retrieve selectors via --selector flag or introspection: couldn't con",
        ),
        (["node", "none"], 1, 'nodes "none" not found\n'),
        (["ns", "default"], 2, "cannot expose a Namespace\n"),
        (["deploy", "none"], 1, 'deployments.apps "none" not found\n'),
        (["deploy"], 2, "resource(s) were provided, but no name was specified\n"),
        ([], 2, "say what to expose: either -f PATH, or KIND and NAME\n"),
        (["deploy/web", "-f", "all.yml"], 2, "say what to expose"),
        (["svc", "dns"], 1, 'services "dns" already exists\n'),
        (["deploy/web", "pod/web-1", "--name=both"], 1, 'services "both" already exists\n'),
        (["deploy", "web", "--port=http"], 2, "invalid --port 'http': must be a number between 1 and 65535\n"),
        (["deploy", "web", "--port=0"], 1, "Service default/web: spec.ports[0].port: Invalid value: 0"),
        (["deploy", "web", "--type=Magic"], 1, "Service default/web: spec.type: Unsupported value"),
        (["deploy", "web", "--selector=a"], 2, "unexpected selector spec: a\n"),
        (["deploy", "web", "-l", "a b=c"], 1, "Service default/web: metadata.labels: Invalid value"),
        (["deploy", "web", "--session-affinity=Node"], 2, "unknown session affinity: Node\n"),
        (["deploy", "web", "--cluster-ip=10.96.0.1"], 1, "Service default/web: spec.clusterIP: Invalid value"),
        (["deploy", "web", "--target-port=" + "9" * 5000], 1, "Service default/web: spec.ports[0].targetPort: Invalid"),
    ],
)
def test_mistakes_change_nothing(
    cluster: Run, condition: Callable[[], tuple[int, int]], words: list[str], code: int, message: str
) -> None:
    """One clear error; neither the store nor the rules move."""
    before = condition()
    result = cluster("expose", *words)
    assert (result.code, result.out) == (code, "")
    assert result.err.startswith(f"error: {message}"), result.err
    assert condition() == before


@pytest.mark.packets
def test_in_a_lab(svcnat: Run, runtime: Path, tmp_path: Path) -> None:
    """A deployment that is exposed answers at the Service's port."""
    name = unused_name()
    (tmp_path / "app.yml").write_text(
        """\
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec: {containers: [{name: c, image: x, ports: [{containerPort: 8080}]}]}
"""
    )
    assert svcnat("lab", "up", name, "-f", str(tmp_path)).code == 0
    try:
        exposed = svcnat("--lab", name, "expose", "deploy/web", "--port=80", "--target-port=8080")
        assert exposed.out == "service/web exposed\n"
        with api.Lab.find(name) as lab:
            with lab.read() as snapshot:
                web = snapshot.get(Service, "default", "web")
            assert web is not None
            address = web.spec.cluster_ip or ""
            assert lab.run("client", lambda: ask_tcp(address)).startswith("web-")
    finally:
        svcnat("lab", "down", name)
    assert namespaces_of(name) == []

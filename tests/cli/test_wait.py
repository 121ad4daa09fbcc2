"""wait, for real: what has met its condition, what comes and goes, and what never does."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from svcnat import api
from svcnat.model.conditions import has_condition
from svcnat.model.objects import Condition, Deployment, DeploymentStatus, ObjectMeta, Pod, Service
from tests.agents import CONFIG, Agent, runtime
from tests.cli.conftest import Result
from tests.lab.conftest import namespaces_of, unused_name

Run = Callable[..., Result]

POD = """\
apiVersion: v1
kind: Pod
metadata: {name: NAME, labels: {app: web}}
spec: {containers: [{name: c, image: x}]}
status: {phase: Running, podIP: 10.244.0.9, conditions: [{type: Ready, status: "READY"}]}
"""
SERVICE = """\
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: web}, ports: [{port: 80}]}
"""


def pod(name: str, ready: str = "True") -> str:
    return POD.replace("NAME", name).replace("READY", ready)


@pytest.fixture
def cluster(bare_cluster: Run) -> Run:
    """``svcnat`` with a state file that has a Service, a ready pod and one that is not."""
    Path("all.yml").write_text(f"{SERVICE}---\n{pod('ready')}---\n{pod('unready', 'False')}")
    Path("config.yaml").write_text(CONFIG)
    assert bare_cluster("apply", "-f", "all.yml").code == 0
    return bare_cluster


def changing(netns: str, change: Callable[[api.Cluster], object]) -> threading.Thread:
    """Another program that changes objects, later."""

    def run() -> None:
        with api.Cluster.open(state="state.db", config="config.yaml", netns=netns) as cluster:
            change(cluster)

    return threading.Timer(0.3, run)


@pytest.mark.parametrize(
    ("words", "out"),
    [
        (["--for=condition=Ready", "pod/ready"], "pod/ready condition met\n"),
        (["--for", "condition=ready=TRUE", "pod", "ready"], "pod/ready condition met\n"),
        (["--for=condition=Ready=false", "pod/unready"], "pod/unready condition met\n"),
        (["--for=jsonpath={.status.phase}=Running", "po", "-l", "app=web"], "pod/ready condition met\npod/unready con"),
        (["--for=jsonpath=.status.phase=Running", "-f", "all.yml"], ""),
        (["--for=jsonpath={.status.podIP}", "pod/ready"], "pod/ready condition met\n"),
        (['--for=jsonpath={.status.conditions[?(@.type=="Ready")].status}=True', "pod/ready"], "pod/ready condition"),
        (["--for=jsonpath={.spec.ports[0].port}=80", "svc", "web", "-o", "name"], "service/web\n"),
        (["--for=delete", "pod/none"], ""),
        (["--for=delete", "pods", "-l", "app=none"], ""),
        (["--for=create", "svc/web", "ns/default"], "service/web condition met\nnamespace/default condition met\n"),
    ],
)
def test_what_is_so_already(cluster: Run, words: list[str], out: str) -> None:
    """Is said at once."""
    if "-f" in words:
        Path("all.yml").write_text(pod("ready"))
        out = "pod/ready condition met\n"
    result = cluster("wait", *words, "--timeout=0")
    assert (result.code, result.err) == (0, "")
    assert result.out.startswith(out)


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["--for=condition=Ready", "pods", "--all", "--timeout=0"], 1, "condition not met for pods/unready\n"),
        (
            ["--for=condition=Ready", "pod/unready", "--timeout=50ms"],
            1,
            "timed out waiting for the condition on pods/u",
        ),
        (["--for=delete", "pod/ready", "--timeout=50ms"], 1, "timed out waiting for the condition on pods/ready\n"),
        (["--for=create", "svc/none", "--timeout=50ms"], 1, "timed out waiting for the condition on services/none\n"),
        (["--for=condition=Ready", "pod/none"], 1, 'pods "none" not found\n'),
        (["--for=condition=Ready", "pods", "-l", "app=none"], 1, "no matching resources found\n"),
        (["--for=jsonpath={.metadata}=x", "pod/ready"], 1, "jsonpath leads to a nested object or list which is not"),
        (["--for=jsonpath={.spec.ports[*].port}=", "svc/web"], 2, "jsonpath wait value cannot be empty\n"),
        (["--for=jsonpath=", "svc/web"], 2, "jsonpath expression cannot be empty\n"),
        (["--for=jsonpath={.metadata.labels..}=x", "pod/ready"], 2, "jsonpath "),
        (["--for=ready", "pod/ready"], 2, 'unrecognized condition: "ready"\n'),
        (["--for=condition=", "pod/ready"], 2, 'unrecognized condition: "condition="\n'),
        (["pod/ready"], 2, "the following arguments are required: --for\n"),
        (["--for=delete"], 2, "one or more resources must be specified as"),
        (["--for=delete", "pod/ready", "--timeout=soon"], 2, "invalid time 'soon': write 90s, 1m30s or 2h\n"),
    ],
)
def test_what_is_not_so(cluster: Run, words: list[str], code: int, message: str) -> None:
    """Exit code 1 when time is over, 2 for what makes no sense; what was met is said all the same."""
    result = cluster("wait", *words)
    assert (result.code, result.out) == (code, "pod/ready condition met\n" if "--all" in words else "")
    assert result.err.startswith(f"error: {message}"), result.err


@pytest.mark.packets
@pytest.mark.parametrize("attended", [True, False], ids=["with an agent", "without one"])
def test_what_happens_meanwhile(cluster: Run, empty_netns: str, tmp_path: Path, attended: bool) -> None:
    """A pod gets ready, one goes, another comes: waiting ends, with an agent and without."""
    with runtime():
        agent = Agent(tmp_path, empty_netns)
        if attended:
            agent.begin()
        try:
            changes: list[tuple[list[str], Callable[[api.Cluster], object], str]] = [
                (
                    ["--for=condition=Ready", "pod/unready"],
                    lambda others: others.apply(api.load(text=pod("unready"))),
                    "pod/unready condition met\n",
                ),
                (
                    ["--for=delete", "pods", "--all"],
                    lambda others: others.delete([(Pod, "default", "ready"), (Pod, "default", "unready")]),
                    "pod/ready condition met\npod/unready condition met\n",
                ),
                (
                    ["--for=create", "pod/ready"],
                    lambda others: others.create(api.load(text=pod("ready"))),
                    "pod/ready condition met\n",
                ),
            ]
            for words, change, out in changes:
                other = changing(empty_netns, change)
                other.start()
                assert cluster("wait", *words, "--timeout=60s") == Result(0, out, "")
                other.join()
        finally:
            agent.__exit__()


def test_another_object_of_the_same_name(cluster: Run, empty_netns: str) -> None:
    """One that is deleted and made anew has been deleted."""

    def renew(others: api.Cluster) -> None:
        others.delete([(Service, "default", "web")])
        others.create(api.load(text=SERVICE))

    other = changing(empty_netns, renew)
    other.start()
    assert cluster("wait", "--for=delete", "svc/web", "--timeout=60s") == Result(0, "service/web condition met\n", "")
    other.join()


def test_a_condition_of_an_earlier_generation() -> None:
    """Says nothing of the object as it is now."""
    status = DeploymentStatus(observed_generation=1, conditions=[Condition(type="Available", status="True")])
    old = Deployment(metadata=ObjectMeta(generation=2), status=status)
    assert not has_condition(old, "available", "true")
    assert has_condition(Deployment(metadata=ObjectMeta(generation=1), status=status), "available", "true")
    assert not has_condition(Service(), "available", "true")


@pytest.mark.packets
def test_in_a_lab(svcnat: Run, tmp_path: Path) -> None:
    """A deployment gets available, its pods ready and, scaled down, are gone; then the rules have followed."""
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
    spec: {containers: [{name: c, image: x, ports: [{containerPort: 80}]}]}
"""
    )
    with runtime():
        assert svcnat("lab", "up", name, "-f", str(tmp_path)).code == 0
        try:
            run = lambda *words: svcnat("--lab", name, "wait", *words, "--timeout=60s")  # noqa: E731
            assert run("--for=condition=available", "deploy", "--all").out == "deployment.apps/web condition met\n"
            assert run("--for=condition=Ready", "pods", "-l", "app=web").out.count(" condition met\n") == 2
            assert run("--for=condition=Ready", "node", "--all").out == "node/node-1 condition met\n"
            assert run("--for=jsonpath={.status.readyReplicas}=2", "deploy/web").code == 0
            pods = svcnat("--lab", name, "get", "pods", "-o", "name").out.split()
            assert svcnat("--lab", name, "scale", "deploy/web", "--replicas", "0").code == 0
            assert run("--for=delete", *pods).code == 0
        finally:
            svcnat("lab", "down", name)
    assert namespaces_of(name) == []

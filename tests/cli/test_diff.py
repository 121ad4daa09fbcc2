"""diff, for real: what it shows of objects and rules, its exit codes, and that it writes nothing."""

from __future__ import annotations

import json
import os
import random
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from svcnat.kernel.nftables import Namespace
from svcnat.store.sqlite import Store
from tests.cli.conftest import Result
from tests.cli.test_promises import WITHOUT_CAPABILITIES, python
from tests.lab.conftest import namespaces_of, runtime, unused_name

__all__ = ["runtime"]  # a fixture

Run = Callable[..., Result]

SERVICE = """\
apiVersion: v1
kind: Service
metadata: {name: web, labels: {app: web}}
spec: {clusterIP: 10.96.0.20, selector: {app: web}, ports: [{port: 80}]}
"""
POD = """\
apiVersion: v1
kind: Pod
metadata: {name: web-N, labels: {app: web}}
spec: {containers: [{name: c, image: x}]}
status: {phase: Running, podIP: 10.244.0.N, conditions: [{type: Ready, status: "True"}]}
"""
SECRET = """\
apiVersion: v1
kind: Secret
metadata: {name: keys}
stringData: {kept: hunter2, changed: hunter3}
"""


@pytest.fixture
def cluster(bare_cluster: Run) -> Run:
    """``svcnat`` with a state file that has a Service, a pod and a Secret."""
    Path("all.yml").write_text("---\n".join([SERVICE, POD.replace("N", "1"), SECRET]))
    assert bare_cluster("apply", "-f", "all.yml").code == 0
    return bare_cluster


@pytest.fixture
def condition(cluster: Run, empty_netns: str) -> Callable[[], tuple[int, int, bytes]]:
    """The store's revision and bytes, and the kernel's generation: what does not move when nothing is changed."""

    def ask() -> tuple[int, int, bytes]:
        with Store.open("state.db") as store, store.read() as snapshot, Namespace(empty_netns) as kernel:
            return snapshot.revision, kernel.generation(), Path("state.db").read_bytes()

    return ask


def test_no_difference(cluster: Run, condition: Callable[[], tuple[int, int, bytes]]) -> None:
    """Nothing is printed, and the code is 0."""
    before = condition()
    assert cluster("diff", "-f", "all.yml") == Result(0, "", "")
    assert condition() == before


def test_objects_and_rules(cluster: Run, condition: Callable[[], tuple[int, int, bytes]]) -> None:
    """A unified diff of each object, what comes and goes in the rules below; all of it, or what apply then does."""
    before = condition()
    Path("all.yml").write_text(
        "---\n".join([SERVICE.replace("app: web}}", "app: web, tier: front}}"), POD.replace("N", "2")])
    )
    shown = cluster("diff", "-f", "all.yml")
    assert (shown.code, shown.err) == (1, "")
    assert condition() == before
    lines = shown.out.splitlines()
    assert lines[:3] == [
        "diff -u -N LIVE/v1.Service.default.web MERGED/v1.Service.default.web",
        "--- LIVE/v1.Service.default.web",
        "+++ MERGED/v1.Service.default.web",
    ]
    assert "+    tier: front" in lines
    assert "     app: web" in lines
    pod = lines.index("diff -u -N LIVE/v1.Pod.default.web-2 MERGED/v1.Pod.default.web-2")
    assert lines[pod + 3].startswith("@@ -0,0 +1,")
    assert not [line for line in lines if "resourceVersion" in line or "+  uid" in line or "last-applied" in line]
    rules = next(index for index, line in enumerate(lines) if line.startswith("rules: "))
    assert "elements added" in lines[rules]
    assert "+ip backends-tcp 10.96.0.20 . 80 . 1 : 10.244.0.2 . 80" in lines[rules:]
    assert [line for line in lines[rules:] if line.startswith("-ip frontends 10.96.0.20 . tcp . 80 ")]
    assert cluster("diff", "-f", "all.yml") == shown
    counted = cluster("apply", "-f", "all.yml", "-v").err.splitlines()
    assert lines[rules] in counted
    assert cluster("diff", "-f", "all.yml").code == 0


def test_objects_alone(cluster: Run) -> None:
    """What no rule follows from changes none."""
    Path("new.yml").write_text(
        "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web}\nspec:\n"
        "  replicas: 0\n  selector: {matchLabels: {app: x}}\n  template:\n"
        "    metadata: {labels: {app: x}}\n    spec: {containers: [{name: c, image: x}]}\n"
    )
    shown = cluster("diff", "-f", "new.yml")
    assert shown.code == 1
    assert shown.out.startswith("diff -u -N LIVE/apps.v1.Deployment.default.web MERGED/apps.v1.Deployment.default.web")
    assert shown.out.endswith("rules: unchanged\n")


def test_a_secret_is_not_told(cluster: Run) -> None:
    """Only which of its entries differ."""
    Path("new.yml").write_text(SECRET.replace("hunter3", "hunter4, new: hunter5"))
    shown = cluster("diff", "-f", "new.yml")
    assert shown.code == 1
    lines = shown.out.splitlines()
    assert "-  changed: '*** (before)'" in lines or '-  changed: "*** (before)"' in lines
    assert [line for line in lines if line.startswith("+  new:")]
    for text in ("hunter", "aHVudGVy"):
        assert text not in shown.out + shown.err
    Path("new.yml").write_text(SECRET.replace("keys", "others"))
    assert "aHVudGVy" not in cluster("diff", "-f", "new.yml").out


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            SERVICE.replace("port: 80", "port: 0"),
            "new.yml:4: Service default/web: spec.ports[0].port: Invalid value: 0",
        ),
        (SERVICE.replace("10.96.0.20", "10.96.0.21"), "new.yml:4: Service default/web: spec.clusterIP: Invalid"),
        ("{", "new.yml:1: "),
        ("", "no objects in new.yml"),
    ],
)
def test_errors_are_neither_yes_nor_no(
    cluster: Run, condition: Callable[[], tuple[int, int, bytes]], text: str, message: str
) -> None:
    """Located, with a code above 1; nothing is shown, even if other objects differ."""
    before = condition()
    Path("new.yml").write_text(text)
    Path("pod.yml").write_text(POD.replace("N", "2"))
    result = cluster("diff", "-f", "pod.yml", "-f", "new.yml") if text else cluster("diff", "-f", "new.yml")
    assert (result.code, result.out) == (2, "")
    assert result.err.startswith(f"error: {message}"), result.err
    assert cluster("diff", "-f", "none.yml").code == 2
    assert cluster("--state", "none.db", "diff", "-f", "pod.yml").code == 2
    assert condition() == before


def test_whoever_may_read_needs_no_privilege(cluster: Run, empty_netns: str, tmp_path: Path) -> None:
    """Neither over rules nor to write the state file; what cannot be entered is not compared."""
    Path("new.yml").write_text(POD.replace("N", "2"))
    flags = ("--state", "state.db", "--config", "config.yaml", "diff", "-f", "new.yml")
    os.chmod("state.db", stat.S_IRUSR)  # noqa: PTH101
    shown = python(WITHOUT_CAPABILITIES, *flags, cwd=tmp_path)
    assert (shown.returncode, shown.stderr) == (1, "")
    assert "+ip backends-tcp 10.96.0.20 . 80 . 1 : 10.244.0.2 . 80" in shown.stdout
    shown = python(WITHOUT_CAPABILITIES, "--netns", empty_netns, *flags, cwd=tmp_path)
    assert shown.returncode == 1
    assert "MERGED/v1.Pod.default.web-2" in shown.stdout
    assert shown.stderr.startswith("warning: the rules were not compared: ")


def _anything(chance: random.Random) -> dict[str, Any]:
    """A Service or a Pod, of a few that are like it."""
    number = chance.randint(1, 4)
    if chance.random() < 0.5:
        conditions = [{"type": "Ready", "status": chance.choice(["True", "True", "False"])}]
        return {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {
                "name": f"pod-{number}",
                "labels": {"app": chance.choice("ab")},
                "annotations": {"svcnat.io/weight": chance.choice("0112")},
            },
            "spec": {"containers": [{"name": "c", "image": "x"}]},
            "status": {"phase": "Running", "podIP": f"10.244.0.{number}", "conditions": conditions},
        }
    port = {"port": chance.choice([80, 81]), "protocol": chance.choice(["TCP", "UDP"])}
    spec = {"clusterIP": f"10.96.5.{number}", "selector": {"app": chance.choice("ab")}, "ports": [port]}
    if chance.random() < 0.5:
        port["nodePort"] = 30100 + number
        spec |= {"type": "NodePort", "externalTrafficPolicy": chance.choice(["Local", "Cluster"])}
    if chance.random() < 0.3:
        spec["sessionAffinity"] = "ClientIP"
    scheduler = chance.choice(["random", "round-robin", "maglev", "source-hash"])
    metadata = {"name": f"service-{number}", "annotations": {"svcnat.io/scheduler": scheduler}}
    return {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec}


def test_what_is_told_is_what_happens(cluster: Run) -> None:
    """Of a random history: the kernel is changed by just so much as diff told, and then there is no difference."""
    chance, told = random.Random(4), set()
    for _ in range(15):
        items = {(item["kind"], item["metadata"]["name"]): item for item in (_anything(chance) for _ in range(3))}
        Path("any.json").write_text(json.dumps({"apiVersion": "v1", "kind": "List", "items": [*items.values()]}))
        shown, applied = cluster("diff", "-f", "any.json"), cluster("apply", "-f", "any.json", "-v")
        assert (shown.code in {0, 1}, applied.code) == (True, 0), applied.err
        lines = [line for line in shown.out.splitlines() if line.startswith("rules: ")] or ["rules: unchanged"]
        assert lines == [line for line in applied.err.splitlines() if line.startswith("rules: ")]
        assert cluster("diff", "-f", "any.json") == Result(0, "", "")
        told |= set(lines)
    assert len(told) > 5


@pytest.mark.packets
def test_in_a_lab(svcnat: Run, runtime: Path, tmp_path: Path) -> None:
    """Every node whose rules would change is named, and none changes."""
    name = unused_name()
    topology = "apiVersion: svcnat.io/v1alpha1\nkind: Topology\nnodes: [{name: east}, {name: west}]\n"
    (tmp_path / "app.yml").write_text(f"{topology}---\n{SERVICE}")
    assert svcnat("lab", "up", name, "-f", str(tmp_path)).code == 0
    try:
        assert svcnat("--lab", name, "diff", "-f", str(tmp_path / "app.yml")) == Result(0, "", "")
        (tmp_path / "app.yml").write_text(SERVICE.replace("port: 80", "port: 81"))
        for _ in range(2):
            shown = svcnat("--lab", name, "diff", "-f", str(tmp_path / "app.yml"))
            assert shown.code == 1
            assert [line for line in shown.out.splitlines() if line.startswith("rules of east: ")]
            assert [line for line in shown.out.splitlines() if line.startswith("rules of west: ")]
    finally:
        svcnat("lab", "down", name)
    assert namespaces_of(name) == []

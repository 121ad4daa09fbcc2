"""scale and rollout, for real: a state file, a network namespace, and what they print."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from msgspec.structs import replace

from svcnat.cli.rollout_status import duration
from svcnat.errors import UsageError
from svcnat.model.objects import Condition, Pod, PodStatus
from svcnat.model.pods import is_ready
from svcnat.store.sqlite import Store
from tests.cli.conftest import Result

Run = Callable[..., Result]

WORKLOADS = """\
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, annotations: {kubernetes.io/change-cause: the first}}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec: {containers: [{name: web, image: nginx}]}
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: db}
spec:
  serviceName: db
  selector: {matchLabels: {app: db}}
  template:
    metadata: {labels: {app: db}}
    spec: {containers: [{name: db, image: mysql}]}
---
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: log}
spec:
  selector: {matchLabels: {app: log}}
  template:
    metadata: {labels: {app: log}}
    spec: {nodeSelector: {disk: ssd}, containers: [{name: log, image: fluentd}]}
---
apiVersion: v1
kind: Node
metadata: {name: n1, labels: {disk: ssd}}
"""


@pytest.fixture
def cluster(bare_cluster: Run) -> Run:
    """``svcnat`` with a state file that has a workload of each kind."""
    Path("workloads.yml").write_text(WORKLOADS)
    assert bare_cluster("apply", "-f", "workloads.yml").code == 0
    return bare_cluster


def start() -> None:
    """Do as kubelets do, until there is nothing more to start."""
    with Store.open(Path("state.db")) as store:
        for _ in range(20):
            with store.transaction() as transaction:
                waiting = [each for each in transaction.list(Pod) if not is_ready(each)]
                for number, pod in enumerate(waiting):
                    conditions = [Condition(type="Ready", status="True")]
                    status = PodStatus(phase="Running", pod_ip=f"10.0.0.{number + 1}", conditions=conditions)
                    transaction.set_status(replace(pod, status=status))
            if not waiting:
                return


def test_get_all_looks_as_kubectls(cluster: Run) -> None:
    """Pods, services, daemonsets, deployments, replicasets, statefulsets: in this order, with kubectl's columns."""
    start()
    blocks = cluster("get", "all").out.rstrip().split("\n\n")
    heads = [block.split("\n")[0].split() for block in blocks]
    assert heads == [
        ["NAME", "READY", "STATUS", "RESTARTS", "AGE"],
        ["NAME", "TYPE", "CLUSTER-IP", "EXTERNAL-IP", "PORT(S)", "AGE"],
        ["NAME", "DESIRED", "CURRENT", "READY", "UP-TO-DATE", "AVAILABLE", "NODE", "SELECTOR", "AGE"],
        ["NAME", "READY", "UP-TO-DATE", "AVAILABLE", "AGE"],
        ["NAME", "DESIRED", "CURRENT", "READY", "AGE"],
        ["NAME", "READY", "AGE"],
    ]
    rows = [line.split()[:-1] for block in blocks[2:] for line in block.split("\n")[1:]]
    replica_set = rows[2][0]
    assert rows == [
        ["daemonset.apps/log", "1", "1", "1", "1", "1", "disk=ssd"],
        ["deployment.apps/web", "2/2", "2", "2"],
        [replica_set, "2", "2", "2"],
        ["statefulset.apps/db", "1/1"],
    ]
    names = [line.split()[0] for line in blocks[0].split("\n")[1:]]
    assert sum(each.startswith(replica_set.replace("replicaset.apps", "pod") + "-") for each in names) == 2
    assert "pod/db-0" in names
    wide = cluster("get", "sts,rs,ds", "-o", "wide").out
    assert "CONTAINERS" in wide
    assert "mysql" in wide
    assert cluster("get", "controllerrevisions").out.count("statefulset.apps/db") == 1


def test_scale(cluster: Run) -> None:
    """Every object or none; --current-replicas is a condition; what has no replicas cannot be scaled."""
    result = cluster("scale", "deployment/web", "sts/db", "--replicas", "3")
    assert (result.code, result.out) == (0, "deployment.apps/web scaled\nstatefulset.apps/db scaled\n")
    assert cluster("get", "deploy", "web", "-o", "jsonpath={.spec.replicas}").out == "3"
    result = cluster("scale", "deploy", "web", "--replicas=1", "--current-replicas=2")
    assert (result.code, result.err) == (1, "error: Expected replicas to be 2, was 3\n")
    assert cluster("scale", "deploy", "web", "--replicas=1", "--current-replicas=3").code == 0
    result = cluster("scale", "deploy", "web", "nowhere", "--replicas=9")
    assert (result.code, result.err) == (1, 'error: deployments.apps "nowhere" not found\n')
    assert cluster("scale", "deploy", "--all", "--replicas=2", "--dry-run=server").out == (
        "deployment.apps/web scaled (server dry run)\n"
    )
    assert cluster("get", "deploy", "web", "-o", "jsonpath={.spec.replicas}").out == "1"
    for words in (
        ["ds/log", "--replicas=1"],
        ["deploy/web"],
        ["deploy/web", "--replicas=-1"],
        ["deploy", "--replicas=1"],
    ):
        assert cluster("scale", *words).code == 2


def test_rollout_status(cluster: Run) -> None:
    """Kubectl's words for each kind; it waits, but not longer than --timeout."""
    result = cluster("rollout", "status", "deploy/web", "--watch=false")
    text = 'Waiting for deployment "web" rollout to finish: 0 of 2 updated replicas are available...\n'
    assert (result.code, result.out) == (0, text)
    result = cluster("rollout", "status", "deploy/web", "--timeout=100ms")
    assert (result.code, result.out, result.err) == (1, text, "error: timed out waiting for the condition\n")
    assert cluster("rollout", "status", "sts/db", "--watch=false").out == "Waiting for 1 pods to be ready...\n"
    assert cluster("rollout", "status", "ds/log", "--watch=false").out == (
        'Waiting for daemon set "log" rollout to finish: 0 of 1 updated pods are available...\n'
    )
    starting = threading.Timer(0.3, start)
    starting.start()
    result = cluster("rollout", "status", "deploy/web", "--timeout=60s")
    starting.join()
    assert (result.code, result.out.split("\n")[-2]) == (0, 'deployment "web" successfully rolled out')
    assert cluster("rollout", "status", "sts/db").out == (
        "partitioned roll out complete: 1 new pods have been updated...\n"
    )
    assert cluster("rollout", "status", "ds/log").out == 'daemon set "log" successfully rolled out\n'
    assert cluster("rollout", "status", "deploy/nowhere").code == 1
    assert cluster("rollout", "status", "pod/db-0").code == 2


def test_rollout_restart_and_history(cluster: Run) -> None:
    """All pods are made anew, as the strategy allows; each template is a revision, with its cause."""
    start()
    with Store.open(Path("state.db")) as store, store.read() as snapshot:
        before = {pod.metadata.uid for pod in snapshot.list(Pod)}
    result = cluster("rollout", "restart", "deploy/web", "sts/db", "ds/log")
    assert (result.code, result.out) == (
        0,
        "deployment.apps/web restarted\nstatefulset.apps/db restarted\ndaemonset.apps/log restarted\n",
    )
    assert cluster("rollout", "status", "deploy/web", "--watch=false").out == (
        'Waiting for deployment "web" rollout to finish: 1 out of 2 new replicas have been updated...\n'
    )
    start()
    with Store.open(Path("state.db")) as store, store.read() as snapshot:
        after = {pod.metadata.uid for pod in snapshot.list(Pod)}
    assert len(after) == 4
    assert not after & before
    assert cluster("rollout", "status", "deploy/web").code == 0
    assert cluster("rollout", "history", "deploy/web").out == (
        "deployment.apps/web \nREVISION  CHANGE-CAUSE\n1         the first\n2         the first\n\n"
    )
    assert cluster("rollout", "history", "sts/db").out == (
        "statefulset.apps/db \nREVISION  CHANGE-CAUSE\n1         <none>\n2         <none>\n\n"
    )
    second = cluster("rollout", "history", "ds/log", "--revision=2").out
    assert second.startswith("daemonset.apps/log with revision #2\nPod Template:\n  Labels:")
    assert "kubectl.kubernetes.io/restartedAt: " in second
    result = cluster("rollout", "history", "ds/log", "--revision=7")
    assert (result.code, result.err) == (1, "error: unable to find the specified revision\n")
    assert cluster("rollout", "history", "pod/db-0").code == 2
    assert cluster("rollout", "restart", "pod/db-0").code == 2


def test_rollout_undo(cluster: Run) -> None:
    """Back to the revision before or any other, in kubectl's words; all of them or none."""
    assert cluster("rollout", "undo", "deploy/web").err == 'error: no rollout history found for deployment "web"\n'
    result = cluster("rollout", "undo", "sts/db")
    assert (result.code, result.err) == (1, "error: no last revision to roll back to\n")
    Path("workloads.yml").write_text(WORKLOADS.replace("nginx", "caddy").replace("the first", "the second"))
    assert cluster("apply", "-f", "workloads.yml").code == 0
    assert cluster("rollout", "undo", "deploy/web", "--dry-run=server").out == (
        "deployment.apps/web rolled back (server dry run)\n"
    )
    image = ("get", "deploy", "web", "-o", "jsonpath={.spec.template.spec.containers[0].image}")
    assert cluster(*image).out == "caddy"
    assert cluster("rollout", "undo", "deploy/web").out == "deployment.apps/web rolled back\n"
    assert cluster(*image).out == "nginx"
    assert cluster("rollout", "history", "deploy/web").out == (
        "deployment.apps/web \nREVISION  CHANGE-CAUSE\n2         the second\n3         the first\n\n"
    )
    assert cluster("rollout", "undo", "deploy/web", "--to-revision=3").out == (
        "deployment.apps/web skipped rollback (current template already matches revision 3)\n"
    )
    result = cluster("rollout", "undo", "deploy/web", "--to-revision=1")
    assert (result.code, result.err) == (1, "error: unable to find specified revision 1 in history\n")
    assert cluster("rollout", "restart", "sts/db", "ds/log").code == 0
    assert cluster("rollout", "undo", "sts/db", "ds/log").out == (
        "statefulset.apps/db rolled back\ndaemonset.apps/log rolled back\n"
    )
    result = cluster("rollout", "undo", "pod/db-0")
    assert (result.code, result.err) == (2, "error: no rollbacker has been implemented for pods\n")


def test_rollout_pause_and_resume(cluster: Run) -> None:
    """While paused the template changes and no pod does, and nothing can be undone; then all of it is one rollout."""
    start()
    assert cluster("rollout", "pause", "deploy/web").out == "deployment.apps/web paused\n"
    result = cluster("rollout", "pause", "deploy/web")
    assert (result.code, result.err) == (1, 'error: deployments.apps "web" is already paused\n')
    Path("workloads.yml").write_text(WORKLOADS.replace("nginx", "caddy"))
    assert cluster("apply", "-f", "workloads.yml").code == 0
    assert cluster("get", "deploy", "web", "--no-headers").out.split()[1:4] == ["2/2", "0", "2"]
    assert "DeploymentPaused" in cluster("describe", "deploy/web").out
    result = cluster("rollout", "undo", "deploy/web")
    assert (result.code, result.err) == (
        1,
        "error: you cannot rollback a paused deployment; resume it first with "
        "'svcnat rollout resume deployment/web' and try again\n",
    )
    assert cluster("rollout", "resume", "deploy/web").out == "deployment.apps/web resumed\n"
    start()
    assert cluster("rollout", "status", "deploy/web").code == 0
    assert "caddy" in cluster("get", "deploy", "web", "-o", "wide").out
    result = cluster("rollout", "resume", "deploy/web")
    assert (result.code, result.err) == (1, 'error: deployments.apps "web" is not paused\n')
    assert cluster("rollout", "pause", "sts/db").err == 'error: statefulsets.apps "db" pausing is not supported\n'


def test_descriptions(cluster: Run) -> None:
    """Each kind says what it controls, by whom it is controlled, and how its pods fare."""
    start()
    web = cluster("describe", "deploy/web").out
    assert "RollingUpdateStrategy:  25% max unavailable, 25% max surge\n" in web
    assert "  Available      True    MinimumReplicasAvailable\n" in web
    assert "(2/2 replicas created)\n" in web
    replica_set = cluster("describe", "rs").out
    assert "Controlled By:  Deployment/web\n" in replica_set
    assert "Replicas:       2 current / 2 desired\n" in replica_set
    assert "Pods Status:    2 Running / 0 Waiting / 0 Succeeded / 0 Failed\n" in replica_set
    stateful_set = cluster("describe", "sts/db").out
    assert "Replicas:           1 desired | 1 total\n" in stateful_set
    assert "  Partition:        0\n" in stateful_set
    assert "Desired Number of Nodes Scheduled: 1\n" in cluster("describe", "ds/log").out
    assert "Revision:" in cluster("describe", "controllerrevisions").out
    pod = cluster("describe", "pod", "db-0").out
    assert "Controlled By:  StatefulSet/db\n" in pod


@pytest.mark.parametrize(("text", "seconds"), [("0", 0), ("0s", 0), ("90s", 90), ("1m30s", 90), ("500ms", 0.5)])
def test_durations(text: str, seconds: float) -> None:
    """As Go writes them."""
    assert duration(text) == seconds


@pytest.mark.parametrize("text", ["", "5", "s", "-1s", "1x", "1s2"])
def test_no_durations(text: str) -> None:
    """Anything else is a mistake."""
    with pytest.raises(UsageError):
        duration(text)

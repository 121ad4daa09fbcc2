"""Nodes of which nothing is heard: conditions, in Kubernetes' words, and how long pods stay."""

from __future__ import annotations

from typing import Any

import pytest

from svcnat.controllers.node_lifecycle import (
    heard,
    is_marked,
    is_usable,
    marked,
    patience_of,
    unheard,
    unmarked,
    with_scheduling,
)
from svcnat.model.objects import (
    Condition,
    ContainerStatus,
    Node,
    ObjectMeta,
    OwnerReference,
    Pod,
    PodSpec,
    PodStatus,
)

NOW, LATER = "2026-01-01T00:00:00Z", "2026-01-01T00:01:00Z"
UNREACHABLE = "node.kubernetes.io/unreachable"


def test_a_node_is_lost_and_found() -> None:
    """Its Ready condition is Unknown, and True again; taints come and go, those of others stay."""
    node = heard(Node(metadata=ObjectMeta(name="a")), NOW)
    assert heard(node, LATER) is node
    assert is_usable(node)
    lost = unheard(node, LATER)
    (ready,) = lost.status.conditions
    assert (ready.status, ready.reason, ready.last_transition_time) == ("Unknown", "NodeStatusUnknown", LATER)
    assert [(each["key"], each["effect"]) for each in lost.spec.taints] == [
        (UNREACHABLE, "NoSchedule"),
        (UNREACHABLE, "NoExecute"),
    ]
    assert unheard(lost, NOW) is lost
    assert not is_usable(lost)
    assert heard(lost, LATER).spec == node.spec
    assert not is_usable(with_scheduling(node, unschedulable=True))
    assert with_scheduling(with_scheduling(node, unschedulable=True), unschedulable=False) == node


def pod(*ready: bool, **spec: Any) -> Pod:
    condition = Condition(type="Ready", status="True" if all(ready) else "False", last_transition_time=NOW)
    return Pod(
        metadata=ObjectMeta(name="p", namespace="default"),
        spec=PodSpec(node_name="a", **spec),
        status=PodStatus(
            phase="Running",
            conditions=[Condition(type="Initialized", status="True"), condition],
            container_statuses=[ContainerStatus(name=f"c{each}", ready=is_so) for each, is_so in enumerate(ready)],
        ),
    )


def test_pods_of_a_lost_node_are_unready() -> None:
    """All else stays as it was told last; once heard, a pod is as ready as its containers."""
    ready, unready = pod(True, True), pod(True, False)
    lost = marked(ready, LATER)
    assert is_marked(lost)
    told = [(each.type, each.status) for each in lost.status.conditions]
    assert told == [("Initialized", "True"), ("Ready", "False")]
    assert lost.status.container_statuses == ready.status.container_statuses
    assert marked(lost, NOW) is lost
    assert marked(unready, LATER) is unready
    assert unmarked(unready, LATER) is unready
    assert unmarked(lost, LATER).status.conditions[1].status == "True"
    worse = Pod(metadata=lost.metadata, spec=lost.spec, status=marked(pod(True, True), NOW).status)
    assert not is_marked(unmarked(worse, LATER))


@pytest.mark.parametrize(
    ("tolerations", "seconds"),
    [
        (None, 300),
        ([], 300),
        ("nonsense", 300),
        (["nonsense", {}], 300),
        ([{"key": UNREACHABLE, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 7}], 7),
        ([{"key": UNREACHABLE, "operator": "Exists", "tolerationSeconds": -7}], 0),
        ([{"key": UNREACHABLE, "operator": "Exists"}], None),
        ([{"key": UNREACHABLE}], None),
        ([{"key": UNREACHABLE, "value": "x"}], 300),
        ([{"key": UNREACHABLE, "operator": "Exists", "effect": "NoSchedule"}], 300),
        ([{"operator": "Exists"}], None),
        ([{"key": "other", "operator": "Exists", "tolerationSeconds": 1}], 300),
        ([{"operator": "Exists"}, {"key": UNREACHABLE, "operator": "Exists", "tolerationSeconds": 3}], 3),
    ],
)
def test_how_long_a_pod_stays(tolerations: Any, seconds: float | None) -> None:
    """Its tolerations decide, the least of them; without one the default does, as DefaultTolerationSeconds gives it."""
    assert patience_of(pod(True, tolerations=tolerations), 300) == seconds


def test_daemons_stay() -> None:
    """A DaemonSet's pods are never evicted: there is nowhere else for them to be."""
    owner = OwnerReference(kind="DaemonSet", name="d", controller=True)
    own = pod(True)
    assert patience_of(Pod(metadata=ObjectMeta(name="p", owner_references=[owner]), spec=own.spec), 300) is None

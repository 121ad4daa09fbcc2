"""Nodes of which nothing is heard: their Ready condition, that of their Pods, and which Pods are to be evicted.

Values in, values out: who has been silent for how long, and when what follows is written, is others' business. Sources:
kube-controller-manager's node-lifecycle controller (``node_lifecycle_controller.go``, ``MarkPodsNotReady``) and
tainteviction, and the admission plugin DefaultTolerationSeconds.
"""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace

from svcnat.controllers.members import controller_of
from svcnat.controllers.readiness import NODE_NOT_READY, ready_condition, shut_gates
from svcnat.model.conditions import condition_of, is_true, with_condition
from svcnat.model.objects import Condition, Node, Pod, Resource
from svcnat.model.pods import lasting_statuses

_UNREACHABLE = "node.kubernetes.io/unreachable"
_EFFECTS = ("NoSchedule", "NoExecute")


def unheard(node: Node, now: str) -> Node:
    """Return a Node as it is when its kubelet has been silent for too long: the very one if it says so already."""
    ready = condition_of(node.status.conditions, "Ready")
    if ready and ready.status == "Unknown":
        return node
    why = "NodeStatusUnknown", "Kubelet stopped posting node status."
    taints = [{"key": _UNREACHABLE, "effect": effect, "timeAdded": now} for effect in _EFFECTS]
    return _with(node, _readiness("Unknown", *why, now), taints)


def heard(node: Node, now: str) -> Node:
    """Return a Node as it is when its kubelet reports: the very one if it says so already."""
    if is_true(node.status.conditions, "Ready"):
        return node
    return _with(node, _readiness("True", "KubeletReady", "kubelet is posting ready status", now), [])


def is_usable(node: Node) -> bool:
    """Tell whether Pods may be placed on a Node."""
    return not node.spec.unschedulable and is_ready(node)


def with_scheduling(node: Resource, *, unschedulable: bool) -> Resource:
    """Return a Node on which new Pods may be placed, or not (``kubectl cordon``)."""
    assert isinstance(node, Node)
    return replace(node, spec=replace(node.spec, unschedulable=unschedulable or None))


def is_ready(node: Node) -> bool:
    """Tell whether a Node is Ready; one that nobody has said anything of is."""
    ready = condition_of(node.status.conditions, "Ready")
    return ready is None or ready.status == "True"


def is_marked(pod: Pod) -> bool:
    """Tell whether a Pod is not ready because of its Node."""
    ready = condition_of(pod.status.conditions, "Ready")
    return ready is not None and ready.reason == NODE_NOT_READY


def marked(pod: Pod, now: str) -> Pod:
    """Return a Pod on a Node that is not heard: not ready, and all else as it was told last."""
    ready = condition_of(pod.status.conditions, "Ready")
    if ready is None or ready.status != "True":
        return pod
    message = f"node {pod.spec.node_name} is not ready"
    return _put(pod, replace(ready, status="False", reason=NODE_NOT_READY, message=message, last_transition_time=now))


def unmarked(pod: Pod, now: str) -> Pod:
    """Return a Pod that ran on while its Node was not heard: as ready as its containers are."""
    if not is_marked(pod):
        return pod
    unready = [each.name for each in lasting_statuses(pod) if each.ready is False]
    return _put(pod, ready_condition(unready, now, shut_gates(pod)))


def patience_of(pod: Pod, default: float) -> float | None:
    """Return how many seconds a Pod stays on a Node that is not reached; None if it is never evicted.

    Its ``tolerations`` decide; the Pods of a DaemonSet have one for that, and all others, if they say nothing, one that
    ends after the `default`.
    """
    owner = controller_of(pod)
    if owner and owner.kind == "DaemonSet":
        return None
    tolerations = pod.spec.tolerations if isinstance(pod.spec.tolerations, list) else []
    told = [each.get("tolerationSeconds") for each in tolerations if isinstance(each, dict) and _tolerates(each)]
    if not told:
        return default
    limits = [max(float(each), 0.0) for each in told if isinstance(each, int | float)]
    return min(limits) if limits else None


def _tolerates(toleration: dict[str, Any]) -> bool:
    key, effect = toleration.get("key") or "", toleration.get("effect") or ""
    exists = toleration.get("operator") == "Exists"
    ours = exists or not toleration.get("value") if key == _UNREACHABLE else exists and not key
    return effect in ("", "NoExecute") and ours


def _readiness(status: str, reason: str, message: str, now: str) -> Condition:
    return Condition(type="Ready", status=status, reason=reason, message=message, last_transition_time=now)


def _put(pod: Pod, new: Condition) -> Pod:
    return replace(pod, status=replace(pod.status, conditions=with_condition(pod.status.conditions, new)))


def _with(node: Node, ready: Condition, taints: list[Any]) -> Node:
    """The Node with this condition, and these taints in place of those of an unreachable one."""
    others = (each for each in node.status.conditions if each.type != "Ready")
    status = replace(node.status, conditions=[*others, ready])
    all_taints = [*_other_taints(node), *taints]
    return replace(node, spec=replace(node.spec, taints=all_taints or None), status=status)


def _other_taints(node: Node) -> list[Any]:
    taints = node.spec.taints if isinstance(node.spec.taints, list) else []
    return [each for each in taints if not (isinstance(each, dict) and each.get("key") == _UNREACHABLE)]

"""``describe`` for Pods and what makes them, as kubectl has it; rows of cells as in :mod:`svcnat.cli.descriptions`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Protocol, TypeVar

from svcnat.cli.columns import NONE, labels_text, selector_text
from svcnat.cli.pods import pod_status
from svcnat.cli.rows import Rows, condition_rows, date_text, group, metadata_rows, several
from svcnat.controllers.rolling import revision_of
from svcnat.model.objects import (
    Condition,
    Container,
    ContainerState,
    ContainerStatus,
    ControllerRevision,
    DaemonSet,
    Deployment,
    LabelSelector,
    Pod,
    PodTemplateSpec,
    ReplicaSet,
    Resource,
    StatefulSet,
)
from svcnat.model.pods import addresses_of
from svcnat.model.rollouts import ROLLING, kind_of_update

R = TypeVar("R", bound=Resource)


class Objects(Protocol):
    """Where objects are looked up by label; a snapshot of the store is one."""

    def labelled(self, kind: type[R], namespace: str, labels: Mapping[str, str]) -> Sequence[R]:
        """The objects of a namespace with these labels."""
        ...


def pod_rows(pod: Pod) -> Rows:
    """A Pod."""
    status = pod.status
    node = f"{pod.spec.node_name}/{status.host_ip}" if pod.spec.node_name else NONE
    found = [
        *metadata_rows(pod, ["Node:", node], *_start_time(status.start_time)),
        *_status(pod),
        ["IP:", next(iter(addresses_of(pod)), "")],
        *group("IPs:", [["  IP:", address] for address in addresses_of(pod)]),
    ]
    found += _controlled_by(pod)
    for title, containers, statuses in (
        ("Init Containers:", pod.spec.init_containers, status.init_container_statuses),
        ("Containers:", pod.spec.containers, status.container_statuses),
    ):
        told = {each.name: each for each in statuses}
        rows = [row for each in containers for row in _container(each, "  ", told.get(each.name))]
        found += [[title], *rows] if containers else []
    given = {each.type: each.status for each in status.conditions}
    gates = [[f"  {each.condition_type}", given.get(each.condition_type, NONE)] for each in pod.spec.readiness_gates]
    found += [["Readiness Gates:"], ["  Type", "Status"], *gates] if gates else []
    return [*found, *condition_rows(status.conditions)]


def _status(pod: Pod) -> Rows:
    meta = pod.metadata
    ending = meta.deletion_timestamp is not None
    # As in kubectl, the phase: what keeps a container from running is told of that container.
    found = [["Status:", pod_status(pod) if ending else pod.status.phase or pod_status(pod)]]
    if pod.status.reason:
        found.append(["Reason:", pod.status.reason])
    if ending:
        found.append(["Termination Grace Period:", f"{meta.deletion_grace_period_seconds or 0}s"])
    return found


def _start_time(started: str | None) -> Rows:
    return [["Start Time:", date_text(started)]] if started else []


def _container(container: Container, indent: str, status: ContainerStatus | None = None) -> Rows:
    ports = [f"{port.container_port}/{port.protocol or 'TCP'}" for port in container.ports]
    found = [[f"{indent}{container.name}:"], [f"{indent}  Image:", container.image]]
    found.append([f"{indent}  {'Ports' if len(ports) > 1 else 'Port'}:", ", ".join(ports) or NONE])
    for label, words in (("Command", container.command), ("Args", container.args)):
        if words:
            found += [[f"{indent}  {label}:"], *([f"{indent}    {word}"] for word in words)]
    return found + [[f"{indent}  {row[0]}", *row[1:]] for row in _fares(status)] if status else found


def _fares(status: ContainerStatus) -> Rows:
    found = _state("State:", status.state)
    if status.last_state.terminated:
        found += _state("Last State:", status.last_state)
    count = status.restart_count or 0
    return [*found, ["Ready:", str(bool(status.ready))], ["Restart Count:", str(count)]]


def _state(label: str, state: ContainerState) -> Rows:
    detail = state.running or state.terminated or state.waiting
    kind = "Running" if state.running else "Terminated" if state.terminated else "Waiting"
    if detail is None:
        return [[label, kind]]
    # kubectl leaves what is waited for to Events, which nobody makes here; how long a pause is tells nobody anything.
    message = "" if detail.reason == "CrashLoopBackOff" else detail.message
    found = [["  Reason:", detail.reason], ["  Message:", message]]
    if state.terminated:
        found += [["  Exit Code:", str(detail.exit_code or 0)], ["  Signal:", str(detail.signal or "")]]
    found += [["  Started:", date_text(detail.started_at) if detail.started_at else ""]]
    found += [["  Finished:", date_text(detail.finished_at) if detail.finished_at else ""]]
    return [[label, kind], *(row for row in found if row[1])]


def rows(resource: Resource, objects: Objects) -> Rows:
    """A Deployment, or another kind of apps/v1."""
    match resource:
        case Deployment():
            return _deployment(resource, objects)
        case ReplicaSet():
            return _replica_set(resource, objects)
        case StatefulSet():
            return _stateful_set(resource, objects)
        case DaemonSet():
            return _daemon_set(resource, objects)
        case ControllerRevision():
            return [*metadata_rows(resource), *_controlled_by(resource), ["Revision:", str(resource.revision or 0)]]
    raise AssertionError(f"unreachable: {type(resource).__name__} makes no pods")


def template_rows(template: PodTemplateSpec) -> Rows:
    """A template, as ``rollout history --revision`` shows it, too."""
    found = [
        ["Pod Template:"],
        *several("Labels:", [f"{key}={value}" for key, value in sorted(template.metadata.labels.items())], "  "),
    ]
    if template.metadata.annotations:
        annotations = [f"{key}: {value}" for key, value in sorted(template.metadata.annotations.items())]
        found += several("Annotations:", annotations, "  ")
    found.append(["  Containers:"])
    for container in template.spec.containers:
        found += _container(container, "   ")
    return found


def _deployment(deployment: Deployment, objects: Objects) -> Rows:
    spec, status = deployment.spec, deployment.status
    replicas = {
        "desired": 1 if spec.replicas is None else spec.replicas,
        "updated": status.updated_replicas or 0,
        "total": status.replicas or 0,
        "available": status.available_replicas or 0,
        "unavailable": status.unavailable_replicas or 0,
    }
    found = [
        *metadata_rows(deployment, ["CreationTimestamp:", date_text(deployment.metadata.creation_timestamp)]),
        ["Selector:", selector_text(spec.selector)],
        ["Replicas:", " | ".join(f"{count} {what}" for what, count in replicas.items())],
        ["StrategyType:", kind_of_update(spec.strategy)],
        ["MinReadySeconds:", str(spec.min_ready_seconds or 0)],
    ]
    rolling = (spec.strategy or {}).get("rollingUpdate")
    if kind_of_update(spec.strategy) == ROLLING and rolling:
        text = f"{rolling.get('maxUnavailable', '25%')} max unavailable, {rolling.get('maxSurge', '25%')} max surge"
        found.append(["RollingUpdateStrategy:", text])
    found += [*template_rows(spec.template), *_reasons(status.conditions)]
    picked = spec.selector.match_labels if spec.selector else {}
    sets = objects.labelled(ReplicaSet, deployment.metadata.namespace, picked)
    own = [each for each in sets if owns(deployment, each)]
    newest = max(own, key=revision_of, default=None)
    old = [each for each in own if each is not newest]
    return [
        *found,
        ["OldReplicaSets:", ", ".join(map(_created, old)) or NONE],
        ["NewReplicaSet:", _created(newest) if newest else NONE],
    ]


def _created(replica_set: ReplicaSet) -> str:
    return (
        f"{replica_set.metadata.name} "
        f"({replica_set.status.replicas or 0}/{replica_set.spec.replicas or 0} replicas created)"
    )


def _reasons(conditions: Sequence[Condition]) -> Rows:
    """Conditions with their reasons; nothing if there are none."""
    if not conditions:
        return []
    return [
        ["Conditions:"],
        ["  Type", "Status", "Reason"],
        ["  ----", "------", "------"],
        *([f"  {each.type}", each.status, each.reason] for each in conditions),
    ]


def _replica_set(replica_set: ReplicaSet, objects: Objects) -> Rows:
    spec, status = replica_set.spec, replica_set.status
    name, namespace, *more = metadata_rows(replica_set)
    return [
        name,
        namespace,
        ["Selector:", selector_text(spec.selector)],
        *more,
        *_controlled_by(replica_set),
        ["Replicas:", f"{status.replicas or 0} current / {spec.replicas or 0} desired"],
        _phases(replica_set, spec.selector, objects),
        *template_rows(spec.template),
        *_reasons(status.conditions),
    ]


def _stateful_set(stateful_set: StatefulSet, objects: Objects) -> Rows:
    spec, status = stateful_set.spec, stateful_set.status
    name, namespace, *more = metadata_rows(stateful_set)
    found = [
        name,
        namespace,
        ["CreationTimestamp:", date_text(stateful_set.metadata.creation_timestamp)],
        ["Selector:", selector_text(spec.selector)],
        *more,
        ["Replicas:", f"{1 if spec.replicas is None else spec.replicas} desired | {status.replicas or 0} total"],
        ["Update Strategy:", kind_of_update(spec.update_strategy)],
    ]
    rolling = (spec.update_strategy or {}).get("rollingUpdate")
    if rolling:
        found.append(["  Partition:", str(rolling.get("partition", 0))])
    return [*found, _phases(stateful_set, spec.selector, objects), *template_rows(spec.template)]


def _daemon_set(daemon_set: DaemonSet, objects: Objects) -> Rows:
    spec, status = daemon_set.spec, daemon_set.status
    name, namespace, *more = metadata_rows(daemon_set)
    counts = {
        "Desired Number of Nodes Scheduled": status.desired_number_scheduled,
        "Current Number of Nodes Scheduled": status.current_number_scheduled,
        "Number of Nodes Scheduled with Up-to-date Pods": status.updated_number_scheduled,
        "Number of Nodes Scheduled with Available Pods": status.number_available,
        "Number of Nodes Misscheduled": status.number_misscheduled,
    }
    return [
        name,
        namespace,
        ["Selector:", selector_text(spec.selector)],
        ["Node-Selector:", labels_text(spec.template.spec.node_selector)],
        *more,
        *([f"{what}: {count or 0}"] for what, count in counts.items()),
        _phases(daemon_set, spec.selector, objects),
        *template_rows(spec.template),
    ]


def _controlled_by(resource: Resource) -> Rows:
    owner = next((owner for owner in resource.metadata.owner_references if owner.controller), None)
    return [["Controlled By:", f"{owner.kind}/{owner.name}"]] if owner else []


def owns(owner: Resource, resource: Resource) -> bool:
    """True if an object is among those that `owner` made."""
    return any(each.uid == owner.metadata.uid for each in resource.metadata.owner_references)


def _phases(owner: Resource, selector: LabelSelector | None, objects: Objects) -> list[str]:
    """How many Pods of an owner are in which phase."""
    pods = objects.labelled(Pod, owner.metadata.namespace, selector.match_labels if selector else {})
    phases = Counter(pod.status.phase or "Pending" for pod in pods if owns(owner, pod))
    counts = {"Running": "Running", "Pending": "Waiting", "Succeeded": "Succeeded", "Failed": "Failed"}
    return ["Pods Status:", " / ".join(f"{phases[phase]} {word}" for phase, word in counts.items())]

"""How a rollout fares, and what there was before, in kubectl's words.

Source: k8s.io/kubectl/pkg/polymorphichelpers, ``rollout_status.go`` and ``history.go``. Nothing here waits or prints.
"""

from __future__ import annotations

from collections.abc import Mapping

from svcnat.cli.workloads import owns
from svcnat.controllers.histories import revisions_of, template_of
from svcnat.controllers.rolling import revision_of
from svcnat.errors import UsageError
from svcnat.model.kinds import kind_of
from svcnat.model.labels import CHANGE_CAUSE
from svcnat.model.objects import (
    ControllerRevision,
    DaemonSet,
    Deployment,
    PodTemplateSpec,
    ReplicaSet,
    Resource,
    StatefulSet,
)
from svcnat.model.rollouts import ROLLING, kind_of_update, partition
from svcnat.store.snapshot import Snapshot


def progress(resource: Resource) -> tuple[str, bool]:
    """What to say of a rollout, and whether it is done.

    Raises:
        UsageError: a kind, or a strategy, of which nobody can tell.

    """
    match resource:
        case Deployment():
            return _deployment(resource)
        case DaemonSet():
            return _daemon_set(resource)
        case StatefulSet():
            return _stateful_set(resource)
    raise UsageError(f"no status viewer has been implemented for {kind_of(resource).plural}")


def _deployment(this: Deployment) -> tuple[str, bool]:
    status, name = this.status, this.metadata.name
    wanted = 1 if this.spec.replicas is None else this.spec.replicas
    if (this.metadata.generation or 0) > (status.observed_generation or 0):
        return "Waiting for deployment spec update to be observed...", False
    updated, total, available = status.updated_replicas or 0, status.replicas or 0, status.available_replicas or 0
    waiting = f'Waiting for deployment "{name}" rollout to finish: '
    if updated < wanted:
        return f"{waiting}{updated} out of {wanted} new replicas have been updated...", False
    if total > updated:
        return f"{waiting}{total - updated} old replicas are pending termination...", False
    if available < updated:
        return f"{waiting}{available} of {updated} updated replicas are available...", False
    return f'deployment "{name}" successfully rolled out', True


def _daemon_set(this: DaemonSet) -> tuple[str, bool]:
    status, name = this.status, this.metadata.name
    if kind_of_update(this.spec.update_strategy) != ROLLING:
        raise UsageError(f"rollout status is only available for {ROLLING} strategy type")
    if (this.metadata.generation or 0) > (status.observed_generation or 0):
        return "Waiting for daemon set spec update to be observed...", False
    wanted, updated = status.desired_number_scheduled or 0, status.updated_number_scheduled or 0
    available = status.number_available or 0
    waiting = f'Waiting for daemon set "{name}" rollout to finish: '
    if updated < wanted:
        return f"{waiting}{updated} out of {wanted} new pods have been updated...", False
    if available < wanted:
        return f"{waiting}{available} of {wanted} updated pods are available...", False
    return f'daemon set "{name}" successfully rolled out', True


def _stateful_set(this: StatefulSet) -> tuple[str, bool]:
    spec, status = this.spec, this.status
    if kind_of_update(spec.update_strategy) != ROLLING:
        raise UsageError(f"rollout status is only available for {ROLLING} strategy type")
    if not status.observed_generation or (this.metadata.generation or 0) > status.observed_generation:
        return "Waiting for statefulset spec update to be observed...", False
    wanted = 1 if spec.replicas is None else spec.replicas
    missing = wanted - (status.ready_replicas or 0)
    if missing > 0:
        return f"Waiting for {missing} pods to be ready...", False
    updated, goal = status.updated_replicas or 0, wanted - partition(spec.update_strategy)
    if updated < goal:
        text = f"Waiting for partitioned roll out to finish: {updated} out of {goal} new pods have been updated..."
        return text, False
    return f"partitioned roll out complete: {updated} new pods have been updated...", True


def templates(snapshot: Snapshot, resource: Resource) -> Mapping[int, tuple[str, PodTemplateSpec]]:
    """The revisions of an object, by number: why each was made, and its template.

    Raises:
        UsageError: a kind that has none.

    """
    found: dict[int, tuple[str, PodTemplateSpec]] = {}
    if isinstance(resource, Deployment):
        for each in snapshot.owned(resource.metadata.uid):
            if isinstance(each, ReplicaSet) and owns(resource, each):
                found[revision_of(each)] = (_cause(each), each.spec.template)
    elif isinstance(resource, StatefulSet | DaemonSet):
        owned = snapshot.owned(resource.metadata.uid)
        for revision in revisions_of([each for each in owned if isinstance(each, ControllerRevision)]):
            found[revision.revision or 0] = (_cause(revision), template_of(revision) or PodTemplateSpec())
    else:
        raise UsageError(f"no history viewer has been implemented for {kind_of(resource).plural}")
    return dict(sorted(found.items()))


def _cause(resource: Resource) -> str:
    return resource.metadata.annotations.get(CHANGE_CAUSE, "<none>")

"""Deployments to ReplicaSets: one for each template, of which the present one gets the Pods, as its strategy allows.

How many each has is decided in :mod:`svcnat.controllers.rolling`; their Pods are the business of
:mod:`svcnat.controllers.replicasets`. ReplicaSets of former templates stay, empty, as the history
(``revisionHistoryLimit``). What takes a clock is not here: ``progressDeadlineSeconds`` (no rollout is ever given up),
``minReadySeconds`` (a Pod is available as soon as it is ready), and the times of conditions. Source: apps/v1 Deployment
and kube-controller-manager's deployment (``sync.go``, ``progress.go``).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import count, groupby

from msgspec.structs import replace

from svcnat.controllers.members import controlled, controlled_by, is_terminating, template_hash
from svcnat.controllers.merge import LAST_APPLIED
from svcnat.controllers.naming import fresh_name
from svcnat.controllers.rolling import allowance_of, revision_of, size_of, sizes, wanted_of
from svcnat.controllers.world import Change, World
from svcnat.model.conditions import condition_of
from svcnat.model.defaults import with_defaults
from svcnat.model.labels import HASH_LABEL, REVISION
from svcnat.model.objects import (
    Condition,
    Deployment,
    DeploymentStatus,
    LabelSelector,
    ObjectMeta,
    Pod,
    PodTemplateSpec,
    ReplicaSet,
    ReplicaSetSpec,
)
from svcnat.model.pods import has_ended

DESIRED = "deployment.kubernetes.io/desired-replicas"
MAXIMUM = "deployment.kubernetes.io/max-replicas"
HISTORY = "deployment.kubernetes.io/revision-history"

OWN_ANNOTATIONS = (LAST_APPLIED, REVISION, DESIRED, MAXIMUM, HISTORY, "deprecated.deployment.rollback.to")
"""Annotations of a Deployment that are not its ReplicaSets'."""

_COMPLETE = "NewReplicaSetAvailable"


def reconcile(world: World, namespace: str, name: str) -> list[Change]:
    """Make the ReplicaSets of a Deployment what it asks for, update its status, and return what changed."""
    this = world.get(Deployment, namespace, name)
    if this is None:
        return []
    changes = _adopt(world, this)
    sets = _oldest_first(controlled(world, this, ReplicaSet))
    template = with_defaults(this).spec.template
    new = next((each for each in sets if _same(each, template)), None)
    if new is None and not this.spec.paused:
        new = _make(world, this, template)
        changes.append(Change(None, new))
    old = [each for each in sets if new is None or each.metadata.name != new.metadata.name]
    counts = sizes(world, this, new, old)
    written: list[ReplicaSet] = []
    for each in [*old, *([new] if new else [])]:
        after = world.put(_sized(this, each, counts[each.metadata.name], newest=each is new, former=old))
        changes += [Change(each, after)] if after != each else []
        written.append(after)
    status = _status(this, written[-1] if new else None, written)
    if status.updated_replicas == status.available_replicas == status.replicas == (wanted_of(this) or None):
        changes += _forget(world, this, written[: len(old)])
    annotations = this.metadata.annotations
    if new:
        annotations = {**annotations, REVISION: written[-1].metadata.annotations[REVISION]}
    world.put(replace(this, metadata=replace(this.metadata, annotations=annotations), status=status))
    return changes


def template_of(replica_set: ReplicaSet) -> PodTemplateSpec:
    """Return the Deployment's template that a ReplicaSet stands for: without the label that tells them apart."""
    template = replica_set.spec.template
    labels = {key: value for key, value in template.metadata.labels.items() if key != HASH_LABEL}
    return replace(template, metadata=replace(template.metadata, labels=labels))


# --- which ReplicaSets there are -----------------------------------------------------------------------------


def _same(replica_set: ReplicaSet, template: PodTemplateSpec) -> bool:
    """Tell whether a ReplicaSet is of a template: by what it says, so that a hash made otherwise does not matter."""
    own = template_of(with_defaults(replica_set))
    before, after = own.metadata, template.metadata
    return (before.labels, before.annotations, own.spec) == (after.labels, after.annotations, template.spec)


def _oldest_first(sets: Iterable[ReplicaSet]) -> list[ReplicaSet]:
    return sorted(
        sets, key=lambda each: (each.metadata.creation_timestamp or "", revision_of(each), each.metadata.name)
    )


def _make(world: World, this: Deployment, template: PodTemplateSpec) -> ReplicaSet:
    """Make the ReplicaSet of a template, empty; its name is of a hash that no other has."""
    for attempt in count():
        digest = template_hash(this.spec.template, attempt)
        name = f"{this.metadata.name}-{digest}"
        if world.get(ReplicaSet, this.metadata.namespace, name) is None:
            break
    return _put(world, this, name, template, digest)


def _put(
    world: World,
    this: Deployment,
    name: str,
    template: PodTemplateSpec,
    digest: str,
    *,
    replicas: int = 0,
    revision: int = 0,
) -> ReplicaSet:
    hashed = {HASH_LABEL: digest}
    labels = {**template.metadata.labels, **hashed}
    selector = this.spec.selector or LabelSelector()
    return world.put(
        with_defaults(
            ReplicaSet(
                metadata=ObjectMeta(
                    name=name,
                    namespace=this.metadata.namespace,
                    labels=labels,
                    annotations={REVISION: str(revision)} if revision else {},
                    owner_references=[controlled_by(this)],
                ),
                spec=ReplicaSetSpec(
                    replicas=replicas,
                    min_ready_seconds=this.spec.min_ready_seconds,
                    selector=replace(selector, match_labels={**selector.match_labels, **hashed}),
                    template=replace(template, metadata=replace(template.metadata, labels=labels)),
                ),
            )
        )
    )


def _adopt(world: World, this: Deployment) -> list[Change]:
    """Give Pods that a Deployment owns itself, as in state files of old, to ReplicaSets of their templates."""
    pods = sorted(controlled(world, this, Pod), key=lambda pod: pod.metadata.labels.get(HASH_LABEL, ""))
    changes: list[Change] = []
    groups = [list(group) for _, group in groupby(pods, key=lambda pod: pod.metadata.labels.get(HASH_LABEL, ""))]
    groups.sort(key=lambda group: min(pod.metadata.creation_timestamp or "" for pod in group))
    known = controlled(world, this, ReplicaSet)
    for revision, group in enumerate(groups, max(map(revision_of, known), default=0) + 1):
        digest = group[0].metadata.labels.get(HASH_LABEL, "")
        name = f"{this.metadata.name}-{digest}"
        owner = next((each for each in known if each.metadata.labels.get(HASH_LABEL) == digest), None)
        if owner is None:
            if not digest or world.get(ReplicaSet, this.metadata.namespace, name):
                name = fresh_name(world, ReplicaSet, this.metadata.namespace, f"{this.metadata.name}-")
            active = sum(not is_terminating(pod) and not has_ended(pod) for pod in group)
            template = _template_of(group[0], this)
            owner = _put(world, this, name, template, digest, replicas=active, revision=revision)
            changes.append(Change(None, owner))
        for pod in group:
            metadata = replace(pod.metadata, owner_references=[controlled_by(owner)])
            changes.append(Change(pod, world.put(replace(pod, metadata=metadata))))
    return changes


def _template_of(pod: Pod, this: Deployment) -> PodTemplateSpec:
    """Return the template that a Pod was made from: all but the node that it was put on."""
    node = this.spec.template.spec.node_name
    labels = {key: value for key, value in pod.metadata.labels.items() if key != HASH_LABEL}
    return PodTemplateSpec(
        metadata=ObjectMeta(labels=labels, annotations=pod.metadata.annotations),
        spec=replace(pod.spec, node_name=node if pod.spec.node_name == node else ""),
    )


def _sized(this: Deployment, each: ReplicaSet, size: int, *, newest: bool, former: Sequence[ReplicaSet]) -> ReplicaSet:
    """Return a ReplicaSet of `size`; the newest has the Deployment's annotations and the highest revision."""
    wanted = wanted_of(this)
    annotations = dict(each.metadata.annotations)
    if newest:
        annotations |= {key: text for key, text in this.metadata.annotations.items() if key not in OWN_ANNOTATIONS}
        annotations[REVISION] = str(max(revision_of(each), max(map(revision_of, former), default=0) + 1))
    if size or newest:
        annotations |= {DESIRED: str(wanted), MAXIMUM: str(wanted + allowance_of(this).surge)}
    spec = replace(each.spec, replicas=size)
    if newest:
        spec = replace(spec, min_ready_seconds=this.spec.min_ready_seconds)
    return replace(each, metadata=replace(each.metadata, annotations=annotations), spec=spec)


def _forget(world: World, this: Deployment, old: Sequence[ReplicaSet]) -> list[Change]:
    """Delete the oldest of the empty ReplicaSets, as many as are beyond the limit of the history."""
    limit = 10 if this.spec.revision_history_limit is None else this.spec.revision_history_limit
    empty = [
        each for each in old if not (each.spec.replicas or each.status.replicas or each.status.terminating_replicas)
    ]
    changes = []
    for each in sorted(empty, key=revision_of)[: max(len(empty) - limit, 0)]:
        world.remove(each)
        changes.append(Change(each, None))
    return changes


# --- what is told of it --------------------------------------------------------------------------------------


def _status(this: Deployment, new: ReplicaSet | None, sets: Sequence[ReplicaSet]) -> DeploymentStatus:
    """Return the status; zeros are left out, as Kubernetes does."""
    replicas, updated = _sum(each.status.replicas for each in sets), _sum([new.status.replicas] if new else [])
    available = _sum(each.status.available_replicas for each in sets)
    conditions = [each for each in this.status.conditions if each.type not in ("Available", "Progressing")]
    status = replace(
        this.status,
        observed_generation=this.metadata.generation,
        replicas=replicas or None,
        updated_replicas=updated or None,
        ready_replicas=_sum(each.status.ready_replicas for each in sets) or None,
        available_replicas=available or None,
        unavailable_replicas=max(sum(map(size_of, sets)) - available, 0) or None,
        terminating_replicas=_sum(each.status.terminating_replicas for each in sets) or None,
    )
    least = wanted_of(this) - allowance_of(this).unavailable
    return replace(status, conditions=[_available(available >= least), _progressing(this, new, status), *conditions])


def _sum(counts: Iterable[int | None]) -> int:
    return sum(each or 0 for each in counts)


def _available(enough: bool) -> Condition:  # noqa: FBT001 - the field's own value
    if enough:
        return Condition(
            type="Available",
            status="True",
            reason="MinimumReplicasAvailable",
            message="Deployment has minimum availability.",
        )
    return Condition(
        type="Available",
        status="False",
        reason="MinimumReplicasUnavailable",
        message="Deployment does not have minimum availability.",
    )


def _progressing(this: Deployment, new: ReplicaSet | None, status: DeploymentStatus) -> Condition:
    """Return the condition of a rollout; one that came to its end stays there, whatever becomes of its Pods."""
    if this.spec.paused or new is None:
        return Condition(
            type="Progressing", status="Unknown", reason="DeploymentPaused", message="Deployment is paused"
        )
    found = condition_of(this.status.conditions, "Progressing")
    was = found.reason if found else ""
    wanted = wanted_of(this) or None
    same = status.replicas == status.updated_replicas
    named = f'ReplicaSet "{new.metadata.name}"'
    if same and (was == _COMPLETE or (status.updated_replicas == status.available_replicas == wanted)):
        message = f"{named} has successfully progressed."
        return Condition(type="Progressing", status="True", reason=_COMPLETE, message=message)
    return Condition(type="Progressing", status="True", reason="ReplicaSetUpdated", message=f"{named} is progressing.")

"""The Pods of a workload: which are its own, how one is made from a template, which go first, and how they end.

It decides for no kind how many there are to be. Pods that merely match a selector are not adopted, as a cluster would;
those that no longer match it are let go. Source: ``ControllerRefManager``, ``GetPodFromTemplate`` and
``ActivePodsWithRanks`` of kube-controller-manager.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import TypeVar

import msgspec
from msgspec.structs import replace

from svcnat.controllers.naming import safe_text
from svcnat.controllers.world import Change, World, by_place
from svcnat.model.defaults import with_defaults
from svcnat.model.kinds import kind_of
from svcnat.model.labels import DELETION_COST
from svcnat.model.objects import (
    LabelSelector,
    ObjectMeta,
    OwnerReference,
    Pod,
    PodSpec,
    PodTemplateSpec,
    Resource,
)
from svcnat.model.pods import addresses_of, has_ended, is_ready
from svcnat.model.selectors import Selector

R = TypeVar("R", bound=Resource)


def template_hash(template: PodTemplateSpec, attempt: int = 0) -> str:
    """Return ten characters that stand for a template, the same for equal ones; others for another `attempt`."""
    digest = hashlib.sha256(msgspec.json.encode(template, order="sorted") + b"/%d" % attempt * bool(attempt)).digest()
    return safe_text(int.from_bytes(digest, "big"), 10)


def controller_of(resource: Resource) -> OwnerReference | None:
    """Return the owner that controls an object, or None."""
    return next((each for each in resource.metadata.owner_references if each.controller), None)


def controlled_by(owner: Resource) -> OwnerReference:
    """Return the reference that says so of an object."""
    kind = kind_of(owner)
    return OwnerReference(
        api_version=kind.group_version,
        kind=kind.name,
        name=owner.metadata.name,
        uid=owner.metadata.uid,
        controller=True,
        block_owner_deletion=True,
    )


def controlled(world: World, owner: Resource, kind: type[R]) -> list[R]:
    """Return the objects of a kind that an object controls, sorted by name."""
    uid = owner.metadata.uid
    found = [each for each in world.owned(uid) if isinstance(each, kind)]
    return [each for each in found if (controller := controller_of(each)) and controller.uid == uid]


def members(world: World, owner: Resource, selector: LabelSelector | None) -> tuple[list[Pod], list[Change]]:
    """Return the Pods of a workload that have not ended; those whose labels its selector does not match are let go."""
    picks = Selector.of(selector or LabelSelector())
    kept: list[Pod] = []
    released: list[Change] = []
    for pod in controlled(world, owner, Pod):
        if not picks.matches(pod.metadata.labels):
            references = [each for each in pod.metadata.owner_references if each.uid != owner.metadata.uid]
            metadata = replace(pod.metadata, owner_references=references)
            released.append(Change(pod, world.put(replace(pod, metadata=metadata))))
        elif not has_ended(pod):
            kept.append(pod)
    return kept, released


def is_terminating(pod: Pod) -> bool:
    """Tell whether a Pod is on its way out."""
    return pod.metadata.deletion_timestamp is not None


def is_unstarted(pod: Pod) -> bool:
    """Tell whether nobody has started a Pod yet: nothing is lost with it."""
    return not pod.spec.node_name and not addresses_of(pod) and not is_ready(pod)


def make(
    world: World, owner: Resource, template: PodTemplateSpec, name: str, labels: Mapping[str, str], *, prefix: str = ""
) -> Change:
    """Make a Pod of a template, with more `labels`."""
    pod = Pod(
        metadata=ObjectMeta(
            name=name,
            generate_name=prefix,
            namespace=owner.metadata.namespace,
            labels={**template.metadata.labels, **labels},
            annotations=template.metadata.annotations,
            owner_references=[controlled_by(owner)],
        ),
        spec=template.spec,
    )
    return Change(None, world.put(with_defaults(pod)))


def placed(template: PodTemplateSpec, **fields: str) -> PodTemplateSpec:
    """Return a template with these fields of its Pods' spec."""
    spec: PodSpec = replace(template.spec, **fields)
    return replace(template, spec=spec)


def end(world: World, pods: Iterable[Pod]) -> list[Change]:
    """Delete Pods that are not terminating already; a World may leave them to terminate."""
    changes = []
    for pod in pods:
        if not is_terminating(pod):
            world.remove(pod)
            changes.append(Change(pod, world.get(Pod, *by_place(pod))))
    return changes


def by_worth(pods: Sequence[Pod]) -> list[Pod]:
    """Return Pods in the order in which they are to be kept.

    Those on a node before those on none, ready before not ready, dear before cheap (the annotation
    ``controller.kubernetes.io/pod-deletion-cost``), alone on their node before crowded, old before young.
    """
    crowds = Counter(pod.spec.node_name for pod in pods)
    return sorted(
        pods,
        key=lambda pod: (
            not pod.spec.node_name,
            pod.status.phase != "Running",
            not is_ready(pod),
            -_cost(pod),
            crowds[pod.spec.node_name],
            pod.metadata.creation_timestamp or "",
            pod.metadata.name,
        ),
    )


def _cost(pod: Pod) -> int:
    """Return what deleting a Pod costs, as its annotation says; 0 if it says nothing that is a number of 32 bits."""
    try:
        cost = int(pod.metadata.annotations.get(DELETION_COST, "0"))
    except ValueError:
        return 0
    return cost if -(2**31) <= cost < 2**31 else 0

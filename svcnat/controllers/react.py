"""What follows from changes: runs the controllers that a change concerns, and those that their own changes concern.

The cost follows the change: everything is found by index (labels, selectors, owners), nothing by walking all objects,
except when a Node moves to another zone or a Namespace goes; when Nodes come and go, all DaemonSets. Each object is
reconciled once in a round, however many of the changes concern it, and there are rounds until nothing changes.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator

from svcnat.controllers import daemonsets, deployments, replicasets, slices, statefulsets
from svcnat.controllers.claims import claims_of
from svcnat.controllers.load_balancers import with_ingress
from svcnat.controllers.members import controller_of
from svcnat.controllers.ranges import NODE_PORTS, SERVICE_CIDRS
from svcnat.controllers.world import Change, MemoryWorld, Place, World, by_place
from svcnat.model.kinds import KINDS
from svcnat.model.labels import MANAGER_LABEL, SERVICE_LABEL, ZONE_LABEL
from svcnat.model.objects import (
    DaemonSet,
    Endpoints,
    EndpointSlice,
    Namespace,
    Node,
    Pod,
    Resource,
    Service,
)

_WORKLOADS: dict[str, Callable[[World, str, str], list[Change]]] = {
    "StatefulSet": statefulsets.reconcile,
    "DaemonSet": daemonsets.reconcile,
    "ReplicaSet": replicasets.reconcile,
    "Deployment": deployments.reconcile,
}
"""By kind. A Deployment comes last: what its ReplicaSets tell of their Pods is then up to date."""


def settled(
    resources: Iterable[Resource],
    service_cidrs: Iterable[str] = SERVICE_CIDRS,
    *,
    node_ports: range = NODE_PORTS,
    load_balancer_pool: Iterable[str] = (),
) -> MemoryWorld:
    """Return a world of `resources` and of all that follows from them; the same for the same input in any order.

    Raises:
        UsageError: a range is none.
        ManifestError: requests for addresses or node ports collide or lie outside the ranges.
        ExhaustedError: a range is full.

    """
    world = MemoryWorld.of(resources, service_cidrs, node_ports=node_ports, load_balancer_pool=load_balancer_pool)
    react(world, [Change(None, resource) for resource in world.everything()])
    return world


def react(world: World, changes: Iterable[Change]) -> None:
    """Make the world consistent again after `changes`, which are already in it."""
    queue = deque(changes)
    services: dict[Place, None] = {}
    released = False
    while queue:
        concerned: dict[str, dict[Place, None]] = {kind: {} for kind in _WORKLOADS}
        while queue:
            change = queue.popleft()
            released = released or _releases(change)
            queue.extend(_removed_with(world, change))
            services.update(dict.fromkeys(_services(world, change)))
            for kind, place in _workloads(world, change):
                concerned[kind][place] = None
        for kind, reconcile in _WORKLOADS.items():
            for place in concerned[kind]:
                queue.extend(reconcile(world, *place))
    if released:
        serve_waiting(world)
    for place in services:
        slices.reconcile(world, *place)


def serve_waiting(world: World) -> None:
    """Give what load balancers' addresses there are to those that wait, requests for a certain one first."""
    full: set[tuple[str, ...]] = set()
    for service in sorted(world.waiting(), key=lambda each: not each.spec.load_balancer_ip):
        families = tuple(service.spec.ip_families)
        if families not in full:
            served = world.put(with_ingress(service, None, world.ranges.balancers, world))
            if served is service and not service.spec.load_balancer_ip:
                full.add(families)  # Nobody else will find anything there, either.


def _releases(change: Change) -> bool:
    """Tell whether a load balancer's address has become free."""
    before, after = (claims_of(each) if isinstance(each, Service) else set() for each in (change.before, change.after))
    return any(claim.kind == "loadBalancerIP" for claim in before - after)


def _removed_with(world: World, change: Change) -> list[Change]:
    """Remove what cannot outlive a deleted object: what it owns, what its namespace holds."""
    gone = change.before
    if gone is None or (change.after and change.after.metadata.uid == gone.metadata.uid):
        return []
    orphans = list(world.owned(gone.metadata.uid)) if gone.metadata.uid else []
    if isinstance(gone, Namespace):
        orphans = [each for kind in KINDS if kind.namespaced for each in world.list(kind.type, gone.metadata.name)]
    changes = []
    for orphan in orphans:
        world.remove(orphan)
        changes.append(Change(orphan, world.get(type(orphan), *by_place(orphan))))  # It may have to terminate first.
    return changes


def _services(world: World, change: Change) -> Iterator[Place]:
    """Yield the Services whose EndpointSlices may have to change."""
    for resource in (change.before, change.after):
        match resource:
            case Service() | Endpoints():
                yield by_place(resource)
            case Pod():
                yield from map(
                    by_place, world.services_selecting(resource.metadata.namespace, resource.metadata.labels)
                )
            case EndpointSlice() if resource.metadata.labels.get(MANAGER_LABEL) in slices.MANAGERS:
                # Somebody changed by hand what is not theirs: it is put right.
                yield resource.metadata.namespace, resource.metadata.labels.get(SERVICE_LABEL, "")
    node = change.after or change.before
    if isinstance(node, Node) and _zone(change.before) != _zone(change.after):
        for pod in world.list(Pod):
            if pod.spec.node_name == node.metadata.name:
                yield from map(by_place, world.services_selecting(pod.metadata.namespace, pod.metadata.labels))


def _zone(node: Resource | None) -> str | None:
    return node.metadata.labels.get(ZONE_LABEL) if node else None


def _workloads(world: World, change: Change) -> Iterator[tuple[str, Place]]:
    """Yield the workloads, by kind, whose Pods or status may have to change."""
    for resource in (change.before, change.after):
        if resource is None:
            continue
        if type(resource).__name__ in _WORKLOADS:
            yield type(resource).__name__, by_place(resource)
        owner = controller_of(resource)
        if owner and owner.kind in _WORKLOADS:
            yield owner.kind, (resource.metadata.namespace, owner.name)
    if isinstance(change.before, Pod) and change.after is None:
        # Whosesoever it was, its name is free now; reconciling what is not there costs a look.
        stem, _, number = change.before.metadata.name.rpartition("-")
        if number.isdecimal():
            yield "StatefulSet", (change.before.metadata.namespace, stem)
    if isinstance(change.after or change.before, Node) and _labels(change.before) != _labels(change.after):
        for each in world.list(DaemonSet):
            yield "DaemonSet", by_place(each)


def _labels(node: Resource | None) -> dict[str, str] | None:
    return node.metadata.labels if node else None

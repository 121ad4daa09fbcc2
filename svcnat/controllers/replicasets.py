"""ReplicaSets to Pods: as many as ``replicas`` says, made from the template.

It starts no Pod and gives none an address: in a lab the kubelet does. Which ReplicaSets there are is a person's
business, or :mod:`svcnat.controllers.deployments`'. Source: apps/v1 ReplicaSet, kube-controller-manager's replicaset.
"""

from __future__ import annotations

from collections.abc import Sequence

from msgspec.structs import replace

from svcnat.controllers.members import by_worth, end, is_terminating, make, members
from svcnat.controllers.naming import fresh_name
from svcnat.controllers.world import Change, World
from svcnat.model.objects import Pod, ReplicaSet, ReplicaSetStatus
from svcnat.model.pods import is_ready


def reconcile(world: World, namespace: str, name: str) -> list[Change]:
    """Make the Pods of a ReplicaSet what it asks for, update its status, and return what changed."""
    this = world.get(ReplicaSet, namespace, name)
    if this is None:
        return []
    wanted = 1 if this.spec.replicas is None else this.spec.replicas
    pods, changes = members(world, this, this.spec.selector)
    active = by_worth([pod for pod in pods if not is_terminating(pod)])
    changes += end(world, active[wanted:])
    prefix = f"{name}-"
    for _ in range(wanted - len(active)):
        free = fresh_name(world, Pod, namespace, prefix)
        changes.append(make(world, this, this.spec.template, free, {}, prefix=prefix))
    status = _status(this, members(world, this, this.spec.selector)[0])
    after = world.put(replace(this, status=status))
    return [*changes, Change(this, after)] if after != this else changes


def _status(this: ReplicaSet, pods: Sequence[Pod]) -> ReplicaSetStatus:
    """Return the status; zeros are left out, as Kubernetes does with most of them.

    A Pod is available as soon as it is ready: minReadySeconds would take a clock.
    """
    active = [pod for pod in pods if not is_terminating(pod)]
    ready = sum(map(is_ready, active))
    return replace(
        this.status,
        observed_generation=this.metadata.generation,
        replicas=len(active) or None,
        fully_labeled_replicas=len(active) or None,
        ready_replicas=ready or None,
        available_replicas=ready or None,
        terminating_replicas=len(pods) - len(active) or None,
    )

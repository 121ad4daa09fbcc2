"""StatefulSets to Pods with names that stay, NAME-0 and on: made in order, each when the one before is ready.

Their hostname is their name, and their subdomain the ``serviceName``, so that a headless Service's endpoints carry it.
There is no storage: ``volumeClaimTemplates`` are kept and make nothing. ``minReadySeconds`` would take a clock: a Pod
is available as soon as it is ready. Source: apps/v1 StatefulSet and kube-controller-manager's
``stateful_set_control.go``. Unlike there, a Pod of a former template that is not ready does not hold up the update that
would replace it (kubernetes/kubernetes#67250).
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass

from msgspec.structs import replace

from svcnat.controllers import histories
from svcnat.controllers.histories import History
from svcnat.controllers.members import controlled, end, is_terminating, make, members, placed
from svcnat.controllers.world import Change, World
from svcnat.model.labels import POD_INDEX_LABEL, POD_NAME_LABEL, REVISION_LABEL
from svcnat.model.objects import Pod, StatefulSet, StatefulSetStatus
from svcnat.model.pods import has_ended, is_ready
from svcnat.model.rollouts import ROLLING, kind_of_update, partition


def reconcile(world: World, namespace: str, name: str) -> list[Change]:
    """Take the next step towards what a StatefulSet asks for, update its status, and return what changed."""
    this = world.get(StatefulSet, namespace, name)
    if this is None:
        return []
    history, changes = histories.keep(world, this, this.spec.template)
    changes += members(world, this, this.spec.selector)[1]
    for step in _steps(world, this, history):
        changes += step
    status = _status(world, this, history)
    used = {status.current_revision, *map(_revision, controlled(world, this, Pod))}
    changes += histories.forget(world, history, used, this.spec.revision_history_limit)
    world.put(replace(this, status=status))
    return changes


def ordinal_of(this: StatefulSet, pod: Pod) -> int | None:
    """Return the number at the end of a Pod's name; None if it is not one of this StatefulSet's names."""
    prefix = f"{this.metadata.name}-"
    number = pod.metadata.name.removeprefix(prefix)
    fits = pod.metadata.name.startswith(prefix) and number.isascii() and number.isdecimal() and len(number) < 10
    return int(number) if fits and str(int(number)) == number else None


@dataclass(frozen=True, slots=True)
class _Plan:
    """What a StatefulSet asks for: its ordinals, those from `begin` on being updated, and how."""

    wanted: range
    begin: int
    update: str
    rolling: bool
    ordered: bool

    def is_outdated(self, ordinal: int, pod: Pod) -> bool:
        """Tell whether a Pod is to be replaced by one of the present template."""
        return self.rolling and ordinal >= self.begin and _revision(pod) != self.update


def _steps(world: World, this: StatefulSet, history: History) -> Iterator[list[Change]]:
    """Yield what is done now, until something has to be waited for."""
    first = _first(this)
    plan = _Plan(
        wanted=range(first, first + _wanted(this)),
        begin=first + partition(this.spec.update_strategy),
        update=history.update.metadata.name,
        rolling=kind_of_update(this.spec.update_strategy) == ROLLING,
        ordered=this.spec.pod_management_policy != "Parallel",
    )
    pods = _by_ordinal(world, this)
    for ordinal in plan.wanted:
        if not (yield from _fill(world, this, history, plan, ordinal, pods.get(ordinal))):
            return
    pods = _by_ordinal(world, this)
    for ordinal in sorted(pods.keys() - set(plan.wanted), reverse=True):
        yield end(world, [pods[ordinal]])
        if plan.ordered:
            return
    for ordinal in reversed(plan.wanted):
        if plan.is_outdated(ordinal, pods[ordinal]):
            yield end(world, [pods[ordinal]])
            return
        if is_terminating(pods[ordinal]) or not is_ready(pods[ordinal]):
            return


def _fill(
    world: World, this: StatefulSet, history: History, plan: _Plan, ordinal: int, pod: Pod | None
) -> Generator[list[Change], None, bool]:
    """See to it that there is a Pod of an ordinal; return whether the next one's turn has come."""
    place = this.metadata.namespace, f"{this.metadata.name}-{ordinal}"
    if pod and has_ended(pod):
        yield end(world, [pod])
        pod = world.get(Pod, *place)
    if pod is None:
        if world.get(Pod, *place):
            return False  # Somebody else's has the name: nothing can be done before it goes.
        old = plan.rolling and ordinal < plan.begin
        yield [_make(world, this, history, ordinal, this.status.current_revision if old else plan.update)]
        return not plan.ordered
    if plan.ordered and (is_terminating(pod) or not is_ready(pod)):
        if plan.is_outdated(ordinal, pod):
            yield end(world, [pod])
        return False
    return True


def _first(this: StatefulSet) -> int:
    return (this.spec.ordinals.start or 0) if this.spec.ordinals else 0


def _wanted(this: StatefulSet) -> int:
    return 1 if this.spec.replicas is None else this.spec.replicas


def _revision(pod: Pod) -> str:
    return pod.metadata.labels.get(REVISION_LABEL, "")


def _by_ordinal(world: World, this: StatefulSet) -> Mapping[int, Pod]:
    found = ((ordinal_of(this, pod), pod) for pod in controlled(world, this, Pod))
    return {ordinal: pod for ordinal, pod in found if ordinal is not None}


def _make(world: World, this: StatefulSet, history: History, ordinal: int, revision: str) -> Change:
    chosen = history.find(revision)
    template = histories.template_of(chosen) or this.spec.template
    name = f"{this.metadata.name}-{ordinal}"
    labels = {POD_NAME_LABEL: name, POD_INDEX_LABEL: str(ordinal), REVISION_LABEL: chosen.metadata.name}
    return make(world, this, placed(template, hostname=name, subdomain=this.spec.service_name), name, labels)


def _status(world: World, this: StatefulSet, history: History) -> StatefulSetStatus:
    """Return the status; zeros are left out. The update's revision is the current one when all Pods are of it."""
    pods = [pod for pod in _by_ordinal(world, this).values() if not has_ended(pod)]
    active = [pod for pod in pods if not is_terminating(pod)]
    update = history.update.metadata.name
    current = history.find(this.status.current_revision).metadata.name
    ready = sum(map(is_ready, active))
    updated = sum(_revision(pod) == update for pod in active)
    if updated == len(pods) == ready:
        current = update
    return replace(
        this.status,
        observed_generation=this.metadata.generation,
        replicas=len(pods) or None,
        ready_replicas=ready or None,
        available_replicas=ready or None,
        current_replicas=sum(_revision(pod) == current for pod in active) or None,
        updated_replicas=updated or None,
        current_revision=current,
        update_revision=update,
    )

"""How many Pods each of a Deployment's ReplicaSets is to have: one step of a rollout, from what they have now.

A rolling update keeps within maxSurge and maxUnavailable at every step; Recreate ends the old before it makes the new;
a paused rollout follows the number of Pods alone. Nothing is written here. Source: kube-controller-manager's
``rolling.go`` and ``recreate.go``. Unlike there, a former template's Pods that nobody has started yet go at once, as
nothing is lost with them; and what is scaled up during a rollout is made from the new template.
"""

from __future__ import annotations

from collections.abc import Sequence

from svcnat.controllers.members import controlled, is_unstarted
from svcnat.controllers.world import World
from svcnat.model.labels import REVISION
from svcnat.model.objects import Deployment, Pod, ReplicaSet
from svcnat.model.rollouts import RECREATE, ROLLING, Allowance, deployment_allowance, kind_of_update


def revision_of(replica_set: ReplicaSet) -> int:
    """Return the number that a Deployment's ReplicaSet has in its history; 0 if it has none."""
    text = replica_set.metadata.annotations.get(REVISION, "")
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 10 else 0


def wanted_of(this: Deployment) -> int:
    """Return how many Pods a Deployment asks for."""
    return 1 if this.spec.replicas is None else this.spec.replicas


def allowance_of(this: Deployment) -> Allowance:
    """Return what its strategy allows: nothing, unless that is a rolling update."""
    wanted = wanted_of(this)
    rolling = kind_of_update(this.spec.strategy) == ROLLING
    return deployment_allowance(this.spec.strategy, wanted) if rolling else Allowance(0, 0)


def size_of(replica_set: ReplicaSet) -> int:
    """Return how many Pods a ReplicaSet asks for."""
    return 1 if replica_set.spec.replicas is None else replica_set.spec.replicas


def sizes(world: World, this: Deployment, new: ReplicaSet | None, old: Sequence[ReplicaSet]) -> dict[str, int]:
    """Return how many Pods each ReplicaSet is to have now, by its name; `new` is that of the present template."""
    tally = _Tally([*old, *([new] if new else [])])
    former = [each.metadata.name for each in old]
    wanted = wanted_of(this)
    recreate = kind_of_update(this.spec.strategy) == RECREATE
    if this.spec.paused or new is None:
        newest = new or max([each for each in old if size_of(each)] or old, key=revision_of, default=None)
        if newest:
            grow = not recreate or _are_gone([each for each in old if each is not newest])
            mixed = sum(map(bool, tally.sizes.values())) > 1
            _hold(tally, wanted, allowance_of(this).surge if mixed else 0, newest.metadata.name, grow=grow)
    elif recreate:
        for name in former:
            tally.shrink(name, tally.sizes[name])
        name = new.metadata.name
        tally.sizes[name] = wanted if _are_gone(old) else min(size_of(new), wanted)
    else:
        for each in old:
            if size_of(each):
                tally.shrink(each.metadata.name, sum(map(is_unstarted, controlled(world, each, Pod))), idle=True)
        _roll(tally, wanted, allowance_of(this), new.metadata.name, former)
    return tally.sizes


def _are_gone(sets: Sequence[ReplicaSet]) -> bool:
    """Tell whether no Pod of these is left, not even on its way out."""
    return not any(each.status.replicas or each.status.terminating_replicas for each in sets)


class _Tally:
    """How many Pods each ReplicaSet is to have, by its name, the oldest first, and how many of them are available."""

    def __init__(self, sets: Sequence[ReplicaSet]) -> None:
        self.sizes = {each.metadata.name: size_of(each) for each in sets}
        self.available = {each.metadata.name: min(each.status.available_replicas or 0, size_of(each)) for each in sets}

    @property
    def total(self) -> int:
        return sum(self.sizes.values())

    def idle(self, name: str) -> int:
        """Return how many are not available."""
        return self.sizes[name] - self.available[name]

    def shrink(self, name: str, by: int, *, idle: bool = False) -> int:
        """Take Pods away, as many as there are, or that are `idle`; those that are not available go first."""
        by = max(min(by, self.idle(name) if idle else self.sizes[name]), 0)
        self.sizes[name] -= by
        self.available[name] = min(self.available[name], self.sizes[name])
        return by


def _hold(tally: _Tally, wanted: int, surge: int, newest: str, *, grow: bool) -> None:
    """Follow the number of Pods alone: a paused rollout neither begins nor goes on."""
    for idle in (True, False):
        for name in [*(each for each in tally.sizes if each != newest), newest]:
            tally.shrink(name, tally.total - wanted - surge, idle=idle)
    if grow:
        tally.sizes[newest] += max(wanted - tally.total, 0)


def _roll(tally: _Tally, wanted: int, allowance: Allowance, new: str, old: Sequence[str]) -> None:
    """Take the next step of a rolling update: never more Pods than allowed, and never fewer of those available."""
    least = wanted - allowance.unavailable
    tally.shrink(new, tally.sizes[new] - wanted)
    # New Pods that are not available yet keep as many old ones, which may become so, from being cleared away.
    spare = tally.total - least - tally.idle(new)
    for name in old:
        spare -= tally.shrink(name, spare, idle=True)
    extra = sum(tally.available.values()) - least
    for name in old:
        extra -= tally.shrink(name, extra)
    tally.sizes[new] += max(min(wanted + allowance.surge - tally.total, wanted - tally.sizes[new]), 0)
    # Scaled down in the middle of a rollout, there may be too many that were meant to become available.
    for name in [*old, new]:
        tally.shrink(name, tally.total - wanted - allowance.surge, idle=True)

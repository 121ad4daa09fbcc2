"""DaemonSets to Pods: one on every Node that has the labels of the ``nodeSelector``, cordoned or not.

Nodes come and go, and the Pods with them. Taints and affinities are not looked at. ``minReadySeconds`` would take a
clock: a Pod is available as soon as it is ready. Source: apps/v1 DaemonSet and kube-controller-manager's daemon
(``update.go``).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from msgspec.structs import replace

from svcnat.controllers import histories
from svcnat.controllers.members import controlled, end, is_terminating, make, members, placed
from svcnat.controllers.naming import fresh_name
from svcnat.controllers.world import Change, World
from svcnat.model.labels import REVISION_LABEL
from svcnat.model.objects import ControllerRevision, DaemonSet, DaemonSetStatus, Node, Pod
from svcnat.model.pods import has_ended, is_ready
from svcnat.model.rollouts import ROLLING, daemon_allowance, kind_of_update
from svcnat.model.selectors import matches


@dataclass(frozen=True, slots=True)
class _Post:
    """What is on one node: Pods of the present template and of former ones, and whether one is on its way out."""

    new: Sequence[Pod]
    old: Sequence[Pod]
    leaving: bool


def reconcile(world: World, namespace: str, name: str) -> list[Change]:
    """Make the Pods of a DaemonSet what it asks for, update its status, and return what changed."""
    this = world.get(DaemonSet, namespace, name)
    if this is None:
        return []
    history, changes = histories.keep(world, this, this.spec.template)
    digest = _digest(history.update)
    changes += members(world, this, this.spec.selector)[1]
    changes += end(world, [pod for pod in controlled(world, this, Pod) if has_ended(pod)])
    nodes = _nodes(world, this)
    strays, posts = _posts(world, this, nodes, digest)
    changes += end(world, strays)
    surplus = [pod for post in posts.values() for pod in [*post.new[1:], *post.old[1:]]]
    changes += end(world, surplus)
    for node, post in posts.items():
        if not (post.new or post.old or post.leaving):
            changes.append(_make(world, this, node, digest))
    if kind_of_update(this.spec.update_strategy) == ROLLING:
        changes += _roll(world, this, _posts(world, this, nodes, digest)[1], digest)
    strays, posts = _posts(world, this, nodes, digest)
    used = {pod.metadata.labels.get(REVISION_LABEL, "") for pod in controlled(world, this, Pod)}
    names = {each.metadata.name for each in history.revisions if _digest(each) in used}
    changes += histories.forget(world, history, names, this.spec.revision_history_limit)
    world.put(replace(this, status=_status(this, strays, posts)))
    return changes


def _digest(revision: ControllerRevision) -> str:
    return revision.metadata.labels.get(REVISION_LABEL, "")


def _nodes(world: World, this: DaemonSet) -> list[str]:
    spec = this.spec.template.spec
    return [
        node.metadata.name
        for node in world.list(Node)
        if matches(spec.node_selector, node.metadata.labels) and spec.node_name in ("", node.metadata.name)
    ]


def _posts(world: World, this: DaemonSet, nodes: Sequence[str], digest: str) -> tuple[list[Pod], Mapping[str, _Post]]:
    """Return the Pods on nodes that are not to have one, and what is on each of the others."""
    found: defaultdict[str, list[Pod]] = defaultdict(list)
    for pod in controlled(world, this, Pod):
        found[pod.spec.node_name].append(pod)
    posts = {node: _post(found.pop(node, []), digest) for node in nodes}
    return [pod for pods in found.values() for pod in pods], posts


def _post(pods: Sequence[Pod], digest: str) -> _Post:
    """Sort out the Pods of one node, those to be kept first: ready, then old."""
    staying = sorted(
        (pod for pod in pods if not is_terminating(pod)),
        key=lambda pod: (not is_ready(pod), pod.metadata.creation_timestamp or "", pod.metadata.name),
    )
    new = [pod for pod in staying if pod.metadata.labels.get(REVISION_LABEL) == digest]
    return _Post(new, [pod for pod in staying if pod not in new], len(staying) < len(pods))


def _make(world: World, this: DaemonSet, node: str, digest: str) -> Change:
    prefix = f"{this.metadata.name}-"
    name = fresh_name(world, Pod, this.metadata.namespace, prefix)
    template = placed(this.spec.template, node_name=node)
    return make(world, this, template, name, {REVISION_LABEL: digest}, prefix=prefix)


def _roll(world: World, this: DaemonSet, posts: Mapping[str, _Post], digest: str) -> list[Change]:
    """Take the next step of a rolling update."""
    allowance = daemon_allowance(this.spec.update_strategy, len(posts))
    outdated = {node: post.old[0] for node, post in posts.items() if post.old}
    serving = {node for node, post in posts.items() if any(map(is_ready, [*post.new[:1], *post.old[:1]]))}
    if not allowance.surge:
        # What does not serve goes without asking; of the others, as many as may be missing beside those that are.
        idle = [pod for node, pod in outdated.items() if node not in serving]
        more = max(allowance.unavailable - (len(posts) - len(serving)), 0)
        both = [pod for node, pod in outdated.items() if node in serving and posts[node].new]
        rest = [pod for node, pod in outdated.items() if node in serving and not posts[node].new]
        return end(world, [*idle, *both, *rest[:more]])
    replaced = [pod for node, pod in outdated.items() if any(map(is_ready, posts[node].new))]
    alone = [node for node in outdated if not posts[node].new]
    doubled = len(outdated) - len(alone)
    idle_nodes = [node for node in alone if node not in serving]
    more = max(allowance.surge - doubled, 0)
    places = [*idle_nodes, *[node for node in alone if node in serving][:more]]
    return [*end(world, replaced), *(_make(world, this, node, digest) for node in places)]


def _status(this: DaemonSet, strays: Sequence[Pod], posts: Mapping[str, _Post]) -> DaemonSetStatus:
    """Return the status; Kubernetes tells the first four even if they are 0."""
    ready = sum(any(map(is_ready, [*post.new, *post.old])) for post in posts.values())
    return replace(
        this.status,
        observed_generation=this.metadata.generation,
        current_number_scheduled=sum(bool(post.new or post.old) for post in posts.values()),
        desired_number_scheduled=len(posts),
        number_misscheduled=len({pod.spec.node_name for pod in strays}),
        number_ready=ready,
        number_available=ready or None,
        number_unavailable=len(posts) - ready or None,
        updated_number_scheduled=sum(bool(post.new) for post in posts.values()) or None,
    )

"""StatefulSets and DaemonSets, step by step; what holds in any life of theirs is in test_rollout_laws."""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace

from svcnat.controllers.react import react, settled
from svcnat.controllers.world import Change, MemoryWorld
from svcnat.model.labels import POD_INDEX_LABEL, POD_NAME_LABEL, REVISION_LABEL
from svcnat.model.objects import (
    ControllerRevision,
    DaemonSet,
    DaemonSetSpec,
    Node,
    ObjectMeta,
    Pod,
    StatefulSet,
    StatefulSetOrdinals,
    StatefulSetSpec,
)
from tests.controllers.build import pod, service, slices_of
from tests.controllers.test_rollout_laws import META, PICKS, change, finish, removed, template, with_status


def stateful_set(replicas: int = 3, image: str = "v1", **spec: Any) -> StatefulSet:
    chosen = StatefulSetSpec(replicas=replicas, selector=PICKS, template=template(image), service_name="web", **spec)
    return StatefulSet(metadata=META, spec=chosen)


def update(world: MemoryWorld, kind: Any, **spec: Any) -> Any:
    live = world.list(kind)[0]
    change(world, replace(live, spec=replace(live.spec, **spec)))
    return world.list(kind)[0]


def names(world: MemoryWorld) -> list[str]:
    return [each.metadata.name for each in world.list(Pod)]


def images(world: MemoryWorld) -> list[str]:
    return [each.spec.containers[0].image for each in world.list(Pod)]


def ready(world: MemoryWorld, name: str) -> None:
    found = world.get(Pod, "default", name)
    assert found
    change(world, with_status(found, "Running", ready=True))


def test_pods_come_one_after_another_and_go_the_other_way() -> None:
    """Each when the one before is ready; the highest goes first."""
    world = settled([stateful_set()])
    assert names(world) == ["web-0"]
    ready(world, "web-0")
    assert names(world) == ["web-0", "web-1"]
    finish(world)
    assert names(world) == ["web-0", "web-1", "web-2"]
    update(world, StatefulSet, replicas=1)
    assert names(world) == ["web-0"]


def test_parallel_ones_come_and_go_at_once() -> None:
    """Where ordinals begin is theirs to say."""
    world = settled([stateful_set(pod_management_policy="Parallel", ordinals=StatefulSetOrdinals(start=5))])
    assert names(world) == ["web-5", "web-6", "web-7"]
    update(world, StatefulSet, replicas=0)
    assert names(world) == []


def test_a_pod_has_an_identity() -> None:
    """Labels, hostname and subdomain; a headless Service of that name publishes the hostname."""
    world = settled([stateful_set(1), service("web", cluster_ip="None", selector={"app": "web"})])
    ready(world, "web-0")
    (found,) = world.list(Pod)
    (revision,) = world.list(ControllerRevision)
    assert found.metadata.labels == {
        "app": "web",
        POD_NAME_LABEL: "web-0",
        POD_INDEX_LABEL: "0",
        REVISION_LABEL: revision.metadata.name,
    }
    assert (found.spec.hostname, found.spec.subdomain) == ("web-0", "web")
    assert [end.hostname for each in slices_of(world) for end in each.endpoints] == ["web-0"]
    before = found.metadata.name
    removed(world, found)
    assert names(world) == [before]


def test_an_update_goes_from_the_highest_to_the_partition() -> None:
    """One at a time, each when the one above is ready; below the partition, even new Pods are of the old template."""
    strategy = {"type": "RollingUpdate", "rollingUpdate": {"partition": 1}}
    world = settled([stateful_set(update_strategy=strategy)])
    finish(world)
    status = update(world, StatefulSet, template=template("v2")).status
    assert images(world) == ["v1", "v1", "v2"]
    assert status.current_revision != status.update_revision
    finish(world)
    assert images(world) == ["v1", "v2", "v2"]
    removed(world, world.list(Pod)[0])
    finish(world)
    assert images(world) == ["v1", "v2", "v2"]
    update(world, StatefulSet, update_strategy={"type": "RollingUpdate", "rollingUpdate": {"partition": 0}})
    finish(world)
    status = world.list(StatefulSet)[0].status
    assert images(world) == ["v2", "v2", "v2"]
    assert (status.current_revision, status.updated_replicas) == (status.update_revision, 3)


def test_on_delete_leaves_the_update_to_people() -> None:
    """A Pod is of the new template when somebody has deleted the old one."""
    world = settled([stateful_set(2, update_strategy={"type": "OnDelete"})])
    finish(world)
    update(world, StatefulSet, template=template("v2"))
    assert images(world) == ["v1", "v1"]
    removed(world, world.list(Pod)[0])
    assert images(world) == ["v2", "v1"]


def test_a_broken_template_does_not_hold_up_the_one_that_repairs_it() -> None:
    """A Pod that is not ready is replaced, although those after it wait for it."""
    world = settled([stateful_set(2)])
    update(world, StatefulSet, template=template("v2"))
    assert images(world) == ["v2"]


def test_somebody_elses_pod_of_the_name_is_left_alone() -> None:
    """Nothing goes on until it is gone."""
    stranger = pod("web-1")
    world = settled([stateful_set(2), stranger])
    finish(world)
    assert world.list(StatefulSet)[0].status.replicas == 1
    removed(world, stranger)
    finish(world)
    assert world.list(StatefulSet)[0].status.replicas == 2


def test_former_templates_are_kept_up_to_the_limit() -> None:
    """As ControllerRevisions; going back to one makes it the newest, and one that somebody spoilt is no template."""
    world = settled([stateful_set(1)])
    for image in ("v2", "v3", "v1"):
        update(world, StatefulSet, template=template(image))
        finish(world)
    assert sorted(each.revision or 0 for each in world.list(ControllerRevision)) == [2, 3, 4]
    update(world, StatefulSet, revision_history_limit=1)
    assert sorted(each.revision or 0 for each in world.list(ControllerRevision)) == [3, 4]
    newest = max(world.list(ControllerRevision), key=lambda each: each.revision or 0)
    change(world, replace(newest, data={"spec": {"template": 1}}))
    assert max(each.revision or 0 for each in world.list(ControllerRevision)) == 5
    finish(world)
    assert images(world) == ["v1"]


def nodes(*names: str) -> list[Node]:
    return [Node(metadata=ObjectMeta(name=name, labels={"disk": "ssd"})) for name in names]


def daemon_set(**spec: Any) -> DaemonSet:
    chosen = DaemonSetSpec(selector=PICKS, template=template(node_selector={"disk": "ssd"}), **spec)
    return DaemonSet(metadata=META, spec=chosen)


def test_a_daemon_set_has_a_pod_a_node() -> None:
    """On those that have the labels; a node that comes gets one, one that goes or loses the label loses it."""
    world = settled([daemon_set(), *nodes("a", "b"), Node(metadata=ObjectMeta(name="c"))])
    assert sorted(each.spec.node_name for each in world.list(Pod)) == ["a", "b"]
    change(world, nodes("c")[0])
    assert sorted(each.spec.node_name for each in world.list(Pod)) == ["a", "b", "c"]
    change(world, Node(metadata=ObjectMeta(name="a", labels={"disk": "hdd"})))
    removed(world, nodes("b")[0])
    assert [each.spec.node_name for each in world.list(Pod)] == ["c"]
    status = world.list(DaemonSet)[0].status
    assert (status.desired_number_scheduled, status.number_unavailable) == (1, 1)


def test_daemons_are_updated_as_many_at_a_time_as_may_be_missing() -> None:
    """maxUnavailable; with OnDelete, none."""
    world = settled([daemon_set(), *nodes("a", "b", "c")])
    finish(world)
    update(world, DaemonSet, template=template("v2", node_selector={"disk": "ssd"}))
    assert sorted(images(world)) == ["v1", "v1", "v2"]
    finish(world)
    assert sorted(images(world)) == ["v2", "v2", "v2"]
    update(world, DaemonSet, update_strategy={"type": "OnDelete"})
    update(world, DaemonSet, template=template("v3", node_selector={"disk": "ssd"}))
    assert sorted(images(world)) == ["v2", "v2", "v2"]


def test_daemons_may_be_updated_beside_the_old_ones() -> None:
    """maxSurge: the old one serves until the new one does."""
    surge = {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}
    world = settled([daemon_set(update_strategy=surge), *nodes("a", "b")])
    finish(world)
    update(world, DaemonSet, template=template("v2", node_selector={"disk": "ssd"}))
    assert sorted(images(world)) == ["v1", "v1", "v2"]
    new = next(each for each in world.list(Pod) if each.spec.containers[0].image == "v2")
    ready(world, new.metadata.name)
    assert sorted(images(world)) == ["v1", "v2", "v2"]
    finish(world)
    assert sorted(images(world)) == ["v2", "v2"]


def test_nothing_is_left_of_a_workload_that_is_deleted() -> None:
    """Neither Pods nor revisions."""
    world = settled([stateful_set(1), *nodes("a")])
    removed(world, world.list(StatefulSet)[0])
    change(world, daemon_set())
    assert len(world.list(Pod)) == 1
    owner = world.list(DaemonSet)[0]
    world.remove(owner)
    react(world, [Change(owner, None)])
    assert (world.list(Pod), world.list(ControllerRevision)) == ([], [])

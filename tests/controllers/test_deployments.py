from __future__ import annotations

import itertools
import re
from typing import Any

from msgspec.structs import replace

from svcnat.controllers.react import react, settled
from svcnat.controllers.world import Change, MemoryWorld
from svcnat.model.objects import (
    Condition,
    Container,
    Deployment,
    DeploymentSpec,
    LabelSelector,
    ObjectMeta,
    OwnerReference,
    Pod,
    PodSpec,
    PodStatus,
    PodTemplateSpec,
    ReplicaSet,
    ReplicaSetSpec,
)
from svcnat.model.pods import is_ready
from tests.controllers.build import endpoints_of, pod, service


def deployment(replicas: int | None = 3, *, image: str = "v1", strategy: str | None = None) -> Deployment:
    return Deployment(
        metadata=ObjectMeta(name="web", namespace="default"),
        spec=DeploymentSpec(
            replicas=replicas,
            selector=LabelSelector(match_labels={"app": "web"}),
            strategy=strategy and {"type": strategy},
            template=PodTemplateSpec(
                metadata=ObjectMeta(labels={"app": "web"}, annotations={"note": "x"}),
                spec=PodSpec(containers=[Container(name="main", image=image)]),
            ),
        ),
    )


def change(world: MemoryWorld, new: Deployment | Pod) -> None:
    old = world.get(type(new), new.metadata.namespace, new.metadata.name)
    react(world, [Change(old, world.put(new))])


def start(world: MemoryWorld, *pods: Pod) -> None:
    """Do as a kubelet does: give Pods an address and make them ready."""
    for each, number in zip(pods, itertools.count(len(endpoints_of(world)) + 1)):
        status = PodStatus(
            phase="Running", pod_ip=f"10.0.0.{number}", conditions=[Condition(type="Ready", status="True")]
        )
        change(world, replace(each, status=status))


def images(world: MemoryWorld) -> list[str]:
    return sorted(each.spec.containers[0].image for each in world.list(Pod))


def test_a_deployment_makes_its_pods() -> None:
    """Named NAME-HASH-SUFFIX, labelled with the hash, owned; pending and without address, so no endpoints."""
    world = settled([deployment(), service()])
    pods = world.list(Pod)
    assert len(pods) == 3
    for each in pods:
        digest = each.metadata.labels["pod-template-hash"]
        assert re.fullmatch(rf"web-{digest}-[a-z0-9]{{5}}", each.metadata.name)
        assert each.metadata.labels["app"] == "web"
        assert each.metadata.annotations == {"note": "x"}
        assert each.metadata.owner_references[0].kind == "ReplicaSet"
        assert each.metadata.owner_references[0].name == f"web-{digest}"
        assert (each.status.phase, each.status.pod_ip) == ("Pending", "")
    assert endpoints_of(world) == set()
    assert world.list(Pod) == settled([service(), deployment()]).list(Pod)


def test_replicas_default_to_one_and_may_be_none() -> None:
    """replicas: 0 is not 1."""
    assert len(settled([deployment(None)]).list(Pod)) == 1
    assert len(settled([deployment(0)]).list(Pod)) == 0


def test_scaling_down_spares_the_ready_and_the_old() -> None:
    """Pods that are not ready go first, then the youngest."""
    world = settled([deployment(0)])
    owner = world.list(Deployment)[0]
    change(world, replace(owner, spec=replace(owner.spec, replicas=4)))
    made = world.list(Pod)
    for each, (year, ready) in zip(made, ((2024, True), (2021, False), (2022, True), (2023, True)), strict=True):
        world.remove(each)
        conditions = [Condition(type="Ready", status=str(ready))]
        created = f"{year}-01-01T00:00:00Z"
        world.put(
            replace(
                each,
                metadata=replace(each.metadata, creation_timestamp=created),
                status=PodStatus(phase="Running", conditions=conditions),
            )
        )
    live = world.list(Deployment)[0]
    change(world, replace(live, spec=replace(live.spec, replicas=2)))
    assert {each.metadata.creation_timestamp for each in world.list(Pod)} == {
        "2022-01-01T00:00:00Z",
        "2023-01-01T00:00:00Z",
    }


def test_a_deleted_or_ended_pod_is_replaced() -> None:
    """The number of Pods that can serve is kept."""
    world = settled([deployment(2)])
    first, second = world.list(Pod)
    world.remove(first)
    react(world, [Change(first, None)])
    assert len(world.list(Pod)) == 2
    change(world, replace(second, status=replace(second.status, phase="Failed")))
    assert len([each for each in world.list(Pod) if each.status.phase == "Pending"]) == 2


def test_a_new_template_replaces_pods_as_they_become_ready() -> None:
    """A rolling update: an old Pod serves until a new one does, so there is no moment without endpoints."""
    world = settled([deployment(2), service()])
    start(world, *world.list(Pod))
    live = world.list(Deployment)[0]
    change(world, replace(live, spec=deployment(2, image="v2").spec))
    assert images(world) == ["v1", "v1", "v2"]
    start(world, *[each for each in world.list(Pod) if not is_ready(each)])
    assert images(world) == ["v1", "v2", "v2"]
    assert len([end for end in endpoints_of(world) if end[2]]) == 2
    start(world, *[each for each in world.list(Pod) if not is_ready(each)])
    assert images(world) == ["v2", "v2"]


def test_pods_of_an_old_template_that_never_served_go_at_once() -> None:
    """Nothing is lost with them."""
    world = settled([deployment(2)])
    live = world.list(Deployment)[0]
    change(world, replace(live, spec=deployment(2, image="v2").spec))
    assert images(world) == ["v2", "v2"]


def test_recreate_ends_the_old_before_the_new() -> None:
    """Strategy Recreate does not let two versions serve at once."""
    world = settled([deployment(2), service()])
    start(world, *world.list(Pod))
    live = world.list(Deployment)[0]
    change(world, replace(live, spec=deployment(2, image="v2", strategy="Recreate").spec))
    assert images(world) == ["v2", "v2"]


def test_status_counts_pods() -> None:
    """What `get deployments` prints: ready, up to date, available."""
    world = settled([deployment(2)])
    status = world.list(Deployment)[0].status
    assert (status.replicas, status.updated_replicas, status.ready_replicas, status.unavailable_replicas) == (
        2,
        2,
        None,
        2,
    )
    start(world, world.list(Pod)[0])
    status = world.list(Deployment)[0].status
    assert (status.ready_replicas, status.available_replicas, status.unavailable_replicas) == (1, 1, 1)


def test_pods_that_only_match_the_selector_are_not_adopted() -> None:
    """A Pod somebody made by hand neither counts nor goes."""
    world = settled([deployment(1), pod("mine", "10.0.0.1")])
    assert len(world.list(Pod)) == 2
    owner = world.list(Deployment)[0]
    world.remove(owner)
    react(world, [Change(owner, None)])
    assert [each.metadata.name for each in world.list(Pod)] == ["mine"]


def sets(world: MemoryWorld) -> dict[str, int | None]:
    """How many Pods each ReplicaSet asks for, by the image of its template."""
    return {each.spec.template.spec.containers[0].image: each.spec.replicas for each in world.list(ReplicaSet)}


def update(world: MemoryWorld, **spec: Any) -> Deployment:
    live = world.list(Deployment)[0]
    change(world, replace(live, spec=replace(live.spec, **spec)))
    return world.list(Deployment)[0]


def test_each_template_has_a_replica_set() -> None:
    """Former ones stay, empty, up to revisionHistoryLimit; going back to one gives it the highest revision."""
    world = settled([deployment(1)])
    for image in ("v2", "v3", "v1"):
        update(world, template=deployment(image=image).spec.template)
        start(world, *world.list(Pod))
    assert sets(world) == {"v1": 1, "v2": 0, "v3": 0}
    revisions = {
        each.spec.template.spec.containers[0].image: each.metadata.annotations["deployment.kubernetes.io/revision"]
        for each in world.list(ReplicaSet)
    }
    assert revisions == {"v1": "4", "v2": "2", "v3": "3"}
    assert update(world, revision_history_limit=1).metadata.annotations["deployment.kubernetes.io/revision"] == "4"
    assert sets(world) == {"v1": 1, "v3": 0}
    update(world, revision_history_limit=0)
    assert sets(world) == {"v1": 1}


def test_conditions_tell_of_a_rollout() -> None:
    """What `rollout status` and people read: enough available, and progressing or done."""
    world = settled([deployment(2)])

    def reasons() -> list[tuple[str, str]]:
        return [(each.status, each.reason) for each in world.list(Deployment)[0].status.conditions]

    assert reasons() == [("False", "MinimumReplicasUnavailable"), ("True", "ReplicaSetUpdated")]
    start(world, *world.list(Pod))
    done = [("True", "MinimumReplicasAvailable"), ("True", "NewReplicaSetAvailable")]
    assert reasons() == done
    pod = world.list(Pod)[0]
    change(world, replace(pod, status=replace(pod.status, conditions=[])))
    assert reasons() == [("False", "MinimumReplicasUnavailable"), ("True", "NewReplicaSetAvailable")]
    update(world, paused=True)
    assert reasons()[1] == ("Unknown", "DeploymentPaused")


def test_a_paused_rollout_waits() -> None:
    """Another template makes nothing; another number of replicas does."""
    world = settled([deployment(2)])
    start(world, *world.list(Pod))
    update(world, paused=True, template=deployment(image="v2").spec.template)
    assert images(world) == ["v1", "v1"]
    update(world, replicas=3)
    assert images(world) == ["v1", "v1", "v1"]
    update(world, replicas=1)
    assert images(world) == ["v1"]
    update(world, paused=None)
    assert images(world) == ["v1", "v2"]
    paused = deployment(2)
    world = settled([replace(paused, spec=replace(paused.spec, paused=True))])
    assert (images(world), sets(world)) == ([], {})


def test_pods_of_old_state_files_are_adopted() -> None:
    """Owned by the Deployment itself, as they were: they live on, in ReplicaSets of their templates."""
    world = settled([deployment(2)])
    start(world, *world.list(Pod))
    owner = world.list(Deployment)[0]
    for each in world.list(ReplicaSet):
        world.remove(each)
    reference = OwnerReference(kind="Deployment", name="web", uid=owner.metadata.uid, controller=True)
    for each in world.list(Pod):
        world.put(replace(each, metadata=replace(each.metadata, owner_references=[reference])))
    stranger = pod("web-old-x", "10.0.0.9", labels={"app": "web", "pod-template-hash": "old"})
    world.put(replace(stranger, metadata=replace(stranger.metadata, owner_references=[reference])))
    before = {each.metadata.name: each.metadata.uid for each in world.list(Pod)}
    react(world, [Change(owner, owner)])
    live = {each.metadata.name: each.metadata.uid for each in world.list(Pod)}
    assert live == {name: uid for name, uid in before.items() if name != "web-old-x"}
    assert {each.metadata.owner_references[0].kind for each in world.list(Pod)} == {"ReplicaSet"}
    assert sorted(each.spec.replicas or 0 for each in world.list(ReplicaSet)) == [0, 2]
    world.remove(owner)
    react(world, [Change(owner, None)])
    assert (world.list(Pod), world.list(ReplicaSet)) == ([], [])


def test_a_replica_set_of_its_own_makes_pods_too() -> None:
    """With its own name before theirs; a Pod whose labels it does not pick any more is let go and replaced."""
    template = deployment().spec.template
    spec = ReplicaSetSpec(replicas=2, selector=LabelSelector(match_labels={"app": "web"}), template=template)
    world = settled([ReplicaSet(metadata=ObjectMeta(name="web", namespace="default"), spec=spec)])
    first = world.list(Pod)[0]
    assert re.fullmatch(r"web-[a-z0-9]{5}", first.metadata.name)
    change(world, replace(first, metadata=replace(first.metadata, labels={"app": "debug"})))
    assert len(world.list(Pod)) == 3
    released = world.get(Pod, "default", first.metadata.name)
    assert released
    assert released.metadata.owner_references == []
    assert world.list(ReplicaSet)[0].status.replicas == 2


def test_a_replica_set_that_is_deleted_or_scaled_by_hand_is_put_right() -> None:
    """It is the Deployment that decides."""
    world = settled([deployment(2)])
    (own,) = world.list(ReplicaSet)
    change(world, replace(own, spec=replace(own.spec, replicas=5)))
    assert len(world.list(Pod)) == 2
    (own,) = world.list(ReplicaSet)
    world.remove(own)
    react(world, [Change(own, None)])
    assert [each.metadata.name for each in world.list(ReplicaSet)] == [own.metadata.name]
    assert len(world.list(Pod)) == 2


def test_a_name_that_is_taken_is_left_alone() -> None:
    """Somebody else's ReplicaSet of the very name: another hash is found."""
    (own,) = settled([deployment(1)]).list(ReplicaSet)
    stranger = ReplicaSet(
        metadata=ObjectMeta(name=own.metadata.name, namespace="default"),
        spec=replace(own.spec, replicas=0, template=deployment(image="other").spec.template),
    )
    world = settled([stranger])
    change(world, deployment(1))
    assert len(world.list(ReplicaSet)) == 2
    assert images(world) == ["v1"]


def test_what_deleting_a_pod_costs() -> None:
    """The cheap go before the dear, and of the same price those that share a node."""
    world = settled([deployment(0)])
    update(world, replicas=4)
    for each, (cost, node) in zip(world.list(Pod), (("5", "n1"), ("x", "n1"), ("", "n2"), ("-1", "n3")), strict=True):
        status = PodStatus(phase="Running", conditions=[Condition(type="Ready", status="True")])
        metadata = replace(each.metadata, annotations={"controller.kubernetes.io/pod-deletion-cost": cost})
        world.put(replace(each, metadata=metadata, spec=replace(each.spec, node_name=node), status=status))
    update(world, replicas=2)
    costs = [each.metadata.annotations["controller.kubernetes.io/pod-deletion-cost"] for each in world.list(Pod)]
    assert sorted(costs) == ["", "5"]

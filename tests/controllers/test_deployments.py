from __future__ import annotations

import itertools
import re

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
    Pod,
    PodSpec,
    PodStatus,
    PodTemplateSpec,
)
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
        assert each.metadata.owner_references[0].kind == "Deployment"
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
    assert images(world) == ["v1", "v1", "v2", "v2"]
    new = [each for each in world.list(Pod) if each.spec.containers[0].image == "v2"]
    start(world, new[0])
    assert images(world) == ["v1", "v2", "v2"]
    assert len(endpoints_of(world)) == 2
    start(world, new[1])
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

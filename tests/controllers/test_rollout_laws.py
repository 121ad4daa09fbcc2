"""What holds at every step of any life of a workload, and where it ends."""

from __future__ import annotations

from collections import Counter
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from svcnat.controllers.react import react, settled
from svcnat.controllers.world import Change, MemoryWorld
from svcnat.model.objects import (
    Condition,
    Container,
    DaemonSet,
    DaemonSetSpec,
    Deployment,
    DeploymentSpec,
    LabelSelector,
    Node,
    ObjectMeta,
    Pod,
    PodSpec,
    PodStatus,
    PodTemplateSpec,
    ReplicaSet,
    Resource,
    StatefulSet,
    StatefulSetSpec,
)
from svcnat.model.pods import is_ready
from svcnat.model.rollouts import deployment_allowance

LIMIT = settings(derandomize=True, max_examples=150, database=None)

amounts = st.sampled_from([0, 1, 2, "0%", "25%", "50%", "100%"])
steps = st.lists(
    st.one_of(
        st.tuples(st.just("scale"), st.integers(0, 6)),
        st.tuples(st.just("template"), st.sampled_from(["v1", "v2", "v3"])),
        st.tuples(
            st.sampled_from(["ready", "ready", "ready", "start", "unready", "delete", "fail", "gone"]),
            st.integers(0, 9),
        ),
        st.tuples(st.just("strategy"), st.tuples(amounts, amounts)),
        st.tuples(st.just("pause"), st.booleans()),
    ),
    max_size=30,
)


def template(image: str = "v1", **spec: Any) -> PodTemplateSpec:
    return PodTemplateSpec(
        metadata=ObjectMeta(labels={"app": "web"}),
        spec=PodSpec(containers=[Container(name="main", image=image)], **spec),
    )


PICKS = LabelSelector(match_labels={"app": "web"})
META = ObjectMeta(name="web", namespace="default")


class Graceful(MemoryWorld):
    """A World in which a Pod that somebody started terminates for a while before it is gone."""

    def remove(self, resource: Resource) -> None:
        live = self.get(type(resource), resource.metadata.namespace, resource.metadata.name)
        if isinstance(live, Pod) and live.status.phase == "Running" and not live.metadata.deletion_timestamp:
            self.put(replace(live, metadata=replace(live.metadata, deletion_timestamp="2026-01-01T00:00:00Z")))
        else:
            super().remove(resource)


def change(world: MemoryWorld, new: Any) -> None:
    old = world.get(type(new), new.metadata.namespace, new.metadata.name)
    react(world, [Change(old, world.put(new))])


def removed(world: MemoryWorld, old: Resource) -> None:
    world.remove(old)
    react(world, [Change(old, world.get(type(old), old.metadata.namespace, old.metadata.name))])


def with_status(pod: Pod, phase: str, *, ready: bool) -> Pod:
    conditions = [Condition(type="Ready", status=str(ready))]
    return replace(pod, status=PodStatus(phase=phase, pod_ip="10.0.0.1", conditions=conditions))


def active(world: MemoryWorld) -> list[Pod]:
    found = world.list(Pod)
    return [each for each in found if not each.metadata.deletion_timestamp and each.status.phase != "Failed"]


def available(world: MemoryWorld) -> int:
    return sum(map(is_ready, active(world)))


def happen(world: MemoryWorld, what: str, value: Any) -> None:
    """Do to some Pod what may happen to it."""
    if what == "gone":
        leaving = [each for each in world.list(Pod) if each not in active(world)]
        if leaving:
            removed(world, leaving[value % len(leaving)])
        return
    pods = active(world)
    if not pods:
        return
    pod = pods[value % len(pods)]
    match what:
        case "ready" | "start" | "unready":
            change(world, with_status(pod, "Running", ready=what == "ready"))
        case "fail":
            change(world, with_status(pod, "Failed", ready=False))
        case "delete":
            removed(world, pod)


def finish(world: MemoryWorld) -> None:
    """Let every Pod that is to go be gone, and every other one be ready, as often as that brings something new."""
    for _ in range(80):
        waiting = [each for each in active(world) if not is_ready(each)]
        leaving = [
            each for each in world.list(Pod) if each.metadata.deletion_timestamp or each.status.phase == "Failed"
        ]
        if not waiting and not leaving:
            return
        for each in leaving:
            removed(world, each)
        for each in waiting:
            if world.get(Pod, "default", each.metadata.name) == each:
                change(world, with_status(each, "Running", ready=True))
    raise AssertionError("it never ends")


@LIMIT
@given(st.sampled_from([MemoryWorld, Graceful]), st.sampled_from(["RollingUpdate", "RollingUpdate", "Recreate"]), steps)
def test_deployments(kind: type[MemoryWorld], strategy: str, life: list[tuple[str, Any]]) -> None:
    """Never more than replicas + maxSurge, never fewer available than replicas - maxUnavailable by its own doing.

    In the end, as many as asked for, all of the last template, with no ReplicaSet but its own holding any.
    """
    world = kind(settled([]).ranges)
    world.put(
        Deployment(
            metadata=META,
            spec=DeploymentSpec(replicas=3, selector=PICKS, template=template(), strategy={"type": strategy}),
        )
    )
    react(world, [Change(None, each) for each in world.list(Deployment)])
    for what, value in life:
        this = world.list(Deployment)[0]
        before = available(world)
        lost = 0
        match what:
            case "scale":
                change(world, replace(this, spec=replace(this.spec, replicas=value)))
            case "template":
                change(world, replace(this, spec=replace(this.spec, template=template(value))))
            case "pause":
                change(world, replace(this, spec=replace(this.spec, paused=value or None)))
            case "strategy":
                if strategy == "RollingUpdate":
                    rolling = {"maxSurge": value[0], "maxUnavailable": value[1]}
                    chosen = {"type": strategy, "rollingUpdate": rolling}
                    change(world, replace(this, spec=replace(this.spec, strategy=chosen)))
            case _:
                happen(world, what, value)
                lost = what in ("start", "unready", "fail", "delete")
        this = world.list(Deployment)[0]
        wanted = this.spec.replicas or 0
        if strategy == "RollingUpdate":
            allowance = deployment_allowance(this.spec.strategy, wanted)
            assert len(active(world)) <= wanted + allowance.surge
            assert available(world) >= min(before - lost, wanted - allowance.unavailable)
        else:
            assert len(active(world)) <= wanted
            if not this.spec.paused:
                running = [each for each in world.list(Pod) if each.status.phase != "Failed"]
                assert len({each.spec.containers[0].image for each in running}) <= 1
        assert this.status.available_replicas == (available(world) or None)
        assert this.status.replicas == (len(active(world)) or None)
    this = world.list(Deployment)[0]
    change(world, replace(this, spec=replace(this.spec, paused=None)))
    finish(world)
    this = world.list(Deployment)[0]
    image = this.spec.template.spec.containers[0].image
    assert [each.spec.containers[0].image for each in world.list(Pod)] == [image] * (this.spec.replicas or 0)
    sizes = [each.spec.replicas for each in world.list(ReplicaSet) if each.spec.replicas]
    assert sizes == [this.spec.replicas] * bool(this.spec.replicas)
    assert this.status.observed_generation == this.metadata.generation
    revisions = [each.metadata.annotations["deployment.kubernetes.io/revision"] for each in world.list(ReplicaSet)]
    assert len(set(revisions)) == len(revisions)
    assert this.metadata.annotations["deployment.kubernetes.io/revision"] == max(revisions, key=int)
    assert [each.status for each in this.status.conditions] == ["True", "True"]
    snapshot = world.everything()
    react(world, [Change(None, each) for each in snapshot])
    assert world.everything() == snapshot


@LIMIT
@given(
    st.sampled_from([MemoryWorld, Graceful]),
    st.sampled_from(["OrderedReady", "Parallel"]),
    st.integers(0, 2),
    st.lists(
        st.one_of(
            st.tuples(st.just("scale"), st.integers(0, 4)),
            st.tuples(st.just("template"), st.sampled_from(["v1", "v2", "v3"])),
            st.tuples(st.sampled_from(["ready", "ready", "unready", "delete", "fail", "gone"]), st.integers(0, 9)),
        ),
        max_size=25,
    ),
)
def test_stateful_sets(kind: type[MemoryWorld], policy: str, first: int, life: list[tuple[str, Any]]) -> None:
    """Names are unique and stay; in order, none is made before those before it are ready; the last template wins."""
    world = kind(settled([]).ranges)
    spec = StatefulSetSpec(
        replicas=3,
        selector=PICKS,
        template=template(),
        service_name="peers",
        pod_management_policy=policy,
        update_strategy={"type": "RollingUpdate", "rollingUpdate": {"partition": first}},
    )
    world.put(StatefulSet(metadata=META, spec=spec))
    react(world, [Change(None, each) for each in world.list(StatefulSet)])
    for what, value in life:
        this = world.list(StatefulSet)[0]
        known = {each.metadata.uid + each.metadata.name for each in world.list(Pod)}
        match what:
            case "scale":
                change(world, replace(this, spec=replace(this.spec, replicas=value)))
            case "template":
                change(world, replace(this, spec=replace(this.spec, template=template(value))))
            case _:
                happen(world, what, value)
        for each in world.list(Pod):
            assert (each.spec.hostname, each.spec.subdomain) == (each.metadata.name, "peers")
        if policy == "OrderedReady":
            made = [each for each in world.list(Pod) if each.metadata.uid + each.metadata.name not in known]
            for each in made:
                index = int(each.metadata.name.rpartition("-")[2])
                assert all(
                    is_ready(before)
                    for before in world.list(Pod)
                    if int(before.metadata.name.rpartition("-")[2]) < index
                )
    finish(world)
    this = world.list(StatefulSet)[0]
    wanted = this.spec.replicas or 0
    assert [each.metadata.name for each in world.list(Pod)] == [f"web-{index}" for index in range(wanted)]
    image = this.spec.template.spec.containers[0].image
    images = [each.spec.containers[0].image for each in world.list(Pod)]
    assert images[first:] == [image] * len(images[first:])
    assert (this.status.replicas, this.status.ready_replicas) == (wanted or None, wanted or None)
    snapshot = world.everything()
    react(world, [Change(None, each) for each in snapshot])
    assert world.everything() == snapshot


@LIMIT
@given(
    st.sampled_from([MemoryWorld, Graceful]),
    st.sampled_from([{"maxUnavailable": 1}, {"maxUnavailable": "50%"}, {"maxSurge": 1, "maxUnavailable": 0}]),
    st.lists(
        st.one_of(
            st.tuples(st.just("node"), st.tuples(st.integers(0, 3), st.sampled_from(["a", "a", "b", ""]))),
            st.tuples(st.just("template"), st.sampled_from(["v1", "v2", "v3"])),
            st.tuples(st.sampled_from(["ready", "ready", "unready", "delete", "fail", "gone"]), st.integers(0, 9)),
        ),
        max_size=25,
    ),
)
def test_daemon_sets(kind: type[MemoryWorld], rolling: dict[str, Any], life: list[tuple[str, Any]]) -> None:
    """One Pod a node that has the label, and none elsewhere, whatever nodes come and go; of the last template."""
    world = kind(settled([]).ranges)
    spec = DaemonSetSpec(
        selector=PICKS,
        template=template(node_selector={"kind": "a"}),
        update_strategy={"type": "RollingUpdate", "rollingUpdate": rolling},
    )
    world.put(DaemonSet(metadata=META, spec=spec))
    for index in range(3):
        change(world, Node(metadata=ObjectMeta(name=f"n{index}", labels={"kind": "a"})))
    for what, value in life:
        this = world.list(DaemonSet)[0]
        match what:
            case "node":
                name = f"n{value[0]}"
                known = world.get(Node, "", name)
                if value[1]:
                    change(world, Node(metadata=ObjectMeta(name=name, labels={"kind": value[1]})))
                elif known:
                    removed(world, known)
            case "template":
                spec = replace(this.spec, template=template(value, node_selector={"kind": "a"}))
                change(world, replace(this, spec=spec))
            case _:
                happen(world, what, value)
        crowds = Counter(each.spec.node_name for each in active(world))
        assert not crowds or max(crowds.values()) <= 1 + bool(rolling.get("maxSurge"))
    finish(world)
    this = world.list(DaemonSet)[0]
    fitting = [each.metadata.name for each in world.list(Node) if each.metadata.labels["kind"] == "a"]
    assert sorted(each.spec.node_name for each in world.list(Pod)) == fitting
    image = this.spec.template.spec.containers[0].image
    assert {each.spec.containers[0].image for each in world.list(Pod)} <= {image}
    assert (this.status.desired_number_scheduled, this.status.number_ready) == (len(fitting), len(fitting))
    snapshot = world.everything()
    react(world, [Change(None, each) for each in snapshot])
    assert world.everything() == snapshot

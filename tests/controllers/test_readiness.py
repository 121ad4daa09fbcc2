"""What probes found out becomes what objects say, and nothing else of them changes."""

from __future__ import annotations

from msgspec.structs import replace

from svcnat.controllers.readiness import with_container_ready, with_probe_results
from svcnat.model.objects import (
    Condition,
    Container,
    ContainerStatus,
    Endpoint,
    EndpointAddress,
    Endpoints,
    EndpointSlice,
    EndpointSubset,
    ObjectMeta,
    Pod,
    PodReadinessGate,
    Probe,
)
from svcnat.model.pods import is_ready
from tests.controllers.build import pod

BEFORE, NOW = "2026-01-01T00:00:00Z", "2026-01-01T00:00:09Z"


def running(*, conditions: tuple[str, ...] = ("Ready",), ready: bool = False, told: bool = True) -> Pod:
    """A Pod of a container that is probed and one that is not."""
    made = pod("a", "10.0.0.1")
    containers = [Container(name="probed", readiness_probe=Probe()), Container(name="plain")]
    statuses = [ContainerStatus(name="probed", ready=ready), ContainerStatus(name="plain", ready=True)] if told else []
    status = "True" if ready else "False"
    said = [Condition(type=each, status=status, last_transition_time=BEFORE) for each in conditions]
    return replace(
        made,
        spec=replace(made.spec, containers=containers),
        status=replace(made.status, container_statuses=statuses, conditions=said),
    )


def test_a_pod_is_ready_when_all_its_containers_are() -> None:
    """The kubelet's condition and its words, both ways; the time is that of the change."""
    before = running(conditions=("Initialized", "Ready", "ContainersReady"))
    ready = with_container_ready(before, "probed", True, NOW)
    assert [(each.type, each.status, each.last_transition_time) for each in ready.status.conditions] == [
        ("Initialized", "False", BEFORE),
        ("Ready", "True", NOW),
        ("ContainersReady", "True", NOW),
    ]
    assert [(each.name, each.ready) for each in ready.status.container_statuses] == [("probed", True), ("plain", True)]
    again = with_container_ready(ready, "probed", False, BEFORE)
    condition = again.status.conditions[1]
    assert (condition.status, condition.reason, condition.message, condition.last_transition_time) == (
        "False",
        "ContainersNotReady",
        "containers with unready status: [probed]",
        BEFORE,
    )
    assert is_ready(ready)
    assert not is_ready(again)


def test_one_container_is_not_enough() -> None:
    """The Pod waits for all of them; the time of a condition that stays stays."""
    before = running()
    both = replace(
        before,
        status=replace(
            before.status, container_statuses=[replace(each, ready=False) for each in before.status.container_statuses]
        ),
    )
    after = with_container_ready(both, "probed", True, NOW)
    assert after.status.conditions == [
        Condition(
            type="Ready",
            status="False",
            reason="ContainersNotReady",
            message="containers with unready status: [plain]",
            last_transition_time=BEFORE,
        )
    ]


def test_a_sidecar_counts_as_a_container() -> None:
    """Its readiness is told among those of init containers, of which the others do not count."""
    before = running(ready=True)
    inits = [Container(name="init"), Container(name="sidecar", restart_policy="Always", readiness_probe=Probe())]
    told = [ContainerStatus(name="init", ready=False), ContainerStatus(name="sidecar", ready=True)]
    before = replace(
        before,
        spec=replace(before.spec, init_containers=inits),
        status=replace(before.status, init_container_statuses=told),
    )
    unready = with_container_ready(before, "sidecar", False, NOW)
    assert not is_ready(unready)
    assert unready.status.conditions[-1].message == "containers with unready status: [sidecar]"
    assert [each.ready for each in unready.status.init_container_statuses] == [False, False]
    assert is_ready(with_container_ready(unready, "sidecar", True, NOW))
    assert with_container_ready(before, "init", True, NOW) is before


def test_a_pod_written_by_hand_needs_no_container_statuses() -> None:
    """They are made of what its condition says; a container without a probe is ready."""
    assert is_ready(with_container_ready(running(told=False), "probed", True, NOW))
    unready = with_container_ready(running(told=False, ready=True), "probed", False, NOW)
    assert [(each.name, each.ready) for each in unready.status.container_statuses] == [
        ("probed", False),
        ("plain", True),
    ]
    assert not is_ready(unready)
    bare = replace(running(told=False), status=replace(pod("a").status, conditions=[]))
    assert is_ready(with_container_ready(bare, "probed", True, NOW))


def test_readiness_gates_hold_a_pod_back() -> None:
    """Containers alone are not enough; the reason says which gate, and ContainersReady what the containers are."""
    before = running(conditions=("Ready", "ContainersReady"))
    gates = [PodReadinessGate(condition_type=each) for each in ("a.example/in", "b.example/out")]
    seen = [*before.status.conditions, Condition(type="b.example/out", status="False")]
    before = replace(
        before,
        spec=replace(before.spec, readiness_gates=gates),
        status=replace(before.status, conditions=seen),
    )
    shut = with_container_ready(before, "probed", True, NOW)
    found = {each.type: each for each in shut.status.conditions}
    assert (found["ContainersReady"].status, found["Ready"].status) == ("True", "False")
    assert found["Ready"].reason == "ReadinessGatesNotReady"
    assert found["Ready"].message == (
        'corresponding condition of pod readiness gate "a.example/in" does not exist., '
        'the status of pod readiness gate "b.example/out" is not "True", but False'
    )
    written = [Condition(type=each, status="True") for each in ("Ready", "a.example/in")]
    assert not is_ready(replace(shut, status=replace(shut.status, conditions=written)))
    written.append(Condition(type="b.example/out", status="True"))
    passed = replace(shut, status=replace(shut.status, conditions=written))
    assert is_ready(passed)
    assert is_ready(with_container_ready(passed, "probed", True, NOW))


def test_what_is_said_already_changes_nothing() -> None:
    """The very object comes back: nothing to write; also for a container that there is not."""
    once = with_container_ready(running(ready=True), "probed", True, NOW)
    assert with_container_ready(once, "probed", True, "2027-01-01T00:00:00Z") is once
    assert with_container_ready(once, "ghost", False, NOW) is once


def test_results_are_kept_by_address() -> None:
    """Failures are written, successes take them away, addresses that have gone are forgotten; all else stays."""
    piece = EndpointSlice(
        metadata=ObjectMeta(
            name="a", annotations={"x": "y", "svcnat.io/probe-results": '{"10.0.0.1": false, "10.0.0.9": false}'}
        ),
        endpoints=[Endpoint(addresses=["10.0.0.1"]), Endpoint(addresses=["10.0.0.2"]), Endpoint()],
    )
    after = with_probe_results(piece, {"10.0.0.2": False, "10.0.0.3": False})
    assert after.metadata.annotations == {"x": "y", "svcnat.io/probe-results": '{"10.0.0.1": false, "10.0.0.2": false}'}
    assert with_probe_results(after, {"10.0.0.1": False}) is after
    assert with_probe_results(after, {"10.0.0.1": True, "10.0.0.2": True}).metadata.annotations == {"x": "y"}


def test_endpoints_objects_have_results_too() -> None:
    """Of ready addresses and of others, whatever the spelling."""
    subset = EndpointSubset(
        addresses=[EndpointAddress(ip="FD00::1")], not_ready_addresses=[EndpointAddress(ip="10.0.0.1")]
    )
    after = with_probe_results(Endpoints(subsets=[subset]), {"fd00::1": False, "10.0.0.1": False})
    assert after.metadata.annotations == {"svcnat.io/probe-results": '{"10.0.0.1": false, "fd00::1": false}'}

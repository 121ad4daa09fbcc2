"""Who is probed, and what a row of outcomes proves."""

from __future__ import annotations

import json
from typing import Any

import pytest
from msgspec.structs import replace

from svcnat.agent.probes import Key, Probed, State, wanted_of_pod, wanted_of_service
from svcnat.controllers.react import settled
from svcnat.model.defaults import with_defaults
from svcnat.model.objects import (
    Container,
    ContainerPort,
    ContainerState,
    ContainerStateDetail,
    ContainerStatus,
    Endpoint,
    EndpointAddress,
    Endpoints,
    EndpointSlice,
    EndpointSlicePort,
    EndpointSubset,
    HTTPGetAction,
    ObjectMeta,
    Pod,
    PodIP,
    PodSpec,
    PodStatus,
    Probe,
    Service,
    ServicePort,
    TCPSocketAction,
)
from tests.controllers.build import service, slices_of


@pytest.mark.parametrize(
    ("ready", "thresholds", "outcomes", "expected"),
    [
        (False, (1, 3), "+", "R"),
        (False, (1, 3), "---+", "uuUR"),
        (True, (1, 3), "---", "rrU"),
        (True, (1, 3), "--+--+---", "rrRRRRRRU"),
        (False, (2, 3), "+-++", "uuuR"),
        (False, (2, 1), "+-+", "uUU"),
        (True, (1, 1), "-+", "UR"),
        (True, (3, 2), "--++-+++", "rUUUUUUR"),
        (True, (1, 3), "-?-?-", "rrrrU"),
        (False, (1, 3), "???", "uuu"),
        (True, (0, 0), "-+", "UR"),
    ],
)
def test_thresholds_are_the_kubelet_s(ready: bool, thresholds: tuple[int, int], outcomes: str, expected: str) -> None:
    """So many of a kind in a row prove it; what says nothing neither counts nor interrupts. Capitals are proved."""
    probe = Probe(success_threshold=thresholds[0], failure_threshold=thresholds[1])
    state, seen = State(ready), ""
    for outcome in outcomes:
        state = state.after({"+": True, "-": False, "?": None}[outcome], probe)
        seen += ("R" if state.ready else "U") if state.proven else ("r" if state.ready else "u")
    assert seen == expected


def test_what_is_proved_counts_for_more_than_what_is_said() -> None:
    """Until then the object is right."""
    assert State(ready=False).told(ready=True).ready
    proved = State(ready=False).after(True, Probe())
    assert proved.told(ready=False) is proved


def pod(*containers: Container, ips: tuple[str, ...] = ("10.0.0.1", "fd00::1"), **status: Any) -> Pod:
    status.setdefault("phase", "Running")
    return with_defaults(
        Pod(
            metadata=ObjectMeta(name="a", namespace="default", uid="u"),
            spec=PodSpec(containers=list(containers)),
            status=PodStatus(pod_ips=[PodIP(ip=ip) for ip in ips], **status),
        )
    )


PROBE = Probe(tcp_socket=TCPSocketAction(port="web"))
MAIN = Container(
    name="main",
    readiness_probe=PROBE,
    ports=[ContainerPort(name="web", container_port=80), ContainerPort(container_port=81)],
)


def test_every_container_with_a_readiness_probe_is_probed() -> None:
    """At the Pod's first address, from its node, knowing the names of its ports and since when it runs."""
    started = ContainerStatus(
        name="main", ready=True, state=ContainerState(running=ContainerStateDetail(started_at="2026-01-01T00:00:00Z"))
    )
    made = pod(MAIN, Container(name="plain"), container_statuses=[started])
    assert wanted_of_pod(made, "node-1") == (
        Probed(
            key=Key("Pod", "default", "a", "main", "u"),
            probe=made.spec.containers[0].readiness_probe or Probe(),
            address="10.0.0.1",
            ports={"web": 80},
            netns="node-1",
            ready=True,
            started="2026-01-01T00:00:00Z",
        ),
    )
    assert wanted_of_pod(pod(MAIN, ips=("FD00::1",)))[0].address == "fd00::1"


def test_sidecars_are_probed_and_other_init_containers_are_not() -> None:
    """A sidecar is there as long as the others; of its status it is told where those of init containers are."""
    sidecar = replace(MAIN, name="sidecar", restart_policy="Always")
    made = pod(MAIN, init_container_statuses=[ContainerStatus(name="sidecar", ready=True)])
    made = replace(made, spec=replace(made.spec, init_containers=[replace(MAIN, name="init"), sidecar]))
    assert [(each.key.part, each.ready) for each in wanted_of_pod(made)] == [("sidecar", True), ("main", False)]


def test_a_pod_that_cannot_be_reached_is_not_probed() -> None:
    """Before it has an address, and after it has ended."""
    assert wanted_of_pod(pod(MAIN, ips=())) == ()
    assert wanted_of_pod(pod(MAIN, phase="Succeeded")) == ()


def test_a_pod_without_container_statuses_is_as_ready_as_its_condition_says() -> None:
    """Written by hand, outside of a lab."""
    assert [each.ready for each in wanted_of_pod(pod(MAIN))] == [False]


def test_a_stand_in_is_asked_at_once_and_without_tls() -> None:
    """It needs no time to start and has no certificate; a program of this machine gets what its manifest says."""
    probe = Probe(http_get=HTTPGetAction(port=443, scheme="HTTPS"), initial_delay_seconds=10, period_seconds=5)
    container = Container(name="main", readiness_probe=probe)
    for identity, delay, scheme in (("stand-in://veth1/main", None, None), ("", 10, "HTTPS")):
        (found,) = wanted_of_pod(
            pod(container, container_statuses=[ContainerStatus(name="main", container_id=identity)])
        )
        assert found.probe.initial_delay_seconds == delay
        assert found.probe.http_get
        assert (found.probe.http_get.port, found.probe.http_get.scheme) == (443, scheme)
        assert found.probe.period_seconds == 5


def probing(text: str = '{"tcpSocket": {}}', **spec: Any) -> Service:
    made = service(selector={}, **spec)
    return with_defaults(replace(made, metadata=replace(made.metadata, annotations={"svcnat.io/probe": text})))


def piece(
    name: str, *addresses: str, ports: tuple[tuple[str, str, int], ...] = (("", "TCP", 8080),), **rest: Any
) -> EndpointSlice:
    return EndpointSlice(
        metadata=ObjectMeta(name=name, namespace="default", labels={"kubernetes.io/service-name": "web"}, **rest),
        address_type="IPv6" if ":" in addresses[0] else "IPv4",
        endpoints=[Endpoint(addresses=[each]) for each in addresses],
        ports=[EndpointSlicePort(name=port, protocol=protocol, port=number) for port, protocol, number in ports],
    )


def test_hand_written_endpoints_are_probed_where_they_are_written() -> None:
    """Each by its slice and address, at its own port; what an earlier probe found out is known."""
    results = {"svcnat.io/probe-results": json.dumps({"192.0.2.2": False})}
    found = wanted_of_service(
        probing(), [piece("b", "192.0.2.1", "192.0.2.2", annotations=results), piece("a", "FD00::1")], "node"
    )
    assert [(str(each.key), each.address, each.port, each.ready, each.netns) for each in found] == [
        ("EndpointSlice default/a fd00::1", "fd00::1", 8080, True, "node"),
        ("EndpointSlice default/b 192.0.2.1", "192.0.2.1", 8080, True, "node"),
        ("EndpointSlice default/b 192.0.2.2", "192.0.2.2", 8080, False, "node"),
    ]
    assert {each.probe.period_seconds for each in found} == {10}


def test_the_port_is_that_of_the_first_tcp_port_of_the_service() -> None:
    """UDP cannot be asked whether anybody is there; a port may be named."""
    ports = (
        ServicePort(name="dns", port=53, protocol="UDP"),
        ServicePort(name="web", port=80),
        ServicePort(name="admin", port=81),
    )
    given = (("admin", "TCP", 8081), ("web", "TCP", 8080), ("dns", "UDP", 5353))
    (found,) = wanted_of_service(probing(ports=ports), [piece("a", "192.0.2.1", ports=given)])
    assert (found.port, found.ports) == (8080, {"admin": 8081, "web": 8080})
    (other,) = wanted_of_service(probing(ports=ports[:1]), [piece("a", "192.0.2.1", ports=given)])
    assert other.port is None


def test_mirrored_endpoints_are_known_by_their_endpoints_object() -> None:
    """An address in two subsets is probed once, at the port that there is to probe."""
    web = [EndpointSlicePort(name="web", port=8080)]
    admin = [EndpointSlicePort(name="admin", port=8081)]
    both = [EndpointAddress(ip="192.0.2.1")]
    endpoints = Endpoints(
        metadata=ObjectMeta(name="web", namespace="default"),
        subsets=[EndpointSubset(addresses=both, ports=admin), EndpointSubset(addresses=both, ports=web)],
    )
    asking = probing(ports=(ServicePort(name="web", port=80), ServicePort(name="admin", port=81)))
    world = settled([asking, endpoints])
    (found,) = wanted_of_service(asking, slices_of(world))
    assert (str(found.key), found.port) == ("Endpoints default/web 192.0.2.1", 8080)


def test_nothing_else_is_probed() -> None:
    """Services that do not ask, endpoints that are Pods (they have readinessProbes) or names, empty entries."""
    assert wanted_of_service(service(), [piece("a", "192.0.2.1")]) == ()
    managed = piece("a", "192.0.2.1")
    labels = {"endpointslice.kubernetes.io/managed-by": "endpointslice-controller.svcnat.io"}
    managed = replace(managed, metadata=replace(managed.metadata, labels=labels))
    names = replace(piece("b", "192.0.2.1"), address_type="FQDN")
    empty = replace(piece("c", "192.0.2.1"), endpoints=[Endpoint()])
    assert wanted_of_service(probing(), [managed, names, empty]) == ()

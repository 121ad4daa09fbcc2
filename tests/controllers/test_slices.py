from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from svcnat.controllers.admission import admit
from svcnat.controllers.react import react, settled
from svcnat.controllers.slices import FROM_ENDPOINTS, FROM_PODS, MANAGER_LABEL
from svcnat.controllers.world import Change, MemoryWorld
from svcnat.model.objects import (
    Container,
    ContainerPort,
    Endpoint,
    EndpointAddress,
    Endpoints,
    EndpointSlice,
    EndpointSlicePort,
    EndpointSubset,
    Node,
    ObjectMeta,
    Pod,
    Resource,
    Service,
    ServicePort,
)
from tests.controllers.build import endpoints_of, pod, service, slices_of


def change(world: MemoryWorld, new: Resource) -> None:
    old = world.get(type(new), new.metadata.namespace, new.metadata.name)
    react(world, [Change(old, world.put(admit(world, new, old)))])


def test_ready_pods_become_ready_endpoints() -> None:
    """A slice names its Service, its manager and its owner; an endpoint names its Pod and node."""
    world = settled([service(), pod("a", "10.244.0.1", node_name="node-1"), pod("other", "10.244.0.9", labels={})])
    (found,) = slices_of(world)
    (endpoint,) = found.endpoints
    assert found.metadata.labels == {"kubernetes.io/service-name": "web", MANAGER_LABEL: FROM_PODS}
    assert found.metadata.name.startswith("web-")
    assert found.metadata.owner_references[0].name == "web"
    assert found.ports == [EndpointSlicePort(name="", protocol="TCP", port=80)]
    assert endpoint.addresses == ["10.244.0.1"]
    assert (endpoint.conditions.ready, endpoint.conditions.serving, endpoint.conditions.terminating) == (
        True,
        True,
        False,
    )
    assert endpoint.node_name == "node-1"
    assert endpoint.target_ref is not None
    assert (endpoint.target_ref.kind, endpoint.target_ref.name) == ("Pod", "a")


@pytest.mark.parametrize(
    ("candidate", "publish", "expected"),
    [
        (pod("a", "10.0.0.1", ready=False), False, (False, False, False)),
        (pod("a", "10.0.0.1", ready=False), True, (True, False, False)),
        (pod("a", "10.0.0.1", deleted="2026-01-01T00:00:00Z"), False, (False, True, True)),
        (pod("a", "10.0.0.1", deleted="2026-01-01T00:00:00Z"), True, (True, True, True)),
        (pod("a"), True, None),
        (pod("a", "10.0.0.1", phase="Succeeded"), True, None),
        (pod("a", "10.0.0.1", phase="Failed"), False, None),
        (pod("a", "10.0.0.1", phase="Pending"), False, (True, True, False)),
    ],
)
def test_conditions_are_those_of_kubernetes(candidate: Pod, publish: bool, expected: tuple[bool, ...] | None) -> None:
    """Ready, serving and terminating follow the Pod; one without address or at its end is no endpoint."""
    world = settled([service(publish_not_ready_addresses=publish), candidate])
    found = [endpoint.conditions for each in slices_of(world) for endpoint in each.endpoints]
    assert [(each.ready, each.serving, each.terminating) for each in found] == ([expected] if expected else [])


def test_a_pod_without_conditions_is_not_ready() -> None:
    """Only a Ready condition that is True makes a Pod ready."""
    silent = pod("a", "10.0.0.1")
    world = settled([service(), replace(silent, status=replace(silent.status, conditions=[]))])
    assert endpoints_of(world) == {("10.0.0.1", 80, False)}


def test_a_service_without_pods_has_an_empty_slice() -> None:
    """Kubernetes' placeholder: no endpoints, no ports; the first Pod replaces it."""
    world = settled([service()])
    (empty,) = slices_of(world)
    assert (empty.endpoints, empty.ports) == ([], [])
    change(world, pod("a", "10.0.0.1"))
    assert [len(each.endpoints) for each in slices_of(world)] == [1]


def test_named_ports_are_resolved_by_name_and_protocol_in_each_pod() -> None:
    """Pods that have another number, or do not have the port, are in slices with other ports."""
    ports = (ServicePort(name="dns", port=53, protocol="UDP", target_port="dns"),)
    world = settled(
        [
            service(ports=ports),
            pod("a", "10.0.0.1", ports=(("dns", 53, "TCP"), ("dns", 5353, "UDP"))),
            pod("b", "10.0.0.2", ports=(("dns", 1053, "UDP"),)),
            pod("c", "10.0.0.3", ports=(("dns", 53, "TCP"),)),
        ]
    )
    assert endpoints_of(world) == {("10.0.0.1", 5353, True), ("10.0.0.2", 1053, True), ("10.0.0.3", None, True)}


def test_a_pod_that_has_some_of_the_ports_serves_those() -> None:
    """A missing named port leaves the others in place."""
    ports = (ServicePort(name="http", port=80), ServicePort(name="metrics", port=90, target_port="metrics"))
    world = settled([service(ports=ports), pod("a", "10.0.0.1")])
    (found,) = slices_of(world)
    assert [(port.name, port.port) for port in found.ports] == [("http", 80)]


def test_a_sidecars_ports_count() -> None:
    """Init containers that restart always serve; others are gone when the Pod does."""
    sidecar = Container(name="proxy", restart_policy="Always", ports=[ContainerPort(name="http", container_port=15000)])
    ended = Container(name="setup", ports=[ContainerPort(name="http", container_port=1)])
    world = settled(
        [
            service(ports=(ServicePort(port=80, target_port="http"),)),
            pod("a", "10.0.0.1", init_containers=[ended, sidecar]),
        ]
    )
    assert endpoints_of(world) == {("10.0.0.1", 15000, True)}


def test_dual_stack_has_slices_of_each_family() -> None:
    """One slice set per family of the Service; a Pod's address of another family is not used."""
    pods = [pod("a", "10.0.0.1", "fd00::1"), pod("b", "10.0.0.2")]
    both = settled([service(ip_family_policy="PreferDualStack"), *pods])
    assert {(each.address_type, len(each.endpoints)) for each in slices_of(both)} == {("IPv4", 2), ("IPv6", 1)}
    assert endpoints_of(settled([service(ip_families=["IPv6"]), *pods])) == {("fd00::1", 80, True)}


def test_the_zone_is_the_nodes() -> None:
    """The zone label of a Pod's node is in its endpoint, and follows the Node."""
    node = Node(metadata=ObjectMeta(name="node-1", labels={"topology.kubernetes.io/zone": "east"}))
    world = settled([service(), pod("a", "10.0.0.1", node_name="node-1"), node])
    assert slices_of(world)[0].endpoints[0].zone == "east"
    change(world, Node(metadata=ObjectMeta(name="node-1", labels={"topology.kubernetes.io/zone": "west"})))
    assert slices_of(world)[0].endpoints[0].zone == "west"


def hints(world: MemoryWorld) -> dict[str, tuple[list[str], list[str]]]:
    """Zones and nodes that each hinted endpoint is meant for."""
    return {
        endpoint.addresses[0]: ([one.name for one in hint.for_zones], [one.name for one in hint.for_nodes])
        for each in slices_of(world)
        for endpoint in each.endpoints
        if (hint := endpoint.hints)
    }


@pytest.mark.parametrize(
    ("distribution", "expected"),
    [
        (None, {}),
        ("PreferClose", {"10.0.0.1": (["east"], [])}),
        ("PreferSameZone", {"10.0.0.1": (["east"], [])}),
        ("PreferSameNode", {"10.0.0.1": (["east"], ["n1"]), "10.0.0.2": ([], ["n2"])}),
    ],
)
def test_hints_follow_the_traffic_distribution(
    distribution: str | None, expected: dict[str, tuple[list[str], list[str]]]
) -> None:
    """Each ready endpoint is for its own zone, and node: KEP-4444 and KEP-3015; what is not known is no hint."""
    node = Node(metadata=ObjectMeta(name="n1", labels={"topology.kubernetes.io/zone": "east"}))
    pods = [
        pod("a", "10.0.0.1", node_name="n1"),
        pod("b", "10.0.0.2", node_name="n2"),
        pod("c", "10.0.0.3", node_name="n1", ready=False),
        pod("d", "10.0.0.4"),
    ]
    world = settled([service(traffic_distribution=distribution), node, *pods])
    assert hints(world) == expected
    change(world, service(traffic_distribution="PreferSameNode"))
    assert hints(world) == {"10.0.0.1": (["east"], ["n1"]), "10.0.0.2": ([], ["n2"])}
    change(world, Node(metadata=ObjectMeta(name="n1", labels={"topology.kubernetes.io/zone": "west"})))
    assert hints(world)["10.0.0.1"] == (["west"], ["n1"])
    change(world, service())
    assert hints(world) == {}


def weighted(name: str, ip: str, weight: str | None) -> Pod:
    made = pod(name, ip, f"fd00::{name}")
    return replace(made, metadata=replace(made.metadata, annotations={"svcnat.io/weight": weight} if weight else {}))


def test_weights_of_pods_are_on_their_slices() -> None:
    """Other than 1, by address, in the order of the addresses; a changed weight changes its slice."""
    pods = [weighted("b", "10.0.0.2", "7"), weighted("a", "10.0.0.1", "0"), weighted("c", "10.0.0.3", "1")]
    world = settled([service(ip_family_policy="PreferDualStack"), *pods])
    assert {each.address_type: each.metadata.annotations for each in slices_of(world)} == {
        "IPv4": {"svcnat.io/weights": '{"10.0.0.1": 0, "10.0.0.2": 7}'},
        "IPv6": {"svcnat.io/weights": '{"fd00::a": 0, "fd00::b": 7}'},
    }
    change(world, weighted("a", "10.0.0.1", "3"))
    assert {each.metadata.annotations["svcnat.io/weights"] for each in slices_of(world)} == {
        '{"10.0.0.1": 3, "10.0.0.2": 7}',
        '{"fd00::a": 3, "fd00::b": 7}',
    }
    for each in ("a", "b"):
        change(world, weighted(each, f"10.0.0.{1 if each == 'a' else 2}", None))
    assert [each.metadata.annotations for each in slices_of(world)] == [{}, {}]


def test_a_weight_touches_its_own_slice_only() -> None:
    """One pod's weight rewrites one slice of many."""
    pods = [pod(f"p{number:03}", f"10.0.{number // 200}.{number % 200 + 1}") for number in range(300)]
    world = settled([service(), *pods])
    before = {each.metadata.name: each for each in slices_of(world)}
    heavy = replace(pods[0], metadata=replace(pods[0].metadata, annotations={"svcnat.io/weight": "5"}))
    change(world, heavy)
    changed = [each for each in slices_of(world) if before[each.metadata.name] != each]
    assert [each.metadata.annotations for each in changed] == [{"svcnat.io/weights": '{"10.0.0.1": 5}'}]


def test_weights_of_endpoints_are_mirrored() -> None:
    """To the slices that have their addresses; and go when they go."""
    written = mirrored(ready=("192.0.2.1", "2001:db8::1"))
    weights = {"svcnat.io/weights": '{"192.0.2.1": 2, "2001:DB8::1": 3, "192.0.2.77": 9, "192.0.2.99": 1}'}
    world = settled([service(selector={}), replace(written, metadata=replace(written.metadata, annotations=weights))])
    assert {each.address_type: each.metadata.annotations for each in slices_of(world)} == {
        "IPv4": {"svcnat.io/weights": '{"192.0.2.1": 2}'},
        "IPv6": {"svcnat.io/weights": '{"2001:db8::1": 3}'},
    }
    change(world, written)
    assert [each.metadata.annotations for each in slices_of(world)] == [{}, {}]


def test_probe_results_of_endpoints_are_mirrored() -> None:
    """To the slices that have their addresses: failures only; and go when they go."""
    written = mirrored(ready=("192.0.2.1", "2001:db8::1"))
    results = {"svcnat.io/probe-results": '{"192.0.2.1": true, "2001:DB8::1": false, "192.0.2.77": false}'}
    world = settled([service(selector={}), replace(written, metadata=replace(written.metadata, annotations=results))])
    assert {each.address_type: each.metadata.annotations for each in slices_of(world)} == {
        "IPv4": {},
        "IPv6": {"svcnat.io/probe-results": '{"2001:db8::1": false}'},
    }
    change(world, written)
    assert [each.metadata.annotations for each in slices_of(world)] == [{}, {}]


def test_the_hostname_is_published_under_the_subdomain_of_the_service() -> None:
    """spec.hostname counts only if spec.subdomain names the Service."""
    pods = [
        pod("a", "10.0.0.1", hostname="db-0", subdomain="web"),
        pod("b", "10.0.0.2", hostname="db-1", subdomain="other"),
    ]
    world = settled([service(cluster_ip="None"), *pods])
    assert [endpoint.hostname for endpoint in slices_of(world)[0].endpoints] == ["db-0", None]


def test_headless_services_have_slices_with_the_label_that_opts_out() -> None:
    """Also without ports: an endpoint is then an address alone."""
    world = settled([service(cluster_ip="None", ports=()), pod("a", "10.0.0.1")])
    (found,) = slices_of(world)
    assert found.metadata.labels["service.kubernetes.io/headless"] == ""
    assert endpoints_of(world) == {("10.0.0.1", None, True)}


def test_an_external_name_has_no_endpoints() -> None:
    """A Service that becomes an ExternalName loses its slices."""
    world = settled([service(), pod("a", "10.0.0.1")])
    change(world, service(type="ExternalName", external_name="example.org"))
    assert slices_of(world) == []


def test_labels_of_the_service_are_on_its_slices() -> None:
    """As Kubernetes copies them; a changed label follows."""
    world = settled(
        [replace(service(), metadata=ObjectMeta(name="web", namespace="default", labels={"tier": "front"}))]
    )
    assert slices_of(world)[0].metadata.labels["tier"] == "front"
    live = world.get(Service, "default", "web")
    assert live
    change(world, replace(live, metadata=replace(live.metadata, labels={"tier": "back"})))
    assert slices_of(world)[0].metadata.labels["tier"] == "back"


def test_another_namespaces_pods_are_not_selected() -> None:
    """A selector ends at its namespace."""
    world = settled([service(), pod("a", "10.0.0.1", namespace="other")])
    assert endpoints_of(world) == set()


def test_two_pods_with_one_address_are_two_endpoints() -> None:
    """Pods on their node's network share its address, as in Kubernetes."""
    world = settled([service(), pod("a", "10.0.0.1"), pod("b", "10.0.0.1")])
    assert [len(each.endpoints) for each in slices_of(world)] == [2]


def test_one_pod_changes_one_slice_of_a_thousand_endpoints() -> None:
    """Endpoints stay where they are: one change rewrites at most two slices, none holds over 100."""
    world = settled(
        [service(), *(pod(f"p{number}", f"10.0.{number // 250}.{number % 250 + 1}") for number in range(1000))]
    )
    before = {each.metadata.name: each for each in slices_of(world)}
    assert [len(each.endpoints) for each in before.values()] == [100] * 10

    def rewritten() -> int:
        after = {each.metadata.name: each for each in slices_of(world)}
        assert max(len(each.endpoints) for each in after.values()) <= 100
        count = len({name for name in before.keys() | after.keys() if before.get(name) != after.get(name)})
        before.clear()
        before.update(after)
        return count

    change(world, pod("p500", "10.0.2.1", ready=False))
    assert rewritten() == 1
    change(world, pod("p500", "10.0.9.9"))
    assert rewritten() == 1
    gone = world.get(Pod, "default", "p7")
    assert gone
    world.remove(gone)
    react(world, [Change(gone, None)])
    assert rewritten() == 1
    change(world, pod("new", "10.0.9.10"))
    assert rewritten() == 1
    change(world, pod("newer", "10.0.9.11"))
    assert rewritten() == 1
    assert len(before) == 11


def test_a_slice_that_becomes_empty_goes() -> None:
    """Only a Service without any endpoint keeps an empty slice."""
    world = settled([service(selector={}), mirrored(ready=tuple(f"192.0.2.{number}" for number in range(1, 150)))])
    assert sorted(len(each.endpoints) for each in slices_of(world)) == [49, 100]
    (whole,) = (each for each in slices_of(world) if any("192.0.2.99" in end.addresses for end in each.endpoints))
    stay = [endpoint.addresses[0] for endpoint in whole.endpoints]
    change(world, mirrored(ready=tuple(stay)))
    assert {ip for ip, _, _ in endpoints_of(world)} == set(stay)
    assert [each.metadata.name for each in slices_of(world)] == [whole.metadata.name]
    world = settled([service(), pod("a", "10.0.0.1")])
    change(world, pod("a", "10.0.0.1", phase="Failed"))
    assert [each.endpoints for each in slices_of(world)] == [[]]


def test_a_slice_edited_by_hand_is_put_right() -> None:
    """A managed slice says what the Pods say, whoever wrote to it; annotations of others stay."""
    world = settled([service(), pod("a", "10.0.0.1")])
    (found,) = slices_of(world)
    edited = replace(
        found,
        endpoints=[Endpoint(addresses=["192.0.2.1"])],
        metadata=replace(found.metadata, annotations={"svcnat.io/weights": "{}", "theirs": "1"}),
    )
    change(world, edited)
    assert endpoints_of(world) == {("10.0.0.1", 80, True)}
    assert slices_of(world)[0].metadata.annotations == {"theirs": "1"}


# --- Services without selector -------------------------------------------------------------------------------

BY_HAND = EndpointSlice(
    metadata=ObjectMeta(name="web-1", namespace="default", labels={"kubernetes.io/service-name": "web"}),
    address_type="IPv4",
    endpoints=[Endpoint(addresses=["192.0.2.1"])],
    ports=[EndpointSlicePort(name="", port=8080)],
)


def mirrored(*, labels: dict[str, str] | None = None, ready: tuple[str, ...] = ("192.0.2.1",)) -> Endpoints:
    subset = EndpointSubset(
        addresses=[EndpointAddress(ip=ip) for ip in ready],
        not_ready_addresses=[EndpointAddress(ip="192.0.2.99")],
        ports=[EndpointSlicePort(port=8080)],
    )
    return Endpoints(metadata=ObjectMeta(name="web", namespace="default", labels=labels or {}), subsets=[subset])


def test_slices_written_by_hand_are_left_alone() -> None:
    """With and without a selector."""
    for selector in ({}, {"app": "web"}):
        world = settled([service(selector=selector), BY_HAND])
        assert ("192.0.2.1", 8080, True) in endpoints_of(world)


def test_endpoints_are_mirrored() -> None:
    """Addresses of both readiness, families apart, owned by the Endpoints object and managed by the mirror."""
    world = settled([service(selector={}), mirrored(ready=("192.0.2.1", "192.0.2.1", "192.0.2.99", "2001:db8::1"))])
    assert endpoints_of(world) == {("192.0.2.1", 8080, True), ("192.0.2.99", 8080, True), ("2001:db8::1", 8080, True)}
    assert {each.address_type for each in slices_of(world)} == {"IPv4", "IPv6"}
    assert {each.metadata.labels[MANAGER_LABEL] for each in slices_of(world)} == {FROM_ENDPOINTS}
    assert slices_of(world)[0].metadata.owner_references[0].kind == "Endpoints"
    change(world, mirrored(ready=()))
    assert endpoints_of(world) == {("192.0.2.99", 8080, False)}


@pytest.mark.parametrize(
    "resources",
    [
        [service(), mirrored()],
        [service(selector={}), mirrored(labels={"endpointslice.kubernetes.io/skip-mirror": "true"})],
        [mirrored()],
        [service(selector={}, type="ExternalName", external_name="example.org"), mirrored()],
    ],
)
def test_endpoints_are_not_mirrored(resources: list[Resource]) -> None:
    """With a selector, with the label that skips, without a Service, for an ExternalName."""
    assert endpoints_of(settled(resources)) == set()


def test_a_service_that_loses_its_selector_loses_the_slices_of_its_pods() -> None:
    """They would name Pods long dead; the Endpoints object takes over."""
    world = settled([service(), pod("a", "10.0.0.1"), mirrored()])
    change(world, service(selector={}))
    assert endpoints_of(world) == {("192.0.2.1", 8080, True), ("192.0.2.99", 8080, False)}
    change(world, service())
    assert endpoints_of(world) == {("10.0.0.1", 80, True)}


def test_deleting_endpoints_deletes_their_slices() -> None:
    """And deleting the Service does, too."""
    world = settled([service(selector={}), mirrored()])
    gone = world.get(Endpoints, "default", "web")
    assert gone
    world.remove(gone)
    react(world, [Change(gone, None)])
    assert slices_of(world) == []


def test_deleting_a_service_deletes_its_managed_slices_only() -> None:
    """What somebody wrote by hand stays."""
    world = settled([service(), pod("a", "10.0.0.1"), BY_HAND])
    gone = world.get(Service, "default", "web")
    assert gone
    world.remove(gone)
    react(world, [Change(gone, None)])
    assert [each.metadata.name for each in slices_of(world)] == ["web-1"]


numbers = st.sets(st.integers(1, 60), max_size=60)


@settings(derandomize=True, max_examples=40)
@given(st.lists(numbers, min_size=2, max_size=4))
def test_endpoints_move_only_when_they_must(states: list[set[int]]) -> None:
    """Every state is reached exactly, in slices of at most 100, and few of them are written for few changes."""
    world = settled([service(selector={})])
    before: dict[str, EndpointSlice] = {}
    present: set[str] = set()
    for state in states:
        wanted = {f"192.0.2.{number}" for number in state} | {f"198.51.100.{number}" for number in range(1, 200)}
        change(world, mirrored(ready=tuple(sorted(wanted))))
        after = {each.metadata.name: each for each in slices_of(world)}
        assert {ip for ip, _, ready in endpoints_of(world) if ready} == wanted
        assert max(len(each.endpoints) for each in after.values()) <= 100
        written = {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}
        assert not before or len(written) <= len(wanted ^ present) + 1
        before, present = after, wanted

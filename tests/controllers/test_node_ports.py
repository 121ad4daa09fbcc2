from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from svcnat.controllers.admission import admit
from svcnat.controllers.claims import asks, node_port
from svcnat.controllers.ranges import port_candidates, upper_ports
from svcnat.controllers.react import settled
from svcnat.controllers.world import MemoryWorld
from svcnat.errors import ExhaustedError, ManifestError
from svcnat.model.objects import Service, ServicePort
from tests.controllers.build import pod, service

BOTH = (
    ServicePort(name="t", port=53, protocol="TCP"),
    ServicePort(name="u", port=53, protocol="UDP"),
    ServicePort(name="other", port=54),
)


def numbers(found: Service) -> list[int | None]:
    return [port.node_port for port in found.spec.ports]


def admitted(world: MemoryWorld, new: Service) -> Service:
    old = world.get(Service, "default", new.metadata.name)
    return world.put(admit(world, new, old))


def exposed(name: str = "web", number: int | None = None, **spec: Any) -> Service:
    spec.setdefault("type", "NodePort")
    return service(name, ports=(ServicePort(port=80, node_port=number),), **spec)


@pytest.mark.parametrize(
    ("first", "last", "lower"), [(30000, 32767, 86), (30000, 30015, 0), (30000, 30016, 16), (1, 65535, 128)]
)
def test_the_lower_band_is_for_requests(first: int, last: int, lower: int) -> None:
    """As large as kube-apiserver's: min(max(16, size/32), 128), none in a small range."""
    whole = range(first, last + 1)
    assert upper_ports(whole).start == first + lower
    order = list(port_candidates(whole, 5))
    assert order[0] == first + lower + 5 % (len(whole) - lower)
    assert sorted(order) == list(whole)
    assert order[-lower:] == list(whole[:lower]) or lower == 0


def test_node_ports_are_given_to_the_types_that_have_them() -> None:
    """NodePort and LoadBalancer; a number on TCP and UDP gets one node port, and each other port its own."""
    for kind in ("NodePort", "LoadBalancer"):
        tcp, udp, other = numbers(settled([service(type=kind, ports=BOTH)]).list(Service)[0])
        assert tcp == udp != other
        assert {tcp, udp, other} <= set(range(30086, 32768))
    assert numbers(settled([service(ports=BOTH)]).list(Service)[0]) == [None, None, None]


def test_a_request_on_one_protocol_counts_for_the_other() -> None:
    """Unless the other protocol has that number elsewhere."""
    asked = (replace(BOTH[0], node_port=30053), *BOTH[1:])
    assert numbers(settled([service(type="NodePort", ports=asked)]).list(Service)[0])[:2] == [30053, 30053]
    elsewhere = (*asked[:2], ServicePort(name="x", port=9, protocol="UDP", node_port=30053))
    tcp, udp, other = numbers(settled([service(type="NodePort", ports=elsewhere)]).list(Service)[0])
    assert (tcp, other) == (30053, 30053)
    assert udp not in (None, 30053)


def test_two_services_never_share_a_number() -> None:
    """Not even on different protocols; Kubernetes' words, at the port's field."""
    udp = service("b", type="NodePort", ports=(ServicePort(port=1, protocol="UDP", node_port=30080),))
    with pytest.raises(ManifestError) as caught:
        MemoryWorld.of([exposed("a", 30080), udp])
    assert str(caught.value) == (
        "Service default/b: spec.ports[0].nodePort: Invalid value: 30080: provided port is already allocated"
    )


def test_every_bad_number_is_reported() -> None:
    """Taken ones and those outside the range, of all ports and the health check, at once; nothing stays claimed."""
    world = MemoryWorld.of([exposed("a", 30080)])
    wanted = service(
        "b",
        type="LoadBalancer",
        external_traffic_policy="Local",
        health_check_node_port=30001,
        ports=tuple(
            ServicePort(name=f"p{number}", port=index + 1, node_port=number)
            for index, number in enumerate((30080, 8080, 30001))
        ),
    )
    with pytest.raises(ManifestError) as caught:
        admit(world, wanted, None)
    assert [(each.field, each.reason.partition(": ")[2]) for each in caught.value.findings] == [
        ("spec.ports[0].nodePort", "30080: provided port is already allocated"),
        (
            "spec.ports[1].nodePort",
            "8080: provided port is not in the valid range. The range of valid ports is 30000-32767",
        ),
        (
            "spec.healthCheckNodePort",
            "30001: failed to allocate requested HealthCheck NodePort 30001: provided port is already allocated",
        ),
    ]
    assert world.claim(node_port(30001), service("c"))


def test_the_range_is_configured_and_held_ports_outlive_it() -> None:
    """Whoever has a number keeps it when the range moves; only new ones must be in it."""
    world = MemoryWorld.of([exposed(number=30080)])
    world.ranges = dataclasses.replace(world.ranges, node_ports=range(20000, 20010))
    kept = admitted(world, exposed(number=30080, session_affinity="ClientIP"))
    assert numbers(kept) == [30080]
    with pytest.raises(ManifestError, match="The range of valid ports is 20000-20009"):
        admitted(world, exposed(number=30081))
    assert numbers(admitted(world, exposed("b")))[0] in range(20000, 20010)


def test_a_full_range_is_an_exhausted_error() -> None:
    """With the range, and what to do."""
    services = [exposed(f"s{number}") for number in range(5)]
    MemoryWorld.of(services, node_ports=range(30000, 30005))
    with pytest.raises(ExhaustedError, match=r'services "z": failed to allocate a nodePort: the range 30000-30004'):
        MemoryWorld.of([*services, exposed("z")], node_ports=range(30000, 30005))


def test_node_ports_of_load_balancers_may_be_declined() -> None:
    """With allocateLoadBalancerNodePorts false, a Service gets none unasked, and loses those it no longer asks for."""
    world = MemoryWorld.of([])
    declined = exposed(type="LoadBalancer", allocate_load_balancer_node_ports=False)
    assert numbers(admitted(world, declined)) == [None]
    asked = exposed(number=30080, type="LoadBalancer", allocate_load_balancer_node_ports=False)
    assert numbers(admitted(world, asked)) == [30080]
    assert numbers(admitted(world, declined)) == [None]
    assert world.claim(node_port(30080), service("other"))


def test_the_health_check_has_a_port_while_it_is_needed() -> None:
    """LoadBalancer with policy Local: from the same range, kept over updates, released otherwise."""
    world = MemoryWorld.of([])
    local = exposed(type="LoadBalancer", external_traffic_policy="Local")
    check = admitted(world, local).spec.health_check_node_port
    assert check in range(30086, 32768)
    assert admitted(world, local).spec.health_check_node_port == check
    assert admitted(world, exposed(type="LoadBalancer")).spec.health_check_node_port is None
    assert world.claim(node_port(check or 0), service("other"))
    asked = exposed("asked", type="LoadBalancer", external_traffic_policy="Local", health_check_node_port=30001)
    assert admitted(world, asked).spec.health_check_node_port == 30001


TYPES: dict[str, dict[str, Any]] = {
    "ClusterIP": {"type": "ClusterIP"},
    "NodePort": {"type": "NodePort"},
    "LoadBalancer": {"type": "LoadBalancer", "external_traffic_policy": "Local"},
    "ExternalName": {"type": "ExternalName", "external_name": "example.org"},
}


@pytest.mark.parametrize("before", TYPES)
@pytest.mark.parametrize("after", TYPES)
def test_types_change_in_place(before: str, after: str) -> None:
    """What both types have is kept, what only the old one has is released, what only the new one has is claimed."""
    world = settled([service(**TYPES[before]), pod("a", "10.0.0.1")], load_balancer_pool=["192.0.2.1-192.0.2.1"])
    old = world.list(Service)[0]
    # As apply does it: the live object with another type.
    edited = replace(old, spec=replace(old.spec, **{"external_traffic_policy": None, **TYPES[after]}))
    if before == after:
        edited = old
    new = world.put(admit(world, edited, old))
    has_ip, had_ip = after != "ExternalName", before != "ExternalName"
    has_port, had_port = after in ("NodePort", "LoadBalancer"), before in ("NodePort", "LoadBalancer")
    assert bool(new.spec.cluster_ip) == bool(new.spec.cluster_ips) == bool(new.spec.ip_families) == has_ip
    assert (numbers(new) != [None]) == has_port
    assert bool(new.status.load_balancer.ingress) == (after == "LoadBalancer")
    assert bool(new.spec.health_check_node_port) == (after == "LoadBalancer")
    if has_ip and had_ip:
        assert new.spec.cluster_ips == old.spec.cluster_ips
    if has_port and had_port:
        assert numbers(new) == numbers(old)
    again = world.put(admit(world, old, new))
    assert again.spec.type == before
    # Nothing is left behind: another Service can have all that this one gave up.
    world.remove(again)
    fresh = settled([service("x", **TYPES["LoadBalancer"])], load_balancer_pool=["192.0.2.1-192.0.2.1"]).list(Service)
    assert admitted(world, fresh[0]).status == fresh[0].status


def test_a_headless_service_stays_headless() -> None:
    """Replaced without clusterIP it stays as it is, so it cannot have node ports; an ExternalName can become one."""
    world = MemoryWorld.of([service(cluster_ip="None")])
    assert admitted(world, service()).spec.cluster_ip == "None"
    with pytest.raises(ManifestError, match="may not be set to 'None' for NodePort services"):
        admitted(world, service(type="NodePort"))
    named = admitted(world, service(type="ExternalName", external_name="example.org"))
    assert (named.spec.cluster_ip, named.spec.cluster_ips) == (None, [])
    assert admitted(world, service(cluster_ip="None")).spec.cluster_ips == ["None"]


def test_asking_means_a_choice_of_ones_own() -> None:
    """Requests are served before those that take anything."""
    assert asks(service(cluster_ip="10.96.0.7"))
    assert asks(exposed(number=30080))
    assert asks(service(type="LoadBalancer", load_balancer_ip="192.0.2.1"))
    assert not any(map(asks, (service(), exposed(), service(cluster_ip="None"), pod("a"))))


@settings(derandomize=True, max_examples=30)
@given(
    names=st.sets(st.text("abcdef", min_size=1, max_size=3), max_size=10),
    asked=st.sets(st.integers(30000, 30029), max_size=5),
    order=st.randoms(use_true_random=False),
)
def test_stateless_node_ports_do_not_depend_on_the_order(names: set[str], asked: set[int], order: Any) -> None:
    """Same input, same numbers, none twice, requests first: in whatever order the documents come."""
    services = [exposed(f"auto-{name}") for name in sorted(names)]
    services += [exposed(f"asked-{number}", number) for number in sorted(asked)]
    first = MemoryWorld.of(services, node_ports=range(30000, 30030)).list(Service)
    order.shuffle(services)
    assert MemoryWorld.of(services, node_ports=range(30000, 30030)).list(Service) == first
    given_out = [numbers(each)[0] for each in first]
    assert len(given_out) == len(set(given_out))
    assert asked <= set(given_out)


def test_another_service_moves_no_node_port() -> None:
    """Without state, a number follows from the Service that has it, not from its neighbours."""
    alone = numbers(MemoryWorld.of([exposed("b")]).list(Service)[0])
    together = MemoryWorld.of([exposed("a"), exposed("b"), exposed("c")])
    found = together.get(Service, "default", "b")
    assert found
    assert numbers(found) == alone

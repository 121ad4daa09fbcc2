from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from svcnat.controllers.admission import admit, keep_status, kubernetes_service
from svcnat.controllers.claims import cluster_ip
from svcnat.controllers.world import MemoryWorld
from svcnat.errors import ManifestError
from svcnat.model.objects import (
    EndpointSlice,
    LoadBalancerIngress,
    LoadBalancerStatus,
    ObjectMeta,
    Pod,
    Service,
    ServicePort,
    ServiceStatus,
)
from tests.controllers.build import pod, service


def updated(new: Service, **old: Any) -> Service:
    world = MemoryWorld.of([service(**old)])
    live = world.get(Service, "default", "web")
    assert live
    return admit(world, new, live)


def test_an_invalid_object_is_refused_with_every_problem() -> None:
    """Findings name the object and its fields; where they stand in a file is for others to say."""
    with pytest.raises(ManifestError) as caught:
        admit(MemoryWorld.of([]), service(ports=(0, 99999)), None)
    assert {finding.subject for finding in caught.value.findings} == {"Service default/web"}
    assert {"spec.ports[0].port", "spec.ports[1].port"} <= {finding.field for finding in caught.value.findings}


def test_an_update_keeps_the_cluster_address() -> None:
    """A manifest rarely names it."""
    new = updated(service(ports=(8080,)), cluster_ip="10.96.0.77")
    assert (new.spec.cluster_ip, new.spec.cluster_ips) == ("10.96.0.77", ["10.96.0.77"])


@pytest.mark.parametrize("asked", ["10.96.0.78", "None"])
def test_the_cluster_address_is_immutable(asked: str) -> None:
    """While the type keeps one."""
    with pytest.raises(ManifestError, match="clusterIP"):
        updated(service(cluster_ip=asked), cluster_ip="10.96.0.77")


def test_an_update_keeps_both_families() -> None:
    """A manifest without ipFamilyPolicy does not take the second address away; SingleStack does."""
    kept = updated(service(), ip_family_policy="PreferDualStack")
    assert (kept.spec.ip_family_policy, len(kept.spec.cluster_ips)) == ("PreferDualStack", 2)
    single = updated(service(ip_family_policy="SingleStack"), ip_family_policy="PreferDualStack")
    assert (single.spec.ip_families, len(single.spec.cluster_ips)) == (["IPv4"], 1)


def test_becoming_an_external_name_drops_the_addresses() -> None:
    """And coming back claims a new one."""
    world = MemoryWorld.of([service(cluster_ip="10.96.0.77")])
    live = world.get(Service, "default", "web")
    assert live
    merged = replace(live, spec=replace(live.spec, type="ExternalName", external_name="example.org"))
    external = world.put(admit(world, merged, live))
    assert (external.spec.cluster_ip, external.spec.cluster_ips, external.spec.ip_families) == (None, [], [])
    assert world.claim(cluster_ip("10.96.0.77"), service("other"))
    back = admit(world, service(), external)
    assert back.spec.cluster_ip not in (None, "", "10.96.0.77")


def ports(*given: tuple[str, int, int | None]) -> tuple[ServicePort, ...]:
    return tuple(ServicePort(name=name, port=port, node_port=number) for name, port, number in given)


@pytest.mark.parametrize(
    ("new", "expected"),
    [
        ([("b", 80, None)], [30080]),
        ([("a", 8080, None)], [30080]),
        ([("a", 80, 30081)], [30081]),
        ([("a", 80, None), ("b", 81, 30080)], [None, 30080]),
        ([("c", 80, None), ("a", 81, None)], [None, 30080]),
    ],
)
def test_node_ports_stay(new: list[tuple[str, int, int | None]], expected: list[int | None]) -> None:
    """With the port of that name, else of that number, unless another port has got it; None means any other."""
    old = {"type": "NodePort", "ports": ports(("a", 80, 30080))}
    for kind in ("NodePort", "LoadBalancer"):
        numbers = [port.node_port for port in updated(service(type=kind, ports=ports(*new)), **old).spec.ports]
        assert [
            number if number == wanted else None for number, wanted in zip(numbers, expected, strict=True)
        ] == expected
        assert len(set(numbers)) == len(numbers)
        assert None not in numbers


def test_a_type_without_node_ports_drops_those_that_were_there() -> None:
    """Remains are dropped wherever they moved; a new number is a mistake, in Kubernetes' words."""
    old = {"type": "NodePort", "ports": ports(("a", 80, 30080))}
    dropped = updated(service(type="ClusterIP", ports=ports(("b", 81, 30080))), **old)
    assert dropped.spec.ports[0].node_port is None
    with pytest.raises(ManifestError, match="may not be used when `type` is 'ClusterIP'"):
        updated(service(type="ClusterIP", ports=ports(("a", 80, 30081))), **old)


def test_a_manifests_status_is_honoured_and_its_absence_keeps_the_old() -> None:
    """Unlike a cluster's API: a load balancer's address may stand in the manifest."""
    balanced = ServiceStatus(load_balancer=LoadBalancerStatus(ingress=[LoadBalancerIngress(ip="192.0.2.1")]))
    world = MemoryWorld.of([])
    created = world.put(admit(world, replace(service(type="LoadBalancer"), status=balanced), None))
    assert created.status.load_balancer.ingress[0].ip == "192.0.2.1"
    assert keep_status(service(type="LoadBalancer"), created).status == created.status
    assert keep_status(replace(service(), status=balanced), service()).status == balanced
    assert keep_status(EndpointSlice(), EndpointSlice()) == EndpointSlice()


def test_a_replaced_pod_keeps_its_node_and_address() -> None:
    """They are the system's, not the manifest's."""
    world = MemoryWorld.of([])
    live = world.put(admit(world, pod("a", "10.0.0.1", node_name="node-1"), None))
    plain = pod("a", labels={"app": "new"})
    new = admit(world, keep_status(Pod(metadata=plain.metadata, spec=plain.spec), live), live)
    assert (new.spec.node_name, new.status.pod_ip, new.metadata.labels) == ("node-1", "10.0.0.1", {"app": "new"})


def test_kubernetes_has_the_first_address_unless_it_is_taken() -> None:
    """It serves https at the first address of the first range."""
    world = MemoryWorld.of([])
    found = kubernetes_service(world)
    assert (found.spec.cluster_ip, found.spec.ports[0].port) == ("10.96.0.1", 443)
    assert found.metadata == ObjectMeta(
        name="kubernetes", namespace="default", labels={"component": "apiserver", "provider": "kubernetes"}
    )
    taken = kubernetes_service(MemoryWorld.of([service("first", cluster_ip="10.96.0.1")]))
    assert taken.spec.cluster_ip not in (None, "10.96.0.1")


@pytest.mark.parametrize("new", [{"type": "ClusterIP"}, {"type": "NodePort"}, {"session_affinity": "None"}])
def test_remains_of_another_type_are_dropped(new: dict[str, str]) -> None:
    """A live object has defaults that its next type may not have; a person never wrote them."""
    world = MemoryWorld.of([service(type="LoadBalancer", session_affinity="ClientIP")])
    live = world.get(Service, "default", "web")
    assert live
    assert live.spec.external_traffic_policy == "Cluster"
    merged = admit(world, replace(live, spec=replace(live.spec, **new)), live)
    assert merged.spec.cluster_ip == live.spec.cluster_ip

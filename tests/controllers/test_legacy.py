from __future__ import annotations

from msgspec.structs import replace

from svcnat.controllers.legacy import OVER_CAPACITY, derived, derived_one
from svcnat.controllers.react import settled
from svcnat.model.objects import (
    Endpoint,
    EndpointAddress,
    Endpoints,
    EndpointSlice,
    EndpointSlicePort,
    EndpointSubset,
    ObjectMeta,
    Service,
    ServicePort,
)
from tests.controllers.build import pod, service


def found(*resources: object, name: str = "web") -> Endpoints:
    endpoints = derived_one(settled(resources), "default", name)  # type: ignore[arg-type]
    assert endpoints
    return endpoints


def test_endpoints_say_what_the_slices_say() -> None:
    """Ready and not ready addresses in their order, ports by their names; metadata as the controller writes it."""
    labelled = replace(
        service(ports=(ServicePort(name="http", port=80, target_port="http"),)),
        metadata=ObjectMeta(name="web", namespace="default", labels={"tier": "front"}),
    )
    ports = (("http", 8080, "TCP"),)
    endpoints = found(
        labelled,
        pod("b", "10.0.0.2", node_name="n1", hostname="h", subdomain="web", ports=ports),
        pod("a", "10.0.0.1", ports=ports),
        pod("c", "10.0.0.3", ready=False, ports=ports),
        pod("d", "10.0.0.4", deleted="2026-01-01T00:00:00Z", ports=ports),
    )
    (subset,) = endpoints.subsets
    assert [each.ip for each in subset.addresses] == ["10.0.0.1", "10.0.0.2"]
    assert [each.ip for each in subset.not_ready_addresses] == ["10.0.0.3"]
    assert subset.ports == [EndpointSlicePort(name="http", protocol="TCP", port=8080)]
    second = subset.addresses[1]
    assert (second.node_name, second.hostname, second.target_ref and second.target_ref.name) == ("n1", "h", "b")
    meta = endpoints.metadata
    assert (meta.name, meta.namespace, meta.annotations) == ("web", "default", {})
    assert meta.labels == {"tier": "front", "endpoints.kubernetes.io/managed-by": "endpoint-controller"}
    assert len(meta.uid) == 36


def test_pods_with_other_ports_are_another_subset() -> None:
    """As many subsets as there are sets of ports; an unnamed port has no name."""
    endpoints = found(
        service(ports=(ServicePort(port=80, target_port="http"),)),
        pod("a", "10.0.0.1", ports=(("http", 80, "TCP"),)),
        pod("b", "10.0.0.2", ports=(("http", 81, "TCP"),)),
    )
    assert [(each.addresses[0].ip, each.ports) for each in endpoints.subsets] == [
        ("10.0.0.1", [EndpointSlicePort(protocol="TCP", port=80)]),
        ("10.0.0.2", [EndpointSlicePort(protocol="TCP", port=81)]),
    ]


def test_only_the_first_family_counts() -> None:
    """Endpoints have no address type."""
    pods = (pod("a", "10.0.0.1", "fd00::1"),)
    policy = "RequireDualStack"
    assert found(service(ip_family_policy=policy), *pods).subsets[0].addresses[0].ip == "10.0.0.1"
    six = service(ip_family_policy=policy, ip_families=["IPv6", "IPv4"])
    assert found(six, *pods).subsets[0].addresses[0].ip == "fd00::1"


def test_a_service_without_pods_has_endpoints_without_subsets() -> None:
    """As kubectl shows them: <none>; a headless one says so."""
    assert found(service()).subsets == []
    assert found(service(cluster_ip="None")).metadata.labels["service.kubernetes.io/headless"] == ""


def test_a_thousand_addresses_are_the_limit() -> None:
    """What is more is cut off, and said."""
    pods = [pod(f"p{number}", f"10.0.{number // 250}.{number % 250 + 1}") for number in range(1001)]
    endpoints = found(service(), *pods)
    assert [len(each.addresses) for each in endpoints.subsets] == [1000]
    assert endpoints.metadata.annotations == {OVER_CAPACITY: "truncated"}


def test_who_has_endpoints() -> None:
    """Services that select Pods, and whoever has them written by hand: those win; slices by hand make none."""
    by_hand = EndpointSlice(
        metadata=ObjectMeta(name="web-1", namespace="default", labels={"kubernetes.io/service-name": "web"}),
        address_type="IPv4",
        endpoints=[Endpoint(addresses=["192.0.2.1"])],
        ports=[EndpointSlicePort(name="", port=80)],
    )
    written = Endpoints(
        metadata=ObjectMeta(name="both", namespace="default"),
        subsets=[EndpointSubset(addresses=[EndpointAddress(ip="192.0.2.2")], ports=[EndpointSlicePort(port=80)])],
    )
    world = settled(
        [
            service("web"),
            service("both"),
            service("none", selector={}),
            service("named", type="ExternalName", external_name="example.org"),
            service("far", namespace="other"),
            by_hand,
            written,
        ]
    )
    assert [(each.metadata.namespace, each.metadata.name) for each in derived(world)] == [
        ("default", "both"),
        ("default", "web"),
        ("other", "far"),
    ]
    assert [each.metadata.name for each in derived(world, "other")] == ["far"]
    assert derived(world, "default") == [derived_one(world, "default", name) for name in ("both", "web")]
    assert derived(world, "default")[0].subsets[0].addresses[0].ip == "192.0.2.2"
    assert derived(world, "default")[1].subsets == []
    assert [derived_one(world, "default", name) for name in ("none", "named", "nobody")] == [None] * 3
    assert world.list(Service, "other")[0].metadata.uid != derived(world, "other")[0].metadata.uid

"""What a Service asks for, by semantics: which ports, which endpoints, in which family."""

from __future__ import annotations

import pytest

from svcnat.errors import UsageError
from svcnat.model.objects import Endpoint, EndpointSlice, EndpointSlicePort, ObjectMeta, ServicePort
from svcnat.ruleset.plan import Settings, plan, plan_service, usable_backends
from tests.ruleset.build import DEAD, LEAVING, NOT_READY, service, slice_of

PORT = ServicePort(name="p80", port=80, protocol="TCP")


def test_ready_endpoints_are_used_in_the_order_of_their_addresses() -> None:
    """Equal objects give equal rules: order in the slices does not matter, 10.0.0.9 comes before 10.0.0.10."""
    pieces = [slice_of("web", "10.0.0.10", ("10.0.0.7", NOT_READY)), slice_of("web", "10.0.0.9", "10.0.0.10")]
    assert usable_backends(PORT, pieces, "ip") == (("10.0.0.9", 8080), ("10.0.0.10", 8080))


@pytest.mark.parametrize(
    ("conditions", "used"), [(LEAVING, True), (DEAD, False), (NOT_READY, False)], ids=["leaving", "dead", "not ready"]
)
def test_terminating_endpoints_serve_only_when_nobody_is_ready(conditions, used) -> None:
    """KEP-1669: those that serve while they terminate are the fallback, and only the fallback."""
    alone = usable_backends(PORT, [slice_of("web", ("10.0.0.1", conditions))], "ip")
    assert alone == ((("10.0.0.1", 8080),) if used else ())
    beside = usable_backends(PORT, [slice_of("web", ("10.0.0.1", conditions), "10.0.0.2")], "ip")
    assert beside == (("10.0.0.2", 8080),)


def test_slice_ports_match_by_name_and_protocol() -> None:
    """A slice's port without a name is "", without a protocol TCP, and without a number nothing to balance."""
    bare = EndpointSlice(
        metadata=ObjectMeta(name="x"),
        address_type="IPv4",
        endpoints=[Endpoint(addresses=["10.0.0.1"]), Endpoint(addresses=[])],
        ports=[EndpointSlicePort(port=1), EndpointSlicePort(name="p80", port=2, protocol="UDP"), EndpointSlicePort()],
    )
    assert usable_backends(ServicePort(port=80), [bare], "ip") == (("10.0.0.1", 1),)
    assert usable_backends(ServicePort(name="p80", protocol="UDP"), [bare], "ip") == (("10.0.0.1", 2),)
    assert usable_backends(PORT, [bare], "ip") == ()


def test_dual_stack_services_get_each_familys_endpoints() -> None:
    """One plan a port and family; an IPv6 slice serves only the IPv6 cluster IP."""
    slices = [slice_of("web", "10.0.0.1"), slice_of("web", "fd01::1", kind="IPv6")]
    four, six = plan_service(service("web", "10.96.0.10", "fd00::a"), slices)
    assert (four.family, four.backends) == ("ip", (("10.0.0.1", 8080),))
    assert (six.family, six.backends) == ("ip6", (("fd01::1", 8080),))


def test_addresses_are_spelled_canonically_whatever_the_manifest_says() -> None:
    """Kubernetes accepts IPv6 in any spelling; the kernel has one, and the diff compares with the kernel."""
    port = plan_service(service("web", "fd00:0:0::000a"), [slice_of("web", "FD01::0:1", kind="IPv6")])[0]
    assert (port.frontends[0].address, port.backends) == ("fd00::a", (("fd01::1", 8080),))


@pytest.mark.parametrize(
    "unserved",
    [
        service("web", "None"),
        service("web"),
        service("web", type="ExternalName", external_name="example.org"),
        service("web", "10.96.0.10", labels={"service.kubernetes.io/headless": ""}),
        service("web", "10.96.0.10", labels={"service.kubernetes.io/service-proxy-name": "other"}),
    ],
    ids=["headless", "no address", "ExternalName", "headless label", "other proxy"],
)
def test_services_that_get_no_rules(unserved) -> None:
    """Headless, ExternalName and services that opted out have DNS names, not rules."""
    assert plan([unserved], [slice_of("web", "10.0.0.1")], Settings()).services == {}


def test_slices_belong_to_the_service_that_their_label_names() -> None:
    """A slice without the label, or of another service, is nobody's endpoint here."""
    stray = EndpointSlice(metadata=ObjectMeta(name="stray", namespace="default"), address_type="IPv4")
    planned = plan([service("web", "10.96.0.10")], [stray, slice_of("other", "10.0.0.1")], Settings())
    assert planned.services["default", "web"][0].backends == ()


def test_the_cluster_ip_alone_is_enough() -> None:
    """Older objects have clusterIP without clusterIPs."""
    assert plan_service(service("web", cluster_ip="10.96.0.10"), [])[0].frontends[0].address == "10.96.0.10"


@pytest.mark.parametrize("address", ["10.0.0.1; flush ruleset", "fe80::1%}", "host", "010.0.0.1"])
def test_nothing_but_an_address_becomes_a_key(address) -> None:
    """An object that nobody validated cannot bring text into a rule: it is refused."""
    with pytest.raises(UsageError, match="IP address"):
        plan_service(service("web", address), [])
    with pytest.raises(UsageError, match="IP address"):
        plan_service(service("web", "10.96.0.10"), [slice_of("web", address)])
    with pytest.raises(UsageError, match="clusterCIDR"):
        Settings(cluster_cidrs=(address,))


@pytest.mark.parametrize("port", [(80, "ICMP }"), (None, "TCP")])
def test_nothing_but_a_protocol_becomes_the_name_of_a_map(port) -> None:
    """The protocol is part of names: only the three that Services know may pass."""
    with pytest.raises(UsageError, match="never validated"):
        plan_service(service("web", "10.96.0.10", ports=(port,)), [])

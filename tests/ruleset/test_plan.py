"""What a Service asks for, by semantics: which frontends, which endpoints, in which family."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from svcnat.errors import UsageError
from svcnat.model.extensions import Rate
from svcnat.model.objects import (
    ClientIPConfig,
    EndpointSlice,
    LoadBalancerIngress,
    LoadBalancerStatus,
    ObjectMeta,
    ServicePort,
    ServiceStatus,
    SessionAffinityConfig,
)
from svcnat.ruleset.plan import (
    Frontend,
    HealthCheck,
    Kind,
    Masquerade,
    Scope,
    Settings,
    plan,
    plan_service,
    source_ranges,
)
from tests.ruleset.build import service, slice_of

HERE = Settings(node_name="node-1", addresses=("172.30.0.11", "fd00:172:30::b"))


def exposed(kind: str = "LoadBalancer", *ingress: LoadBalancerIngress, **spec):
    one = service("web", "10.96.0.10", type=kind, **spec)
    port = replace(one.spec.ports[0], node_port=30080)
    return replace(
        one,
        spec=replace(one.spec, ports=[port]),
        status=ServiceStatus(load_balancer=LoadBalancerStatus(ingress=list(ingress))),
    )


def frontends(one) -> list[Frontend]:
    return [frontend for port in plan_service(one, [], HERE) for frontend in port.frontends]


def test_dual_stack_services_get_each_familys_endpoints() -> None:
    """One plan a port and family; an IPv6 slice serves only the IPv6 cluster IP."""
    slices = [slice_of("web", "10.0.0.1"), slice_of("web", "fd01::1", kind="IPv6")]
    four, six = plan_service(service("web", "10.96.0.10", "fd00::a"), slices, HERE)
    assert (four.family, four.endpoints.cluster.backends) == ("ip", (("10.0.0.1", 8080),))
    assert (six.family, six.endpoints.cluster.backends) == ("ip6", (("fd01::1", 8080),))


def test_addresses_are_spelled_canonically_whatever_the_manifest_says() -> None:
    """Kubernetes accepts IPv6 in any spelling; the kernel has one, and the diff compares with the kernel."""
    slices = [slice_of("web", "FD01::0:1", kind="IPv6")]
    port = plan_service(service("web", "fd00:0:0::000a"), slices, HERE)[0]
    assert (port.frontends[0].address, port.endpoints.cluster.backends) == ("fd00::a", (("fd01::1", 8080),))


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
    assert plan([unserved], [slice_of("web", "10.0.0.1")], HERE).services == {}


def test_slices_belong_to_the_service_that_their_label_names() -> None:
    """A slice without the label, or of another service, is nobody's endpoint here."""
    stray = EndpointSlice(metadata=ObjectMeta(name="stray", namespace="default"), address_type="IPv4")
    planned = plan([service("web", "10.96.0.10")], [stray, slice_of("other", "10.0.0.1")], HERE)
    assert not planned.services["default", "web"][0].endpoints.anywhere


def test_the_cluster_ip_alone_is_enough() -> None:
    """Older objects have clusterIP without clusterIPs."""
    assert frontends(service("web", cluster_ip="10.96.0.10"))[0].address == "10.96.0.10"


@pytest.mark.parametrize("address", ["10.0.0.1; flush ruleset", "fe80::1%}", "host", "010.0.0.1"])
def test_nothing_but_an_address_becomes_a_key(address) -> None:
    """An object that nobody validated cannot bring text into a rule: it is refused."""
    with pytest.raises(UsageError, match="IP address"):
        plan_service(service("web", address), [], HERE)
    with pytest.raises(UsageError, match="IP address"):
        plan_service(service("web", "10.96.0.10"), [slice_of("web", address)], HERE)
    with pytest.raises(UsageError, match="clusterCIDR"):
        Settings(cluster_cidrs=(address,))
    with pytest.raises(UsageError, match="address"):
        Settings(node_port_addresses=(address,))


def test_a_nodes_addresses_are_canonical() -> None:
    """They are compared as text."""
    with pytest.raises(UsageError, match="canonical"):
        Settings(addresses=("fd00:0::1",))


@pytest.mark.parametrize("port", [(80, "ICMP }"), (None, "TCP")])
def test_nothing_but_a_protocol_becomes_the_name_of_a_map(port) -> None:
    """The protocol is part of names: only the three that Services know may pass."""
    with pytest.raises(UsageError, match="never validated"):
        plan_service(service("web", "10.96.0.10", ports=(port,)), [], HERE)


def test_every_way_in_has_a_frontend() -> None:
    """Cluster IP, external IPs, load-balancer IPs and the node port, each once; policy Cluster masquerades."""
    one = exposed(
        "LoadBalancer",
        LoadBalancerIngress(ip="198.51.100.1"),
        LoadBalancerIngress(ip="198.51.100.1"),
        LoadBalancerIngress(ip="198.51.100.2", ip_mode="Proxy"),
        LoadBalancerIngress(hostname="lb.example.org"),
        LoadBalancerIngress(ip="2001:db8::1"),
        external_ips=["203.0.113.5", "203.0.113.5", "2001:db8::5", "10.96.0.10"],
    )
    assert frontends(one) == [
        Frontend(Kind.CLUSTER_IP, "10.96.0.10", 80, Scope.CLUSTER, Masquerade.OFF_CLUSTER),
        Frontend(Kind.EXTERNAL_IP, "203.0.113.5", 80, Scope.CLUSTER, Masquerade.ALL),
        Frontend(Kind.LOAD_BALANCER, "198.51.100.1", 80, Scope.CLUSTER, Masquerade.ALL),
        Frontend(Kind.NODE_PORT, "", 30080, Scope.CLUSTER, Masquerade.ALL),
    ]


def test_policies_say_which_endpoints_a_frontend_may_choose() -> None:
    """The internalTrafficPolicy rules the cluster IP, externalTrafficPolicy everything else."""
    one = exposed("NodePort", internal_traffic_policy="Local", external_traffic_policy="Local")
    inner, outer = frontends(one)
    assert (inner.scope, inner.masquerade) == (Scope.LOCAL, Masquerade.OFF_CLUSTER)
    assert (outer.scope, outer.masquerade) == (Scope.OUTSIDE_LOCAL, Masquerade.NODE)


def test_a_node_port_left_over_from_another_type_is_not_served() -> None:
    """Only NodePort and LoadBalancer services have node ports."""
    assert [one.kind for one in frontends(exposed("ClusterIP"))] == [Kind.CLUSTER_IP]


def test_source_ranges_are_collapsed_by_family() -> None:
    """One range inside another confuses the kernel's set; ranges of the other family do not restrict this one."""
    texts = [" 192.0.2.0/25", "192.0.2.128/25 ", "192.0.2.7/32", "2001:db8::/32"]
    assert source_ranges(texts, "198.51.100.1", HERE) == ("192.0.2.0/24",)
    assert source_ranges(texts, "2001:db8:1::1", HERE) == ("2001:db8::/32",)
    assert source_ranges(["2001:db8::/32"], "198.51.100.1", HERE) == ()


def test_a_range_with_a_node_in_it_lets_the_load_balancers_own_address_in() -> None:
    """The node's own packets to an address that it has come from that address (kube-proxy's rule)."""
    assert source_ranges(["172.30.0.0/24"], "198.51.100.1", HERE) == ("172.30.0.0/24", "198.51.100.1/32")


def test_the_older_of_two_services_keeps_an_address() -> None:
    """The externalIPs are not allocated, so two services can claim one; what they do not share, both keep."""
    young = exposed("LoadBalancer", LoadBalancerIngress(ip="198.51.100.1"))
    young = replace(young, metadata=replace(young.metadata, name="young", creation_timestamp="2026-02-01T00:00:00Z"))
    old = service("old", "10.96.0.11", external_ips=["198.51.100.1"])
    old = replace(old, metadata=replace(old.metadata, creation_timestamp="2026-01-01T00:00:00Z"))
    planned = plan([young, old], [], HERE).services
    kept = {name: [one.address for one in ports[0].frontends] for (_, name), ports in planned.items()}
    assert kept == {"old": ["10.96.0.11", "198.51.100.1"], "young": ["10.96.0.10", ""]}


def test_nobody_takes_a_cluster_ip_by_naming_it() -> None:
    """Cluster IPs are allocated: an older Service with an external IP like that does not get what is sent there."""
    old = service("old", "10.96.0.11", external_ips=["10.96.0.10"])
    young = service("young", "10.96.0.10")
    young = replace(young, metadata=replace(young.metadata, creation_timestamp="2026-01-01T00:00:00Z"))
    planned = plan([old, young], [], HERE).services
    kept = {name: [one.address for one in ports[0].frontends] for (_, name), ports in planned.items()}
    assert kept == {"old": ["10.96.0.11"], "young": ["10.96.0.10"]}


def test_annotations_and_affinity_become_facts() -> None:
    """svcnat.io annotations and ClientIP affinity, with the API's default timeout."""
    one = service("web", "10.96.0.10", session_affinity="ClientIP")
    notes = {
        "svcnat.io/scheduler": "maglev",
        "svcnat.io/max-connections": "20",
        "svcnat.io/connection-rate": "5/minute",
        "svcnat.io/on-endpoint-removal": "terminate=30",
    }
    one = replace(one, metadata=replace(one.metadata, annotations=notes))
    port = plan_service(one, [], HERE)[0]
    assert (port.scheduler, port.affinity, port.max_connections, port.rate, port.terminate_after) == (
        "maglev",
        10800,
        20,
        Rate(5, 60),
        30,
    )
    config = SessionAffinityConfig(client_ip=ClientIPConfig(timeout_seconds=60))
    assert (
        plan_service(replace(one, spec=replace(one.spec, session_affinity_config=config)), [], HERE)[0].affinity == 60
    )


def test_health_checks_count_this_nodes_ready_endpoints() -> None:
    """A LoadBalancer with policy Local and a healthCheckNodePort, and nothing else, has one."""
    one = exposed("LoadBalancer", external_traffic_policy="Local", health_check_node_port=31000)
    pieces = [slice_of("web", "10.0.0.1", "10.0.0.2", node="node-1"), slice_of("web", "10.0.0.3", node="node-2")]
    assert plan([one], pieces, HERE).health_checks == (HealthCheck(31000, "default", "web", 2),)
    assert plan([exposed("NodePort", external_traffic_policy="Local")], pieces, HERE).health_checks == ()
    drained = slice_of("web", "10.0.0.1", "10.0.0.2", node="node-1", weights='{"10.0.0.1": 0, "10.0.0.2": 0}')
    assert plan([one], [drained], HERE).health_checks == (HealthCheck(31000, "default", "web", 0),)
    other = replace(one, metadata=replace(one.metadata, labels={"service.kubernetes.io/service-proxy-name": "other"}))
    assert plan([other], pieces, HERE).health_checks == ()


def test_health_checks_count_endpoints_not_their_ports() -> None:
    """As kube-proxy: pods that have only one of two named ports are two, a pod with both is one."""
    one = exposed("LoadBalancer", external_traffic_policy="Local", health_check_node_port=31000)
    ports = [replace(one.spec.ports[0], name=name, port=number) for name, number in (("a", 80), ("b", 81))]
    one = replace(one, spec=replace(one.spec, ports=ports))
    pieces = [
        slice_of("web", "10.0.0.1", "10.0.0.2", node="node-1", ports=(("a", 8080, "TCP"),)),
        slice_of("web", "10.0.0.2", "10.0.0.3", node="node-1", ports=(("b", 9090, "TCP"),)),
    ]
    assert plan([one], pieces, HERE).health_checks == (HealthCheck(31000, "default", "web", 3),)


def test_a_port_that_is_not_named_is_matched_by_an_empty_name() -> None:
    """Kubernetes' rule for services with a single port."""
    one = service("web", "10.96.0.10")
    one = replace(one, spec=replace(one.spec, ports=[ServicePort(port=80, protocol=None)]))
    piece = slice_of("web", "10.0.0.1", ports=((None, 8080, None),))
    assert plan_service(one, [piece], HERE)[0].endpoints.anywhere

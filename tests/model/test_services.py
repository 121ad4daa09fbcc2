"""What types and policies entail is said once, for defaults, validation, allocation and rules alike."""

from __future__ import annotations

import pytest

from svcnat.model.objects import ServiceSpec
from svcnat.model.services import cluster_ips_of, has_cluster_ips, has_node_ports, is_exposed, needs_health_check


@pytest.mark.parametrize(
    ("spec", "facts"),
    [
        (ServiceSpec(), (True, False, False, False)),
        (ServiceSpec(external_ips=["192.0.2.1"]), (True, False, True, False)),
        (ServiceSpec(type="ClusterIP", cluster_ip="None"), (False, False, False, False)),
        (ServiceSpec(type="ClusterIP", cluster_ips=["None"]), (False, False, False, False)),
        (ServiceSpec(type="NodePort", external_traffic_policy="Local"), (True, True, True, False)),
        (ServiceSpec(type="LoadBalancer"), (True, True, True, False)),
        (ServiceSpec(type="LoadBalancer", external_traffic_policy="Local"), (True, True, True, True)),
        (ServiceSpec(type="ExternalName", external_ips=["192.0.2.1"]), (False, False, False, False)),
    ],
)
def test_what_a_service_has(spec: ServiceSpec, facts: tuple[bool, ...]) -> None:
    """Cluster IPs, node ports, clients from outside, a health check."""
    assert (has_cluster_ips(spec), has_node_ports(spec), is_exposed(spec), needs_health_check(spec)) == facts


def test_cluster_ips_in_either_field() -> None:
    """The list counts, and where there is none, the older field; None is no address."""
    assert cluster_ips_of(ServiceSpec(cluster_ip="10.96.0.1", cluster_ips=["10.96.0.1", "fd96::1"])) == (
        "10.96.0.1",
        "fd96::1",
    )
    assert cluster_ips_of(ServiceSpec(cluster_ip="10.96.0.1")) == ("10.96.0.1",)
    assert cluster_ips_of(ServiceSpec()) == cluster_ips_of(ServiceSpec(cluster_ip="None")) == ()

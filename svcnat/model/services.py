"""What the type and the policies of a Service entail; whether or not its defaults are filled in.

Source: ``pkg/api/service`` of Kubernetes.
"""

from __future__ import annotations

from svcnat.model.objects import ServiceSpec

HEADLESS = "None"
"""The cluster IP of a Service that wants none."""


def has_cluster_ips(spec: ServiceSpec) -> bool:
    """Tell whether a Service has cluster IPs: it is neither headless nor an ExternalName."""
    return spec.type != "ExternalName" and HEADLESS not in (spec.cluster_ip, *spec.cluster_ips)


def cluster_ips_of(spec: ServiceSpec) -> tuple[str, ...]:
    """Return the cluster IPs of a Service as written; none if it is headless or an ExternalName."""
    if not has_cluster_ips(spec):
        return ()
    return tuple(spec.cluster_ips) or ((spec.cluster_ip,) if spec.cluster_ip else ())


def has_node_ports(spec: ServiceSpec) -> bool:
    """Tell whether a Service is of a type that may have node ports."""
    return spec.type in ("NodePort", "LoadBalancer")


def is_exposed(spec: ServiceSpec) -> bool:
    """Tell whether clients from outside may reach a Service, so that externalTrafficPolicy means something."""
    return has_node_ports(spec) or (spec.type in (None, "ClusterIP") and bool(spec.external_ips))


def needs_health_check(spec: ServiceSpec) -> bool:
    """Tell whether load balancers have to be told which nodes have endpoints of a Service."""
    return spec.type == "LoadBalancer" and spec.external_traffic_policy == "Local"

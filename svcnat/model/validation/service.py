"""What a Service must keep.

Source: core/v1 ValidateService and ValidateServiceUpdate, with their defaults filled in first. Whether an address or a
node port is in its range, and free, is for the controllers to say.
"""

from __future__ import annotations

from svcnat.model.addresses import canonical, family_name
from svcnat.model.objects import Service, ServicePort, ServiceSpec
from svcnat.model.services import HEADLESS, is_exposed, needs_health_check
from svcnat.model.validation.addresses import check_address, check_endpoint, check_network, check_pair
from svcnat.model.validation.metadata import check_metadata
from svcnat.model.validation.names import (
    PROTOCOLS,
    check,
    check_choice,
    check_labels,
    check_port,
    dns_1035_label,
    dns_label,
    dns_subdomain,
    port_name,
    qualified_name,
)
from svcnat.model.validation.problems import Problem, duplicate, forbidden, immutable, invalid, required

TYPES = ("ClusterIP", "NodePort", "LoadBalancer", "ExternalName")
POLICIES = ("SingleStack", "PreferDualStack", "RequireDualStack")
DISTRIBUTIONS = ("PreferClose", "PreferSameZone", "PreferSameNode")
KUBELET_PORT = 10250
LONGEST_AFFINITY = 86400
_FOR_LOAD_BALANCERS = "may only be used when `type` is 'LoadBalancer'"


def check_service(service: Service) -> list[Problem]:
    """Return the problems of a Service that has its defaults."""
    spec = service.spec
    problems = check_metadata(service.metadata, "Service", dns_1035_label)
    problems += check_choice("spec.type", spec.type, TYPES)
    if not spec.ports and spec.type != "ExternalName" and spec.cluster_ip != HEADLESS:
        problems.append(required("spec.ports"))
    problems += _check_ports(spec)
    problems += check_labels("spec.selector", spec.selector)
    problems += _check_external_name(spec) if spec.type == "ExternalName" else _check_cluster_ips(spec)
    problems += _check_families(spec)
    problems += _check_affinity(spec)
    problems += _check_traffic(spec)
    problems += _check_load_balancer(spec)
    for index, address in enumerate(spec.external_ips):
        problems += check_endpoint(f"spec.externalIPs[{index}]", address)
    return problems + _check_status(service)


def _check_ports(spec: ServiceSpec) -> list[Problem]:
    problems = []
    names: set[str] = set()
    numbers: set[tuple[str | None, int | None]] = set()
    taken: set[tuple[str | None, int]] = set()
    for index, port in enumerate(spec.ports):
        path = f"spec.ports[{index}]"
        problems += _check_port(port, path)
        if not port.name and len(spec.ports) > 1:
            problems.append(required(f"{path}.name"))
        elif port.name in names:
            problems.append(duplicate(f"{path}.name", port.name))
        names.add(port.name)
        if port.port is not None and (port.protocol, port.port) in numbers:
            problems.append(duplicate(path, f"{port.protocol} {port.port}"))
        numbers.add((port.protocol, port.port))
        if spec.type == "LoadBalancer" and port.port == KUBELET_PORT:
            text = f"may not expose port {KUBELET_PORT} externally since it is used by kubelet"
            problems.append(invalid(path, port.port, text))
        if port.node_port:
            if spec.type in ("ClusterIP", "ExternalName"):
                problems.append(forbidden(f"{path}.nodePort", f"may not be used when `type` is '{spec.type}'"))
            if (port.protocol, port.node_port) in taken:
                problems.append(duplicate(f"{path}.nodePort", port.node_port))
            taken.add((port.protocol, port.node_port))
    return problems


def _check_port(port: ServicePort, path: str) -> list[Problem]:
    problems = check(f"{path}.name", port.name, dns_label) if port.name else []
    problems += [required(f"{path}.port")] if port.port is None else check_port(f"{path}.port", port.port)
    problems += check_choice(f"{path}.protocol", port.protocol, PROTOCOLS)
    if isinstance(port.target_port, str):
        problems += check(f"{path}.targetPort", port.target_port, port_name)
    elif port.target_port is not None and port.target_port != port.port:
        problems += check_port(f"{path}.targetPort", port.target_port)
    if port.app_protocol is not None:
        problems += check(f"{path}.appProtocol", port.app_protocol, qualified_name)
    return problems


def _check_external_name(spec: ServiceSpec) -> list[Problem]:
    text = "may not be set for ExternalName services"
    written = "clusterIP" if spec.cluster_ip else "clusterIPs"
    given = {written: spec.cluster_ips, "ipFamilies": spec.ip_families, "ipFamilyPolicy": spec.ip_family_policy}
    problems = [forbidden(f"spec.{name}", text) for name, value in given.items() if value]
    if not spec.external_name:
        return [*problems, required("spec.externalName")]
    return problems + check("spec.externalName", spec.external_name.removesuffix("."), dns_subdomain)


def _check_cluster_ips(spec: ServiceSpec) -> list[Problem]:
    path, addresses = "spec.clusterIPs", spec.cluster_ips
    if not addresses:
        return []
    problems = []
    if not spec.cluster_ip:
        problems.append(invalid(path, ", ".join(addresses), "must be empty when `clusterIP` is not specified"))
    elif addresses[0] != spec.cluster_ip:
        problems.append(invalid(path, ", ".join(addresses), "first value must match `clusterIP`"))
    if HEADLESS in addresses:
        if len(addresses) > 1:
            problems.append(invalid(path, ", ".join(addresses), "'None' must be the first and only value"))
        if spec.type != "ClusterIP":
            problems.append(invalid(f"{path}[0]", "None", f"may not be set to 'None' for {spec.type} services"))
        return problems
    if len(addresses) > 2:
        problems.append(invalid(path, ", ".join(addresses), "may only hold up to 2 values"))
    bad = [index for index, address in enumerate(addresses) if canonical(address) is None]
    if bad:
        name = "spec.clusterIP" if bad == [0] and spec.cluster_ip == addresses[0] else ""
        text = "must be empty, 'None', or a valid IP address"
        return problems + [invalid(name or f"{path}[{index}]", addresses[index], text) for index in bad]
    problems += check_pair(path, addresses)
    for index, (address, wanted) in enumerate(zip(addresses, spec.ip_families, strict=False)):
        if wanted in ("IPv4", "IPv6") and wanted != family_name(address):
            text = f"expected an {wanted} value as indicated by `ipFamilies[{index}]`"
            problems.append(invalid(f"{path}[{index}]", address, text))
    if len(addresses) > 1 and spec.ip_family_policy in (None, "SingleStack"):
        text = "must be RequireDualStack or PreferDualStack when multiple cluster IPs are specified"
        problems.append(invalid("spec.ipFamilyPolicy", spec.ip_family_policy, text))
    return problems


def _check_families(spec: ServiceSpec) -> list[Problem]:
    problems = check_choice("spec.ipFamilyPolicy", spec.ip_family_policy, POLICIES)
    for index, name in enumerate(spec.ip_families):
        path = f"spec.ipFamilies[{index}]"
        problems += check_choice(path, name, ("IPv4", "IPv6"))
        if name in spec.ip_families[: min(index, 2)]:
            problems.append(duplicate(path, name))
    if len(set(spec.ip_families)) > 1 and spec.ip_family_policy in (None, "SingleStack") and len(spec.cluster_ips) < 2:
        text = "must be RequireDualStack or PreferDualStack when multiple IP families are specified"
        problems.append(invalid("spec.ipFamilyPolicy", spec.ip_family_policy, text))
    return problems


def _check_affinity(spec: ServiceSpec) -> list[Problem]:
    path, config = "spec.sessionAffinityConfig", spec.session_affinity_config
    problems = check_choice("spec.sessionAffinity", spec.session_affinity, ("ClientIP", "None"))
    if spec.session_affinity == "None" and config is not None:
        problems.append(forbidden(path, "must not be set when session affinity is None"))
    elif config and config.client_ip and config.client_ip.timeout_seconds is not None:
        seconds = config.client_ip.timeout_seconds
        if not 0 < seconds <= LONGEST_AFFINITY:
            text = f"must be greater than 0 and less than {LONGEST_AFFINITY}"
            problems.append(invalid(f"{path}.clientIP.timeoutSeconds", seconds, text))
    return problems


def _check_traffic(spec: ServiceSpec) -> list[Problem]:
    problems = check_choice("spec.internalTrafficPolicy", spec.internal_traffic_policy, ("Cluster", "Local"))
    problems += check_choice("spec.trafficDistribution", spec.traffic_distribution, DISTRIBUTIONS)
    path, policy = "spec.externalTrafficPolicy", spec.external_traffic_policy
    if policy and not is_exposed(spec):
        problems.append(invalid(path, policy, "may only be set for externally-accessible services"))
    else:
        problems += check_choice(path, policy, ("Cluster", "Local"))
    path, port = "spec.healthCheckNodePort", spec.health_check_node_port
    if port:
        problems += check_port(path, port)
        if not needs_health_check(spec):
            text = "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'"
            problems.append(invalid(path, port, text))
    return problems


def _check_load_balancer(spec: ServiceSpec) -> list[Problem]:
    problems = []
    if spec.type != "LoadBalancer":
        given = {
            "allocateLoadBalancerNodePorts": spec.allocate_load_balancer_node_ports,
            "loadBalancerClass": spec.load_balancer_class,
            "loadBalancerSourceRanges": spec.load_balancer_source_ranges or None,
        }
        problems += [
            forbidden(f"spec.{name}", _FOR_LOAD_BALANCERS) for name, value in given.items() if value is not None
        ]
    if spec.load_balancer_class is not None:
        problems += check("spec.loadBalancerClass", spec.load_balancer_class, qualified_name)
    for index, text in enumerate(spec.load_balancer_source_ranges):
        problems += check_network(f"spec.loadBalancerSourceRanges[{index}]", text)
    if spec.load_balancer_ip:
        problems += check_address("spec.loadBalancerIP", spec.load_balancer_ip)
    return problems


def _check_status(service: Service) -> list[Problem]:
    problems = []
    for index, ingress in enumerate(service.status.load_balancer.ingress):
        path = f"status.loadBalancer.ingress[{index}]"
        if ingress.ip is not None:
            problems += check_endpoint(f"{path}.ip", ingress.ip)
        elif ingress.ip_mode is not None:
            problems.append(forbidden(f"{path}.ipMode", "may not be used when `ip` is not set"))
        problems += check_choice(f"{path}.ipMode", ingress.ip_mode, ("VIP", "Proxy"))
        if ingress.hostname is not None:
            problems += check(f"{path}.hostname", ingress.hostname, dns_subdomain)
            if canonical(ingress.hostname):
                text = "must be a DNS name, not an IP address"
                problems.append(invalid(f"{path}.hostname", ingress.hostname, text))
    return problems


def check_service_update(old: Service, new: Service) -> list[Problem]:
    """Return the fields of a Service that may not change, and did.

    Addresses are kept while both types have one; a new version that names none keeps the old ones.
    """
    before, after = old.spec, new.spec
    problems = []
    if "ExternalName" not in (before.type, after.type):
        kept = zip(before.cluster_ips, after.cluster_ips, strict=False)
        for index, (address, wanted) in enumerate(kept):
            if wanted != address and (canonical(wanted) or wanted) != canonical(address):
                problems.append(immutable("spec.clusterIP" if index == 0 else f"spec.clusterIPs[{index}]", wanted))
        if before.ip_families and after.ip_families and before.ip_families[0] != after.ip_families[0]:
            problems.append(invalid("spec.ipFamilies[0]", after.ip_families[0], "may not change once set"))
    if before.type == after.type == "LoadBalancer":
        if before.load_balancer_class != after.load_balancer_class:
            text = "may not change once set"
            problems.append(invalid("spec.loadBalancerClass", after.load_balancer_class, text))
        if before.health_check_node_port and after.health_check_node_port not in (
            None,
            0,
            before.health_check_node_port,
        ):
            problems.append(immutable("spec.healthCheckNodePort", after.health_check_node_port))
    return problems

"""What an EndpointSlice and an Endpoints object must keep.

Source: discovery/v1 ValidateEndpointSlice and core/v1 ValidateEndpoints.
"""

from __future__ import annotations

from collections.abc import Sequence

from svcnat.model.addresses import canonical, family_name
from svcnat.model.objects import Endpoint, EndpointAddress, Endpoints, EndpointSlice, EndpointSlicePort
from svcnat.model.validation.addresses import check_endpoint
from svcnat.model.validation.metadata import check_metadata
from svcnat.model.validation.names import (
    PROTOCOLS,
    check,
    check_choice,
    check_labels,
    check_port,
    dns_label,
    dns_subdomain,
    qualified_name,
)
from svcnat.model.validation.problems import Problem, duplicate, immutable, invalid, required, too_many, unsupported

ADDRESS_TYPES = ("IPv4", "IPv6", "FQDN")
MOST_ENDPOINTS = 1000
MOST_PORTS = 100
MOST_ADDRESSES = 100
MOST_HINTS = 8
MOST_TOPOLOGY_LABELS = 16


def check_slice(endpoint_slice: EndpointSlice) -> list[Problem]:
    """Return the problems of an EndpointSlice that has its defaults."""
    problems = check_metadata(endpoint_slice.metadata, "EndpointSlice", dns_subdomain)
    kind = endpoint_slice.address_type
    if not kind:
        problems.append(required("addressType"))
    elif kind not in ADDRESS_TYPES:
        problems.append(unsupported("addressType", kind, ADDRESS_TYPES))
    endpoints, ports = endpoint_slice.endpoints, endpoint_slice.ports
    if len(endpoints) > MOST_ENDPOINTS:
        problems.append(too_many("endpoints", len(endpoints), MOST_ENDPOINTS))
    else:
        for index, endpoint in enumerate(endpoints):
            problems += _check_endpoint(endpoint, kind, f"endpoints[{index}]")
    if len(ports) > MOST_PORTS:
        return [*problems, too_many("ports", len(ports), MOST_PORTS)]
    return problems + _check_ports(ports, "ports", named=False)


def _check_endpoint(endpoint: Endpoint, kind: str, path: str) -> list[Problem]:
    problems = []
    if not endpoint.addresses:
        problems.append(required(f"{path}.addresses", "must contain at least 1 address"))
    elif len(endpoint.addresses) > MOST_ADDRESSES:
        problems.append(too_many(f"{path}.addresses", len(endpoint.addresses), MOST_ADDRESSES))
    for index, address in enumerate(endpoint.addresses[:MOST_ADDRESSES]):
        problems += _check_address(address, kind, f"{path}.addresses[{index}]")
    if endpoint.hostname is not None:
        problems += check(f"{path}.hostname", endpoint.hostname, dns_label)
    if endpoint.node_name is not None:
        problems += check(f"{path}.nodeName", endpoint.node_name, dns_subdomain)
    hints = endpoint.hints
    for name, given in (("forZones", hints.for_zones), ("forNodes", hints.for_nodes)) if hints else ():
        if len(given) > MOST_HINTS:
            problems.append(too_many(f"{path}.hints.{name}", len(given), MOST_HINTS))
        missing = [index for index, hint in enumerate(given) if not hint.name]
        problems += [required(f"{path}.hints.{name}[{index}].name") for index in missing]
    topology = endpoint.deprecated_topology
    if len(topology) > MOST_TOPOLOGY_LABELS:
        problems.append(too_many(f"{path}.deprecatedTopology", len(topology), MOST_TOPOLOGY_LABELS))
    return problems + check_labels(f"{path}.deprecatedTopology", topology)


def _check_address(address: str, kind: str, path: str) -> list[Problem]:
    if kind == "FQDN":
        problems = check(path, address.removesuffix("."), dns_subdomain)
        if not problems and "." not in address.removesuffix("."):
            problems.append(invalid(path, address, "should be a domain with at least two segments separated by dots"))
        return problems
    if kind in ("IPv4", "IPv6") and (canonical(address) is None or family_name(address) != kind):
        return [invalid(path, address, f"must be a valid {kind} address")]
    return check_endpoint(path, address) if kind in ("IPv4", "IPv6") else []


def _check_ports(ports: Sequence[EndpointSlicePort], path: str, *, named: bool) -> list[Problem]:
    """Check the ports of a slice, or of an Endpoints subset (`named`: names are required when there are several)."""
    problems = []
    names: set[str | None] = set()
    for index, port in enumerate(ports):
        at = f"{path}[{index}]"
        if port.name:
            problems += check(f"{at}.name", port.name, dns_label)
        if named and not port.name and len(ports) > 1:
            problems.append(required(f"{at}.name"))
        elif port.name in names:
            problems.append(duplicate(f"{at}.name", port.name))
        names.add(port.name)
        if port.port is not None:
            problems += check_port(f"{at}.port", port.port)
        elif named:
            problems.append(required(f"{at}.port"))
        problems += check_choice(f"{at}.protocol", port.protocol, PROTOCOLS)
        if port.app_protocol is not None:
            problems += check(f"{at}.appProtocol", port.app_protocol, qualified_name)
    return problems


def check_slice_update(old: EndpointSlice, new: EndpointSlice) -> list[Problem]:
    """Return the problem of a slice whose address type changed."""
    return [] if old.address_type == new.address_type else [immutable("addressType", new.address_type)]


def check_endpoints(endpoints: Endpoints) -> list[Problem]:
    """Return the problems of an Endpoints object that has its defaults."""
    problems = check_metadata(endpoints.metadata, "Endpoints", dns_subdomain)
    for index, subset in enumerate(endpoints.subsets):
        path = f"subsets[{index}]"
        if not subset.addresses and not subset.not_ready_addresses:
            problems.append(required(path, "must specify `addresses` or `notReadyAddresses`"))
        lists = {"addresses": subset.addresses, "notReadyAddresses": subset.not_ready_addresses}
        for name, addresses in lists.items():
            for number, address in enumerate(addresses):
                problems += _check_endpoints_address(address, f"{path}.{name}[{number}]")
        problems += _check_ports(subset.ports, f"{path}.ports", named=True)
    return problems


def _check_endpoints_address(address: EndpointAddress, path: str) -> list[Problem]:
    problems = check_endpoint(f"{path}.ip", address.ip) if address.ip else [required(f"{path}.ip")]
    if address.hostname:
        problems += check(f"{path}.hostname", address.hostname, dns_label)
    if address.node_name is not None:
        problems += check(f"{path}.nodeName", address.node_name, dns_subdomain)
    return problems

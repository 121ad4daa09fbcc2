"""What the services of one node ask for, decided once, for any renderer.

Here the Kubernetes fields become facts: these frontends, these endpoints, masqueraded like so. The renderers read
only the Plan. This module knows no nftables and no iptables; it allocates nothing and makes no EndpointSlices.
Source of the rules: core/v1 Service and discovery/v1 EndpointSlice; kube-proxy's behaviour where they are silent.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import ip_address
from typing import Literal

from svcnat.errors import UsageError
from svcnat.model.addresses import canonical, canonical_network
from svcnat.model.objects import Endpoint, EndpointSlice, Service, ServicePort

Family = Literal["ip", "ip6"]  # as nftables spells them
FAMILIES: tuple[Family, ...] = ("ip", "ip6")
PROTOCOLS = ("tcp", "udp", "sctp")

# Any value of these labels hands the Service to something else, or to nobody (core/v1 well-known labels).
OPT_OUT_LABELS = ("service.kubernetes.io/headless", "service.kubernetes.io/service-proxy-name")
SERVICE_LABEL = "kubernetes.io/service-name"


class Masquerade(enum.Enum):
    """Whose source address a frontend's flows lose; a hairpin always loses it."""

    OFF_CLUSTER = "off-cluster"  # clients outside clusterCIDR; everyone with masqueradeAll


@dataclass(frozen=True, slots=True)
class Settings:
    """What a node knows of itself: its name, and where its pods' addresses come from (CIDRs, both families)."""

    node_name: str = ""
    cluster_cidrs: tuple[str, ...] = ()
    masquerade_all: bool = False

    def __post_init__(self) -> None:
        """Refuse what is no CIDR: it becomes the text of a rule.

        Raises:
            UsageError: a range is not the canonical text of one.

        """
        for cidr in self.cluster_cidrs:
            if canonical_network(cidr) != cidr:
                raise UsageError(f"clusterCIDR: {cidr!r} is not a range of addresses such as 10.244.0.0/16")

    def pod_ranges(self, family: Family) -> tuple[str, ...]:
        """The CIDRs of one family."""
        return tuple(cidr for cidr in self.cluster_cidrs if (":" in cidr) == (family == "ip6"))


@dataclass(frozen=True, slots=True)
class Frontend:
    """An address and port that clients use."""

    address: str
    port: int
    masquerade: Masquerade


@dataclass(frozen=True, slots=True)
class ServicePortPlan:
    """One port of one Service in one family.

    ``backends`` are (address, port), each to be chosen with the same probability; none means refuse.
    ``title`` is ``namespace/name:port``, for people: it is never parsed and may hold any character.
    """

    title: str
    family: Family
    protocol: str
    frontends: tuple[Frontend, ...]
    backends: tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True)
class Plan:
    """The services of one node; ``services`` maps (namespace, name) to the ports of the service."""

    settings: Settings
    services: dict[tuple[str, str], tuple[ServicePortPlan, ...]]


def plan(services: Iterable[Service], slices: Iterable[EndpointSlice], settings: Settings) -> Plan:
    """Decide what every Service asks for, given all EndpointSlices.

    Services must have their cluster IPs (:mod:`svcnat.controllers` allocates them); slices belong to the Service
    that their ``kubernetes.io/service-name`` label names, in their namespace.
    """
    by_service: dict[tuple[str, str], list[EndpointSlice]] = {}
    for piece in slices:
        if name := piece.metadata.labels.get(SERVICE_LABEL):
            by_service.setdefault((piece.metadata.namespace, name), []).append(piece)
    planned = {}
    for service in services:
        identity = (service.metadata.namespace, service.metadata.name)
        if ports := plan_service(service, by_service.get(identity, ())):
            planned[identity] = ports
    return Plan(settings, planned)


def plan_service(service: Service, slices: Iterable[EndpointSlice]) -> tuple[ServicePortPlan, ...]:
    """Decide one Service, given its own EndpointSlices; nothing for headless, ExternalName and opted-out ones."""
    spec = service.spec
    if spec.type == "ExternalName" or any(label in service.metadata.labels for label in OPT_OUT_LABELS):
        return ()
    addresses = [_spelled(ip) for ip in (spec.cluster_ips or [spec.cluster_ip or "None"]) if ip not in ("", "None")]
    if not addresses:
        return ()
    slices = tuple(slices)
    ports = []
    for port in spec.ports:
        protocol = (port.protocol or "TCP").lower()
        if port.port is None or protocol not in PROTOCOLS:
            raise UsageError(f"{service.metadata.name}: a Service that was never validated")
        title = f"{service.metadata.namespace}/{service.metadata.name}:{port.name or port.port}"
        for address in addresses:
            family: Family = "ip6" if ":" in address else "ip"
            ports.append(
                ServicePortPlan(
                    title=title,
                    family=family,
                    protocol=protocol,
                    frontends=(Frontend(address, port.port, Masquerade.OFF_CLUSTER),),
                    backends=usable_backends(port, slices, family),
                )
            )
    return tuple(ports)


def usable_backends(port: ServicePort, slices: Iterable[EndpointSlice], family: Family) -> tuple[tuple[str, int], ...]:
    """The (address, port) pairs that may get new connections: the ready; if none is, those serving and terminating.

    The same pair in two slices counts once. Sorted by address, so that equal objects give equal rules.
    Source: KEP-1669 (terminating endpoints), discovery/v1 EndpointConditions.
    """
    ready: set[tuple[str, int]] = set()
    leaving: set[tuple[str, int]] = set()
    for endpoint, number in _endpoints_of(port, slices, "IPv6" if family == "ip6" else "IPv4"):
        conditions = endpoint.conditions
        if conditions.ready is not False:
            ready.add((_spelled(endpoint.addresses[0]), number))
        elif conditions.serving is not False and conditions.terminating:
            leaving.add((_spelled(endpoint.addresses[0]), number))
    return tuple(sorted(ready or leaving, key=_numeric))


def _endpoints_of(
    port: ServicePort, slices: Iterable[EndpointSlice], address_type: str
) -> Iterator[tuple[Endpoint, int]]:
    """Endpoints whose slice has this port: slice ports match by name **and** protocol, None meaning "" and TCP."""
    wanted = (port.name, port.protocol or "TCP")
    for piece in slices:
        if piece.address_type != address_type:
            continue
        for candidate in piece.ports:
            if (candidate.name or "", candidate.protocol or "TCP") == wanted and candidate.port is not None:
                for endpoint in piece.endpoints:
                    if endpoint.addresses:
                        yield endpoint, candidate.port


def _spelled(address: str) -> str:
    """The canonical text of an address: it becomes the key of an element, so nothing else may pass."""
    found = canonical(address)
    if found is None:
        raise UsageError(f"{address!r} is not an IP address")
    return found


def _numeric(backend: tuple[str, int]) -> tuple[int, int]:
    return address_number(backend[0]), backend[1]


@lru_cache(maxsize=65536)
def address_number(address: str) -> int:
    """The address as a number, for an order that people expect (10.0.0.9 before 10.0.0.10)."""
    return int(ip_address(address))

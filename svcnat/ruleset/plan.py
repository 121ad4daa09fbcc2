"""What the services of one node ask for, decided once, for any renderer.

Here the Kubernetes fields become facts: these frontends, these endpoints behind each, masqueraded or refused like so.
The renderers read only the Plan. This module knows no nftables and no iptables; it allocates nothing and makes no
EndpointSlices. Source of the rules: core/v1 Service, and kube-proxy's behaviour where it is silent.
"""

from __future__ import annotations

import enum
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field, replace
from ipaddress import collapse_addresses, ip_address, ip_network

from svcnat.errors import UsageError
from svcnat.model.addresses import canonical_network
from svcnat.model.defaults import AFFINITY_SECONDS
from svcnat.model.extensions import (
    CONNECTION_RATE,
    MAX_CONNECTIONS,
    ON_REMOVAL,
    PROBE,
    SCHEDULER,
    Rate,
    Scheduler,
    parse_max_connections,
    parse_rate,
    parse_removal,
    parse_scheduler,
)
from svcnat.model.labels import HEADLESS_LABEL, PROXY_LABEL, SERVICE_LABEL
from svcnat.model.objects import EndpointSlice, Service, ServicePort
from svcnat.model.services import cluster_ips_of, has_node_ports, needs_health_check
from svcnat.ruleset.endpoints import Endpoints, Family, categorize, family_of, spelled

Identity = tuple[str, str]  # namespace and name of a Service
Claim = tuple[Family, str, str, int]  # a frontend: family, address ("" for a node port), protocol, port
Seniority = tuple[str, str, str]

FAMILIES: tuple[Family, ...] = ("ip", "ip6")
PROTOCOLS = ("tcp", "udp", "sctp")

# Any value of these labels hands the Service to something else, or to nobody (core/v1 well-known labels).
OPT_OUT_LABELS = (HEADLESS_LABEL, PROXY_LABEL)


class Kind(enum.Enum):
    """How clients reach a frontend."""

    CLUSTER_IP = "cluster IP"
    EXTERNAL_IP = "external IP"
    LOAD_BALANCER = "load balancer IP"
    NODE_PORT = "node port"


class Scope(enum.Enum):
    """Which endpoints a frontend may choose."""

    CLUSTER = "cluster"  # all of them
    LOCAL = "local"  # this node's, for everyone (internalTrafficPolicy: Local)
    OUTSIDE_LOCAL = "outside-local"  # this node's for outsiders; all for pods and the node (external policy Local)


class Masquerade(enum.Enum):
    """Whose source address a frontend's flows lose; a hairpin always loses it."""

    OFF_CLUSTER = "off-cluster"  # clients outside clusterCIDR; everyone with masqueradeAll
    ALL = "all"
    NODE = "node"  # the node itself


@dataclass(frozen=True, slots=True)
class Settings:
    """What a node knows of itself.

    ``cluster_cidrs``: where its pods' addresses come from. ``addresses``: its own. ``node_port_addresses``: those of
    them that answer node ports. ``announces``: it answers on its links for load-balancer and external IPs.
    ``drop_cidrs``: service ranges whose unallocated addresses are dropped. ``bridges``: Linux bridges whose traffic
    netfilter does not see. ``endpoint_counters``: count each endpoint's connections; None leaves it to their number.
    Ranges and addresses are canonical text of either family.
    """

    node_name: str = ""
    zone: str = ""
    cluster_cidrs: tuple[str, ...] = ()
    masquerade_all: bool = False
    addresses: tuple[str, ...] = ()
    node_port_addresses: tuple[str, ...] = ()
    localhost_node_ports: bool = False
    announces: bool = False
    drop_cidrs: tuple[str, ...] = ()
    bridges: tuple[str, ...] = ()
    endpoint_counters: bool | None = None

    def __post_init__(self) -> None:
        """Refuse what is no CIDR or address: it becomes the text of a rule.

        Raises:
            UsageError: a range or an address is not the canonical text of one.

        """
        for cidr in (*self.cluster_cidrs, *self.drop_cidrs):
            if canonical_network(cidr) != cidr:
                raise UsageError(f"clusterCIDR: {cidr!r} is not a range of addresses such as 10.244.0.0/16")
        for address in (*self.addresses, *self.node_port_addresses):
            if spelled(address) != address:
                raise UsageError(f"{address!r} is not the canonical text of an address")

    def pod_ranges(self, family: Family) -> tuple[str, ...]:
        """The CIDRs of one family."""
        return of_family(self.cluster_cidrs, family)


def of_family(texts: Iterable[str], family: Family) -> tuple[str, ...]:
    """The addresses or ranges of one family."""
    return tuple(text for text in texts if family_of(text) == family)


@dataclass(frozen=True, slots=True)
class Frontend:
    """An address and port that clients use; a node port has no address: the node's own answer.

    ``ranges``: the only sources that may use it (CIDRs, disjoint); none means everyone. ``announced``: this host
    answers for the address on a link, so nobody else can have it.
    """

    kind: Kind
    address: str
    port: int
    scope: Scope
    masquerade: Masquerade
    ranges: tuple[str, ...] = ()
    announced: bool = False


@dataclass(frozen=True, slots=True)
class ServicePortPlan:
    """One port of one Service in one family.

    ``title`` is ``namespace/name:port``, for people: it is never parsed and may hold any character. ``affinity`` is how
    many seconds a client stays with its endpoint, 0 if not at all. ``terminate_after``: so many seconds after an
    endpoint went, its connections are ended; None leaves them alone.
    """

    title: str
    family: Family
    protocol: str
    frontends: tuple[Frontend, ...]
    endpoints: Endpoints
    scheduler: Scheduler = "random"
    affinity: int = 0
    max_connections: int = 0
    rate: Rate | None = None
    terminate_after: int | None = None

    @property
    def ends_flows(self) -> bool:
        """True if the flows of endpoints that are gone are ended: those of UDP might go on for ever."""
        return self.protocol == "udp" or self.terminate_after is not None


@dataclass(frozen=True, slots=True)
class HealthCheck:
    """A healthCheckNodePort: 200 while this node has ready endpoints, else 503 (core/v1, kube-proxy's answer)."""

    port: int
    namespace: str
    name: str
    local_endpoints: int


@dataclass(frozen=True, slots=True)
class Plan:
    """The services of one node; ``services`` maps (namespace, name) to the ports of the service."""

    settings: Settings
    services: dict[Identity, tuple[ServicePortPlan, ...]]
    health_checks: tuple[HealthCheck, ...] = field(default=())


def plan(services: Iterable[Service], slices: Iterable[EndpointSlice], settings: Settings) -> Plan:
    """Decide what every Service asks for, given all EndpointSlices.

    Services must have their addresses and node ports (:mod:`svcnat.controllers` allocates them); slices belong to the
    Service that their ``kubernetes.io/service-name`` label names, in their namespace. Of two Services that claim the
    same address, protocol and port, the one whose cluster IP it is has it, else the older one.
    """
    by_service: dict[Identity, list[EndpointSlice]] = {}
    for piece in slices:
        if name := piece.metadata.labels.get(SERVICE_LABEL):
            by_service.setdefault((piece.metadata.namespace, name), []).append(piece)
    planned: dict[Identity, tuple[ServicePortPlan, ...]] = {}
    checks: list[HealthCheck] = []
    for service in sorted(services, key=seniority):
        identity = (service.metadata.namespace, service.metadata.name)
        if ports := plan_service(service, by_service.get(identity, ()), settings):
            planned[identity] = ports
            checks += filter(None, [health_check(service, ports)])
    owners = _owners(planned)
    for identity, ports in planned.items():
        lost = {claim for claim in claims_of(ports) if owners[claim] != identity}
        planned[identity] = tuple(without(port, lost) for port in ports)
    return Plan(settings, planned, tuple(checks))


def seniority(service: Service) -> Seniority:
    """What Services are ordered by, the older first: no two have the same."""
    meta = service.metadata
    return meta.creation_timestamp or "", meta.namespace, meta.name


def _owners(planned: dict[Identity, tuple[ServicePortPlan, ...]]) -> dict[Claim, Identity]:
    """Who has each address, protocol and port; cluster IPs first, lest an external IP takes what was allocated."""
    owners: dict[Claim, Identity] = {}
    for allocated in (True, False):
        for identity, ports in planned.items():
            for port in ports:
                for frontend in port.frontends:
                    if (frontend.kind is Kind.CLUSTER_IP) is allocated:
                        owners.setdefault(claim_of(port, frontend), identity)
    return owners


def claim_of(port: ServicePortPlan, frontend: Frontend) -> Claim:
    """What only one Service can have."""
    return port.family, frontend.address, port.protocol, frontend.port


def claims_of(ports: Iterable[ServicePortPlan]) -> set[Claim]:
    """Everything that a Service with these ports claims."""
    return {claim_of(port, frontend) for port in ports for frontend in port.frontends}


def without(port: ServicePortPlan, lost: Collection[Claim]) -> ServicePortPlan:
    """The port without the frontends that another Service has."""
    mine = tuple(each for each in port.frontends if claim_of(port, each) not in lost)
    return port if len(mine) == len(port.frontends) else replace(port, frontends=mine)


def plan_service(service: Service, slices: Iterable[EndpointSlice], settings: Settings) -> tuple[ServicePortPlan, ...]:
    """Decide one Service, given its own EndpointSlices; nothing for headless, ExternalName and opted-out ones."""
    if any(label in service.metadata.labels for label in OPT_OUT_LABELS):
        return ()
    spec, slices = service.spec, tuple(slices)
    addresses = [spelled(ip) for ip in cluster_ips_of(spec)]
    return tuple(_plan_port(service, port, address, slices, settings) for port in spec.ports for address in addresses)


def _plan_port(
    service: Service, port: ServicePort, address: str, slices: tuple[EndpointSlice, ...], settings: Settings
) -> ServicePortPlan:
    """Decide one port in the family of one of the cluster IPs."""
    meta, spec = service.metadata, service.spec
    protocol = (port.protocol or "TCP").lower()
    if port.port is None or protocol not in PROTOCOLS:
        raise UsageError(f"{meta.name}: a Service that was never validated")
    family = family_of(address)
    notes = meta.annotations
    return ServicePortPlan(
        title=f"{meta.namespace}/{meta.name}:{port.name or port.port}",
        family=family,
        protocol=protocol,
        frontends=tuple(_frontends(service, port, port.port, address, settings)),
        endpoints=categorize(port, slices, family, node=settings.node_name, zone=settings.zone, probed=PROBE in notes),
        scheduler=parse_scheduler(notes.get(SCHEDULER, "random")),
        affinity=_affinity(service) if spec.session_affinity == "ClientIP" else 0,
        max_connections=parse_max_connections(notes[MAX_CONNECTIONS]) if MAX_CONNECTIONS in notes else 0,
        rate=parse_rate(notes[CONNECTION_RATE]) if CONNECTION_RATE in notes else None,
        terminate_after=parse_removal(notes.get(ON_REMOVAL, "keep")).terminate_after,
    )


def _frontends(
    service: Service, port: ServicePort, number: int, address: str, settings: Settings
) -> Iterator[Frontend]:
    """Where clients reach a port in the family of `address`: its cluster IP, and from outside."""
    spec = service.spec
    family = family_of(address)
    inner = Scope.LOCAL if spec.internal_traffic_policy == "Local" else Scope.CLUSTER
    yield Frontend(Kind.CLUSTER_IP, address, number, inner, Masquerade.OFF_CLUSTER)
    if spec.external_traffic_policy == "Local":
        outer, masquerade = Scope.OUTSIDE_LOCAL, Masquerade.NODE
    else:
        outer, masquerade = Scope.CLUSTER, Masquerade.ALL
    seen = {address}
    for external in of_family(map(spelled, spec.external_ips), family):
        if external not in seen:
            seen.add(external)
            announced = settings.announces and answerable(external, settings)
            yield Frontend(Kind.EXTERNAL_IP, external, number, outer, masquerade, announced=announced)
    if spec.type == "LoadBalancer":
        for ingress in service.status.load_balancer.ingress:
            if not ingress.ip or ingress.ip_mode == "Proxy":
                continue
            balanced = spelled(ingress.ip)
            if balanced not in seen and of_family([balanced], family):
                seen.add(balanced)
                ranges = source_ranges(spec.load_balancer_source_ranges, balanced, settings)
                announced = settings.announces and answerable(balanced, settings)
                yield Frontend(Kind.LOAD_BALANCER, balanced, number, outer, masquerade, ranges, announced)
    if port.node_port and has_node_ports(spec):
        yield Frontend(Kind.NODE_PORT, "", port.node_port, outer, masquerade)


def answerable(address: str, settings: Settings) -> bool:
    """True if the node does not answer for the address already, as for those of its devices."""
    return address not in (*settings.addresses, *settings.node_port_addresses)


def source_ranges(texts: Iterable[str], address: str, settings: Settings) -> tuple[str, ...]:
    """The sources that may use a load balancer's `address`: ranges of its family, disjoint; none means everyone.

    A range that holds an address of this node lets the load balancer's own address in too: it is the source of the
    node's own packets to it where the address is on a device (kube-proxy does the same).
    Adjacent and nested ranges are merged: a set with one range inside another refuses them or not, by their order.
    """
    family = family_of(address)
    networks = [ip_network(text.strip(), strict=False) for text in texts]
    mine = [network for network in networks if (network.version == 6) == (family == "ip6")]
    if not mine:
        return ()
    nodes = [ip_address(each) for each in of_family(settings.addresses, family)]
    if any(node in network for node in nodes for network in mine):
        mine.append(ip_network(address))
    return tuple(str(network) for network in collapse_addresses(mine))  # type: ignore[type-var]


def _affinity(service: Service) -> int:
    config = service.spec.session_affinity_config
    seconds = config.client_ip.timeout_seconds if config and config.client_ip else None
    return AFFINITY_SECONDS if seconds is None else seconds


def health_check(service: Service, ports: Iterable[ServicePortPlan]) -> HealthCheck | None:
    """The health check that a LoadBalancer with policy Local has, None if it has none.

    It counts addresses, as kube-proxy does: several ports of one endpoint are one endpoint.
    """
    spec = service.spec
    if not spec.health_check_node_port or not needs_health_check(spec):
        return None
    ready: dict[Family, set[str]] = {family: set() for family in FAMILIES}
    for port in ports:
        ready[port.family] |= port.endpoints.local_ready
    most = max(map(len, ready.values()))
    return HealthCheck(spec.health_check_node_port, service.metadata.namespace, service.metadata.name, most)

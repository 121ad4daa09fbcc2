"""EndpointSlices for Services: of the Pods that a selector picks, or mirrored from an Endpoints object.

Written by hand, slices are nobody's business here: only those that carry one of the two ``managed-by`` labels below are
touched. Sources: the endpointslice and endpointslicemirroring controllers of Kubernetes
(``k8s.io/endpointslice/reconciler.go``, ``utils.go``); hints are those of trafficDistribution alone.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice

from msgspec.structs import replace

from svcnat.controllers.merge import LAST_APPLIED
from svcnat.controllers.naming import fresh_name
from svcnat.controllers.world import World, by_place
from svcnat.model.addresses import canonical, family_name
from svcnat.model.extensions import (
    PROBE_RESULTS,
    WEIGHT,
    WEIGHTS,
    parse_probe_results,
    parse_weight,
    parse_weights,
)
from svcnat.model.kinds import kind_of
from svcnat.model.labels import HEADLESS_LABEL, MANAGER_LABEL, SERVICE_LABEL, SKIP_MIRROR_LABEL, ZONE_LABEL
from svcnat.model.objects import (
    Endpoint,
    EndpointAddress,
    EndpointConditions,
    EndpointHints,
    Endpoints,
    EndpointSlice,
    EndpointSlicePort,
    Hint,
    Node,
    ObjectMeta,
    ObjectReference,
    OwnerReference,
    Pod,
    Resource,
    Service,
    ServicePort,
)
from svcnat.model.pods import addresses_of, has_ended, is_ready
from svcnat.model.services import HEADLESS

FROM_PODS = "endpointslice-controller.svcnat.io"
FROM_ENDPOINTS = "endpointslicemirroring-controller.svcnat.io"
MANAGERS = (FROM_PODS, FROM_ENDPOINTS)

MOST_ENDPOINTS = 100
"""In one slice: kube-controller-manager's ``--max-endpoints-per-slice``."""

_BY_ADDRESS = (WEIGHTS, PROBE_RESULTS)
"""Annotations that speak of addresses: a slice has those of its own."""

Group = tuple[str, tuple[EndpointSlicePort, ...]]
"""Endpoints that can share a slice: address type and ports."""


@dataclass(slots=True)
class _Wanted:
    """The slices that one manager wants for a Service: whose they are, their endpoints, and what is said by address.

    That is their weights, and what probes of an Endpoints object's addresses found out.
    """

    owner: Resource | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)
    groups: dict[Group, dict[tuple[str, str], Endpoint]] = field(default_factory=dict)
    weights: dict[str, int] = field(default_factory=dict)
    results: dict[str, bool] = field(default_factory=dict)

    def add(self, group: Group, endpoint: Endpoint) -> None:
        self.groups.setdefault(group, {}).setdefault(_identity(endpoint), endpoint)


def reconcile(world: World, namespace: str, name: str) -> None:
    """Make the managed EndpointSlices of a Service, which may be gone, what its Pods or its Endpoints say."""
    service = world.get(Service, namespace, name)
    endpoints = world.get(Endpoints, namespace, name)
    slices = world.labelled(EndpointSlice, namespace, {SERVICE_LABEL: name})
    wanted = dict.fromkeys(MANAGERS, _Wanted())
    if service and service.spec.type != "ExternalName":
        if service.spec.selector:
            wanted[FROM_PODS] = _of_pods(world, service)
        elif endpoints and endpoints.metadata.labels.get(SKIP_MIRROR_LABEL) != "true":
            wanted[FROM_ENDPOINTS] = _of_endpoints(endpoints)
    # Kubernetes forgets the slices of a Service that lost its selector: they would name Pods long dead. Here they go.
    for manager, want in wanted.items():
        existing = [each for each in slices if each.metadata.labels.get(MANAGER_LABEL) == manager]
        _write(world, f"{name}-", manager, want, existing)


# --- what is wanted ------------------------------------------------------------------------------------------


def _of_pods(world: World, service: Service) -> _Wanted:
    labels = dict(service.metadata.labels)
    if service.spec.cluster_ip == HEADLESS:
        labels[HEADLESS_LABEL] = ""
    else:
        labels.pop(HEADLESS_LABEL, None)
    wanted = _Wanted(service, {**labels, SERVICE_LABEL: service.metadata.name})
    zones: dict[str, str | None] = {}
    for pod in world.labelled(Pod, service.metadata.namespace, service.spec.selector):
        if has_ended(pod):
            continue
        node = pod.spec.node_name
        if node not in zones:
            zones[node] = _zone(world, node)
        ports = tuple(_ports(service, pod))
        for family in service.spec.ip_families:
            if addresses := [ip for ip in addresses_of(pod) if family_name(ip) == family]:
                wanted.add((family, ports), _endpoint(service, pod, addresses, zones[node]))
                wanted.weights.setdefault(canonical(addresses[0]) or addresses[0], _weight(pod))
    for family in service.spec.ip_families:
        if not any(group[0] == family for group in wanted.groups):
            wanted.groups[family, ()] = {}  # An empty slice says that somebody looked, and there is nothing.
    return wanted


def _zone(world: World, node_name: str) -> str | None:
    node = world.get(Node, "", node_name) if node_name else None
    return node.metadata.labels.get(ZONE_LABEL) if node else None


def _endpoint(service: Service, pod: Pod, addresses: list[str], zone: str | None) -> Endpoint:
    meta, spec = pod.metadata, pod.spec
    serving, terminating = is_ready(pod), meta.deletion_timestamp is not None
    ready = bool(service.spec.publish_not_ready_addresses) or (serving and not terminating)
    named = spec.hostname and spec.subdomain == service.metadata.name
    return Endpoint(
        addresses=addresses,
        conditions=EndpointConditions(ready=ready, serving=serving, terminating=terminating),
        hostname=spec.hostname if named else None,
        target_ref=ObjectReference(kind="Pod", namespace=meta.namespace, name=meta.name, uid=meta.uid),
        node_name=spec.node_name or None,
        zone=zone,
        hints=_hints(service.spec.traffic_distribution, zone, spec.node_name) if ready else None,
    )


def _hints(distribution: str | None, zone: str | None, node_name: str) -> EndpointHints | None:
    """Return where a ready endpoint is meant to be used; whoever reads hints decides what a missing one means.

    Source: KEP-4444 and KEP-3015, ``k8s.io/endpointslice/trafficdist``: each endpoint for itself; a reader falls back
    to all endpoints if one of them has no hint.
    """
    if distribution is None:
        return None
    for_zones = [Hint(name=zone)] if zone else []
    for_nodes = [Hint(name=node_name)] if node_name and distribution == "PreferSameNode" else []
    return EndpointHints(for_zones=for_zones, for_nodes=for_nodes) if for_zones or for_nodes else None


def _weight(pod: Pod) -> int:
    return parse_weight(pod.metadata.annotations.get(WEIGHT, "1"))


def _ports(service: Service, pod: Pod) -> Iterator[EndpointSlicePort]:
    """Yield the Service's ports as this Pod has them; one that the Pod does not have is left out."""
    for port in service.spec.ports:
        number = _target(port, pod)
        if number:
            yield EndpointSlicePort(
                name=port.name, protocol=port.protocol or "TCP", port=number, app_protocol=port.app_protocol
            )


def _target(port: ServicePort, pod: Pod) -> int | None:
    if not isinstance(port.target_port, str):
        return port.target_port or port.port
    # Sidecars (init containers that restart always) serve as long as the others do.
    sidecars = (each for each in pod.spec.init_containers if each.restart_policy == "Always")
    for container in (*pod.spec.containers, *sidecars):
        for offered in container.ports:
            if offered.name == port.target_port and (offered.protocol or "TCP") == (port.protocol or "TCP"):
                return offered.container_port
    return None


def _of_endpoints(endpoints: Endpoints) -> _Wanted:
    labels = {**endpoints.metadata.labels, SERVICE_LABEL: endpoints.metadata.name}
    given = endpoints.metadata.annotations
    annotations = {key: text for key, text in given.items() if key not in (LAST_APPLIED, *_BY_ADDRESS)}
    weights, results = parse_weights(given.get(WEIGHTS, "{}")), parse_probe_results(given.get(PROBE_RESULTS, "{}"))
    wanted = _Wanted(endpoints, labels, annotations, weights=weights, results=results)
    for ready in (True, False):  # The first mention of an address counts.
        for subset in endpoints.subsets:
            for address in subset.addresses if ready else subset.not_ready_addresses:
                wanted.add((family_name(address.ip), tuple(subset.ports)), _mirrored(address, ready=ready))
    return wanted


def _mirrored(address: EndpointAddress, *, ready: bool) -> Endpoint:
    return Endpoint(
        addresses=[address.ip],
        conditions=EndpointConditions(ready=ready),
        hostname=address.hostname or None,
        target_ref=address.target_ref,
        node_name=address.node_name,
    )


# --- where it goes -------------------------------------------------------------------------------------------


def _identity(endpoint: Endpoint) -> tuple[str, str]:
    return (endpoint.target_ref.uid if endpoint.target_ref else "", endpoint.addresses[0])


def _write(world: World, prefix: str, manager: str, wanted: _Wanted, existing: Sequence[EndpointSlice]) -> None:
    for each in existing:
        if (each.address_type, tuple(each.ports)) not in wanted.groups:
            world.remove(each)
    for (address_type, ports), endpoints in wanted.groups.items():
        present = [each for each in existing if (each.address_type, tuple(each.ports)) == (address_type, ports)]
        for old, placed in _placed(present, endpoints):
            if old and not placed and (endpoints or old is not present[0]):
                world.remove(old)  # Unless nothing is left at all: then one stays, empty.
                continue
            metadata = _metadata(manager, wanted, old, placed)
            if old is None:
                name = fresh_name(world, EndpointSlice, metadata.namespace, prefix)
                metadata = replace(metadata, name=name, generate_name=prefix)
            world.put(EndpointSlice(metadata=metadata, address_type=address_type, endpoints=placed, ports=list(ports)))


def _placed(
    slices: Sequence[EndpointSlice], endpoints: Mapping[tuple[str, str], Endpoint]
) -> list[tuple[EndpointSlice | None, list[Endpoint]]]:
    """Spread endpoints over slices so that few of them change: each stays where it is, new ones fill gaps.

    A slice may end up empty; None stands for a slice to be made, of which there is one if there is nothing at all.
    """
    rest = dict(endpoints)
    placed: list[tuple[EndpointSlice, list[Endpoint]]] = []
    for each in slices:
        mine = [identity for identity in dict.fromkeys(map(_identity, each.endpoints)) if identity in rest]
        placed.append((each, [rest.pop(identity) for identity in mine[:MOST_ENDPOINTS]]))
    # Gaps are filled first in the slices that are rewritten anyway, then in the emptiest ones.
    for _, kept in sorted(placed, key=lambda pair: (pair[1] == pair[0].endpoints, len(pair[1]))):
        kept += [rest.pop(identity) for identity in list(islice(rest, MOST_ENDPOINTS - len(kept)))]
    new = list(rest.values())
    starts = range(0, len(new), MOST_ENDPOINTS) if slices or new else (0,)
    return [*placed, *((None, new[start : start + MOST_ENDPOINTS]) for start in starts)]


def _metadata(manager: str, wanted: _Wanted, old: EndpointSlice | None, endpoints: Iterable[Endpoint]) -> ObjectMeta:
    assert wanted.owner is not None  # Only a wanted slice is written, and it is wanted for somebody.
    owner = wanted.owner
    namespace, owner_name = by_place(owner)
    reference = OwnerReference(
        api_version="v1",
        kind=kind_of(owner).name,
        name=owner_name,
        uid=owner.metadata.uid,
        controller=True,
        block_owner_deletion=True,
    )
    meta = old.metadata if old else ObjectMeta(namespace=namespace)
    kept = {key: text for key, text in meta.annotations.items() if key not in _BY_ADDRESS}
    return replace(
        meta,
        labels={**wanted.labels, MANAGER_LABEL: manager},
        annotations={**kept, **wanted.annotations, **_by_address(wanted, endpoints)},
        owner_references=[reference],
    )


def _by_address(wanted: _Wanted, endpoints: Iterable[Endpoint]) -> dict[str, str]:
    """Return the annotations about these endpoints' addresses; weights of 1 and good results are not mentioned."""
    addresses = {canonical(each.addresses[0]) or each.addresses[0] for each in endpoints}
    said = {
        WEIGHTS: {ip: wanted.weights[ip] for ip in addresses if wanted.weights.get(ip, 1) != 1},
        PROBE_RESULTS: {ip: False for ip in addresses if not wanted.results.get(ip, True)},
    }
    return {key: json.dumps(values, sort_keys=True) for key, values in said.items() if values}

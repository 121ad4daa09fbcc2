"""Endpoints as people still ask for them: what the slices of a Service say, in the older form.

svcnat stores no Endpoints but those written by hand; these are made for the reader. Source: the endpoints controller of
Kubernetes (``pkg/controller/endpoint``) and ``RepackSubsets``: the first address family only, at most 1,000 addresses.
"""

from __future__ import annotations

import uuid
from collections import defaultdict
from collections.abc import Iterable, Iterator

from msgspec.structs import replace

from svcnat.controllers.slices import FROM_PODS
from svcnat.controllers.world import Place, Reader, by_place
from svcnat.model.labels import HEADLESS_LABEL, MANAGER_LABEL, SERVICE_LABEL
from svcnat.model.objects import (
    Endpoint,
    EndpointAddress,
    Endpoints,
    EndpointSlice,
    EndpointSlicePort,
    EndpointSubset,
    ObjectMeta,
    Service,
)
from svcnat.model.services import HEADLESS

OVER_CAPACITY = "endpoints.kubernetes.io/over-capacity"
MOST_ADDRESSES = 1000
_MANAGED_LABEL = "endpoints.kubernetes.io/managed-by"


def has_endpoints(service: Service) -> bool:
    """Tell whether Kubernetes would keep an Endpoints object for a Service: it selects Pods."""
    return bool(service.spec.selector) and service.spec.type != "ExternalName"


def endpoints_of(service: Service, slices: Iterable[EndpointSlice]) -> Endpoints:
    """Return the Endpoints object of a Service that selects Pods; slices written by hand are not in it."""
    family = (service.spec.ip_families or ["IPv4"])[0]
    mine = [
        each for each in slices if each.address_type == family and each.metadata.labels.get(MANAGER_LABEL) == FROM_PODS
    ]
    groups: defaultdict[tuple[EndpointSlicePort, ...], dict[str, tuple[bool, EndpointAddress]]] = defaultdict(dict)
    for each in mine:
        for endpoint in each.endpoints:
            ready = endpoint.conditions.ready is not False
            if ready or not endpoint.conditions.terminating:
                groups[tuple(each.ports)].setdefault(_identity(endpoint), (ready, _address(endpoint)))
    subsets = [_subset(ports, groups[ports].values()) for ports in sorted(groups, key=_order)]
    kept = list(_truncated(subsets))
    return Endpoints(metadata=_metadata(service, mine, truncated=kept != subsets), subsets=kept)


def derived(reader: Reader, namespace: str | None = None) -> list[Endpoints]:
    """Return all Endpoints objects, written by hand or made here, of one namespace or (None) of all."""
    slices: defaultdict[Place, list[EndpointSlice]] = defaultdict(list)
    for each in reader.list(EndpointSlice, namespace):
        slices[each.metadata.namespace, each.metadata.labels.get(SERVICE_LABEL, "")].append(each)
    found = {
        by_place(service): endpoints_of(service, slices[by_place(service)])
        for service in reader.list(Service, namespace)
        if has_endpoints(service)
    }
    found |= {by_place(each): each for each in reader.list(Endpoints, namespace)}
    return [found[place] for place in sorted(found)]


def derived_one(reader: Reader, namespace: str, name: str) -> Endpoints | None:
    """Return the Endpoints object of a name, written by hand or made here, or None."""
    if written := reader.get(Endpoints, namespace, name):
        return written
    service = reader.get(Service, namespace, name)
    if service is None or not has_endpoints(service):
        return None
    return endpoints_of(service, reader.labelled(EndpointSlice, namespace, {SERVICE_LABEL: name}))


def _order(ports: tuple[EndpointSlicePort, ...]) -> list[tuple[str, str, int]]:
    return [(port.name or "", port.protocol or "", port.port or 0) for port in ports]


def _identity(endpoint: Endpoint) -> str:
    return f"{endpoint.addresses[0]} {endpoint.target_ref.uid if endpoint.target_ref else ''}"


def _address(endpoint: Endpoint) -> EndpointAddress:
    return EndpointAddress(
        ip=endpoint.addresses[0],
        hostname=endpoint.hostname or "",
        node_name=endpoint.node_name,
        target_ref=endpoint.target_ref,
    )


def _subset(ports: tuple[EndpointSlicePort, ...], found: Iterable[tuple[bool, EndpointAddress]]) -> EndpointSubset:
    addresses = sorted(found, key=lambda pair: (pair[1].ip, pair[1].target_ref.uid if pair[1].target_ref else ""))
    return EndpointSubset(
        addresses=[address for ready, address in addresses if ready],
        not_ready_addresses=[address for ready, address in addresses if not ready],
        ports=[replace(port, name=port.name or None) for port in ports],
    )


def _truncated(subsets: Iterable[EndpointSubset]) -> Iterator[EndpointSubset]:
    """Yield the subsets with no more addresses than an Endpoints object may have."""
    left = MOST_ADDRESSES
    for subset in subsets:
        ready = subset.addresses[:left]
        left -= len(ready)
        others = subset.not_ready_addresses[:left]
        left -= len(others)
        if ready or others:
            yield replace(subset, addresses=ready, not_ready_addresses=others)


def _metadata(service: Service, slices: Iterable[EndpointSlice], *, truncated: bool) -> ObjectMeta:
    """Return metadata that follows from the objects alone: the same whenever somebody looks."""
    meta = service.metadata
    labels = {key: value for key, value in meta.labels.items() if key != HEADLESS_LABEL}
    headless = {HEADLESS_LABEL: ""} if service.spec.cluster_ip == HEADLESS else {}
    versions = [each.metadata.resource_version for each in (service, *slices)]
    return ObjectMeta(
        name=meta.name,
        namespace=meta.namespace,
        labels={**labels, _MANAGED_LABEL: "endpoint-controller", **headless},
        annotations={OVER_CAPACITY: "truncated"} if truncated else {},
        uid=str(uuid.uuid5(uuid.NAMESPACE_OID, f"Endpoints of {meta.uid}")),
        resource_version=max(versions, key=lambda text: int(text or "0")),
        creation_timestamp=meta.creation_timestamp,
    )

"""What is in a test's lab at the moment: names and addresses, endpoints, and a text for whoever reads a failure.

It reads the store and the topology, and asks no pod.
"""

from __future__ import annotations

from dataclasses import dataclass

from svcnat.api.labs import Lab
from svcnat.model.objects import EndpointSlice, Pod, Resource, Service
from svcnat.model.pods import addresses_of, is_ready
from svcnat.model.services import cluster_ips_of
from svcnat.store.snapshot import Snapshot
from svcnat.testing.destinations import Names

NAMESPACE = "default"

_OWNER = "kubernetes.io/service-name"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A pod (or what else has the address) behind a service; `ready`: it gets connections."""

    pod: str
    address: str
    ready: bool

    def __str__(self) -> str:
        return f"{self.pod or self.address}{'' if self.ready else ' (not ready)'}"


def split(name: str) -> tuple[str, str]:
    """The namespace and the name of an object, given as NAME or NAMESPACE/NAME."""
    namespace, slash, bare = name.rpartition("/")
    return (namespace, bare) if slash else (NAMESPACE, bare)


def name_of(resource: Resource) -> str:
    """What a test calls an object: NAME, or NAMESPACE/NAME."""
    metadata = resource.metadata
    return metadata.name if metadata.namespace == NAMESPACE else metadata.qualified_name


def names(lab: Lab) -> Names:
    """Everything in a lab that a flow can go to."""
    topology = lab.built.topology
    hosts = {node.name: tuple(node.addresses) for node in topology.nodes}
    hosts |= {client.name: tuple(client.addresses) for client in topology.clients}
    with lab.read() as snapshot:
        return Names(snapshot.list(Service), snapshot.list(Pod), hosts)


def endpoints(snapshot: Snapshot, namespace: str, service: str) -> list[Endpoint]:
    """What is behind a service, each pod once and with its IPv4 address if it has one, the ready ones first."""
    found: dict[str, Endpoint] = {}
    slices = snapshot.labelled(EndpointSlice, namespace, {_OWNER: service})
    for each in sorted(slices, key=lambda each: each.address_type):
        for endpoint in each.endpoints:
            pod = endpoint.target_ref.name if endpoint.target_ref else ""
            address = endpoint.addresses[0]
            found.setdefault(pod or address, Endpoint(pod, address, endpoint.conditions.ready is not False))
    return sorted(found.values(), key=lambda endpoint: (not endpoint.ready, endpoint.pod, endpoint.address))


def describe(lab: Lab) -> str:
    """A line for each service, pod, node and client."""
    known = names(lab)
    lines = []
    with lab.read() as snapshot:
        for service in known.services:
            ports = ", ".join(f"{each.port}/{each.protocol}" for each in service.spec.ports)
            addresses = ", ".join(cluster_ips_of(service.spec)) or "no address"
            found = endpoints(snapshot, service.metadata.namespace, service.metadata.name)
            behind = ", ".join(str(each) for each in found) or "nothing"
            lines.append(f"  service {name_of(service)} {addresses} {ports}: {behind}")
    for pod in known.pods:
        ready = "ready" if is_ready(pod) else "not ready"
        addresses = ", ".join(addresses_of(pod)) or "no address"
        lines.append(f"  pod {name_of(pod)} {pod.status.phase}, {ready}: {addresses} on {pod.spec.node_name or 'none'}")
        lines += [f"    {each.message}" for each in pod.status.conditions if each.message]
    lines += [f"  {name}: {', '.join(addresses)}" for name, addresses in known.hosts.items()]
    return "\n".join(lines)

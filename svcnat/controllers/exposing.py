"""The Service that ``expose`` makes of an object: its selector, ports and labels, as far as nobody says otherwise.

Source: k8s.io/kubectl's ``expose``, and its generator ``service/v2``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from svcnat.errors import UsageError
from svcnat.model.kinds import kind_of
from svcnat.model.objects import (
    Deployment,
    ObjectMeta,
    Pod,
    PodSpec,
    ReplicaSet,
    Resource,
    Service,
    ServicePort,
    ServiceSpec,
)

_LONGEST_NAME = 63
_SELECTOR = "couldn't retrieve selectors via --selector flag or introspection"


@dataclass(frozen=True, slots=True)
class Exposure:
    """What somebody says of the Service; what is empty, or None, follows from the object."""

    name: str = ""
    ports: tuple[int, ...] = ()
    target_port: int | str | None = None
    protocol: str = ""
    type: str = ""
    selector: Mapping[str, str] | None = None
    labels: Mapping[str, str] | None = None
    external_ip: str = ""
    load_balancer_ip: str = ""
    cluster_ip: str = ""
    session_affinity: str = ""


def exposed(resource: Resource, wanted: Exposure) -> Service:
    """Return the Service; it is not complete, and nobody has looked whether it is valid.

    Raises:
        UsageError: there is nothing of the kind to expose, or no port or selector.

    """
    if not isinstance(resource, Pod | Service | Deployment | ReplicaSet):
        raise UsageError(f"cannot expose a {kind_of(resource).name}")
    metadata = resource.metadata
    selector = _selector_of(resource) if wanted.selector is None else wanted.selector
    ports = _ports(resource, wanted)
    if not ports and wanted.cluster_ip != "None":
        raise UsageError("couldn't find port via --port flag or introspection")
    labels = metadata.labels if wanted.labels is None else wanted.labels
    return Service(
        metadata=ObjectMeta(
            name=wanted.name or metadata.name[:_LONGEST_NAME], namespace=metadata.namespace, labels=dict(labels)
        ),
        spec=ServiceSpec(
            type=wanted.type or None,
            ports=ports,
            selector=dict(selector),
            cluster_ip=wanted.cluster_ip or None,
            external_ips=[wanted.external_ip] if wanted.external_ip else [],
            load_balancer_ip=wanted.load_balancer_ip or None,
            session_affinity=wanted.session_affinity or None,
        ),
    )


def _selector_of(resource: Pod | Service | Deployment | ReplicaSet) -> Mapping[str, str]:
    match resource:
        case Pod():
            if not resource.metadata.labels:
                raise UsageError(f"{_SELECTOR}: the pod has no labels and cannot be exposed")
            return resource.metadata.labels
        case Service():
            if not resource.spec.selector:
                raise UsageError(f"{_SELECTOR}: the service has no pod selector set")
            return resource.spec.selector
    selector = resource.spec.selector
    if selector is None or selector.match_expressions or not selector.match_labels:
        raise UsageError(f"{_SELECTOR}: couldn't convert expressions to map-based selector format")
    return selector.match_labels


def _ports(resource: Pod | Service | Deployment | ReplicaSet, wanted: Exposure) -> list[ServicePort]:
    declared = _declared(resource)
    pairs: dict[tuple[int, str], None] = {}
    for number in wanted.ports or dict.fromkeys(number for number, _ in declared):
        known = [protocol for other, protocol in declared if other == number]
        for protocol in [wanted.protocol] if wanted.protocol else known or ["TCP"]:
            pairs[number, protocol] = None
    return [
        ServicePort(
            name=f"port-{index}" if len(pairs) > 1 else "",
            port=number,
            protocol=protocol,
            target_port=number if wanted.target_port is None else wanted.target_port,
        )
        for index, (number, protocol) in enumerate(pairs, 1)
    ]


def _declared(resource: Pod | Service | Deployment | ReplicaSet) -> list[tuple[int, str]]:
    """Return number and protocol of each port that the object has."""
    if isinstance(resource, Service):
        return [(port.port or 0, port.protocol or "TCP") for port in resource.spec.ports]
    pod: PodSpec = resource.spec if isinstance(resource, Pod) else resource.spec.template.spec
    return [
        (port.container_port or 0, port.protocol or "TCP") for container in pod.containers for port in container.ports
    ]

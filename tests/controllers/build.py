"""Short ways to write the objects that the tests of controllers and store are about."""

from __future__ import annotations

from typing import Any

from svcnat.controllers.world import Reader
from svcnat.model.objects import (
    Condition,
    Container,
    ContainerPort,
    EndpointSlice,
    ObjectMeta,
    Pod,
    PodIP,
    PodSpec,
    PodStatus,
    Service,
    ServicePort,
    ServiceSpec,
)


def service(name: str = "web", *, namespace: str = "default", ports: tuple[Any, ...] = (80,), **spec: Any) -> Service:
    """A Service that selects app=NAME unless told otherwise; a port is a number or a ServicePort."""
    spec.setdefault("selector", {"app": name})
    return Service(
        metadata=ObjectMeta(name=name, namespace=namespace),
        spec=ServiceSpec(ports=[ServicePort(port=port) if isinstance(port, int) else port for port in ports], **spec),
    )


def pod(
    name: str,
    *ips: str,
    labels: dict[str, str] | None = None,
    namespace: str = "default",
    ready: bool = True,
    phase: str = "Running",
    deleted: str | None = None,
    ports: tuple[tuple[str, int, str], ...] = (),
    **spec: Any,
) -> Pod:
    """A Pod of app=web with these addresses; `ports` are (name, number, protocol) of its container."""
    container = Container(
        name="main",
        image="image",
        ports=[ContainerPort(name=port, container_port=number, protocol=protocol) for port, number, protocol in ports],
    )
    return Pod(
        metadata=ObjectMeta(
            name=name,
            namespace=namespace,
            labels={"app": "web"} if labels is None else labels,
            deletion_timestamp=deleted,
        ),
        spec=PodSpec(containers=[container], **spec),
        status=PodStatus(
            phase=phase,
            pod_ip=ips[0] if ips else "",
            pod_ips=[PodIP(ip=ip) for ip in ips],
            conditions=[Condition(type="Ready", status="True" if ready else "False")],
        ),
    )


def slices_of(world: Reader, name: str = "web", namespace: str = "default") -> list[EndpointSlice]:
    """All EndpointSlices of a Service."""
    return list(world.labelled(EndpointSlice, namespace, {"kubernetes.io/service-name": name}))


def endpoints_of(world: Reader, name: str = "web", namespace: str = "default") -> set[tuple[str, int | None, bool]]:
    """What clients of a Service get to know: (address, port, ready); port None for an endpoint without ports."""
    return {
        (endpoint.addresses[0], port, endpoint.conditions.ready is not False)
        for each in slices_of(world, name, namespace)
        for endpoint in each.endpoints
        for port in [port.port for port in each.ports] or [None]
    }

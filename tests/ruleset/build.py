"""Services and slices as the tests of the ruleset want them, in one line each."""

from __future__ import annotations

from svcnat.model.objects import (
    Endpoint,
    EndpointConditions,
    EndpointSlice,
    EndpointSlicePort,
    ObjectMeta,
    Service,
    ServicePort,
    ServiceSpec,
)

READY = EndpointConditions()
LEAVING = EndpointConditions(ready=False, serving=True, terminating=True)
DEAD = EndpointConditions(ready=False, serving=False, terminating=True)
NOT_READY = EndpointConditions(ready=False)


def service(name: str = "web", *ips: str, ports: tuple[tuple[int, str], ...] = ((80, "TCP"),), **spec) -> Service:
    """A ClusterIP service; a port is (number, protocol) and is named after both."""
    return Service(
        metadata=ObjectMeta(name=name, namespace="default", labels=spec.pop("labels", {})),
        spec=ServiceSpec(
            type=spec.pop("type", "ClusterIP"),
            cluster_ips=list(ips),
            ports=[ServicePort(name=f"p{number}", port=number, protocol=protocol) for number, protocol in ports],
            **spec,
        ),
    )


def slice_of(
    name: str,
    *addresses: str | tuple[str, EndpointConditions],
    ports: tuple[tuple[str, int | None, str], ...] = (("p80", 8080, "TCP"),),
    kind: str = "IPv4",
    node: str | None = None,
    weights: str = "",
) -> EndpointSlice:
    """A slice of service `name`; an address may come with its conditions; a port is (name, number, protocol)."""
    pairs = [(one, READY) if isinstance(one, str) else one for one in addresses]
    return EndpointSlice(
        metadata=ObjectMeta(
            name=f"{name}-x",
            namespace="default",
            labels={"kubernetes.io/service-name": name},
            annotations={"svcnat.io/weights": weights} if weights else {},
        ),
        address_type=kind,
        endpoints=[
            Endpoint(addresses=[address], conditions=conditions, node_name=node) for address, conditions in pairs
        ],
        ports=[EndpointSlicePort(name=label, port=number, protocol=protocol) for label, number, protocol in ports],
    )

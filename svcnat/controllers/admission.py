"""What happens to an object on its way into a World: what it keeps of its predecessor, defaults, checks, claims.

It is the part of kube-apiserver that the create, apply and replace of a store share. It writes no object.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from typing import Any, TypeVar

from msgspec.structs import replace

from svcnat.controllers.allocation import allocate, with_families
from svcnat.controllers.claims import cluster_ip
from svcnat.controllers.world import World
from svcnat.errors import Finding, ManifestError
from svcnat.model.defaults import with_defaults
from svcnat.model.kinds import subject
from svcnat.model.objects import ObjectMeta, Pod, Resource, Service, ServicePort, ServiceSpec
from svcnat.model.services import has_node_ports, is_exposed, needs_health_check
from svcnat.model.validation import Problem, validate, validate_update

R = TypeVar("R", bound=Resource)

KUBERNETES = ("default", "kubernetes")
"""Namespace and name of the Service that every store has."""


def admit(world: World, new: R, old: R | None) -> R:
    """Return the object as it may be written: complete, valid, and with what it needs claimed.

    Raises:
        ManifestError: it breaks a rule, changes what may not change, or asks for what it cannot have.
        ExhaustedError: no address or node port is left.

    """
    complete: Any = with_defaults(new if old is None else _carry(new, old))
    before: Any = old
    _check(complete, validate(complete))
    if isinstance(complete, Service):
        complete = with_families(complete, before, world.ranges.services)
    _check(complete, validate_update(before, complete) if before else [])
    if isinstance(complete, Service):
        complete = allocate(complete, before, world.ranges, world)
    return complete  # type: ignore[no-any-return]


def keep_status(new: R, old: R) -> R:
    """Return `new` with the status of `old`, unless it has one of its own."""
    status: Any = getattr(new, "status", None)
    if status is None or status != type(status)():
        return new
    return replace(new, status=old.status)  # type: ignore[attr-defined]


def kubernetes_service(world: World) -> Service:
    """Return the Service ``default/kubernetes``: https at the first address of the first range, if that is free."""
    namespace, name = KUBERNETES
    service = Service(
        metadata=ObjectMeta(
            namespace=namespace, name=name, labels={"component": "apiserver", "provider": "kubernetes"}
        ),
        spec=ServiceSpec(ports=[ServicePort(name="https", protocol="TCP", port=443, target_port=6443)]),
    )
    first = world.ranges.services[0].kubernetes
    if world.claim(cluster_ip(first), service):
        service = replace(service, spec=replace(service.spec, cluster_ip=first))
    return admit(world, service, None)


def _check(resource: Resource, problems: list[Problem]) -> None:
    if problems:
        raise ManifestError([Finding("", 0, subject(resource), each.field, each.reason) for each in problems])


def _carry(new: R, old: R) -> R:
    """Return `new` with what a manifest leaves to the system, as `old` has it."""
    if isinstance(new, Service) and isinstance(old, Service):
        return replace(new, spec=_carry_spec(new.spec, old.spec))
    if isinstance(new, Pod) and isinstance(old, Pod):
        carried: Any = _carry_pod(new, old)
        return carried  # type: ignore[no-any-return]
    return new


def _carry_pod(new: Pod, old: Pod) -> Pod:
    """Keep the node; of the two fields for addresses, the one that was edited alone is what was meant."""
    spec, status = new.spec, new.status
    if not spec.node_name:
        spec = replace(spec, node_name=old.spec.node_name)
    if status.pod_ip != old.status.pod_ip and status.pod_ips == old.status.pod_ips:
        status = replace(status, pod_ips=[])
    elif status.pod_ips and status.pod_ip == old.status.pod_ip and status.pod_ips != old.status.pod_ips:
        status = replace(status, pod_ip="")
    return replace(new, spec=spec, status=status)


def _carry_spec(new: ServiceSpec, old: ServiceSpec) -> ServiceSpec:
    """Keep addresses and node ports, and drop what a new type has no use for.

    Source: ``patchAllocatedValues``, ``dropTypeDependentFields`` and ``normalizeClusterIPs`` of kube-apiserver.
    """
    empty = ServiceSpec()
    useless = [name for name in _useless(new) if getattr(new, name) == getattr(old, name)]
    new = replace(new, **{name: getattr(empty, name) for name in useless}, ports=_carry_node_ports(new, old))
    if needs_health_check(new) and needs_health_check(old) and not new.health_check_node_port:
        new = replace(new, health_check_node_port=old.health_check_node_port)
    if new.type == "ExternalName":
        return new
    if old.type != "ExternalName" and old.cluster_ips:
        if new.cluster_ip in (None, "", old.cluster_ip) and new.cluster_ips in ([], old.cluster_ips):
            new = replace(new, cluster_ip=old.cluster_ip, cluster_ips=old.cluster_ips)
        elif new.cluster_ip and new.cluster_ips == old.cluster_ips:
            new = replace(new, cluster_ips=[new.cluster_ip])  # Only the older field was edited: it is what was meant.
        if new.cluster_ips == old.cluster_ips and new.ip_families in ([], old.ip_families):
            policy = new.ip_family_policy or old.ip_family_policy
            new = replace(new, ip_families=old.ip_families, ip_family_policy=policy)
    if new.ip_family_policy == "SingleStack" and old.ip_family_policy != "SingleStack":
        new = replace(
            new,
            cluster_ips=new.cluster_ips[:1] if new.cluster_ips == old.cluster_ips else new.cluster_ips,
            ip_families=new.ip_families[:1] if new.ip_families == old.ip_families else new.ip_families,
        )
    return new


def _useless(spec: ServiceSpec) -> Iterator[str]:
    """Yield the fields that a Service of this type cannot have: unchanged, they are remains of another type."""
    if spec.type == "ExternalName":
        yield from ("cluster_ip", "cluster_ips", "ip_families", "ip_family_policy", "internal_traffic_policy")
    if not is_exposed(spec):
        yield "external_traffic_policy"
    if spec.type != "LoadBalancer":
        yield from ("allocate_load_balancer_node_ports", "load_balancer_class")
    if not needs_health_check(spec):
        yield "health_check_node_port"
    if spec.session_affinity != "ClientIP":
        yield "session_affinity_config"


def _carry_node_ports(new: ServiceSpec, old: ServiceSpec) -> list[ServicePort]:
    """Keep node ports with the names of their ports, as Kubernetes does, else with number and protocol.

    A type without node ports drops those that are no news. Where node ports are not given unasked, they are not kept
    unasked either: whoever leaves them out gives them up.
    """
    given = {port.node_port for port in old.ports if port.node_port}
    if not has_node_ports(new):
        remains = {port.node_port for port in new.ports if port.node_port} <= given
        return [replace(port, node_port=None) for port in new.ports] if remains else new.ports
    if not has_node_ports(old) or (new.type == "LoadBalancer" and new.allocate_load_balancer_node_ports is False):
        return new.ports
    ports = list(new.ports)
    taken = {(port.protocol or "TCP", port.node_port) for port in ports if port.node_port}
    for key in (_name, _number):
        kept = {key(port): port.node_port for port in old.ports}
        for index, port in enumerate(ports):
            number = kept.get(key(port))
            if number and not port.node_port and (port.protocol or "TCP", number) not in taken:
                taken.add((port.protocol or "TCP", number))
                ports[index] = replace(port, node_port=number)
    return ports


def _name(port: ServicePort) -> Hashable:
    return port.name


def _number(port: ServicePort) -> Hashable:
    return port.port, port.protocol or "TCP"

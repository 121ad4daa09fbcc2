"""kubectl's columns for each kind: an object becomes the cells of its row.

Source: pkg/printers/internalversion of Kubernetes. Cells are raw text; :mod:`svcnat.cli.terminal` makes them harmless
and aligns them. Which objects are listed, and in what order, is :mod:`svcnat.cli.listing`'s business.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from svcnat.cli.ages import age
from svcnat.cli.happenings import seen, source
from svcnat.cli.pods import pod_ready, pod_restarts, pod_status
from svcnat.model.conditions import condition_of
from svcnat.model.objects import (
    Condition,
    ConfigMap,
    ControllerRevision,
    DaemonSet,
    Deployment,
    Endpoints,
    EndpointSlice,
    EndpointSlicePort,
    Event,
    LabelSelector,
    Namespace,
    Node,
    Pod,
    PodTemplateSpec,
    ReplicaSet,
    Secret,
    SelectorRequirement,
    Service,
    ServicePort,
    StatefulSet,
)
from svcnat.model.pods import addresses_of

NONE = "<none>"
UNKNOWN = "<unknown>"
UNSET = "<unset>"

_SHOWN = 3
_ROLE = "node-role.kubernetes.io/"


@dataclass(frozen=True, slots=True)
class Columns:
    """The table of one kind; `cells` gives those of `headers`, then those that ``-o wide`` adds.

    `order` is that of all cells in a wide table, where what is added does not come last.
    """

    headers: tuple[str, ...]
    wide: tuple[str, ...]
    cells: Callable[[Any, datetime], tuple[str, ...]]
    order: tuple[int, ...] = ()

    def chosen(self, cells: Sequence[str], *, wide: bool) -> list[str]:
        """The cells of a row, or of the headers, that are shown."""
        if not wide:
            return list(cells[: len(self.headers)])
        return [cells[place] for place in self.order] if self.order else list(cells)


def labels_text(labels: Mapping[str, str]) -> str:
    """Labels, or an equality selector, as ``a=b,c=d`` in the order of their keys."""
    return ",".join(f"{key}={labels[key]}" for key in sorted(labels)) or NONE


def selector_text(selector: LabelSelector | None) -> str:
    """A label selector as ``-l`` would take it."""
    if selector is None:
        return NONE
    parts = [(key, f"{key}={value}") for key, value in selector.match_labels.items()]
    parts += [(term.key, _requirement(term)) for term in selector.match_expressions]
    return ",".join(text for _, text in sorted(parts)) or NONE


def _requirement(term: SelectorRequirement) -> str:
    match term.operator:
        case "Exists":
            return term.key
        case "DoesNotExist":
            return f"!{term.key}"
    return f"{term.key} {term.operator.lower()} ({','.join(sorted(term.values))})"


def host_port(address: str, port: int | None) -> str:
    """An endpoint as ``address:port``, IPv6 in brackets; without a port, the bare address."""
    if port is None:
        return address
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def condition(conditions: Iterable[Condition], kind: str) -> str | None:
    """The status of a condition: True, False or Unknown; None if nobody set it."""
    found = condition_of(conditions, kind)
    return found.status if found else None


def shortened(items: Sequence[str], empty: str) -> str:
    """The first three of a list, and how many more there are."""
    text = ",".join(items[:_SHOWN])
    return f"{text} + {len(items) - _SHOWN} more..." if len(items) > _SHOWN else text or empty


# --- Services and their endpoints ----------------------------------------------------------------------------


def _service(service: Service, now: datetime) -> tuple[str, ...]:
    spec = service.spec
    addresses = spec.cluster_ips or ([spec.cluster_ip] if spec.cluster_ip else [])
    return (
        service.metadata.name,
        spec.type or "ClusterIP",
        addresses[0] if addresses else NONE,
        external_addresses(service),
        ",".join(map(_port, spec.ports)) or NONE,
        age(service.metadata.creation_timestamp, now),
        labels_text(spec.selector),
    )


def external_addresses(service: Service) -> str:
    """EXTERNAL-IP: load-balancer addresses and external IPs, or the name that an ExternalName stands for."""
    spec = service.spec
    if spec.type == "ExternalName":
        return spec.external_name or NONE
    if spec.type == "LoadBalancer":
        ingress = {entry.ip or entry.hostname or "" for entry in service.status.load_balancer.ingress}
        return ",".join([*sorted(ingress - {""}), *spec.external_ips]) or "<pending>"
    return ",".join(spec.external_ips) or NONE


def _port(port: ServicePort) -> str:
    node_port = f":{port.node_port}" if port.node_port else ""
    return f"{port.port}{node_port}/{port.protocol or 'TCP'}"


def _endpoints(endpoints: Endpoints, now: datetime) -> tuple[str, ...]:
    items = [
        host_port(address.ip, port.port)
        for subset in endpoints.subsets
        for port in subset.ports or [EndpointSlicePort()]
        for address in subset.addresses
    ]
    return endpoints.metadata.name, shortened(items, NONE), age(endpoints.metadata.creation_timestamp, now)


def _endpoint_slice(endpoint_slice: EndpointSlice, now: datetime) -> tuple[str, ...]:
    ports = [port.name or "*" if port.port is None else str(port.port) for port in endpoint_slice.ports]
    addresses = [address for endpoint in endpoint_slice.endpoints for address in endpoint.addresses]
    return (
        endpoint_slice.metadata.name,
        endpoint_slice.address_type,
        shortened(ports, UNSET),
        shortened(addresses, UNSET),
        age(endpoint_slice.metadata.creation_timestamp, now),
    )


# --- Pods and Deployments ------------------------------------------------------------------------------------


def _pod(pod: Pod, now: datetime) -> tuple[str, ...]:
    gates = pod.spec.readiness_gates
    passed = sum(condition(pod.status.conditions, gate.condition_type) == "True" for gate in gates)
    return (
        pod.metadata.name,
        pod_ready(pod),
        pod_status(pod),
        pod_restarts(pod, now),
        age(pod.metadata.creation_timestamp, now),
        next(iter(addresses_of(pod)), NONE),
        pod.spec.node_name or NONE,
        pod.status.nominated_node_name or NONE,
        f"{passed}/{len(gates)}" if gates else NONE,
    )


def _deployment(deployment: Deployment, now: datetime) -> tuple[str, ...]:
    spec, status = deployment.spec, deployment.status
    replicas = 1 if spec.replicas is None else spec.replicas
    return (
        deployment.metadata.name,
        f"{status.ready_replicas or 0}/{replicas}",
        str(status.updated_replicas or 0),
        str(status.available_replicas or 0),
        age(deployment.metadata.creation_timestamp, now),
        *_containers(spec.template),
        selector_text(spec.selector),
    )


def _replica_set(replica_set: ReplicaSet, now: datetime) -> tuple[str, ...]:
    spec, status = replica_set.spec, replica_set.status
    return (
        replica_set.metadata.name,
        str(1 if spec.replicas is None else spec.replicas),
        str(status.replicas or 0),
        str(status.ready_replicas or 0),
        age(replica_set.metadata.creation_timestamp, now),
        *_containers(spec.template),
        selector_text(spec.selector),
    )


def _stateful_set(stateful_set: StatefulSet, now: datetime) -> tuple[str, ...]:
    spec, status = stateful_set.spec, stateful_set.status
    return (
        stateful_set.metadata.name,
        f"{status.ready_replicas or 0}/{1 if spec.replicas is None else spec.replicas}",
        age(stateful_set.metadata.creation_timestamp, now),
        *_containers(spec.template),
    )


def _daemon_set(daemon_set: DaemonSet, now: datetime) -> tuple[str, ...]:
    spec, status = daemon_set.spec, daemon_set.status
    return (
        daemon_set.metadata.name,
        str(status.desired_number_scheduled or 0),
        str(status.current_number_scheduled or 0),
        str(status.number_ready or 0),
        str(status.updated_number_scheduled or 0),
        str(status.number_available or 0),
        labels_text(spec.template.spec.node_selector),
        age(daemon_set.metadata.creation_timestamp, now),
        *_containers(spec.template),
        selector_text(spec.selector),
    )


def _containers(template: PodTemplateSpec) -> tuple[str, str]:
    containers = template.spec.containers
    return ",".join(each.name for each in containers), ",".join(each.image for each in containers)


def _controller_revision(revision: ControllerRevision, now: datetime) -> tuple[str, ...]:
    owner = next((each for each in revision.metadata.owner_references if each.controller), None)
    return (
        revision.metadata.name,
        f"{owner.kind.lower()}.apps/{owner.name}" if owner else NONE,
        str(revision.revision or 0),
        age(revision.metadata.creation_timestamp, now),
    )


# --- ConfigMaps and Secrets ----------------------------------------------------------------------------------


def _config_map(config_map: ConfigMap, now: datetime) -> tuple[str, ...]:
    count = len(config_map.data) + len(config_map.binary_data)
    return config_map.metadata.name, str(count), age(config_map.metadata.creation_timestamp, now)


def _secret(secret: Secret, now: datetime) -> tuple[str, ...]:
    meta = secret.metadata
    return meta.name, secret.type or "Opaque", str(len(secret.data)), age(meta.creation_timestamp, now)


# --- Nodes, Namespaces and Events ----------------------------------------------------------------------------


def _node(node: Node, now: datetime) -> tuple[str, ...]:
    info = node.status.node_info
    addresses = {address.type: address.address for address in reversed(node.status.addresses)}
    return (
        node.metadata.name,
        node_status(node),
        node_roles(node),
        age(node.metadata.creation_timestamp, now),
        info.kubelet_version or UNKNOWN,
        addresses.get("InternalIP", NONE),
        addresses.get("ExternalIP", NONE),
        info.os_image or UNKNOWN,
        info.kernel_version or UNKNOWN,
        info.container_runtime_version or UNKNOWN,
    )


def node_status(node: Node) -> str:
    """STATUS: Ready, NotReady or Unknown, and whether pods may be scheduled."""
    ready = {"True": "Ready", None: "Unknown"}.get(condition(node.status.conditions, "Ready"), "NotReady")
    return f"{ready},SchedulingDisabled" if node.spec.unschedulable else ready


def node_roles(node: Node) -> str:
    """ROLES: from the ``node-role.kubernetes.io/`` labels."""
    roles = {key.removeprefix(_ROLE) for key in node.metadata.labels if key.startswith(_ROLE)}
    return ",".join(sorted(roles)) or NONE


def _namespace(namespace: Namespace, now: datetime) -> tuple[str, ...]:
    metadata = namespace.metadata
    return metadata.name, namespace.status.phase or "Active", age(metadata.creation_timestamp, now)


def _event(event: Event, now: datetime) -> tuple[str, ...]:
    about, when = event.involved_object, seen(event, now)
    return (
        when.last,
        event.type,
        event.reason,
        f"{about.kind.lower()}/{about.name}" if about.name else about.kind.lower(),
        event.message.strip(),
        about.field_path,
        source(event),
        when.first,
        str(when.count),
        event.metadata.name,
    )


COLUMNS: dict[str, Columns] = {
    "Service": Columns(
        ("NAME", "TYPE", "CLUSTER-IP", "EXTERNAL-IP", "PORT(S)", "AGE"),
        ("SELECTOR",),
        _service,
    ),
    "Endpoints": Columns(("NAME", "ENDPOINTS", "AGE"), (), _endpoints),
    "EndpointSlice": Columns(("NAME", "ADDRESSTYPE", "PORTS", "ENDPOINTS", "AGE"), (), _endpoint_slice),
    "Pod": Columns(
        ("NAME", "READY", "STATUS", "RESTARTS", "AGE"),
        ("IP", "NODE", "NOMINATED NODE", "READINESS GATES"),
        _pod,
    ),
    "Deployment": Columns(
        ("NAME", "READY", "UP-TO-DATE", "AVAILABLE", "AGE"),
        ("CONTAINERS", "IMAGES", "SELECTOR"),
        _deployment,
    ),
    "ReplicaSet": Columns(
        ("NAME", "DESIRED", "CURRENT", "READY", "AGE"), ("CONTAINERS", "IMAGES", "SELECTOR"), _replica_set
    ),
    "StatefulSet": Columns(("NAME", "READY", "AGE"), ("CONTAINERS", "IMAGES"), _stateful_set),
    "DaemonSet": Columns(
        ("NAME", "DESIRED", "CURRENT", "READY", "UP-TO-DATE", "AVAILABLE", "NODE SELECTOR", "AGE"),
        ("CONTAINERS", "IMAGES", "SELECTOR"),
        _daemon_set,
    ),
    "ControllerRevision": Columns(("NAME", "CONTROLLER", "REVISION", "AGE"), (), _controller_revision),
    "ConfigMap": Columns(("NAME", "DATA", "AGE"), (), _config_map),
    "Secret": Columns(("NAME", "TYPE", "DATA", "AGE"), (), _secret),
    "Node": Columns(
        ("NAME", "STATUS", "ROLES", "AGE", "VERSION"),
        ("INTERNAL-IP", "EXTERNAL-IP", "OS-IMAGE", "KERNEL-VERSION", "CONTAINER-RUNTIME"),
        _node,
    ),
    "Namespace": Columns(("NAME", "STATUS", "AGE"), (), _namespace),
    "Event": Columns(
        ("LAST SEEN", "TYPE", "REASON", "OBJECT", "MESSAGE"),
        ("SUBOBJECT", "SOURCE", "FIRST SEEN", "COUNT", "NAME"),
        _event,
        order=(0, 1, 2, 3, 5, 6, 4, 7, 8, 9),
    ),
}

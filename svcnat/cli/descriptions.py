"""``describe``: an object as kubectl's labelled lines, each a row of cells for :func:`svcnat.cli.terminal.aligned`.

Source: k8s.io/kubectl/pkg/describe, without what svcnat has no use for. Cells are raw text. What else has to be known
comes in with :class:`Context`; nothing here reads a kernel.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from svcnat.cli import happenings, workloads
from svcnat.cli.columns import (
    NONE,
    UNSET,
    host_port,
    labels_text,
    node_roles,
    node_status,
    shortened,
)
from svcnat.cli.rows import Rows, condition_rows, date_text, group, metadata_rows
from svcnat.cli.terminal import counted
from svcnat.cli.workloads import Objects
from svcnat.model.addresses import canonical
from svcnat.model.contents import contents
from svcnat.model.extensions import PROBE, PROBE_RESULTS, SCHEDULER, parse_probe_results
from svcnat.model.labels import SERVICE_LABEL
from svcnat.model.objects import (
    ConfigMap,
    ControllerRevision,
    DaemonSet,
    Deployment,
    Endpoint,
    Endpoints,
    EndpointSlice,
    Event,
    Namespace,
    Node,
    Pod,
    ReplicaSet,
    Resource,
    Secret,
    Service,
    ServicePort,
    StatefulSet,
)
from svcnat.model.pods import addresses_of, has_ended, is_ready
from svcnat.model.services import has_cluster_ips

_EPOCH = datetime.fromtimestamp(0, UTC)
_TRUTH: dict[bool | None, str] = {None: UNSET, True: "true", False: "false"}


@dataclass(frozen=True, slots=True)
class Context:
    """What a description needs beside the object.

    `connections` is None where the kernel cannot be asked; its values are None where nobody counts.
    """

    objects: Objects
    connections: Mapping[tuple[str, int], int | None] | None = None
    events: Sequence[Event] = ()
    now: datetime = _EPOCH


def describe(resource: Resource, context: Context) -> Rows:
    """The rows of one object, and those of the Events about it."""
    rows = _fields(resource, context)
    # Like kubectl, speak of no Events where there are hardly ever any.
    quiet = isinstance(resource, Namespace | Event | Secret) and not context.events
    return rows if quiet else [*rows, *happenings.rows(context.events, context.now)]


def _fields(resource: Resource, context: Context) -> Rows:
    match resource:
        case Service():
            return _service(resource, context)
        case EndpointSlice():
            return _endpoint_slice(resource)
        case Endpoints():
            return _endpoints(resource)
        case Pod():
            return workloads.pod_rows(resource)
        case Deployment() | ReplicaSet() | StatefulSet() | DaemonSet() | ControllerRevision():
            return workloads.rows(resource, context.objects)
        case ConfigMap():
            return _config_map(resource)
        case Secret():
            return _secret(resource)
        case Node():
            return _node(resource)
        case Namespace():
            status = resource.status.phase or "Active"
            return [*metadata_rows(resource), ["Status:", status]]
        case Event():
            return _event(resource, context.now)
    raise AssertionError(f"unreachable: {type(resource).__name__} is no kind")


# --- Services and their endpoints ----------------------------------------------------------------------------


def _service(service: Service, context: Context) -> Rows:
    spec = service.spec
    metadata = service.metadata
    slices = context.objects.labelled(EndpointSlice, metadata.namespace, {SERVICE_LABEL: metadata.name})
    rows = [
        *metadata_rows(service),
        ["Selector:", labels_text(spec.selector)],
        ["Type:", spec.type or "ClusterIP"],
        ["IP Family Policy:", spec.ip_family_policy or ""],
        ["IP Families:", ",".join(spec.ip_families) or NONE],
        ["IP:", spec.cluster_ip or ""],
        ["IPs:", ",".join(spec.cluster_ips) or NONE],
        ["External IPs:", ",".join(spec.external_ips)],
        ["Desired LoadBalancer IP:", spec.load_balancer_ip or ""],
        ["LoadBalancer Ingress:", _ingress(service)],
        ["External Name:", spec.external_name or ""],
    ]
    for port in spec.ports:
        name, protocol = port.name or UNSET, port.protocol or "TCP"
        target = port.port if port.target_port is None else port.target_port
        rows += [["Port:", f"{name}  {port.port}/{protocol}"], ["TargetPort:", f"{target}/{protocol}"]]
        if port.node_port:
            rows.append(["NodePort:", f"{name}  {port.node_port}/{protocol}"])
        ready = _ready(port, slices, probed=PROBE in metadata.annotations)
        rows.append(["Endpoints:", shortened(ready, NONE)])
        if failed := _failed(service, slices):
            rows.append(["", f"{shortened(failed, NONE)} failed the probe: `svcnat get events` says why"])
        if spec.selector and not ready:
            pods = context.objects.labelled(Pod, metadata.namespace, spec.selector)
            rows.append(["", _why_none(service, port, pods)])
    rows += [
        ["Session Affinity:", spec.session_affinity or "None"],
        ["External Traffic Policy:", spec.external_traffic_policy or ""],
        ["Internal Traffic Policy:", spec.internal_traffic_policy or ""],
        ["Traffic Distribution:", spec.traffic_distribution or ""],
        ["HealthCheck NodePort:", str(spec.health_check_node_port or "")],
        ["LoadBalancer Source Ranges:", ",".join(spec.load_balancer_source_ranges)],
    ]
    # Like kubectl, say nothing of what does not apply; an address that is missing applies.
    rows = [row for row in rows if row[1] or row[0] in {"Name:", "IP:"}]
    if has_cluster_ips(spec):
        rows.append(["Scheduler:", metadata.annotations.get(SCHEDULER, "random")])
        rows += _connections(context.connections)
    return rows


def _ingress(service: Service) -> str:
    parts = [
        f"{entry.ip} ({entry.ip_mode})" if entry.ip and entry.ip_mode else entry.ip or entry.hostname or ""
        for entry in service.status.load_balancer.ingress
    ]
    return ", ".join(parts)


def _ready(port: ServicePort, slices: Iterable[EndpointSlice], *, probed: bool) -> list[str]:
    """The ready endpoints of a service's port, each once; if it is probed, without those that failed."""
    found: dict[str, None] = {}
    for each in slices:
        results = parse_probe_results(each.metadata.annotations.get(PROBE_RESULTS, "{}")) if probed else {}
        for target in each.ports:
            if (target.name or "", target.protocol or "TCP") == (port.name, port.protocol or "TCP"):
                found |= {
                    host_port(endpoint.addresses[0], target.port): None
                    for endpoint in each.endpoints
                    if endpoint.addresses
                    and endpoint.conditions.ready is not False
                    and results.get(canonical(endpoint.addresses[0]) or "", True)
                }
    return list(found)


def _failed(service: Service, slices: Iterable[EndpointSlice]) -> list[str]:
    """The addresses of hand-written endpoints that failed the probe of the Service."""
    if PROBE not in service.metadata.annotations:
        return []
    results = [parse_probe_results(each.metadata.annotations.get(PROBE_RESULTS, "{}")) for each in slices]
    return sorted({address for found in results for address, well in found.items() if not well})


def _why_none(service: Service, port: ServicePort, pods: Iterable[Pod]) -> str:
    """What the Pods that a selector finds lack to be endpoints of a port; empty if it is nothing that is known here."""
    left = [pod for pod in pods if not has_ended(pod)]
    if not left:
        return "the selector matches no pod"
    matched = f"the selector matches {counted(len(left), 'pod')}"
    named = isinstance(port.target_port, str)
    tests: tuple[tuple[str, Callable[[Pod], bool]], ...] = (
        ("ready", lambda pod: bool(service.spec.publish_not_ready_addresses) or is_ready(pod)),
        ("with an address", lambda pod: bool(addresses_of(pod))),
        (f"with a port named {port.target_port}", lambda pod: not named or port.target_port in _port_names(pod)),
    )
    for what, passes in tests:
        left = [pod for pod in left if passes(pod)]
        if not left:
            return f"{matched}, {what}: none"
    return ""


def _port_names(pod: Pod) -> set[str]:
    return {port.name for container in (*pod.spec.containers, *pod.spec.init_containers) for port in container.ports}


def _connections(counted: Mapping[tuple[str, int], int | None] | None) -> Rows:
    if counted is None:
        return [["Connections:", "<unknown>"]]
    if not counted:
        return [["Connections:", NONE]]
    rows = [
        [f"  {host_port(*endpoint)}", "not counted" if count is None else str(count)]
        for endpoint, count in sorted(counted.items())
    ]
    return [["Connections:"], ["  Endpoint", "Count"], ["  --------", "-----"], *rows]


def _endpoint_slice(endpoint_slice: EndpointSlice) -> Rows:
    rows = [*metadata_rows(endpoint_slice), ["AddressType:", endpoint_slice.address_type]]
    if endpoint_slice.ports:
        rows += [["Ports:"], ["  Name", "Port", "Protocol"], ["  ----", "----", "--------"]]
        for port in endpoint_slice.ports:
            number = "*" if port.port is None else str(port.port)
            rows.append([f"  {port.name or UNSET}", number, port.protocol or "TCP"])
    else:
        rows.append([f"Ports: {UNSET}"])
    if not endpoint_slice.endpoints:
        return [*rows, [f"Endpoints: {NONE}"]]
    rows.append(["Endpoints:"])
    for endpoint in endpoint_slice.endpoints:
        rows += _endpoint(endpoint)
    return rows


def _endpoint(endpoint: Endpoint) -> Rows:
    state = endpoint.conditions
    rows = [
        ["  - Addresses:", ",".join(endpoint.addresses)],
        ["    Conditions:"],
        ["      Ready:", _TRUTH[state.ready]],
        ["      Serving:", _TRUTH[state.serving]],
        ["      Terminating:", _TRUTH[state.terminating]],
        ["    Hostname:", endpoint.hostname or UNSET],
    ]
    rows = [row for row in rows if row[-1] != UNSET or "Hostname" in row[0] or "Ready" in row[0]]
    if target := endpoint.target_ref:
        rows.append(["    TargetRef:", f"{target.kind}/{target.name}"])
    rows.append(["    NodeName:", endpoint.node_name or UNSET])
    rows.append(["    Zone:", endpoint.zone or UNSET])
    return rows


def _endpoints(endpoints: Endpoints) -> Rows:
    rows = [*metadata_rows(endpoints), ["Subsets:"]]
    for subset in endpoints.subsets:
        rows.append(["  Addresses:", ",".join(address.ip for address in subset.addresses) or NONE])
        rows.append(["  NotReadyAddresses:", ",".join(address.ip for address in subset.not_ready_addresses) or NONE])
        if subset.ports:
            rows += [["  Ports:"], ["    Name", "Port", "Protocol"], ["    ----", "----", "--------"]]
            rows += ([f"    {port.name or UNSET}", str(port.port), port.protocol or "TCP"] for port in subset.ports)
        rows.append([""])
    return rows


# --- ConfigMaps and Secrets ----------------------------------------------------------------------------------


def _config_map(config_map: ConfigMap) -> Rows:
    rows = [*metadata_rows(config_map), [""], ["Data"], ["===="]]
    for key, text in sorted(config_map.data.items()):
        rows += [[f"{key}:"], ["----"], *([line] for line in text.split("\n")), [""]]
    rows += [["BinaryData"], ["===="]]
    rows += [[f"{key}: {_size(data)}"] for key, data in _binary(config_map)]
    return [*rows, [""]]


def _binary(config_map: ConfigMap) -> list[tuple[str, bytes]]:
    return sorted((key, data) for key, data in contents(config_map).items() if key in config_map.binary_data)


def _secret(secret: Secret) -> Rows:
    """A Secret: of what it holds, only the sizes."""
    held = sorted((key, len(data)) for key, data in contents(secret).items())
    return [
        *metadata_rows(secret),
        [""],
        ["Type:", secret.type or "Opaque"],
        [""],
        ["Data"],
        ["===="],
        *([f"{key}:", f"{size} bytes"] for key, size in held),
    ]


def _size(data: bytes) -> str:
    return f"{len(data)} bytes"


# --- Nodes and Events ----------------------------------------------------------------------------------------


def _node(node: Node) -> Rows:
    return [
        ["Name:", node.metadata.name],
        ["Roles:", node_roles(node)],
        *metadata_rows(node)[1:],
        ["CreationTimestamp:", date_text(node.metadata.creation_timestamp)],
        ["Unschedulable:", str(bool(node.spec.unschedulable)).lower()],
        ["Status:", node_status(node)],
        *condition_rows(node.status.conditions),
        *group("Addresses:", [[f"  {each.type}:", each.address] for each in node.status.addresses]),
        ["PodCIDR:", node.spec.pod_cidr],
        ["PodCIDRs:", ",".join(node.spec.pod_cidrs)],
    ]


def _event(event: Event, now: datetime) -> Rows:
    about, when = event.involved_object, happenings.seen(event, now)
    return [
        *metadata_rows(event),
        ["Type:", event.type],
        ["Reason:", event.reason],
        ["Object:", f"{about.kind}/{about.name}"],
        ["From:", happenings.source(event)],
        ["Count:", str(when.count)],
        ["First Seen:", when.first],
        ["Last Seen:", when.last],
        ["Message:", event.message.strip()],
    ]

"""The values that Kubernetes gives to fields nobody set.

Source: core/v1, discovery/v1 and apps/v1 defaulting. What depends on other objects or on a pool (cluster IPs, IP
families, node ports) is the controllers' business, not this module's.
"""

from __future__ import annotations

from typing import Any, TypeVar

from msgspec.structs import replace

from svcnat.model.contents import canonical, encoded
from svcnat.model.labels import NAMESPACE_LABEL
from svcnat.model.objects import (
    ClientIPConfig,
    Container,
    ContainerPort,
    DaemonSet,
    Deployment,
    Endpoints,
    EndpointSlice,
    EndpointSlicePort,
    LoadBalancerStatus,
    Namespace,
    NamespaceSpec,
    Node,
    Pod,
    PodIP,
    PodSpec,
    PodTemplateSpec,
    Probe,
    ReplicaSet,
    Resource,
    Secret,
    Service,
    ServicePort,
    ServiceSpec,
    SessionAffinityConfig,
    StatefulSet,
)
from svcnat.model.rollouts import ROLLING
from svcnat.model.services import is_exposed

R = TypeVar("R", bound=Resource)

AFFINITY_SECONDS = 10800
"""core/v1 DefaultClientIPServiceAffinitySeconds."""


def with_defaults(resource: R) -> R:
    """Return the object with its defaults filled in; doing it twice changes nothing."""
    completed: Any = resource
    match resource:
        case Service():
            completed = _service(resource)
        case EndpointSlice():
            completed = replace(resource, ports=_slice_ports(resource.ports))
        case Endpoints():
            subsets = [replace(subset, ports=_slice_ports(subset.ports)) for subset in resource.subsets]
            completed = replace(resource, subsets=subsets)
        case Pod():
            completed = _pod(resource)
        case Deployment():
            completed = _deployment(resource)
        case ReplicaSet():
            completed = _replica_set(resource)
        case StatefulSet():
            completed = _stateful_set(resource)
        case DaemonSet():
            completed = _daemon_set(resource)
        case Secret():
            completed = _secret(resource)
        case Node():
            completed = _node(resource)
        case Namespace():
            labels = {**resource.metadata.labels, NAMESPACE_LABEL: resource.metadata.name}
            completed = replace(
                resource,
                metadata=replace(resource.metadata, labels=labels),
                spec=resource.spec if resource.spec.finalizers else NamespaceSpec(finalizers=["kubernetes"]),
                status=replace(resource.status, phase=resource.status.phase or "Active"),
            )
    return completed  # type: ignore[no-any-return]


def _first(value: Any, default: Any) -> Any:
    return default if value is None else value


def _service(service: Service) -> Service:
    spec = service.spec
    kind = spec.type or "ClusterIP"
    affinity = spec.session_affinity or "None"
    return replace(
        service,
        spec=replace(
            spec,
            type=kind,
            ports=[_service_port(port) for port in spec.ports],
            cluster_ips=[spec.cluster_ip] if spec.cluster_ip and not spec.cluster_ips else spec.cluster_ips,
            session_affinity=affinity,
            session_affinity_config=_affinity(spec) if affinity == "ClientIP" else spec.session_affinity_config,
            internal_traffic_policy=(
                spec.internal_traffic_policy if kind == "ExternalName" else spec.internal_traffic_policy or "Cluster"
            ),
            external_traffic_policy=spec.external_traffic_policy or ("Cluster" if is_exposed(spec) else None),
            allocate_load_balancer_node_ports=(
                _first(spec.allocate_load_balancer_node_ports, True)  # noqa: FBT003 - the field's own value
                if kind == "LoadBalancer"
                else spec.allocate_load_balancer_node_ports
            ),
        ),
        status=replace(service.status, load_balancer=_load_balancer(service.status.load_balancer)),
    )


def _service_port(port: ServicePort) -> ServicePort:
    target = port.port if port.target_port in (None, 0, "") else port.target_port
    return replace(port, protocol=port.protocol or "TCP", target_port=target)


def _affinity(spec: ServiceSpec) -> SessionAffinityConfig:
    config = spec.session_affinity_config
    if config and config.client_ip and config.client_ip.timeout_seconds is not None:
        return config
    return SessionAffinityConfig(client_ip=ClientIPConfig(timeout_seconds=AFFINITY_SECONDS))


def _load_balancer(status: LoadBalancerStatus) -> LoadBalancerStatus:
    ingress = [replace(each, ip_mode=each.ip_mode or "VIP") if each.ip else each for each in status.ingress]
    return replace(status, ingress=ingress)


def _slice_ports(ports: list[EndpointSlicePort]) -> list[EndpointSlicePort]:
    return [replace(port, name=port.name or "", protocol=port.protocol or "TCP") for port in ports]


def _pod(pod: Pod) -> Pod:
    status = pod.status
    return replace(
        pod,
        spec=_pod_spec(pod.spec),
        status=replace(
            status,
            phase=status.phase or "Pending",
            # The API keeps the older singular field and the list equal; people write either.
            pod_ip=status.pod_ip or (status.pod_ips[0].ip if status.pod_ips else ""),
            pod_ips=status.pod_ips or ([PodIP(ip=status.pod_ip)] if status.pod_ip else []),
        ),
    )


def _pod_spec(spec: PodSpec) -> PodSpec:
    host = bool(spec.host_network)
    return replace(
        spec,
        containers=[_container(each, host=host) for each in spec.containers],
        init_containers=[_container(each, host=host) for each in spec.init_containers],
        restart_policy=spec.restart_policy or "Always",
        termination_grace_period_seconds=_first(spec.termination_grace_period_seconds, 30),
        dns_policy=spec.dns_policy or "ClusterFirst",
    )


def _container(container: Container, *, host: bool) -> Container:
    probe = container.readiness_probe
    return replace(
        container,
        ports=[_container_port(port, host=host) for port in container.ports],
        readiness_probe=probe_with_defaults(probe) if probe else None,
    )


def probe_with_defaults(probe: Probe) -> Probe:
    """Return a probe with its defaults; 0 counts as unset, as core/v1 SetDefaults_Probe has it."""
    http, grpc = probe.http_get, probe.grpc
    return replace(
        probe,
        http_get=replace(http, path=http.path or "/", scheme=http.scheme or "HTTP") if http else None,
        grpc=replace(grpc, service=grpc.service or "") if grpc else None,
        timeout_seconds=probe.timeout_seconds or 1,
        period_seconds=probe.period_seconds or 10,
        success_threshold=probe.success_threshold or 1,
        failure_threshold=probe.failure_threshold or 3,
    )


def _container_port(port: ContainerPort, *, host: bool) -> ContainerPort:
    return replace(
        port,
        protocol=port.protocol or "TCP",
        host_port=port.host_port or (port.container_port if host else port.host_port),
    )


def _deployment(deployment: Deployment) -> Deployment:
    spec = deployment.spec
    return replace(
        deployment,
        spec=replace(
            spec,
            replicas=_first(spec.replicas, 1),
            template=template_with_defaults(spec.template),
            strategy=_strategy(spec.strategy, maxSurge="25%", maxUnavailable="25%"),
            revision_history_limit=_first(spec.revision_history_limit, 10),
            progress_deadline_seconds=_first(spec.progress_deadline_seconds, 600),
        ),
    )


def _replica_set(replica_set: ReplicaSet) -> ReplicaSet:
    spec = replica_set.spec
    return replace(
        replica_set,
        spec=replace(spec, replicas=_first(spec.replicas, 1), template=template_with_defaults(spec.template)),
    )


def _stateful_set(stateful_set: StatefulSet) -> StatefulSet:
    spec = stateful_set.spec
    return replace(
        stateful_set,
        spec=replace(
            spec,
            replicas=_first(spec.replicas, 1),
            template=template_with_defaults(spec.template),
            pod_management_policy=spec.pod_management_policy or "OrderedReady",
            update_strategy=_strategy(spec.update_strategy, partition=0),
            revision_history_limit=_first(spec.revision_history_limit, 10),
        ),
    )


def _daemon_set(daemon_set: DaemonSet) -> DaemonSet:
    spec = daemon_set.spec
    return replace(
        daemon_set,
        spec=replace(
            spec,
            template=template_with_defaults(spec.template),
            update_strategy=_strategy(spec.update_strategy, maxSurge=0, maxUnavailable=1),
            revision_history_limit=_first(spec.revision_history_limit, 10),
        ),
    )


def template_with_defaults(template: PodTemplateSpec) -> PodTemplateSpec:
    """Return a template whose Pods' spec has its defaults."""
    return replace(template, spec=_pod_spec(template.spec))


def _strategy(strategy: Any, **defaults: int | str) -> Any:
    """Return an update strategy, RollingUpdate if it does not say; what is no object is left for validation to find."""
    if not isinstance(strategy, dict | None):
        return strategy
    kind = (strategy or {}).get("type") or ROLLING
    rolling = (strategy or {}).get("rollingUpdate")
    completed = {**(strategy or {}), "type": kind}
    if kind == ROLLING and isinstance(rolling, dict | None):
        given = {name: value for name, value in (rolling or {}).items() if value is not None}
        completed["rollingUpdate"] = {**defaults, **given}
    return completed


def _secret(secret: Secret) -> Secret:
    """Put what is written as text into the data, where everyone reads it; what is no base64 stays as it is."""
    data = {key: canonical(text) for key, text in secret.data.items()}
    data |= {key: encoded(text.encode()) for key, text in secret.string_data.items()}
    return replace(secret, type=secret.type or "Opaque", data=data, string_data={})


def _node(node: Node) -> Node:
    spec = node.spec
    return replace(
        node,
        spec=replace(
            spec,
            pod_cidr=spec.pod_cidr or (spec.pod_cidrs[0] if spec.pod_cidrs else ""),
            pod_cidrs=spec.pod_cidrs or ([spec.pod_cidr] if spec.pod_cidr else []),
        ),
    )

"""The Kubernetes objects that svcnat reads and writes, field for field.

Sources: the Kubernetes API reference, core/v1, discovery.k8s.io/v1 and apps/v1. Python names are the API's in snake
case. Every known field is here, so that an object survives a round trip; what svcnat has no use for is ``Any``. A
field that nobody set is None (or empty), never its default: :mod:`svcnat.model.defaults` fills those in.
This module validates nothing: :mod:`svcnat.model.validation` does. Values that are frozen and hold no cycle need no
garbage collector (``gc=False``): with 30,000 EndpointSlices in memory it would take most of the time.
"""

from __future__ import annotations

from typing import Any

from msgspec import Struct, field

Labels = dict[str, str]


class OwnerReference(Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel", gc=False):
    """metav1.OwnerReference: who made this object."""

    api_version: str = ""
    kind: str = ""
    name: str = ""
    uid: str = ""
    controller: bool | None = None
    block_owner_deletion: bool | None = None


class ObjectMeta(Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel", gc=False):
    """metav1.ObjectMeta; times are RFC 3339 in UTC with seconds, ``2026-05-17T10:00:00Z``."""

    name: str = ""
    generate_name: str = ""
    namespace: str = ""
    labels: Labels = {}
    annotations: dict[str, str] = {}
    uid: str = ""
    resource_version: str = ""
    generation: int | None = None
    creation_timestamp: str | None = None
    deletion_timestamp: str | None = None
    deletion_grace_period_seconds: int | None = None
    owner_references: list[OwnerReference] = []
    finalizers: list[str] = []
    managed_fields: Any = None
    self_link: str = ""


class ObjectReference(Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel", gc=False):
    """core/v1 ObjectReference."""

    api_version: str = ""
    kind: str = ""
    namespace: str = ""
    name: str = ""
    uid: str = ""
    resource_version: str = ""
    field_path: str = ""


class Condition(Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel", gc=False):
    """A status condition; ``status`` is "True", "False" or "Unknown"."""

    type: str = ""
    status: str = ""
    reason: str = ""
    message: str = ""
    observed_generation: int | None = None
    last_heartbeat_time: str | None = None
    last_probe_time: str | None = None
    last_transition_time: str | None = None
    last_update_time: str | None = None


class Resource(Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel", gc=False):
    """What every object has; ``kind`` and ``api_version`` are class constants, see :mod:`svcnat.model.kinds`."""

    metadata: ObjectMeta = ObjectMeta()


# --- Service -------------------------------------------------------------------------------------------------


class ServicePort(Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel", gc=False):
    """core/v1 ServicePort; ``target_port`` is a number or the name of a container's port."""

    name: str = ""
    protocol: str | None = None
    app_protocol: str | None = None
    port: int | None = None
    target_port: int | str | None = None
    node_port: int | None = None


class ClientIPConfig(Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel", gc=False):
    """core/v1 ClientIPConfig; seconds."""

    timeout_seconds: int | None = None


class SessionAffinityConfig(Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel", gc=False):
    """core/v1 SessionAffinityConfig."""

    client_ip: ClientIPConfig | None = field(default=None, name="clientIP")


class ServiceSpec(Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel", gc=False):
    """core/v1 ServiceSpec."""

    type: str | None = None
    ports: list[ServicePort] = []
    selector: Labels = {}
    cluster_ip: str | None = field(default=None, name="clusterIP")
    cluster_ips: list[str] = field(default_factory=list, name="clusterIPs")
    ip_families: list[str] = []
    ip_family_policy: str | None = None
    session_affinity: str | None = None
    session_affinity_config: SessionAffinityConfig | None = None
    internal_traffic_policy: str | None = None
    external_traffic_policy: str | None = None
    traffic_distribution: str | None = None
    external_ips: list[str] = field(default_factory=list, name="externalIPs")
    external_name: str | None = None
    load_balancer_ip: str | None = field(default=None, name="loadBalancerIP")
    load_balancer_class: str | None = None
    load_balancer_source_ranges: list[str] = []
    allocate_load_balancer_node_ports: bool | None = None
    health_check_node_port: int | None = None
    publish_not_ready_addresses: bool | None = None


class PortStatus(Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel", gc=False):
    """core/v1 PortStatus."""

    port: int | None = None
    protocol: str | None = None
    error: str | None = None


class LoadBalancerIngress(Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel", gc=False):
    """core/v1 LoadBalancerIngress."""

    ip: str | None = None
    ip_mode: str | None = None
    hostname: str | None = None
    ports: list[PortStatus] = []


class LoadBalancerStatus(Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel", gc=False):
    """core/v1 LoadBalancerStatus."""

    ingress: list[LoadBalancerIngress] = []


class ServiceStatus(Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel", gc=False):
    """core/v1 ServiceStatus."""

    load_balancer: LoadBalancerStatus = LoadBalancerStatus()
    conditions: list[Condition] = []


class Service(Resource, frozen=True, kw_only=True, omit_defaults=True, rename="camel", gc=False):
    """core/v1 Service."""

    spec: ServiceSpec = ServiceSpec()
    status: ServiceStatus = ServiceStatus()


# --- Endpoints and EndpointSlice -----------------------------------------------------------------------------


class EndpointConditions(Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel", gc=False):
    """discovery/v1 EndpointConditions; None means ready, serving, not terminating."""

    ready: bool | None = None
    serving: bool | None = None
    terminating: bool | None = None


class Hint(Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel", gc=False):
    """discovery/v1 ForZone and ForNode."""

    name: str = ""


class EndpointHints(Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel", gc=False):
    """discovery/v1 EndpointHints."""

    for_zones: list[Hint] = []
    for_nodes: list[Hint] = []


class Endpoint(Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel", gc=False):
    """discovery/v1 Endpoint; only its first address counts."""

    addresses: list[str] = []
    conditions: EndpointConditions = EndpointConditions()
    hostname: str | None = None
    target_ref: ObjectReference | None = None
    node_name: str | None = None
    zone: str | None = None
    hints: EndpointHints | None = None
    deprecated_topology: dict[str, str] = {}


class EndpointSlicePort(Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel", gc=False):
    """discovery/v1 EndpointPort; None as port means all ports, which svcnat cannot balance."""

    name: str | None = None
    protocol: str | None = None
    port: int | None = None
    app_protocol: str | None = None


class EndpointSlice(Resource, frozen=True, kw_only=True, omit_defaults=True, rename="camel", gc=False):
    """discovery/v1 EndpointSlice; ``address_type`` is IPv4, IPv6 or FQDN."""

    address_type: str = ""
    endpoints: list[Endpoint] = []
    ports: list[EndpointSlicePort] = []


class EndpointAddress(Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel", gc=False):
    """core/v1 EndpointAddress."""

    ip: str = ""
    hostname: str = ""
    node_name: str | None = None
    target_ref: ObjectReference | None = None


class EndpointSubset(Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel", gc=False):
    """core/v1 EndpointSubset: addresses x ports."""

    addresses: list[EndpointAddress] = []
    not_ready_addresses: list[EndpointAddress] = []
    ports: list[EndpointSlicePort] = []


class Endpoints(Resource, frozen=True, kw_only=True, omit_defaults=True, rename="camel", gc=False):
    """core/v1 Endpoints: the older form, mirrored into slices."""

    subsets: list[EndpointSubset] = []


# --- Pod and Deployment --------------------------------------------------------------------------------------


class ContainerPort(Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel", gc=False):
    """core/v1 ContainerPort."""

    name: str = ""
    container_port: int | None = None
    protocol: str | None = None
    host_port: int | None = None
    host_ip: str = field(default="", name="hostIP")


class EnvVar(Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel", gc=False):
    """core/v1 EnvVar."""

    name: str = ""
    value: str | None = None
    value_from: Any = None


class Container(Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel", gc=False):
    """core/v1 Container."""

    name: str = ""
    image: str = ""
    command: list[str] = []
    args: list[str] = []
    ports: list[ContainerPort] = []
    env: list[EnvVar] = []
    env_from: Any = None
    working_dir: str = ""
    readiness_probe: Any = None
    liveness_probe: Any = None
    startup_probe: Any = None
    resources: Any = None
    resize_policy: Any = None
    restart_policy: str | None = None
    restart_policy_rules: Any = None
    volume_mounts: Any = None
    volume_devices: Any = None
    lifecycle: Any = None
    termination_message_path: str = ""
    termination_message_policy: str = ""
    image_pull_policy: str = ""
    security_context: Any = None
    stdin: bool | None = None
    stdin_once: bool | None = None
    tty: bool | None = None
    target_container_name: str = ""


class PodReadinessGate(Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel", gc=False):
    """core/v1 PodReadinessGate."""

    condition_type: str = ""


class PodSpec(Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel", gc=False):
    """core/v1 PodSpec."""

    containers: list[Container] = []
    init_containers: list[Container] = []
    ephemeral_containers: list[Container] = []
    node_name: str = ""
    node_selector: Labels = {}
    host_network: bool | None = None
    hostname: str = ""
    subdomain: str = ""
    restart_policy: str | None = None
    termination_grace_period_seconds: int | None = None
    readiness_gates: list[PodReadinessGate] = []
    active_deadline_seconds: int | None = None
    affinity: Any = None
    automount_service_account_token: bool | None = None
    dns_config: Any = None
    dns_policy: str | None = None
    enable_service_links: bool | None = None
    host_aliases: Any = None
    host_ipc: bool | None = field(default=None, name="hostIPC")
    host_pid: bool | None = field(default=None, name="hostPID")
    host_users: bool | None = None
    hostname_override: str | None = None
    image_pull_secrets: Any = None
    os: Any = None
    overhead: Any = None
    preemption_policy: str | None = None
    priority: int | None = None
    priority_class_name: str = ""
    resource_claims: Any = None
    resources: Any = None
    runtime_class_name: str | None = None
    scheduler_name: str = ""
    scheduling_gates: Any = None
    security_context: Any = None
    service_account: str = ""
    service_account_name: str = ""
    set_hostname_as_fqdn: bool | None = field(default=None, name="setHostnameAsFQDN")
    share_process_namespace: bool | None = None
    tolerations: Any = None
    topology_spread_constraints: Any = None
    volumes: Any = None
    workload_ref: Any = None


class PodIP(Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel", gc=False):
    """core/v1 PodIP."""

    ip: str = ""


class ContainerStateDetail(Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel", gc=False):
    """core/v1 ContainerStateWaiting, ContainerStateRunning and ContainerStateTerminated in one."""

    reason: str = ""
    message: str = ""
    started_at: str | None = None
    finished_at: str | None = None
    exit_code: int | None = None
    signal: int | None = None
    container_id: str = field(default="", name="containerID")


class ContainerState(Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel", gc=False):
    """core/v1 ContainerState; one of the three is there."""

    waiting: ContainerStateDetail | None = None
    running: ContainerStateDetail | None = None
    terminated: ContainerStateDetail | None = None


class ContainerStatus(Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel", gc=False):
    """core/v1 ContainerStatus."""

    name: str = ""
    image: str = ""
    image_id: str = field(default="", name="imageID")
    container_id: str = field(default="", name="containerID")
    ready: bool | None = None
    started: bool | None = None
    restart_count: int | None = None
    state: ContainerState = ContainerState()
    last_state: ContainerState = ContainerState()
    stop_signal: str | None = None
    allocated_resources: Any = None
    allocated_resources_status: Any = None
    resources: Any = None
    user: Any = None
    volume_mounts: Any = None


class PodStatus(Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel", gc=False):
    """core/v1 PodStatus; ``phase`` is Pending, Running, Succeeded, Failed or Unknown."""

    phase: str | None = None
    conditions: list[Condition] = []
    message: str = ""
    reason: str = ""
    nominated_node_name: str = ""
    host_ip: str = field(default="", name="hostIP")
    host_ips: list[PodIP] = field(default_factory=list, name="hostIPs")
    pod_ip: str = field(default="", name="podIP")
    pod_ips: list[PodIP] = field(default_factory=list, name="podIPs")
    start_time: str | None = None
    init_container_statuses: Any = None
    container_statuses: list[ContainerStatus] = []
    ephemeral_container_statuses: Any = None
    qos_class: str = ""
    resize: str = ""
    resource_claim_statuses: Any = None
    observed_generation: int | None = None


class Pod(Resource, frozen=True, kw_only=True, omit_defaults=True, rename="camel", gc=False):
    """core/v1 Pod."""

    spec: PodSpec = PodSpec()
    status: PodStatus = PodStatus()


class PodTemplateSpec(Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel", gc=False):
    """core/v1 PodTemplateSpec."""

    metadata: ObjectMeta = ObjectMeta()
    spec: PodSpec = PodSpec()


class SelectorRequirement(Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel", gc=False):
    """metav1.LabelSelectorRequirement; ``operator`` is In, NotIn, Exists or DoesNotExist."""

    key: str = ""
    operator: str = ""
    values: list[str] = []


class LabelSelector(Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel", gc=False):
    """metav1.LabelSelector: all of it must match."""

    match_labels: Labels = {}
    match_expressions: list[SelectorRequirement] = []


class DeploymentSpec(Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel", gc=False):
    """apps/v1 DeploymentSpec."""

    replicas: int | None = None
    selector: LabelSelector | None = None
    template: PodTemplateSpec = PodTemplateSpec()
    strategy: Any = None
    min_ready_seconds: int | None = None
    revision_history_limit: int | None = None
    paused: bool | None = None
    progress_deadline_seconds: int | None = None


class DeploymentStatus(Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel", gc=False):
    """apps/v1 DeploymentStatus."""

    observed_generation: int | None = None
    replicas: int | None = None
    updated_replicas: int | None = None
    ready_replicas: int | None = None
    available_replicas: int | None = None
    unavailable_replicas: int | None = None
    terminating_replicas: int | None = None
    collision_count: int | None = None
    conditions: list[Condition] = []


class Deployment(Resource, frozen=True, kw_only=True, omit_defaults=True, rename="camel", gc=False):
    """apps/v1 Deployment."""

    spec: DeploymentSpec = DeploymentSpec()
    status: DeploymentStatus = DeploymentStatus()


# --- Node and Namespace --------------------------------------------------------------------------------------


class NodeAddress(Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel", gc=False):
    """core/v1 NodeAddress."""

    type: str = ""
    address: str = ""


class NodeSpec(Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel", gc=False):
    """core/v1 NodeSpec."""

    pod_cidr: str = field(default="", name="podCIDR")
    pod_cidrs: list[str] = field(default_factory=list, name="podCIDRs")
    provider_id: str = field(default="", name="providerID")
    unschedulable: bool | None = None
    taints: Any = None
    config_source: Any = None
    external_id: str = field(default="", name="externalID")


class NodeSystemInfo(Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel", gc=False):
    """core/v1 NodeSystemInfo."""

    kubelet_version: str = ""
    kube_proxy_version: str = ""
    os_image: str = ""
    kernel_version: str = ""
    container_runtime_version: str = ""
    operating_system: str = ""
    architecture: str = ""
    machine_id: str = field(default="", name="machineID")
    system_uuid: str = field(default="", name="systemUUID")
    boot_id: str = field(default="", name="bootID")
    swap: Any = None


class NodeStatus(Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel", gc=False):
    """core/v1 NodeStatus."""

    addresses: list[NodeAddress] = []
    conditions: list[Condition] = []
    capacity: Any = None
    allocatable: Any = None
    config: Any = None
    daemon_endpoints: Any = None
    declared_features: Any = None
    features: Any = None
    images: Any = None
    node_info: NodeSystemInfo = NodeSystemInfo()
    phase: str | None = None
    runtime_handlers: Any = None
    volumes_attached: Any = None
    volumes_in_use: Any = None


class Node(Resource, frozen=True, kw_only=True, omit_defaults=True, rename="camel", gc=False):
    """core/v1 Node."""

    spec: NodeSpec = NodeSpec()
    status: NodeStatus = NodeStatus()


class NamespaceSpec(Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel", gc=False):
    """core/v1 NamespaceSpec."""

    finalizers: list[str] = []


class NamespaceStatus(Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel", gc=False):
    """core/v1 NamespaceStatus."""

    phase: str | None = None
    conditions: list[Condition] = []


class Namespace(Resource, frozen=True, kw_only=True, omit_defaults=True, rename="camel", gc=False):
    """core/v1 Namespace."""

    spec: NamespaceSpec = NamespaceSpec()
    status: NamespaceStatus = NamespaceStatus()

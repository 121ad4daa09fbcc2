"""core/v1 Pod and apps/v1 Deployment."""

from __future__ import annotations

from typing import Any

from msgspec import Struct, field

from svcnat.model.objects.metadata import Condition, Labels, ObjectMeta, Resource


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


class ExecAction(Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel", gc=False):
    """core/v1 ExecAction."""

    command: list[str] = []


class HTTPHeader(Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel", gc=False):
    """core/v1 HTTPHeader."""

    name: str = ""
    value: str = ""


class HTTPGetAction(Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel", gc=False):
    """core/v1 HTTPGetAction; ``scheme`` is HTTP or HTTPS."""

    path: str = ""
    port: int | str | None = None
    host: str = ""
    scheme: str | None = None
    http_headers: list[HTTPHeader] = []


class TCPSocketAction(Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel", gc=False):
    """core/v1 TCPSocketAction."""

    port: int | str | None = None
    host: str = ""


class GRPCAction(Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel", gc=False):
    """core/v1 GRPCAction."""

    port: int | None = None
    service: str | None = None


class Probe(Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel", gc=False):
    """core/v1 Probe; one of the first four is there."""

    exec: ExecAction | None = None
    http_get: HTTPGetAction | None = None
    tcp_socket: TCPSocketAction | None = None
    grpc: GRPCAction | None = None
    initial_delay_seconds: int | None = None
    timeout_seconds: int | None = None
    period_seconds: int | None = None
    success_threshold: int | None = None
    failure_threshold: int | None = None
    termination_grace_period_seconds: int | None = None


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
    readiness_probe: Probe | None = None
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


class PodDNSConfigOption(Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel", gc=False):
    """core/v1 PodDNSConfigOption."""

    name: str = ""
    value: str | None = None


class PodDNSConfig(Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel"):
    """core/v1 PodDNSConfig."""

    nameservers: list[str] = []
    searches: list[str] = []
    options: list[PodDNSConfigOption] = []


class HostAlias(Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel"):
    """core/v1 HostAlias."""

    ip: str = ""
    hostnames: list[str] = []


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
    dns_config: PodDNSConfig | None = None
    dns_policy: str | None = None
    enable_service_links: bool | None = None
    host_aliases: list[HostAlias] = []
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
    init_container_statuses: list[ContainerStatus] = []
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

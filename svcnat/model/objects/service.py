"""core/v1 Service."""

from __future__ import annotations

from msgspec import Struct, field

from svcnat.model.objects.metadata import Condition, Labels, Resource


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

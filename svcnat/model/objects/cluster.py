"""core/v1 Node and Namespace."""

from __future__ import annotations

from typing import Any

from msgspec import Struct, field

from svcnat.model.objects.metadata import Condition, Resource


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

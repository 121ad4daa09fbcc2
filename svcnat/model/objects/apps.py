"""apps/v1 ReplicaSet, StatefulSet, DaemonSet and ControllerRevision; Deployment is beside the Pods."""

from __future__ import annotations

from typing import Any

from msgspec import Struct

from svcnat.model.objects.metadata import Condition, Resource
from svcnat.model.objects.workloads import LabelSelector, PodTemplateSpec


class ReplicaSetSpec(Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel", gc=False):
    """apps/v1 ReplicaSetSpec."""

    replicas: int | None = None
    selector: LabelSelector | None = None
    template: PodTemplateSpec = PodTemplateSpec()
    min_ready_seconds: int | None = None


class ReplicaSetStatus(Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel", gc=False):
    """apps/v1 ReplicaSetStatus."""

    observed_generation: int | None = None
    replicas: int | None = None
    fully_labeled_replicas: int | None = None
    ready_replicas: int | None = None
    available_replicas: int | None = None
    terminating_replicas: int | None = None
    conditions: list[Condition] = []


class ReplicaSet(Resource, frozen=True, kw_only=True, omit_defaults=True, rename="camel", gc=False):
    """apps/v1 ReplicaSet."""

    spec: ReplicaSetSpec = ReplicaSetSpec()
    status: ReplicaSetStatus = ReplicaSetStatus()


class StatefulSetOrdinals(Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel", gc=False):
    """apps/v1 StatefulSetOrdinals."""

    start: int | None = None


class StatefulSetSpec(Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel", gc=False):
    """apps/v1 StatefulSetSpec; ``podManagementPolicy`` is OrderedReady or Parallel."""

    replicas: int | None = None
    selector: LabelSelector | None = None
    template: PodTemplateSpec = PodTemplateSpec()
    service_name: str = ""
    pod_management_policy: str | None = None
    update_strategy: Any = None
    revision_history_limit: int | None = None
    min_ready_seconds: int | None = None
    ordinals: StatefulSetOrdinals | None = None
    volume_claim_templates: Any = None
    persistent_volume_claim_retention_policy: Any = None


class StatefulSetStatus(Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel", gc=False):
    """apps/v1 StatefulSetStatus."""

    observed_generation: int | None = None
    replicas: int | None = None
    ready_replicas: int | None = None
    current_replicas: int | None = None
    updated_replicas: int | None = None
    available_replicas: int | None = None
    current_revision: str = ""
    update_revision: str = ""
    collision_count: int | None = None
    conditions: list[Condition] = []


class StatefulSet(Resource, frozen=True, kw_only=True, omit_defaults=True, rename="camel", gc=False):
    """apps/v1 StatefulSet."""

    spec: StatefulSetSpec = StatefulSetSpec()
    status: StatefulSetStatus = StatefulSetStatus()


class DaemonSetSpec(Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel", gc=False):
    """apps/v1 DaemonSetSpec."""

    selector: LabelSelector | None = None
    template: PodTemplateSpec = PodTemplateSpec()
    update_strategy: Any = None
    min_ready_seconds: int | None = None
    revision_history_limit: int | None = None


class DaemonSetStatus(Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel", gc=False):
    """apps/v1 DaemonSetStatus."""

    current_number_scheduled: int | None = None
    number_misscheduled: int | None = None
    desired_number_scheduled: int | None = None
    number_ready: int | None = None
    observed_generation: int | None = None
    updated_number_scheduled: int | None = None
    number_available: int | None = None
    number_unavailable: int | None = None
    collision_count: int | None = None
    conditions: list[Condition] = []


class DaemonSet(Resource, frozen=True, kw_only=True, omit_defaults=True, rename="camel", gc=False):
    """apps/v1 DaemonSet."""

    spec: DaemonSetSpec = DaemonSetSpec()
    status: DaemonSetStatus = DaemonSetStatus()


class ControllerRevision(Resource, frozen=True, kw_only=True, omit_defaults=True, rename="camel", gc=False):
    """apps/v1 ControllerRevision: a template that a StatefulSet or DaemonSet has or had; ``data`` is a patch of it."""

    data: Any = None
    revision: int | None = None

"""What the objects of every kind share: metadata, references, conditions."""

from __future__ import annotations

from typing import Any

from msgspec import Struct

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

    @property
    def qualified_name(self) -> str:
        """NAMESPACE/NAME."""
        return f"{self.namespace}/{self.name}"


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

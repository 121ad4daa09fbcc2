"""core/v1 ConfigMap and Secret."""

from __future__ import annotations

from msgspec import field

from svcnat.model.objects.metadata import Resource


class ConfigMap(Resource, frozen=True, kw_only=True, omit_defaults=True, rename="camel", gc=False):
    """core/v1 ConfigMap; ``binary_data`` is base64."""

    data: dict[str, str] = field(default_factory=dict)
    binary_data: dict[str, str] = field(default_factory=dict)
    immutable: bool | None = None


class Secret(Resource, frozen=True, kw_only=True, omit_defaults=True, rename="camel", gc=False):
    """core/v1 Secret; ``data`` is base64, ``string_data`` is only for writing: defaults put it into ``data``."""

    type: str | None = None
    data: dict[str, str] = field(default_factory=dict)
    string_data: dict[str, str] = field(default_factory=dict)
    immutable: bool | None = None

    def __repr__(self) -> str:
        """Tell which Secret it is, but nothing of what it holds: tracebacks and logs may show it."""
        return f"Secret({self.metadata.qualified_name})"

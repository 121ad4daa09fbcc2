"""discovery/v1 EndpointSlice and core/v1 Endpoints."""

from __future__ import annotations

from msgspec import Struct, field

from svcnat.model.objects.metadata import ObjectReference, Resource


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
    endpoints: list[Endpoint] = field(default_factory=list)
    ports: list[EndpointSlicePort] = field(default_factory=list)


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

    subsets: list[EndpointSubset] = field(default_factory=list)

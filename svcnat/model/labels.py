"""The well-known labels that svcnat reads and writes, by their names in the Kubernetes reference."""

from __future__ import annotations

SERVICE_LABEL = "kubernetes.io/service-name"
"""On an EndpointSlice: the Service that it belongs to."""

MANAGER_LABEL = "endpointslice.kubernetes.io/managed-by"
SKIP_MIRROR_LABEL = "endpointslice.kubernetes.io/skip-mirror"
HEADLESS_LABEL = "service.kubernetes.io/headless"
PROXY_LABEL = "service.kubernetes.io/service-proxy-name"
ZONE_LABEL = "topology.kubernetes.io/zone"
NAMESPACE_LABEL = "kubernetes.io/metadata.name"

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

HASH_LABEL = "pod-template-hash"
"""On a Deployment's ReplicaSets and Pods: which template they are made from."""

REVISION_LABEL = "controller-revision-hash"
"""On the Pods of StatefulSets (the name of a ControllerRevision) and DaemonSets (its hash)."""

POD_NAME_LABEL = "statefulset.kubernetes.io/pod-name"
POD_INDEX_LABEL = "apps.kubernetes.io/pod-index"

REVISION = "deployment.kubernetes.io/revision"
"""Annotation on a Deployment and its ReplicaSets."""

RESTARTED_AT = "kubectl.kubernetes.io/restartedAt"
"""Annotation on a template that only makes it differ: what ``rollout restart`` writes."""

CHANGE_CAUSE = "kubernetes.io/change-cause"
DELETION_COST = "controller.kubernetes.io/pod-deletion-cost"

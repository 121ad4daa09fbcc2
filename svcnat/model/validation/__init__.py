"""What Kubernetes would refuse: the rules that a well-shaped object keeps, with every breach reported in its words.

Each kind has a module. None looks at other objects, at what is allocated or at the clock: the controllers do.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from svcnat.model.defaults import with_defaults
from svcnat.model.objects import (
    ConfigMap,
    ControllerRevision,
    DaemonSet,
    Deployment,
    Endpoints,
    EndpointSlice,
    Event,
    Namespace,
    Node,
    Pod,
    ReplicaSet,
    Resource,
    Secret,
    Service,
    StatefulSet,
)
from svcnat.model.validation.apps import (
    check_controller_revision,
    check_daemon_set,
    check_daemon_set_update,
    check_deployment,
    check_deployment_update,
    check_replica_set,
    check_replica_set_update,
    check_stateful_set,
    check_stateful_set_update,
)
from svcnat.model.validation.cluster import check_namespace, check_node, check_node_update
from svcnat.model.validation.contents import (
    check_config_map,
    check_config_map_update,
    check_secret,
    check_secret_update,
)
from svcnat.model.validation.endpoints import check_endpoints, check_slice, check_slice_update
from svcnat.model.validation.events import check_event
from svcnat.model.validation.problems import Problem, immutable
from svcnat.model.validation.service import check_service, check_service_update
from svcnat.model.validation.workloads import check_pod, check_pod_update

__all__ = ["Problem", "validate", "validate_update"]


_CHECKS: dict[type[Resource], Callable[[Any], list[Problem]]] = {
    Service: check_service,
    EndpointSlice: check_slice,
    Endpoints: check_endpoints,
    Pod: check_pod,
    Deployment: check_deployment,
    ReplicaSet: check_replica_set,
    StatefulSet: check_stateful_set,
    DaemonSet: check_daemon_set,
    ControllerRevision: check_controller_revision,
    Node: check_node,
    Namespace: check_namespace,
    ConfigMap: check_config_map,
    Secret: check_secret,
    Event: check_event,
}
_UPDATES: dict[type[Resource], Callable[[Any, Any], list[Problem]]] = {
    Service: check_service_update,
    EndpointSlice: check_slice_update,
    Pod: check_pod_update,
    Deployment: check_deployment_update,
    ReplicaSet: check_replica_set_update,
    StatefulSet: check_stateful_set_update,
    DaemonSet: check_daemon_set_update,
    Node: check_node_update,
    ConfigMap: check_config_map_update,
    Secret: check_secret_update,
}


def validate(resource: Resource) -> list[Problem]:
    """Return everything wrong with an object, whether or not its defaults are filled in; empty when it is sound."""
    check = _CHECKS.get(type(resource))
    if check is None:
        raise TypeError(f"no rules for {type(resource).__name__}")
    return check(with_defaults(resource))


def validate_update(old: Resource, new: Resource) -> list[Problem]:
    """Return the fields that changed between two versions of an object and may not; the new one was validated."""
    problems = _identity(old, new)
    check = _UPDATES.get(type(old))
    return problems + check(with_defaults(old), with_defaults(new)) if check else problems


def _identity(old: Resource, new: Resource) -> list[Problem]:
    """Name, namespace and uid say which object it is: another one is another object. An empty uid means the old one."""
    before, after = old.metadata, new.metadata
    pairs = {
        "name": (before.name, after.name),
        "namespace": (before.namespace, after.namespace),
        "uid": (before.uid, after.uid or before.uid),
    }
    return [immutable(f"metadata.{name}", value) for name, (kept, value) in pairs.items() if kept != value]

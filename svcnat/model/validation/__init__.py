"""What Kubernetes would refuse: the rules that a well-shaped object keeps, with every breach reported in its words.

Each kind has a module. None looks at other objects, at what is allocated or at the clock: the controllers do.
"""

from __future__ import annotations

from svcnat.model.defaults import with_defaults
from svcnat.model.objects import (
    Deployment,
    Endpoints,
    EndpointSlice,
    Event,
    Namespace,
    Node,
    Pod,
    Resource,
    Service,
)
from svcnat.model.validation.cluster import check_namespace, check_node, check_node_update
from svcnat.model.validation.endpoints import check_endpoints, check_slice, check_slice_update
from svcnat.model.validation.events import check_event
from svcnat.model.validation.problems import Problem, immutable
from svcnat.model.validation.service import check_service, check_service_update
from svcnat.model.validation.workloads import (
    check_deployment,
    check_deployment_update,
    check_pod,
    check_pod_update,
)

__all__ = ["Problem", "validate", "validate_update"]


def validate(resource: Resource) -> list[Problem]:
    """Return everything wrong with an object, whether or not its defaults are filled in; empty when it is sound."""
    match with_defaults(resource):
        case Service() as service:
            return check_service(service)
        case EndpointSlice() as endpoint_slice:
            return check_slice(endpoint_slice)
        case Endpoints() as endpoints:
            return check_endpoints(endpoints)
        case Pod() as pod:
            return check_pod(pod)
        case Deployment() as deployment:
            return check_deployment(deployment)
        case Node() as node:
            return check_node(node)
        case Namespace() as namespace:
            return check_namespace(namespace)
        case Event() as event:
            return check_event(event)
        case other:
            raise TypeError(f"no rules for {type(other).__name__}")


def validate_update(old: Resource, new: Resource) -> list[Problem]:
    """Return the fields that changed between two versions of an object and may not; the new one was validated."""
    problems = _identity(old, new)
    match with_defaults(old), with_defaults(new):
        case Service() as before, Service() as after:
            problems += check_service_update(before, after)
        case EndpointSlice() as before, EndpointSlice() as after:
            problems += check_slice_update(before, after)
        case Pod() as before, Pod() as after:
            problems += check_pod_update(before, after)
        case Deployment() as before, Deployment() as after:
            problems += check_deployment_update(before, after)
        case Node() as before, Node() as after:
            problems += check_node_update(before, after)
    return problems


def _identity(old: Resource, new: Resource) -> list[Problem]:
    """Name, namespace and uid say which object it is: another one is another object. An empty uid means the old one."""
    before, after = old.metadata, new.metadata
    pairs = {
        "name": (before.name, after.name),
        "namespace": (before.namespace, after.namespace),
        "uid": (before.uid, after.uid or before.uid),
    }
    return [immutable(f"metadata.{name}", value) for name, (kept, value) in pairs.items() if kept != value]

"""What probes make of objects: the readiness of a Pod, and the results of hand-written endpoints.

Source: the kubelet's ``GeneratePodReadyCondition`` (pkg/kubelet/status/generate.go). Who probes, and when, is the
agent's business. The conditions that readiness gates wait for are set by whoever owns the gates.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import TypeVar

from msgspec.structs import replace

from svcnat.model.addresses import canonical
from svcnat.model.conditions import condition_of, with_condition
from svcnat.model.extensions import PROBE_RESULTS, parse_probe_results
from svcnat.model.objects import Condition, ContainerStatus, Endpoints, EndpointSlice, Pod, Resource
from svcnat.model.pods import lasting, lasting_statuses

R = TypeVar("R", EndpointSlice, Endpoints)

_READY = "Ready"
_CONTAINERS_READY = "ContainersReady"
NOT_READY = "ContainersNotReady"
GATES_NOT_READY = "ReadinessGatesNotReady"
NODE_NOT_READY = "NodeNotReady"
"""The reason of a Ready condition that is False because nothing is heard of the Pod's node."""


def ready_condition(unready: Iterable[str], now: str, shut: Sequence[str] = ()) -> Condition:
    """Return the Ready condition of a Pod that runs, of whose containers these are not ready.

    `shut` is what :func:`shut_gates` says of it.
    """
    names = " ".join(unready)
    if not names and not shut:
        return Condition(type=_READY, status="True", last_transition_time=now)
    reason, message = NOT_READY, f"containers with unready status: [{names}]"
    if not names:
        reason, message = GATES_NOT_READY, ", ".join(shut)
    return Condition(type=_READY, status="False", reason=reason, message=message, last_transition_time=now)


def shut_gates(pod: Pod) -> list[str]:
    """Return what is to be said of the readiness gates whose conditions are not True."""
    found = {each.type: each.status for each in pod.status.conditions}
    return [
        f'the status of pod readiness gate "{gate}" is not "True", but {found[gate]}'
        if gate in found
        else f'corresponding condition of pod readiness gate "{gate}" does not exist.'
        for gate in (each.condition_type for each in pod.spec.readiness_gates)
        if found.get(gate) != "True"
    ]


def with_container_ready(pod: Pod, container: str, ready: bool, now: str) -> Pod:  # noqa: FBT001 - the field's own value
    """Return the Pod with what a probe found out about a container, and its conditions accordingly; `now` is RFC 3339.

    The very Pod if that changes nothing, or if it has no such container. A container that the status does not tell
    of counts as ready, if the Pod does or it has no probe.
    """
    status = pod.status
    names = [each.name for each in lasting(pod)]
    if container not in names:
        return pod
    before = condition_of(status.conditions, _READY)
    told = {each.name: each for each in lasting_statuses(pod)}
    readiness = {}
    for each in lasting(pod):
        known = told[each.name].ready if each.name in told else None
        was = before is not None and before.status == "True"
        readiness[each.name] = (was or each.readiness_probe is None) if known is None else known
    readiness[container] = ready
    of_containers = status.container_statuses or [
        ContainerStatus(name=each.name, ready=readiness[each.name]) for each in pod.spec.containers
    ]
    inits, statuses = (
        [replace(each, ready=ready) if each.name == container else each for each in found]
        for found in (status.init_container_statuses, of_containers)
    )
    unready = [name for name in names if not readiness[name]]
    whole = replace(ready_condition(unready, now), type=_CONTAINERS_READY)
    after = ready_condition(unready, now, shut_gates(pod))
    new = _put(_put(status.conditions, after, always=True), whole, always=False)
    if (inits, statuses, new) == (status.init_container_statuses, status.container_statuses, status.conditions):
        return pod
    status = replace(status, init_container_statuses=inits, container_statuses=statuses, conditions=new)
    return replace(pod, status=status)


def _put(known: list[Condition], new: Condition, *, always: bool) -> list[Condition]:
    """Put a condition in the place of the one of its type, whose time stays unless the status changes."""
    old = condition_of(known, new.type)
    if old is None:
        return [*known, new] if always else known
    if old.status == new.status:
        new = replace(new, last_transition_time=old.last_transition_time, last_probe_time=old.last_probe_time)
    return with_condition(known, new)


def with_result(resource: Resource, part: str, ready: bool, now: str) -> Resource:  # noqa: FBT001 - as above
    """Return the object with what a probe found out about a part of it: a container, or a canonical address."""
    match resource:
        case Pod():
            return with_container_ready(resource, part, ready, now)
        case EndpointSlice():
            return with_probe_results(resource, {part: ready})
        case Endpoints():
            return with_probe_results(resource, {part: ready})
    return resource


def with_probe_results(resource: R, results: Mapping[str, bool]) -> R:
    """Return hand-written endpoints with these results by canonical address, besides those that they have.

    The very object if that changes nothing. Only failures are written, and those of addresses that have gone are
    dropped.
    """
    annotations = resource.metadata.annotations
    known = {**parse_probe_results(annotations.get(PROBE_RESULTS, "{}")), **results}
    present = set(endpoint_addresses(resource))
    failed = {ip: False for ip, ready in known.items() if not ready and ip in present}
    kept = {key: text for key, text in annotations.items() if key != PROBE_RESULTS}
    if failed:
        kept[PROBE_RESULTS] = json.dumps(failed, sort_keys=True)
    if kept == annotations:
        return resource
    return replace(resource, metadata=replace(resource.metadata, annotations=kept))


def endpoint_addresses(resource: EndpointSlice | Endpoints) -> Iterable[str | None]:
    """Return the canonical addresses of hand-written endpoints."""
    if isinstance(resource, EndpointSlice):
        return (canonical(each.addresses[0]) for each in resource.endpoints if each.addresses)
    return (
        canonical(each.ip) for subset in resource.subsets for each in (*subset.addresses, *subset.not_ready_addresses)
    )

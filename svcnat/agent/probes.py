"""What is probed, and when an endpoint counts as ready: the kubelet's readiness probes as values and a state machine.

Source: the kubelet's ``pkg/kubelet/prober/worker.go`` and core/v1 Probe. No clock, no socket, no task: attempts are
:mod:`svcnat.agent.attempts`, their schedule is :mod:`svcnat.agent.prober`, and where a result is written is
:mod:`svcnat.controllers.readiness`. Liveness and startup probes restart containers, which is nobody's business here.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from msgspec.structs import replace

from svcnat.controllers.node_lifecycle import is_marked
from svcnat.controllers.slices import FROM_ENDPOINTS, FROM_PODS
from svcnat.model.addresses import canonical
from svcnat.model.extensions import PROBE, PROBE_RESULTS, parse_probe, parse_probe_results
from svcnat.model.labels import MANAGER_LABEL
from svcnat.model.objects import Container, EndpointSlice, Pod, Probe, Service
from svcnat.model.pods import addresses_of, has_ended, is_ready, is_stand_in, lasting, lasting_statuses

Where = str | os.PathLike[str] | None
"""A network namespace by name or path; None is the process's own."""


class Key(NamedTuple):
    """Whose readiness a probe decides.

    ``kind`` is Pod, EndpointSlice or Endpoints: the object that the result is written to. ``part`` is the container of
    a Pod, the canonical address of an endpoint otherwise. ``uid`` tells a Pod from another of its name.
    """

    kind: str
    namespace: str
    name: str
    part: str
    uid: str = ""

    def __str__(self) -> str:
        return f"{self.kind} {self.namespace}/{self.name} {self.part}"


@dataclass(frozen=True, slots=True)
class Probed:
    """Something to probe.

    ``address`` is where, unless the probe names a host; ``port`` is the endpoint's own, for a probe without a port,
    and ``ports`` are those that a probe may name. ``netns`` is where the sockets are opened. ``ready`` is what the
    objects say now: it stays until the probe has proved something else. ``started`` (RFC 3339) is when the container
    started, from which ``initialDelaySeconds`` counts; "" means when the prober learns of it.
    """

    key: Key
    probe: Probe
    address: str
    ports: Mapping[str, int] = field(default_factory=dict)
    port: int | None = None
    netns: Where = None
    ready: bool = False
    started: str = ""

    def asks_as(self, other: Probed) -> bool:
        """Tell whether two of one key are probed alike, whatever the objects say now."""
        return (
            self.address == other.address
            and self.port == other.port
            and self.netns == other.netns
            and self.started == other.started
            and self.probe == other.probe
            and self.ports == other.ports
        )


@dataclass(frozen=True, slots=True)
class Result:
    """What a probe found out.

    ``changed`` is True if the object says something else than ``ready``, and has to be written. It is False if there
    is something to tell without consequences: an Event is all that is due, of this ``reason`` (the kubelet's words).
    ``message`` is one printable line, "" if there is nothing to tell. ``address`` is where that was.
    """

    key: Key
    ready: bool
    message: str
    changed: bool
    address: str = field(default="", compare=False)
    reason: Literal["Unhealthy", "ProbeWarning"] = "Unhealthy"


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one attempt ended: True, False, or None when it says nothing about the endpoint, with the reason.

    A success may have a message, too: what somebody should know about it.
    """

    success: bool | None
    message: str = ""


WORKS = Outcome(success=True)


def fails(message: str) -> Outcome:
    """Return the outcome of an attempt that the endpoint did not pass."""
    return Outcome(success=False, message=message)


def unclear(message: str) -> Outcome:
    """Return the outcome of an attempt that says nothing about the endpoint."""
    return Outcome(success=None, message=message)


@dataclass(frozen=True, slots=True)
class State:
    """What the attempts so far have proved: `run` is how often in a row the last outcome came."""

    ready: bool
    last: bool | None = None
    run: int = 0
    proven: bool = False

    def after(self, success: bool | None, probe: Probe) -> State:  # noqa: FBT001 - the outcome's own value
        """Return the state after one more attempt; one that says nothing changes nothing."""
        if success is None:
            return self
        run = self.run + 1 if success is self.last else 1
        needed = (probe.success_threshold if success else probe.failure_threshold) or 1
        if run < needed:
            return State(self.ready, success, run, self.proven)
        return State(success, success, run, proven=True)

    def told(self, ready: bool) -> State:  # noqa: FBT001 - the object's own value
        """Return the state when the object says `ready`: what was proved counts for more."""
        return self if self.proven or self.ready is ready else State(ready, self.last, self.run)


# --- who is probed -------------------------------------------------------------------------------------------


def wanted_of_pod(pod: Pod, netns: Where = None) -> tuple[Probed, ...]:
    """Return what is to be probed of a Pod, from its node's network namespace.

    Every container and sidecar that has a readinessProbe, at the Pod's first address, unless its status says that it
    does not run. A Pod without an address, or one that has ended, or is on a node that nothing is heard of, has nothing
    to probe.
    """
    if is_marked(pod):
        return ()
    addresses = [known for ip in addresses_of(pod) if (known := canonical(ip))]
    if not addresses or has_ended(pod):
        return ()
    return tuple(_of_containers(pod, addresses[0], netns))


def _of_containers(pod: Pod, address: str, netns: Where) -> Iterator[Probed]:
    meta = pod.metadata
    statuses = {each.name: each for each in lasting_statuses(pod)}
    for container in lasting(pod):
        if container.readiness_probe is None:
            continue
        status = statuses.get(container.name)
        if status and (status.state.waiting or status.state.terminated):
            continue
        running = status.state.running if status else None
        probe = container.readiness_probe
        yield Probed(
            key=Key("Pod", meta.namespace, meta.name, container.name, meta.uid),
            probe=_of_stand_in(probe) if status and is_stand_in(status) else probe,
            address=address,
            ports=_named(container),
            netns=netns,
            ready=is_ready(pod) if status is None or status.ready is None else status.ready,
            started=(running.started_at if running else None) or "",
        )


def _of_stand_in(probe: Probe) -> Probe:
    """Return the probe as it suits a stand-in, which needs no time to start, and speaks no TLS."""
    get = probe.http_get
    return replace(probe, initial_delay_seconds=None, http_get=replace(get, scheme=None) if get else None)


def _named(container: Container) -> dict[str, int]:
    return {port.name: port.container_port for port in container.ports if port.name and port.container_port}


def wanted_of_service(service: Service, slices: Iterable[EndpointSlice], netns: Where = None) -> tuple[Probed, ...]:
    """Return what is to be probed of a Service with the annotation ``svcnat.io/probe``: its hand-written endpoints.

    Those of its Pods have readinessProbes. A probe without a port goes to the endpoint's port with the name of the
    Service's first TCP port. An address that one object names twice is probed once.

    Raises:
        ValueError: the annotation was never validated (so for all that reads an annotation here).

    """
    text = service.metadata.annotations.get(PROBE)
    if text is None:
        return ()
    probe = parse_probe(text)
    first = next((port.name for port in service.spec.ports if (port.protocol or "TCP") == "TCP"), None)
    found: dict[Key, Probed] = {}
    for piece in sorted(slices, key=lambda each: each.metadata.name):
        if piece.address_type == "FQDN" or piece.metadata.labels.get(MANAGER_LABEL) == FROM_PODS:
            continue
        for one in _of_slice(service, piece, probe, first, netns):
            # Of an Endpoints object's subsets, one with the port to probe says more than one without.
            if one.key not in found or (found[one.key].port is None and one.port is not None):
                found[one.key] = one
    return tuple(found.values())


def _of_slice(
    service: Service, piece: EndpointSlice, probe: Probe, first: str | None, netns: Where
) -> Iterator[Probed]:
    meta = piece.metadata
    mirrored = meta.labels.get(MANAGER_LABEL) == FROM_ENDPOINTS
    kind, name = ("Endpoints", service.metadata.name) if mirrored else ("EndpointSlice", meta.name)
    ports = {each.name or "": each.port for each in piece.ports if each.port and (each.protocol or "TCP") == "TCP"}
    results = parse_probe_results(meta.annotations.get(PROBE_RESULTS, "{}"))
    for endpoint in piece.endpoints:
        address = canonical(endpoint.addresses[0]) if endpoint.addresses else None
        if address is not None:
            yield Probed(
                key=Key(kind, meta.namespace, name, address),
                probe=probe,
                address=address,
                ports=ports,
                port=None if first is None else ports.get(first),
                netns=netns,
                ready=results.get(address, True),
            )

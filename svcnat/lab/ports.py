"""On which ports a stand-in answers for a pod: from the manifest to plain values; nothing is opened here.

A ``containerPort`` says only what a container listens on, and manifests in the wild leave out ports that nobody but
the kubelet asks. So where a container declares any, the one that its readinessProbe asks is served, too. One that
declares none is left alone: whoever runs a server in the pod by hand has its ports for himself.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

from svcnat.lab import containers
from svcnat.lab.control import Port
from svcnat.model.objects import Container, Pod, Probe


def stood_in(pod: Pod, manned: Collection[str]) -> tuple[Port, ...]:
    """The ports of the containers that are not `manned`, each once.

    Those of init containers that do not stay are nobody's, and what a program declares is its own.
    """
    staying = [each for each in containers.all_of(pod) if containers.part_of(pod, each) != "init"]
    taken = {port for each in staying if each.name in manned for port in _declared(each)}
    found = {port: None for each in staying if each.name not in manned for port in _served(each)}
    return tuple(port for port in found if port not in taken)


def _declared(container: Container) -> list[Port]:
    return [Port(port.protocol or "TCP", port.container_port) for port in container.ports if port.container_port]


def _served(container: Container) -> Iterator[Port]:
    declared = _declared(container)
    yield from declared
    if declared and container.readiness_probe and (asked := _asked(container.readiness_probe)):
        yield Port("TCP", asked)


def _asked(probe: Probe) -> int | None:
    """The port that a probe asks by its number, unless at another host."""
    action = probe.http_get or probe.tcp_socket
    if action:
        return action.port if isinstance(action.port, int) and not action.host else None
    return probe.grpc.port if probe.grpc else None

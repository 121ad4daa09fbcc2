"""Which node ports a Service gets: those it asks for, others from the upper band of the range.

A number belongs to one Service, whose protocols may share it: a port number that a Service has on TCP and UDP gets one
node port for both. The port of its health check is a number of its own. Source: ``initNodePorts``,
``updateNodePorts`` and ``updateHealthCheckNodePort`` of kube-apiserver (``service/storage/alloc.go``).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

from msgspec.structs import replace

from svcnat.controllers.claims import Claim, Pool, node_port, refused
from svcnat.controllers.ranges import port_candidates, upper_ports
from svcnat.errors import ExhaustedError, Finding, ManifestError
from svcnat.model.objects import Service, ServicePort
from svcnat.model.services import has_node_ports, needs_health_check


def with_node_ports(service: Service, held: Collection[Claim], numbers: range, pool: Pool) -> Service:
    """Return the Service with its node ports, claimed; those it `held` may be outside the range `numbers`.

    Raises:
        ManifestError: every number that it asks for and cannot have.
        ExhaustedError: none is left.

    """
    spec = service.spec
    if not has_node_ports(spec):
        return service
    _claim_requested(service, held, numbers, pool)
    draw = _Draw(service, held, numbers, pool)
    if spec.type == "NodePort" or spec.allocate_load_balancer_node_ports is not False:
        spec = replace(spec, ports=_complete(spec.ports, draw))
    if needs_health_check(spec) and not spec.health_check_node_port:
        spec = replace(spec, health_check_node_port=draw("a HealthCheck NodePort", "healthCheck"))
    return replace(service, spec=spec)


def _claim_requested(service: Service, held: Collection[Claim], numbers: range, pool: Pool) -> None:
    findings: list[Finding] = []
    given: set[int] = set()
    for index, port in enumerate(service.spec.ports):
        number = port.node_port
        if number and number not in given:
            given.add(number)
            if problem := _problem(service, number, held, numbers, pool):
                findings.append(refused(service, f"spec.ports[{index}].nodePort", number, problem))
    if (check := service.spec.health_check_node_port) and needs_health_check(service.spec):
        problem = (
            "provided port is already allocated" if check in given else _problem(service, check, held, numbers, pool)
        )
        if problem:
            text = f"failed to allocate requested HealthCheck NodePort {check}: {problem}"
            findings.append(refused(service, "spec.healthCheckNodePort", check, text))
    if findings:
        raise ManifestError(findings)


def _problem(service: Service, number: int, held: Collection[Claim], numbers: range, pool: Pool) -> str:
    """Claim a number, and return why that cannot be; empty if it can."""
    claim = node_port(number)
    if number not in numbers and claim not in held:
        valid = f"{numbers.start}-{numbers.stop - 1}"
        return f"provided port is not in the valid range. The range of valid ports is {valid}"
    return "" if pool.claim(claim, service) else "provided port is already allocated"


class _Draw:
    """Finds and claims numbers that the Service neither asked for nor had: those may be on their way out."""

    def __init__(self, service: Service, held: Collection[Claim], numbers: range, pool: Pool) -> None:
        self._service = service
        self._numbers = numbers
        self._pool = pool
        asked = {port.node_port for port in service.spec.ports} | {service.spec.health_check_node_port}
        self._own = {*held, *(node_port(number) for number in asked if number)}

    def __call__(self, what: str, seed: str) -> int:
        meta = self._service.metadata
        start = self._pool.draw(f"nodePort/{meta.namespace}/{meta.name}/{seed}", len(upper_ports(self._numbers)))
        for number in port_candidates(self._numbers, start):
            claim = node_port(number)
            if claim not in self._own and self._pool.claim(claim, self._service):
                self._own.add(claim)
                return number
        raise ExhaustedError(
            f'services "{meta.name}": failed to allocate {what}: the range {self._numbers.start}-'
            f"{self._numbers.stop - 1} is full; delete services or configure a larger nodePortRange"
        )


def _complete(ports: list[ServicePort], draw: _Draw) -> list[ServicePort]:
    taken = {(port.protocol, port.node_port) for port in ports}
    by_port: dict[int | None, int] = {}
    for port in ports:
        if port.node_port:
            by_port.setdefault(port.port, port.node_port)

    def completed() -> Iterator[ServicePort]:
        for port in ports:
            number = port.node_port or by_port.get(port.port)
            if not number or (not port.node_port and (port.protocol, number) in taken):
                number = draw("a nodePort", str(port.port))
            by_port.setdefault(port.port, number)
            taken.add((port.protocol, number))
            yield replace(port, node_port=number)

    return list(completed())

"""What one Service holds and no other may: cluster addresses, node ports, addresses from the load balancers' pool.

It chooses nothing: :mod:`svcnat.controllers.allocation` and its neighbours do.
"""

from __future__ import annotations

from typing import Literal, NamedTuple, Protocol

from svcnat.errors import Finding, ManifestError
from svcnat.model.addresses import canonical
from svcnat.model.kinds import subject
from svcnat.model.objects import Resource, Service
from svcnat.model.services import cluster_ips_of, has_node_ports
from svcnat.model.validation.problems import invalid


class Claim(NamedTuple):
    """One thing that has one holder; `value` is a canonical address or a number."""

    kind: Literal["clusterIP", "nodePort", "loadBalancerIP"]
    value: str


class Pool(Protocol):
    """Who holds what."""

    def claim(self, claim: Claim, service: Service) -> bool:
        """Give it to the Service, which may hold it already; False if another one does."""
        ...

    def release(self, claim: Claim, service: Service) -> None:
        """Take it back from the Service; nothing happens if that does not hold it."""
        ...

    def draw(self, seed: str, bound: int) -> int:
        """Return a number from 0 to `bound` - 1; a World without randomness derives it from `seed`."""
        ...


class Ledger:
    """A Pool that notes what was claimed, so that an error can undo it."""

    def __init__(self, pool: Pool) -> None:
        """Note the claims on a pool."""
        self._pool = pool
        self.claimed: list[Claim] = []
        self.draw = pool.draw
        self.release = pool.release

    def claim(self, claim: Claim, service: Service) -> bool:
        """See :class:`Pool`."""
        given = self._pool.claim(claim, service)
        if given:
            self.claimed.append(claim)
        return given


def cluster_ip(address: str) -> Claim:
    """Return the claim on a cluster address."""
    return Claim("clusterIP", canonical(address) or address)


def node_port(number: int) -> Claim:
    """Return the claim on a node port, on all protocols."""
    return Claim("nodePort", str(number))


def balancer_ip(address: str) -> Claim:
    """Return the claim on a load balancer's address."""
    return Claim("loadBalancerIP", canonical(address) or address)


def claims_of(service: Service) -> set[Claim]:
    """Return all that a Service names as its own."""
    spec = service.spec
    found = {cluster_ip(address) for address in cluster_ips_of(spec)}
    if has_node_ports(spec):
        found |= {node_port(port.node_port) for port in spec.ports if port.node_port}
    if spec.type == "LoadBalancer":
        found |= {balancer_ip(each.ip) for each in service.status.load_balancer.ingress if each.ip}
        found |= {node_port(spec.health_check_node_port)} if spec.health_check_node_port else set()
    return found


def asks(resource: Resource) -> bool:
    """Tell whether an object asks for something of its own choice: such ones come before those that take anything."""
    return isinstance(resource, Service) and bool(claims_of(resource) or resource.spec.load_balancer_ip)


def is_waiting(service: Service) -> bool:
    """Tell whether a Service waits for an address from the pool: nobody gave it one, or is to give it one."""
    spec = service.spec
    return spec.type == "LoadBalancer" and spec.load_balancer_class is None and not service.status.load_balancer.ingress


def refused(service: Service, field: str, value: object, reason: str) -> Finding:
    """Return the finding that a Service cannot have a value."""
    return Finding("", 0, subject(service), field, invalid(field, value, reason).reason)


def refuse(service: Service, field: str, value: object, reason: str) -> ManifestError:
    """Return the error that a Service cannot have a value."""
    return ManifestError([refused(service, field, value, reason)])

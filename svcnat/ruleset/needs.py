"""What the Services of a node need of its host beside the rules, kept up to date one Service at a time.

That is, addresses for which the host must answer on its links, because no device of any host has them, and families
whose node ports are to answer on its loopback. Pure: on which links, and how the kernel is made to do it, is the
subject of :mod:`svcnat.kernel.announce` and :mod:`svcnat.kernel.localhost`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Hashable, Iterable
from typing import Generic, TypeVar

from svcnat.ruleset.endpoints import Family
from svcnat.ruleset.plan import Frontend, Identity, Kind, Plan, Scope, ServicePortPlan, Settings

_Need = TypeVar("_Need", bound=Hashable)


class Needs:
    """What Services need of the host: those that were put, as they were put last."""

    def __init__(self, settings: Settings) -> None:
        """Begin without any Service; other settings are other needs."""
        self._settings = settings
        self._addresses: _Shared[str] = _Shared()
        self._loopback: _Shared[Family] = _Shared()

    @classmethod
    def of(cls, plan: Plan) -> Needs:
        """What the Services of a whole plan need."""
        needs = cls(plan.settings)
        for identity, ports in plan.services.items():
            needs.put(identity, ports)
        return needs

    @property
    def addresses(self) -> Collection[str]:
        """The load-balancer and external IPs to answer for on links: those that this node serves, and no device has.

        With externalTrafficPolicy Local, a node without endpoints would drop what outsiders send: it leaves the answer
        to a node that has some. An address that several ports share counts as soon as one of them can be served.
        """
        return self._addresses.counts.keys()

    @property
    def loopback(self) -> Collection[Family]:
        """The families of node ports that are to answer on loopback; without any, no rules may guard the loopback."""
        return self._loopback.counts.keys()

    def put(self, identity: Identity, ports: Iterable[ServicePortPlan]) -> bool:
        """Take what a Service has now, nothing if it is gone; True if together they need other things than before."""
        ports = tuple(ports)
        addresses = {each.address for port in ports for each in port.frontends if _is_answered(port, each)}
        families = {port.family for port in ports if self._settings.localhost_node_ports and _has_node_port(port)}
        moved = self._addresses.put(identity, addresses)
        return self._loopback.put(identity, families) or moved


class _Shared(Generic[_Need]):
    """What is needed, and by how many Services."""

    def __init__(self) -> None:
        self.counts: Counter[_Need] = Counter()
        self._of: dict[Identity, Collection[_Need]] = {}

    def put(self, identity: Identity, wanted: Collection[_Need]) -> bool:
        """Exchange what one Service needs; True if something came that nobody needed, or what nobody needs now went."""
        had = self._of.pop(identity, ())
        if wanted:
            self._of[identity] = wanted
        came = any(each not in self.counts for each in wanted)
        self.counts.update(wanted)
        self.counts.subtract(had)
        unneeded = [each for each in had if not self.counts[each]]
        for each in unneeded:
            del self.counts[each]
        return came or bool(unneeded)


def _is_answered(port: ServicePortPlan, frontend: Frontend) -> bool:
    """True if it is on a link, and outsiders get an answer from this node; a refusal is one."""
    endpoints = port.endpoints
    serves = frontend.scope is not Scope.OUTSIDE_LOCAL or bool(endpoints.local) or not endpoints.anywhere
    return frontend.announced and serves


def _has_node_port(port: ServicePortPlan) -> bool:
    return any(frontend.kind is Kind.NODE_PORT for frontend in port.frontends)

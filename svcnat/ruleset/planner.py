"""The Plan of a node's services, kept up to date one Service at a time.

The same decisions as :func:`svcnat.ruleset.plan.plan`, whose rules these are: what is here is only which Services a
change concerns. Usually that is the one that changed; where Services claim the same frontend, also the one that loses
it or gets it back. Objects are not looked up: the caller brings a Service and its slices.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Iterable, Mapping
from types import MappingProxyType

from svcnat.model.objects import EndpointSlice, Service
from svcnat.ruleset.plan import (
    Claim,
    HealthCheck,
    Identity,
    Kind,
    Plan,
    Seniority,
    ServicePortPlan,
    Settings,
    claim_of,
    claims_of,
    health_check,
    plan_service,
    seniority,
    without,
)

_Ports = tuple[ServicePortPlan, ...]
_Bid = tuple[bool, Seniority]  # False if the address was allocated to the Service; its seniority


class Planner:
    """An incremental plan: after any changes it equals the plan of the present Services and slices."""

    def __init__(self, settings: Settings) -> None:
        """Begin without any Service; other settings are another planner."""
        self._settings = settings
        self._asked: dict[Identity, _Ports] = {}  # before others' older claims are taken off
        self._services: dict[Identity, _Ports] = {}
        self._seniority: dict[Identity, Seniority] = {}
        self._health_checks: dict[Identity, HealthCheck] = {}
        self._bids: dict[Claim, list[_Bid]] = {}  # whose is a frontend: the first has it
        self._taken: dict[Identity, _Ports] = {}  # of Services that changed: what they were at the last take

    def retune(self, settings: Settings) -> None:
        """Take other settings: every Service that is there must be put again, and follows them from then on."""
        self._settings = settings

    @property
    def services(self) -> Mapping[Identity, _Ports]:
        """The ports of every Service that has some, in no order; it follows the planner."""
        return MappingProxyType(self._services)

    @property
    def health_checks(self) -> tuple[HealthCheck, ...]:
        """The health checks of all Services, those of the older ones first."""
        return tuple(self._health_checks[each] for each in sorted(self._health_checks, key=self._seniority.__getitem__))

    def plan(self) -> Plan:
        """The whole plan; it costs a walk over all Services."""
        ordered = sorted(self._services, key=self._seniority.__getitem__)
        return Plan(self._settings, {each: self._services[each] for each in ordered}, self.health_checks)

    def put(self, service: Service, slices: Iterable[EndpointSlice]) -> None:
        """Plan a Service that is new or has changed, given its own EndpointSlices.

        Raises:
            UsageError: the Service was never validated; the plan is as it was.

        """
        identity = (service.metadata.namespace, service.metadata.name)
        ports = plan_service(service, slices, self._settings)
        check = health_check(service, ports)
        self._replace(identity, ports, seniority(service))
        if ports and check:
            self._health_checks[identity] = check
        else:
            self._health_checks.pop(identity, None)

    def remove(self, identity: Identity) -> None:
        """Forget a Service; nothing happens if it has no plan."""
        self._health_checks.pop(identity, None)
        self._replace(identity, (), ("", *identity))

    def take(self) -> dict[Identity, _Ports]:
        """The Services whose ports are not what they were at the last take, with their ports now: () if they are gone.

        Services that lost a frontend to another one, or got it back, are among them.
        """
        taken, self._taken = self._taken, {}
        now = {identity: self._services.get(identity, ()) for identity in taken}
        return {identity: ports for identity, ports in now.items() if ports != taken[identity]}

    def _replace(self, identity: Identity, ports: _Ports, rank: Seniority) -> None:
        """Exchange what a Service asks for, and decide again about every frontend that it claimed or claims."""
        old, new = self._bids_of(identity), _bids(ports, rank)
        concerned = {identity}
        for claim in old.keys() | new.keys():
            if old.get(claim) != new.get(claim):
                concerned |= self._bid(claim, old.get(claim), new.get(claim))
        if ports:
            self._asked[identity], self._seniority[identity] = ports, rank
        else:
            self._asked.pop(identity, None)
            self._seniority.pop(identity, None)
        for each in concerned:
            self._decide(each)

    def _bids_of(self, identity: Identity) -> dict[Claim, _Bid]:
        asked = self._asked.get(identity)
        return _bids(asked, self._seniority[identity]) if asked else {}

    def _bid(self, claim: Claim, old: _Bid | None, new: _Bid | None) -> set[Identity]:
        """Exchange one Service's bid for a frontend; returns who had the frontend, and who has it."""
        bids = self._bids.setdefault(claim, [])
        concerned = {_bidder(bid) for bid in bids[:1]}
        if old:
            bids.remove(old)
        if new:
            insort(bids, new)
        if not bids:
            del self._bids[claim]
        return concerned | {_bidder(bid) for bid in bids[:1]}

    def _decide(self, identity: Identity) -> None:
        """Give a Service the frontends that it has, of those it asks for."""
        self._taken.setdefault(identity, self._services.get(identity, ()))
        if asked := self._asked.get(identity):
            lost = {claim for claim in claims_of(asked) if _bidder(self._bids[claim][0]) != identity}
            self._services[identity] = tuple(without(port, lost) for port in asked)
        else:
            self._services.pop(identity, None)


def _bids(ports: _Ports, rank: Seniority) -> dict[Claim, _Bid]:
    """What a Service bids for each frontend that it claims: a cluster IP counts before every other kind."""
    first, later = (False, rank), (True, rank)
    bids: dict[Claim, _Bid] = {}
    for port in ports:
        for frontend in port.frontends:
            claim = claim_of(port, frontend)
            bids[claim] = min(bids.get(claim, later), first if frontend.kind is Kind.CLUSTER_IP else later)
    return bids


def _bidder(bid: _Bid) -> Identity:
    _, (_, namespace, name) = bid
    return namespace, name

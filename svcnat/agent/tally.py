"""How much a node's rules serve, counted as Services come, change and go. Pure: what they serve was decided before."""

from __future__ import annotations

from collections import Counter
from typing import NamedTuple

from svcnat.agent.desired import Identity
from svcnat.ruleset.plan import Scope, ServicePortPlan

POLICIES = ("internal", "external")
"""Whose traffic a policy of a Service is about."""

_POLICY_OF = {Scope.LOCAL: "internal", Scope.OUTSIDE_LOCAL: "external"}


class _Share(NamedTuple):
    """What one Service adds."""

    endpoints: int = 0
    far: frozenset[str] = frozenset()


class Tally:
    """The sums over all Services; each costs no more than itself.

    ``far``: by :data:`POLICIES`, the Services whose policy is Local, and that have endpoints, but none on this node.
    """

    def __init__(self) -> None:
        self.endpoints = 0
        self.far: Counter[str] = Counter()
        self._shares: dict[Identity, _Share] = {}

    def put(self, identity: Identity, ports: tuple[ServicePortPlan, ...]) -> None:
        """Count a Service by its ports of now, instead of what it was before; one without any is gone."""
        before, share = self._shares.pop(identity, _Share()), _share(ports)
        self.endpoints += share.endpoints - before.endpoints
        self.far.subtract(before.far)
        self.far.update(share.far)
        if ports:
            self._shares[identity] = share


def _share(ports: tuple[ServicePortPlan, ...]) -> _Share:
    return _Share(
        sum(len(port.endpoints.serving) for port in ports),
        frozenset(
            _POLICY_OF[frontend.scope]
            for port in ports
            if port.endpoints.anywhere and not port.endpoints.local
            for frontend in port.frontends
            if frontend.scope in _POLICY_OF
        ),
    )

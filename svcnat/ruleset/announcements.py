"""Which addresses a host must answer for on its links, because no device of any host has them.

Pure: on which links, and how the kernel is made to answer, is :mod:`svcnat.kernel.announce`'s subject.
"""

from __future__ import annotations

from svcnat.ruleset.plan import Frontend, Kind, Plan, Scope, ServicePortPlan, answerable


def announced(plan: Plan) -> tuple[str, ...]:
    """The load-balancer and external IPs that this node serves, without those that its own devices have.

    With externalTrafficPolicy Local, a node without endpoints would drop what outsiders send: it leaves the answer to
    a node that has some. An address that several ports share counts as soon as one of them can be served.
    """
    found = {
        frontend.address: None
        for ports in plan.services.values()
        for port in ports
        for frontend in port.frontends
        if frontend.kind in (Kind.EXTERNAL_IP, Kind.LOAD_BALANCER) and _serves(port, frontend)
    }
    return tuple(address for address in found if answerable(address, plan.settings))


def _serves(port: ServicePortPlan, frontend: Frontend) -> bool:
    """True if outsiders get an answer from this node; a refusal is one."""
    endpoints = port.endpoints
    return frontend.scope is not Scope.OUTSIDE_LOCAL or bool(endpoints.local) or not endpoints.anywhere

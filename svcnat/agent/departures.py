"""Which flows to look at after a change of rules, because whoever served them may be gone.

Those of UDP always, since they never end by themselves as long as packets come; of other protocols only where the
Service asks for it (``svcnat.io/on-endpoint-removal: terminate``). The looking, and the deleting, is
:mod:`svcnat.agent.flows`' work.
"""

from __future__ import annotations

from collections.abc import Collection, Container, Iterable, Iterator
from dataclasses import dataclass, field

from svcnat.ruleset.compile import frontend_of
from svcnat.ruleset.diff import Change
from svcnat.ruleset.endpoints import Backend, Family
from svcnat.ruleset.plan import Frontend, Kind, ServicePortPlan


@dataclass(slots=True)
class Departures:
    """Frontends and node ports, each with the endpoints that may keep their flows."""

    frontends: dict[tuple[Family, str, str, int], Container[Backend]] = field(default_factory=dict)
    node_ports: dict[tuple[Family, str, int], Container[Backend]] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.frontends or self.node_ports)

    def update(self, other: Departures) -> None:
        """Look at the flows of others, too."""
        self.frontends.update(other.frontends)
        self.node_ports.update(other.node_ports)

    def add(self, port: ServicePortPlan, frontend: Frontend, serving: Container[Backend]) -> None:
        """Look at the flows of a frontend."""
        if frontend.kind is Kind.NODE_PORT:
            self.node_ports[port.family, port.protocol, frontend.port] = serving
        else:
            self.frontends[port.family, frontend.address, port.protocol, frontend.port] = serving


def departures(
    change: Change, ports: Iterable[ServicePortPlan] = (), gone: Iterable[ServicePortPlan] = ()
) -> Departures:
    """What a change may have left behind, of the service ports that it may concern.

    `gone` are the same ports before it, where that is known: of a Service that is deleted, nothing else tells that its
    connections are to be ended.
    """
    found = Departures()
    touched = set(_touched(change))
    # Whose clients these were is not known: all frontends of the protocol are looked at.
    unchosen = {(family, key[1]) for family, part in change.items() for key in part.stale.get("unchosen", ())}
    moved = {family for family, part in change.items() if "nodeport-ips" in {*part.stale, *part.fresh}}
    # A frontend that is gone has nobody to serve its flows.
    for family, address, protocol, number in touched:
        if protocol == "udp" and address:
            found.frontends[family, address, protocol, number] = frozenset()
        elif protocol == "udp":
            found.node_ports[family, protocol, number] = frozenset()
    for port, frontend in _ending(gone):
        if (port.family, frontend.address, port.protocol, frontend.port) in touched:
            found.add(port, frontend, frozenset())
    for port, frontend in _ending(ports):
        looked_at = (port.family, port.protocol) in unchosen
        looked_at |= (port.family, frontend.address, port.protocol, frontend.port) in touched
        if not looked_at and not (frontend.kind is Kind.NODE_PORT and port.family in moved):
            continue
        if frontend.kind is Kind.NODE_PORT:
            for address in _silenced(change, port.family):
                found.frontends.setdefault((port.family, address, port.protocol, frontend.port), frozenset())
        found.add(port, frontend, frozenset(port.endpoints.serving))
    return found


def everything(ports: Iterable[ServicePortPlan]) -> Departures:
    """All frontends whose flows end with their endpoints: what to look at when nobody knows what went before."""
    found = Departures()
    for port, frontend in _ending(ports):
        found.add(port, frontend, frozenset(port.endpoints.serving))
    return found


@dataclass(frozen=True, slots=True)
class Left:
    """Endpoints that a service port lost, whose connections end later (``terminate=SECONDS``).

    They are a frozenset where they are known; else all but those that served when somebody began to look.
    """

    port: ServicePortPlan
    endpoints: Container[Backend]

    @property
    def seconds(self) -> int:
        """How long their connections go on."""
        return self.port.terminate_after or 0


def left(before: Iterable[ServicePortPlan], after: Iterable[ServicePortPlan]) -> Iterator[Left]:
    """What the ports of a Service lost of whose connections are not to be ended at once."""
    serving = {_name(port): frozenset(port.endpoints.serving) for port in after}
    for port in before:
        if port.terminate_after and (gone := frozenset(port.endpoints.serving) - serving.get(_name(port), frozenset())):
            yield Left(port, gone)


def unknown(ports: Iterable[ServicePortPlan]) -> Iterator[Left]:
    """What ports may have lost before anybody looked, of whose connections are not to be ended at once."""
    for port in ports:
        if port.terminate_after:
            yield Left(port, _AllBut((frozenset(port.endpoints.serving),)))


def overdue(lost: Collection[Left], later: Iterable[Left], ports: Iterable[ServicePortPlan]) -> Departures:
    """The connections of a Service that are to be ended now.

    Not those of endpoints that came back: `ports` are the Service's present ones. Nor those of endpoints that went
    `later`, and have their own time.
    """
    exempt = {_name(port): frozenset(port.endpoints.serving) for port in ports}
    for each in later:
        if isinstance(each.endpoints, frozenset):
            exempt[_name(each.port)] = exempt.get(_name(each.port), frozenset()) | each.endpoints
    # A port may have lost endpoints one after the other: what is said of a frontend is said once.
    gone: dict[tuple[str, Family, str], list[Container[Backend]]] = {}
    for each in lost:
        gone.setdefault(_name(each.port), []).append(each.endpoints)
    found = Departures()
    for each in lost:
        name = _name(each.port)
        for frontend in each.port.frontends:
            found.add(each.port, frontend, _AllBut(gone[name], exempt.get(name, frozenset())))
    return found


class _AllBut:
    """All endpoints but some, of which a few may be exempt."""

    def __init__(self, these: Iterable[Container[Backend]], exempt: frozenset[Backend] = frozenset()) -> None:
        self._these, self._exempt = tuple(these), exempt

    def __contains__(self, endpoint: object) -> bool:
        return endpoint in self._exempt or not any(endpoint in each for each in self._these)


def _name(port: ServicePortPlan) -> tuple[str, Family, str]:
    return port.title, port.family, port.protocol


def _ending(ports: Iterable[ServicePortPlan]) -> Iterator[tuple[ServicePortPlan, Frontend]]:
    return ((port, frontend) for port in ports if port.ends_flows for frontend in port.frontends)


def _silenced(change: Change, family: Family) -> Iterator[str]:
    """The node's addresses that answered node ports until now."""
    part = change.get(family)
    for key in part.stale.get("nodeport-ips", ()) if part else ():
        yield str(key[0])


def _touched(change: Change) -> Iterator[tuple[Family, str, str, int]]:
    """The frontends whose elements a change adds or deletes: family, address ("" for a node port), protocol, port."""
    for family, part in change.items():
        for elements in (part.stale, part.fresh):
            for name, keys in elements.items():
                for key in keys:
                    if found := frontend_of(name, key):
                        yield (family, *found)

"""From a Plan to a ruleset: which elements and selector chains each Service gets.

A service's part is a :class:`~svcnat.ruleset.assembly.Fragment`. Policy is not decided here: the Plan holds it. How
fragments become one ruleset, and what changes when one of them does, is :mod:`svcnat.ruleset.assembly`'s subject.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass
from hashlib import blake2s

from svcnat.ruleset.assembly import Assembly, Fragment
from svcnat.ruleset.catalogue import declared
from svcnat.ruleset.endpoints import Backend, Family, Pool
from svcnat.ruleset.nouns import Data, Key, Learned, Ruleset, Set, Verdict
from svcnat.ruleset.plan import FAMILIES, Frontend, Kind, Plan, Scope, ServicePortPlan
from svcnat.ruleset.selectors import Affine, Learner, Limited, Restricted, Selector, Shape
from svcnat.ruleset.slots import MOST, is_exact, slots
from svcnat.ruleset.strings import comment_text

_REFUSE, _DROP = Verdict("goto", "refuse"), Verdict("drop")

Element = tuple[str, Key, Data]  # set name, key, data


def compile_service(ports: Iterable[ServicePortPlan]) -> tuple[Fragment, ...]:
    """The fragments of one Service, one a family that it uses."""
    ports = tuple(ports)
    return tuple(
        _fragment(family, mine) for family in FAMILIES if (mine := [port for port in ports if port.family == family])
    )


def _fragment(family: Family, ports: list[ServicePortPlan]) -> Fragment:
    elements: dict[str, dict[Key, Data]] = {}
    shapes: dict[Shape, None] = {}
    learned: list[Learned] = []
    for port in ports:
        parts = _Port(port)
        for name, key, data in parts.elements():
            elements.setdefault(name, {}).setdefault(key, data)  # two ports share their cluster IP and hairpins
        shapes |= parts.shapes
        learned += parts.learned()
    return Fragment(family, elements, tuple(shapes), tuple(learned))


class _Port:
    """One service port on its way to elements; ``shapes`` is complete when the elements have been taken."""

    def __init__(self, port: ServicePortPlan) -> None:
        self._port = port
        self._ident = ident(port)
        self.shapes: dict[Shape, None] = {}
        self._learner = self._remembering() if port.affinity else None

    def _remembering(self) -> Learner:
        port = self._port
        chosen = frozenset(port.endpoints.cluster.backends)
        return Learner(
            self._ident,
            port.protocol,
            port.affinity,
            local=any(frontend.scope is not Scope.CLUSTER for frontend in port.frontends),
            only_local=tuple(each for each in port.endpoints.local.backends if each not in chosen),
        )

    def elements(self) -> Iterator[Element]:
        """Every element that the port asks for; some twice, where frontends share them."""
        port = self._port
        for frontend in port.frontends:
            yield from self._frontend(frontend)
        chosen = dict.fromkeys((*port.endpoints.cluster.backends, *port.endpoints.local.backends))
        for address, _ in chosen:
            yield "hairpins", (address, address), None
        if port.ends_flows:
            # No packet asks for these: it is by leaving this set that an endpoint in no slot is noticed to go.
            for address, number in port.endpoints.serving:
                if (address, number) not in chosen:
                    yield "unchosen", (address, port.protocol, number), None
        if self._learner:
            self.shapes[self._learner] = None
            if self._learner.local:
                for address, number in port.endpoints.local.backends:
                    yield "local-endpoints", (address, port.protocol, number), None

    def learned(self) -> Iterator[Learned]:
        """What its clients may remember."""
        if self._learner:
            endpoints = self._port.endpoints
            yield from self._learner.learned(
                self._port.family, frozenset(endpoints.cluster.backends), frozenset(endpoints.local.backends)
            )

    def _frontend(self, frontend: Frontend) -> Iterator[Element]:
        port, endpoints = self._port, self._port.endpoints
        name, key = _front(frontend, port.protocol)
        title = comment_text(port.title)
        if frontend.kind is Kind.CLUSTER_IP or frontend.announced:
            yield "cluster-ips", (frontend.address,), None
        for cidr in frontend.ranges:
            yield "source-ranges", (*key, cidr), None
        if not endpoints.anywhere:
            yield name, key, _REFUSE._replace(comment=title)
            return
        origins, origin = _map("origins", frontend, port.protocol)
        match frontend.scope:
            case Scope.CLUSTER:
                verdict = yield from self._balanced(frontend, endpoints.cluster, local=False)
            case Scope.LOCAL:
                verdict = yield from self._balanced(frontend, endpoints.local, local=False)
            case Scope.OUTSIDE_LOCAL:  # pragma: no branch - the last there is
                inner = yield from self._balanced(frontend, endpoints.cluster, local=False, inside=True)
                yield f"inside-{name}", key, inner
                verdict = yield from self._balanced(frontend, endpoints.local, local=True)
        yield name, key, verdict._replace(comment=title)
        yield origins, origin, Verdict("goto", f"masquerade-{frontend.masquerade.value}")
        if self._learner:
            learners, learner = _map("learners", frontend, port.protocol)
            yield learners, learner, Verdict("goto", self._learner.name)

    def _balanced(
        self, frontend: Frontend, pool: Pool, *, local: bool, inside: bool = False
    ) -> Generator[Element, None, Verdict]:
        """Yield the slots of a pool; the result is the verdict that leads to them.

        ``local`` slots live in maps of their own: the same frontend has others for the ``inside``.
        """
        port = self._port
        table = slots(pool, port.scheduler)
        if not table and not local:
            return _DROP
        backends, key = _map("backends", frontend, port.protocol, local=local)
        for slot, backend in enumerate(table):
            yield backends, (*key, slot), backend
        return Verdict("goto", self._shape(frontend, len(table), local=local, inside=inside).name)

    def _shape(self, frontend: Frontend, count: int, *, local: bool, inside: bool) -> Shape:
        """The outermost shape of a frontend: sources first, then limits, then affinity, then the choice.

        Who comes to the ``inside`` has passed the first two, and must not be counted twice.
        """
        port = self._port
        selector = Selector(
            port.protocol,
            port.scheduler if count else "random",  # whoever has nothing to choose from shares a chain
            count,
            node_port=frontend.kind is Kind.NODE_PORT,
            local=local,
            ident=self._ident if port.scheduler == "round-robin" and count else "",
        )
        # Without other choice than this node's endpoints, only they may be remembered.
        near = local or frontend.scope is Scope.LOCAL
        chosen = Affine(self._ident, selector, local=near) if port.affinity and count else selector
        limited = (
            Limited(self._ident, port.max_connections, port.rate, chosen)
            if (port.max_connections or port.rate) and not inside
            else chosen
        )
        shape = Restricted(limited) if frontend.ranges and not inside else limited
        self.shapes[shape] = None
        return shape


def ident(port: ServicePortPlan) -> str:
    """Ten hexadecimal digits for what belongs to one service port alone; titles may hold any character."""
    return blake2s(f"{port.title}/{port.protocol}".encode(), digest_size=5).hexdigest()


def _front(frontend: Frontend, protocol: str) -> tuple[str, Key]:
    """The map and key that a new flow to the frontend is found by."""
    if frontend.kind is Kind.NODE_PORT:
        return "nodeports", (protocol, frontend.port)
    return "frontends", (frontend.address, protocol, frontend.port)


def _map(name: str, frontend: Frontend, protocol: str, *, local: bool = False) -> tuple[str, Key]:
    """The map of one protocol that has a frontend's `name` elements, and the key (without a slot) that it has there."""
    near = "local-" if local else ""
    if frontend.kind is Kind.NODE_PORT:
        return f"{near}nodeport-{name}-{protocol}", (frontend.port,)
    return f"{near}{name}-{protocol}", (frontend.address, frontend.port)


def frontend_of(name: str, key: Key) -> tuple[str, str, int] | None:
    """The address ("" for a node port), protocol and port whose way to endpoints an element is part of; else None."""
    match key:
        case (str(address), str(protocol), int(port)) if name == "frontends":
            return address, protocol, port
        case (str(protocol), int(port)) if name == "nodeports":
            return "", protocol, port
        case (str(address), int(port), int(_)) if "backends-" in name:
            return address, name.rpartition("-")[2], port
        case (int(port), int(_)) if "nodeport-backends-" in name:
            return "", name.rpartition("-")[2], port
    return None


def compile_plan(plan: Plan, origin: str = "manifests") -> Ruleset:
    """The whole ruleset of a node.

    `origin` says where the objects are kept; the ``about`` chain carries it, for people and for ``sync --force``.
    """
    assembly = Assembly(plan.settings, origin)
    for identity, ports in plan.services.items():
        assembly.put(identity, compile_service(ports))
    return assembly.ruleset()


def doubts(plan: Plan) -> list[str]:
    """What the user asked for and gets only nearly, a line each."""
    return [line for ports in plan.services.values() for line in doubts_of(ports)]


def doubts_of(ports: Iterable[ServicePortPlan]) -> list[str]:
    """The doubts about one Service."""
    return [
        f"{port.title}: the weights have no common measure in {MOST} slots: the shares are rounded"
        for port in ports
        if port.scheduler != "maglev" and not is_exact(port.endpoints.cluster.weights)
    ]


@dataclass(frozen=True, slots=True)
class BackendKeys:
    """Where the endpoints of a port are in the kernel: for each map its keys, and for each key the endpoint."""

    declared: Set
    keys: dict[Key, Backend]


def frontend_keys(port: ServicePortPlan) -> list[tuple[Set, Key]]:
    """The elements, each with its set, that count the new flows of a port."""
    found = dict.fromkeys(_front(frontend, port.protocol) for frontend in port.frontends)
    return [(declared(port.family, name), key) for name, key in found]


def backend_keys(port: ServicePortPlan) -> list[BackendKeys]:
    """The elements that lead to a port's endpoints: whoever wants their counters asks for these."""
    found: dict[str, dict[Key, Backend]] = {}
    for name, key, data in _Port(port).elements():
        if "backends-" in name:
            found.setdefault(name, {})[key] = data  # type: ignore[assignment]
    return [BackendKeys(declared(port.family, name), keys) for name, keys in found.items()]

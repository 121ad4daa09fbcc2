"""From a Plan to a ruleset: which elements and selector chains each Service gets.

A service's part is a :class:`Fragment`; a ruleset is the counted union of fragments, so that what services share (an
endpoint's hairpin, the selector chain of a shape) goes when its last user goes. Policy is not decided here: the Plan
holds it. The kernel is not read here either: see :mod:`svcnat.ruleset.diff`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import lru_cache

from svcnat.ruleset import layout
from svcnat.ruleset.nouns import Chain, Data, Key, Ruleset, Set, Table, Verdict, comment_text
from svcnat.ruleset.plan import FAMILIES, Family, Masquerade, Plan, ServicePortPlan, Settings

Shape = tuple[str, int]  # a selector chain: protocol and number of slots

_ORIGINS = {Masquerade.OFF_CLUSTER: Verdict("goto", "masquerade-off-cluster")}
_REFUSE = "refuse"


@dataclass(frozen=True, slots=True)
class Fragment:
    """One Service's part of one family's table: (set name, key, data) triples, and the shapes it goes to."""

    family: Family
    elements: tuple[tuple[str, Key, Data], ...]
    shapes: tuple[Shape, ...]


def compile_service(ports: Iterable[ServicePortPlan]) -> tuple[Fragment, ...]:
    """The fragments of one Service, one a family that it uses."""
    ports = tuple(ports)
    return tuple(
        Fragment(
            family,
            tuple(element for port in mine for element in _elements(port)),
            tuple({(port.protocol, len(port.backends)) for port in mine if port.backends}),
        )
        for family in FAMILIES
        if (mine := [port for port in ports if port.family == family])
    )


def _elements(port: ServicePortPlan) -> Iterator[tuple[str, Key, Data]]:
    slots = port.backends
    chain = layout.selector_name(port.protocol, len(slots)) if slots else _REFUSE
    origins, backends = f"origins-{port.protocol}", f"backends-{port.protocol}"
    title = comment_text(port.title)
    for frontend in port.frontends:
        yield "frontends", (frontend.address, port.protocol, frontend.port), Verdict("goto", chain, title)
        yield "cluster-ips", (frontend.address,), None
        if slots:
            yield origins, (frontend.address, frontend.port), _ORIGINS[frontend.masquerade]
        for slot, backend in enumerate(slots):
            yield backends, (frontend.address, frontend.port, slot), backend
    for address, _ in slots:
        yield "hairpins", (address, address), None


def compile_plan(plan: Plan, origin: str = "manifests") -> Ruleset:
    """The whole ruleset of a node.

    `origin` says where the objects are kept; the ``about`` chain carries it, for people and for ``sync --force``.
    """
    assembly = Assembly(plan.settings, origin)
    for ports in plan.services.values():
        assembly.add(compile_service(ports))
    return assembly.ruleset()


class Assembly:
    """The counted union of fragments: add and remove a service's, ask for the ruleset."""

    def __init__(self, settings: Settings, origin: str = "manifests") -> None:
        self._settings = settings
        self._origin = origin
        self._elements: dict[Family, dict[str, dict[Key, Data]]] = {
            family: {declared.name: {} for declared in layout.sets(family)} for family in FAMILIES
        }
        # How many fragments hold an element, where it is more than one: nearly all elements have a single owner.
        self._shared: Counter[tuple[Family, str, Key]] = Counter()
        self._shapes: Counter[tuple[Family, Shape]] = Counter()

    def add(self, fragments: Iterable[Fragment]) -> None:
        """Add a service's fragments."""
        for fragment in fragments:
            tables = self._elements[fragment.family]
            for name, key, data in _once(fragment.elements):
                held = tables[name]
                if key in held:
                    self._shared[fragment.family, name, key] += 1
                else:
                    held[key] = data
            for shape in fragment.shapes:
                self._shapes[fragment.family, shape] += 1

    def remove(self, fragments: Iterable[Fragment]) -> None:
        """Take back fragments that were added: what another service holds too stays."""
        for fragment in fragments:
            tables = self._elements[fragment.family]
            for name, key, _ in _once(fragment.elements):
                identity = (fragment.family, name, key)
                if self._shared[identity] > 0:
                    self._shared[identity] -= 1
                else:
                    del self._shared[identity]  # Counter's lookup leaves no entry, but a spent one stays
                    del tables[name][key]
            for shape in fragment.shapes:
                self._shapes[fragment.family, shape] -= 1

    def ruleset(self) -> Ruleset:
        """The ruleset of all fragments; it shares element maps with this assembly: use it before the next edit."""
        return {family: self._table(family) for family in FAMILIES}

    def _table(self, family: Family) -> Table:
        elements = self._elements[family]
        selectors = [
            _selector(family, *shape) for (of, shape), users in sorted(self._shapes.items()) if of == family and users
        ]
        return Table(
            family,
            {declared.name: sized(declared, len(elements[declared.name])) for declared in layout.sets(family)},
            {chain.name: chain for chain in (*layout.chains(family, self._settings, self._origin), *selectors)},
            elements,
        )


def _once(elements: Iterable[tuple[str, Key, Data]]) -> Iterator[tuple[str, Key, Data]]:
    """Each key of a fragment once: two ports of one service share its cluster IP and its hairpins."""
    seen = set()
    for name, key, data in elements:
        if (name, key) not in seen:
            seen.add((name, key))
            yield name, key, data


def sized(declared: Set, count: int) -> Set:
    """The set with room for twice `count` elements, in powers of two, so that growth is rare."""
    size = layout.SMALLEST_SIZE
    while size < 2 * count:
        size *= 2
    return replace(declared, size=size)


@lru_cache(maxsize=4096)
def _selector(family: Family, protocol: str, slots: int) -> Chain:
    return layout.selector(family, protocol, slots)


@dataclass(frozen=True, slots=True)
class BackendKeys:
    """Where the endpoints of a port are in the kernel: the map, and for each of its keys the endpoint."""

    declared: Set
    keys: dict[Key, tuple[str, int]]


def backend_keys(port: ServicePortPlan) -> BackendKeys:
    """The elements that lead to a port's endpoints: whoever wants their counters asks for these."""
    name = f"backends-{port.protocol}"
    declared = next(one for one in layout.sets(port.family) if one.name == name)
    return BackendKeys(
        declared,
        {
            (frontend.address, frontend.port, slot): backend
            for frontend in port.frontends
            for slot, backend in enumerate(port.backends)
        },
    )

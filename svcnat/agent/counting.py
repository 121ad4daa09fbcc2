"""Reading the kernel's counters of connections, for every Service of every target, element by element.

Each question takes the kernel no time, but asking tens of thousands of them takes a second of ours: so endpoints are
asked for only as long as they are few enough. What is done with the answers: :mod:`svcnat.agent.connections`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

from svcnat.agent.connections import Reading
from svcnat.agent.targets import Target
from svcnat.kernel.nftables import Namespace
from svcnat.model.configuration import Configuration
from svcnat.ruleset.compile import BackendKeys, backend_keys, frontend_keys
from svcnat.ruleset.endpoints import Family
from svcnat.ruleset.nouns import Key, Set
from svcnat.ruleset.plan import ServicePortPlan

Identity = tuple[str, str]  # namespace and name of a Service
Ports = tuple[ServicePortPlan, ...]

FEW = 10_000  # elements of endpoints in a target: asking for more takes longer than a change of the rules may


def most_endpoints(config: Configuration) -> int:
    """How many elements of endpoints are asked for at most, by ``endpointMetrics``."""
    return {"on": sys.maxsize, "off": 0}.get(config.endpoint_metrics, FEW)


@dataclass(frozen=True, slots=True)
class _Port:
    """Where the kernel counts the connections of one port of a Service in one family."""

    name: str
    plan: ServicePortPlan
    frontends: list[tuple[Set, Key]]
    backends: list[BackendKeys]

    @property
    def size(self) -> int:
        """How many elements count for endpoints."""
        return sum(len(part.keys) for part in self.backends)


class Counting:
    """Callable: what the counters of all targets say now. One call at a time, in any thread."""

    def __init__(
        self, serving: Callable[[], Iterable[tuple[Target, Mapping[Identity, Ports]]]], *, few: int = FEW
    ) -> None:
        """`serving`: what each target serves, a mapping that nobody changes; `few`: the most elements of endpoints."""
        self._serving, self.few = serving, few
        self._known: dict[tuple[Target, Identity], tuple[Ports, list[_Port]]] = {}

    def __call__(self) -> Iterator[Reading]:
        """The readings.

        Raises:
            KernelError: a target cannot be read.

        """
        known = {}
        for target, services in self._serving():
            found: dict[Identity, list[_Port]] = {}
            for identity, ports in services.items():
                before = self._known.get((target, identity))
                # A Service that did not change still has the same value.
                found[identity] = before[1] if before and before[0] is ports else _located(identity, ports)
                known[target, identity] = ports, found[identity]
            few = sum(port.size for ports in found.values() for port in ports) <= self.few
            with Namespace(target.netns) as namespace:
                for identity, located in found.items():
                    for port in located:
                        yield from _read(namespace, (target.node, *identity), port, endpoints=few)
        self._known = known


def _located(identity: Identity, ports: Ports) -> list[_Port]:
    """The counters of a Service; the names of its ports are what comes after its own in their titles."""
    prefix = f"{'/'.join(identity)}:"
    return [_Port(port.title.removeprefix(prefix), port, frontend_keys(port), backend_keys(port)) for port in ports]


def _read(namespace: Namespace, whose: tuple[str, str, str], port: _Port, *, endpoints: bool) -> Iterator[Reading]:
    family, protocol = port.plan.family, port.plan.protocol
    for declared, key in port.frontends:
        for _, connections in _asked(namespace, family, declared, [key]):
            yield Reading(*whose, port.name, protocol, "", (family, declared.name, key), connections)
    for part in port.backends if endpoints else ():
        for key, connections in _asked(namespace, family, part.declared, part.keys):
            address, number = part.keys[key]
            endpoint = f"[{address}]:{number}" if family == "ip6" else f"{address}:{number}"
            element = family, part.declared.name, key
            yield Reading(*whose, port.name, protocol, endpoint, element, connections)


def _asked(
    namespace: Namespace, family: Family, declared: Set, keys: Iterable[Key]
) -> Iterator[tuple[Key, int | None]]:
    """What elements counted, None for those that are not there; those without a counter are left out."""
    found = namespace.counters(family, declared, keys)
    for key in keys:
        if key not in found:
            yield key, None
        elif counted := found[key]:
            yield key, counted[0]

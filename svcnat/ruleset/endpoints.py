"""Which endpoints of a service port may get new connections: readiness, node, topology, weights.

Sources: discovery/v1 EndpointConditions; KEP-1669 (terminating endpoints); KEP-2433 (topology hints); kube-proxy's
CategorizeEndpoints where they are silent. Which frontends use which of these sets is :mod:`svcnat.ruleset.plan`'s
subject.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import ip_address
from typing import Literal

from svcnat.errors import UsageError
from svcnat.model.addresses import canonical
from svcnat.model.extensions import PROBE_RESULTS, WEIGHTS, parse_probe_results, parse_weights
from svcnat.model.objects import Endpoint, EndpointSlice, ServicePort

Family = Literal["ip", "ip6"]  # as nftables spells them
Backend = tuple[str, int]  # canonical address and port

_ADDRESS_TYPE = {"ip": "IPv4", "ip6": "IPv6"}


@dataclass(frozen=True, slots=True)
class Pool:
    """Endpoints to choose from, sorted by address, and the weight of each; weights are at least 1."""

    backends: tuple[Backend, ...] = ()
    weights: tuple[int, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.backends)


@dataclass(frozen=True, slots=True)
class Endpoints:
    """The endpoints of one service port in one family.

    ``cluster``: for traffic that may go anywhere, after topology. ``local``: those on this node. ``serving``: all that
    may still have flows, drained and terminating ones among them. ``local_ready``: the addresses of this node that are
    ready for new flows. ``anywhere`` is True if any node has one to use.
    """

    cluster: Pool = Pool()
    local: Pool = Pool()
    serving: tuple[Backend, ...] = ()
    local_ready: frozenset[str] = frozenset()
    anywhere: bool = False


@dataclass(frozen=True, slots=True)
class _Candidate:
    """One endpoint as its slice describes it; the first slice that names a (address, port) describes it."""

    backend: Backend
    weight: int
    ready: bool
    serving: bool
    terminating: bool
    node: str | None
    nodes: frozenset[str]
    zones: frozenset[str]


def categorize(
    port: ServicePort, slices: Iterable[EndpointSlice], family: Family, *, node: str, zone: str, probed: bool = False
) -> Endpoints:
    """Sort the endpoints of a port by what they may be used for, seen from a node in a zone ("" if unknown).

    If the Service asks for probes (`probed`), an endpoint that failed them is not ready, whatever its slice says;
    results that are left from another time do not count. The same (address, port) in two slices counts once; if they
    contradict each other, the first of them by name is believed. The order in which the slices come does not matter.
    """
    found = sorted(_candidates(port, slices, family, probed=probed), key=lambda one: _numeric(one.backend))
    near = [one for one in found if one.node == node]
    local, cluster = _usable(near), _usable(found)
    return Endpoints(
        cluster=_pool(_hinted([one for one in cluster if one.weight], node, zone)),
        local=_pool(local),
        serving=tuple(one.backend for one in found if one.ready or one.serving),
        local_ready=frozenset(one.backend[0] for one in near if one.ready and one.weight),
        anywhere=bool(_pool(cluster)),
    )


def _usable(candidates: list[_Candidate]) -> list[_Candidate]:
    """The ready ones; if there is none, those that serve while they terminate (KEP-1669)."""
    ready = [one for one in candidates if one.ready]
    return ready or [one for one in candidates if one.serving and one.terminating]


def _hinted(candidates: list[_Candidate], node: str, zone: str) -> list[_Candidate]:
    """Those that the hints give to this node, or else to its zone, or else all of them.

    A set of hints counts only if every ready endpoint has one, and one of them is for us: half-written hints, or none
    for this place, must not leave it without endpoints (KEP-2433; node hints by KEP-3015).
    """
    if not all(one.ready for one in candidates):
        return candidates
    ways: tuple[tuple[str, Callable[[_Candidate], frozenset[str]]], ...] = (
        (node, lambda one: one.nodes),
        (zone, lambda one: one.zones),
    )
    for here, hints in ways:
        if here and all(hints(one) for one in candidates):
            near = [one for one in candidates if here in hints(one)]
            if near:
                return near
    return candidates


def _pool(candidates: list[_Candidate]) -> Pool:
    """The endpoints with a weight: 0 drains, nothing new goes there."""
    weighted = [one for one in candidates if one.weight]
    return Pool(tuple(one.backend for one in weighted), tuple(one.weight for one in weighted))


def _candidates(
    port: ServicePort, slices: Iterable[EndpointSlice], family: Family, *, probed: bool
) -> Iterable[_Candidate]:
    """Endpoints whose slice has this port: slice ports match by name **and** protocol, None meaning "" and TCP."""
    wanted = (port.name, port.protocol or "TCP")
    found: dict[Backend, _Candidate] = {}
    # Not as they come: an agent has them in the order in which they were changed, and the next one in another.
    for piece in sorted(slices, key=lambda piece: piece.metadata.name):
        if piece.address_type != _ADDRESS_TYPE[family]:
            continue
        numbers = [
            candidate.port
            for candidate in piece.ports
            if (candidate.name or "", candidate.protocol or "TCP") == wanted and candidate.port is not None
        ]
        if not numbers:
            continue
        weights = _weights(piece)
        results = _results(piece) if probed else {}
        for endpoint in piece.endpoints:
            if endpoint.addresses:
                address = spelled(endpoint.addresses[0])
                works, weight = results.get(address, True), weights.get(address, 1)
                for number in numbers:
                    found.setdefault((address, number), _candidate((address, number), endpoint, weight, works=works))
    return found.values()


def _candidate(backend: Backend, endpoint: Endpoint, weight: int, *, works: bool) -> _Candidate:
    """An endpoint whose probe fails is neither ready nor serving, as a Pod whose readinessProbe fails."""
    conditions, hints = endpoint.conditions, endpoint.hints
    return _Candidate(
        backend,
        weight,
        ready=works and conditions.ready is not False,
        serving=works and conditions.serving is not False,
        terminating=bool(conditions.terminating),
        node=endpoint.node_name,
        nodes=frozenset(hint.name for hint in hints.for_nodes) if hints else frozenset(),
        zones=frozenset(hint.name for hint in hints.for_zones) if hints else frozenset(),
    )


def _weights(piece: EndpointSlice) -> dict[str, int]:
    text = piece.metadata.annotations.get(WEIGHTS)
    return parse_weights(text) if text else {}


def _results(piece: EndpointSlice) -> dict[str, bool]:
    text = piece.metadata.annotations.get(PROBE_RESULTS)
    return parse_probe_results(text) if text else {}


def spelled(address: str) -> str:
    """The canonical text of an address: it becomes the key of an element, so nothing else may pass.

    Raises:
        UsageError: it is no IP address.

    """
    found = canonical(address)
    if found is None:
        raise UsageError(f"{address!r} is not an IP address")
    return found


def family_of(address: str) -> Family:
    """The family of an address or a range."""
    return "ip6" if ":" in address else "ip"


def _numeric(backend: Backend) -> tuple[int, int]:
    return _number(backend[0]), backend[1]


@lru_cache(maxsize=65536)
def _number(address: str) -> int:
    """The address as a number, for an order that people expect (10.0.0.9 before 10.0.0.10)."""
    return int(ip_address(address))

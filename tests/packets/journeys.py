"""Services of the two-node cluster, declared in short, and what the interpreter says becomes of a packet to them.

The packet meets the rules of one node after the other, as it would on its way; translated, it must not be so again.
A service in short is a part of its ``spec`` and its endpoints; everything else follows from its position: cluster IP
10.96.0.10 and on, two load balancer addresses, an external IP and a node port, each with port 80 over TCP and UDP.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, NamedTuple

import msgspec

from svcnat import api
from svcnat.agent.settings import Host
from svcnat.model.configuration import Configuration
from svcnat.ruleset.interpreter import Packet, outcomes
from svcnat.ruleset.nouns import Ruleset
from tests.packets.cluster import ADDRESSES, BALANCED, BRIDGE, BRIDGE_ADDRESSES, HOME, HOSTS, NODES, TARGET

CLUSTER_CIDR = "10.244.0.0/16,fd00:10:244::/56"
SERVICE_CIDR = "10.96.0.0/12,fd00:10:96::/112"
PORT = 80
KEPT = "kept"

_OWNERS = {address: name for name, pair in ADDRESSES.items() for address in pair}


@dataclass(frozen=True)
class Declared:
    """A service in short; an endpoint is a name of a pod or node, or that with fields of an EndpointSlice endpoint."""

    name: str
    position: int
    spec: Mapping[str, Any] = field(default_factory=dict)
    endpoints: Sequence[str | Mapping[str, Any]] = ()
    annotations: Mapping[str, str] = field(default_factory=dict)
    weights: Mapping[str, int] = field(default_factory=dict)
    exists: bool = True

    def address(self, frontend: str, version: int) -> tuple[str, int]:
        """Where a frontend is: "" is the cluster IP, ``:81`` another port of it, a node's name its node port."""
        six = version == 6
        if frontend in NODES:
            return ADDRESSES[frontend][six], self.node_port
        if frontend in BALANCED:
            return _host(BALANCED[frontend], self.position)[six], PORT
        return _host(("10.96.0", "fd00:10:96:"), self.position)[six], int(frontend.removeprefix(":") or PORT)

    @property
    def node_port(self) -> int:
        """Of both protocols."""
        return 30000 + self.position

    def documents(self) -> Iterator[dict[str, Any]]:
        """The Service, and an EndpointSlice for each family."""
        kind = self.spec.get("type", "LoadBalancer")
        ips = list(_host(("10.96.0", "fd00:10:96:"), self.position))
        open_to = {} if kind == "ClusterIP" else {"nodePort": self.node_port}
        ingress = [{"ip": ip} for name in ("lb", "lb2") for ip in _host(BALANCED[name], self.position)]
        yield {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": self.name, "annotations": dict(self.annotations)},
            "spec": {
                "type": kind,
                "clusterIP": ips[0],
                "clusterIPs": ips,
                "ipFamilyPolicy": "RequireDualStack",
                "externalIPs": list(_host(BALANCED["ext"], self.position)),
                "ports": [
                    {"name": name.lower(), "protocol": name, "port": PORT, "targetPort": TARGET, **open_to}
                    for name in ("TCP", "UDP")
                ],
                **self.spec,
            },
            **({"status": {"loadBalancer": {"ingress": ingress}}} if kind == "LoadBalancer" else {}),
        }
        for six, family in enumerate(("IPv4", "IPv6")):
            weights = {ADDRESSES[name][six]: weight for name, weight in self.weights.items()}
            yield {
                "apiVersion": "discovery.k8s.io/v1",
                "kind": "EndpointSlice",
                "metadata": {
                    "name": f"{self.name}-{family.lower()}",
                    "labels": {"kubernetes.io/service-name": self.name},
                    "annotations": {"svcnat.io/weights": msgspec.json.encode(weights).decode()} if weights else {},
                },
                "addressType": family,
                "ports": [{"name": name.lower(), "protocol": name, "port": TARGET} for name in ("TCP", "UDP")],
                "endpoints": [_endpoint(each, six) for each in self.endpoints],
            }


def _host(prefixes: tuple[str, str], position: int) -> tuple[str, str]:
    four, six = prefixes
    return f"{four}.{position}", f"{six}:{position:x}" if six.endswith(":") else f"{six}::{position:x}"


def _endpoint(endpoint: str | Mapping[str, Any], six: int) -> dict[str, Any]:
    (name, fields), *_ = ({endpoint: {}} if isinstance(endpoint, str) else endpoint).items()
    return {"addresses": [ADDRESSES[name][six]], "nodeName": HOME.get(name, name), **fields}


def declare(services: Mapping[str, Mapping[str, Any] | None]) -> dict[str, Declared]:
    """Services in short, by name: ``{web: {spec: {...}, endpoints: [a1, {b1: {conditions: ...}}]}}``.

    None keeps a position, and so addresses, that no service has.
    """
    return {
        name: Declared(name, position, **(short or {}), exists=short is not None)
        for position, (name, short) in enumerate(services.items(), 10)
    }


def compiled(
    services: Mapping[str, Declared], config: Configuration | None = None, bridges: tuple[str, ...] = ()
) -> dict[str, Ruleset]:
    """Each node's rules; the zone of node-1 is zone-1, and so on."""
    config = config or Configuration(cluster_cidr=CLUSTER_CIDR)
    documents = [document for service in services.values() if service.exists for document in service.documents()]
    loaded = api.load(text=msgspec.json.encode({"apiVersion": "v1", "kind": "List", "items": documents}), strict=True)
    return {
        name: api.compile_ruleset(
            loaded,
            msgspec.structs.replace(config, zone=name.replace("node", "zone")),
            host=Host(HOSTS[name].addresses, HOSTS[name].primary, bridges=bridges),
            node=name,
        )
        for name in NODES
    }


class End(NamedTuple):
    """How a journey ends: ``reached`` an endpoint that sees the source ``kept`` or as a node; or reset, dropped, ..."""

    what: str
    endpoint: str = ""
    sees: str = ""


def journey(
    rules: Mapping[str, Ruleset], source: str, destination: str, port: int, protocol: str, *, bridged: bool = False
) -> dict[End, Fraction]:
    """Every way the first packet of a flow can end, through the rules of each node on its way, with its probability."""
    six = ":" in destination
    packet = Packet(ADDRESSES[source][six], destination, protocol.lower(), port, local=source in NODES)
    first = HOME.get(source, source) if source in (*HOME, *NODES) else _entry(destination)
    ends: dict[End, Fraction] = defaultdict(Fraction)
    for end, share in _through(rules, first, packet, _Way(KEPT, translated=False, bridged=bridged)):
        ends[end] += share
    return dict(ends)


@dataclass(frozen=True)
class _Way:
    """What became of a packet so far: who it seems to come from, and whether it was translated."""

    sees: str
    translated: bool
    bridged: bool


def _entry(destination: str) -> str:
    """The node that the router sends a client's packet to."""
    owner = _OWNERS.get(destination, "")
    four, six = BALANCED["lb2"]
    return HOME.get(owner, owner) or ("node-2" if destination.startswith((f"{four}.", f"{six}:")) else "node-1")


def _through(rules: Mapping[str, Ruleset], node: str, packet: Packet, way: _Way) -> Iterator[tuple[End, Fraction]]:
    addresses = frozenset((*ADDRESSES[node], *(BRIDGE_ADDRESSES[node] if way.bridged else ())))
    six = ":" in packet.destination
    came_by = BRIDGE if way.bridged and HOME.get(_OWNERS.get(packet.source, "")) == node else "eth0"
    for leaves_by in (BRIDGE, "eth0") if way.bridged else ("eth0",):
        seen = Packet(
            packet.source,
            packet.destination,
            packet.protocol,
            packet.port,
            local=packet.local,
            devices=(came_by, leaves_by),
        )
        for outcome, share in outcomes(rules[node], seen, addresses).items():
            target = outcome.destination or packet.destination
            owner = _OWNERS.get(target, "")
            home = HOME.get(owner, owner)
            # Where a packet leaves depends on where it goes: of each walk, what left by the right device counts.
            if way.bridged and (leaves_by == BRIDGE) != (owner in HOME and home == node):
                continue
            if outcome.what not in ("passed", "translated"):
                yield End(outcome.what), share
                continue
            assert outcome.what == "passed" or not way.translated, f"{node} translated {packet} once more"
            after = _Way(
                node if outcome.masqueraded else way.sees, way.translated or outcome.what == "translated", way.bridged
            )
            if not home:
                yield End("astray"), share
            elif home == node:
                yield End("reached", owner, after.sees), share
            else:
                source = ADDRESSES[node][six] if outcome.masqueraded else packet.source
                onward = Packet(source, target, packet.protocol, outcome.port or packet.port)
                for end, rest in _through(rules, home, onward, after):
                    yield end, share * rest

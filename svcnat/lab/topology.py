"""What a lab has: nodes, clients and address ranges, declared or by default, each with its address.

Every lab has both address families. This module reads no file (:mod:`svcnat.lab.topology_file` does) and builds
nothing (:mod:`svcnat.lab.network` does).
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Container, Iterator
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network
from itertools import combinations
from typing import Any

from msgspec import Struct, convert, field

from svcnat.controllers.ranges import SERVICE_CIDRS
from svcnat.errors import Finding, LabError, ManifestError
from svcnat.lab import addressing, impairments, names, restarts
from svcnat.lab.addressing import Addresses, Ranges
from svcnat.lab.impairments import PERFECT, Link
from svcnat.model import shape
from svcnat.model.addresses import parse_network
from svcnat.model.configuration import SWITCHES
from svcnat.model.quoting import entry
from svcnat.model.validation.names import check_choice, check_labels
from svcnat.model.validation.problems import Problem, duplicate, forbidden, invalid, required, too_many

DNS_HOST = 10
"""Which address of each service range is that of the cluster's DNS."""

_MOST_CLIENTS = 100
_LEAST = {"clusterCIDR": 4, "podCIDRs": 4, "serviceCIDR": 16, "nodeCIDR": 4, "clientCIDR": 4}  # addresses of a range
_LONGEST_BACK_OFF = 3600
_LONGEST_WAIT = 86400
_DEVICE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,14}")
# The kernel gives no device the names of its settings for all and for new ones.
_OTHER_DEVICES = frozenset({"lo", "eth0", "all", "default"})

NODE_MONITOR_GRACE = 0.0
"""Seconds; kube-controller-manager's --node-monitor-grace-period is 50, which nobody wants to sit and wait for."""

POD_EVICTION = 300.0
"""Seconds, as kube-apiserver's --default-unreachable-toleration-seconds."""


class NodeDeclaration(Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel"):
    """A node as a topology file declares it."""

    name: str = ""
    pod_cidrs: list[str] = field(default_factory=list, name="podCIDRs")
    labels: dict[str, str] = {}
    latency: Any = None
    loss: Any = None
    bridge: str = ""
    bridge_nf_call_iptables: bool = False


class ClientDeclaration(Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel"):
    """A client as a topology file declares it."""

    latency: Any = None
    loss: Any = None


class _OneClient(Struct, frozen=True, omit_defaults=True):
    client: ClientDeclaration = ClientDeclaration()


class Declaration(Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel"):
    """A topology as its file declares it; ranges are comma-separated."""

    cluster_cidr: str = field(default="", name="clusterCIDR")
    service_cidr: str = field(default="", name="serviceCIDR")
    node_cidr: str = field(default="", name="nodeCIDR")
    client_cidr: str = field(default="", name="clientCIDR")
    load_balancer_cidr: str = field(default="", name="loadBalancerCIDR")
    nodes: list[NodeDeclaration] = []
    clients: Any = 1  # a number, or a list of ClientDeclaration
    images: dict[str, Any] = {}  # a command each: a text as in a shell, or a list of words
    restart_backoff_seconds: float = restarts.BASE_SECONDS
    node_monitor_grace_seconds: Any = NODE_MONITOR_GRACE
    pod_eviction_seconds: Any = POD_EVICTION
    bridge_masquerade: str = "auto"
    dns: bool = True


_DEFAULTS = {
    "clusterCIDR": Ranges(IPv4Network("10.244.0.0/16"), IPv6Network("fd00:10:244::/56")),
    "serviceCIDR": Ranges(IPv4Network(SERVICE_CIDRS[0]), IPv6Network(SERVICE_CIDRS[1])),
    "nodeCIDR": Ranges(IPv4Network("172.30.0.0/24"), IPv6Network("fd00:172:30::/64")),
    "clientCIDR": Ranges(IPv4Network("192.0.2.0/24"), IPv6Network("2001:db8:c::/64")),
    "loadBalancerCIDR": Ranges(IPv4Network("198.51.100.0/24"), IPv6Network("2001:db8:b::/112")),
}


@dataclass(frozen=True, slots=True)
class Bridge:
    """What the pods of a node are ports of; `calls_iptables`: netfilter sees what it forwards."""

    name: str
    calls_iptables: bool


@dataclass(frozen=True, slots=True)
class Node:
    """A node of a lab; `pods` are the ranges that its pods get their addresses from.

    Its pods have a routed link each, or share a `bridge`.
    """

    name: str
    addresses: Addresses
    pods: Ranges
    labels: dict[str, str]
    link: Link = PERFECT
    bridge: Bridge | None = None


@dataclass(frozen=True, slots=True)
class Client:
    """A host outside the cluster."""

    name: str
    addresses: Addresses
    link: Link = PERFECT


@dataclass(frozen=True, slots=True)
class Topology:
    """A whole lab with every address but those of its pods; `declaration` is what it was made from."""

    declaration: Declaration
    cluster: Ranges
    services: Ranges
    node_network: Ranges
    client_network: Ranges
    balancers: Ranges
    nodes: tuple[Node, ...]
    clients: tuple[Client, ...]
    images: dict[str, tuple[str, ...]]
    back_off: float
    monitor_grace: float
    pod_eviction: float
    dns: bool

    @property
    def members(self) -> tuple[Node | Client, ...]:
        """The nodes and the clients."""
        return *self.nodes, *self.clients


def simple(nodes: int = 1, clients: int = 1) -> Topology:
    """The topology with that many nodes, ``node-1`` and on, and clients, and the default ranges."""
    return plan(Declaration(nodes=[NodeDeclaration(name=f"node-{each + 1}") for each in range(nodes)], clients=clients))


def plan(declaration: Declaration) -> Topology:
    """Give everything declared its address.

    Raises:
        ManifestError: with everything that is wrong.

    """
    planning = Planning(declaration)
    if planning.problems:
        raise ManifestError([Finding("topology", 0, "", each.field, each.reason) for each in planning.problems])
    return planning.topology


class Planning:
    """A declaration made into a topology; `topology` is complete only when there are no `problems`."""

    def __init__(self, declaration: Declaration) -> None:
        self.problems: list[Problem] = []
        texts = {
            "clusterCIDR": declaration.cluster_cidr,
            "serviceCIDR": declaration.service_cidr,
            "nodeCIDR": declaration.node_cidr,
            "clientCIDR": declaration.client_cidr,
            "loadBalancerCIDR": declaration.load_balancer_cidr,
        }
        self._networks = {
            name: self._ranges(name, text.split(",") if text else [], _DEFAULTS[name]) for name, text in texts.items()
        }
        self._refuse_overlaps(self._networks, {name for name, text in texts.items() if text})
        declared = declaration.nodes or [NodeDeclaration(name="node-1")]
        nodes = tuple(self._nodes(declared))
        self._refuse_overlaps(
            {f"nodes[{index}].podCIDRs": node.pods for index, node in enumerate(nodes)},
            {f"nodes[{index}].podCIDRs" for index, node in enumerate(declared) if node.pod_cidrs},
        )
        self.topology = Topology(
            declaration=declaration,
            cluster=self._networks["clusterCIDR"],
            services=self._networks["serviceCIDR"],
            node_network=self._networks["nodeCIDR"],
            client_network=self._networks["clientCIDR"],
            balancers=self._networks["loadBalancerCIDR"],
            nodes=nodes,
            clients=tuple(self._clients(declaration.clients)),
            images=dict(self._images(declaration.images)),
            back_off=declaration.restart_backoff_seconds,
            monitor_grace=self._seconds("nodeMonitorGraceSeconds", declaration.node_monitor_grace_seconds),
            pod_eviction=self._seconds("podEvictionSeconds", declaration.pod_eviction_seconds),
            dns=declaration.dns,
        )
        self.problems += check_choice("bridgeMasquerade", declaration.bridge_masquerade, SWITCHES)
        if not 0 < declaration.restart_backoff_seconds <= _LONGEST_BACK_OFF:
            self.problems.append(
                invalid(
                    "restartBackoffSeconds",
                    declaration.restart_backoff_seconds,
                    f"must be greater than 0, and at most {_LONGEST_BACK_OFF}",
                )
            )

    def _ranges(self, path: str, texts: list[str], default: Ranges) -> Ranges:
        v4, v6 = default.v4, default.v6
        seen: set[int] = set()
        for text in texts:
            network = parse_network(text.strip())
            if network is None:
                self.problems.append(invalid(path, text, "must be an IPv4 or IPv6 range, as 10.244.0.0/16"))
            elif network.version in seen:
                self.problems.append(invalid(path, text, "there can be one range of each family"))
            elif objection := addressing.objection(network, _LEAST.get(path.rpartition(".")[2], 1)):
                self.problems.append(invalid(path, text, objection))
            elif isinstance(network, IPv4Network):
                v4 = network
            else:
                v6 = network
            if network:
                seen.add(network.version)
        return Ranges(v4, v6)

    def _refuse_overlaps(self, networks: dict[str, Ranges], declared: Container[str]) -> None:
        """Of two that overlap the second is wrong, unless only the first is `declared`: the mistake is in the file."""
        for pair in combinations(networks, 2):
            second, first = pair if pair[0] in declared and pair[1] not in declared else reversed(pair)
            for mine, yours in zip(networks[first], networks[second], strict=True):
                if mine.overlaps(yours):
                    self.problems.append(invalid(second, str(yours), f"overlaps {mine} of {first}"))

    def _nodes(self, declared: list[NodeDeclaration]) -> Iterator[Node]:
        seen: set[str] = set()
        for position, node in enumerate(declared):
            path = f"nodes[{position}]"
            self._check_name(f"{path}.name", node.name, seen)
            self.problems += check_labels(f"{path}.labels", node.labels)
            cluster, network = self._networks["clusterCIDR"], self._networks["nodeCIDR"]
            try:
                pods = addressing.pods_of(cluster, position)
                addresses = addressing.member(network, position)
            except LabError as error:
                self.problems.append(Problem(path, str(error)))
                return
            pods = self._ranges(f"{path}.podCIDRs", node.pod_cidrs, pods)
            if not (pods.v4.subnet_of(cluster.v4) and pods.v6.subnet_of(cluster.v6)):
                self.problems.append(invalid(f"{path}.podCIDRs", str(pods), f"must be parts of clusterCIDR {cluster}"))
            link, wrong = impairments.parse(path, node.latency, node.loss)
            self.problems += wrong
            yield Node(node.name, addresses, pods, node.labels, link, self._bridge(path, node))

    def _bridge(self, path: str, node: NodeDeclaration) -> Bridge | None:
        if not node.bridge:
            if node.bridge_nf_call_iptables:
                self.problems.append(required(f"{path}.bridge"))
            return None
        if not _DEVICE.fullmatch(node.bridge) or node.bridge in _OTHER_DEVICES or node.bridge.startswith("veth"):
            reason = "must be the name of a device that the node does not have: 1 to 15 letters, digits, - and _"
            self.problems.append(invalid(f"{path}.bridge", node.bridge, reason))
        return Bridge(node.bridge, node.bridge_nf_call_iptables)

    def _check_name(self, path: str, name: str, seen: set[str]) -> None:
        if not name:
            self.problems.append(required(path))
        elif not names.is_label(name):
            self.problems.append(invalid(path, name, "must be lower-case letters, digits and -, at most 63"))
        elif names.is_reserved(name):
            self.problems.append(forbidden(path, f"{name} is what the lab calls its router, lines or a client"))
        elif name in seen:
            self.problems.append(duplicate(path, name))
        seen.add(name)

    def _images(self, declared: dict[str, Any]) -> Iterator[tuple[str, tuple[str, ...]]]:
        for image, command in declared.items():
            path = entry("images", image)
            try:
                words = shlex.split(command) if isinstance(command, str) else command
            except ValueError as error:
                self.problems.append(invalid(path, command, f"is no command: {error}"))
                continue
            if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
                self.problems.append(invalid(path, command, "must be a command, as a text or a list of words"))
            elif words and not words[0]:
                self.problems.append(invalid(path, command, "must begin with a program, or be empty"))
            elif any("\0" in word for word in words):
                self.problems.append(invalid(path, command, "must not contain NUL"))
            else:
                yield image, tuple(words)

    def _seconds(self, path: str, value: Any) -> float:
        if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= _LONGEST_WAIT:
            return float(value)
        self.problems.append(invalid(path, value, f"must be a number of seconds, from 0 to {_LONGEST_WAIT}"))
        return 0.0

    def _declared_clients(self, declared: Any) -> list[ClientDeclaration]:
        if isinstance(declared, int) and not isinstance(declared, bool):
            if 0 <= declared <= _MOST_CLIENTS:
                return [ClientDeclaration()] * declared
            self.problems.append(invalid("clients", declared, f"must be between 0 and {_MOST_CLIENTS}, inclusive"))
            return []
        if not isinstance(declared, list):
            self.problems.append(invalid("clients", declared, "must be a number, or a list with an item for each"))
            return []
        if len(declared) > _MOST_CLIENTS:
            self.problems.append(too_many("clients", len(declared), _MOST_CLIENTS))
            return []
        return [self._declared_client(f"clients[{position}]", each) for position, each in enumerate(declared)]

    def _declared_client(self, path: str, declared: Any) -> ClientDeclaration:
        if isinstance(declared, ClientDeclaration):
            return declared
        found = shape.check({"client": declared}, _OneClient)
        inside = [(each.path, f"unknown field{each.hint}") for each in found.unknown] + found.wrong
        self.problems += [Problem(path + field.removeprefix("client"), reason) for field, reason in inside]
        return convert(found.pruned, _OneClient).client

    def _clients(self, declared: Any) -> Iterator[Client]:
        for position, client in enumerate(self._declared_clients(declared)):
            try:
                addresses = addressing.member(self._networks["clientCIDR"], position)
            except LabError as error:
                self.problems.append(Problem("clients", str(error)))
                return
            link, wrong = impairments.parse(f"clients[{position}]", client.latency, client.loss)
            self.problems += wrong
            yield Client(names.client(position + 1), addresses, link)

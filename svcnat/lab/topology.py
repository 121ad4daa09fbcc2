"""What a lab has: nodes, clients and address ranges, declared or by default, each with its address.

Every lab has both address families. This module reads no file (:mod:`svcnat.lab.topology_file` does) and builds
nothing (:mod:`svcnat.lab.network` does).
"""

from __future__ import annotations

import shlex
from collections.abc import Container, Iterator
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network
from itertools import combinations
from typing import Any

from msgspec import Struct, field

from svcnat.controllers.ranges import SERVICE_CIDRS
from svcnat.errors import Finding, LabError, ManifestError
from svcnat.lab import addressing, names, restarts
from svcnat.lab.addressing import Addresses, Ranges
from svcnat.model.addresses import parse_network
from svcnat.model.quoting import entry
from svcnat.model.validation.names import check_labels
from svcnat.model.validation.problems import Problem, duplicate, forbidden, invalid, required

_MOST_CLIENTS = 100
_LEAST = {"clusterCIDR": 4, "podCIDRs": 4, "serviceCIDR": 16, "nodeCIDR": 4, "clientCIDR": 4}  # addresses of a range
_LONGEST_BACK_OFF = 3600


class NodeDeclaration(Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel"):
    """A node as a topology file declares it."""

    name: str = ""
    pod_cidrs: list[str] = field(default_factory=list, name="podCIDRs")
    labels: dict[str, str] = {}


class Declaration(Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel"):
    """A topology as its file declares it; ranges are comma-separated."""

    cluster_cidr: str = field(default="", name="clusterCIDR")
    service_cidr: str = field(default="", name="serviceCIDR")
    node_cidr: str = field(default="", name="nodeCIDR")
    client_cidr: str = field(default="", name="clientCIDR")
    load_balancer_cidr: str = field(default="", name="loadBalancerCIDR")
    nodes: list[NodeDeclaration] = []
    clients: int = 1
    images: dict[str, Any] = {}  # a command each: a text as in a shell, or a list of words
    restart_backoff_seconds: float = restarts.BASE_SECONDS


_DEFAULTS = {
    "clusterCIDR": Ranges(IPv4Network("10.244.0.0/16"), IPv6Network("fd00:10:244::/56")),
    "serviceCIDR": Ranges(IPv4Network(SERVICE_CIDRS[0]), IPv6Network(SERVICE_CIDRS[1])),
    "nodeCIDR": Ranges(IPv4Network("172.30.0.0/24"), IPv6Network("fd00:172:30::/64")),
    "clientCIDR": Ranges(IPv4Network("192.0.2.0/24"), IPv6Network("2001:db8:c::/64")),
    "loadBalancerCIDR": Ranges(IPv4Network("198.51.100.0/24"), IPv6Network("2001:db8:b::/112")),
}


@dataclass(frozen=True, slots=True)
class Node:
    """A node of a lab; `pods` are the ranges that its pods get their addresses from."""

    name: str
    addresses: Addresses
    pods: Ranges
    labels: dict[str, str]


@dataclass(frozen=True, slots=True)
class Client:
    """A host outside the cluster."""

    name: str
    addresses: Addresses


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
        )
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
            yield Node(node.name, addresses, pods, node.labels)

    def _check_name(self, path: str, name: str, seen: set[str]) -> None:
        if not name:
            self.problems.append(required(path))
        elif not names.is_label(name):
            self.problems.append(invalid(path, name, "must be lower-case letters, digits and -, at most 63"))
        elif names.is_reserved(name):
            self.problems.append(forbidden(path, f"{name} is what the lab calls its router or a client"))
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

    def _clients(self, count: int) -> Iterator[Client]:
        if not 0 <= count <= _MOST_CLIENTS:
            self.problems.append(invalid("clients", count, f"must be between 0 and {_MOST_CLIENTS}, inclusive"))
            return
        for position in range(count):
            try:
                addresses = addressing.member(self._networks["clientCIDR"], position)
            except LabError as error:
                self.problems.append(Problem("clients", str(error)))
                return
            yield Client(names.client(position + 1), addresses)

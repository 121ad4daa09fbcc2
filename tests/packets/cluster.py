"""Two nodes with pods on each, outside clients and a router between them; rules of its own on each node.

::

    a1 b1 c1 ==== node-1 ----+
                             router ---- client, client-2
    a2 b2 c2 ==== node-2 ----+

The network is a lab's (:mod:`svcnat.lab.network`). The router sends cluster IPs, ``lb`` and ``ext`` addresses to
node-1, and ``lb2`` addresses to node-2. With `bridged` the pods of a node are ports of a Linux bridge there, as podman,
LXC and libvirt have it; else each has a routed link of its own.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from svcnat.agent.reconcile import reconcile, take_away
from svcnat.agent.settings import Host
from svcnat.kernel import links, netns, sysctl
from svcnat.kernel.links import Bridge, Device, Route, Veth
from svcnat.kernel.nftables import Namespace
from svcnat.lab import names, network, topology
from svcnat.lab.addressing import Addresses
from svcnat.ruleset.nouns import Ruleset
from tests.bed import UNLIMITED, Ground

PLAN = topology.simple(nodes=2, clients=2)
NODES = tuple(node.name for node in PLAN.nodes)
HOME = {f"{letter}{number}": f"node-{number}" for number in (1, 2) for letter in "abc"}
PODS = tuple(HOME)
ADDRESSES = {
    **{each.name: tuple(each.addresses) for each in (*PLAN.nodes, *PLAN.clients)},
    **{
        f"{letter}{number}": (
            f"10.244.{number - 1}.{host}",
            f"fd00:10:244:{number - 1 or ''}::{host}".replace(":::", "::"),
        )
        for number in (1, 2)
        for host, letter in enumerate("abc", 2)
    },
}
BALANCED = {
    "lb": ("198.18.0", "2001:db8:1b"),
    "lb2": ("198.18.1", "2001:db8:2b"),
    "ext": ("198.18.2", "2001:db8:e"),
}
BRIDGE = "cni0"
TARGET = 8080
"""The port that every endpoint of a test listens on."""
BRIDGE_ADDRESSES = {node.name: (str(node.pods.v4[1]), str(node.pods.v6[1])) for node in PLAN.nodes}
HOSTS = {name: Host(addresses=ADDRESSES[name], primary=ADDRESSES[name]) for name in NODES}


class Cluster(Ground):
    """The namespaces; pods and nodes listen."""

    def __init__(self, *, bridged: bool = False, bridge_calls_iptables: int = 0) -> None:
        self.rules: dict[str, Ruleset] = {}
        self._bridged = bridged
        self._bridge_calls_iptables = bridge_calls_iptables
        self._lab = f"t-{uuid.uuid4().hex[:12]}"
        super().__init__({name: ADDRESSES[name] for name in (*PODS, *NODES)}, names.prefix_of(self._lab))

    def listen_everywhere(self, port: int) -> None:
        """Make every pod and node answer on a port, over TCP and UDP, IPv4 and IPv6."""
        for protocol in ("TCP", "UDP"):
            for version in (4, 6):
                self.listen(protocol, port, version)

    def program(self, rules: dict[str, Ruleset]) -> None:
        """Make each node's rules equal to its ruleset, by the smallest change; every flow after it is a new one."""
        self.rules = rules
        for name, ruleset in rules.items():
            with Namespace(self.netns(name)) as namespace:
                take_away(namespace, reconcile(namespace, ruleset))
        self.forget()

    def forget(self) -> None:
        """Make the nodes forget every connection, so that one with the same ports begins anew."""
        for name in NODES:
            self.run(name, "conntrack", "-F")

    def run(self, where: str, *command: str) -> None:
        """Run a command in a namespace; it must succeed."""
        with netns.entered(self.netns(where)):
            subprocess.run(command, check=True, capture_output=True)

    def _build(self) -> None:
        network.build(self._lab, PLAN)
        for name in NODES:
            with netns.entered(self.netns(name)):
                sysctl.write(UNLIMITED)
        for frontend, node in (("lb", "node-1"), ("lb2", "node-2"), ("ext", "node-1")):
            (four, six), (gateway4, gateway6) = BALANCED[frontend], ADDRESSES[node]
            self.run("router", "ip", "route", "add", f"{four}.0/24", "via", gateway4)
            self.run("router", "ip", "route", "add", f"{six}::/64", "via", gateway6)
        network.create_pods(self.netns(name) for name in PODS)
        if self._bridged:
            links.build([*map(self._bridge, PLAN.nodes), *map(self._bridge_port, PODS)])
            return
        nodes = {node.name: node for node in PLAN.nodes}
        network.connect_pods(
            self._lab,
            [(self.netns(name), nodes[HOME[name]], f"pod-{name}", Addresses(*ADDRESSES[name])) for name in PODS],
        )

    def _bridge(self, node: topology.Node) -> Bridge:
        with netns.entered(self.netns(node.name)):
            value = self._bridge_calls_iptables
            # Of this namespace alone, since Linux 5.3.
            sysctl.write({f"net/bridge/bridge-nf-call-{tool}": value for tool in ("iptables", "ip6tables")})
        # Half the node's ranges: the whole of them is unreachable in a lab, but for routes to pods.
        four, six = BRIDGE_ADDRESSES[node.name]
        return Bridge(Device(self._netns_file(node.name), BRIDGE, (f"{four}/25", f"{six}/65")))

    def _bridge_port(self, name: str) -> Veth:
        (four, six), (gateway4, gateway6) = ADDRESSES[name], BRIDGE_ADDRESSES[HOME[name]]
        defaults = (Route("0.0.0.0/0", gateway4), Route("::/0", gateway6))
        return Veth(
            Device(self._netns_file(HOME[name]), f"pod-{name}", bridge=BRIDGE),
            Device(self._netns_file(name), "eth0", (f"{four}/25", f"{six}/65"), defaults),
        )

    def _netns_file(self, name: str) -> Path:
        return netns.path(self.netns(name))


@contextlib.contextmanager
def temporary_cluster(rules: dict[str, Ruleset] | None = None, **options: Any) -> Iterator[Cluster]:
    """A cluster that listens on :data:`TARGET`, and is gone after the block; `options` are :class:`Cluster`'s."""
    if os.geteuid() != 0:
        pytest.skip("network namespaces need root, or `unshare -rnm`")
    cluster = Cluster(**options)
    try:
        cluster.listen_everywhere(TARGET)
        cluster.program(rules or {})
        yield cluster
    finally:
        cluster.close()

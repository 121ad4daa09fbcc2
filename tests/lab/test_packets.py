"""Packets in a lab: everyone reaches every pod, in both families, and the pod sees who really asked."""

from __future__ import annotations

import socket
from collections.abc import Callable

import pytest

from svcnat.lab import kubelet, topology
from svcnat.lab.labs import Lab
from tests.lab.conftest import BuildLab
from tests.lab.pods import PATIENCE, addresses, ask_tcp, ask_udp, create, pod

pytestmark = pytest.mark.packets

# Pods are spread in order of their names: a and c on node-1, b and d on node-2.
PODS = ("a", "b", "c", "d")


@pytest.fixture(scope="module")
def lab(module_labs: BuildLab) -> Lab:
    """Two nodes, four pods, two clients."""
    lab = module_labs(topology.simple(nodes=2, clients=2))
    create(lab, *(pod(name) for name in PODS))
    kubelet.start(lab)
    return lab


def own_addresses(lab: Lab, where: str) -> tuple[str, ...]:
    """The addresses of a pod, node or client."""
    for member in (*lab.topology.nodes, *lab.topology.clients):
        if member.name == where:
            return tuple(member.addresses)
    return addresses(lab, where)


@pytest.mark.parametrize("ask", [ask_tcp, ask_udp])
@pytest.mark.parametrize("target", ["a", "b"])
@pytest.mark.parametrize("source", ["c", "d", "node-1", "node-2", "client", "client-2"])
def test_everyone_reaches_every_pod(lab: Lab, source: str, target: str, ask: Callable[[str], str]) -> None:
    """TCP and UDP, IPv4 and IPv6, on one node, across nodes, from nodes and from outside: no address is rewritten."""
    for theirs, ours in zip(addresses(lab, target), own_addresses(lab, source), strict=True):
        answer = lab.run(source, lambda theirs=theirs: ask(theirs))  # type: ignore[misc]
        assert answer.rpartition(" ")[0] == f"{target} {theirs} saw {ours}"


def test_a_pod_reaches_itself(lab: Lab) -> None:
    """By its own address and by loopback."""
    v4, v6 = addresses(lab, "a")
    assert lab.run("a", lambda: ask_tcp(v4)).startswith(f"a {v4} saw {v4} ")
    assert lab.run("a", lambda: ask_udp(v6)).startswith(f"a {v6} saw {v6} ")
    assert lab.run("a", lambda: ask_udp("127.0.0.1")).startswith("a 127.0.0.1 saw 127.0.0.1 ")
    assert lab.run("a", lambda: ask_tcp("::1")).startswith("a ::1 saw ::1 ")


def test_packets_between_pods_of_one_node_cross_its_hooks(lab: Lab) -> None:
    """Pod to pod on one node passes prerouting, forward and postrouting of the node, in both families."""
    rules = "".join(
        f"table {family} probe {{ chain {hook} {{ type filter hook {hook} priority 0; counter; }}; }}\n"
        for family in ("ip", "ip6")
        for hook in ("prerouting", "forward", "postrouting")
    )
    assert lab.exec("node-1", ["nft", rules]).returncode == 0
    for address in addresses(lab, "c"):
        lab.run("a", lambda address=address: ask_tcp(address))  # type: ignore[misc]
    listed = lab.exec("node-1", ["nft", "list", "ruleset"], stdout=-1, text=True).stdout
    assert lab.exec("node-1", ["nft", "delete table ip probe; delete table ip6 probe"]).returncode == 0
    assert listed.count("counter packets") == 6
    assert "counter packets 0" not in listed


def test_nobody_listens_where_no_pod_has_a_port(lab: Lab) -> None:
    """A port that no container has is refused by the pod, at once."""
    for address in addresses(lab, "b"):
        with pytest.raises(ConnectionRefusedError):
            lab.run("client", lambda address=address: ask_tcp(address, 81))  # type: ignore[misc]


def test_an_address_that_no_pod_has_is_unreachable(lab: Lab) -> None:
    """The node of the address says so: nothing goes round in circles until it dies."""
    for source in ("a", "d", "client"):
        with pytest.raises(OSError, match="No route to host"):
            lab.run(source, lambda: ask_tcp("10.244.0.200"))


def test_a_service_address_arrives_at_the_first_node(lab: Lab) -> None:
    """A packet to a cluster IP, an outsider's too, meets a node's rules; a pod that is sent back to itself answers."""
    a = addresses(lab, "a")
    rules = f"""
table ip probe {{
  chain in {{ type nat hook prerouting priority -100; ip daddr 10.96.0.77 dnat to {a[0]}; }}
  chain out {{ type nat hook postrouting priority 100; ip saddr {a[0]} ip daddr {a[0]} masquerade; }}
}}
table ip6 probe {{
  chain in {{ type nat hook prerouting priority -100; ip6 daddr fd00:10:96::77 dnat to {a[1]}; }}
  chain out {{ type nat hook postrouting priority 100; ip6 saddr {a[1]} ip6 daddr {a[1]} masquerade; }}
}}
"""
    assert lab.exec("node-1", ["nft", rules]).returncode == 0
    node = lab.topology.nodes[0].addresses
    for number, service in enumerate(("10.96.0.77", "fd00:10:96::77")):
        for source in ("client", "c"):
            ours = own_addresses(lab, source)[number]
            answer = lab.run(source, lambda service=service: ask_tcp(service))  # type: ignore[misc]
            assert answer.startswith(f"a {a[number]} saw {ours} ")
        hairpin = lab.run("a", lambda service=service: ask_tcp(service))  # type: ignore[misc]
        assert hairpin.startswith(f"a {a[number]} saw {tuple(node)[number]} ")
    assert lab.exec("node-1", ["nft", "delete table ip probe; delete table ip6 probe"]).returncode == 0


def test_pods_reach_outside(lab: Lab) -> None:
    """A pod's packets go out by its node's default route, and the answers come back."""
    for address in own_addresses(lab, "client-2"):
        with pytest.raises(ConnectionRefusedError):
            lab.run("d", lambda address=address: socket.create_connection((address, 9), PATIENCE))  # type: ignore[misc]

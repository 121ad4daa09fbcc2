"""One pass over a namespace: what a host looks like reaches the rules, and old flows end."""

from __future__ import annotations

import contextlib
import socket
import subprocess
from collections.abc import Callable, Iterator

import pytest

from svcnat import api
from svcnat.agent.host import look
from svcnat.agent.reconcile import reconcile
from svcnat.agent.settings import Host, node_port_addresses, settings_for
from svcnat.kernel.nftables import Namespace
from svcnat.model.configuration import Configuration
from svcnat.ruleset import layout
from svcnat.ruleset.compile import compile_plan
from svcnat.ruleset.nouns import Table
from svcnat.ruleset.plan import plan
from tests.agent.test_keeper import House
from tests.ruleset.build import service

HOST = Host(
    addresses=("172.30.0.11", "192.0.2.1", "fd00:172:30::b"),
    primary=("172.30.0.11", "fd00:172:30::b"),
    routes=("192.0.2.0/24", "10.96.7.0/24", "fd00:172:30::/64"),
)


@pytest.mark.parametrize(
    ("chosen", "addresses"),
    [
        (["primary"], ("172.30.0.11", "fd00:172:30::b")),
        (["192.0.2.0/24"], ("192.0.2.1",)),
        (["0.0.0.0/0", "::/0"], ("172.30.0.11", "192.0.2.1", "fd00:172:30::b")),
        (["198.51.100.9/32"], ("198.51.100.9",)),
        (["203.0.113.0/24"], ()),
    ],
)
def test_node_ports_answer_on_the_chosen_addresses(chosen, addresses) -> None:
    """``primary``, those in a range, or one that is named exactly, whether the host has it or not."""
    assert node_port_addresses(Configuration(node_port_addresses=chosen), HOST) == addresses


def test_loopback_answers_only_when_it_is_asked_for() -> None:
    """The localhostNodePorts option adds both loopback addresses."""
    found = node_port_addresses(Configuration(localhost_node_ports=True, node_port_addresses=[]), HOST)
    assert found == ("127.0.0.1", "::1")


def test_unallocated_addresses_are_dropped_only_where_nobody_lives() -> None:
    """The default ranges are never dropped; a configured one is not if a route of the host overlaps it."""
    assert settings_for(Configuration(), HOST, "n").drop_cidrs == ()
    config = Configuration(service_cidr="10.96.0.0/16,fd00:10:96::/112")
    assert settings_for(config, HOST, "n").drop_cidrs == ("fd00:10:96::/112",)


NODE_PORT = """
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {type: NodePort, clusterIP: 10.96.0.10, ports: [{port: 80, nodePort: 30080}]}
"""


def test_node_ports_move_with_the_nodes_address(empty_netns) -> None:
    """The primary address is looked at in every pass: a host that gets another one answers there, and only there."""

    def ip(*words: str) -> None:
        subprocess.run(["ip", "-n", empty_netns, *words], check=True)

    def answering() -> set[str]:
        api.sync(api.load(text=NODE_PORT), empty_netns)
        declared = next(each for each in layout.sets("ip") if each.name == "nodeport-ips")
        with Namespace(empty_netns) as kernel:
            held = kernel.read([Table("ip", {declared.name: declared})])["ip"].elements["nodeport-ips"]
        return {str(address) for (address,) in held}

    ip("link", "add", "eth0", "type", "bridge")
    ip("link", "set", "eth0", "up")
    ip("addr", "add", "192.0.2.5/24", "dev", "eth0")
    ip("route", "add", "default", "via", "192.0.2.1")
    assert answering() == {"192.0.2.5"}
    ip("addr", "del", "192.0.2.5/24", "dev", "eth0")
    assert answering() == set()
    ip("addr", "add", "198.51.100.5/24", "dev", "eth0")
    ip("route", "add", "default", "via", "198.51.100.1")
    assert answering() == {"198.51.100.5"}


OTHER = """
apiVersion: v1
kind: Service
metadata: {name: other}
spec: {clusterIP: 10.96.0.9, ports: [{port: 9}]}
"""
UDP = """
---
apiVersion: v1
kind: Service
metadata: {name: names}
spec:
  type: NodePort
  clusterIP: 10.96.0.10
  clusterIPs: [10.96.0.10, "fd00:10:96::a"]
  ipFamilyPolicy: RequireDualStack
  ports: [{port: 53, protocol: UDP, nodePort: 30053}]
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: four, labels: {kubernetes.io/service-name: names}}
addressType: IPv4
ports: [{port: 53, protocol: UDP}]
endpoints: [{addresses: [10.244.0.1]}]
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: six, labels: {kubernetes.io/service-name: names}}
addressType: IPv6
ports: [{port: 53, protocol: UDP}]
endpoints: [{addresses: ["fd00:10:244::1"]}]
"""


@pytest.fixture
def house(make_netns: Callable[[], str]) -> Iterator[House]:
    with contextlib.closing(House()) as made:
        yield made


def test_flows_that_a_killed_command_left_end_with_the_next_one(house: House) -> None:
    """It had written the rules, and not come to the flows: the frontends refuse until somebody has ended those."""
    where, config = house.place.name, Configuration()
    clients = [("10.96.0.10", 53), ("192.0.2.1", 30053), ("fd00:10:96::a", 53), ("2001:db8:c::1", 30053)]
    api.sync(api.load(text=OTHER + UDP), where)
    for address, port in clients:
        house.client(address, socket.SOCK_DGRAM, port)
    decided = plan(
        [service("other", "10.96.0.9", ports=((9, "TCP"),))], [], settings_for(config, look(where, config), "n")
    )
    with Namespace(where) as kernel:
        reconcile(kernel, compile_plan(decided))  # and here it is killed
        assert house.flows("") == ["10.244.0.1"] * 2 + ["fd00:10:244::1"] * 2
        # Of IPv6 there is no Service any more: the node's address answers no node port there.
        assert house.frontends().count(": goto refuse") == 4 + 1 + 1
        report = api.sync(api.load(text=OTHER), where)
        assert house.flows("") == []
        assert house.frontends().count(": goto refuse") == 1
        assert report.generation == kernel.generation()
    assert api.sync(api.load(text=OTHER), where).generation == report.generation


def test_a_loopback_that_loses_its_guard_is_told(empty_netns) -> None:
    """Without localhostNodePorts the guard goes, and the setting that it was for stays: somebody must know, once."""
    subprocess.run(["ip", "-n", empty_netns, "link", "set", "lo", "up"], check=True)
    on, off = Configuration(localhost_node_ports=True), Configuration()
    assert not api.sync(api.load(text=NODE_PORT), empty_netns, config=on).warnings
    (warning,) = api.sync(api.load(text=NODE_PORT), empty_netns, config=off).warnings
    assert "route_localnet is 1" in warning
    assert not api.sync(api.load(text=NODE_PORT), empty_netns, config=off).warnings

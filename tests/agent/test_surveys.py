"""Which events of the host are a reason to look at it again, and that the rest cost nothing, however many there are."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from svcnat.agent.desired import Desired
from svcnat.agent.keeper import Keeper
from svcnat.agent.targets import Target
from svcnat.kernel.host import Interest, Network
from svcnat.model.configuration import Configuration
from svcnat.store.sqlite import Store
from tests.agent.running import Running, node_port_addresses, web
from tests.agents import until

pytestmark = pytest.mark.packets

HOST = """
link set lo up
link add d0 type veth peer name d1
link set d0 up
link set d1 up
addr add 192.0.2.1/24 dev d0
addr add 2001:db8::1/64 dev d0 nodad
addr add 192.0.2.129/32 dev lo
route add default via 192.0.2.254 src 192.0.2.129
route add default via 2001:db8::fe dev d0
link add b0 type bridge
link set b0 up
"""
MANY = range(1000)
_SOME = 100  # so many events fit the buffer that an ordinary user may have


def batched(lines: list[str]) -> list[list[str]]:
    return [lines[first : first + _SOME] for first in range(0, len(lines), _SOME)]


def ip(where: str, lines: str) -> None:
    """Run lines of ``ip -batch``."""
    subprocess.run(["ip", "-n", where, "-batch", "-"], input=lines, text=True, check=True)


class Host:
    """A keeper with no Services, whose host's events are read when the test asks."""

    def __init__(self, where: str, **config: object) -> None:
        ip(where, HOST)
        self.where = where
        self.keeper = Keeper(Target("n", where), Configuration(**config), follows="objects", identity=None)  # type: ignore[arg-type]

    def __enter__(self) -> Host:
        self.keeper.open()
        while self.keeper.host_changed():  # what the first preparation changed
            self.keeper.follow(Desired(), ())
        return self

    def __exit__(self, *_: object) -> None:
        self.keeper.close()

    def news(self, lines: str) -> bool:
        """Whether what the lines do is a reason to look again; if so, that is done."""
        changed = False
        for some in batched(lines.splitlines()):
            ip(self.where, "\n".join(some))
            changed |= self.keeper.host_changed()
        while self.keeper.host_changed():
            self.keeper.follow(Desired(), ())
        return changed


@pytest.fixture
def where(make_netns: Callable[[], str]) -> str:
    return make_netns()


@pytest.mark.parametrize(
    "lines",
    [
        "\n".join(f"route add 198.18.{number >> 8}.{number & 255} via 192.0.2.254" for number in MANY),
        "\n".join(f"route add 2001:db8:1:{number:x}::/64 via 2001:db8::fe dev d0" for number in MANY),
        "route add 10.0.0.0/8 via 192.0.2.254\nroute del 10.0.0.0/8",
        "route add default via 192.0.2.254 table 100\nroute add default via 192.0.2.254 table 1000",
        "link add v0 type veth peer name v1\nlink set v0 up\nlink set v1 up\nlink set v0 master b0\nlink del v0",
        "addr add 169.254.7.7/16 dev b0 scope link\naddr del 169.254.7.7/16 dev b0",
        "neigh add 192.0.2.7 lladdr 02:00:00:00:00:07 dev d0\nneigh del 192.0.2.7 dev d0",
        "addr change 2001:db8::1/64 dev d0 nodad\nlink set d0 mtu 1400\nlink set d0 alias busy",
        "nexthop add id 7 via 192.0.2.254 dev d0\nroute add 198.51.100.0/24 nhid 7\nnexthop del id 7",
    ],
)
def test_what_the_rules_do_not_need_to_know_is_no_reason_to_look(where: str, lines: str) -> None:
    """Routes of a thousand strangers, containers that come and go on a bridge, what was seen already."""
    with Host(where) as host:
        assert not host.news(lines)


@pytest.mark.parametrize(
    "lines",
    [
        "route del default",
        "route replace default via 192.0.2.253",
        "route add default via 192.0.2.254 metric 7",
        "route del default via 2001:db8::fe dev d0",
        "addr add 192.0.2.9/24 dev d0",
        "addr add 10.1.0.1/24 dev b0",
        "addr del 192.0.2.1/24 dev d0",
        "addr del 192.0.2.129/32 dev lo",
        "addr change 2001:db8::1/64 dev d0 nodad preferred_lft 0 valid_lft 100",
        "link set d0 down",
        "link del d0",
        "link set b0 type bridge nf_call_iptables 1",
        "link set b0 name b1",
        "link add b2 type bridge",
        "link del b0",
    ],
)
def test_what_the_rules_depend_on_is(where: str, lines: str) -> None:
    """And whatever may take a default route along, of which the kernel does not tell."""
    with Host(where) as host:
        assert host.news(lines)


@pytest.mark.parametrize(
    ("before", "lines"),
    [
        ("nexthop add id 7 via 192.0.2.254 dev d0\nroute replace default nhid 7", "nexthop del id 7"),
        (
            "nexthop add id 7 via 192.0.2.254 dev d0\nnexthop add id 8 group 7\nroute replace default nhid 8",
            "nexthop del id 7",
        ),
        ("route replace default nexthop via 192.0.2.254 nexthop dev d1", "link set d1 down"),
        ("addr add 169.254.7.7/16 dev d1 scope link\nroute replace default dev d1", "addr del 169.254.7.7/16 dev d1"),
    ],
)
def test_a_default_route_that_goes_in_silence_is_missed(where: str, before: str, lines: str) -> None:
    """IPv4 tells only of the next hop, the link or the address that takes it along."""
    with Host(where) as host:
        assert host.news(before)
        assert host.news(lines)
        told = json.loads(subprocess.check_output(["ip", "-json", "-n", where, "route", "show", "default"]))
        with Network(where) as network:
            seen = network.survey(Interest(networks=(), devices=frozenset())).routes
        assert len([route for route in seen if route.family == "ip"]) == len(told)


@pytest.mark.parametrize(
    ("config", "lines", "news"),
    [
        ({"service_cidr": "10.96.0.0/12"}, "route add 10.112.0.0/12 via 192.0.2.254", False),
        ({"service_cidr": "10.96.0.0/12"}, "route add 10.97.0.0/16 via 192.0.2.254", True),
        ({"service_cidr": "10.96.0.0/12"}, "route add 10.0.0.0/8 via 192.0.2.254", True),
        ({"service_cidr": "10.96.0.0/12"}, "route add a60:1::/32 via 2001:db8::fe dev d0", False),
        ({"service_cidr": "10.96.0.0/12,fd00:10:96::/112"}, "route add fd00::/8 via 2001:db8::fe dev d0", True),
        ({"load_balancer_interfaces": ["v0"]}, "link add v0 type veth peer name v1", True),
        ({"load_balancer_interfaces": ["v0"]}, "link add v1 type veth peer name v2", False),
        ({"load_balancer_interfaces": ["v0"]}, "link set lo down", True),
        ({"localhost_node_ports": True}, "link add v0 type veth peer name v1", True),
    ],
)
def test_the_configuration_says_what_else_matters(
    where: str, config: dict[str, object], lines: str, news: bool
) -> None:
    """Routes within the ranges that it names, and links that need something of svcnat's."""
    with Host(where, **config) as host:
        assert host.news(lines) == news


def test_a_route_of_ours_that_others_remove_is_made_again(where: str) -> None:
    """What the host needs beside the rules is prepared anew; what svcnat itself does is no reason to look."""
    with Host(where, load_balancer_interfaces=["d0"]) as host:
        ours = "203.0.113.7 dev lo table local proto 115"
        assert not host.news(f"route add {ours}")
        assert host.news(f"route del {ours}")


def test_routes_that_are_not_wanted_are_not_asked_for(where: str) -> None:
    """Of a table of strangers' routes, only the default ones and those in the way of services are kept."""
    ip(where, HOST)
    ip(where, "route add 10.97.0.0/16 via 192.0.2.254\nroute add 203.0.113.0/24 via 192.0.2.254")
    with Network(where) as network:
        everything = {route.destination for route in network.survey().routes}
        some = {route.destination for route in network.survey(Interest(Configuration().service_networks)).routes}
        least = {route.destination for route in network.survey(Interest(networks=())).routes}
    assert least == {"0.0.0.0/0", "::/0"}
    assert some == least | {"10.97.0.0/16"}
    assert everything > some | {"203.0.113.0/24", "192.0.2.0/24"}


def test_an_agent_follows_its_default_route_among_many_others(where: str, folder: Path, store: Store) -> None:
    """Routes that do not matter come and go, and no pass is made for them; the one that does is followed."""
    ip(where, HOST)
    web(store, type="NodePort")
    with Running(folder, where) as agent:
        assert node_port_addresses(where) == "192.0.2.129"
        seconds_ago = agent.target.passed
        ip(where, "\n".join(f"route add 198.18.{each >> 8}.{each & 255} via 192.0.2.254" for each in MANY[:_SOME]))
        assert agent.target.passed > seconds_ago
        ip(where, "route replace default via 192.0.2.254 src 192.0.2.1")
        until(lambda: node_port_addresses(where) == "192.0.2.1", "the new address answers node ports")

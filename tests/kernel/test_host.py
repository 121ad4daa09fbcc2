"""What a namespace looks like: addresses, routes and bridges are those that ip(8) shows."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from svcnat.errors import MissingError
from svcnat.kernel import links, netns, sysctl
from svcnat.kernel.host import Address, Network, Route
from svcnat.kernel.links import Bridge, Device, Veth
from svcnat.ruleset.endpoints import Family

pytestmark = pytest.mark.packets

CALLS = Path("/proc/sys/net/bridge/bridge-nf-call-iptables")


def ip(where: str, script: str) -> None:
    """Do what the lines say, each a command of iproute2."""
    for line in filter(None, map(str.split, script.splitlines())):
        subprocess.run(["ip", "-netns", where, *line], check=True)


def shown(where: str, *arguments: str) -> Any:
    command = ["ip", "-json", "-netns", where, *arguments]
    return json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout or "[]")


@pytest.fixture
def where(make_netns: Callable[[], str]) -> str:
    """A namespace with two devices that are up, and no address but loopback's."""
    here, there = make_netns(), make_netns()
    links.build([Veth(Device(netns.path(here), name), Device(netns.path(there), name)) for name in ("eth0", "eth1")])
    for name in (here, there):
        ip(name, "link set eth0 addrgenmode none\nlink set eth1 addrgenmode none\n")
        ip(name, "addr flush dev eth0 scope link\naddr flush dev eth1 scope link\n")
    return here


@pytest.fixture
def network(where: str) -> Iterator[Network]:
    with Network(where) as opened:
        yield opened


def test_addresses_are_those_that_ip_shows(where: str, network: Network) -> None:
    """Device, prefix, scope and flags of every address in both families."""
    ip(
        where,
        """
        addr add 10.9.0.1/24 dev eth0
        addr add 10.9.0.2/24 dev eth0
        addr add 10.8.0.1/32 dev lo scope global
        addr add 10.7.0.1 peer 10.7.0.2/32 dev eth1 label eth1:alias
        addr add 169.254.1.1/32 dev eth1 scope link
        addr add fd09::1/64 dev eth0 nodad
        addr add fd09::2/64 dev eth0 nodad preferred_lft 0
        addr add fe80::1/64 dev eth1 nodad
        """,
    )
    told = {
        (each["ifname"], info["local"], info["prefixlen"], info["scope"])
        for each in shown(where, "addr")
        for info in each["addr_info"]
    }
    seen = network.survey().addresses
    assert {(each.device, each.address, each.prefix, each.scope) for each in seen} == told
    assert len(seen) == 10
    assert Address("ip", "eth0", "10.9.0.2", 24, "global", frozenset({"permanent", "secondary"})) in seen
    assert Address("ip", "eth1", "10.7.0.1", 32, "global", frozenset({"permanent"})) in seen
    assert Address("ip6", "lo", "::1", 128, "host", frozenset({"permanent"})) in seen
    flags = {each.address: each.flags for each in seen}
    assert flags["fd09::2"] == {"permanent", "deprecated"}
    assert [each.address for each in seen if (each.device, each.family) == ("eth0", "ip")] == ["10.9.0.1", "10.9.0.2"]


def test_an_address_that_is_not_usable_yet_says_so(where: str, network: Network) -> None:
    """Duplicate detection takes a second: until then the address is tentative."""
    ip(where, "addr add fd09::1/64 dev eth0\n")
    (mine,) = (each for each in network.survey().addresses if each.address == "fd09::1")
    assert "tentative" in mine.flags


def test_routes_are_those_of_the_main_table(where: str, network: Network) -> None:
    """Destinations as CIDRs, default routes too; other tables and what the kernel routes locally are left out."""
    ip(
        where,
        """
        addr add 10.9.0.1/24 dev eth0
        addr add fd09::1/64 dev eth0 nodad
        route add default via 10.9.0.9 src 10.9.0.1 metric 7
        route add 10.8.0.0/16 nexthop via 10.9.0.8 dev eth0 nexthop via 10.9.0.7 dev eth0
        route add 10.7.7.7 dev eth1
        route add blackhole 10.6.0.0/16
        route add 10.5.0.0/16 dev eth0 table 100
        -6 route add default via fd09::9
        -6 route add unreachable fd08::/48
        -6 route add fd07::/48 dev eth0 table 100
        """,
    )
    assert set(network.survey().routes) == {
        Route("ip", "0.0.0.0/0", "eth0", "10.9.0.1", 7, usable=True),
        Route("ip", "10.9.0.0/24", "eth0", "10.9.0.1", 0, usable=True),
        Route("ip", "10.8.0.0/16", "eth0", None, 0, usable=True),
        Route("ip", "10.7.7.7/32", "eth1", None, 0, usable=True),
        Route("ip", "10.6.0.0/16", "", None, 0, usable=False),
        Route("ip6", "fd09::/64", "eth0", None, 256, usable=True),
        Route("ip6", "::/0", "eth0", None, 1024, usable=True),
        Route("ip6", "fd08::/48", "lo", None, 1024, usable=False),
    }


BOTH = "addr add 10.9.0.1/24 dev eth0\naddr add 10.8.0.1/24 dev eth1\n"
BOTH6 = "addr add fd09::1/64 dev eth0 nodad\naddr add fd08::1/64 dev eth1 nodad\n"


@pytest.mark.parametrize(
    ("script", "primary"),
    [
        ("", (None, None)),
        (BOTH + BOTH6, (None, None)),
        (BOTH + "route add blackhole default\n", (None, None)),
        (BOTH + "route add default via 10.8.0.9\n", ("10.8.0.1", None)),
        (BOTH6 + "-6 route add default via fd08::9\n", (None, "fd08::1")),
        (BOTH + "route add default via 10.9.0.9 src 10.8.0.1\n", ("10.8.0.1", None)),
        (
            BOTH + "route add default via 10.9.0.9 metric 200\nroute add default via 10.8.0.9 metric 100\n",
            ("10.8.0.1", None),
        ),
        (
            BOTH
            + BOTH6
            + "route add default nexthop via 10.8.0.9 nexthop via 10.9.0.9\n-6 route add default dev eth0\n",
            ("10.8.0.1", "fd09::1"),
        ),
        ("addr add 10.8.0.1/32 dev lo scope global\nroute add default dev eth0\n", ("10.8.0.1", None)),
        (
            "addr add 169.254.1.1/24 dev eth0 scope link\naddr add 10.9.0.1/24 dev eth0\nroute add default dev eth0\n",
            ("10.9.0.1", None),
        ),
        (
            "addr add fd09::1/64 dev eth0 nodad\naddr add fd09::2/64 dev eth0 nodad preferred_lft 0\n"
            "-6 route add default via fd09::9\n",
            (None, "fd09::1"),
        ),
        (
            "addr add fd09::1/64 dev eth0 nodad preferred_lft 0\n-6 route add default via fd09::9\n",
            (None, "fd09::1"),
        ),
        ("addr add fe80::1/64 dev eth0 nodad\n-6 route add default via fe80::9 dev eth0\n", (None, None)),
    ],
)
def test_primary_addresses_are_those_of_the_default_routes(
    where: str, network: Network, script: str, primary: tuple[str | None, str | None]
) -> None:
    """The source that the route names, or its device's first lasting global address, or any device's."""
    ip(where, script)
    assert network.survey().primary_addresses() == primary


def test_every_look_is_a_new_one(where: str, network: Network) -> None:
    """A node that gets another address is seen with it."""
    ip(where, BOTH + "route add default via 10.9.0.9\n")
    assert network.survey().primary_addresses() == ("10.9.0.1", None)
    ip(where, "addr del 10.9.0.1/24 dev eth0\naddr add 10.9.0.3/24 dev eth0\nroute add default via 10.9.0.9\n")
    assert network.survey().primary_addresses() == ("10.9.0.3", None)


def test_bridges_that_netfilter_does_not_see(where: str, network: Network) -> None:
    """By family: none while the namespace's setting is on; without it, those that do not ask for themselves."""
    assert network.survey().bridges() == ()
    assert network.survey().unseen_bridges("ip") == ()
    links.build([Bridge(Device(netns.path(where), name)) for name in ("br0", "br1")])
    assert network.survey().bridges() == ("br0", "br1")
    if not CALLS.exists():
        assert network.survey().unseen_bridges("ip") == ("br0", "br1")
        pytest.skip("br_netfilter is not loaded")
    families: tuple[Family, ...] = ("ip", "ip6")
    settings = {"ip": "net/bridge/bridge-nf-call-iptables", "ip6": "net/bridge/bridge-nf-call-ip6tables"}
    for family in families:
        other = "ip6" if family == "ip" else "ip"
        with netns.entered(where):
            sysctl.write({settings[family]: 0, settings[other]: 1})
        assert (network.survey().unseen_bridges(family), network.survey().unseen_bridges(other)) == (("br0", "br1"), ())
    ip(where, "link set br1 type bridge nf_call_iptables 1\n")
    with netns.entered(where):
        sysctl.write({settings["ip"]: 0, settings["ip6"]: 0})
    assert (network.survey().unseen_bridges("ip"), network.survey().unseen_bridges("ip6")) == (("br0",), ("br0", "br1"))


def test_the_caller_stays_where_it_is(where: str) -> None:
    """A look at another namespace moves no thread; the current one needs no name."""
    home = netns.identity()
    with Network(where) as there, netns.entered(where), Network() as here:
        assert here.survey() == there.survey()
    assert netns.identity() == home
    with pytest.raises(MissingError, match="does not exist"):
        Network("svcnat-nowhere")

"""Links between namespaces: what is described is there, and the caller's thread never leaves home."""

from __future__ import annotations

import json
import socket
import subprocess
from collections.abc import Callable
from typing import Any

import pytest

from svcnat.errors import KernelError, MissingError
from svcnat.kernel import links, netns
from svcnat.kernel.links import Bridge, Device, Route, Veth

pytestmark = pytest.mark.packets


def ip(namespace: str, *arguments: str) -> Any:
    """What ``ip -json`` says in a namespace."""
    output = subprocess.run(
        ["ip", "-json", "-netns", namespace, *arguments], capture_output=True, text=True, check=True
    ).stdout
    return json.loads(output or "[]")


def refused(namespace: str, address: str) -> bool:
    """True if a host answers at `address`: nobody listens on its discard port, and it says so."""
    with netns.entered(namespace):
        client = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET)
    with client:
        client.settimeout(5)
        with pytest.raises(OSError, match="refused"):
            client.connect((address, 9))
    return True


def test_a_veth_pair_has_what_its_ends_ask_for(make_netns: Callable[[], str]) -> None:
    """Addresses are usable at once, MACs, neighbours and routes are there, loopbacks are up, packets pass."""
    near, far = make_netns(), make_netns()
    home = netns.identity()
    links.build(
        [
            Veth(
                Device(
                    netns.path(near),
                    "left",
                    addresses=("10.9.0.1/24", "fd09::1/64"),
                    routes=(Route("10.8.0.0/16", "10.9.0.2", source="10.9.0.1"), Route("fd08::/64", "fd09::2")),
                ),
                Device(
                    netns.path(far),
                    "right",
                    addresses=("10.9.0.2/24", "fd09::2/64"),
                    mac="02:00:00:00:00:02",
                    neighbours=(("169.254.1.1", "02:00:00:00:00:01"),),
                    routes=(
                        Route("0.0.0.0/0", "169.254.1.1", on_link=True),
                        Route("10.7.0.0/16", unreachable=True),
                        Route("10.6.0.6/32"),
                    ),
                ),
            )
        ]
    )
    assert netns.identity() == home
    for address in ("10.9.0.2", "fd09::2"):
        assert refused(near, address)
    assert refused(far, "127.0.0.1")
    assert refused(far, "::1")
    routes = {route["dst"]: route for route in ip(near, "route") + ip(near, "-6", "route")}
    assert routes["10.8.0.0/16"]["gateway"] == "10.9.0.2"
    assert routes["10.8.0.0/16"]["prefsrc"] == "10.9.0.1"
    assert routes["fd08::/64"]["gateway"] == "fd09::2"
    routes = {route["dst"]: route for route in ip(far, "route")}
    assert routes["default"]["flags"] == ["onlink"]
    assert routes["10.7.0.0/16"]["type"] == "unreachable"
    assert routes["10.6.0.6"]["scope"] == "link"
    (link,) = ip(far, "link", "show", "dev", "right")
    assert link["address"] == "02:00:00:00:00:02"
    (neighbour,) = [each for each in ip(far, "neigh") if each["dst"] == "169.254.1.1"]
    assert neighbour["state"] == ["PERMANENT"]


def test_a_bridge_joins_its_ports(make_netns: Callable[[], str]) -> None:
    """Hosts on two ports of a bridge, and the bridge itself, reach each other in both families."""
    middle, one, two = (make_netns() for _ in range(3))
    ports = [
        Veth(
            Device(netns.path(middle), f"port{number}", bridge="switch"),
            Device(netns.path(host), "eth0", addresses=(f"10.9.0.{number}/24", f"fd09::{number}/64")),
        )
        for number, host in ((1, one), (2, two))
    ]
    links.build([Bridge(Device(netns.path(middle), "switch", addresses=("10.9.0.9/24", "fd09::9/64"))), *ports])
    for address in ("10.9.0.2", "fd09::2", "10.9.0.9", "fd09::9"):
        assert refused(one, address)


def test_what_the_kernel_refuses_is_classified(make_netns: Callable[[], str]) -> None:
    """A missing namespace, and a device that exists, are told apart and named."""
    near, far = (netns.path(make_netns()) for _ in range(2))
    pair = Veth(Device(near, "left"), Device(far, "right"))
    links.build([pair])
    with pytest.raises(KernelError, match=f"^cannot build link left of {near}: File exists$"):
        links.build([pair])
    with pytest.raises(MissingError, match="does not exist"):
        links.build([Veth(Device(netns.path("svcnat-nowhere"), "left"), Device(far, "right"))])
    with pytest.raises(MissingError, match="does not exist"):
        links.build([Veth(Device(near, "other"), Device(netns.path("svcnat-nowhere"), "right"))])


def test_pyroute2_is_imported_when_something_is_built() -> None:
    """Only verbs that build links pay for pyroute2 and asyncio."""
    import sys

    script = "import sys, svcnat.kernel.links; print({'pyroute2', 'asyncio'} & set(sys.modules))"
    assert (
        subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout == "set()\n"
    )


def test_a_device_that_is_down_takes_its_routes_along(make_netns: Callable[[], str]) -> None:
    """take_down() works without pyroute2, and twice; a namespace that does not exist is an error."""
    near, far = (netns.path(make_netns()) for _ in range(2))
    links.build([Veth(Device(near, "left", routes=(Route("10.9.0.9/32"), Route("fd09::9/128"))), Device(far, "right"))])
    for _ in range(2):
        links.take_down(near, ["left", "gone"])
        assert ip(near.name, "route") == []
        assert not [route for route in ip(near.name, "-6", "route") if route["dst"] == "fd09::9"]
    with pytest.raises(MissingError):
        links.take_down(netns.path("svcnat-nowhere"), ["left"])


def test_a_bridge_that_does_not_ask_who_listens(make_netns: Callable[[], str]) -> None:
    """It has the MAC that it was given, snoops on no multicast, and lets a port send back where it came from."""
    near, far = make_netns(), make_netns()
    where = netns.path(near)
    links.build(
        [
            Bridge(Device(where, "br", addresses=("10.9.0.1/24",), mac="02:00:0a:09:00:01")),
            Veth(Device(where, "port", bridge="br", hairpin=True), Device(netns.path(far), "eth0")),
        ]
    )
    (bridge,) = ip(near, "-details", "link", "show", "br")
    (port,) = ip(near, "-details", "link", "show", "port")
    assert bridge["address"] == "02:00:0a:09:00:01"
    assert bridge["linkinfo"]["info_data"]["mcast_snooping"] == 0
    assert port["linkinfo"]["info_slave_data"]["hairpin"] is True


def test_what_is_unplugged_is_gone_on_both_sides(make_netns: Callable[[], str]) -> None:
    """The other end goes, too, and what is gone already does no harm."""
    near, far = make_netns(), make_netns()
    links.build([Veth(Device(netns.path(near), "left"), Device(netns.path(far), "right"))])
    links.unplug(netns.path(near), ["left", "nothing"])
    links.unplug(netns.path(near), ["left"])
    assert [each["ifname"] for name in (near, far) for each in ip(name, "link") if each["ifname"] != "lo"] == []


def test_routes_are_replaced(make_netns: Callable[[], str]) -> None:
    """One that is there goes another way, in either family; without the device it is an error."""
    near, far = make_netns(), make_netns()
    addresses = ("10.9.0.1/24", "fd09::1/64")
    routes = (Route("10.8.0.0/16", "10.9.0.2"), Route("fd08::/64", "fd09::2"))
    where = netns.path(near)
    links.build([Veth(Device(where, "left", addresses=addresses, routes=routes), Device(netns.path(far), "right"))])
    links.reroute(where, "left", [Route("10.8.0.0/16", "10.9.0.3"), Route("fd08::/64", "fd09::3")])
    assert [each["gateway"] for each in ip(near, "route", "show", "10.8.0.0/16")] == ["10.9.0.3"]
    assert [each["gateway"] for each in ip(near, "-6", "route", "show", "fd08::/64")] == ["fd09::3"]
    with pytest.raises(KernelError, match="cannot change the routes through nothing"):
        links.reroute(where, "nothing", [Route("10.8.0.0/16", "10.9.0.4")])


def test_delay_where_the_kernel_can(make_netns: Callable[[], str]) -> None:
    """Netem is asked for, and either there or told to be missing; asking leaves nothing."""
    near, far = make_netns(), make_netns()
    links.build([Veth(Device(netns.path(near), "left"), Device(netns.path(far), "right"))])
    if links.can_delay():
        links.delay(netns.path(near), "left", 0.02)
        (queue,) = ip_tc(near, "left")
        assert (queue["kind"], queue["options"]["delay"]["delay"]) == ("netem", pytest.approx(0.02))
    else:
        with pytest.raises(KernelError, match="cannot delay what leaves by left of"):
            links.delay(netns.path(near), "left", 0.02)


def ip_tc(namespace: str, device: str) -> Any:
    """What ``tc -json`` says of a device's queues."""
    command = ["tc", "-json", "-netns", namespace, "qdisc", "show", "dev", device]
    return json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)

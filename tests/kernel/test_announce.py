"""Proxy neighbours: a host answers on a link for addresses that no device has, and stops when it is told."""

from __future__ import annotations

import json
import selectors
import socket
import subprocess
from collections.abc import Callable
from typing import Any

import pytest

from svcnat.kernel import links, netns, sysctl
from svcnat.kernel.announce import announce
from svcnat.kernel.links import Device, Veth

pytestmark = pytest.mark.packets

FOUR, SIX = "192.0.2.100", "2001:db8:c::64"
FORWARDING = {"net/ipv4/ip_forward": 1, "net/ipv6/conf/all/forwarding": 1}


def ip(namespace: str, *arguments: str) -> Any:
    """What ``ip -json -details`` says in a namespace."""
    command = ["ip", "-json", "-details", "-netns", namespace, *arguments]
    return json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout or "[]")


def proxies(namespace: str) -> set[tuple[str, str]]:
    return {(each["dst"], each["dev"]) for each in ip(namespace, "neigh", "show", "proxy")}


def routes(namespace: str) -> list[dict[str, Any]]:
    """Every route but those that the kernel makes by itself."""
    found = ip(namespace, "route", "show", "table", "all") + ip(namespace, "-6", "route", "show", "table", "all")
    return [each for each in found if each.get("protocol") != "kernel"]


def announced(namespace: str, addresses: tuple[str, ...], *interfaces: str) -> list[str]:
    with netns.entered(namespace):
        return announce(addresses, interfaces)


def resolves(namespace: str, address: str) -> bool:
    """True if somebody on the link says that `address` is there; False once the kernel has asked in vain."""
    ip(namespace, "neigh", "flush", "to", address)
    version = socket.AF_INET6 if ":" in address else socket.AF_INET
    with netns.entered(namespace), socket.socket(version, socket.SOCK_STREAM) as asking:
        asking.setblocking(False)
        asking.connect_ex((address, 9))
        with selectors.DefaultSelector() as waiting:
            waiting.register(asking, selectors.EVENT_WRITE)
            for _ in range(1200):
                over = waiting.select(0.05)
                if any("lladdr" in each for each in ip(namespace, "neigh", "show", "to", address)):
                    return True
                if over:
                    return False
    raise AssertionError("the kernel neither found the neighbour nor gave up")


@pytest.fixture
def link(make_netns: Callable[[], str]) -> tuple[str, str]:
    """A host that forwards, and its neighbour on link ``lan``, which has no route but that link's."""
    host, neighbour = make_netns(), make_netns()
    with netns.entered(host):
        sysctl.write(FORWARDING)
    with netns.entered(neighbour):
        # Solicitations come from the link-local address, which duplicate detection holds back for a second.
        sysctl.write({"net/ipv6/conf/default/accept_dad": 0})
    links.build(
        [
            Veth(
                Device(netns.path(host), "lan", addresses=("192.0.2.1/24", "2001:db8:c::1/64")),
                Device(netns.path(neighbour), "eth0", addresses=("192.0.2.10/24", "2001:db8:c::10/64")),
            )
        ]
    )
    with netns.entered(neighbour):
        sysctl.write({f"net/{each}/neigh/eth0/retrans_time_ms": 100 for each in ("ipv4", "ipv6")})
    return host, neighbour


@pytest.mark.parametrize("address", [FOUR, SIX])
def test_a_neighbour_finds_the_address_until_it_is_taken_back(link, address) -> None:
    """Nobody answers; then the host does, although no device has the address; then nobody again."""
    host, neighbour = link
    assert not resolves(neighbour, address)
    assert announced(host, (address,), "lan") == []
    assert resolves(neighbour, address)
    assert not [each for each in ip(host, "addr") for info in each["addr_info"] if info["local"] == address]
    assert announced(host, ()) == []
    assert not resolves(neighbour, address)
    assert (proxies(host), routes(host)) == (set(), [])


def test_only_on_the_links_that_are_named(link, make_netns) -> None:
    """A neighbour on another link asks in vain; it is told as soon as its link is named, instead of the first."""
    host, neighbour = link
    other = make_netns()
    links.build(
        [
            Veth(
                Device(netns.path(host), "dmz", addresses=("198.51.100.1/24",)),
                Device(netns.path(other), "eth0", addresses=("198.51.100.10/24", "192.0.2.11/24")),
            )
        ]
    )
    with netns.entered(other):
        sysctl.write({"net/ipv4/neigh/eth0/retrans_time_ms": 100})
    with netns.entered(host):
        sysctl.write({"net/ipv4/conf/dmz/rp_filter": 0, "net/ipv4/conf/all/rp_filter": 0})
    announced(host, (FOUR,), "lan")
    assert not resolves(other, FOUR)
    announced(host, (FOUR,), "dmz")
    assert proxies(host) == {(FOUR, "dmz")}
    assert resolves(other, FOUR)
    assert not resolves(neighbour, FOUR)


def test_a_neighbour_that_makes_sure_is_told_again(link) -> None:
    """An IPv6 neighbour checks an old entry by unicast: without an answer it would lose the address every time."""
    host, neighbour = link
    announced(host, (SIX,), "lan")
    assert resolves(neighbour, SIX)
    ip(neighbour, "neigh", "change", SIX, "dev", "eth0", "nud", "probe")
    for _ in range(1200):
        (entry,) = ip(neighbour, "neigh", "show", "to", SIX)
        if entry["state"] != ["PROBE"]:
            break
    assert entry["state"] == ["REACHABLE"]


def test_the_kernel_is_made_equal_whatever_is_there(link) -> None:
    """Missing entries and routes come back, needless ones go, and nothing is written when all is well."""
    host, _ = link
    both = (FOUR, SIX)
    announced(host, ("192.0.2.99", "2001:db8:c::63"), "lan")
    announced(host, both, "lan")
    good = proxies(host), routes(host)
    assert good[0] == {(FOUR, "lan"), (SIX, "lan")}
    for damage in (
        ("neigh", "del", "proxy", SIX, "dev", "lan"),
        ("neigh", "del", "proxy", FOUR, "dev", "lan"),
        ("route", "flush", "table", "local", "proto", "115"),
        ("neigh", "add", "proxy", "192.0.2.98", "dev", "lan", "protocol", "115"),
    ):
        ip(host, *damage)
        assert (proxies(host), routes(host)) != good
        assert announced(host, both, "lan") == []
        assert (proxies(host), routes(host)) == good
    with netns.entered(host), socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0) as events:
        events.bind((0, 0x4 | 0x40 | 0x400))  # RTMGRP_NEIGH, _IPV4_ROUTE, _IPV6_ROUTE
        events.setblocking(False)
        assert announced(host, both, "lan") == []
        with pytest.raises(BlockingIOError):
            events.recv(4096)


def test_what_others_made_survives(link) -> None:
    """A stranger's proxy entries and routes stay, even for an address that svcnat wants too, and that it lets go."""
    host, _ = link
    stranger = {(FOUR, "lan"), (SIX, "lan"), ("192.0.2.7", "lan"), ("2001:db8:c::7", "lan")}
    for address, device in stranger:
        ip(host, "neigh", "add", "proxy", address, "dev", device)
    ip(host, "route", "add", "192.0.2.7/32", "dev", "lo")
    ip(host, "route", "add", "192.0.2.8/32", "dev", "lo", "table", "local", "protocol", "static")
    ip(host, "route", "add", f"{FOUR}/32", "dev", "lo", "metric", "7", "table", "local", "protocol", "bird")
    ip(host, "route", "add", "192.0.2.9/32", "dev", "lo", "protocol", "115")  # in another table than svcnat's
    before = ip(host, "neigh", "show", "proxy"), routes(host)
    assert announced(host, (FOUR, SIX, "192.0.2.50"), "lan") == []
    assert proxies(host) == {*stranger, ("192.0.2.50", "lan")}
    assert announced(host, ()) == []
    assert (ip(host, "neigh", "show", "proxy"), routes(host)) == before


def test_links_that_do_not_exist_are_a_warning(link) -> None:
    """The others are answered on."""
    host, _ = link
    (warning,) = announced(host, (FOUR,), "nowhere", "lan")
    assert warning == (
        "loadBalancerInterfaces: there is no device 'nowhere': load-balancer addresses are not answered on it"
    )
    assert proxies(host) == {(FOUR, "lan")}


def test_a_host_that_does_not_forward_is_a_warning(link) -> None:
    """The kernel answers for others only where it forwards."""
    host, neighbour = link
    with netns.entered(host):
        sysctl.write({"net/ipv4/conf/lan/forwarding": 0})
    (warning,) = announced(host, (FOUR, SIX), "lan")
    assert warning == "load-balancer addresses are not answered on lan: sysctl net/ipv4/conf/lan/forwarding is 0"
    assert not resolves(neighbour, FOUR)


def test_refusals_are_one_warning(make_netns) -> None:
    """Without a loopback that is up there is no route to the addresses; all of them are in one line."""
    host, other = make_netns(), make_netns()
    links.build([Veth(Device(netns.path(host), "lan"), Device(netns.path(other), "eth0"))])
    ip(host, "link", "set", "lo", "down")
    warnings = announced(host, (FOUR, "192.0.2.101", "192.0.2.102"), "lan")
    assert "load-balancer address 192.0.2.100 and 2 more: not answered: Network is down" in warnings

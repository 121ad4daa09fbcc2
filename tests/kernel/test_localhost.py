"""Settings and routes for localhost node ports; the packets are in tests/agent/test_host.py."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

from svcnat.kernel import links, netns, sysctl
from svcnat.kernel.links import Device, Veth
from svcnat.kernel.localhost import ROUTE_LOCALNET, open_localhost


def routes(namespace: str) -> list[str]:
    """The local routes to ::1 that the kernel did not make."""
    command = ["ip", "-netns", namespace, "-6", "route", "show", "table", "local", "to", "::1/128"]
    listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return [" ".join(line.split()) for line in listed.splitlines() if "proto kernel" not in line]


def ip(namespace: str, *arguments: str) -> None:
    subprocess.run(["ip", "-netns", namespace, *arguments], capture_output=True, check=True)


def pair(one: str, two: str, name: str) -> None:
    links.build([Veth(Device(netns.path(one), name), Device(netns.path(two), name))])


def opened(namespace: str, *families) -> list[str]:
    with netns.entered(namespace):
        return open_localhost(families)


def test_each_device_that_is_up_has_a_route(make_netns: Callable[[], str]) -> None:
    """Those that are down, or have no IPv6, are passed over in silence, and get theirs when they are fit for it."""
    here, there = make_netns(), make_netns()
    for name in ("a", "b", "c"):
        pair(here, there, name)
    ip(here, "link", "set", "dev", "b", "down")
    with netns.entered(here):
        sysctl.write({"net/ipv6/conf/c/disable_ipv6": 1})
    assert opened(here, "ip6") == []
    assert routes(here) == ["local ::1 dev a proto 115 metric 1024 pref medium"]
    ip(here, "link", "set", "dev", "b", "up")
    with netns.entered(here):
        sysctl.write({"net/ipv6/conf/c/disable_ipv6": 0})
        assert sysctl.read(ROUTE_LOCALNET) == "0"
    assert opened(here, "ip6") == []
    assert {route.split()[3] for route in routes(here)} == {"a", "b", "c"}


def test_routes_of_others_stay(make_netns: Callable[[], str]) -> None:
    """A stranger's local route to ::1 is neither replaced nor removed."""
    here, there = make_netns(), make_netns()
    for name in ("a", "b"):
        pair(here, there, name)
    ip(here, "-6", "route", "add", "local", "::1/128", "dev", "a", "table", "local", "metric", "1024", "proto", "bird")
    before = routes(here)
    assert opened(here, "ip6") == []
    assert {*before, "local ::1 dev b proto 115 metric 1024 pref medium"} == set(routes(here))
    assert opened(here) == []
    assert routes(here) == before


_READ_ONLY = """
from svcnat.kernel.announce import announce
from svcnat.kernel.localhost import open_localhost
print(*announce(["192.0.2.100", "2001:db8::64"], ["a"]), *open_localhost(["ip", "ip6"]), sep="\\n")
"""


def test_settings_that_are_refused_are_a_warning_each(make_netns: Callable[[], str]) -> None:
    """In most containers /proc/sys is read-only: what can be done is done, and the rest is said in one line each."""
    here, there = make_netns(), make_netns()
    pair(here, there, "a")
    with netns.entered(here):
        sysctl.write({"net/ipv4/ip_forward": 1, "net/ipv6/conf/all/forwarding": 1})
    container = ["nsenter", f"--net={netns.path(here)}", "unshare", "-m"]
    command = ["sh", "-ec", 'mount -o bind,ro /proc/sys /proc/sys; exec "$@"', "sh", sys.executable, "-c", _READ_ONLY]
    done = subprocess.run([*container, *command], capture_output=True, text=True, check=True)
    why = "/proc/sys is read-only: in a container, run it privileged or with /proc/sys writable"
    assert done.stdout.splitlines() == [
        f"IPv6 load-balancer addresses are not answered on any link: sysctl net/ipv6/conf/all/proxy_ndp=1: {why}",
        f"localhostNodePorts: node ports do not answer on 127.0.0.1: sysctl net/ipv4/conf/all/route_localnet=1: {why}",
    ]
    assert routes(here) == ["local ::1 dev a proto 115 metric 1024 pref medium"]

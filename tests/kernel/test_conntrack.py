"""Connection tracking: what is listed is what conntrack(8) says, and exactly what should go is deleted."""

from __future__ import annotations

import errno
import re
import socket
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from svcnat.errors import MissingError
from svcnat.kernel import links, netns
from svcnat.kernel.conntrack import Conntrack, Flow
from svcnat.kernel.links import Device, Route, Veth
from tests.kernel.flows import flow, track

pytestmark = pytest.mark.packets

# Translation in both families, and zones: 7 for both directions of a flow, 9 for its first direction alone.
# Nobody has the addresses that TCP is sent to: a refusal would end the flow at once.
RULES = """
table inet tracked {
    chain zones {
        type filter hook output priority -300;
        udp dport 7 ct zone set 7
        udp dport 9 ct original zone set 9
    }
    chain nat {
        type nat hook output priority -100;
        ip daddr 10.96.0.10 udp dport 53 dnat ip to 10.9.0.2:5353
        ip daddr 10.96.0.10 tcp dport 80 dnat ip to 10.9.0.7:8080
        ip6 daddr fd96::10 udp dport 53 dnat ip6 to [fd09::2]:5353
        ip6 daddr fd96::10 tcp dport 80 dnat ip6 to [fd09::7]:8080
    }
}
"""
SAID = re.compile(r"(src|dst|sport|dport|zone|zone-orig|id)=(\S+)")


@pytest.fixture
def conntrack(empty_netns: str) -> Iterator[Conntrack]:
    with Conntrack(empty_netns) as opened:
        yield opened


@pytest.fixture
def node(make_netns: Callable[[], str]) -> str:
    """A namespace that tracks and translates its own flows, with a neighbour that answers nothing but errors."""
    here, there = make_netns(), make_netns()
    near = Device(
        netns.path(here),
        "eth0",
        ("10.9.0.1/24", "fd09::1/64"),
        (Route("0.0.0.0/0", "10.9.0.2"), Route("::/0", "fd09::2")),
    )
    links.build([Veth(near, Device(netns.path(there), "eth0", ("10.9.0.2/24", "fd09::2/64")))])
    with netns.entered(here):
        subprocess.run(["nft", "-f", "-"], input=RULES, text=True, check=True)
    return here


def send(where: str, kind: socket.SocketKind, address: str, port: int) -> None:
    """Send the first packet of a flow."""
    with netns.entered(where):
        sender = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, kind)
    with sender:
        sender.setblocking(False)
        if kind == socket.SOCK_STREAM:
            assert sender.connect_ex((address, port)) == errno.EINPROGRESS
        else:
            sender.sendto(b"?", (address, port))


def listed(where: str) -> set[Flow]:
    """The flows with ports that conntrack(8) lists."""
    found = set()
    with netns.entered(where):
        for family, option in (("ip", "ipv4"), ("ip6", "ipv6")):
            command = ["conntrack", "-L", "-f", option, "-o", "id"]
            output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
            for line in output.splitlines():
                said: dict[str, list[str]] = {}
                for name, value in SAID.findall(line):
                    said.setdefault(name, []).append(value)
                if "sport" in said:
                    zones = [*said.get("zone", []), *said.get("zone-orig", []), "0"]
                    found.add(
                        Flow(
                            family,
                            line.split()[0],
                            said["src"][0],
                            int(said["sport"][0]),
                            said["dst"][0],
                            int(said["dport"][0]),
                            said["src"][1],
                            int(said["sport"][1]),
                            int(zones[0]),
                            int(said["id"][0]),
                        )
                    )
    return found


def unidentified(flows: Iterator[Flow]) -> set[Flow]:
    """The flows without the number that the kernel gave them."""
    return {msgspec.structs.replace(each, ident=0) for each in flows}


def test_flows_are_those_that_conntrack_lists(node: str) -> None:
    """Every field of real flows is right in both families, translated or not, zones too; none lacks ports."""
    for address in ("10.96.0.10", "fd96::10"):
        for port in (53, 54, 7, 9):
            send(node, socket.SOCK_DGRAM, address, port)
        for port in (80, 81):
            send(node, socket.SOCK_STREAM, address, port)
    with netns.entered(node):
        ping = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
    with ping:
        ping.sendto(struct.pack("!BBHHH", 8, 0, 0xF7FE, 1, 0), ("10.9.0.2", 0))
    with Conntrack(node) as conntrack:
        seen = list(conntrack.flows())
        assert conntrack.count() > len(seen)  # the echo request has no ports
    assert len(seen) == 12
    assert set(seen) == listed(node)
    assert {each.reply_source for each in seen if each.destination_port == 53} == {"10.9.0.2", "fd09::2"}
    assert {(each.destination_port, each.zone) for each in seen if each.zone} == {(7, 7), (9, 9)}


def test_each_filter_leaves_out_what_it_says(conntrack: Conntrack, empty_netns: str) -> None:
    """Family, protocol, destination and port in every combination give what choosing from all flows gives."""
    everything = [
        flow(f"{client}@{1000 + number}", f"{address}@{port}", protocol=protocol)
        for client, addresses in (("10.0.0.1", ("10.96.0.1", "10.96.0.2")), ("fd00::1", ("fd96::1", "fd96::2")))
        for number, address in enumerate(addresses)
        for port in (53, 54)
        for protocol in ("tcp", "udp", "sctp")
    ]
    track(empty_netns, everything)
    assert unidentified(conntrack.flows()) == set(everything)
    for family, addresses in (("ip", (None, "10.96.0.1")), ("ip6", (None, "fd96::1"))):
        for protocol in (None, "tcp", "udp", "sctp"):
            for destination in addresses:
                for port in (None, 53) if protocol else (None,):
                    wanted = {
                        each
                        for each in everything
                        if each.family == family
                        and protocol in (None, each.protocol)
                        and destination in (None, each.destination)
                        and port in (None, each.destination_port)
                    }
                    found = conntrack.flows(family, protocol, destination=destination, port=port)
                    assert unidentified(found) == wanted


def test_deleting_takes_exactly_the_flows_given(node: str) -> None:
    """Of real flows in both families the chosen ones go, the others stay; what is gone already does no harm."""
    for address in ("10.96.0.10", "fd96::10"):
        for port in (53, 54, 7, 9):
            send(node, socket.SOCK_DGRAM, address, port)
    with Conntrack(node) as conntrack:
        seen = set(conntrack.flows())
        chosen = {each for each in seen if each.destination_port in (53, 9)}
        assert conntrack.delete(each for each in chosen) == len(chosen) == 4
        assert set(conntrack.flows()) == seen - chosen
        assert conntrack.delete(chosen) == 0
        assert set(conntrack.flows()) == seen - chosen == listed(node)
        assert conntrack.delete(seen) == 4
        assert listed(node) == set(conntrack.flows()) == set()


def test_a_later_flow_of_the_same_addresses_is_another(conntrack: Conntrack, empty_netns: str) -> None:
    """What was listed before a flow ended does not delete the one that began in its place: the kernel numbers them."""
    track(empty_netns, [flow("10.0.0.1@1", "10.96.0.1@53")])
    (now,) = conntrack.flows()
    before = msgspec.structs.replace(now, ident=now.ident ^ 1)
    assert conntrack.delete([before]) == 0
    assert list(conntrack.flows()) == [now]
    assert conntrack.delete([now]) == 1


def test_the_same_addresses_in_another_zone_are_another_flow(conntrack: Conntrack, empty_netns: str) -> None:
    """Zones are part of what a flow is."""
    track(empty_netns, [flow("10.0.0.1@1", "10.96.0.1@53", zone=zone) for zone in (0, 1, 2)])
    assert conntrack.delete([each for each in conntrack.flows() if each.zone == 1]) == 1
    assert {each.zone for each in conntrack.flows()} == {0, 2}


@pytest.mark.parametrize("protocol", ["tcp", "udp", "sctp"])
@pytest.mark.parametrize(
    "addresses",
    [
        ("10.0.0.1", "10.96.0.1", "10.96.0.2", "10.9.0.2", "10.9.0.3"),
        ("fd00::1", "fd96::1", "fd96::2", "fd09::2", "fd09::3"),
    ],
    ids=["ipv4", "ipv6"],
)
def test_flows_between_a_frontend_and_an_endpoint_go_and_strangers_stay(
    conntrack: Conntrack, empty_netns: str, addresses: tuple[str, ...], protocol: str
) -> None:
    """Another frontend, endpoint, port or protocol survives: in IPv6 the kernel's own filter would take them all."""
    client, mine, other, endpoint, another = addresses
    numbers = iter(range(1000, 2000))

    def made(frontend: str, backend: str, kind: str = protocol) -> Flow:
        return flow(f"{client}@{next(numbers)}", frontend, backend, kind)

    doomed = [made(f"{mine}@53", f"{endpoint}@5353") for _ in range(5)]
    strangers = [
        made(f"{other}@53", f"{endpoint}@5353"),
        made(f"{mine}@54", f"{endpoint}@5353"),
        made(f"{mine}@53", f"{another}@5353"),
        made(f"{mine}@53", f"{endpoint}@5354"),
        made(f"{mine}@53", f"{mine}@53"),
        made(f"{mine}@53", f"{endpoint}@5353", "udp" if protocol == "tcp" else "tcp"),
        made(f"{other}@54", f"{another}@5354"),
        flow("192.0.2.1@1", "198.51.100.1@53", "10.9.0.2@5353", protocol),
        flow("2001:db8::1@1", "2001:db8::2@53", "fd09::2@5353", protocol),
    ]
    track(empty_netns, [*doomed, *strangers])
    found = conntrack.flows(doomed[0].family, protocol, destination=mine, port=53)
    conntrack.delete([each for each in found if (each.reply_source, each.reply_source_port) == (endpoint, 5353)])
    assert unidentified(conntrack.flows()) == set(strangers)


@pytest.mark.parametrize(
    ("client", "frontends", "endpoints"),
    [
        ("10.0.{}.{}", ("10.96.0.1", "10.96.0.2"), ("10.9.0.2", "10.9.0.3")),
        ("fd00::{}:{}", ("fd96::1", "fd96::2"), ("fd09::2", "fd09::3")),
    ],
    ids=["ipv4", "ipv6"],
)
def test_twenty_thousand_flows(
    conntrack: Conntrack, empty_netns: str, client: str, frontends: tuple[str, str], endpoints: tuple[str, str]
) -> None:
    """Nothing is lost or doubled in long answers; a quarter goes with an endpoint, the others stay."""
    everything = [
        flow(
            f"{client.format(number // 200 + 1, number % 200 + 1)}@{20000 + number}",
            f"{frontends[number % 2]}@53",
            f"{endpoints[number // 2 % 2]}@5353",
        )
        for number in range(20000)
    ]
    track(empty_netns, everything)
    assert conntrack.count() == 20000
    assert unidentified(conntrack.flows()) == set(everything)
    family = everything[0].family
    assert sum(1 for _ in conntrack.flows(family, "udp", destination=frontends[0], port=53)) == 10000
    assert sum(1 for _ in conntrack.flows(family, "udp", destination=frontends[0], port=54)) == 0
    found = conntrack.flows(family, "udp", destination=frontends[0])
    assert conntrack.delete([each for each in found if each.reply_source == endpoints[0]]) == 5000
    assert conntrack.count() == 15000
    kept = [each for each in everything if (each.destination, each.reply_source) != (frontends[0], endpoints[0])]
    assert unidentified(conntrack.flows()) == set(kept)
    assert conntrack.delete(conntrack.flows(family, "udp", destination=frontends[1])) == 10000
    assert conntrack.count() == 5000


def test_a_namespace_that_is_missing_is_named() -> None:
    """A name that nobody has is an error."""
    with pytest.raises(MissingError, match=r'^network namespace "svcnat-nowhere" does not exist$'):
        Conntrack("svcnat-nowhere")


def test_without_privilege_the_message_says_what_to_do(empty_netns: str) -> None:
    """Whoever may not ask is told so before anything is tried."""
    if Path("/proc/self/uid_map").read_text(encoding="utf-8").split()[2] == "1":
        pytest.skip("this user namespace has no second user to become")
    script = """
import os
from svcnat.errors import PrivilegeError
from svcnat.kernel.conntrack import Conntrack
os.setresuid(65534, 65534, 65534)
try:
    Conntrack()
except PrivilegeError as error:
    print(error)
"""
    with netns.entered(empty_netns):
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "connection tracking: needs root, or CAP_NET_ADMIN in this network namespace\n"

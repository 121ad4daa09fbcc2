"""Flows that no longer go where the rules would send them: found, deleted, and nobody else's."""

from __future__ import annotations

import itertools
import socket
import subprocess
from collections.abc import Callable, Iterator

import msgspec
import pytest

from svcnat.agent.flows import Frontends, NodePorts, clean, stale
from svcnat.kernel import links, netns
from svcnat.kernel.conntrack import Conntrack, Flow
from svcnat.kernel.links import Device, Route, Veth
from svcnat.ruleset.endpoints import Family
from tests.kernel.flows import flow, track

NODE = ("172.30.0.11", "fd00:172:30::b")
FRONTENDS: Frontends = {
    ("ip", "10.96.0.10", "udp", 53): frozenset({("10.244.0.1", 5353), ("10.244.0.2", 5353)}),
    ("ip", "10.96.0.10", "tcp", 53): frozenset({("10.244.0.1", 5353)}),
    ("ip", "10.96.0.11", "udp", 53): frozenset(),
    ("ip", "172.30.0.11", "udp", 514): frozenset({("172.30.0.11", 514), ("10.244.0.1", 514)}),
    ("ip", "172.30.0.11", "udp", 30053): frozenset({("10.244.0.9", 9)}),
    ("ip6", "fd96::10", "udp", 53): frozenset({("fd00:10:244::1", 5353)}),
}
NODE_PORTS: NodePorts = {
    ("ip", "udp", 30053): frozenset({("10.244.0.1", 5353)}),
    ("ip", "udp", 30054): frozenset({("10.244.0.1", 5353)}),
    ("ip", "udp", 30055): frozenset(),
    ("ip6", "udp", 30054): frozenset({("fd00:10:244::1", 5353)}),
}


@pytest.mark.parametrize(
    ("destination", "reply_source", "protocol", "expected"),
    [
        # A frontend with endpoints: address and port decide.
        ("10.96.0.10@53", "10.244.0.1@5353", "udp", False),
        ("10.96.0.10@53", "10.244.0.2@5353", "udp", False),
        ("10.96.0.10@53", "10.244.0.3@5353", "udp", True),
        ("10.96.0.10@53", "10.244.0.1@5354", "udp", True),
        # Never translated: it began while the rules were absent.
        ("10.96.0.10@53", "10.96.0.10@53", "udp", True),
        # Each protocol has its own endpoints.
        ("10.96.0.10@53", "10.244.0.2@5353", "tcp", True),
        ("10.96.0.10@53", "10.244.0.1@5353", "tcp", False),
        ("10.96.0.10@53", "10.244.0.9@9", "sctp", False),
        # The last endpoint has gone: nothing may go on, refusal begins with the next packet.
        ("10.96.0.11@53", "10.244.0.1@5353", "udp", True),
        ("10.96.0.11@53", "10.96.0.11@53", "udp", True),
        # No frontend of ours: another port, another address, another family.
        ("10.96.0.10@54", "10.244.0.3@5353", "udp", False),
        ("10.96.0.12@53", "10.244.0.3@5353", "udp", False),
        ("192.0.2.1@53", "192.0.2.1@53", "udp", False),
        ("fd96::10@53", "fd00:10:244::1@5353", "udp", False),
        ("fd96::10@53", "fd00:10:244::2@5353", "udp", True),
        ("fd96::10@53", "fd96::10@53", "udp", True),
        ("fd96::11@53", "fd00:10:244::2@5353", "udp", False),
        # A frontend that is its own endpoint looks like one that was never translated.
        ("172.30.0.11@514", "172.30.0.11@514", "udp", False),
        ("172.30.0.11@514", "10.244.0.2@514", "udp", True),
        # Node ports, on the node's addresses only.
        ("172.30.0.11@30054", "10.244.0.1@5353", "udp", False),
        ("172.30.0.11@30054", "10.244.0.2@5353", "udp", True),
        ("172.30.0.11@30054", "172.30.0.11@30054", "udp", True),
        ("172.30.0.12@30054", "10.244.0.2@5353", "udp", False),
        ("172.30.0.12@30054", "172.30.0.12@30054", "udp", False),
        ("172.30.0.11@30054", "10.244.0.2@5353", "tcp", False),
        ("172.30.0.11@30055", "10.244.0.1@5353", "udp", True),
        ("172.30.0.11@30056", "10.244.0.2@5353", "udp", False),
        ("fd00:172:30::b@30054", "fd00:10:244::1@5353", "udp", False),
        ("fd00:172:30::b@30054", "fd00:10:244::2@5353", "udp", True),
        ("fd00:172:30::c@30054", "fd00:10:244::2@5353", "udp", False),
        ("fd00:172:30::b@30055", "fd00:10:244::2@5353", "udp", False),
        # An address of the node that is a frontend, too: the rules ask the frontends first.
        ("172.30.0.11@30053", "10.244.0.9@9", "udp", False),
        ("172.30.0.11@30053", "10.244.0.1@5353", "udp", True),
    ],
)
def test_a_flow_is_stale_if_no_serving_endpoint_answers(
    destination: str, reply_source: str, protocol: str, expected: bool
) -> None:
    """Case by case, as semantics and dataplane have it."""
    client = "fd00::1@4000" if destination.startswith("fd") else "192.0.2.10@4000"
    assert stale(flow(client, destination, reply_source, protocol), FRONTENDS, NODE_PORTS, NODE) is expected


def test_every_combination_agrees_with_the_definition() -> None:
    """Over all destinations, ports, protocols and answers: ours, and answered by none of its endpoints."""
    known = {*FRONTENDS.values(), *NODE_PORTS.values()}
    backends = {*itertools.chain(*known), ("10.244.0.3", 1), ("fd00:10:244::2", 1)}
    destinations = {*(key[1] for key in FRONTENDS), *NODE, "192.0.2.1", "2001:db8::1"}
    ports = {*(key[3] for key in FRONTENDS), *(key[2] for key in NODE_PORTS), 1}
    tried = set()
    for destination, port, protocol in itertools.product(destinations, ports, ("tcp", "udp", "sctp")):
        family: Family = "ip6" if ":" in destination else "ip"
        asked = [FRONTENDS.get((family, destination, protocol, port))]
        asked += [NODE_PORTS.get((family, protocol, port))] if destination in NODE else []
        serving = next((each for each in asked if each is not None), None)
        for replier, reply_port in {*backends, (destination, port)}:
            if (":" in replier) != (":" in destination):
                continue
            client = "fd00::1@4000" if family == "ip6" else "192.0.2.10@4000"
            tracked = flow(client, f"{destination}@{port}", f"{replier}@{reply_port}", protocol)
            expected = serving is not None and (replier, reply_port) not in serving
            assert stale(tracked, FRONTENDS, NODE_PORTS, NODE) is expected
            tried.add(expected)
    assert tried == {True, False}


@pytest.fixture
def conntrack(empty_netns: str) -> Iterator[Conntrack]:
    with Conntrack(empty_netns) as opened:
        yield opened


def left(conntrack: Conntrack) -> set[Flow]:
    return {msgspec.structs.replace(each, ident=0) for each in conntrack.flows()}


def crowd() -> list[Flow]:
    """Flows of both families and all protocols, to everything that is known here and to strangers."""
    numbers = itertools.count(1000)
    return [
        flow(f"{client}@{next(numbers)}", f"{destination}@{port}", replier, protocol)
        for client, destinations, repliers in (
            (
                "192.0.2.10",
                ("10.96.0.10", "10.96.0.11", "172.30.0.11", "172.30.0.12", "198.51.100.1"),
                ("10.244.0.1@5353", "10.244.0.3@5353", None),
            ),
            (
                "2001:db8:c::10",
                ("fd96::10", "fd96::11", "fd00:172:30::b", "fd00:172:30::c", "2001:db8::1"),
                ("fd00:10:244::1@5353", "fd00:10:244::2@5353", None),
            ),
        )
        for destination in destinations
        for port in (53, 30053, 30054)
        for replier in repliers
        for protocol in ("tcp", "udp", "sctp")
    ]


@pytest.mark.packets
@pytest.mark.parametrize("protocols", [("udp",), ("tcp",), ("udp", "sctp"), ("tcp", "udp", "sctp")])
@pytest.mark.parametrize("strangers", [0, 30000], ids=["one-look-at-all", "a-question-each"])
def test_clean_deletes_the_stale_and_nobody_else(
    conntrack: Conntrack, empty_netns: str, protocols: tuple[str, ...], strangers: int
) -> None:
    """The same flows go in a small table, and in a large one, where the kernel is asked for each frontend."""
    flows = crowd()
    many = [
        flow(f"198.18.{number // 200}.{number % 200}@{1024 + number}", "203.0.113.1@443") for number in range(strangers)
    ]
    track(empty_netns, flows + many)
    doomed = {each for each in flows if each.protocol in protocols and stale(each, FRONTENDS, NODE_PORTS, NODE)}
    assert doomed
    frontends = {key: serving for key, serving in FRONTENDS.items() if key[2] in protocols}
    node_ports = {key: serving for key, serving in NODE_PORTS.items() if key[1] in protocols}
    assert clean(conntrack, frontends, node_ports, NODE) == len(doomed)
    assert left(conntrack) == {*flows, *many} - doomed
    assert clean(conntrack, frontends, node_ports, NODE) == 0


@pytest.mark.packets
def test_clean_looks_at_the_frontends_given_only(conntrack: Conntrack, empty_netns: str) -> None:
    """What changed is what is asked for; nothing given, or no flow there, is no work."""
    assert clean(conntrack, FRONTENDS, NODE_PORTS, NODE) == 0
    flows = crowd()
    track(empty_netns, flows)
    assert clean(conntrack, {}, {}, NODE) == 0
    assert clean(conntrack, {("ip", "10.96.0.99", "tcp", 53): frozenset()}, {}, NODE) == 0
    assert left(conntrack) == set(flows)
    six = {("ip6", "fd96::10", "udp", 53): FRONTENDS["ip6", "fd96::10", "udp", 53]}
    assert clean(conntrack, six, {}, NODE) == 2
    gone = set(flows) - left(conntrack)
    assert {(each.destination, each.reply_source) for each in gone} == {
        ("fd96::10", "fd00:10:244::2"),
        ("fd96::10", "fd96::10"),
    }


RULES = """
table inet svcnat-test {{
    chain tracked {{ type filter hook output priority -200; ct state new counter; }}
    chain out {{ type nat hook output priority -100; }}
}}
flush chain inet svcnat-test out
add rule inet svcnat-test out ip daddr 10.96.0.10 udp dport 53 dnat ip to 10.9.0.{0}:5353
add rule inet svcnat-test out ip6 daddr fd96::10 udp dport 53 dnat ip6 to [fd09::{0}]:5353
"""


@pytest.mark.packets
@pytest.mark.parametrize(
    ("frontend", "endpoint"), [("10.96.0.10", "10.9.0.{}"), ("fd96::10", "fd09::{}")], ids=["ipv4", "ipv6"]
)
def test_a_client_that_keeps_its_socket_follows_the_service(
    make_netns: Callable[[], str], frontend: str, endpoint: str
) -> None:
    """One UDP socket: begun before the rules, then translated, then moved to the next endpoint; a stranger stays."""
    here, there = make_netns(), make_netns()
    node = Device(
        netns.path(here),
        "eth0",
        ("10.9.0.1/24", "fd09::1/64"),
        (Route("0.0.0.0/0", "10.9.0.2"), Route("::/0", "fd09::2")),
    )
    pods = tuple(
        f"{address}{number}/{prefix}" for number in (2, 3) for address, prefix in (("10.9.0.", 24), ("fd09::", 64))
    )
    links.build([Veth(node, Device(netns.path(there), "eth0", pods))])
    version = socket.AF_INET6 if ":" in frontend else socket.AF_INET
    family: Family = "ip6" if ":" in frontend else "ip"

    def load(number: str) -> None:
        with netns.entered(here):
            subprocess.run(["nft", "-f", "-"], input=RULES.format(number), text=True, check=True)

    with netns.entered(there):
        server = socket.socket(version, socket.SOCK_DGRAM)
    with netns.entered(here):
        client, stranger = socket.socket(version, socket.SOCK_DGRAM), socket.socket(version, socket.SOCK_DGRAM)
        subprocess.run(["nft", "-f", "-"], input=RULES.partition("flush")[0].format(), text=True, check=True)
    with server, client, stranger, Conntrack(here) as conntrack:
        server.bind(("", 5353))
        server.settimeout(5)

        def sent(text: bytes) -> str | None:
            """Which address of the flow's other end is tracked after one more datagram."""
            client.sendto(text, (frontend, 53))
            (mine,) = conntrack.flows(family, "udp", destination=frontend, port=53)
            return mine.reply_source

        stranger.sendto(b"stranger", (endpoint.format(2), 5353))
        assert server.recv(100) == b"stranger"
        assert sent(b"lost") == frontend
        for number in "23":
            load(number)
            before = sent(b"as before")
            assert before != endpoint.format(number)
            if before != frontend:
                assert server.recv(100) == b"as before"
            serving = {(family, frontend, "udp", 53): frozenset({(endpoint.format(number), 5353)})}
            assert clean(conntrack, serving, {}, ()) == 1
            assert sent(b"arrives") == endpoint.format(number)
            assert server.recv(100) == b"arrives"
            assert clean(conntrack, serving, {}, ()) == 0
        assert clean(conntrack, {(family, frontend, "udp", 53): frozenset()}, {}, ()) == 1
        (other,) = conntrack.flows(family, "udp", port=5353)
        assert other.destination == endpoint.format(2)

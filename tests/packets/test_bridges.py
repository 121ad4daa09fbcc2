"""Clients and endpoints on one Linux bridge of the node: what netfilter sees of it, and what the rules make of that.

``net.bridge.bridge-nf-call-iptables`` belongs to a network namespace (Linux 5.3), so each bed has its own.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from svcnat.kernel import netns, sysctl
from svcnat.model.configuration import Configuration
from tests.packets import rows
from tests.packets.cluster import BRIDGE, HOME, NODES, Cluster, temporary_cluster
from tests.packets.journeys import CLUSTER_CIDR, compiled, declare

pytestmark = pytest.mark.packets

SERVICES = declare(
    {
        "web": {"endpoints": ["a1", "b1", "a2"]},
        "alone": {"endpoints": ["a1"]},
        "far": {"endpoints": ["a2"]},
        "local": {"spec": {"externalTrafficPolicy": "Local"}, "endpoints": ["a1", "b1"]},
        "internal": {"spec": {"internalTrafficPolicy": "Local"}, "endpoints": ["a1", "b1"]},
    }
)
PLAIN = compiled(SERVICES)
MASQUERADING = compiled(SERVICES, bridges=(BRIDGE,))
SWITCHED_OFF = compiled(SERVICES, Configuration(cluster_cidr=CLUSTER_CIDR, bridge_masquerade="off"), bridges=(BRIDGE,))

SEEN_BY_NETFILTER = """
c1       | web       | a1 b1 a2            | kept
b1       | web       | a1 b1@node-1 a2     | kept
c2       | web       | a1 b1 a2            | kept
node-1   | web       | a1 b1 a2            | node-1
client   | web       | a1 b1 a2            | node-1
c1       | far       | a2                  | kept
c1       | local/lb  | a1 b1               | kept
client   | local/lb  | a1 b1               | kept
c1       | internal  | a1 b1               | kept
c1       | web/lb    | a1 b1 a2            | node-1
""".strip().splitlines()

OUT_OF_SIGHT = """
c1       | web       | a1@node-1 b1@node-1 a2 | kept
b1       | web       | a1@node-1 b1@node-1 a2 | kept
c2       | web       | a1 b1 a2@node-2     | kept
node-1   | web       | a1 b1 a2            | node-1
client   | web       | a1 b1 a2            | node-1
c1       | far       | a2                  | kept
c1       | local/lb  | a1 b1               | node-1
client   | local/lb  | a1 b1               | kept
c1       | internal  | a1 b1               | node-1
c1       | web/lb    | a1 b1 a2            | node-1
""".strip().splitlines()


def parametrized(lines: list[str]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("row", list(rows.parse(lines)), ids=lambda row: row.name)


@pytest.fixture(scope="module")
def unseen() -> Iterator[Cluster]:
    """Bridges whose traffic netfilter does not see: bridge-nf-call-iptables 0."""
    with temporary_cluster(bridged=True) as made:
        yield made


@pytest.fixture(scope="module")
def seen() -> Iterator[Cluster]:
    """Bridges whose traffic netfilter sees: bridge-nf-call-iptables 1; their ports may send back where it came from."""
    with temporary_cluster(PLAIN, bridged=True, bridge_calls_iptables=1) as made:
        for pod, node in HOME.items():
            made.run(node, "ip", "link", "set", f"pod-{pod}", "type", "bridge_slave", "hairpin", "on")
        yield made


@parametrized(OUT_OF_SIGHT)
def test_interpreter(row) -> None:
    """Who comes and goes by one bridge is masqueraded, nobody else for that."""
    rows.check_interpreter(row, SERVICES, MASQUERADING, bridged=True)


@parametrized(OUT_OF_SIGHT)
def test_out_of_sight(row, unseen) -> None:
    """bridge-nf-call-iptables 0: answers between ports of the bridge come back, because the node asked."""
    if unseen.rules is not MASQUERADING:
        unseen.program(MASQUERADING)
    rows.check_kernel(row, SERVICES, unseen)


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("rules", [PLAIN, SWITCHED_OFF], ids=["unknown", "bridgeMasquerade-off"])
def test_without_masquerade_answers_go_astray(unseen, rules, version) -> None:
    """What bridgeMasquerade is for: without it a neighbour on the bridge never gets its answer.

    The endpoint sees the client, answers it on the bridge, and the client knows nothing of that endpoint.
    """
    unseen.program(rules)
    address, port = SERVICES["internal"].address("", version)
    assert unseen.probe("c1", address, port, "TCP").what == "silence"
    reached = unseen.probe("c1", address, port, "UDP", answered=False)
    assert reached.what == "reached"
    assert not reached.moved
    unseen.program(MASQUERADING)
    assert unseen.probe("c1", address, port, "TCP").what == "reached"


@parametrized(SEEN_BY_NETFILTER)
def test_seen_by_netfilter(row, seen) -> None:
    """bridge-nf-call-iptables 1: the answers are translated on the bridge, so the endpoints see the client."""
    rows.check_kernel(row, SERVICES, seen)


@pytest.mark.parametrize("version", [4, 6])
def test_a_hairpin_needs_the_ports_hairpin_mode(seen, version) -> None:
    """What netfilter sees and translates is still bridged: only hairpin mode lets it out by the port it came in by.

    The kubelet's hairpin-mode exists for this; where netfilter does not see the bridge, the packet is routed.
    """
    address, port = SERVICES["alone"].address("", version)
    seen.run("node-1", "ip", "link", "set", "pod-a1", "type", "bridge_slave", "hairpin", "off")
    assert seen.probe("a1", address, port, "TCP").what == "silence"
    seen.run("node-1", "ip", "link", "set", "pod-a1", "type", "bridge_slave", "hairpin", "on")
    assert seen.probe("a1", address, port, "TCP").what == "reached"


@parametrized(SEEN_BY_NETFILTER)
def test_masquerading_for_nothing_does_no_harm(row, seen) -> None:
    """A bridge that netfilter does see may be named all the same: its flows come from no device there."""
    if seen.rules is not MASQUERADING:
        seen.program(MASQUERADING)
    rows.check_kernel(row, SERVICES, seen)


@pytest.mark.parametrize(("bed", "value"), [("unseen", "0"), ("seen", "1")])
def test_the_setting_is_the_namespaces_own(bed, value, request) -> None:
    """The tests above are about what they say: each node has its own value, and so has the machine."""
    cluster = request.getfixturevalue(bed)
    for node in NODES:
        with netns.entered(cluster.netns(node)):
            assert sysctl.read("net/bridge/bridge-nf-call-iptables") == value

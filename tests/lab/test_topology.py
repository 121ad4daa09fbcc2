"""Topology files and the address plan: defaults that work, and every mistake located."""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from svcnat.errors import ExhaustedError, LabError, ManifestError
from svcnat.lab import addressing, names, topology
from svcnat.lab.addressing import Addresses, Ranges, next_pod
from svcnat.lab.impairments import PERFECT, Link
from svcnat.lab.topology import Bridge, Declaration
from svcnat.lab.topology_file import find

HEAD = "apiVersion: svcnat.io/v1alpha1\nkind: Topology\n"
CLUSTER = Ranges(IPv4Network("10.244.0.0/16"), IPv6Network("fd00:10:244::/56"))


def test_without_a_file_there_is_one_node_and_one_client() -> None:
    """The default plan, which the documentation shows."""
    plan = find([])
    assert plan == topology.simple()
    (node,), (client,) = plan.nodes, plan.clients
    assert (node.name, node.addresses) == ("node-1", Addresses("172.30.0.11", "fd00:172:30::b"))
    assert str(node.pods) == "10.244.0.0/24,fd00:10:244::/64"
    assert (client.name, client.addresses) == ("client", Addresses("192.0.2.11", "2001:db8:c::b"))
    assert str(plan.services) == "10.96.0.0/12,fd00:10:96::/112"


def test_a_file_says_what_differs() -> None:
    """Ranges of one family, names, labels and counts; the rest keeps its default; other documents are passed over."""
    text = (
        "kind: Service\n---\n" + HEAD + "clusterCIDR: 10.1.0.0/16\nclients: 2\n"
        "nodes:\n- name: a\n  labels: {zone: east}\n- name: b\n  podCIDRs: [10.1.200.0/24]\n"
    )
    plan = find([("other.yaml", b"kind: Pod\n"), ("lab.yaml", text.encode())])
    assert str(plan.cluster) == "10.1.0.0/16,fd00:10:244::/56"
    assert [(node.name, str(node.pods), node.labels) for node in plan.nodes] == [
        ("a", "10.1.0.0/24,fd00:10:244::/64", {"zone": "east"}),
        ("b", "10.1.200.0/24,fd00:10:244:1::/64", {}),
    ]
    assert [client.name for client in plan.clients] == ["client", "client-2"]
    assert topology.plan(plan.declaration) == plan


def test_links_and_bridges() -> None:
    """Latency and loss of each link, a bridge that pods share, and how long the control plane waits."""
    text = (
        HEAD + "clients: [{}, {latency: 1.5s, loss: 0.25%}]\nnodeMonitorGraceSeconds: 2\npodEvictionSeconds: 0.5\n"
        "nodes: [{name: a, latency: 250us, bridge: pods0, bridgeNfCallIptables: true}, {name: b, bridge: b},\n"
        "  {name: c}]\n"
    )
    plan = find([("lab.yaml", text.encode())])
    assert [client.link for client in plan.clients] == [PERFECT, Link(1.5, 0.0025)]
    assert [node.link for node in plan.nodes] == [Link(0.00025), PERFECT, PERFECT]
    assert [node.bridge for node in plan.nodes] == [Bridge("pods0", True), Bridge("b", False), None]
    assert (plan.monitor_grace, plan.pod_eviction) == (2.0, 0.5)
    assert topology.plan(plan.declaration) == plan


def test_json_is_taken_too() -> None:
    """Manifests may be JSON; so may topologies."""
    assert (
        len(find([("lab.json", b'{"apiVersion": "svcnat.io/v1alpha1", "kind": "Topology", "clients": 3}')]).clients)
        == 3
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nods: []\n", 'lab.yaml:3: Topology: nods: unknown field: did you mean "nodes"?'),
        (
            "clients: many\n",
            'lab.yaml:3: Topology: clients: Invalid value: "many": must be a number, or a list',
        ),
        ("clients: [{}, 3]\n", "lab.yaml:3: Topology: clients[1]: Invalid value: 3: must be an object"),
        (
            "clients:\n- latancy: 1ms\n",
            "lab.yaml:4: Topology: clients[0].latancy: unknown field: did you",
        ),
        ("clients:\n- latency: 20\n", "lab.yaml:4: Topology: clients[0].latency: Invalid value: 20: must be a time of"),
        (
            "clients:\n- latency: 11s\n",
            'lab.yaml:4: Topology: clients[0].latency: Invalid value: "11s": must be a',
        ),
        (
            "clients:\n- {}\n- loss: 101%\n",
            'lab.yaml:5: Topology: clients[1].loss: Invalid value: "101%": must be a',
        ),
        ("nodes: [{name: a, loss: [1]}]\n", "lab.yaml:3: Topology: nodes[0].loss: Invalid value: [1]: must be a share"),
        ("nodes: [{name: a, bridge: eth0}]\n", 'lab.yaml:3: Topology: nodes[0].bridge: Invalid value: "eth0": must be'),
        ("nodes: [{name: a, bridge: all}]\n", 'lab.yaml:3: Topology: nodes[0].bridge: Invalid value: "all": must be'),
        ("nodes: [{name: a, bridgeNfCallIptables: true}]\n", "lab.yaml:3: Topology: nodes[0].bridge: Required value"),
        (
            "podEvictionSeconds: soon\n",
            'lab.yaml:3: Topology: podEvictionSeconds: Invalid value: "soon": must be',
        ),
        (
            "nodeMonitorGraceSeconds: -1\n",
            "lab.yaml:3: Topology: nodeMonitorGraceSeconds: Invalid value: -1: must",
        ),
        ("bridgeMasquerade: maybe\n", 'lab.yaml:3: Topology: bridgeMasquerade: Unsupported value: "maybe"'),
        ("clients: -1\n", "lab.yaml:3: Topology: clients: Invalid value: -1: must be between 0 and 100, inclusive"),
        (
            "\nclusterCIDR: 10.0.0.0\n",
            'lab.yaml:4: Topology: clusterCIDR: Invalid value: "10.0.0.0": must be an IPv4 or IPv6 range, as 10.244',
        ),
        (
            "clusterCIDR: 10.1.0.0/16,10.2.0.0/16\n",
            'lab.yaml:3: Topology: clusterCIDR: Invalid value: "10.2.0.0/16": there can be one range of each family',
        ),
        (
            "serviceCIDR: 10.244.3.0/24\n",
            'lab.yaml:3: Topology: serviceCIDR: Invalid value: "10.244.3.0/24": overlaps 10.244.0.0/16 of clusterCIDR',
        ),
        ("nodes:\n- labels: {}\n", "lab.yaml:4: Topology: nodes[0].name: Required value"),
        (
            "nodes:\n- name: client-3\n",
            "lab.yaml:4: Topology: nodes[0].name: Forbidden: client-3 is what the lab calls its router, lines or",
        ),
        ("nodes:\n- name: a\n- name: a\n", 'lab.yaml:5: Topology: nodes[1].name: Duplicate value: "a"'),
        (
            "nodes:\n- name: a.b\n",
            'lab.yaml:4: Topology: nodes[0].name: Invalid value: "a.b": must be lower-case letters, digits and -',
        ),
        (
            "nodes:\n- name: a\n  podCIDRs: [10.9.0.0/24]\n",
            'lab.yaml:5: Topology: nodes[0].podCIDRs: Invalid value: "10.9.0.0/24,fd00:10:244::/64": '
            "must be parts of clusterCIDR 10.244.0.0/16,fd00:10:244::/56",
        ),
        (
            "nodes:\n- name: a\n- name: b\n  podCIDRs: [10.244.0.0/25]\n",
            'lab.yaml:6: Topology: nodes[1].podCIDRs: Invalid value: "10.244.0.0/25": '
            "overlaps 10.244.0.0/24 of nodes[0].podCIDRs",
        ),
        (
            "clusterCIDR: 10.1.0.0/24\nnodes: [{name: a}, {name: b}]\n",
            "lab.yaml:4: Topology: nodes[1]: clusterCIDR 10.1.0.0/24,fd00:10:244::/56 has room for the pods of 1 "
            "nodes: give it a shorter prefix",
        ),
        (
            "nodeCIDR: 10.2.0.0/28\nnodes: [{name: a}, {name: b}, {name: c}, {name: d}, {name: e}]\n",
            "lab.yaml:4: Topology: nodes[4]: 10.2.0.0/28,fd00:172:30::/64 has no address for 5 nodes or clients",
        ),
        ("clients: 1\nclients: 2\n", "lab.yaml:4: Topology: clients: "),
    ],
)
def test_mistakes_are_located(text: str, message: str) -> None:
    """One line with file, line, field and what is wrong."""
    with pytest.raises(ManifestError) as caught:
        find([("lab.yaml", (HEAD + text).encode())])
    assert any(line.startswith(message) for line in str(caught.value).splitlines()), str(caught.value)


def test_every_mistake_is_told_at_once() -> None:
    """Nobody has to fix them one by one."""
    with pytest.raises(ManifestError) as caught:
        find([("lab.yaml", (HEAD + "nods: []\nclients: x\nnodes: [{name: A}, {name: router}]\n").encode())])
    assert len(caught.value.findings) == 4


def test_a_lab_has_one_topology() -> None:
    """A second one is an error that names the first, also in a list."""
    with pytest.raises(ManifestError, match=r"b.yaml:1: Topology: a lab has one topology: the first is at a.yaml:1"):
        find([("a.yaml", HEAD.encode()), ("b.yaml", HEAD.encode())])
    listed = (
        b"apiVersion: v1\nkind: List\nitems:\n"
        + b"- {apiVersion: svcnat.io/v1alpha1, kind: Topology, clients: 3}\n" * 2
    )
    with pytest.raises(ManifestError, match=r"a.yaml:5: Topology: a lab has one topology: the first is at a.yaml:4"):
        find([("a.yaml", listed)])
    assert len(find([("a.yaml", listed.rpartition(b"- ")[0])]).clients) == 3
    with pytest.raises(ManifestError, match=r"topology: nodes\[0\].name: Required value"):
        topology.plan(Declaration(nodes=[topology.NodeDeclaration()]))


def test_files_beside_a_topology(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Words of commands that begin with ./ are paths in its folder, also when it is planned again; no others are."""
    text = f"{HEAD}images: {{a: ./run --file=./x ./a.conf ../up . x/y, b: [sh, -c, './no such'], c: ''}}\n".encode()
    found = find([(str(tmp_path / "lab.yaml"), text)])
    assert found.images == {
        "a": (f"{tmp_path}/run", "--file=./x", f"{tmp_path}/a.conf", "../up", ".", "x/y"),
        "b": ("sh", "-c", f"{tmp_path}/no such"),
        "c": (),
    }
    assert topology.plan(found.declaration) == found
    monkeypatch.chdir(tmp_path)
    assert find([("lab.yaml", text)]) == find([("<stdin>", text)]) == found


@given(st.integers(20, 30), st.data())
def test_pod_addresses_come_round_last(prefix: int, data: st.DataObject) -> None:
    """No address in use is given again, none is network, broadcast or .1, and a freed one waits for all the others."""
    pods = Ranges(IPv4Network(f"10.244.0.0/{prefix}"), IPv6Network("fd00:10:244::/64"))
    usable = pods.v4.num_addresses - 3
    start = data.draw(st.integers(0, usable - 1))
    cursor, given_out = start, []
    for _ in range(min(usable, 50)):
        addresses, cursor = next_pod(pods, cursor, ())
        given_out.append(addresses)
    assert len({each.v4 for each in given_out}) == len({each.v6 for each in given_out}) == len(given_out)
    assert not {each.v4 for each in given_out} & {"10.244.0.0", "10.244.0.1", str(pods.v4[-1])}
    used = {each.v4 for each in given_out}
    if usable > len(given_out):
        assert next_pod(pods, start, used)[0].v4 not in used
    else:
        assert next_pod(pods, cursor, ())[0] == given_out[0]
        with pytest.raises(ExhaustedError):
            next_pod(pods, cursor, used)


def test_the_ranges_of_nodes_are_parts_of_the_cluster_s() -> None:
    """The next /24 and /64 for each node, until there are no more."""
    assert [str(addressing.pods_of(CLUSTER, position)) for position in (0, 1, 255)] == [
        "10.244.0.0/24,fd00:10:244::/64",
        "10.244.1.0/24,fd00:10:244:1::/64",
        "10.244.255.0/24,fd00:10:244:ff::/64",
    ]
    with pytest.raises(LabError, match="room for the pods of 256 nodes"):
        addressing.pods_of(CLUSTER, 256)


def test_namespace_names_are_a_contract() -> None:
    """Scripts may rely on them; over-long ones stay unique, and within what a file name may have."""
    assert names.member("demo", "node-1") == "svcnat.demo.node-1"
    assert names.member("demo", names.client(1)) == "svcnat.demo.client"
    assert names.member("demo", names.client(2)) == "svcnat.demo.client-2"
    assert names.pod("demo", "default", "web-0") == "svcnat.demo.default.web-0"
    long = [names.pod("d" * 63, "n" * 63, "p" * 252 + end) for end in "ab"]
    assert long[0] != long[1]
    assert all(len(each) <= 255 and each.startswith(f"svcnat.{'d' * 63}.{'n' * 63}.p") for each in long)
    assert names.lab_of("svcnat.demo.default.web-0") == "demo"
    assert [names.lab_of(other) for other in ("demo", "svcnat.", "svcnat.demo", "svcnat-bed-1-node", "svcnat..x")] == [
        None
    ] * 5

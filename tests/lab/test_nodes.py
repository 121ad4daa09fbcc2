"""Nodes that are switched off, cut off, and come back: what packets see, and what the control plane makes of it."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from random import Random

import pytest
from msgspec.structs import replace

from svcnat.errors import LabError
from svcnat.kernel import netns
from svcnat.lab import names, nodes, state
from svcnat.model.objects import Event, Node, Pod
from svcnat.testing.lab import LabFixture
from tests.agents import until
from tests.lab.conftest import namespaces_of

pytestmark = pytest.mark.packets

THREE = """
apiVersion: svcnat.io/v1alpha1
kind: Topology
nodes: [{name: node-1}, {name: node-2}, {name: node-3}]
%s
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: web}, ports: [{port: 80}], ipFamilyPolicy: PreferDualStack}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 6
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec: {containers: [{name: web, image: web, ports: [{containerPort: 80}]}]}
"""


@pytest.fixture
def three(runtime) -> Iterator[LabFixture]:
    lab = LabFixture()
    try:
        yield lab
    finally:
        lab.close()
        assert not namespaces_of(lab.name)


def pods_on(lab: LabFixture, node: str) -> set[str]:
    with lab.lab.read() as snapshot:
        return {pod.metadata.name for pod in snapshot.list(Pod, "default") if pod.spec.node_name == node}


def asked(lab: LabFixture, family: int = 4) -> set[str]:
    """The pods that answer; every request must be answered."""
    return set(lab.flows(60, to="web", family=family).pods)


def test_a_node_without_power(three: LabFixture) -> None:
    """stop: the node and its pods are unready, and services go on at once; start: they are back, at other addresses."""
    three.apply(THREE % "")
    node, mine = three.node("node-2"), pods_on(three, "node-2")
    before = {pod: three.pod(pod).address for pod in mine}
    assert len(mine) == 2
    node.stop()
    assert not node.ready
    assert not netns.exists(names.member(three.name, "node-2"))
    assert {each.pod for each in three.endpoints("web") if not each.ready} == mine
    for family in (4, 6):
        assert len(asked(three, family)) == 4
        assert not asked(three, family) & mine
    with pytest.raises(LabError, match="is off: `svcnat --lab"):
        node.run(["true"])
    assert pods_on(three, "node-2") == mine  # not evicted yet: that takes five minutes
    with three.lab.read() as snapshot:
        lost = snapshot.get(Node, "", "node-2")
        pod = snapshot.get(Pod, "default", min(mine))
    assert lost is not None
    assert pod is not None
    assert [(each.status, each.reason) for each in lost.status.conditions] == [("Unknown", "NodeStatusUnknown")]
    assert pod.status.phase == "Running"
    node.start()
    assert node.ready
    assert asked(three) == asked(three, 6) == {each.pod for each in three.endpoints("web")}
    assert not {three.pod(pod).address for pod in mine} & set(before.values())
    with three.lab.read() as snapshot:
        restarted = snapshot.get(Pod, "default", min(mine))
    assert restarted is not None
    assert [each.restart_count for each in restarted.status.container_statuses] == [1]
    assert three.flows(20, to="web", from_="node-2").pods  # it has its rules again


def test_connections_hang_when_the_power_goes(three: LabFixture) -> None:
    """Nobody says goodbye: a client of a pod on a node that goes sees neither a reset nor an end."""
    three.apply(THREE % "")
    victim = min(pods_on(three, "node-2"))
    with three.client.socket(f"{victim}:80", patience=5) as held:
        held.sendall(b"GET / HTTP/1.1\r\nHost: web\r\n\r\n")  # a client that says nothing has an answer after a while
        answer = b""
        while victim.encode() not in answer:
            answer += held.recv(1000)
        held.settimeout(0.5)
        three.node("node-2").stop()
        with pytest.raises(TimeoutError):
            held.recv(1)


def test_the_router_is_known_by_one_address(three: LabFixture) -> None:
    """Whichever node goes, the others and the clients go on sending to the same router, and find it there."""
    three.apply(THREE % "")

    def known() -> dict[str, str]:
        found = three.at("router").run(["ip", "-json", "link", "show", "type", "bridge"]).stdout
        return {each["ifname"]: each["address"] for each in json.loads(found)}

    before = known()
    for name in ("node-1", "node-2", "node-3"):
        three.node(name).stop()
        assert known() == before
        assert asked(three, 6)
        three.node(name).start()
        assert known() == before


def test_pods_are_made_again_elsewhere(three: LabFixture) -> None:
    """After podEvictionSeconds the pods of a lost node go, and the Deployment has others elsewhere, by itself."""
    three.apply(THREE % "podEvictionSeconds: 0.5")
    mine = pods_on(three, "node-1")
    three.node("node-1").stop()
    until(lambda: not pods_on(three, "node-1"), "what follows from a lost node")
    until(lambda: len([each for each in three.endpoints("web") if each.ready]) == 6, "what follows from a lost node")
    three.wait()
    # The first node was the way in for clients: the next one is.
    assert not asked(three) & mine
    assert len(asked(three)) == 6
    three.node("node-1").start()
    assert not pods_on(three, "node-1")
    assert {each.partition(".")[0] for each in netns.names() if any(pod in each for pod in mine)} == set()


def test_names_go_on(three: LabFixture) -> None:
    """The pod that answers names is made elsewhere at once when its node is lost."""
    three.apply(THREE % "", ready=True)
    with three.lab.read() as snapshot:
        (server,) = snapshot.list(Pod, "kube-system")
    asking = min(pods_on(three, "node-1" if server.spec.node_name != "node-1" else "node-2"))
    ask = ["getent", "hosts", "web"]
    three.wait(lambda: not three.pod(asking).run(ask, check=False).returncode, what="an answer")
    three.node(server.spec.node_name).stop()
    three.wait(lambda: not three.pod(asking).run(ask, check=False).returncode, what="an answer from elsewhere")


def test_what_happens_is_told(three: LabFixture) -> None:
    """Events tell of nodes that are lost and come back, of their pods, and of evictions."""
    three.apply(THREE % "podEvictionSeconds: 0")
    three.node("node-2").stop()
    until(lambda: not pods_on(three, "node-2"), "evictions")
    three.node("node-2").start()
    with three.lab.read() as snapshot:
        told = {(each.involved_object.kind, each.reason) for each in snapshot.list(Event)}
    assert told >= {("Node", "NodeNotReady"), ("Node", "NodeReady"), ("Pod", "TaintManagerEviction")}


def test_nobody_notices_before_the_grace_is_over(three: LabFixture) -> None:
    """nodeMonitorGraceSeconds: until then the node is Ready, and requests to its pods are lost; then it is not."""
    three.apply(THREE % "nodeMonitorGraceSeconds: 3")
    mine = pods_on(three, "node-3")
    node = three.node("node-3")
    began = time.monotonic()
    node.stop()
    flows = three.flows(12, to="web", strict=False, patience=0.1)
    if time.monotonic() - began < 2.5:
        assert node.ready
        assert not set(flows.pods) & mine
    until(lambda: not node.ready, "what follows from a lost node")
    three.wait()
    assert not asked(three) & mine


def test_a_partition_and_its_end(three: LabFixture) -> None:
    """A node that is cut off lives, but neither side hears the other; when it heals, the same pods go on."""
    three.apply(THREE % "")
    node, mine = three.node("node-2"), pods_on(three, "node-2")
    addresses = {pod: three.pod(pod).address for pod in mine}
    node.partition()
    assert not node.ready
    assert not asked(three) & mine
    one = f"{min(mine)}:80"
    for who in ("client", "node-1", "node-3", "router"):
        with pytest.raises(OSError, match="asked"):
            three.connect(one, from_=who, patience=0.2)
    assert three.connect(one, from_="node-2").pod == min(mine)
    assert three.connect(f"{max(mine)}:80", from_=min(mine)).pod == max(mine)
    node.heal()
    assert node.ready
    assert {pod: three.pod(pod).address for pod in mine} == addresses
    assert asked(three) == {each.pod for each in three.endpoints("web") if each.ready}
    assert len(asked(three)) == 6


def test_a_partition_between_two_nodes(three: LabFixture) -> None:
    """Where the control plane hears both sides, nothing becomes unready: only packets between them are lost."""
    three.apply(THREE % "")
    one, other = three.node("node-1"), three.node("node-2")
    one.partition(other)
    assert one.ready
    assert other.ready
    pod = f"{min(pods_on(three, 'node-2'))}:80"
    with pytest.raises(OSError, match="asked"):
        one.connect(pod, patience=0.2)
    assert three.connect(pod, from_="node-3").pod
    assert three.connect(pod, from_="client").pod
    other.heal()
    assert one.connect(pod).pod


def test_a_client_that_cannot_reach_a_node(three: LabFixture) -> None:
    """A partition may be between a node and a client, whose packets the router carries from bridge to bridge."""
    three.apply(THREE % "clients: 2")
    pod = f"{min(pods_on(three, 'node-2'))}:80"
    three.node("node-2").partition("client-2")
    with pytest.raises(OSError, match="asked"):
        three.connect(pod, from_="client-2", patience=0.2)
    assert three.connect(pod, from_="client").pod
    three.lab.heal()
    assert three.connect(pod, from_="client-2").pod


def test_evicted_pods_live_on_where_nobody_is_heard(three: LabFixture) -> None:
    """The kubelet of a node that is cut off cannot hear that its pods were deleted: they end when it can."""
    three.apply(THREE % "podEvictionSeconds: 0")
    mine = pods_on(three, "node-2")
    three.node("node-2").partition()
    until(lambda: not pods_on(three, "node-2"), "what follows from a lost node")
    three.lab.follow()
    there = {each for each in netns.names() for pod in mine if each == names.pod(three.name, "default", pod)}
    assert len(there) == 2
    three.node("node-2").heal()
    assert not there & set(netns.names())
    assert len(asked(three)) == 6


def test_lost_nodes_survive_the_agent(three: LabFixture) -> None:
    """An agent that starts while a node is off begins without it, and has its rules made when it comes back."""
    three.apply(THREE % "")
    three.node("node-2").stop()
    agent = state.read(three.built.folder).agent
    assert agent is not None
    os.kill(agent.pid, signal.SIGKILL)
    three.apply(THREE % "")
    assert len(asked(three)) == 4
    three.node("node-2").start()
    assert three.flows(20, to="web", from_="node-2").pods


def test_what_was_begun_is_finished(three: LabFixture) -> None:
    """A command that dies when it has written down what is to be is caught up by the lab itself, both ways."""
    three.apply(THREE % "")
    mine = pods_on(three, "node-2")
    nodes.stop(three.built, ["node-2"])
    until(lambda: not netns.exists(names.member(three.name, "node-2")), "the end of a node")
    until(lambda: {each.pod for each in three.endpoints("web") if not each.ready} == mine, "its pods' unreadiness")
    nodes.start(three.built, ["node-2"])
    until(lambda: all(each.ready for each in three.endpoints("web")), "its return")
    three.lab.follow()
    assert asked(three) >= mine


def test_a_node_that_was_half_built(three: LabFixture) -> None:
    """A command that is killed while it builds a node again leaves one without links: the next builds it anew."""
    three.apply(THREE % "")
    three.node("node-2").stop()
    folder = three.built.folder
    with state.locked(folder):
        netns.create(names.member(three.name, "node-2"))
        state.write(folder, replace(state.read(folder), off=(), silent={}, unfinished=("node-2",)))
    three.lab.follow()
    until(lambda: all(each.ready for each in three.endpoints("web")), "its return")
    three.lab.follow()
    assert asked(three) == {each.pod for each in three.endpoints("web")}
    assert not state.read(folder).unfinished


@pytest.mark.parametrize("node", ["node-1", "node-2"])  # the way in, and another one
def test_a_node_whose_namespace_somebody_deletes(three: LabFixture, node: str) -> None:
    """The lab finds out by itself, and all that was on the node is made again, as after a power cut."""
    three.apply(THREE % "")
    member, mine = names.member(three.name, node), pods_on(three, node)
    before = {pod: three.pod(pod).address for pod in mine}
    netns.delete(member)
    until(lambda: netns.exists(member), "the node")
    three.lab.follow()
    until(lambda: all(each.ready for each in three.endpoints("web")), "its pods")
    three.lab.follow()
    assert pods_on(three, node) == mine
    assert not {three.pod(pod).address for pod in mine} & set(before.values())
    assert asked(three) == asked(three, 6) == {each.pod for each in three.endpoints("web")}
    assert three.flows(20, to="web", from_=node).pods  # it has its rules again
    for pod in mine:
        assert three.flows(5, to="web", from_=pod).pods


def test_every_node_is_off(three: LabFixture) -> None:
    """Nothing is left to place pods on, and yet objects can be changed, and nodes come back one by one."""
    three.apply(THREE % "")
    three.lab.stop_nodes("node-1", "node-2", "node-3")
    three.apply("{apiVersion: v1, kind: Pod, metadata: {name: late}, spec: {containers: [{name: c, image: i}]}}")
    with three.lab.read() as snapshot:
        late = snapshot.get(Pod, "default", "late")
    assert late is not None
    assert late.status.phase == "Pending"
    assert three.lab.start_nodes("node-3", "node-3") == ("node-3",)
    assert three.pod("late").address
    assert asked(three) == pods_on(three, "node-3") - {"late"}


def test_a_node_that_is_deleted_registers_again(three: LabFixture) -> None:
    """It lives, and says so; one that is off does when it is started. Else nobody would ever judge it again."""
    three.apply(THREE % "")
    three.lab.delete([(Node, "", "node-2")])
    three.wait(lambda: three.node("node-2").ready, what="node-2 to register")
    three.node("node-2").stop()
    three.lab.delete([(Node, "", "node-2")])
    three.node("node-2").start()
    assert three.node("node-2").ready
    assert len(asked(three)) == 6


def test_whatever_happened(three: LabFixture) -> None:
    """After each of many stops, partitions and their ends, what is said and done follows from what is off and cut."""
    three.apply(THREE % "")
    # This one cuts nodes that are off, switches on nodes that are cut off, and has every node silent at times.
    random, known = Random(25), ["node-1", "node-2", "node-3"]
    off: set[str] = set()
    cuts: list[set[str]] = []
    for _ in range(6):
        some = random.sample(known, random.choice([1, 2]))
        match random.choice(["stop", "start", "partition", "heal"]):
            case "stop":
                three.lab.stop_nodes(*some)
                off |= {*some}
            case "start":
                three.lab.start_nodes(*some)
                off -= {*some}
            case "partition":
                three.lab.partition(*some)
                cuts.append({*some})
            case "heal":
                three.lab.heal(*some)
                cuts = [cut - {*some} for cut in cuts]
        silent = off.union(*cuts)
        assert {name for name in known if not three.node(name).ready} == silent
        assert {name for name in known if not netns.exists(names.member(three.name, name))} == off
        expected = {pod for name in known if name not in silent for pod in pods_on(three, name)}
        assert {each.pod for each in three.endpoints("web") if each.ready} == expected
        for family in (4, 6):
            assert not expected or asked(three, family) <= expected
    three.lab.heal()
    three.lab.start_nodes(*known)
    assert asked(three) == asked(three, 6) == {each.pod for each in three.endpoints("web") if each.ready}
    assert len(asked(three)) == 6
    record = state.read(three.built.folder)
    assert (record.off, record.cuts, record.silent) == ((), (), {})


def test_cordoned_nodes_get_no_new_pods(three: LabFixture) -> None:
    """cordon: what is there stays, what is new goes elsewhere; uncordon: it is as before."""
    three.apply(THREE % "")
    node, mine = three.node("node-1"), pods_on(three, "node-1")
    node.cordon()
    three.kill(*mine)
    assert not pods_on(three, "node-1")
    node.uncordon()
    three.kill(*pods_on(three, "node-2"))
    assert pods_on(three, "node-1")


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (lambda lab: lab.stop_nodes("nope"), "has no node 'nope': it has node-1, node-2, node-3"),
        (lambda lab: lab.stop_nodes("client"), "has no node 'client'"),
        (lambda lab: lab.partition("node-1", others=["node-1"]), "node-1 cannot be on both sides"),
        (lambda lab: lab.partition("node-1", others=["nope"]), "has no node or client 'nope'"),
        (lambda lab: lab.heal("nope"), "has no node or client 'nope'"),
    ],
)
def test_mistakes(three: LabFixture, act, message) -> None:
    """What is not there is said, and nothing is changed."""
    three.apply(THREE % "")
    before = state.read(three.built.folder)
    with pytest.raises(LabError, match=message):
        act(three.lab)
    assert state.read(three.built.folder) == before

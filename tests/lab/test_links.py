"""Links with latency and loss, and pods that share a bridge: what packets see of what a topology says."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from svcnat.kernel import links, netns, sysctl
from svcnat.lab import network, process, state
from svcnat.testing.lab import LabFixture
from tests.agents import until
from tests.lab.conftest import namespaces_of

pytestmark = pytest.mark.packets

FAR = """
apiVersion: svcnat.io/v1alpha1
kind: Topology
nodes: [{name: node-1}, {name: node-2, latency: 30ms}]
clients: [{}, {latency: 60ms}]
---
apiVersion: v1
kind: Pod
metadata: {name: one}
spec: {nodeName: node-1, containers: [{name: c, image: i, ports: [{containerPort: 80}]}]}
---
apiVersion: v1
kind: Pod
metadata: {name: two}
spec: {nodeName: node-2, containers: [{name: c, image: i, ports: [{containerPort: 80}]}]}
"""

BRIDGED = """
apiVersion: svcnat.io/v1alpha1
kind: Topology
bridgeMasquerade: "%s"
nodes: [{name: unseen, bridge: br0}, {name: seen, bridge: br0, bridgeNfCallIptables: true}]
---
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: web}
spec:
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec: {containers: [{name: c, image: i, ports: [{containerPort: 80}]}]}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: web}, ports: [{port: 80}], ipFamilyPolicy: PreferDualStack, internalTrafficPolicy: Local}
---
apiVersion: v1
kind: Pod
metadata: {name: ask-unseen}
spec: {nodeName: unseen, containers: [{name: c, image: i}]}
---
apiVersion: v1
kind: Pod
metadata: {name: ask-seen}
spec: {nodeName: seen, containers: [{name: c, image: i}]}
"""


@pytest.fixture
def lab(runtime) -> Iterator[LabFixture]:
    made = LabFixture()
    try:
        yield made
    finally:
        made.close()
        assert not namespaces_of(made.name)


def quickest(lab: LabFixture, who: str, to: str) -> float:
    """The shortest time of a connection, of a few: what the way there takes, whatever else the machine does."""
    taken = []
    for _ in range(4):
        began = time.monotonic()
        with lab.at(who).socket(to, patience=10):
            taken.append(time.monotonic() - began)
    return min(taken)


def test_latency_adds_up_along_the_way(lab: LabFixture) -> None:
    """Every packet takes its link's latency in each direction, and never less; other links have none of it."""
    lab.apply(FAR)
    for family in ("one", lab.pod("one").addresses[1]):
        where = f"[{family}]:80" if ":" in family else f"{family}:80"
        assert quickest(lab, "client-2", where) >= 0.12
    assert quickest(lab, "client-2", "two:80") >= 0.18
    assert quickest(lab, "client", "two:80") >= 0.06
    assert quickest(lab, "node-1", "two:80") >= 0.06
    assert quickest(lab, "node-1", "one:80") < quickest(lab, "client-2", "one:80")


def test_large_answers_come_by_a_long_line(lab: LabFixture) -> None:
    """What the kernel puts together for speed (segments, checksums) arrives as it was sent."""
    lab.apply(FAR)
    sent = os.urandom(1 << 20)
    client = lab.at("client-2")
    listener = lab.at("node-1").call(lambda: socket.create_server(("", 8000)))
    with listener, client.call(lambda: socket.create_connection(("172.30.0.11", 8000), timeout=30)) as one:
        other, _ = listener.accept()
        with other:
            other.settimeout(30)
            for here, there in ((one, other), (other, one)):
                here.settimeout(30)
                got = bytearray()
                position = 0
                while len(got) < len(sent):
                    position += here.send(sent[position : position + 65536])
                    got += there.recv(1 << 17)
                assert bytes(got) == sent


def test_a_long_line_is_mended(lab: LabFixture) -> None:
    """Whoever carries the packets of long links may die, and a node may go: the next pass has them carried again."""
    lab.apply(FAR)
    if links.can_delay():
        pytest.skip("the kernel delays packets itself")
    assert network.has_lines(lab.name)
    carrying = state.read(lab.built.folder).lines
    assert carrying is not None
    os.kill(carrying.pid, signal.SIGKILL)
    until(lambda: not process.is_alive(carrying), "the end of the process that carries packets")
    lab.lab.follow()
    assert quickest(lab, "client-2", "one:80") >= 0.12
    lab.node("node-2").stop()
    lab.node("node-2").start()
    lab.wait(lambda: lab.connect("two:80").pod == "two")
    assert quickest(lab, "client", "two:80") >= 0.06
    carrying = state.read(lab.built.folder).lines
    assert carrying is not None
    lab.close()
    assert not process.is_alive(carrying)


def test_a_line_holds_so_much(lab: LabFixture) -> None:
    """Who sends without a pause into a link that takes seconds loses packets, and the machine no memory."""
    lab.apply("{apiVersion: svcnat.io/v1alpha1, kind: Topology, clients: [{latency: 10s}]}")
    carrying = state.read(lab.built.folder).lines
    if carrying is None:
        pytest.skip("the kernel delays packets itself")
    with lab.client.call(_datagrams) as sender:
        sender.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)  # which needs to know no neighbour
        sender.setsockopt(socket.IPPROTO_UDP, 103, 1400)  # UDP_SEGMENT: one packet as far as the line is concerned
        for number in range(4000):
            sender.sendto(bytes(40 * 1400), ("192.0.2.255", 9))
            if not number % 100:
                time.sleep(0.02)  # so that most of these 220 MB arrive at the line
    status = Path(f"/proc/{carrying.pid}/status").read_text()
    (memory,) = (int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS:"))
    assert memory < 160 << 10


def test_a_lossy_link_loses_its_share(lab: LabFixture) -> None:
    """Half of what is sent is lost, or all, or what was asked for; a link without loss loses nothing."""
    lab.apply("{apiVersion: svcnat.io/v1alpha1, kind: Topology, clients: [{}, {loss: 50%}, {loss: 100%}]}")
    node = lab.at("node-1")
    for who, least, most in (("client", 200, 200), ("client-2", 65, 135)):  # five standard deviations
        port = 9000 + least
        with node.call(lambda port=port: _datagrams(port)) as receiver, lab.at(who).call(_datagrams) as sender:
            sender.settimeout(1)
            lab.wait(lambda sender=sender, receiver=receiver, port=port: _arrives(sender, receiver, node.address, port))
            for _ in range(200):  # that many fit the receiver's buffer, whoever is slow
                sender.sendto(b"x", (node.address, port))
            receiver.settimeout(1)
            arrived = 0
            while arrived <= most:
                try:
                    arrived += receiver.recv(100) == b"x"
                except TimeoutError:
                    break
        assert least <= arrived <= most
    with (
        node.call(lambda: _datagrams(9001)) as receiver,
        lab.at("client-3").call(_datagrams) as sender,
        pytest.raises(TimeoutError),
    ):
        _arrives(sender, receiver, node.address, 9001)


def _datagrams(port: int = 0) -> socket.socket:
    opened = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    opened.bind(("", port))
    return opened


def _arrives(sender: socket.socket, receiver: socket.socket, address: str, port: int) -> bool:
    """Neighbours know each other when one datagram has arrived."""
    receiver.settimeout(0.2)
    sender.sendto(b"first", (address, port))
    return receiver.recv(100) == b"first"


@pytest.mark.parametrize("version", [4, 6])
def test_pods_that_share_a_bridge(lab: LabFixture, version: int) -> None:
    """Where netfilter does not see the bridge, neighbours are masqueraded, or they would wait in vain."""
    lab.apply(BRIDGED % "auto")
    for node, calls in (("unseen", "0"), ("seen", "1")):
        with netns.entered(lab.netns(node)):
            assert sysctl.read("net/bridge/bridge-nf-call-iptables") == calls
    gateway = {4: "10.244.0.1", 6: "fd00:10:244::1"}[version]
    seen = lab.pod("ask-seen").addresses[version // 5]
    assert set(lab.flows(5, to="web", from_="ask-unseen", family=version).sources) == {gateway}
    assert set(lab.flows(5, to="web", from_="ask-seen", family=version).sources) == {seen}
    # A pod that reaches itself is masqueraded either way.
    for pod in lab.pods("app=web"):
        assert len(pod.flows(3, "web", family=version).answers) == 3


def test_a_bridge_without_masquerade(lab: LabFixture) -> None:
    """bridgeMasquerade: off is what it says."""
    lab.apply(BRIDGED % "off")
    with pytest.raises(TimeoutError):
        lab.connect("web", from_="ask-unseen", patience=0.3)
    assert lab.connect("web", from_="ask-seen").pod

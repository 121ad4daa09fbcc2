"""The kubelet: after a pass, what runs is what the store says, whatever was before."""

from __future__ import annotations

import os
import signal

import pytest
from msgspec.structs import replace

from svcnat.controllers.readiness import with_container_ready
from svcnat.errors import KernelError, LabError
from svcnat.kernel import netns
from svcnat.lab import kubelet, names, process, state, topology
from svcnat.lab.control import Control
from svcnat.lab.labs import Lab
from svcnat.lab.topology import Declaration, NodeDeclaration
from svcnat.model.objects import (
    Condition,
    EndpointSlice,
    Node,
    ObjectMeta,
    Pod,
    PodIP,
    PodStatus,
    Probe,
    Service,
    ServicePort,
    ServiceSpec,
    TCPSocketAction,
)
from tests.lab.conftest import BuildLab, namespaces_of
from tests.lab.pods import addresses, ask_tcp, create, delete, pod, stored
from tests.processes import ending

pytestmark = pytest.mark.packets


def answers(lab: Lab, name: str, port: int = 80) -> bool:
    """True if the pod's servers answer its node at both of its addresses."""
    return all(
        lab.run("node-1", lambda address=address: ask_tcp(address, port)).startswith(f"{name} {address} ")  # type: ignore[misc]
        for address in addresses(lab, name)
    )


def test_a_pass_starts_what_is_missing_and_no_more(build_lab: BuildLab) -> None:
    """Pods of the store run, their status tells node, address and readiness; a second pass does and writes nothing."""
    lab = build_lab()
    create(lab, pod("a"), pod("b"), pod("mute", ports=()))
    assert kubelet.start(lab).started == ["default/a", "default/b", "default/mute"]
    status = stored(lab, "a").status
    assert stored(lab, "a").spec.node_name == "node-1"
    assert (status.phase, status.pod_ip, status.host_ip) == ("Running", "10.244.0.2", "172.30.0.11")
    assert [each.ip for each in status.pod_ips] == ["10.244.0.2", "fd00:10:244::2"]
    assert {each.type: each.status for each in status.conditions}["Ready"] == "True"
    assert answers(lab, "a")
    assert answers(lab, "b")
    with lab.store.read() as snapshot:
        revision = snapshot.revision
    assert kubelet.start(lab) == kubelet.sweep(lab) == kubelet.Pass()
    with lab.store.read() as snapshot:
        assert snapshot.revision == revision


def test_a_pod_that_is_made_anew_has_a_new_address(build_lab: BuildLab) -> None:
    """Deleted and created again, between two passes or within one, a pod moves; the old address is dead."""
    lab = build_lab()
    create(lab, pod("a"))
    kubelet.start(lab)
    seen = [addresses(lab, "a")]
    delete(lab, "a")
    assert kubelet.sweep(lab).stopped == ["default/a"]
    assert namespaces_of(lab.name) == [names.member(lab.name, each) for each in ("client", "node-1", "router")]
    create(lab, pod("a"))
    kubelet.start(lab)
    seen.append(addresses(lab, "a"))
    delete(lab, "a")
    create(lab, pod("a"))
    done = kubelet.start(lab)
    assert (done.stopped, done.started) == (["default/a"], ["default/a"])
    seen.append(addresses(lab, "a"))
    assert [v4 for v4, _ in seen] == ["10.244.0.2", "10.244.0.3", "10.244.0.4"]
    assert answers(lab, "a")
    for old in seen[:2]:
        with pytest.raises(OSError, match="No route to host"):
            lab.run("client", lambda old=old: ask_tcp(old[0]))  # type: ignore[misc]


def test_the_services_of_the_pods_follow(build_lab: BuildLab) -> None:
    """The status that a pass writes makes the EndpointSlices, in the same transaction."""
    lab = build_lab()
    service = Service(
        metadata=ObjectMeta(name="web", namespace="default"),
        spec=ServiceSpec(selector={"app": "web"}, ports=[ServicePort(port=80)]),
    )
    web = pod("web")
    with lab.store.transaction() as transaction:
        transaction.create(service)
        transaction.create(replace(web, metadata=replace(web.metadata, labels={"app": "web"})))
    kubelet.start(lab)
    with lab.store.read() as snapshot:
        slices = snapshot.labelled(EndpointSlice, "default", {"kubernetes.io/service-name": "web"})
    endpoints = [endpoint for each in slices for endpoint in each.endpoints]
    assert [(each.addresses, each.conditions.ready, each.node_name) for each in endpoints] == [
        (["10.244.0.2"], True, "node-1")
    ]


def test_pods_are_spread_over_the_nodes(build_lab: BuildLab) -> None:
    """A pod without a node gets the one with the fewest; one that names a node runs there; selectors are heeded."""
    plan = topology.plan(
        Declaration(nodes=[NodeDeclaration(name="one"), NodeDeclaration(name="two", labels={"disk": "ssd"})])
    )
    lab = build_lab(plan)
    create(
        lab,
        pod("a", node_name="one"),
        pod("b", node_name="one"),
        pod("c"),
        pod("d"),
        pod("e", node_selector={"disk": "ssd"}),
        pod("f", node_selector={"disk": "tape"}),
        pod("g", node_name="three"),
    )
    done = kubelet.start(lab)
    placed = {name: stored(lab, name).spec.node_name for name in "abcde"}
    assert placed == {"a": "one", "b": "one", "c": "two", "d": "two", "e": "two"}
    assert done.pending == {
        "default/f": "no node is schedulable and has the labels of its nodeSelector",
        "default/g": "this lab has no node three",
    }
    assert addresses(lab, "c")[0].startswith("10.244.1.")
    pending = stored(lab, "f").status
    assert (pending.phase, pending.conditions[0].message) == ("Pending", done.pending["default/f"])
    with lab.store.transaction() as transaction:
        node = transaction.get(Node, "", "two")
        assert node is not None
        transaction.put(replace(node, metadata=replace(node.metadata, labels={"disk": "tape"})))
    assert kubelet.start(lab).started == ["default/f"]


def test_an_unschedulable_node_gets_no_new_pods(build_lab: BuildLab) -> None:
    """spec.unschedulable, which `kubectl cordon` sets, is heeded."""
    lab = build_lab()
    with lab.store.transaction() as transaction:
        node = transaction.get(Node, "", "node-1")
        assert node is not None
        transaction.put(replace(node, spec=replace(node.spec, unschedulable=True)))
    create(lab, pod("a"))
    assert list(kubelet.start(lab).pending) == ["default/a"]


def test_addresses_that_run_out_leave_pods_pending(build_lab: BuildLab) -> None:
    """A full pod range is a reason to wait, for that pod alone; a freed address serves it."""
    lab = build_lab(topology.plan(Declaration(nodes=[NodeDeclaration(name="node-1", pod_cidrs=["10.244.0.0/30"])])))
    create(lab, pod("a"), pod("b"))
    done = kubelet.start(lab)
    assert done.started == ["default/a"]
    assert "no pod address is left in 10.244.0.0/30" in done.pending["default/b"]
    delete(lab, "a")
    kubelet.sweep(lab)
    assert kubelet.start(lab).started == ["default/b"]
    assert answers(lab, "b")


def test_host_network_pods_have_their_node_s_address(build_lab: BuildLab) -> None:
    """They listen in the node's namespace; two on one port of one node cannot both, and the second is not ready."""
    lab = build_lab()
    create(lab, pod("a", host_network=True), pod("b", host_network=True), pod("c"))
    kubelet.start(lab)
    assert lab.netns_of("a") == lab.netns_of("node-1")
    assert addresses(lab, "a") == tuple(lab.topology.nodes[0].addresses)
    assert lab.run("c", lambda: ask_tcp("172.30.0.11")).startswith("a 172.30.0.11 saw 10.244.0.2 ")
    (ready,) = [each for each in stored(lab, "b").status.conditions if each.type == "Ready"]
    assert (ready.status, ready.message) == (
        "False",
        "port 80/TCP: Address already in use; port 53/UDP: Address already in use",
    )
    delete(lab, "a", "b")
    kubelet.sweep(lab)
    assert netns.exists(lab.netns_of("node-1"))
    with pytest.raises(ConnectionRefusedError):
        lab.run("c", lambda: ask_tcp("172.30.0.11"))


def test_a_status_in_the_manifest_does_not_choose_the_address(build_lab: BuildLab) -> None:
    """In a lab the address is the lab's, whatever a manifest says; that a pod is called unready counts."""
    lab = build_lab()
    given = PodStatus(
        phase="Running",
        pod_ip="10.1.1.1",
        pod_ips=[PodIP(ip="10.1.1.1")],
        conditions=[Condition(type="Ready", status="False", reason="Testing")],
    )
    create(lab, replace(pod("a"), status=given))
    kubelet.start(lab)
    assert addresses(lab, "a") == ("10.244.0.2", "fd00:10:244::2")
    assert [(each.status, each.reason) for each in stored(lab, "a").status.conditions if each.type == "Ready"] == [
        ("False", "Testing")
    ]
    # Whoever overwrites the status gets the address back, without a new start.
    with lab.store.transaction() as transaction:
        transaction.set_status(replace(stored(lab, "a"), status=PodStatus()))
    assert kubelet.start(lab).started == []
    assert addresses(lab, "a") == ("10.244.0.2", "fd00:10:244::2")


def test_a_pod_with_a_readiness_probe_waits_for_it(build_lab: BuildLab) -> None:
    """It runs unready until somebody's probe succeeds, which the next pass respects; its other containers are ready."""
    lab = build_lab()
    made = pod("a")
    probe = Probe(tcp_socket=TCPSocketAction(port=80))
    probed = replace(made.spec.containers[0], name="probed", ports=[], readiness_probe=probe)
    create(lab, replace(made, spec=replace(made.spec, containers=[*made.spec.containers, probed])))
    kubelet.start(lab)

    def readiness() -> tuple[str, str, str, dict[str, bool | None]]:
        status = stored(lab, "a").status
        (ready,) = [each for each in status.conditions if each.type == "Ready"]
        return ready.status, ready.reason, ready.message, {each.name: each.ready for each in status.container_statuses}

    unready = (
        "False",
        "ContainersNotReady",
        "containers with unready status: [probed]",
        {"main": True, "probed": False},
    )
    assert readiness() == unready
    assert answers(lab, "a")
    with lab.store.transaction() as transaction:
        transaction.put(with_container_ready(stored(lab, "a"), "probed", True, "2026-05-17T10:00:00Z"))
    assert kubelet.start(lab) == kubelet.Pass()
    assert readiness() == ("True", "", "", {"main": True, "probed": True})
    # One that starts anew is another one, of which nobody knows anything.
    netns.delete(names.pod(lab.name, "default", "a"))
    assert kubelet.start(lab).started == ["default/a"]
    assert readiness() == unready


def test_what_died_or_was_taken_away_comes_back(build_lab: BuildLab) -> None:
    """Level-triggered: a killed stand-in process, a removed namespace, a stray one: the next pass puts all right."""
    lab = build_lab()
    create(lab, pod("a"), pod("b"))
    kubelet.start(lab)
    standin = state.read(lab.folder).standin
    assert standin is not None
    os.kill(standin.pid, signal.SIGKILL)
    netns.delete(names.pod(lab.name, "default", "b"))
    netns.create(names.pod(lab.name, "default", "stray"))
    while process.is_alive(standin):
        pass
    done = kubelet.start(lab)
    assert (done.stopped, done.started) == (["default/b"], ["default/b"])
    assert answers(lab, "a")
    assert answers(lab, "b")
    assert addresses(lab, "b")[0] == "10.244.0.4"
    assert not netns.exists(names.pod(lab.name, "default", "stray"))


def test_a_pass_that_was_killed_is_made_good(build_lab: BuildLab) -> None:
    """Namespaces without links, servers of pods that nobody knows: the next pass puts them right."""
    lab = build_lab()
    create(lab, pod("a"), pod("b"))
    kubelet.start(lab)
    # Killed before it wrote down what it started ...
    state.write(lab.folder, replace(state.read(lab.folder), pods={}))
    assert kubelet.start(lab).started == ["default/a", "default/b"]
    assert answers(lab, "a")
    # ... or before it had made the links.
    delete(lab, "b")
    kubelet.sweep(lab)
    create(lab, pod("b"))
    netns.create(names.pod(lab.name, "default", "b"))
    assert kubelet.start(lab).started == ["default/b"]
    assert answers(lab, "b")
    with Control(lab.folder) as control:
        assert len(control.served()) == 2


def test_other_ports_are_another_start(build_lab: BuildLab) -> None:
    """A pod whose ports changed is restarted, with a new address, as a replaced one is."""
    lab = build_lab()
    create(lab, pod("a"))
    kubelet.start(lab)
    with lab.store.transaction() as transaction:
        live = transaction.get(Pod, "default", "a")
        assert live is not None
        transaction.put(replace(live, spec=replace(live.spec, containers=pod("a", [("TCP", 8080)]).spec.containers)))
    assert kubelet.start(lab).started == ["default/a"]
    assert addresses(lab, "a")[0] == "10.244.0.3"
    assert answers(lab, "a", 8080)


def test_commands_in_a_pod_end_with_it(build_lab: BuildLab) -> None:
    """What `lab exec` started in a pod does not keep its namespace alive."""
    lab = build_lab()
    create(lab, pod("a"))
    kubelet.start(lab)
    with ending(lab.spawn("a", ["sleep", "600"])) as sleeping:
        delete(lab, "a")
        kubelet.sweep(lab)
        assert sleeping.wait() == -signal.SIGTERM


def test_a_start_that_fails_leaves_nothing_half_started(build_lab: BuildLab) -> None:
    """When the kernel refuses one pod's link, no pod of the pass runs, and the next pass starts them all."""
    lab = build_lab()
    assert lab.exec("node-1", ["ip", "route", "add", "10.244.0.3", "dev", "lo"]).returncode == 0
    create(lab, pod("a"), pod("b"))
    with pytest.raises(KernelError, match="File exists"):
        kubelet.start(lab)
    assert namespaces_of(lab.name) == [names.member(lab.name, each) for each in ("client", "node-1", "router")]
    assert state.read(lab.folder).pods == {}
    assert kubelet.start(lab).started == ["default/a", "default/b"]
    assert addresses(lab, "a")[0] == "10.244.0.4"


def test_a_pass_on_a_lab_that_is_gone_says_so(build_lab: BuildLab) -> None:
    """No folder is made for a lab that was taken down."""
    lab = build_lab()
    name = lab.name
    lab.down()
    with pytest.raises(LabError, match=f"there is no lab {name}"):
        kubelet.start(lab)
    assert not lab.folder.exists()

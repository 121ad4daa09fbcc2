"""What Kubernetes' conformance tests ask of Services (test/e2e/network/service.go), of a lab with two nodes.

Everything goes the user's way: manifests are applied, pods start, and packets show what came of it.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator

import pytest

from svcnat import api
from svcnat.lab import topology
from svcnat.model.objects import Pod
from tests.lab.conftest import namespaces_of
from tests.packets.scene import Scene, ask

pytestmark = pytest.mark.packets

IN_A_ROW = 15


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[api.Lab]:
    if os.geteuid() != 0:
        pytest.skip("labs need root, or `unshare -rnm`")
    name = f"t-{uuid.uuid4().hex[:12]}"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SVCNAT_RUNTIME_DIR", str(tmp_path_factory.mktemp("run")))
        plan = topology.simple(nodes=2, clients=2)
        lab = api.Lab.up(name, wanted=api.Wanted(plan, api.load(text="")))
        try:
            yield lab
        finally:
            lab.down()
            assert not namespaces_of(name)


@pytest.fixture
def scene(lab) -> Scene:
    made = Scene(lab)
    made.pods("caller", labels={"app": "caller"})
    return made


def node(lab: api.Lab, number: int = 1) -> str:
    return lab.built.topology.nodes[number - 1].addresses.v4


def test_basic_endpoints(scene) -> None:
    """No pod, one, two, one, none: the service follows, for a pod, a node and a client."""
    ip = scene.service().spec.cluster_ip
    steps = [((), (), {"refused"}), (("p1",), (), {"p1"}), (("p2",), (), {"p1", "p2"}), ((), ("Pod/p1",), {"p2"})]
    for come, go, expected in [*steps, ((), ("Pod/p2",), {"refused"})]:
        if come:
            scene.pods(*come)
        if go:
            scene.delete(*go)
        for source in (scene.caller, "node-1", "client"):
            assert scene.ends(source, ip) == expected


def test_several_ports(scene) -> None:
    """Each port goes to its own target port, of pods that have it."""
    web = {"name": "http", "port": 8080, "targetPort": "http"}
    dns = {"name": "dns", "port": 5353, "targetPort": "dns", "protocol": "UDP"}
    ip = scene.service(ports=[web, dns]).spec.cluster_ip
    scene.pods("p1", "p2")
    assert scene.ends(scene.caller, ip, 8080) == {"p1", "p2"}
    assert scene.ends(scene.caller, ip, 5353, "UDP") == {"p1", "p2"}
    for port, protocol in ((8080, "UDP"), (5353, "TCP"), (80, "TCP")):
        assert scene.end(scene.caller, ip, port, protocol) == "refused"


def test_one_port_on_tcp_and_udp_each_removed_in_turn(scene) -> None:
    """What remains goes on, what was removed is refused."""
    tcp = {"name": "tcp", "port": 80, "targetPort": 80}
    udp = {"name": "udp", "port": 80, "targetPort": 53, "protocol": "UDP"}
    scene.pods("p1")
    for ports in ([tcp, udp], [udp], [tcp, udp], [tcp]):
        ip = scene.service(ports=ports).spec.cluster_ip
        assert scene.end(scene.caller, ip, 80, "TCP") == ("p1" if tcp in ports else "refused")
        assert scene.end(scene.caller, ip, 80, "UDP") == ("p1" if udp in ports else "refused")


def test_type_changes(scene) -> None:
    """Through all types and back: every way in that a type has works, and none that it has not."""
    scene.pods("p1", "p2")
    both, balanced = {"p1", "p2"}, ""
    kinds = ["ClusterIP", "NodePort", "LoadBalancer", "NodePort", "ExternalName", "LoadBalancer", "ClusterIP"]
    for kind in kinds:
        now = scene.service(kind)
        ip = now.spec.cluster_ip
        if kind == "ExternalName":
            assert not ip
        else:
            assert scene.ends(scene.caller, ip) == both
            held = ip
        for number in (1, 2):
            exposed = kind in ("NodePort", "LoadBalancer")
            assert scene.ends("client", node(scene.lab, number), scene.node_port) == (both if exposed else {"refused"})
        if kind == "LoadBalancer":
            balanced = scene.balanced
            assert scene.ends("client", balanced) == both
        elif balanced:
            assert scene.end("client", balanced) not in both
        if kind == "ExternalName":
            assert scene.end(scene.caller, held) == "nobody"  # the address is given back


def test_headless_and_back(scene) -> None:
    """A cluster IP can be given up by way of ExternalName; a headless service has no rules, its pods are reached."""
    scene.pods("p1")
    ip = scene.service().spec.cluster_ip
    assert scene.end(scene.caller, ip) == "p1"
    scene.service("ExternalName")
    assert scene.service("ClusterIP", clusterIP="None").spec.cluster_ip == "None"
    assert scene.end(scene.caller, ip) == "nobody"
    with scene.lab.read() as snapshot:
        pod = snapshot.get(Pod, scene.namespace, "p1")
    assert scene.end(scene.caller, pod.status.pod_ip) == "p1"
    scene.service("ExternalName")
    ip = scene.service("ClusterIP", clusterIP=None).spec.cluster_ip
    assert scene.end(scene.caller, ip) == "p1"


@pytest.mark.parametrize("kind", ["ClusterIP", "NodePort"])
def test_affinity_is_switched(scene, kind) -> None:
    """On: 15 identical answers in a row, for each client; off: all endpoints; and on again."""
    scene.pods("p1", "q1", "p2", "q2")
    for affinity in ("ClientIP", "None", "ClientIP"):
        now = scene.service(kind, sessionAffinity=affinity)
        address, port = (now.spec.cluster_ip, 80) if kind == "ClusterIP" else (node(scene.lab), scene.node_port)
        for source in (scene.caller, "node-1", "client", "client-2"):
            if affinity == "ClientIP":
                assert len(scene.ends(source, address, port, times=IN_A_ROW)) == 1
            else:
                assert scene.ends(source, address, port) == {"p1", "q1", "p2", "q2"}


def test_affinity_ends_with_the_pod(scene) -> None:
    """The pod that a client stayed with goes: it stays with another, and nobody else is moved."""
    scene.pods("p1", "q1", "p2", "q2")
    ip = scene.service(sessionAffinity="ClientIP").spec.cluster_ip
    sources = (scene.caller, "node-1", "node-2", "client", "client-2")
    met = {source: scene.end(source, ip) for source in sources}
    gone = met["client"]
    scene.delete(f"Pod/{gone}")
    for source in sources:
        now = scene.ends(source, ip, times=IN_A_ROW)
        assert len(now) == 1
        assert now == {met[source]} if met[source] != gone else gone not in now


def test_endpoints_are_updated(scene) -> None:
    """Labels, readiness and the selector change: the very next connection knows."""
    scene.pods("p1", "p2")
    ip = scene.service().spec.cluster_ip
    assert scene.ends("client", ip) == {"p1", "p2"}
    scene.pods("p1", labels={"app": "other"})
    assert scene.ends("client", ip) == {"p2"}
    scene.service(selector={"app": "other"})
    assert scene.ends("client", ip) == {"p1"}
    scene.service(selector={"app": "nobody"})
    assert scene.ends("client", ip) == {"refused"}


def test_unready_pods(scene) -> None:
    """They get nothing, unless the service publishes them all the same."""
    scene.apply(scene.pod("p1"), scene.pod("p2", ready=False))
    ip = scene.service().spec.cluster_ip
    assert scene.ends(scene.caller, ip) == {"p1"}
    scene.service(publishNotReadyAddresses=True)
    assert scene.ends(scene.caller, ip) == {"p1", "p2"}


def test_across_namespaces(scene) -> None:
    """Anyone may call; only pods of the service's own namespace are its endpoints."""
    other = f"{scene.namespace}-other"
    scene.pods("p1")
    scene.pods("stranger", "guest", namespace=other)
    ip = scene.service().spec.cluster_ip
    assert scene.ends(f"{other}/guest", ip) == {"p1"}


def test_hairpin(scene) -> None:
    """A pod reaches itself through its service, alone and beside others, by cluster IP and node port."""
    scene.pods("p1")
    ip = scene.service("NodePort").spec.cluster_ip
    me = f"{scene.namespace}/p1"
    assert scene.ends(me, ip) == {"p1"}
    assert scene.ends(me, node(scene.lab), scene.node_port) == {"p1"}
    scene.pods("p2")
    assert scene.ends(me, ip) == {"p1", "p2"}


def test_the_source_of_a_pod_is_preserved(scene) -> None:
    """Through a cluster IP an endpoint sees the pod that asks, on its own node and on the other."""
    ip = scene.service().spec.cluster_ip
    for name in ("p1", "p2"):
        scene.pods(name)
        line = scene.lab.run(scene.caller, lambda: ask(ip, 80, "TCP"))
        with scene.lab.read() as snapshot:
            caller = snapshot.get(Pod, scene.namespace, "caller").status.pod_ip
        assert line.split()[0] == name
        assert line.split()[3] == caller
        scene.delete(f"Pod/{name}")


@pytest.mark.parametrize("protocol", ["TCP", "UDP"])
def test_no_endpoints_are_refused(scene, protocol) -> None:
    """Not left to wait: on the cluster IP, node ports and the load balancer's address, from everywhere."""
    ports = [{"name": "p", "port": 80, "protocol": protocol, "nodePort": scene.node_port}]
    ip = scene.service("LoadBalancer", ports=ports).spec.cluster_ip
    for source in (scene.caller, "node-1", "client"):
        for address, port in ((ip, 80), (node(scene.lab), scene.node_port), (scene.balanced, 80)):
            assert scene.end(source, address, port, protocol) == "refused"


def test_a_node_port_is_released(scene) -> None:
    """Once its service is gone nobody answers there, and another service may have the number."""
    scene.pods("p1")
    scene.pods("q1", labels={"app": "second"})
    scene.service("NodePort")
    assert scene.ends("client", node(scene.lab), scene.node_port, times=5) == {"p1"}
    scene.delete("Service/web")
    assert scene.ends("client", node(scene.lab), scene.node_port, times=5) == {"refused"}
    scene.service("NodePort", selector={"app": "second"})
    assert scene.ends("client", node(scene.lab, 2), scene.node_port, times=5) == {"q1"}


def test_a_service_comes_and_goes(scene) -> None:
    """Up, down, and up again under the same name; others do not notice."""
    scene.pods("p1")
    for _ in range(2):
        ip = scene.service().spec.cluster_ip
        assert scene.end("client", ip) == "p1"
        scene.delete("Service/web")
        assert scene.end("client", ip) == "nobody"


@pytest.mark.parametrize("label", ["service.kubernetes.io/service-proxy-name", "service.kubernetes.io/headless"])
def test_labels_that_opt_out(scene, label) -> None:
    """A service with that label is another proxy's affair; without it, ours again."""
    scene.pods("p1")
    ip = scene.service().spec.cluster_ip
    assert scene.end(scene.caller, ip) == "p1"
    scene.service(labels={label: "other"})
    assert scene.end(scene.caller, ip) == "nobody"
    scene.service()
    assert scene.end(scene.caller, ip) == "p1"


def test_source_ranges(scene) -> None:
    """Only those in the ranges reach the load balancer; the ranges can be changed; other ways in are open to all."""
    scene.pods("p1")
    client, second = (each.addresses.v4 for each in scene.lab.built.topology.clients)
    for ranges, welcome in (
        ([f"{client}/32"], {"client"}),
        ([f"{second}/32"], {"client-2"}),
        (None, {"client", "client-2"}),
    ):
        ip = scene.service("LoadBalancer", loadBalancerSourceRanges=ranges).spec.cluster_ip
        for source in ("client", "client-2"):
            assert scene.end(source, scene.balanced) == ("p1" if source in welcome else "nobody")
            assert scene.end(source, ip) == "p1"
            assert scene.end(source, node(scene.lab), scene.node_port) == "p1"


def test_traffic_policies(scene) -> None:
    """Local policies follow where the pods are: another node's are not used, and not missed when one comes here."""
    scene.pods("p2")
    local = {"externalTrafficPolicy": "Local", "internalTrafficPolicy": "Local"}
    ip = scene.service("NodePort", **local).spec.cluster_ip
    assert scene.end("client", node(scene.lab, 1), scene.node_port) == "nobody"
    assert scene.end(scene.caller, ip) == "nobody"
    assert scene.end("client", node(scene.lab, 2), scene.node_port) == "p2"
    assert scene.end("node-2", ip) == "p2"
    scene.pods("p1")
    assert scene.ends("client", node(scene.lab, 1), scene.node_port) == {"p1"}
    assert scene.ends(scene.caller, ip) == {"p1"}
    scene.service("NodePort", externalTrafficPolicy="Cluster", internalTrafficPolicy="Cluster")
    assert scene.ends("client", node(scene.lab, 1), scene.node_port) == {"p1", "p2"}
    assert scene.ends(scene.caller, ip) == {"p1", "p2"}


def test_pods_on_the_host_network(scene) -> None:
    """They are endpoints by their node's address, for everyone."""
    port = 8000 + scene.number
    container = {"name": "main", "image": "nginx", "ports": [{"name": "http", "containerPort": port}]}
    for name in ("h1", "h2"):
        scene.apply(
            {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {"name": name, "labels": {"app": "web"}},
                "spec": {"nodeName": f"node-{name[1]}", "hostNetwork": True, "containers": [container]},
            }
        )
    ports = [{"name": "http", "port": 80, "targetPort": "http", "nodePort": scene.node_port}]
    ip = scene.service("NodePort", ports=ports).spec.cluster_ip
    for source in (scene.caller, "node-1", "client"):
        assert scene.ends(source, ip) == {"h1", "h2"}
        assert scene.ends(source, node(scene.lab), scene.node_port) == {"h1", "h2"}


def test_dual_stack(scene) -> None:
    """Both families of one service, and one taken away again."""
    scene.pods("p1", "p2")
    four, six = scene.service(ipFamilyPolicy="RequireDualStack").spec.cluster_ips
    for source in (scene.caller, "node-1", "client"):
        assert scene.ends(source, four) == scene.ends(source, six) == {"p1", "p2"}
    scene.service(ipFamilyPolicy="SingleStack", ipFamilies=["IPv4"], clusterIP=four, clusterIPs=[four])
    assert scene.ends(scene.caller, four) == {"p1", "p2"}
    assert scene.end(scene.caller, six) == "nobody"

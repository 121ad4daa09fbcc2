"""The object that the plugin's fixtures give: what it does, and what it says when something is not as asked."""

from __future__ import annotations

import re
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from svcnat.errors import LabError, ManifestError, NotFoundError, UsageError
from svcnat.kernel import netns
from svcnat.testing.lab import Answer, Endpoint, LabFixture
from svcnat.testing.place import CommandFailedError
from tests.lab.conftest import namespaces_of

pytestmark = pytest.mark.packets

MANIFESTS = """
apiVersion: svcnat.io/v1alpha1
kind: Topology
nodes: [{name: east}, {name: west}]
clients: 2
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  ipFamilyPolicy: RequireDualStack
  selector: {app: web}
  ports:
  - {name: http, port: 80, targetPort: 8080}
  - {name: echo, port: 7, targetPort: 7, protocol: UDP}
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: other}
spec: {ports: [{port: 80}]}
---
apiVersion: v1
kind: Pod
metadata: {name: web, labels: {app: web}}
spec:
  nodeName: east
  containers: [{name: web, image: web, ports: [{containerPort: 8080}, {containerPort: 7, protocol: UDP}]}]
---
apiVersion: v1
kind: Pod
metadata: {name: asker, namespace: other}
spec: {nodeName: west, containers: [{name: asker, image: asker}]}
"""
POD = "{apiVersion: v1, kind: Pod, metadata: {name: NAME}, spec: {containers: [{name: a, image: a}]}}"


@pytest.fixture(scope="module")
def lab(runtime: Path) -> Iterator[LabFixture]:
    """A lab that the tests of this module share, and leave as it is."""
    lab = LabFixture()
    try:
        lab.apply(MANIFESTS)
        yield lab
    finally:
        lab.close()
    assert not namespaces_of(lab.name)


@pytest.mark.parametrize("to", ["web:http", "web:80", "service/web:80", "web.default.svc.cluster.local:80"])
@pytest.mark.parametrize("family", [4, 6])
def test_services_are_asked_by_name(lab: LabFixture, to: str, family: int) -> None:
    """The answer tells the pod, the address that it was asked at, and who it saw ask."""
    pod, asker = lab.pod("web"), lab.pod("other/asker")
    answer = lab.connect(to, from_="other/asker", family=family)
    index = 0 if family == 4 else 1
    assert answer == Answer(
        answer.text, "web", pod.addresses[index], asker.addresses[index], source_port=answer.source_port
    )
    assert answer.text.startswith(f"web {pod.addresses[index]} saw {asker.addresses[index]} ")


@pytest.mark.parametrize("family", [4, 6])
def test_datagrams_are_flows_too(lab: LabFixture, family: int) -> None:
    """A port of the service that is UDP is asked with datagrams, each from a port of its own."""
    flows = lab.flows(10, to="web:echo", from_=lab.pod("other/asker"), family=family)
    assert (len(flows), flows.pods) == (10, {"web": 10})
    assert len({answer.source_port for answer in flows.answers}) > 1


def test_addresses_pods_and_hosts_are_destinations(lab: LabFixture) -> None:
    """What has no service is asked directly, in both families."""
    pod = lab.pod("web")
    for to in ("pod/web:8080", f"{pod.address}:8080", f"[{pod.addresses[1]}]:8080"):
        assert lab.connect(to, from_="client-2").pod == "web"
    with pytest.raises(ConnectionRefusedError):
        lab.connect("east:81")


def test_commands_run_where_they_are_told_to(lab: LabFixture) -> None:
    """Pods, nodes and clients; the name of the namespace is what `ip netns` takes."""
    for place in (lab.pod("web"), lab.at("west"), lab.client):
        assert place.address in place.run(["ip", "-4", "addr"]).stdout
        assert place.netns in netns.names()
    assert lab.netns("other/asker").endswith(".other.asker")
    assert lab.exec("client-2", ["sh", "-c", "exit 3"], check=False).returncode == 3
    assert lab.pod("web").call(lambda: netns.identity()) == netns.identity(lab.netns("web"))


def test_a_command_that_fails_shows_what_it_said(lab: LabFixture) -> None:
    """Its output would be lost otherwise."""
    with pytest.raises(CommandFailedError, match=r"(?s)exit status 2.*to stdout.*to stderr"):
        lab.pod("web").run(["sh", "-c", "echo to stdout; echo to stderr >&2; exit 2"])
    with pytest.raises(subprocess.TimeoutExpired):
        lab.pod("web").run(["sleep", "100"], timeout=0.05)


def test_no_answer_says_who_asked_what_and_what_was_there(lab: LabFixture) -> None:
    """The test's log is all there is to find out why."""
    with pytest.raises(ConnectionRefusedError) as refused:
        lab.connect("web.other:80", from_="west")
    said = str(refused.value)
    assert re.search(r"west asked web.other:80 \(10\.\S+, TCP port 80\): Connection refused\n", said)
    assert re.search(r"service other/web 10\.\S+ 80/TCP: nothing\n", said)
    assert re.search(r"pod web Running, ready: 10\.244\.0\.2, fd00:10:244::2 on east\n", said)
    with pytest.raises(TimeoutError, match=r"client asked 203.0.113.1:9 \(.*\): no answer in time\n"):
        lab.connect("203.0.113.1:9", protocol="UDP", patience=0.05)


def test_failures_can_be_counted_instead(lab: LabFixture) -> None:
    """Without `strict` a flow may fail."""
    flows = lab.pod("web").flows(3, "web.other:80", strict=False)
    assert (len(flows), flows.failures) == (0, ("Connection refused",) * 3)


@pytest.mark.parametrize(
    ("to", "how", "message"),
    [
        ("wbe:80", {}, "there is no service, pod, node or client 'wbe'; there are services: default/"),
        ("pod/nobody:80", {}, "there is no pod 'nobody'"),
        ("web:81", {}, "service web has no port 81: it has 80/TCP http, 7/UDP echo; to try"),
        ("web:http", {"protocol": "UDP"}, "service web has no port http of UDP"),
        ("web", {}, "service web has more than one port"),
        ("web.other", {"family": 6}, "service web.other has no IPv6 address: it has 10."),
        ("east", {}, "a port number is missing"),
        ("east:http", {}, "only ports of services have names"),
        ("fd00::1:80:90", {}, "is no destination: NAME:PORT, ADDRESS:PORT or"),
    ],
)
def test_destinations_that_are_not_there_are_explained(
    lab: LabFixture, to: str, how: dict[str, object], message: str
) -> None:
    """A typing error in a test is told apart from a service that does not work."""
    with pytest.raises(UsageError, match=re.escape(message)):
        lab.connect(to, **how)


def test_pods_and_endpoints_are_found(lab: LabFixture) -> None:
    """By labels, and by the service that they are behind."""
    assert [str(each) for each in lab.pods("app=web")] == ["web"]
    assert [str(each) for each in lab.pods(namespace="other")] == ["other/asker"]
    assert lab.endpoints("web") == [Endpoint("web", lab.pod("web").address, ready=True)]
    assert lab.endpoints("other/web") == []
    assert {"web", "other/web", "kubernetes", "kube-system/kube-dns"} == set(lab.services)
    for wrong in (lambda: lab.pod("nobody"), lambda: lab.at("nobody")):
        with pytest.raises(LabError, match="nobody"):
            wrong()
    with pytest.raises(UsageError, match="there is no service 'nobody'\nlab pytest-"):
        lab.endpoints("nobody")
    with pytest.raises(UsageError, match="there is no pod, node or client 'nobody'\nlab pytest-"):
        lab.addresses_of("nobody")


def test_programs_and_functions_find_services_by_name(lab: LabFixture) -> None:
    """A pod's resolver asks the lab's DNS, for what is run there and for what is called there."""
    address = lab.services["web"].spec.cluster_ip
    assert lab.pod("web").run(["getent", "ahostsv4", "web.default"]).stdout.split()[0] == address
    assert lab.pod("other/asker").call(lambda: socket.gethostbyname("web.default")) == address


def test_waiting_in_vain_says_for_what(lab: LabFixture) -> None:
    """With the last failure, and what was there."""
    with pytest.raises(TimeoutError, match=r"(?s)a miracle did not come true in 0.05 s\nlab pytest-.*service web 10\."):
        lab.wait(lambda: False, timeout=0.05, what="a miracle")
    with pytest.raises(TimeoutError, match=r"; at last: west asked west:9 .*: Connection refused"):
        lab.wait(lambda: lab.connect("west:9", from_="west"), timeout=0.05)
    assert lab.wait(lambda: "so") == "so"
    lab.wait()


def test_servers_are_started_and_ended_with_the_lab(runtime: Path) -> None:
    """A command that goes on is up when it listens, and gone with the lab, whatever it does about it."""
    lab = LabFixture()
    try:
        lab.apply(POD.replace("NAME", "a"))
        server = lab.spawn("a", ["python3", "-m", "http.server", "8000"], stderr=subprocess.DEVNULL)
        stubborn = lab.pod("a").spawn(["sh", "-c", "trap '' TERM; while :; do sleep 0.1; done"])
        lab.wait(lambda: lab.pod("a").listens(8000))
        assert lab.connect("a:8000", say=b"GET / HTTP/1.0\r\n\r\n").text.startswith("HTTP/1.0 200")
        assert not lab.pod("a").listens(8001)
    finally:
        lab.close()
    assert server.returncode is not None
    assert stubborn.returncode is not None
    assert not namespaces_of(lab.name)


def test_objects_come_and_go(runtime: Path, tmp_path: Path) -> None:
    """Files and folders as well as text; by name as well as by manifest."""
    lab = LabFixture()
    assert str(lab).endswith("nothing was applied")
    try:
        for name in ("a", "b", "c"):
            (tmp_path / f"{name}.yaml").write_text(POD.replace("NAME", name))
        lab.apply(tmp_path)
        lab.delete("pod/a", tmp_path / "b.yaml")
        assert [str(each) for each in lab.pods()] == ["c"]
        lab.kill(lab.pod("c"))
        with pytest.raises(NotFoundError, match=r"(?s)c.*\nlab pytest-"):
            lab.kill("c")
        with pytest.raises(ManifestError):
            lab.apply("kind: Service")
        with pytest.raises(UsageError, match="is built: its Topology has to come with the first manifests"):
            lab.apply(MANIFESTS)
        assert lab.pods() == []
    finally:
        lab.close()
    lab.close()  # a second time does no harm


def test_a_function_in_a_pod_changes_the_lab(svcnat_lab: LabFixture) -> None:
    """What it asks for is done where the test is, not in the mounts of its pod: others find the pods that come."""
    svcnat_lab.apply(
        """
        apiVersion: apps/v1
        kind: Deployment
        metadata: {name: web}
        spec:
          selector: {matchLabels: {app: web}}
          template:
            metadata: {labels: {app: web}}
            spec: {containers: [{name: web, image: web, ports: [{containerPort: 80}]}]}
        ---
        apiVersion: v1
        kind: Service
        metadata: {name: web}
        spec: {selector: {app: web}, ports: [{port: 80}]}
        ---
        {apiVersion: v1, kind: Pod, metadata: {name: app}, spec: {containers: [{name: a, image: a}]}}
        """
    )
    (before,) = svcnat_lab.pods("app=web")
    svcnat_lab.pod("app").call(lambda: svcnat_lab.kill(before))
    (after,) = svcnat_lab.pods("app=web")
    assert svcnat_lab.connect("web", from_="app").pod == after.name != before.name
    assert svcnat_lab.exec(after.name, ["uname", "-n"]).stdout == f"{after.name}\n"

"""Pods in a lab with an agent: what probes find out reaches the endpoints, and the packets, there and back."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from msgspec.structs import replace

import svcnat
from svcnat import api
from svcnat.kernel import netns
from svcnat.lab import process, state
from svcnat.model.objects import Event, Pod, Service
from svcnat.model.pods import is_ready
from tests.agents import until
from tests.lab.conftest import NAMELESS, unused_name
from tests.lab.pods import ask_tcp

pytestmark = pytest.mark.packets

SERVICE = """\
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: web}, ports: [{port: 80}]}
---
apiVersion: v1
kind: Pod
metadata: {name: client-pod}
spec: {containers: [{name: main, image: x}]}
"""

Up = Callable[..., api.Lab]


def pod(name: str, probe: str, port: int = 80) -> str:
    """A pod of the Service with a readiness probe that is made every second, and whose every failure counts."""
    return f"""\
---
apiVersion: v1
kind: Pod
metadata: {{name: {name}, labels: {{app: web}}}}
spec:
  containers:
  - name: main
    image: x
    ports: [{{containerPort: {port}}}]
    readinessProbe: {{{probe}, periodSeconds: 1, timeoutSeconds: 20, failureThreshold: 1}}
"""


@pytest.fixture
def up(runtime: Path, tmp_path: Path) -> Iterator[Up]:
    """A function that builds labs of the Service and these pods."""
    built: list[api.Lab] = []

    def build(*pods: str, **options: float) -> api.Lab:
        file = tmp_path / "lab.yml"
        file.write_text(NAMELESS + SERVICE + "".join(pods))
        built.append(api.Lab.up(unused_name(), file, **options))  # type: ignore[arg-type]
        return built[-1]

    yield build
    for lab in built:
        lab.down()


def ready(lab: api.Lab) -> dict[str, bool]:
    with lab.read() as snapshot:
        return {each.metadata.name: is_ready(each) for each in snapshot.list(Pod)}


def answer(lab: api.Lab) -> str:
    """The pod that answers a client of the Service; "" if none does."""
    with lab.read() as snapshot:
        service = snapshot.get(Service, "default", "web")
    assert service is not None
    address = str(service.spec.cluster_ip)
    try:
        return lab.run("client-pod", lambda: ask_tcp(address)).partition(" ")[0]
    except ConnectionRefusedError:
        return ""


def test_a_lab_is_up_when_its_pods_are_ready(up: Up) -> None:
    """Every kind of probe that a stand-in answers has succeeded when the lab is up, and its pods serve."""
    shell = 'exec: {command: [sh, -c, "ip -4 address show eth0 | grep -q 10.244.0."]}'
    lab = up(pod("a", "tcpSocket: {port: 80}"), pod("b", "httpGet: {port: 80}"), pod("c", shell))
    assert ready(lab) == {"a": True, "b": True, "c": True, "client-pod": True}
    found = {answer(lab) for _ in range(200)}
    assert found == {"a", "b", "c"}


def test_probes_of_images_suit_their_stand_ins(up: Up) -> None:
    """As manifests in the wild have them: gRPC, TLS, long delays, and programs that only the image has."""
    lab = up(
        pod("grpc", "grpc: {port: 80, service: shop.Catalogue}, initialDelaySeconds: 300"),
        pod("tls", "httpGet: {port: 80, scheme: HTTPS, path: /healthz}, initialDelaySeconds: 300"),
        pod("program", "exec: {command: [/bin/grpc_health_probe, '-addr=:80']}"),
        pod("shell", "exec: {command: [sh, -c, 'grpc_health_probe -addr=:80']}"),
        pod("sick", "exec: {command: [sh, -c, 'exit 1']}"),
        timeout=0,
    )
    until(lambda: sum(ready(lab).values()) == 5, "their readiness")
    assert not ready(lab)["sick"]


def test_ports_that_only_the_kubelet_asks(up: Up) -> None:
    """A port that no containerPort names is served if the readiness probe asks it; one that two name, once."""
    lab = up(
        pod("undeclared", "httpGet: {port: 10254, path: /healthz}"),
        pod("twice", "httpGet: {port: web}").replace(
            "[{containerPort: 80}]", "[{containerPort: 80, name: web}, {containerPort: 80}]"
        ),
    )
    assert ready(lab) == {"undeclared": True, "twice": True, "client-pod": True}


def test_pods_that_wait_for_each_other_are_waited_for(up: Up) -> None:
    """Each pod of a StatefulSet is made when the one before is ready: the lab is up when the last one is."""
    lab = up("""\
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: db}
spec:
  replicas: 3
  serviceName: db
  selector: {matchLabels: {app: db}}
  template:
    metadata: {labels: {app: db}}
    spec: {containers: [{name: main, image: x, ports: [{containerPort: 80}], readinessProbe: {tcpSocket: {port: 80}}}]}
""")
    assert ready(lab) == {"db-0": True, "db-1": True, "db-2": True, "client-pod": True}


def test_the_wait_for_pods_is_bounded(up: Up) -> None:
    """What never gets ready is told of, and told how many are missing; the lab is up."""
    said: list[tuple[int, int]] = []
    lab = up(pod("a", "tcpSocket: {port: 80}"), pod("b", "exec: {command: ['false']}"), timeout=0)
    until(lambda: ready(lab)["a"], "the first pod's readiness")
    assert lab.wait(0.01, lambda *counts: said.append(counts)) == ("default/b",)
    assert set(said) <= {(1, 2)}


def test_commands_of_probes_run_in_their_pods(up: Up, tmp_path: Path) -> None:
    """In the pod's network namespace, or its node's for the host network; a pod leaves by its probe, and returns."""
    note = tmp_path / "note"
    command = f"readlink /proc/self/ns/net >>{note}; test ! -e {tmp_path}/sick"
    probe = f"exec: {{command: [sh, -c, {command!r}]}}"
    lab = up(pod("a", probe), pod("host", "exec: {command: [ls, /]}").replace("spec:", "spec:\n  hostNetwork: true"))
    assert answer(lab) in {"a", "host"}
    identity = lab.run("a", lambda: netns.identity()[1])
    assert set(note.read_text().splitlines()) == {f"net:[{identity}]"}
    lab.delete([(Pod, "default", "host")])
    assert answer(lab) == "a"
    (tmp_path / "sick").touch()
    until(lambda: not answer(lab), "the end of its traffic")
    assert not ready(lab)["a"]
    (tmp_path / "sick").unlink()
    until(lambda: answer(lab) == "a", "its return")
    with lab.read() as snapshot:
        said = {event.reason: event.message for event in snapshot.list(Event) if event.involved_object.name == "a"}
    assert said == {"Unhealthy": "Readiness probe failed: command exited with status 1"}


@pytest.mark.parametrize("command", ["command: [sleep, '1000'], ", ""], ids=["program", "stand-in"])
def test_a_pod_is_as_ready_as_its_sidecars(up: Up, tmp_path: Path, command: str) -> None:
    """A sidecar's probe counts as any container's: the pod waits for it, leaves by it, and returns."""
    well = tmp_path / "well"
    probe = f"readinessProbe: {{exec: {{command: [cat, {well}]}}, periodSeconds: 1, timeoutSeconds: 20}}"
    sidecar = f"  initContainers: [{{name: proxy, image: proxy, restartPolicy: Always, {command}{probe}}}]\n"
    lab = up(pod("a", "tcpSocket: {port: 80}").replace("spec:\n", f"spec:\n{sidecar}"), timeout=0)
    until(lambda: "Unhealthy" in reasons(lab), "a failed probe")
    assert not ready(lab)["a"]
    assert answer(lab) == ""
    well.touch()
    assert lab.wait() == ()
    assert answer(lab) == "a"
    with lab.read() as snapshot:
        told = snapshot.get(Pod, "default", "a")
    assert told
    assert [each.ready for each in told.status.init_container_statuses] == [True]
    well.unlink()
    until(lambda: not answer(lab), "the end of its traffic")
    assert not ready(lab)["a"]


def test_pods_without_servers_leave_and_come_back(up: Up) -> None:
    """The stand-in process is killed: no pod gets connections any more; the next pass brings them back."""
    lab = up(pod("a", "tcpSocket: {port: 80}"), pod("b", "httpGet: {port: 80}"))
    standin = state.read(lab.built.folder).standin
    assert standin is not None
    os.kill(standin.pid, signal.SIGKILL)
    until(lambda: not process.is_alive(standin), "its end")
    until(lambda: not ready(lab)["a"] and not ready(lab)["b"], "failed probes")
    assert answer(lab) == ""
    lab.follow()
    assert lab.wait() == ()
    assert answer(lab) in {"a", "b"}


def test_pods_made_anew_between_two_passes(up: Up) -> None:
    """One of the same name is another pod: the old address leaves the rules, the new one waits for its own probe."""
    lab = up(pod("a", "tcpSocket: {port: 80}"))
    with lab.read() as snapshot:
        before = snapshot.get(Pod, "default", "a")
    assert before is not None
    (manifest,) = svcnat.load(text=pod("a", "tcpSocket: {port: 80}")).manifests
    for _ in range(3):
        with lab.built.store.transaction() as transaction:
            transaction.delete(Pod, "default", "a", 0)
            transaction.create(manifest.document)
    lab.follow()
    assert lab.wait() == ()
    with lab.read() as snapshot:
        after = snapshot.get(Pod, "default", "a")
    assert after is not None
    assert after.metadata.uid != before.metadata.uid
    assert after.status.pod_ip != before.status.pod_ip
    assert answer(lab) == "a"


def test_a_pod_that_starts_anew_has_to_prove_itself_again(up: Up) -> None:
    """With other ports it is the same pod in a new place, of which the old one's probes say nothing."""
    lab = up(patient_pod(80))
    assert answer(lab) == "a"
    restart(lab, patient_pod(8080))
    until(lambda: "Unhealthy" in reasons(lab), "a failed probe")
    assert not ready(lab)["a"]
    assert answer(lab) == ""
    restart(lab, patient_pod(80))
    assert lab.wait() == ()
    assert answer(lab) == "a"


def patient_pod(port: int) -> str:
    """A pod that would be ready for long, whatever its probe says, had it ever been."""
    code = "import socket; socket.create_connection(('127.0.0.1', 80), 20)"
    made = pod("a", f'exec: {{command: [{sys.executable}, -c, "{code}"]}}', port)
    return made.replace("failureThreshold: 1", "failureThreshold: 100")


def restart(lab: api.Lab, text: str) -> None:
    """Give a pod other containers, which no command can."""
    (manifest,) = svcnat.load(text=text).manifests
    assert isinstance(manifest.resource, Pod)
    with lab.built.store.transaction() as transaction:
        live = transaction.get(Pod, "default", "a")
        assert live is not None
        spec = replace(live.spec, containers=manifest.resource.spec.containers)
        transaction.put(replace(live, spec=spec))
    lab.follow()


def reasons(lab: api.Lab) -> set[str]:
    with lab.read() as snapshot:
        return {event.reason for event in snapshot.list(Event)}

"""Pods that terminate: shown so, used only where nothing else is left, gone when their processes have ended."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import svcnat
from svcnat import api
from svcnat.cli.pods import pod_status
from svcnat.errors import ConflictError
from svcnat.lab import process, state
from svcnat.model.objects import Deployment, Endpoint, EndpointSlice, Pod, Service
from tests.agents import until
from tests.lab.conftest import namespaces_of, unused_name
from tests.lab.pods import ask_tcp

pytestmark = pytest.mark.packets

SERVER = """\
import os, signal, socket, sys
def end(*_):
    open(f"{sys.argv[1]}/asked-" + os.environ["HOSTNAME"], "w").close()
signal.signal(signal.SIGTERM, end)
with socket.create_server(("", 80)) as server:
    server.settimeout(0.02)
    while not os.path.exists(f"{sys.argv[1]}/end-" + os.environ["HOSTNAME"]):
        try:
            connection, _ = server.accept()
        except TimeoutError:
            continue
        with connection:
            connection.sendall(os.environ["HOSTNAME"].encode())
"""
MANIFESTS = """\
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: web}, ports: [{port: 80}]}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 60
      containers:
      - name: main
        image: x
        command: [python3, SCRIPT, FOLDER]
        readinessProbe: {tcpSocket: {port: 80}, periodSeconds: 1}
"""

POD = """\
apiVersion: v1
kind: Pod
metadata: {name: NAME}
spec: {containers: [{name: main, image: x}]}
"""


@pytest.fixture
def lab(runtime: Path, tmp_path: Path) -> Iterator[api.Lab]:
    """A lab of two servers that end when there is a file ``end-POD``, and not when they are asked to."""
    (tmp_path / "server.py").write_text(SERVER)
    file = tmp_path / "lab.yml"
    file.write_text(MANIFESTS.replace("SCRIPT", str(tmp_path / "server.py")).replace("FOLDER", str(tmp_path)))
    made = api.Lab.up(unused_name(), file)
    yield made
    made.down()
    assert namespaces_of(made.built.name) == []


def pods(lab: api.Lab) -> dict[str, str]:
    """STATUS of every pod."""
    with lab.read() as snapshot:
        return {each.metadata.name: pod_status(each) for each in snapshot.list(Pod, "default")}


def endpoints(lab: api.Lab) -> dict[str, Endpoint]:
    with lab.read() as snapshot:
        return {
            each.target_ref.name: each
            for piece in snapshot.list(EndpointSlice, "default")
            for each in piece.endpoints
            if each.target_ref
        }


def answers(lab: api.Lab, times: int = 30) -> set[str]:
    """Who answers a client of the Service; an error's name if somebody does not."""
    with lab.read() as snapshot:
        address = str(snapshot.get(Service, "default", "web").spec.cluster_ip)  # type: ignore[union-attr]

    def ask() -> str:
        try:
            return ask_tcp(address)
        except OSError as error:
            return type(error).__name__

    return lab.run("client", lambda: {ask() for _ in range(times)})


def delete(lab: api.Lab, *names: str, **options: bool | int) -> None:
    lab.delete([(Pod, "default", name) for name in names], **options)  # type: ignore[arg-type]


def test_a_pod_that_terminates(lab: api.Lab, tmp_path: Path) -> None:
    """It gets no new connections, as long as others are ready; another one is made at once; then it is gone."""
    going, staying = sorted(pods(lab))
    assert answers(lab) == {going, staying}
    delete(lab, going, wait=False)
    assert pods(lab)[going] == "Terminating"
    assert going not in answers(lab)
    conditions = endpoints(lab)[going].conditions
    assert (conditions.ready, conditions.serving, conditions.terminating) == (False, True, True)
    until((tmp_path / f"asked-{going}").exists, "its signal")
    (new,) = pods(lab).keys() - {going, staying}
    assert not lab.wait()
    assert answers(lab) == {staying, new}
    again = svcnat.load(text=POD.replace("NAME", going))
    with pytest.raises(ConflictError, match=f'object is being deleted: pods "{going}" already exists'):
        lab.create(again)
    (tmp_path / f"end-{going}").touch()
    until(lambda: going not in pods(lab), "its end")
    assert going not in endpoints(lab)
    until(
        lambda: f"svcnat.{lab.built.name}.default.{going}" not in namespaces_of(lab.built.name), "its namespace's end"
    )


def test_the_last_ones_serve_to_the_end(lab: api.Lab, tmp_path: Path) -> None:
    """With no other endpoint left, those that terminate and still serve are used; after them, all is refused."""
    names = set(pods(lab))
    lab.scale([(Deployment, "default", "web")], 0)
    assert pods(lab) == dict.fromkeys(names, "Terminating")
    assert answers(lab) == names
    for name in names:
        (tmp_path / f"end-{name}").touch()
    until(lambda: not pods(lab), "their end")
    lab.follow()
    assert answers(lab, 3) == {"ConnectionRefusedError"}


def test_time_of_grace(lab: api.Lab) -> None:
    """A shorter one counts, for a pod that terminates already, too; none at all takes the pod away at once."""
    one, two = sorted(pods(lab))
    for seconds, counted in ((None, 60), (2, 2), (30, 2), (1, 1)):
        lab.delete([(Pod, "default", one)], grace=seconds, wait=False)
        with lab.read() as snapshot:
            found = snapshot.get(Pod, "default", one)
        assert found is not None
        assert found.metadata.deletion_grace_period_seconds == counted
    delete(lab, one)
    assert one not in pods(lab)
    delete(lab, two, grace=0, wait=False)
    assert two not in pods(lab)
    until(lambda: f"svcnat.{lab.built.name}.default.{two}" not in namespaces_of(lab.built.name), "its namespace's end")


@pytest.mark.parametrize("victim", ["supervisor", "watcher"])
def test_killings_meanwhile(lab: api.Lab, tmp_path: Path, victim: str) -> None:
    """Whoever is killed while a pod terminates, it ends, and nothing of it stays; the others are as before."""
    going, staying = sorted(pods(lab))
    delete(lab, going, wait=False)
    found: process.ProcessId = getattr(state.read(lab.built.folder), victim)
    os.kill(found.pid, signal.SIGKILL)
    until(lambda: not process.is_alive(found), "its end")
    (tmp_path / f"end-{going}").touch()
    lab.follow()
    until(lambda: going not in pods(lab), "the pod's end")
    until(
        lambda: f"svcnat.{lab.built.name}.default.{going}" not in namespaces_of(lab.built.name), "its namespace's end"
    )
    until(lambda: not lab.wait() and answers(lab) == set(pods(lab)), "all that answer")
    assert staying in pods(lab)


def test_nobody_is_turned_away(lab: api.Lab, tmp_path: Path) -> None:
    """While pods with processes are deleted and replaced, one after another, every connection is answered."""
    stop, failures = tmp_path / "stop", []

    def ask() -> int:
        count = 0
        while not stop.exists() and count < 100_000:
            failures.extend(answers_of(address))
            count += 1
        return count

    def answers_of(address: str) -> list[str]:
        try:
            return [] if ask_tcp(address) else ["nothing"]
        except OSError as error:
            return [repr(error)]

    with lab.read() as snapshot:
        address = str(snapshot.get(Service, "default", "web").spec.cluster_ip)  # type: ignore[union-attr]
    asking = _beside(lambda: lab.run("client", ask))
    for name in sorted(pods(lab)):
        delete(lab, name, grace=1)
        assert not lab.wait()
    stop.touch()
    assert asking() > 10
    assert failures == []


def _beside(function: Callable[[], int]) -> Callable[[], int]:
    """Call a function in a thread; the answer waits for its result."""
    from concurrent.futures import ThreadPoolExecutor

    pool = ThreadPoolExecutor(1)
    result = pool.submit(function)
    pool.shutdown(wait=False)
    return lambda: result.result(60)

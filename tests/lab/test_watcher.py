"""What happens in a lab between commands: pods that others made or deleted, containers that end, probes, killings."""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import svcnat
from svcnat import api
from svcnat.kernel import netns
from svcnat.lab import kubelet, labs, process, state, watcher
from svcnat.lab.process import ProcessId
from svcnat.model.objects import Pod, Service
from svcnat.model.pods import is_ready
from tests.agents import until
from tests.lab.conftest import namespaces_of, unused_name
from tests.lab.pods import ask_tcp

pytestmark = pytest.mark.packets

TOPOLOGY = """\
apiVersion: svcnat.io/v1alpha1
kind: Topology
restartBackoffSeconds: 0.1
dns: false
images:
  redis: [REDIS, --protected-mode, "no", --save, ""]
  nginx: [nginx, -c, CONFIG]
"""
SERVICE = """\
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: web}, ports: [{port: 80}]}
"""
POD = """\
---
apiVersion: v1
kind: Pod
metadata: {name: NAME, labels: {app: web}}
spec: {containers: [{name: main, image: x, ports: [{containerPort: 80}]}]}
"""
PROGRAM = """\
---
apiVersion: v1
kind: Pod
metadata: {name: NAME, labels: {app: NAME}}
spec: {terminationGracePeriodSeconds: 1, containers: [{name: main, image: x, command: [sh, -c, 'SCRIPT']}]}
"""

Up = Callable[..., api.Lab]


@pytest.fixture
def up(runtime: Path, tmp_path: Path) -> Iterator[Up]:
    """A function that builds labs of manifests; nothing of them is left after the test."""
    built: list[api.Lab] = []

    def build(manifests: str = SERVICE + POD.replace("NAME", "a")) -> api.Lab:
        file = tmp_path / "lab.yml"
        topology = TOPOLOGY.replace("CONFIG", str(tmp_path / "nginx.conf")).replace("REDIS", str(tmp_path / REDIS_NAME))
        file.write_text(topology + manifests)
        built.append(api.Lab.up(unused_name(), file))
        return built[-1]

    yield build
    for lab in built:
        processes = recorded(lab) if lab.built.folder.exists() else []
        lab.close()
        if lab.built.folder.exists():
            lab.down()
        assert not any(process.is_alive(each) for each in processes)
        assert namespaces_of(lab.built.name) == []
        assert not list(process.running("svcnat.lab.watcher", str(lab.built.folder)))


def recorded(lab: api.Lab) -> list[ProcessId]:
    """The processes of a lab: stand-ins, agent, supervisor and watcher, as far as it has them."""
    record = state.read(lab.built.folder)
    return [each for each in (record.standin, record.agent, record.supervisor, record.watcher) if each]


def pod(name: str, script: str = "") -> str:
    return PROGRAM.replace("NAME", name).replace("SCRIPT", script) if script else POD.replace("NAME", name)


def create(lab: api.Lab, text: str) -> None:
    """Put objects into the store, and do nothing else, as another program would."""
    with lab.built.store.transaction() as transaction:
        for manifest in svcnat.load(text=text).manifests:
            transaction.create(manifest.document)


def found(lab: api.Lab, name: str) -> Pod:
    with lab.read() as snapshot:
        pod = snapshot.get(Pod, "default", name)
    assert pod is not None
    return pod


def status(lab: api.Lab, name: str) -> tuple[int, str]:
    """How often the container of a pod was started again, and its state."""
    (container,) = found(lab, name).status.container_statuses
    now = "running" if container.state.running else "waiting" if container.state.waiting else "terminated"
    return container.restart_count or 0, now


def answer(lab: api.Lab, service: str = "web") -> str:
    """The pod that answers a client of a Service; "" if none does."""
    with lab.read() as snapshot:
        address = str(snapshot.get(Service, "default", service).spec.cluster_ip)  # type: ignore[union-attr]
    try:
        return lab.run("client", lambda: ask_tcp(address)).partition(" ")[0]
    except OSError:
        return ""


def kill(victim: ProcessId) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(victim.pid, signal.SIGKILL)
    until(lambda: not process.is_alive(victim), "its end")


def test_pods_that_others_make_and_delete(up: Up) -> None:
    """Whoever writes to the store, pods start, are served and end, without a command."""
    lab = up(SERVICE)
    create(lab, pod("a") + pod("b", "echo here; exec sleep 1000"))
    until(lambda: is_ready(found(lab, "a")) and is_ready(found(lab, "b")), "their start")
    until(lambda: answer(lab) == "a", "traffic")
    with lab.built.store.transaction() as transaction:
        transaction.delete(Pod, "default", "a")
        transaction.delete(Pod, "default", "b")
    until(lambda: len(namespaces_of(lab.built.name)) == 3, "their end")
    until(lambda: kubelet.is_settled(lab.built), "peace")


def test_containers_that_end_are_told_of(up: Up) -> None:
    """The store says how containers fare, soon after it happened, and endpoints follow."""
    lab = up(pod("a", "exec sleep 1000"))
    inode = lab.built.netns_of("a").stat().st_ino
    assert status(lab, "a") == (0, "running")
    (victim,) = inhabitants(inode)
    os.kill(victim, signal.SIGKILL)
    until(lambda: status(lab, "a") == (1, "running"), "its restart")
    assert is_ready(found(lab, "a"))


def inhabitants(inode: int) -> list[int]:
    """The processes in a network namespace."""
    there = []
    for folder in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if folder.name.isdecimal() and (folder / "ns/net").stat().st_ino == inode:
                there.append(int(folder.name))
    return there


def test_deleting_waits_for_the_time_of_grace(up: Up) -> None:
    """A command that deletes a pod returns when it has ended; one that replaces it does not."""
    stubborn = pod("a", 'trap "" TERM; echo ready; while :; do sleep 0.05; done')
    lab = up(stubborn)
    until(lambda: len(inhabitants(lab.built.netns_of("a").stat().st_ino)) >= 1, "its process")
    lab.delete([(Pod, "default", "a")])
    assert len(namespaces_of(lab.built.name)) == 3
    assert state.read(lab.built.folder).pods == {}


def test_deleting_waits_for_what_the_watcher_has_begun(up: Up, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pod that the watcher took out of the store still has its namespace: the command sees to that, too."""
    lab = up(pod("a", 'trap "" TERM; echo ready; while :; do sleep 0.05; done'))
    see_off = lab._see_off

    def late() -> None:
        if watcher := state.read(lab.built.folder).watcher:
            kill(watcher)
        until(lambda: not kubelet.retire(lab.built).ending, "the end of its process")
        see_off()

    monkeypatch.setattr(lab, "_see_off", late)
    lab.delete([(Pod, "default", "a")])
    assert len(namespaces_of(lab.built.name)) == 3
    assert state.read(lab.built.folder).pods == {}


def test_a_container_that_comes_back_proves_itself_again(up: Up, tmp_path: Path) -> None:
    """While it waits for its next start it is not ready, and not after it until its probe succeeds."""
    script = f"while ! test -e {tmp_path}/end; do sleep 0.05; done; exit 1"
    probe = f"readinessProbe: {{exec: {{command: [test, -e, {tmp_path}/well]}}, periodSeconds: 1}}, image: x"
    (tmp_path / "well").touch()
    lab = up(pod("a", script).replace("image: x", probe))
    assert is_ready(found(lab, "a"))
    (tmp_path / "well").unlink()
    (tmp_path / "end").touch()
    until(lambda: status(lab, "a")[1] == "waiting", "its end")
    assert not is_ready(found(lab, "a"))
    (tmp_path / "end").unlink()
    until(lambda: status(lab, "a")[1] == "running", "its restart")
    assert not is_ready(found(lab, "a"))
    (tmp_path / "well").touch()
    until(lambda: is_ready(found(lab, "a")), "its probe")


@pytest.mark.parametrize("order", list(itertools.permutations(range(4)))[::5])
def test_whatever_is_killed_the_next_command_repairs(up: Up, order: tuple[int, ...]) -> None:
    """Stand-ins, agent, supervisor and watcher, in any order: afterwards all run, and every pod serves."""
    lab = up(SERVICE + pod("a") + pod("b", "exec sleep 1000"))
    victims = recorded(lab)
    assert len(victims) == 4
    for position in order:
        kill(victims[position])
    lab.apply(svcnat.load(text=pod("c")))
    assert all(process.is_alive(each) for each in recorded(lab))
    assert len(recorded(lab)) == 4
    assert {answer(lab) for _ in range(50)} == {"a", "c"}
    assert status(lab, "b")[1] == "running"
    until(lambda: len(inhabitants(lab.built.netns_of("b").stat().st_ino)) == 1, "its process")


def test_one_watcher_a_lab(up: Up) -> None:
    """A second one ends at once; one that was killed is replaced by the next command; all go with the store."""
    lab = up()
    first = state.read(lab.built.folder).watcher
    assert first is not None
    until(lambda: (lab.built.folder / "watcher.lock").exists(), "its start")
    second = process.start(["svcnat.lab.watcher", str(lab.built.folder)], lab.built.folder / watcher.LOG)
    until(lambda: not process.is_alive(second), "its end")
    assert process.is_alive(first)
    kill(first)
    lab.follow()
    third = state.read(lab.built.folder).watcher
    assert third is not None
    assert third != first
    until(lambda: (lab.built.folder / "watcher.lock").exists(), "its start")
    (lab.built.folder / state.STORE).rename(lab.built.folder / "elsewhere")
    until(lambda: not process.is_alive(third), "its end")


def test_down_ends_a_watcher_that_nobody_recorded(up: Up) -> None:
    """Found by its command line."""
    lab = up()
    record = state.read(lab.built.folder)
    state.write(lab.built.folder, state.Record(record.boot, record.topology, record.standin, record.agent))
    lab.down()
    assert record.watcher is not None
    assert not process.is_alive(record.watcher)


def test_all_labs_go_down(up: Up) -> None:
    """What `lab down --all` does, for labs with programs whose folder is gone, too."""
    lab = up(pod("a", "exec sleep 1000"))
    processes = recorded(lab)
    shutil.rmtree(lab.built.folder)
    labs.down(lab.built.name)
    for each in processes:
        until(lambda each=each: not process.is_alive(each), "its end")  # type: ignore[misc]


# Debian's package redis-tools has the program without the service: redis-check-rdb is redis-server by another name.
REDIS_PROGRAM = shutil.which("redis-server") or shutil.which("redis-check-rdb")
REDIS_NAME = "redis-server"
needs_redis = pytest.mark.skipif(
    not REDIS_PROGRAM or not shutil.which("redis-cli"), reason="needs redis-server and redis-cli"
)
needs_nginx = pytest.mark.skipif(
    not shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin") or not shutil.which("curl"),
    reason="needs nginx and curl",
)

REDIS = """\
---
apiVersion: v1
kind: Service
metadata: {name: cache}
spec: {selector: {app: cache}, ports: [{port: 6379}]}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: cache}
spec:
  selector: {matchLabels: {app: cache}}
  template:
    metadata: {labels: {app: cache}}
    spec:
      containers:
      - name: redis
        image: docker.io/library/redis:7-alpine
        ports: [{containerPort: 6379}]
        readinessProbe: {exec: {command: [redis-cli, ping]}, periodSeconds: 1}
"""


@needs_redis
def test_a_real_redis_behind_a_cluster_ip(up: Up, tmp_path: Path) -> None:
    """Clients outside reach it; killed, it leaves the endpoints, is started again, and serves as before."""
    (tmp_path / REDIS_NAME).symlink_to(str(REDIS_PROGRAM))
    lab = up(REDIS)
    with lab.read() as snapshot:
        address = str(snapshot.get(Service, "default", "cache").spec.cluster_ip)  # type: ignore[union-attr]
        (name,) = (each.metadata.name for each in snapshot.list(Pod))

    def redis(*words: str, where: str = "client") -> str:
        command = ["timeout", "10", "redis-cli", "-h", address, *words]
        done = lab.exec(where, command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        return str(done.stdout.decode())

    until(lambda: redis("set", "color", "blue") == "OK\n", "its first answer")
    assert redis("get", "color", where=name) == "blue\n"
    redis("shutdown", "nosave")
    until(lambda: status(lab, name) == (1, "running"), "its restart")
    until(lambda: redis("get", "color") == "\n", "a new server")


NGINX = """\
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: web}, ports: [{port: 80, targetPort: http}]}
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
      containers:
      - name: nginx
        image: nginx:1.25
        ports: [{name: http, containerPort: 8080}]
        readinessProbe: {httpGet: {port: http}, periodSeconds: 1}
"""
CONFIGURATION = """\
daemon off;
user root;
pid FOLDER/nginx.pid;
error_log stderr;
events {}
http {
    client_body_temp_path FOLDER/body;
    proxy_temp_path FOLDER/proxy;
    fastcgi_temp_path FOLDER/fastcgi;
    uwsgi_temp_path FOLDER/uwsgi;
    scgi_temp_path FOLDER/scgi;
    access_log /dev/stdout;
    server { listen 8080; location / { return 200 "$hostname\\n"; } }
}
"""


@needs_nginx
def test_a_real_nginx_behind_a_cluster_ip(up: Up, tmp_path: Path) -> None:
    """Both pods answer, each with its host name; a deleted one is replaced; the log tells of the requests."""
    # Without a word, nginx changes the owner of the machine's folders, which a user namespace does not allow; and its
    # pid file, which it removes at its end, must never be a device.
    (tmp_path / "nginx.conf").write_text(CONFIGURATION.replace("FOLDER", str(tmp_path)))
    lab = up(NGINX)
    with lab.read() as snapshot:
        address = str(snapshot.get(Service, "default", "web").spec.cluster_ip)  # type: ignore[union-attr]
        pods = {each.metadata.name for each in snapshot.list(Pod)}

    def ask() -> str:
        command = ["curl", "--silent", "--max-time", "5", f"http://{address}/"]
        return str(lab.exec("client", command, stdout=subprocess.PIPE).stdout.decode().strip())

    assert {ask() for _ in range(40)} == pods
    gone = min(pods)
    lab.delete([(Pod, "default", gone)])
    assert not netns.exists(f"svcnat.{lab.built.name}.default.{gone}")
    lab.wait()
    with lab.read() as snapshot:
        now = {each.metadata.name for each in snapshot.list(Pod)}
    assert len(now) == 2
    assert gone not in now
    assert {ask() for _ in range(40)} == now
    (log,) = (lab.built.folder / "logs" / found(lab, max(now & pods)).metadata.uid / "nginx").glob("*.log")
    assert '"GET / HTTP/1.1" 200' in log.read_text()

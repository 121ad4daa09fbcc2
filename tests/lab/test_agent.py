"""The agent of a lab: a process of its own that starts, lives and ends with the lab, whatever happens to it."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import svcnat
from svcnat import api
from svcnat.agent.control import AgentState, socket_of_state
from svcnat.errors import BusyError, LabError, UnfollowedError
from svcnat.kernel import lock, netns
from svcnat.lab import agent, listing, process, state
from svcnat.lab.process import ProcessId
from tests.agents import until
from tests.lab.conftest import NAMELESS, namespaces_of, unused_name
from tests.processes import ending

pytestmark = pytest.mark.packets

SERVICE = """\
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

Up = Callable[..., api.Lab]


@pytest.fixture
def up(runtime: Path, tmp_path: Path) -> Iterator[Up]:
    """A function that builds labs of manifests; nothing of them is left after the test."""
    built: list[api.Lab] = []

    def build(manifests: str = SERVICE + POD.replace("NAME", "a")) -> api.Lab:
        file = tmp_path / "lab.yml"
        file.write_text(NAMELESS + manifests)
        built.append(api.Lab.up(unused_name(), file))
        return built[-1]

    yield build
    for lab in built:
        lab.close()
        if lab.built.folder.exists():
            lab.down()
        assert processes_of(lab.built.name) == []


def processes_of(name: str) -> list[int]:
    """The processes that have a lab's name among their arguments."""
    found = []
    for folder in Path("/proc").iterdir():
        try:
            command = (folder / "cmdline").read_bytes() if folder.name.isdecimal() else b""
        except OSError:
            continue
        if any(name.encode() in word for word in command.split(b"\0")):
            found.append(int(folder.name))
    return found


def agent_of(lab: api.Lab) -> ProcessId:
    found = state.read(lab.built.folder).agent
    assert found is not None
    return found


def kill(lab: api.Lab) -> ProcessId:
    """End a lab's agent without a warning, and wait until it is gone."""
    found = agent_of(lab)
    os.kill(found.pid, signal.SIGKILL)
    until(lambda: not process.is_alive(found), "its end")
    return found


def status(lab: api.Lab) -> AgentState:
    return api.status(api.following(lab=lab.built.name))


def summary(lab: api.Lab) -> listing.Summary:
    (found,) = [each for each in listing.labs() if each.name == lab.built.name]
    return found


def endpoints(lab: api.Lab) -> list[str]:
    """The addresses that the rules of the first node send to."""
    ((_, plan),) = lab.plans()
    return sorted(each[0] for port in plan.services["default", "web"] for each in port.endpoints.serving)


def test_every_lab_has_an_agent(up: Up) -> None:
    """It keeps the rules while the lab is up; down leaves no process, socket, file or namespace of it."""
    lab = up()
    found = agent_of(lab)
    assert process.is_alive(found)
    assert lab.attended
    assert summary(lab).attended
    told = status(lab)
    assert (told.pid, told.troubles) == (found.pid, ())
    assert [(each.node, each.state, each.different, each.endpoints) for each in told.targets] == [
        ("node-1", "synced", (), 1)
    ]
    assert lock.holder(f"svcnat.{lab.built.name}.node-1") == lock.Holder(
        found.pid, os.getuid(), str(lab.built.store.path)[:93]
    )
    assert "following" in (lab.built.folder / agent.LOG).read_text()
    lab.down()
    assert not process.is_alive(found)
    assert processes_of(lab.built.name) == namespaces_of(lab.built.name) == []
    assert not socket_of_state(lab.built.store.path).exists()
    assert not lab.built.folder.exists()


def test_changes_are_the_agents(up: Up) -> None:
    """A change returns when the agent has made its rules; the agent that was there goes on."""
    lab = up()
    before = agent_of(lab)
    changed = lab.apply(svcnat.load(text=POD.replace("NAME", "b")))
    assert [report.warnings for report in changed.reports] == [()]
    told = status(lab)
    assert told.targets[0].endpoints == 2
    assert told.targets[0].different == ()
    with lab.read() as snapshot:
        assert told.revision == snapshot.revision
    assert agent_of(lab) == before


def test_an_agent_that_died_is_started_again(up: Up) -> None:
    """A list and the status tell of it, reading starts nothing; the next change has another agent."""
    lab = up()
    dead = kill(lab)
    assert not lab.attended
    assert not summary(lab).attended
    assert (status(lab).pid, status(lab).targets[0].different) == (0, ())
    with lab.read() as snapshot:
        assert snapshot.revision
    assert not lab.attended
    lab.apply(svcnat.load(text=POD.replace("NAME", "b")))
    assert agent_of(lab) != dead
    assert (status(lab).pid, status(lab).targets[0].endpoints) == (agent_of(lab).pid, 2)
    kill(lab)
    lab.follow()
    assert lab.attended


@pytest.mark.parametrize("how", ["killed", "stopped", "never started", "unrecorded"])
def test_down_leaves_nothing_of_it(up: Up, how: str) -> None:
    """Killed, hung, never there, or there without a record: nothing of it is left."""
    lab = up()
    found = agent_of(lab)
    record = state.read(lab.built.folder)
    if how in {"killed", "never started"}:
        kill(lab)
        assert socket_of_state(lab.built.store.path).exists()
    if how == "stopped":
        os.kill(found.pid, signal.SIGSTOP)
    if how in {"never started", "unrecorded"}:
        state.write(lab.built.folder, state.Record(record.boot, record.topology, record.standin))
    lab.down()
    assert not process.is_alive(found)
    assert processes_of(lab.built.name) == []
    assert not socket_of_state(lab.built.store.path).exists()


def test_a_change_survives_the_death_of_the_agent_that_it_waits_for(up: Up) -> None:
    """Killed with the request in its hands, it leaves it to another agent."""
    lab = up()
    found = agent_of(lab)
    os.kill(found.pid, signal.SIGSTOP)
    waiting = threading.Thread(target=lambda: changes.append(change(lab.built.name)))
    changes: list[api.Changed] = []
    waiting.start()
    until(lambda: served(lab, "b"), "a pod that runs")
    kill(lab)
    waiting.join()
    assert len(changes) == 1
    assert agent_of(lab) != found
    assert (status(lab).pid, status(lab).targets[0].endpoints) == (agent_of(lab).pid, 2)


def change(name: str) -> api.Changed:
    """A change by another thread, which has the lab for itself."""
    with api.Lab.find(name) as lab:
        return lab.apply(svcnat.load(text=POD.replace("NAME", "b")))


def served(lab: api.Lab, pod: str) -> bool:
    return f"default/{pod}" in {each.name for each in state.read(lab.built.folder).pods.values()}


def test_one_that_was_started_by_hand_is_as_good(up: Up) -> None:
    """Changes wait for whoever listens; down ends it. A second one beside it says that there is one."""
    lab = up()
    kill(lab)
    command = [sys.executable, "-m", "svcnat", "--lab", lab.built.name, "run"]
    with ending(subprocess.Popen(command, stderr=subprocess.DEVNULL)) as mine:
        until(lambda: lab.attended, "an agent that listens")
        lab.apply(svcnat.load(text=POD.replace("NAME", "b")))
        assert (status(lab).pid, status(lab).targets[0].endpoints) == (mine.pid, 2)
        second = subprocess.run(command, capture_output=True, text=True, check=False)
        assert (second.returncode, f"an agent (pid {mine.pid}) keeps the rules" in second.stderr) == (1, True)
        lab.down()
        assert mine.wait() == 0


def test_an_agent_that_cannot_begin_says_why(up: Up) -> None:
    """What it said last is what the change fails with; the objects are saved, and the next change tries again."""
    lab = up()
    kill(lab)
    with (
        lock.writer(f"svcnat.{lab.built.name}.node-1", agent="another state file"),
        pytest.raises(UnfollowedError, match=rf"(?s)agent of lab {lab.built.name} ended: .*another state file.*"),
    ):
        lab.apply(svcnat.load(text=POD.replace("NAME", "b")))
    lab.follow()
    assert status(lab).targets[0].endpoints == 2


def test_rules_cannot_be_taken_from_an_agent(up: Up) -> None:
    """Cleanup and run --once name the agent that keeps the rules; without it they work."""
    lab = up()
    node = f"svcnat.{lab.built.name}.node-1"
    for function in (lambda: api.cleanup(node), lambda: api.follow_once(api.following(lab=lab.built.name))):
        with pytest.raises(BusyError, match=rf"an agent \(pid {agent_of(lab).pid}\) keeps the rules"):
            function()
    kill(lab)
    assert api.cleanup(node).families == ("ip",)
    assert api.follow_once(api.following(lab=lab.built.name)).targets[0].endpoints == 1


def test_the_agent_of_a_lab_that_is_never_finished_ends(runtime: Path) -> None:
    """Whoever builds the lab is killed before the record is written, or takes the lab down again."""
    for finish in (lambda folder: None, shutil.rmtree):
        folder = state.folder_of(unused_name())
        with state.locked(folder, create=True):
            found = agent.start(folder)
            until(lambda found=found: waits_for_lock(found.pid), "the end of its imports")
            assert process.is_alive(found)
            log = (folder / agent.LOG).open()
            finish(folder)
        until(lambda found=found: not process.is_alive(found), "its end")
        with log:
            assert f"error: lab {folder.name} " in log.read()
        shutil.rmtree(folder, ignore_errors=True)


def waits_for_lock(pid: int) -> bool:
    """True if a process waits for a lock of a file (proc_locks(5))."""
    return any(
        words[1] == "->" and words[5] == str(pid)
        for words in (line.split() for line in Path("/proc/locks").read_text().splitlines())
    )


def test_a_lab_that_cannot_be_built_leaves_no_agent(runtime: Path) -> None:
    """It is ended by whoever started it."""
    name = unused_name()
    script = """
import sys
from pathlib import Path
from svcnat.errors import KernelError
from svcnat.kernel import netns
from svcnat.lab.labs import Lab
assert netns.isolate_run()
Path("/proc/sys/user/max_net_namespaces").write_text("2")
try:
    Lab.up(sys.argv[1], attended=True)
except KernelError as error:
    children = Path("/proc/thread-self/children").read_text().split()
    print(error, [running for each in children if (running := Path("/proc", each, "cmdline").read_bytes())])
"""
    command = ["unshare", "-rnm", sys.executable, "-c", script, name]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stdout == f'cannot create network namespace "svcnat.{name}.node-1": No space left on device []\n'
    assert processes_of(name) == []


def test_it_ends_with_its_labs_folder(up: Up) -> None:
    """Somebody removed the lab by hand: its agent does not stay for ever."""
    lab = up()
    found, standin = agent_of(lab), state.read(lab.built.folder).standin
    lab.close()
    shutil.rmtree(lab.built.folder)
    until(lambda: not process.is_alive(found), "its end")
    assert not socket_of_state(lab.built.store.path).exists()
    assert standin
    until(lambda: not process.is_alive(standin), "the end of the stand-in process")
    for each in namespaces_of(lab.built.name):
        netns.delete(each)


def test_it_has_nothing_of_the_command_that_starts_it(
    up: Up, runtime: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither its choice of state file nor its open files, its folder, its terminal or its supervisor."""
    monkeypatch.setenv("SVCNAT_STATE", "/nowhere/state.db")
    monkeypatch.setenv("SVCNAT_NETNS", "nowhere")
    monkeypatch.setenv("SVCNAT_CONFIG", "/nowhere/config.yaml")
    monkeypatch.chdir(tmp_path)
    with (
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as supervisor,
        (tmp_path / "held").open("w") as held,
    ):
        supervisor.bind("\0svcnat-" + unused_name())
        supervisor.settimeout(0)
        monkeypatch.setenv("NOTIFY_SOCKET", "@" + supervisor.getsockname()[1:].decode())
        os.set_inheritable(held.fileno(), True)
        found = agent_of(up())
        with pytest.raises(BlockingIOError):
            supervisor.recv(100)
    files = files_of(found.pid)
    assert str(tmp_path / "held") not in files
    assert not [each for each in files if each.startswith(("/dev/pts", "/dev/tty"))]
    assert Path(f"/proc/{found.pid}/cwd").readlink() == Path("/")
    assert os.getsid(found.pid) == found.pid


def files_of(pid: int) -> list[str]:
    """What a process has open."""
    found = []
    for each in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # it closes and opens some all the time
            found.append(str(each.readlink()))
    return found


def test_without_its_libraries_a_lab_works_as_before(up: Up, monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands make the rules, and nobody probes: pods are ready when they listen. Later it may have an agent."""
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "aiohttp", None)
        lab = up(SERVICE + POD.replace("NAME", "a").replace("ports:", "readinessProbe: {tcpSocket: {port: 9}}, ports:"))
        assert state.read(lab.built.folder).agent is None
        assert not lab.attended
        assert endpoints(lab) == ["10.244.0.2"]
        lab.apply(svcnat.load(text=POD.replace("NAME", "b")))
        assert endpoints(lab) == ["10.244.0.2", "10.244.0.3"]
        told = status(lab)
        assert (told.pid, told.targets[0].different) == (0, ())
    lab.follow()
    assert lab.attended


def test_a_lab_that_is_gone_has_no_agent(runtime: Path) -> None:
    """Nothing is started for it, and no folder is made."""
    folder = state.folder_of(unused_name())
    with pytest.raises(LabError, match="there is no lab"):
        agent.have(folder)
    with pytest.raises(LabError, match="there is no lab"):
        api.following(lab=folder.name, patient=True)
    assert not folder.exists()

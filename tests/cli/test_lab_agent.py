"""What the verbs say and do about a lab's agent, and how watching learns of changes from it."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from svcnat import api
from svcnat.agent.control import Client, socket_of_state
from svcnat.api.news import News
from svcnat.cli import get
from svcnat.kernel import unix
from svcnat.lab import process, state
from tests.agents import until
from tests.cli.conftest import Result
from tests.lab.conftest import namespaces_of, runtime, unused_name
from tests.processes import ending

__all__ = ["runtime"]  # a fixture

Run = Callable[..., Result]

pytestmark = pytest.mark.packets

POD = """\
apiVersion: v1
kind: Pod
metadata: {name: NAME}
spec: {containers: [{name: c, image: x, ports: [{containerPort: 80}]}]}
"""
PROBED = POD.replace("ports:", "readinessProbe: {exec: {command: ['false']}, periodSeconds: 1}, ports:")


@pytest.fixture
def lab(runtime: Path, svcnat: Run, tmp_path: Path) -> Iterator[str]:
    """A lab of one pod."""
    name = unused_name()
    (tmp_path / "pod.yml").write_text(POD.replace("NAME", "a"))
    assert svcnat("lab", "up", name, "-f", str(tmp_path)).code == 0
    yield name
    assert svcnat("lab", "down", name).code == 0
    assert namespaces_of(name) == []


def kill(name: str) -> None:
    """End a lab's agent without a warning, and wait until it is gone."""
    found = state.read(state.folder_of(name)).agent
    assert found is not None
    os.kill(found.pid, signal.SIGKILL)
    until(lambda: not process.is_alive(found), "its end")


def status_of(svcnat: Run, name: str) -> str:
    lines = [line.split() for line in svcnat("lab", "list", "--no-headers").out.splitlines()]
    return next(line[1] for line in lines if line[0] == name)


def add(name: str, pod: str) -> None:
    """Change a lab without any output that a test would see."""
    with api.Lab.find(name) as lab:
        lab.apply(api.load(text=POD.replace("NAME", pod)))


def test_list_and_status_tell_of_a_missing_agent(svcnat: Run, lab: str, tmp_path: Path) -> None:
    """Until the next change starts another one."""
    assert status_of(svcnat, lab) == "running"
    told = svcnat("--lab", lab, "status")
    assert (told.code, told.out.split()[:2]) == (0, ["Agent:", "pid"])
    assert all(line == line.rstrip() for line in told.out.splitlines())
    kill(lab)
    assert status_of(svcnat, lab) == "running,no-agent"
    told = svcnat("--lab", lab, "status")
    assert (told.code, told.out.splitlines()[0].split()) == (0, ["Agent:", "none", "runs"])
    assert svcnat("--lab", lab, "apply", "-f", str(tmp_path)).code == 0
    assert status_of(svcnat, lab) == "running"


def test_up_tells_of_pods_that_are_not_ready(svcnat: Run, runtime: Path, tmp_path: Path) -> None:
    """After --timeout it is up all the same, and says which pods are not; --timeout is a number."""
    name = unused_name()
    (tmp_path / "pod.yml").write_text(PROBED.replace("NAME", "a"))
    assert svcnat("lab", "up", name, "--timeout", "soon").code == 2
    try:
        up = svcnat("lab", "up", name, "-f", str(tmp_path), "--timeout", "0s")
        warning = f"warning: not ready: default/a: `svcnat --lab {name} describe pods` tells why\n"
        assert up == Result(0, f"lab {name} is up: 1 node, 1 pod, 1 client\n", warning)
    finally:
        svcnat("lab", "down", name)


def test_up_shows_progress_on_a_terminal(runtime: Path, tmp_path: Path) -> None:
    """One line that says how many pods are ready, gone in the end."""
    name = unused_name()
    (tmp_path / "pod.yml").write_text(PROBED.replace("NAME", "a") + "---\n" + POD.replace("NAME", "b"))
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "svcnat", "lab"]
    try:
        up = subprocess.run(
            [*command, "up", name, "-f", str(tmp_path), "--timeout", "1"], stderr=theirs, stdout=subprocess.DEVNULL
        )
        shown = os.read(ours, 65536).decode()
    finally:
        os.close(theirs)
        os.close(ours)
        subprocess.run([*command, "down", name], check=True, stdout=subprocess.DEVNULL)
    assert up.returncode == 0
    text = "waiting for pods: 0 of 1 ready"
    assert shown.startswith(f"\r{text}")
    assert f"\r{' ' * len(text)}\rwarning: not ready: default/a" in shown


def test_up_without_the_agents_libraries_says_so(
    svcnat: Run, runtime: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One line, and a lab that works; no pod waits for a probe."""
    name = unused_name()
    (tmp_path / "pod.yml").write_text(PROBED.replace("NAME", "a"))
    monkeypatch.setitem(sys.modules, "aiohttp", None)
    try:
        up = svcnat("lab", "up", name, "-f", str(tmp_path))
        assert up == Result(
            0,
            f"lab {name} is up: 1 node, 1 pod, 1 client\n",
            f"lab {name} has no agent, which needs pip install '.[agent]': commands make its rules, nobody probes\n",
        )
        assert svcnat("--lab", name, "get", "pods", "--no-headers").out.split()[:3] == ["a", "1/1", "Running"]
        assert status_of(svcnat, name) == "running,no-agent"
        assert svcnat("--lab", name, "delete", "pod", "a") == Result(0, 'pod "a" deleted\n', "")
    finally:
        svcnat("lab", "down", name)


# --- watching --------------------------------------------------------------------------------------------------


def test_watching_does_not_poll_while_an_agent_tells(
    svcnat: Run, lab: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Changes are printed as the agent tells of them; only when it is killed does the watch look by itself."""

    def interrupt(_: float) -> None:
        raise KeyboardInterrupt

    def change() -> None:
        until(lambda: "NAME" in heard(), "the list")
        add(lab, "b")
        until(lambda: "b  " in heard(), "a change")
        kill(lab)

    said: list[str] = []

    def heard() -> str:
        said.append(capsys.readouterr().out)
        return "".join(said)

    changing = threading.Thread(target=change)
    monkeypatch.setattr(get, "time", SimpleNamespace(sleep=interrupt))
    changing.start()
    watched = svcnat("--lab", lab, "get", "pods", "-w")
    changing.join()
    assert watched.code == 130
    names = [line.split()[0] for line in "".join([*said, watched.out]).splitlines()]
    assert (names[:2], set(names[2:])) == (["NAME", "a"], {"b"})


def test_watching_survives_the_agent(lab: str) -> None:
    """Killed, and started again by the next change: every change is printed."""
    command = [sys.executable, "-m", "svcnat", "--lab", lab, "get", "pods", "-w", "--no-headers"]
    with ending(subprocess.Popen(command, stdout=subprocess.PIPE, text=True)) as watching:
        assert watching.stdout
        seen = {watching.stdout.readline().partition(" ")[0]}
        for pod in ("b", "c"):
            kill(lab)
            add(lab, pod)
            while pod not in seen:
                line = watching.stdout.readline()
                assert line, f"no line about {pod}"
                seen.add(line.split()[0])
        watching.send_signal(signal.SIGINT)
        watching.stdout.read()
        assert (watching.wait(), seen) == (130, {"a", "b", "c"})


def test_news_are_an_agents(lab: str, tmp_path: Path) -> None:
    """Nobody there: False at once. An agent: True for every change, and once more when nothing came for long."""
    with News(tmp_path / "none.sock") as nothing:
        assert not nothing.wait(60)
    path = socket_of_state(state.folder_of(lab) / state.STORE)
    with News(path) as news:
        assert news.wait(60)  # it has begun to listen, and knows nothing of before
        assert news.wait(0.01)
        add(lab, "b")
        assert news.wait(60)
        kill(lab)
        until(lambda: not news.wait(60), "the news of its death")
        assert not news.wait(60)
        add(lab, "c")
        assert news.wait(60)


def test_an_agent_that_hangs_keeps_no_watch_waiting(tmp_path: Path) -> None:
    """It took the call and says nothing: whoever waits has to look by itself, as without an agent."""
    with unix.listen(tmp_path / "agent.sock"), News(tmp_path / "agent.sock") as news:
        assert not news.wait(0.01)
        assert not news.wait(0.01)
    assert Client.find(tmp_path / "agent.sock") is None

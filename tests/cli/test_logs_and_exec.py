"""``logs``, ``exec`` and what ``get pods`` tells of containers that are programs, as people type them."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.agents import until
from tests.cli.conftest import Result
from tests.lab.conftest import unused_name
from tests.processes import ending

pytestmark = pytest.mark.packets

MANIFESTS = """\
apiVersion: svcnat.io/v1alpha1
kind: Topology
restartBackoffSeconds: 0.1
---
apiVersion: v1
kind: Pod
metadata: {name: talker}
spec:
  containers:
  - name: main
    image: x
    command: [sh, -c, "for n in 1 2 3; do echo line $n; done; while test ! -e END; do sleep 0.05; done; exit 1"]
    env: [{name: COLOR, value: blue}]
  - name: other
    image: x
    command: [sh, -c, "echo other; exec sleep 1000"]
    env: [{name: COLOR, value: red}]
---
apiVersion: v1
kind: Pod
metadata: {name: stub}
spec: {containers: [{name: main, image: x}]}
"""


@pytest.fixture
def lab(svcnat: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A lab with a pod of two programs, and a stand-in."""
    monkeypatch.setenv("SVCNAT_RUNTIME_DIR", str(tmp_path / "run"))
    (tmp_path / "lab.yml").write_text(MANIFESTS.replace("END", str(tmp_path / "end")))
    name = unused_name()
    assert svcnat("lab", "up", name, "-f", str(tmp_path / "lab.yml")).code == 0
    yield name
    assert svcnat("lab", "down", name).code == 0


def said(*words: str, code: int = 0) -> str:
    """What a command of its own process says, errors included."""
    command = [sys.executable, "-m", "svcnat", *words]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    assert done.returncode == code, done.stdout
    return done.stdout


def test_logs(lab: str, tmp_path: Path) -> None:
    """Whole or its end, of the first container or the one that is named; -f until it ends, -p of the run before."""
    until(lambda: said("logs", "talker") == "line 1\nline 2\nline 3\n", "its words")
    assert said("--lab", lab, "logs", "pod/talker", "--tail", "1") == "line 3\n"
    assert said("logs", "talker", "--tail", "9" * 30).endswith("line 3\n")
    assert "--tail must be greater than or equal to -1" in said("logs", "talker", "--tail=-2", code=2)
    assert said("logs", "talker", "-c", "other") == "other\n"
    assert "container none is not valid for pod talker: it has main, other" in said(
        "logs", "talker", "-c", "none", code=1
    )
    assert 'previous terminated container "main" in pod "talker" not found' in said("logs", "talker", "-p", code=1)
    assert "-f and -p cannot be given together" in said("logs", "talker", "-f", "-p", code=2)
    assert said("logs", "stub") == "container main has no log: what runs is a stand-in, or nothing yet\n"
    assert "no lab has a 'nobody'" in said("logs", "nobody", code=1)
    assert 'pods "nobody" not found' in said("--lab", lab, "logs", "nobody", code=1)
    command = [sys.executable, "-m", "svcnat", "--lab", lab, "logs", "talker", "-f"]
    with ending(subprocess.Popen(command, stdout=subprocess.PIPE, text=True)) as following:
        assert following.stdout
        assert following.stdout.readline() == "line 1\n"
        (tmp_path / "end").touch()
        assert following.stdout.read() == "line 2\nline 3\n"
        assert following.wait() == 0
    until(lambda: said("--lab", lab, "logs", "talker", "-p") == "line 1\nline 2\nline 3\n", "another run")


def test_restarts(lab: str, tmp_path: Path) -> None:
    """``get pods`` counts them, tells how long ago the last one was, and that a container waits for the next."""
    row = said("--lab", lab, "get", "pods", "talker", "--no-headers").split()
    assert row[:4] == ["talker", "2/2", "Running", "0"]
    (tmp_path / "end").touch()

    def waits() -> bool:
        row = said("--lab", lab, "get", "pods", "talker", "--no-headers").split()
        return row[1:3] == ["1/2", "CrashLoopBackOff"] and row[4].startswith("(") and row[5] == "ago)"

    until(waits, "a pause")


def test_exec(lab: str) -> None:
    """In the pod, with the variables of its container; the exit code is the command's."""
    assert said("exec", "talker", "--", "sh", "-c", "echo $COLOR; uname -n") == "blue\ntalker\n"
    assert said("--lab", lab, "exec", "-it", "pod/talker", "-c", "other", "--", "sh", "-c", "echo $COLOR") == "red\n"
    assert said("exec", "stub", "--", "sh", "-c", "exit 3", code=3) == ""
    assert "has no container 'none'" in said("exec", "talker", "-c", "none", "--", "true", code=1)
    assert "say what to run after two dashes: svcnat exec" in said("exec", "talker", code=2)


def test_delete(lab: str, tmp_path: Path) -> None:
    """A pod terminates, and is shown so; flags say how long that may take, and are kubectl's."""
    assert said("--lab", lab, "delete", "pod", "talker", "--wait=false") == 'pod "talker" deleted\n'
    row = said("--lab", lab, "get", "pods", "talker", "--no-headers", "--ignore-not-found").split()
    assert row[2:3] in ([], ["Terminating"])  # the programs end as soon as they are asked to
    until(lambda: said("--lab", lab, "get", "pods", "talker", "--ignore-not-found") == "", "its end")
    assert said("--lab", lab, "delete", "pod", "stub", "--force") == (
        "warning: Immediate deletion does not wait for confirmation that the running resource has been terminated. "
        "The resource may continue to run on the cluster indefinitely.\n"
        'pod "stub" force deleted\n'
    )
    for flags, message in (
        (["--now", "--grace-period", "3"], "--now and --grace-period cannot be specified together"),
        (["--force", "--grace-period=3"], "--force and --grace-period greater than 0 cannot be specified together"),
    ):
        assert message in said("--lab", lab, "delete", "pod", "stub", *flags, code=2)

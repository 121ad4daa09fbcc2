"""The lab's verbs, for real: up, list, exec, down, and --lab with the others."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from svcnat.cli.frame import main
from svcnat.kernel import netns
from svcnat.lab import process, state
from tests.agents import until
from tests.cli.conftest import Result
from tests.lab.conftest import namespaces_of, runtime, unused_name

__all__ = ["runtime"]  # a fixture

Run = Callable[..., Result]

MANIFESTS = """\
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec: {containers: [{name: c, image: x, ports: [{containerPort: 80}]}]}
---
apiVersion: v1
kind: Pod
metadata: {name: client-pod}
spec: {containers: [{name: c, image: x}]}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: web}, ports: [{port: 80}]}
---
apiVersion: svcnat.io/v1alpha1
kind: Topology
clients: 2
---
apiVersion: batch/v1
kind: Job
metadata: {name: once}
"""


@pytest.fixture(scope="module")
def lab(runtime: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A lab that these tests share."""
    name = unused_name()
    manifests = tmp_path_factory.mktemp("manifests") / "web.yml"
    manifests.write_text(MANIFESTS)
    assert main(["lab", "up", name, "-f", str(manifests)]) == 0
    yield name
    main(["lab", "down", name])
    assert namespaces_of(name) == []


def test_up_says_what_is_there(svcnat: Run, runtime: Path, tmp_path: Path) -> None:
    """One line with what was built, one with what was skipped; the topology is no skipped kind."""
    name = unused_name()
    (tmp_path / "web.yml").write_text(MANIFESTS)
    try:
        up = svcnat("lab", "up", name, "-f", str(tmp_path))
        assert up == Result(
            0,
            f"lab {name} is up: 1 node, 3 pods, 2 clients\n",
            "skipped, as svcnat has no use for these kinds: Job\n",
        )
        again = svcnat("lab", "up", name)
        assert (again.code, again.err) == (
            1,
            f"error: lab {name} exists already: `svcnat lab down {name}` removes it\n",
        )
    finally:
        down = svcnat("lab", "down", name)
    assert down == Result(0, f"lab {name} is down\n", "")
    assert namespaces_of(name) == []


def test_up_takes_manifests_by_flag(svcnat: Run, runtime: Path) -> None:
    """Who leaves out -f is told so, whether or not there is a name; nothing is built."""
    for words in (("folder/",), ("demo", "folder/"), ("demo", "-v", "folder/")):
        result = svcnat("lab", "up", *words)
        message = "error: folder/ is not the lab's name: if these are manifests, say -f folder/\n"
        assert (result.code, result.err) == (2, message)


def test_a_bad_manifest_builds_nothing(svcnat: Run, runtime: Path, tmp_path: Path) -> None:
    """Every finding is said, and there is no lab."""
    name = unused_name()
    (tmp_path / "bad.yml").write_text("kind: Service\n")
    assert svcnat("lab", "up", name, "-f", str(tmp_path)).code == 1
    assert namespaces_of(name) == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_up_that_is_told_to_end_leaves_nothing(runtime: Path, tmp_path: Path, number: signal.Signals) -> None:
    """As timeout(1) and terminals do: what was built by then is taken down."""
    name = unused_name()
    folder, manifests = state.folder_of(name), tmp_path / "web.yml"
    manifests.write_text(MANIFESTS)
    building = subprocess.Popen([sys.executable, "-m", "svcnat", "lab", "up", name, "-f", str(manifests)])
    until(folder.exists, "its beginning")
    building.send_signal(number)
    code = building.wait()
    if code == 0:  # it was faster
        assert main(["lab", "down", name]) == 0
    else:
        assert code == 128 + number
    assert not folder.exists()
    assert not namespaces_of(name)


def test_list_shows_labs(svcnat: Run, lab: str) -> None:
    """Name, status, and how many nodes and pods."""
    result = svcnat("lab", "list")
    assert result.out.splitlines()[0].split() == ["NAME", "STATUS", "NODES", "PODS"]
    assert [lab, "running", "1", "3"] in [line.split() for line in result.out.splitlines()]
    assert [lab, "running", "1", "3"] in [
        line.split() for line in svcnat("lab", "list", "--no-headers").out.splitlines()
    ]


def test_other_verbs_work_on_the_lab(svcnat: Run, lab: str) -> None:
    """--lab stands for the lab's state and nodes."""
    assert svcnat("--lab", lab, "get", "pods", "--no-headers").out.count(" Running ") == 3
    assert svcnat("get", "nodes", "--lab", lab).out.splitlines()[1].split()[1] == "Ready"
    assert "Connections:" in svcnat("describe", "svc", "web", "--lab", lab).out


def test_a_labs_manifests_can_be_applied_again(svcnat: Run, lab: str, tmp_path: Path) -> None:
    """Their topology has been read by the lab: it is no kind without use."""
    (tmp_path / "web.yml").write_text(MANIFESTS)
    again = svcnat("--lab", lab, "apply", "-f", str(tmp_path))
    assert again.err == "skipped, as svcnat has no use for these kinds: Job\n"


@pytest.mark.packets
def test_exec_runs_inside(lab: str, capfd: pytest.CaptureFixture[str]) -> None:
    """A pod reaches the service; the command's exit code is ours."""
    capfd.readouterr()
    assert main(["get", "svc", "web", "-o", "jsonpath={.spec.clusterIP}", "--lab", lab]) == 0
    address = capfd.readouterr().out
    program = (
        f"import socket; s = socket.create_connection(('{address}', 80), 5); "
        "s.sendall(b'GET / HTTP/1.0\\r\\n\\r\\n'); print(s.recv(9999))"
    )
    assert main(["lab", "exec", "client-pod", "--", sys.executable, "-c", program]) == 0
    assert " saw " in capfd.readouterr().out
    assert main(["lab", "exec", "--lab", lab, "node-1", "--", "sh", "-c", "exit 7"]) == 7
    assert main(["lab", "exec", "--lab", lab, "client-2", "--", "sh", "-c", "kill -9 $$"]) == 137


def test_signals_are_the_commands(lab: str) -> None:
    """Ctrl-C does not end us before a command that goes on; a request to end is passed on."""
    program = "import sys; from svcnat.cli.frame import main; sys.exit(main(sys.argv[1:]))"
    script = "trap 'echo ended; exit 9' TERM; echo up; while :; do sleep 0.05; done"
    running = subprocess.Popen(
        [sys.executable, "-c", program, "lab", "exec", "--lab", lab, "client-pod", "--", "sh", "-c", script],
        stdout=subprocess.PIPE,
        text=True,
    )
    with running:
        assert running.stdout.readline() == "up\n"
        running.send_signal(signal.SIGINT)
        with pytest.raises(subprocess.TimeoutExpired):
            running.wait(0.3)
        running.terminate()
        assert running.communicate()[0] == "ended\n"
    assert running.returncode == 9


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("nobody", "--", "true"), 1, "no lab has a 'nobody'"),
        (("client-pod", "--", "no-such-command"), 1, "no-such-command"),
        (("client-pod",), 2, "two dashes: svcnat lab exec"),
        (("client-pod", "ls", "-l"), 2, "two dashes: svcnat lab exec"),
        (("demo", "client-pod", "--", "true"), 2, "which lab by --lab LAB: svcnat --lab LAB exec WHERE"),
        (("--lab", "none", "client-pod", "--", "true"), 1, "none"),
    ],
)
def test_exec_says_what_is_wrong(svcnat: Run, lab: str, arguments: tuple[str, ...], code: int, message: str) -> None:
    """One line, and the right code."""
    result = svcnat("lab", "exec", *arguments)
    assert (result.code, result.out) == (code, "")
    assert message in result.err
    assert result.err.count("\n") == 1


def test_nodes_fail_and_come_back(svcnat: Run, lab: str) -> None:
    """Each verb says what became of each node; what is so already is said to be."""
    said = [
        (("lab", "node", "stop", "node-1"), "node/node-1 stopped"),
        (("lab", "node", "stop", "node-1"), "node/node-1 already stopped"),
        (("lab", "node", "start", "node-1"), "node/node-1 started"),
        (("lab", "node", "start", "node-1"), "node/node-1 already started"),
        (("lab", "node", "partition", "node-1"), "node/node-1 cut off from all others"),
        (("lab", "node", "partition", "node-1", "--from", "client,client-2"), "cut off from client, client-2"),
        (("lab", "node", "heal", "node-1"), "node/node-1 reaches everybody"),
        (("lab", "node", "heal", "--all"), "client-2 reaches everybody"),
        (("cordon", "node-1"), "node/node-1 cordoned"),
        (("cordon", "node/node-1"), "node/node-1 already cordoned"),
        (("get", "nodes"), "Ready,SchedulingDisabled"),
        (("uncordon", "node-1"), "node/node-1 uncordoned"),
    ]
    for arguments, line in said:
        result = svcnat("--lab", lab, *arguments)
        assert (result.code, result.err) == (0, "")
        assert line in result.out
    for arguments, code, message in (
        (("lab", "node", "stop", "nope"), 1, "has no node 'nope': it has node-1"),
        (("lab", "node", "heal"), 2, "say which nodes, or --all"),
        (("lab", "node"), 2, "'svcnat lab node' needs one of: stop, start, partition, heal"),
        (("cordon", "nope"), 1, 'nodes "nope" not found'),
    ):
        result = svcnat("--lab", lab, *arguments)
        assert result.code == code
        assert message in result.err


def test_a_pod_of_a_node_that_is_off_is_not_unknown(svcnat: Run, lab: str) -> None:
    """What is missing is the node's power, and the command that brings it back is said, with and without --lab."""
    assert svcnat("--lab", lab, "lab", "node", "stop", "node-1").code == 0
    hint = f"node node-1 of lab {lab} is off: `svcnat --lab {lab} lab node start node-1` starts it\n"
    for flags in ((), ("--lab", lab)):
        pod = svcnat(*flags, "lab", "exec", "client-pod", "--", "true")
        assert (pod.code, pod.err) == (1, f"error: pod client-pod does not run: {hint}")
        node = svcnat(*flags, "lab", "exec", "node-1", "--", "true")
        assert (node.code, node.err) == (1, f"error: {hint}")
    assert svcnat("--lab", lab, "lab", "node", "start", "node-1").code == 0


def test_an_ambiguous_place_is_an_error(svcnat: Run, lab: str) -> None:
    """Every lab has a client: without --lab one must not be picked."""
    other = unused_name()
    try:
        assert svcnat("lab", "up", other).code == 0
        result = svcnat("lab", "exec", "client", "--", "true")
        assert result.code == 1
        assert "several labs have a 'client'" in result.err
    finally:
        svcnat("lab", "down", other)


def test_down_needs_a_lab_that_is_there(svcnat: Run, lab: str) -> None:
    """Without a name it means the lab that up makes without a name, never somebody else's."""
    assert svcnat("lab", "down").code == 1
    assert svcnat("lab", "down", "x", "--all").code == 2
    assert netns.exists(f"svcnat.{lab}.node-1")


def test_cleanup_covers_every_node(svcnat: Run, runtime: Path, tmp_path: Path) -> None:
    """Cleanup with --lab names the agent that keeps the rules; without it, the tables of all nodes are removed."""
    name = unused_name()
    (tmp_path / "web.yml").write_text(MANIFESTS.replace("clients: 2", "nodes: [{name: a}, {name: b}]"))
    try:
        assert svcnat("lab", "up", name, "-f", str(tmp_path)).code == 0
        agent = state.read(state.folder_of(name)).agent
        assert agent is not None
        refused = svcnat("cleanup", "--lab", name)
        assert (refused.code, refused.out) == (1, "")
        assert f"an agent (pid {agent.pid}) keeps the rules" in refused.err
        process.stop([agent])
        assert svcnat("cleanup", "--lab", name).out == "table ip svcnat removed\ntable ip6 svcnat removed\n" * 2
    finally:
        svcnat("lab", "down", name)

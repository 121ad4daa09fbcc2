"""Labs: all or nothing when they go up, nothing when they are down, and no two in each other's way."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from svcnat.errors import KernelError, LabError
from svcnat.kernel import netns, sysctl
from svcnat.lab import kubelet, labs, listing, names, process, state, topology
from svcnat.lab.labs import Lab
from svcnat.model.objects import Node
from tests.lab.conftest import BuildLab, namespaces_of, unused_name
from tests.lab.pods import create, pod
from tests.processes import ending

pytestmark = pytest.mark.packets


def test_a_lab_leaves_nothing(build_lab: BuildLab) -> None:
    """After down there is no namespace, process or file; what ran inside has ended, and other labs are as they were."""
    other, lab = build_lab(), build_lab(topology.simple(nodes=2, clients=2))
    create(lab, pod("a"))
    kubelet.start(lab)
    standin = state.read(lab.folder).standin
    assert standin is not None
    assert process.is_alive(standin)
    with ending(lab.spawn("client-2", ["sleep", "600"])) as sleeping:
        lab.down()
        assert sleeping.wait() == -signal.SIGTERM
    assert not process.is_alive(standin)
    assert namespaces_of(lab.name) == []
    assert not lab.folder.exists()
    assert len(namespaces_of(other.name)) == 3
    with pytest.raises(LabError, match=f"there is no lab {lab.name}: `svcnat lab list` names those that run"):
        labs.down(lab.name)


def test_a_lab_is_found_again(build_lab: BuildLab) -> None:
    """Lab.open gives what Lab.up gave: nodes, clients, topology and store."""
    plan = topology.simple(nodes=2, clients=2)
    lab = build_lab(plan)
    with Lab.open(lab.name) as found:
        assert found.topology == plan
        assert found.nodes == lab.nodes
        assert [name for name, _ in found.nodes] == ["node-1", "node-2"]
        assert [str(path) for _, path in found.clients] == [
            f"/run/netns/svcnat.{lab.name}.client",
            f"/run/netns/svcnat.{lab.name}.client-2",
        ]
        with found.store.read() as snapshot:
            nodes = snapshot.list(Node)
    assert [node.metadata.name for node in nodes] == ["node-1", "node-2"]
    assert nodes[1].spec.pod_cidrs == ["10.244.1.0/24", "fd00:10:244:1::/64"]
    assert [address.address for address in nodes[1].status.addresses] == ["172.30.0.12", "fd00:172:30::c", "node-2"]


def test_labs_do_not_meet(build_lab: BuildLab, runtime: Path) -> None:
    """Labs with the same addresses go up at the same time; one name is given once."""
    with ThreadPoolExecutor() as pool:
        built = list(pool.map(lambda _: build_lab(), range(3)))
    for lab in built:
        create(lab, pod("a"))
        assert kubelet.start(lab).started == ["default/a"]
    assert {each.name for each in listing.labs()} >= {lab.name for lab in built}
    with pytest.raises(LabError, match=f"lab {built[0].name} exists already"):
        Lab.up(built[0].name)
    assert len(namespaces_of(built[0].name)) == 4


def test_the_namespace_it_is_built_from_is_left_alone(build_lab: BuildLab, empty_netns: str) -> None:
    """No link, address, route, rule or setting of a lab is in the namespace of the command that builds it."""
    with netns.entered(empty_netns):
        before = surroundings()
        lab = build_lab()
        create(lab, pod("a"))
        kubelet.start(lab)
        assert surroundings() == before


def surroundings() -> list[str]:
    """Links, addresses, routes, rules and settings of the thread's network namespace."""
    said = [
        subprocess.run(command, capture_output=True, text=True, check=True).stdout
        for command in (["ip", "address"], ["ip", "route"], ["ip", "-6", "route"], ["nft", "list", "ruleset"])
    ]
    return [*said, sysctl.read("net/ipv4/ip_forward"), sysctl.read("net/ipv6/conf/all/forwarding")]


def test_a_lab_that_cannot_be_built_is_not_there(runtime: Path) -> None:
    """A failure on the way takes down what was built before it, and says why."""
    name = unused_name()
    script = """
import sys
from pathlib import Path
from svcnat.errors import KernelError
from svcnat.kernel import netns, sysctl
from svcnat.lab.labs import Lab
assert netns.isolate_run()
Path("/proc/sys/user/max_net_namespaces").write_text("2")
try:
    Lab.up(sys.argv[1])
except KernelError as error:
    print(error, netns.names())
"""
    done = subprocess.run(
        ["unshare", "-rnm", sys.executable, "-c", script, name], capture_output=True, text=True, check=False
    )
    assert done.stdout == f'cannot create network namespace "svcnat.{name}.node-1": No space left on device []\n'
    assert list((runtime / "labs").glob(name)) == []


FULL = """\
apiVersion: svcnat.io/v1alpha1
kind: Topology
dns: false
---
apiVersion: v1
kind: Pod
metadata: {name: one}
spec:
  containers: [{name: main, image: any, command: [sleep, "1000"], env: [{name: MUCH, value: %s}]}]
"""


@pytest.mark.parametrize("size", ["40k", "400k"])
def test_a_lab_that_the_disk_has_no_room_for(runtime: Path, tmp_path: Path, size: str) -> None:
    """Be it for its store or for what its pods are told: one line says so, and nothing of it stays."""
    name, manifests = unused_name(), tmp_path / "lab.yaml"
    manifests.write_text(FULL % ("x" * 100_000))
    (tmp_path / "run").mkdir()
    done = subprocess.run(
        [
            *("unshare", "-m", "--propagation", "private", "sh", "-c"),
            'mount -t tmpfs -o "size=$1" none "$SVCNAT_RUNTIME_DIR" && "$2" -m svcnat lab up "$3" -f "$4"; '
            'code=$?; ls "$SVCNAT_RUNTIME_DIR/labs"; exit $code',
            *("sh", size, sys.executable, name, str(manifests)),
        ],
        env={**os.environ, "SVCNAT_RUNTIME_DIR": str(tmp_path / "run")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("error: ")
    assert "state.db: the disk is full" in done.stderr or "cannot write the files of lab" in done.stderr
    assert done.stderr.count("\n") == 1
    assert not namespaces_of(name)


@pytest.mark.parametrize("name", ["", "A", "a.b", "../x", "a" * 64, "a b"])
def test_bad_names_are_refused(runtime: Path, name: str) -> None:
    """A lab's name is a label: it becomes part of file and namespace names."""
    for function in (Lab.up, Lab.open, labs.down):
        with pytest.raises(LabError, match="cannot be the name of a lab"):
            function(name)


def test_what_a_crash_left_is_listed_and_removed(build_lab: BuildLab) -> None:
    """Half-built labs, killed ones and those of before a reboot are `broken`; down removes all of them."""
    lab = build_lab()
    lab.close()
    record = state.read(lab.folder)
    state.write(lab.folder, state.Record(boot="another", topology=record.topology, standin=record.standin))
    assert summary(lab.name).state == "broken"
    with pytest.raises(LabError, match=f"lab {lab.name} ended with a reboot: `svcnat lab down {lab.name}`"):
        Lab.open(lab.name)
    (lab.folder / "lab.json").unlink()
    with pytest.raises(LabError, match=f"lab {lab.name} is half-built: `svcnat lab down {lab.name}` removes it"):
        Lab.open(lab.name)
    with pytest.raises(LabError, match="exists already"):
        Lab.up(lab.name)
    labs.down(lab.name)
    assert namespaces_of(lab.name) == []
    assert record.standin is not None
    assert not process.is_alive(record.standin)


def test_namespaces_without_a_folder_are_a_lab_to_take_down(runtime: Path) -> None:
    """When only namespaces are left, up refuses to build over them, and down removes them."""
    name = unused_name()
    netns.create(names.member(name, "node-1"))
    with pytest.raises(LabError, match=f"parts of an older lab {name} are there"):
        Lab.up(name)
    assert len(namespaces_of(name)) == 1
    labs.down(name)
    assert namespaces_of(name) == []


def summary(name: str) -> listing.Summary:
    """A lab's entry in the list."""
    (found,) = [each for each in listing.labs() if each.name == name]
    return found


def test_a_runtime_folder_that_is_none_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One line, whatever the environment names; no folder at all is no labs."""
    (tmp_path / "file").touch()
    monkeypatch.setenv("SVCNAT_RUNTIME_DIR", str(tmp_path / "file"))
    with pytest.raises(LabError, match="Not a directory"):
        listing.labs()
    monkeypatch.setenv("SVCNAT_RUNTIME_DIR", str(tmp_path / "none"))
    assert listing.labs() == []


def test_the_list_counts_nodes_and_pods(build_lab: BuildLab) -> None:
    """A lab that runs is listed with its nodes and running pods."""
    lab = build_lab(topology.simple(nodes=2))
    create(lab, pod("a"), pod("b"), pod("c"))
    kubelet.start(lab)
    assert summary(lab.name) == listing.Summary(lab.name, "running", 2, 3)


def test_a_process_id_of_a_stranger_is_not_signalled(build_lab: BuildLab) -> None:
    """A recorded id that now belongs to another process, which started at another time, is left alone."""
    lab = build_lab()
    with ending(subprocess.Popen(["sleep", "600"])) as stranger:
        process.stop_standin(lab.folder, process.ProcessId(stranger.pid, 1))
        assert stranger.poll() is None


def test_a_standin_that_hangs_is_killed(build_lab: BuildLab) -> None:
    """A stopped process does not answer; down does not wait for it for ever."""
    lab = build_lab()
    standin = state.read(lab.folder).standin
    assert standin is not None
    os.kill(standin.pid, signal.SIGSTOP)
    (lab.folder / "standin.sock").unlink()
    lab.down()
    assert not process.is_alive(standin)


def test_commands_and_functions_run_where_they_should(build_lab: BuildLab) -> None:
    """Nodes, clients, the router, pods and NAMESPACE/POD; output, exit code and errors are the command's."""
    lab = build_lab()
    create(lab, pod("a"))
    kubelet.start(lab)
    paths = {
        "node-1": f"svcnat.{lab.name}.node-1",
        "client": f"svcnat.{lab.name}.client",
        "router": f"svcnat.{lab.name}.router",
        "a": f"svcnat.{lab.name}.default.a",
        "default/a": f"svcnat.{lab.name}.default.a",
    }
    for where, namespace in paths.items():
        assert lab.netns_of(where) == Path("/run/netns") / namespace
        assert lab.run(where, netns.identity) == netns.identity(namespace)
    done = lab.exec("a", ["sh", "-c", "cat; exit 3"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
    assert (done.returncode, done.stdout) == (3, b"")
    for where in ("nowhere", "other/a", "client-2"):
        with pytest.raises(LabError, match=f"lab {lab.name} has no pod, node or client '{where}' that runs"):
            lab.exec(where, ["true"])
    with pytest.raises(LabError, match="cannot run 'no-such-command': No such file or directory"):
        lab.exec("a", ["no-such-command"])


def test_the_record_is_replaced_as_a_whole(build_lab: BuildLab) -> None:
    """Whoever reads lab.json while it is written sees the old record or the new one."""
    lab = build_lab()
    record = state.read(lab.folder)
    with ThreadPoolExecutor() as pool:
        writing = pool.submit(lambda: [state.write(lab.folder, record) for _ in range(200)])
        while not writing.done():
            assert state.read(lab.folder) == record
    assert not list(lab.folder.glob("*.new"))
    assert lab.folder.stat().st_mode & 0o777 == 0o700


def test_a_second_namespace_of_the_same_name_is_an_error(build_lab: BuildLab) -> None:
    """A kernel error on the way up names the namespace."""
    lab = build_lab()
    with pytest.raises(KernelError, match="exists already"):
        netns.create(names.member(lab.name, "node-1"))

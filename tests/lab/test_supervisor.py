"""Containers that are programs: run, started again, ended and told of as by a kubelet; nothing of them stays."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from svcnat.errors import LabError
from svcnat.lab import kubelet, labs, logs, process, state, topology
from svcnat.lab.labs import Lab
from svcnat.lab.supervision import Supervision
from svcnat.lab.topology import Declaration
from svcnat.model.objects import (
    Container,
    ContainerPort,
    ContainerStatus,
    EnvVar,
    ObjectMeta,
    Pod,
    PodSpec,
    Service,
    ServicePort,
    ServiceSpec,
)
from svcnat.model.pods import is_ready
from tests.agents import until
from tests.lab.conftest import BuildLab, namespaces_of
from tests.lab.pods import addresses, ask_tcp, create, delete, pod, stored
from tests.processes import ending

pytestmark = pytest.mark.packets

STUBBORN = "trap '' TERM; echo ready; while :; do sleep 0.05; done"
QUICK = topology.plan(Declaration(restart_backoff_seconds=0.1))


def program(name: str, script: str, *, container: dict[str, Any] | None = None, **spec: Any) -> Pod:
    """A pod whose container is a shell script."""
    made = Container(name="main", image="any", command=["sh", "-c", script], **(container or {}))
    return Pod(metadata=ObjectMeta(name=name, namespace="default"), spec=PodSpec(containers=[made], **spec))


def container(lab: Lab, name: str) -> ContainerStatus:
    """How the container of a pod fares, after a pass."""
    kubelet.start(lab)
    (found,) = stored(lab, name).status.container_statuses
    return found


def log(lab: Lab, name: str, run: int = -1) -> str:
    """What the container of a pod said."""
    runs = logs.runs_of(lab, stored(lab, name), "main")
    return b"".join(logs.read(runs[run])).decode() if runs else ""


def supervisor_of(lab: Lab) -> process.ProcessId:
    found = state.read(lab.folder).supervisor
    assert found is not None
    return found


def inhabitants(lab: Lab, name: str) -> list[int]:
    """The processes in the network namespace of a pod."""
    inode = lab.netns_of(name).stat().st_ino
    return processes(lambda folder: (folder / "ns/net").stat().st_ino == inode)


def processes(matching: Callable[[Path], bool]) -> list[int]:
    found = []
    for folder in Path("/proc").iterdir():
        try:
            if folder.name.isdecimal() and matching(folder):
                found.append(int(folder.name))
        except OSError:
            continue
    return found


def test_a_program_runs_in_its_pod(build_lab: BuildLab, tmp_path: Path) -> None:
    """In the pod's network, with its names, its folder and its variables, those of Services too; its words are kept."""
    lab = build_lab()
    script = "echo $HOSTNAME $(uname -n) $PWD $MY_IP $WEB_SERVICE_HOST:$WEB_SERVICE_PORT $1; readlink /proc/self/ns/net"
    variables = [
        EnvVar(name="MY_IP", value_from={"fieldRef": {"fieldPath": "status.podIP"}}),
        EnvVar(name="WORD", value="expanded"),
    ]
    options = {"env": variables, "args": ["sh", "$(WORD)"], "working_dir": str(tmp_path)}
    service = Service(
        metadata=ObjectMeta(name="web", namespace="default"),
        spec=ServiceSpec(selector={"app": "web"}, ports=[ServicePort(port=80)]),
    )
    with lab.store.transaction() as transaction:
        created = transaction.create(service).resource
    create(lab, program("a", f"{script}; exec sleep 1000", container=options))
    assert kubelet.start(lab).started == ["default/a"]
    assert isinstance(created, Service)
    inode = lab.netns_of("a").stat().st_ino
    words = f"a a {tmp_path} 10.244.0.2 {created.spec.cluster_ip}:80 expanded\nnet:[{inode}]\n"
    until(lambda: log(lab, "a") == words, "its words")
    status = container(lab, "a")
    assert (status.ready, status.started, status.restart_count) == (True, True, 0)
    assert status.state.running
    assert is_ready(stored(lab, "a"))
    assert kubelet.start(lab) == kubelet.Pass()
    assert kubelet.is_settled(lab)


def test_the_table_of_images_counts_first(build_lab: BuildLab) -> None:
    """The topology's command runs for an image in its table; the stand-in where it says so, or nothing else runs."""
    table = {"one": ["sh", "-c", "echo table $0; exec sleep 1000"], "two": ""}
    lab = build_lab(topology.plan(Declaration(images=table)))  # type: ignore[arg-type]
    ports = [ContainerPort(container_port=80)]
    made = Container(name="main", image="registry.test/one:3", args=["word"], ports=ports)
    two = Container(name="main", image="two", command=["false"], ports=ports)
    three = Container(name="main", image="three", command=["/no/such/program"], ports=ports)
    for name, each in (("a", made), ("b", two), ("c", three)):
        create(lab, Pod(metadata=ObjectMeta(name=name, namespace="default"), spec=PodSpec(containers=[each])))
    kubelet.start(lab)
    until(lambda: log(lab, "a") == "table word\n", "its words")
    for name in ("b", "c"):
        assert lab.run("client", lambda name=name: ask_tcp(addresses(lab, name)[0])).startswith(f"{name} ")  # type: ignore[misc]
    with pytest.raises(ConnectionRefusedError):
        lab.run("client", lambda: ask_tcp(addresses(lab, "a")[0]))


def test_folders_of_a_pod_s_own(build_lab: BuildLab) -> None:
    """What is in an emptyDir is there after a restart, for commands, for no other pod, and gone with its own."""
    lab = build_lab(QUICK)
    script = "echo $HOSTNAME >>/mnt/svcnat-test; test $(wc -l </mnt/svcnat-test) = 2 && exec sleep 1000"
    options = {"volume_mounts": [{"name": "data", "mountPath": "/mnt"}]}
    volumes = [{"name": "data", "emptyDir": {}}]
    create(lab, *(program(name, script, container=options, volumes=volumes) for name in "ab"))
    for name in "ab":
        until(lambda name=name: container(lab, name).restart_count == 1, "its restart")  # type: ignore[misc]
        assert lab.exec(name, ["cat", "/mnt/svcnat-test"], stdout=-1).stdout.decode() == f"{name}\n{name}\n"
    assert not Path("/mnt/svcnat-test").exists()
    delete(lab, "a")
    kubelet.sweep(lab)
    assert len(list(lab.folder.rglob("svcnat-test"))) == 1


def test_containers_that_end_are_started_again(build_lab: BuildLab) -> None:
    """At once, then later and later: CrashLoopBackOff, restarts counted, not ready; each run has its log."""
    lab = build_lab(QUICK)
    create(lab, program("a", "echo run; exit 3"))
    kubelet.start(lab)
    until(lambda: (container(lab, "a").restart_count or 0) >= 2, "two restarts")
    until(lambda: container(lab, "a").state.waiting, "a pause")
    status = container(lab, "a")
    while not status.state.waiting:  # its turn came meanwhile
        status = container(lab, "a")
    assert status.state.waiting.reason == "CrashLoopBackOff"
    assert "restarting failed container=main pod=a_default" in status.state.waiting.message
    assert status.last_state.terminated is not None
    assert (status.last_state.terminated.exit_code, status.last_state.terminated.reason) == (3, "Error")
    assert not status.ready
    assert not is_ready(stored(lab, "a"))
    assert stored(lab, "a").status.phase == "Running"
    assert len(logs.runs_of(lab, stored(lab, "a"), "main")) >= 3
    assert log(lab, "a", 0) == "run\n"


@pytest.mark.parametrize(
    ("policy", "script", "phase", "code", "reason"),
    [
        ("Never", "exit 0", "Succeeded", 0, "Completed"),
        ("Never", "exit 3", "Failed", 3, "Error"),
        ("Never", "kill -9 $$$$", "Failed", 137, "Error"),
        ("OnFailure", "exit 0", "Succeeded", 0, "Completed"),
    ],
)
def test_pods_that_are_done(build_lab: BuildLab, policy: str, script: str, phase: str, code: int, reason: str) -> None:
    """With other restart policies a pod succeeds or fails, and stays so, whoever supervises."""
    lab = build_lab(QUICK)
    create(lab, program("a", script, restart_policy=policy))
    until(lambda: container(lab, "a").state.terminated, "its end")
    for _ in range(2):
        ended = container(lab, "a").state.terminated
        assert ended is not None
        assert (ended.exit_code, ended.reason) == (code, reason)
        assert stored(lab, "a").status.phase == phase
        assert not is_ready(stored(lab, "a"))
        if process.is_alive(supervisor_of(lab)):
            kill(supervisor_of(lab))
    assert len(logs.runs_of(lab, stored(lab, "a"), "main")) == 1


def kill(victim: process.ProcessId) -> None:
    os.kill(victim.pid, signal.SIGKILL)
    until(lambda: not process.is_alive(victim), "its end")


def test_programs_that_cannot_be_run(build_lab: BuildLab) -> None:
    """One that the table names and nobody has is tried again, and says so; without its ConfigMap none is tried."""
    lab = build_lab(topology.plan(Declaration(images={"x": "no-such-program"}, restart_backoff_seconds=600)))
    reference = EnvVar(name="A", value_from={"configMapKeyRef": {"name": "settings", "key": "a"}})
    one = Container(name="main", image="x")
    create(lab, Pod(metadata=ObjectMeta(name="a", namespace="default"), spec=PodSpec(containers=[one])))
    create(lab, program("b", "exec sleep 1000", container={"env": [reference]}))
    until(lambda: container(lab, "a").state.waiting, "a pause")
    ended = container(lab, "a").last_state.terminated
    assert ended is not None
    assert (ended.exit_code, ended.reason) == (128, "StartError")
    assert ended.message == "cannot run 'no-such-program': No such file or directory"
    waiting = container(lab, "b").state.waiting
    assert waiting is not None
    assert (waiting.reason, waiting.message) == ("CreateContainerConfigError", 'configmap "settings" not found')
    assert (stored(lab, "b").status.phase, is_ready(stored(lab, "b"))) == ("Pending", False)
    assert kubelet.is_settled(lab)


def test_long_words_are_cut(build_lab: BuildLab) -> None:
    """What many containers lack is told, however long its name is: their states are packets."""
    lab = build_lab()
    reference = EnvVar(name="A", value_from={"configMapKeyRef": {"name": "x" * 3000, "key": "a"}})
    ill = [Container(name=f"c{each}", image="x", command=["sh"], env=[reference]) for each in range(100)]
    create(
        lab,
        *(Pod(metadata=ObjectMeta(name=name, namespace="default"), spec=PodSpec(containers=ill)) for name in "abc"),
        program("well", "exec sleep 1000"),
    )
    kubelet.start(lab)
    (first, *_) = stored(lab, "c").status.container_statuses
    assert first.state.waiting is not None
    assert first.state.waiting.message.startswith('configmap "xxx')
    assert stored(lab, "well").status.phase == "Running"


def test_a_pod_that_goes_has_its_time_of_grace(build_lab: BuildLab) -> None:
    """SIGTERM first, and its address stays while it finishes; SIGKILL when its time is over."""
    lab = build_lab()
    create(
        lab,
        program("polite", "trap 'exit 0' TERM; echo ready; while :; do sleep 0.05; done"),
        program("stubborn", STUBBORN, termination_grace_period_seconds=1),
    )
    kubelet.start(lab)
    until(lambda: log(lab, "polite") == log(lab, "stubborn") == "ready\n", "their traps")
    delete(lab, "polite", "stubborn")
    begun = time.monotonic()
    done = kubelet.sweep(lab)
    assert (done.stopped, done.ending) == (["default/polite"], ["default/stubborn"])
    assert inhabitants(lab, "stubborn")
    assert not kubelet.is_settled(lab)
    until(lambda: not kubelet.sweep(lab).ending, "the end of its time")
    assert time.monotonic() - begun >= 0.9
    assert len(namespaces_of(lab.name)) == 3


def test_a_pod_that_is_gone_from_the_store_has_no_more_time(build_lab: BuildLab) -> None:
    """Whoever forced that may have died on the way: any pass ends it, long as its own time of grace may be."""
    lab = build_lab()
    create(lab, program("stubborn", STUBBORN, termination_grace_period_seconds=100_000))
    kubelet.start(lab)
    until(lambda: log(lab, "stubborn") == "ready\n", "its trap")
    delete(lab, "stubborn")
    until(lambda: not kubelet.sweep(lab).ending, "its end")
    assert len(namespaces_of(lab.name)) == 3


def test_a_pod_that_goes_serves_until_the_rules_have_followed(build_lab: BuildLab) -> None:
    """A pass that starts others leaves it alone, and so does a sweep if it was wanted when the rules were made."""
    lab = build_lab()
    create(lab, program("a", "exec sleep 1000"), program("b", "exec sleep 1000"))
    kubelet.start(lab)
    delete(lab, "a")
    create(lab, program("c", "exec sleep 1000"))
    assert kubelet.start(lab).started == ["default/c"]
    gone = kubelet.unwanted(lab)
    delete(lab, "b")
    with Supervision(lab.folder) as supervision:
        assert [each.leaving for each in supervision.states().values()] == [False] * 3
        assert kubelet.sweep(lab, ()).stopped == []
        assert kubelet.sweep(lab, gone).stopped == ["default/a"]
        assert [each.leaving for each in supervision.states().values()] == [False] * 2
    assert kubelet.sweep(lab).stopped == ["default/b"]


def test_another_pod_of_the_name_waits_for_the_one_before(build_lab: BuildLab) -> None:
    """As there is one of a name at a time: it is Pending until the other has had its time of grace."""
    lab = build_lab()
    stubborn = program("a", STUBBORN, termination_grace_period_seconds=1)
    create(lab, stubborn)
    kubelet.start(lab)
    until(lambda: log(lab, "a") == "ready\n", "its trap")
    before = addresses(lab, "a")
    delete(lab, "a")
    create(lab, stubborn)
    done = kubelet.start(lab)
    assert (done.started, done.ending) == ([], ["default/a"])
    assert done.pending == {"default/a": "the pod of this name that was there before is still ending"}
    assert stored(lab, "a").status.phase == "Pending"
    until(lambda: kubelet.start(lab).started, "its start")
    assert stored(lab, "a").status.phase == "Running"
    assert addresses(lab, "a") != before


def test_nothing_that_a_container_started_outlives_it(build_lab: BuildLab) -> None:
    """Daemons of a container end with its process, before the next one starts; other containers' are left alone."""
    lab = build_lab(QUICK)
    script = "setsid -f sleep 1001 </dev/null >/dev/null 2>&1; echo ready; read line <&- ; exec sleep 1000"
    create(lab, program("a", script), program("b", script))
    kubelet.start(lab)
    until(lambda: log(lab, "a") == log(lab, "b") == "ready\n", "their daemons")
    until(lambda: len(inhabitants(lab, "a")) == len(inhabitants(lab, "b")) == 2, "their daemons")
    before, others = set(inhabitants(lab, "a")), set(inhabitants(lab, "b"))
    (main,) = (each for each in before if b"1000" in Path(f"/proc/{each}/cmdline").read_bytes())
    os.kill(main, signal.SIGKILL)
    until(lambda: (container(lab, "a").restart_count, len(inhabitants(lab, "a"))) == (1, 2), "its restart")
    assert not before & set(inhabitants(lab, "a"))
    assert set(inhabitants(lab, "b")) == others


def test_the_supervisor_is_killed(build_lab: BuildLab) -> None:
    """Nothing that it ran survives; the next pass starts another, and the containers, counting that as a restart."""
    lab = build_lab(QUICK)
    create(lab, program("a", "setsid -f sleep 1001 </dev/null >/dev/null 2>&1; exec sleep 1000"), pod("b"))
    kubelet.start(lab)
    until(lambda: len(inhabitants(lab, "a")) == 2, "its processes")
    victim = supervisor_of(lab)
    kill(victim)
    until(lambda: not inhabitants(lab, "a"), "the end of its processes")
    assert not kubelet.is_settled(lab)
    assert container(lab, "a").restart_count == 1
    assert supervisor_of(lab) != victim
    until(lambda: len(inhabitants(lab, "a")) == 2, "its processes")
    assert is_ready(stored(lab, "a"))


def test_a_lab_with_programs_leaves_nothing(build_lab: BuildLab) -> None:
    """Down ends stubborn programs and daemons at once, also if nobody recorded the supervisor, or it hangs."""
    for how in ("well", "unrecorded", "hangs", "killed"):
        lab = build_lab()
        create(lab, program("a", f"setsid -f sleep 1001 </dev/null >/dev/null 2>&1; {STUBBORN}"), pod("b", ports=()))
        create(lab, program("host", "exec sleep 1000", host_network=True))
        kubelet.start(lab)
        until(lambda lab=lab: log(lab, "a") == "ready\n", "its trap")  # type: ignore[misc]
        supervisor = supervisor_of(lab)
        # While it is open, no other namespace gets its number.
        apart = os.open(f"/proc/{supervisor.pid}/ns/pid", os.O_RDONLY)
        inode = os.fstat(apart).st_ino
        if how == "unrecorded":
            state.write(lab.folder, replace(state.read(lab.folder), supervisor=None))
        elif how == "hangs":
            os.kill(supervisor.pid, signal.SIGSTOP)
        elif how == "killed":
            kill(supervisor)
        lab.down()
        assert not process.is_alive(supervisor)
        assert processes(lambda folder, inode=inode: (folder / "ns/pid").stat().st_ino == inode) == []  # type: ignore[misc]
        os.close(apart)
        assert namespaces_of(lab.name) == []
        assert not lab.folder.exists()


def test_the_supervisor_ends_with_its_folder(build_lab: BuildLab) -> None:
    """When nobody takes the lab down, and its folder goes, it ends all the same."""
    lab = build_lab()
    create(lab, program("a", "exec sleep 1000"))
    kubelet.start(lab)
    supervisor = supervisor_of(lab)
    (lab.folder / "supervisor.sock").unlink()
    until(lambda: not process.is_alive(supervisor), "its end")
    labs.down(lab.name)


def test_commands_in_a_pod_see_what_its_programs_do(build_lab: BuildLab) -> None:
    """Host name, hosts file, variables of the container; those that the caller sets count before them."""
    lab = build_lab()
    variables = [EnvVar(name="COLOR", value="blue")]
    create(lab, program("a", "exec sleep 1000", container={"env": variables}), pod("b"))
    kubelet.start(lab)
    command = ["sh", "-c", "echo $COLOR; uname -n; getent hosts a"]
    with ending(lab.spawn("a", command, stdout=-1, text=True)) as running:
        color, name, address = running.communicate()[0].splitlines()
    assert (color, name) == ("blue", "a")
    assert address.split() == ["fd00:10:244::2", "a"] or address.split() == ["10.244.0.2", "a"]
    done = lab.exec("a", ["sh", "-c", "echo $COLOR"], stdout=-1, env={"COLOR": "red"})
    assert done.stdout == b"red\n"
    done = lab.exec("b", ["uname", "-n"], stdout=-1)
    assert done.stdout == b"b\n"
    with pytest.raises(LabError, match="pod default/a has no container 'other': it has main"):
        lab.spawn("a", ["true"], container="other")


def test_commands_in_a_pod_see_and_end_its_processes(build_lab: BuildLab) -> None:
    """Those of all of its containers, and nobody else's; what is killed so is started again; orphans leave nothing."""
    lab = build_lab(QUICK)
    orphans = "for n in 1 2 3; do (sleep 0.1 &) ; done; exec sleep 1000"
    create(lab, program("a", orphans), program("b", "exec sleep 1001"), pod("c"))
    kubelet.start(lab)

    def listed(where: str) -> list[str]:
        script = "for each in /proc/[0-9]*; do tr '\\0' ' ' < $each/cmdline; grep State $each/status; done"
        said = lab.exec(where, ["sh", "-c", script], stdout=-1, stderr=-1).stdout.decode().splitlines()
        return [line for line in said if "sleep" in line or "zombie" in line]

    def sleeping(seconds: int) -> str:
        return f"sleep {seconds} State:\tS (sleeping)"

    until(
        lambda: sorted(listed("a")) == sorted(["sleep infinity State:\tS (sleeping)", sleeping(1000)]), "its processes"
    )
    until(lambda: sleeping(1001) in listed("b") and sleeping(1000) not in listed("b"), "the other's")
    assert lab.exec("a", ["pkill", "-9", "-x", "sleep"]).returncode == 0
    until(lambda: container(lab, "a").restart_count == 1, "its restart")
    assert container(lab, "b").restart_count == 0
    until(lambda: sleeping(1000) in listed("a"), "its process")
    assert len(listed("c")) > 10  # a pod without processes shows the machine's


def test_logs_are_bounded(build_lab: BuildLab) -> None:
    """Of a container that says too much the end is kept, in whole lines, and whoever follows goes on with it."""
    lab = build_lab()
    create(lab, program("a", "seq 3000000; echo end; exec sleep 1000"))
    kubelet.start(lab)
    (file,) = until(lambda: logs.runs_of(lab, stored(lab, "a"), "main"), "its log")
    until(lambda: list(logs.read(file, 1)) == [b"end\n"] and file.stat().st_blocks * 512 <= 10 << 20, "its end")
    assert file.stat().st_size > 20 << 20
    said = b"".join(logs.read(file)).splitlines()
    assert said[-1] == b"end"
    assert [int(each) for each in said[:-1]] == list(range(int(said[0]), 3000001))
    assert len(b"".join(logs.follow(file, None, lambda: True)).splitlines()) == len(said)


def test_the_resolver_of_a_cluster_with_dns(build_lab: BuildLab) -> None:
    """Pods that start when there is a Service kube-system/kube-dns ask its address; those before have the machine's."""
    lab = build_lab()
    create(lab, pod("before"))
    kubelet.start(lab)
    dns = Service(
        metadata=ObjectMeta(name="kube-dns", namespace="kube-system"),
        spec=ServiceSpec(cluster_ip="10.96.0.10", ports=[ServicePort(port=53, protocol="UDP")]),
    )
    with lab.store.transaction() as transaction:
        transaction.create(dns)
    create(lab, pod("a"), program("b", "cat /etc/resolv.conf; exec sleep 1000"))
    kubelet.start(lab)
    said = lab.exec("a", ["cat", "/etc/resolv.conf"], stdout=-1).stdout
    assert said.startswith(b"nameserver 10.96.0.10\n")
    assert b"search default.svc.cluster.local svc.cluster.local cluster.local\noptions ndots:5\n" in said
    until(lambda: log(lab, "b").encode() == said, "the same in a container")
    assert lab.exec("before", ["cat", "/etc/resolv.conf"], stdout=-1).stdout == Path("/etc/resolv.conf").read_bytes()


def test_many_ask_the_supervisor_at_once(build_lab: BuildLab) -> None:
    """Who waits is answered when something happens or time is over, whatever others ask meanwhile, or send."""
    lab = build_lab()
    create(lab, program("a", "read line; exec sleep 1000"))
    kubelet.start(lab)
    until(lambda: len(inhabitants(lab, "a")) == 1, "its process")
    with Supervision(lab.folder) as one, Supervision(lab.folder) as two, Supervision(lab.folder) as three:
        three._socket.send(b"nonsense")
        assert b"error" in three._socket.recv(65536)
        until(lambda: next(iter(one.states().values())).tasks[0].since, "its start")
        assert two.identify() == supervisor_of(lab).pid
        assert not one.wait(0.05)
        os.kill(inhabitants(lab, "a")[0], signal.SIGKILL)
        assert one.wait(30)
        assert two.wait(30)

"""Init containers and sidecars: one after another, before the others, as a kubelet runs them."""

from __future__ import annotations

import os
import signal
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from svcnat.cli.pods import pod_ready, pod_restarts, pod_status
from svcnat.lab import kubelet, logs, process, state, topology
from svcnat.lab.labs import Lab
from svcnat.lab.supervision import Supervision
from svcnat.lab.topology import Declaration
from svcnat.model.objects import Container, ContainerPort, ObjectMeta, Pod, PodSpec
from svcnat.model.pods import is_ready
from tests.agents import until
from tests.lab.conftest import BuildLab
from tests.lab.pods import addresses, ask_tcp, create, delete, stored

pytestmark = pytest.mark.packets

QUICK = topology.plan(Declaration(restart_backoff_seconds=0.1))
STAYS = "trap 'echo bye >> LOG; exit' TERM; while :; do sleep 0.05; done"


def script(name: str, text: str, **fields: Any) -> Container:
    return Container(name=name, image="any", command=["sh", "-c", text], **fields)


def pod(*containers: Container, first: tuple[Container, ...], **spec: Any) -> Pod:
    return Pod(
        metadata=ObjectMeta(name="a", namespace="default"),
        spec=PodSpec(containers=[*containers], init_containers=[*first], **spec),
    )


def after_a_pass(lab: Lab) -> Pod:
    kubelet.start(lab)
    return stored(lab, "a")


def shown(lab: Lab) -> tuple[str, str]:
    """READY and STATUS, as ``get pods`` has them."""
    found = after_a_pass(lab)
    return pod_ready(found), pod_status(found)


def waits_for(file: Path) -> str:
    return f"while ! test -e {file}; do sleep 0.05; done; echo done"


def test_one_after_another_and_then_the_others(build_lab: BuildLab, tmp_path: Path) -> None:
    """Until then the pod is Pending and not ready, its other containers wait, and its stand-ins serve nobody."""
    lab = build_lab(QUICK)
    one, two = script("one", waits_for(tmp_path / "one")), script("two", waits_for(tmp_path / "two"))
    stand_in = Container(name="web", image="any", ports=[ContainerPort(container_port=80)])
    unknown = Container(name="unknown", image="any", ports=[ContainerPort(container_port=81)])
    create(lab, pod(stand_in, script("main", "exec sleep 1000"), first=(one, unknown, two)))
    assert shown(lab) == ("0/2", "Init:0/3")
    found = after_a_pass(lab)
    assert found.status.phase == "Pending"
    assert [each.state.waiting and each.state.waiting.reason for each in found.status.container_statuses] == [
        "PodInitializing",
        "PodInitializing",
    ]
    with pytest.raises(ConnectionRefusedError):
        lab.run("client", lambda: ask_tcp(addresses(lab, "a")[0]))
    (tmp_path / "one").touch()
    until(lambda: shown(lab) == ("0/2", "Init:2/3"), "the first one's end")
    assert not is_ready(stored(lab, "a"))
    (tmp_path / "two").touch()
    until(lambda: shown(lab) == ("2/2", "Running"), "the others")
    assert is_ready(stored(lab, "a"))
    assert lab.run("client", lambda: ask_tcp(addresses(lab, "a")[0])).startswith("a ")
    with pytest.raises(ConnectionRefusedError):
        lab.run("client", lambda: ask_tcp(addresses(lab, "a")[0], 81))
    (log,) = logs.runs_of(lab, stored(lab, "a"), logs.container_of(stored(lab, "a"), "two"))
    assert log.read_text() == "done\n"
    until(lambda: kubelet.is_settled(lab), "peace")


def test_one_that_fails_is_tried_again(build_lab: BuildLab, tmp_path: Path) -> None:
    """Later and later, whatever it kept waiting waits; its restarts count until it has succeeded."""
    lab = build_lab(QUICK)
    create(lab, pod(script("main", "exec sleep 1000"), first=(script("one", f"test -e {tmp_path}/one"),)))
    seen: set[str] = set()
    until(lambda: seen.add(shown(lab)[1]) or "Init:CrashLoopBackOff" in seen, "a pause")  # type: ignore[func-returns-value]
    assert seen <= {"Init:0/1", "Init:Error", "Init:CrashLoopBackOff"}
    assert int(pod_restarts(after_a_pass(lab), datetime.now(UTC)).split()[0]) >= 1
    (tmp_path / "one").touch()
    until(lambda: shown(lab) == ("1/1", "Running"), "its success")
    assert pod_restarts(stored(lab, "a"), datetime.now(UTC)) == "0"


def test_one_that_may_not_fail(build_lab: BuildLab) -> None:
    """With the policy Never the pod has failed, and its other containers never run."""
    lab = build_lab(QUICK)
    create(lab, pod(script("main", "exec sleep 1000"), first=(script("one", "exit 3"),), restart_policy="Never"))
    until(lambda: shown(lab) == ("0/1", "Init:Error"), "its failure")
    assert stored(lab, "a").status.phase == "Failed"
    until(lambda: kubelet.is_settled(lab), "peace")
    assert logs.runs_of(lab, stored(lab, "a"), "main") == []


def test_a_sidecar_stays_until_the_others_have_ended(build_lab: BuildLab, tmp_path: Path) -> None:
    """It runs before the others, is started again whatever the policy says, counts in READY, and ends after them."""
    log = tmp_path / "log"
    side = script("side", STAYS.replace("LOG", str(log)), restart_policy="Always")
    main = script("main", f"trap 'sleep 0.3; echo main >> {log}; exit' TERM; {waits_for(tmp_path / 'end')}")
    lab = build_lab(QUICK)
    create(lab, pod(main, first=(side,), restart_policy="Never"))
    until(lambda: shown(lab) == ("2/2", "Running"), "their start")
    with Supervision(lab.folder) as supervision:
        ((before, _),) = (each.tasks for each in supervision.states().values())
    assert before.since
    supervisor = state.read(lab.folder).supervisor
    assert supervisor is not None
    os.kill(supervisor.pid, signal.SIGKILL)
    until(lambda: not process.is_alive(supervisor), "its end")
    until(lambda: shown(lab) == ("2/2", "Running"), "their restart")
    (tmp_path / "end").touch()
    until(lambda: log.exists() and log.read_text() == "bye\n", "the sidecar's end")
    until(lambda: after_a_pass(lab).status.phase == "Succeeded", "the pod's end")
    assert pod_status(stored(lab, "a")) == "Completed"


def test_sidecars_leave_last(build_lab: BuildLab, tmp_path: Path) -> None:
    """A pod that is deleted asks its containers first."""
    log = tmp_path / "log"
    lab = build_lab(QUICK)
    sides = tuple(
        script(name, STAYS.replace("bye", name).replace("LOG", str(log)), restart_policy="Always") for name in "xy"
    )
    main = script("main", f"trap 'sleep 0.3; echo main >> {log}; exit' TERM; echo ready; while :; do sleep 0.05; done")
    create(lab, pod(main, first=sides))
    until(lambda: shown(lab) == ("3/3", "Running"), "their start")
    until(lambda: logs.runs_of(lab, stored(lab, "a"), "main")[0].read_text() == "ready\n", "its trap")
    delete(lab, "a")
    until(lambda: not kubelet.sweep(lab).ending, "their end")
    assert log.read_text() == "main\ny\nx\n"

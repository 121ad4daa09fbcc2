"""Readiness gates: a pod is ready while its containers and the conditions that somebody else sets say so."""

from __future__ import annotations

from pathlib import Path

import pytest
from msgspec.structs import replace

from svcnat.controllers.readiness import GATES_NOT_READY
from svcnat.lab import kubelet, topology
from svcnat.lab.labs import Lab
from svcnat.lab.topology import Declaration
from svcnat.model.objects import Condition, PodReadinessGate
from svcnat.model.pods import is_ready
from tests.agents import until
from tests.lab.conftest import BuildLab
from tests.lab.pods import create, pod, stored
from tests.lab.test_supervisor import container, log, program

pytestmark = pytest.mark.packets

GATE = [PodReadinessGate(condition_type="example.com/warm")]


def set_gate(lab: Lab, name: str, status: str) -> None:
    """Do what a controller does that owns a gate."""
    with lab.store.transaction() as transaction:
        found = stored(lab, name)
        others = [each for each in found.status.conditions if each.type != "example.com/warm"]
        conditions = [Condition(type="example.com/warm", status=status), *others]
        transaction.replace(replace(found, status=replace(found.status, conditions=conditions)))


def ready(lab: Lab, name: str) -> Condition:
    """The Ready condition of a pod, after a pass."""
    kubelet.start(lab)
    assert kubelet.is_settled(lab)
    (found,) = [each for each in stored(lab, name).status.conditions if each.type == "Ready"]
    return found


def test_who_has_a_say(build_lab: BuildLab) -> None:
    """Shut until somebody opens it; a pod that its manifest calls unready stays so; others mind no such condition."""
    lab = build_lab()
    unready = pod("unready", readiness_gates=GATE)
    said = [Condition(type="Ready", status="False", reason="Mine"), Condition(type="example.com/warm", status="True")]
    create(lab, pod("gated", readiness_gates=GATE), pod("plain"))
    create(lab, replace(unready, status=replace(unready.status, conditions=said)))
    first = ready(lab, "gated")
    assert (first.status, first.reason) == ("False", GATES_NOT_READY)
    assert ready(lab, "plain").status == "True"
    assert (ready(lab, "unready").reason, is_ready(stored(lab, "unready"))) == ("Mine", False)
    set_gate(lab, "gated", "False")
    again = ready(lab, "gated")
    assert again.last_transition_time == first.last_transition_time
    assert again.message == 'the status of pod readiness gate "example.com/warm" is not "True", but False'
    set_gate(lab, "gated", "True")
    assert (ready(lab, "gated").status, ready(lab, "gated").message) == ("True", "")
    assert is_ready(stored(lab, "gated"))
    set_gate(lab, "gated", "Unknown")
    assert ready(lab, "gated").reason == GATES_NOT_READY


def test_it_outlives_a_restart(build_lab: BuildLab, tmp_path: Path) -> None:
    """A container that starts again is another matter: the condition stays as it is, and counts when it runs."""
    lab = build_lab(topology.plan(Declaration(restart_backoff_seconds=0.1)))
    end = tmp_path / "end"
    script = f"echo $$; while [ ! -e {end} ]; do sleep 0.02; done; rm {end}; exit 1"
    create(lab, program("one", script, readiness_gates=GATE))
    assert ready(lab, "one").reason == GATES_NOT_READY
    set_gate(lab, "one", "True")
    assert ready(lab, "one").status == "True"
    until(lambda: log(lab, "one"), "its first word")
    end.touch()
    until(lambda: container(lab, "one").restart_count == 1 and container(lab, "one").ready, "its second run")
    assert ready(lab, "one").status == "True"
    set_gate(lab, "one", "False")
    assert ready(lab, "one").reason == GATES_NOT_READY
    end.touch()
    until(lambda: container(lab, "one").restart_count == 2 and container(lab, "one").ready, "its third run")
    assert ready(lab, "one").reason == GATES_NOT_READY

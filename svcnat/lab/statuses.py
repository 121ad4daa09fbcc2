"""What the kubelet of a lab says of a pod: its status, from what was started and how its processes fare.

Pure, but for the time that it is told. Who starts and ends what is :mod:`svcnat.lab.kubelet`. Source: the kubelet's
``pkg/kubelet/kubelet_pods.go`` (phases) and core/v1 PodStatus.
"""

from __future__ import annotations

from collections.abc import Mapping

from msgspec.structs import replace

from svcnat.controllers.readiness import NOT_READY, ready_condition
from svcnat.lab.state import Started
from svcnat.lab.supervision import Ended, Task, TaskState
from svcnat.lab.topology import Node
from svcnat.model.objects import (
    Condition,
    Container,
    ContainerState,
    ContainerStateDetail,
    ContainerStatus,
    Pod,
    PodIP,
    PodStatus,
)
from svcnat.model.pods import STAND_IN

Tasks = Mapping[str, TaskState]
"""How the processes of a pod fare, by container; stand-ins are not in it."""


def running(pod: Pod, started: Started, node: Node, tasks: Tasks, now: str, *, probing: bool) -> PodStatus:
    """The status of a pod that has just started.

    One with a readinessProbe is unready until the probe succeeds, if somebody is `probing`; another that its manifest
    calls unready stays so.
    """
    containers = [each.name for each in pod.spec.containers]
    manned = {each.name for each in started.programs if each.command}
    probed = [each.name for each in pod.spec.containers if probing and each.readiness_probe]
    said = next((each for each in pod.status.conditions if each.type == "Ready" and each.status == "False"), None)
    if started.troubles:
        message = "; ".join(started.troubles)
        unready, ready = containers, Condition(type="Ready", status="False", reason=NOT_READY, message=message)
    elif said and not probed:
        unready, ready = containers, said
    else:
        unready, ready = probed, ready_condition(probed, now)
    status = PodStatus(
        phase="Running",
        conditions=[
            Condition(type="PodScheduled", status="True", last_transition_time=now),
            Condition(type="Initialized", status="True", last_transition_time=now),
            ready,
        ],
        host_ip=node.addresses.v4,
        host_ips=[PodIP(ip=address) for address in node.addresses],
        pod_ip=started.v4,
        pod_ips=[PodIP(ip=started.v4), PodIP(ip=started.v6)],
        start_time=now,
        container_statuses=[
            ContainerStatus(
                name=container.name,
                image=container.image,
                container_id="" if container.name in manned else f"{STAND_IN}{started.device}/{container.name}",
                ready=container.name not in unready,
                restart_count=0,
                started=True,
                state=_state(pod, tasks[container.name])
                if container.name in tasks
                else ContainerState(running=ContainerStateDetail(started_at=now)),
            )
            for container in pod.spec.containers
        ],
    )
    return faring(replace(pod, status=status), tasks, now, probing=probing)


def faring(pod: Pod, tasks: Tasks, now: str, *, probing: bool) -> PodStatus:
    """The status of a pod that runs, with how its processes fare: the very one that it has, if that is known."""
    told = {each.name: each for each in pod.status.container_statuses}
    statuses = [
        _container(pod, each, told.get(each.name), tasks[each.name], probing=probing)
        if each.name in tasks
        else told.get(each.name) or ContainerStatus(name=each.name, image=each.image)
        for each in pod.spec.containers
    ]
    phase = _phase(pod, tasks)
    if not tasks or (statuses, phase) == (pod.status.container_statuses, pod.status.phase):
        return pod.status
    return replace(
        pod.status,
        phase=phase,
        container_statuses=statuses,
        conditions=_conditions(pod, phase, [each.name for each in statuses if each.ready is False], now),
    )


def pending(pod: Pod, reason: str, now: str) -> PodStatus:
    """The status of a pod that cannot start: the very one that it has, if that says so."""
    conditions = pod.status.conditions
    if pod.status.phase == "Pending" and [each.message for each in conditions] == [reason]:
        return pod.status
    condition = Condition(
        type="PodScheduled", status="False", reason="Unschedulable", message=reason, last_transition_time=now
    )
    return PodStatus(phase="Pending", conditions=[condition])


def resumed(pod: Pod, task: Task) -> Task:
    """A container's process as another supervisor is to have it, by what the status tells of the one before."""
    told = next((each for each in pod.status.container_statuses if each.name == task.name), None)
    if told is None:
        return task
    count = told.restart_count or 0
    if how := told.state.terminated:
        how_it_ended = Ended(
            how.exit_code or 0, how.started_at or "", how.finished_at or "", how.signal or 0, how.reason, how.message
        )
        return replace(task, restarts=count, ended=how_it_ended)
    return replace(task, restarts=count + bool(told.state.running or told.last_state.terminated))


def _container(
    pod: Pod, container: Container, told: ContainerStatus | None, task: TaskState, *, probing: bool
) -> ContainerStatus:
    state, last = _state(pod, task), ContainerState()
    if task.last and not state.terminated:
        last = ContainerState(terminated=_end(task.last))
    elif told:
        last = told.last_state
    told = told or ContainerStatus(name=container.name, image=container.image)
    if not state.running:
        ready = False
    elif told.state == state and told.restart_count == task.restarts:
        ready = bool(told.ready)
    else:
        ready = not (probing and container.readiness_probe)
    return replace(
        told, ready=ready, started=bool(state.running), restart_count=task.restarts, state=state, last_state=last
    )


def _state(pod: Pod, task: TaskState) -> ContainerState:
    if task.trouble:
        detail = ContainerStateDetail(reason="CreateContainerConfigError", message=task.trouble)
        return ContainerState(waiting=detail)
    if task.since:
        return ContainerState(running=ContainerStateDetail(started_at=task.since))
    if task.wait or task.last is None:
        meta = pod.metadata
        message = (
            f"back-off {task.wait:g}s restarting failed container={task.name} "
            f"pod={meta.name}_{meta.namespace}({meta.uid})"
        )
        waiting = ContainerStateDetail(reason="CrashLoopBackOff", message=message)
        return ContainerState(waiting=waiting if task.wait else ContainerStateDetail(reason="ContainerCreating"))
    return ContainerState(terminated=_end(task.last))


def _end(how: Ended) -> ContainerStateDetail:
    return ContainerStateDetail(
        reason=how.reason,
        message=how.message,
        started_at=how.started,
        finished_at=how.finished,
        exit_code=how.code,
        signal=how.signal or None,
    )


def _phase(pod: Pod, tasks: Tasks) -> str:
    known = [tasks.get(each.name) for each in pod.spec.containers]
    if any(each and each.trouble for each in known):
        return "Pending"
    ends = [each.last for each in known if each and each.last and not each.since and not each.wait]
    if len(ends) < len(known):
        return "Running"
    return "Failed" if any(each.code for each in ends) else "Succeeded"


def _conditions(pod: Pod, phase: str, unready: list[str], now: str) -> list[Condition]:
    new = ready_condition(unready, now)
    if phase in ("Succeeded", "Failed"):
        new = replace(new, reason="PodCompleted" if phase == "Succeeded" else "PodFailed", message="")
    old = next((each for each in pod.status.conditions if each.type == new.type), None)
    if old and old.status == new.status:
        new = replace(new, last_transition_time=old.last_transition_time, message=new.message or old.message)
    return [*(each for each in pod.status.conditions if each.type != new.type), new]

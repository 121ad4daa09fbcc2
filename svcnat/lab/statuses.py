"""What the kubelet of a lab says of a pod: its status, from what was started and how its processes fare.

Pure, but for the time that it is told. Who starts and ends what is :mod:`svcnat.lab.kubelet`. Source: the kubelet's
``pkg/kubelet/kubelet_pods.go`` (phases) and core/v1 PodStatus.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from msgspec.structs import replace

from svcnat.controllers.readiness import GATES_NOT_READY, NODE_NOT_READY, NOT_READY, ready_condition, shut_gates
from svcnat.lab.state import Started
from svcnat.lab.supervision import LONGEST_MESSAGE, Ended, Task, TaskState
from svcnat.lab.topology import Node
from svcnat.lab.volumes import FAILED
from svcnat.model.conditions import condition_of, with_condition
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
from svcnat.model.pods import STAND_IN, lasting, lasting_statuses

_INITIALIZING = "PodInitializing"
_OURS = ("PodScheduled", "Initialized", "ContainersReady", "Ready")
_NEVER = ContainerStatus().last_state  # the default itself, which no JSON mentions

Tasks = Mapping[str, TaskState]
"""How the processes of a pod fare, by container; stand-ins are not in it."""


def running(pod: Pod, started: Started, node: Node, tasks: Tasks, now: str, *, probing: bool) -> PodStatus:
    """The status of a pod that has just started.

    One with a readinessProbe is unready until the probe succeeds, if somebody is `probing`; another that its manifest
    calls unready stays so.
    """
    containers = [each.name for each in pod.spec.containers]
    manned = {each.name for each in started.programs if each.command}
    probed = [each.name for each in lasting(pod) if probing and each.readiness_probe]
    found = condition_of(pod.status.conditions, "Ready")
    again = found is not None and found.reason == NODE_NOT_READY  # its node was lost, and all that ran there
    said = found if found and found.status == "False" and not again else None
    before = {each.name: each.restart_count or 0 for each in pod.status.container_statuses}
    incomplete = _incomplete(pod, tasks)
    if started.troubles:
        message = "; ".join(started.troubles)
        unready, ready = containers, Condition(type="Ready", status="False", reason=NOT_READY, message=message)
    elif said and not probed:
        unready, ready = containers, said
    else:
        unready = containers if incomplete else probed
        ready = ready_condition(unready, now, shut_gates(pod))
    status = PodStatus(
        phase="Running",
        conditions=[
            Condition(type="PodScheduled", status="True", last_transition_time=now),
            _initialized(incomplete, now),
            ready,
            *_others(pod),
        ],
        host_ip=node.addresses.v4,
        host_ips=[PodIP(ip=address) for address in node.addresses],
        pod_ip=started.v4,
        pod_ips=[PodIP(ip=started.v4), PodIP(ip=started.v6)],
        start_time=now,
        init_container_statuses=[
            _init_container(pod, each, None, tasks.get(each.name), now, probing=probing)
            for each in pod.spec.init_containers
        ],
        container_statuses=[
            ContainerStatus(
                name=container.name,
                image=container.image,
                container_id="" if container.name in manned else f"{STAND_IN}{started.device}/{container.name}",
                ready=container.name not in unready,
                restart_count=before.get(container.name, 0) + 1 if again else 0,
                started=not incomplete,
                state=_state(pod, tasks[container.name]) if container.name in tasks else _stood_in(incomplete, now),
            )
            for container in pod.spec.containers
        ],
    )
    return faring(replace(pod, status=status), tasks, now, probing=probing)


def _others(pod: Pod) -> list[Condition]:
    """The conditions that are not the kubelet's: those of readiness gates, whoever sets them."""
    return [each for each in pod.status.conditions if each.type not in _OURS]


def _gated(pod: Pod, status: PodStatus, now: str) -> PodStatus:
    """The status of a pod with what its readiness gates make of it: the very one, if they change nothing.

    Who calls a pod unready for another reason has the last word.
    """
    ready = condition_of(status.conditions, "Ready")
    if not pod.spec.readiness_gates or ready is None or (ready.status != "True" and ready.reason != GATES_NOT_READY):
        return status
    if any(each.ready is False for each in lasting_statuses(replace(pod, status=status))):
        return status
    new = ready_condition([], now, shut_gates(replace(pod, status=status)))
    if (new.status, new.message) == (ready.status, ready.message):
        return status
    if new.status == ready.status:
        new = replace(new, last_transition_time=ready.last_transition_time)
    return replace(status, conditions=with_condition(status.conditions, new))


def faring(pod: Pod, tasks: Tasks, now: str, *, probing: bool, troubles: Sequence[str] = ()) -> PodStatus:
    """The status of a pod that runs, with how its processes fare: the very one that it has, if that is known.

    `troubles` are the ports that its stand-ins could not open.
    """
    return _gated(pod, _faring(pod, tasks, now, probing=probing, troubles=troubles), now)


def _faring(pod: Pod, tasks: Tasks, now: str, *, probing: bool, troubles: Sequence[str]) -> PodStatus:
    if not tasks:
        return pod.status
    initialized = is_initialized(pod, tasks)
    inits = {each.name: each for each in pod.status.init_container_statuses}
    init_statuses = [
        _init_container(pod, each, inits.get(each.name), tasks.get(each.name), now, probing=probing)
        for each in pod.spec.init_containers
    ]
    told = {each.name: each for each in pod.status.container_statuses}
    statuses = []
    for each in pod.spec.containers:
        status = told.get(each.name)
        if each.name in tasks:
            status = _container(pod, each, status, tasks[each.name], probing=probing)
        elif status and status.state.waiting and initialized:
            # Its stand-in begins now.
            ready = not troubles and not (probing and each.readiness_probe)
            status = replace(status, ready=ready, started=True, state=_stood_in([], now))
        statuses.append(status or ContainerStatus(name=each.name, image=each.image))
    phase = _phase(pod, tasks) if initialized else _phase_before(pod, tasks)
    before = pod.status.init_container_statuses, pod.status.container_statuses, pod.status.phase
    if (init_statuses, statuses, phase) == before:
        return pod.status
    now_told = replace(pod.status, init_container_statuses=init_statuses, container_statuses=statuses)
    unready = [each.name for each in lasting_statuses(replace(pod, status=now_told)) if each.ready is False]
    conditions = _conditions(pod, phase, unready, now)
    if pod.spec.init_containers:
        conditions = _put(conditions, _initialized([] if initialized else _incomplete(pod, tasks), now))
    return replace(
        pod.status,
        phase=phase,
        init_container_statuses=init_statuses,
        container_statuses=statuses,
        conditions=conditions,
    )


def is_initialized(pod: Pod, tasks: Tasks) -> bool:
    """Tell whether the init containers of a pod have done their work, and its sidecars run; it stays so."""
    said = {each.type: each.status for each in pod.status.conditions}
    if not tasks:
        return said.get("Initialized") != "False"
    # A new pod's manifest may say what it likes.
    known = bool(pod.status.init_container_statuses) and said.get("Initialized") == "True"
    return known or not _incomplete(pod, tasks)


def _incomplete(pod: Pod, tasks: Tasks) -> list[str]:
    """The init containers that others wait for; one without a process does nothing, and is complete."""
    found = []
    for each in pod.spec.init_containers:
        task = tasks.get(each.name)
        if task and not (task.since if each.restart_policy == "Always" else _is_over(task) and _code(task) == 0):
            found.append(each.name)
    return found


def _is_over(task: TaskState) -> bool:
    return task.last is not None and not (task.since or task.wait or task.trouble)


def _code(task: TaskState) -> int:
    return task.last.code if task.last else 0


def _stood_in(incomplete: Sequence[str], now: str) -> ContainerState:
    """The state of a container without a process, which begins when the init containers have done their work."""
    if incomplete:
        return ContainerState(waiting=ContainerStateDetail(reason=_INITIALIZING))
    return ContainerState(running=ContainerStateDetail(started_at=now))


def _initialized(incomplete: Sequence[str], now: str) -> Condition:
    if not incomplete:
        return Condition(type="Initialized", status="True", last_transition_time=now)
    message = f"containers with incomplete status: [{' '.join(incomplete)}]"
    reason = "ContainersNotInitialized"
    return Condition(type="Initialized", status="False", reason=reason, message=message, last_transition_time=now)


def _init_container(
    pod: Pod, container: Container, told: ContainerStatus | None, task: TaskState | None, now: str, *, probing: bool
) -> ContainerStatus:
    """How an init container fares; ready is one that has done its work, or a sidecar that runs, and works if probed."""
    stays = container.restart_policy == "Always"
    if task:
        found = _container(pod, container, told, task, probing=probing)
        return found if stays else replace(found, ready=_is_over(task) and _code(task) == 0)
    if told:
        return told
    done = ContainerStateDetail(reason="Completed", started_at=now, finished_at=now, exit_code=0)
    state = ContainerState(running=ContainerStateDetail(started_at=now)) if stays else ContainerState(terminated=done)
    ready = not (stays and probing and container.readiness_probe)
    return ContainerStatus(
        name=container.name, image=container.image, ready=ready, started=stays, restart_count=0, state=state
    )


def pending(pod: Pod, reason: str, now: str) -> PodStatus:
    """The status of a pod that cannot start: the very one that it has, if that says so."""
    ours = [each.message for each in pod.status.conditions if each.type in _OURS]
    if pod.status.phase == "Pending" and ours == [reason]:
        return pod.status
    condition = Condition(
        type="PodScheduled", status="False", reason="Unschedulable", message=reason, last_transition_time=now
    )
    return PodStatus(phase="Pending", conditions=[condition, *_others(pod)])


def resumed(pod: Pod, task: Task) -> Task:
    """A container's process as another supervisor is to have it, by what the status tells of the one before."""
    known = (*pod.status.init_container_statuses, *pod.status.container_statuses)
    told = next((each for each in known if each.name == task.name), None)
    if told is None:
        return task
    count = told.restart_count or 0
    if how := told.state.terminated:
        how_it_ended = Ended(
            how.exit_code or 0,
            how.started_at or "",
            how.finished_at or "",
            how.signal or 0,
            how.reason[:LONGEST_MESSAGE],
            how.message[:LONGEST_MESSAGE],
        )
        return replace(task, restarts=count, ended=how_it_ended)
    return replace(task, restarts=count + bool(told.state.running or told.last_state.terminated))


def _container(
    pod: Pod, container: Container, told: ContainerStatus | None, task: TaskState, *, probing: bool
) -> ContainerStatus:
    state, last = _state(pod, task), _NEVER
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
        unmounted = task.trouble.startswith(FAILED)
        reason = _beginning(pod) if unmounted else "CreateContainerConfigError"
        return ContainerState(waiting=ContainerStateDetail(reason=reason, message=task.trouble))
    if task.since:
        return ContainerState(running=ContainerStateDetail(started_at=task.since))
    if task.wait or task.last is None:
        meta = pod.metadata
        message = (
            f"back-off {task.wait:g}s restarting failed container={task.name} "
            f"pod={meta.name}_{meta.namespace}({meta.uid})"
        )
        waiting = ContainerStateDetail(reason="CrashLoopBackOff", message=message)
        return ContainerState(waiting=waiting if task.wait else ContainerStateDetail(reason=_beginning(pod)))
    return ContainerState(terminated=_end(task.last))


def _beginning(pod: Pod) -> str:
    return _INITIALIZING if pod.spec.init_containers else "ContainerCreating"


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
    if any(each and each.trouble and not each.last for each in known):
        return "Pending"
    ends = [each.last for each in known if each and each.last and _is_over(each)]
    if len(ends) < len(known):
        return "Running"
    return "Failed" if any(each.code for each in ends) else "Succeeded"


def _phase_before(pod: Pod, tasks: Tasks) -> str:
    """The phase of a pod that is not initialized: an init container that failed for good is its end."""
    inits = [tasks[each.name] for each in pod.spec.init_containers if each.name in tasks]
    return "Failed" if any(_is_over(each) and _code(each) for each in inits) else "Pending"


def _conditions(pod: Pod, phase: str, unready: list[str], now: str) -> list[Condition]:
    new = ready_condition(unready, now, shut_gates(pod))
    if phase in ("Succeeded", "Failed"):
        new = replace(new, reason="PodCompleted" if phase == "Succeeded" else "PodFailed", message="")
    return _put(pod.status.conditions, new)


def _put(known: Sequence[Condition], new: Condition) -> list[Condition]:
    """The conditions with another one of its type, which keeps its time if it says the same."""
    old = condition_of(known, new.type)
    if old and old.status == new.status:
        new = replace(new, last_transition_time=old.last_transition_time, message=new.message or old.message)
    return [*(each for each in known if each.type != new.type), new]

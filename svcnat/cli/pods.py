"""READY, STATUS and RESTARTS of a Pod, as kubectl works them out from what its status says of each container.

Source: ``printPod`` of pkg/printers/internalversion of Kubernetes.
"""

from __future__ import annotations

from datetime import datetime

from svcnat.cli.ages import age
from svcnat.controllers.members import is_terminating
from svcnat.model.conditions import is_true
from svcnat.model.objects import ContainerStateDetail, Pod
from svcnat.model.pods import addresses_of, has_ended


def pod_ready(pod: Pod) -> str:
    """READY: how many of the containers that are to stay are ready."""
    sidecars = _sidecars(pod)
    total = len(pod.spec.containers) + len(sidecars)
    told = pod.status.container_statuses
    if not told and is_true(pod.status.conditions, "Ready"):
        return f"{total}/{total}"  # a status written by hand may leave the containers out
    staying = [each for each in pod.status.init_container_statuses if each.name in sidecars and each.started]
    shown = [*staying, *(told if _is_begun(pod) else ())]
    return f"{sum(bool(each.ready) for each in shown)}/{total}"


def pod_status(pod: Pod) -> str:
    """STATUS: how far init containers are, why a container waits or ended, else the pod's reason or phase."""
    if is_terminating(pod) and not has_ended(pod):
        return "Terminating"
    found = pod.status.reason or pod.status.phase or ("Running" if addresses_of(pod) else "Pending")
    if beginning := _beginning(pod):
        found = beginning
    if not _is_begun(pod):
        return found
    runs = False
    for each in reversed(pod.status.container_statuses):
        if each.state.waiting and each.state.waiting.reason:
            found = each.state.waiting.reason
        elif each.state.terminated:
            found = _ended(each.state.terminated)
        else:
            runs |= bool(each.ready and each.state.running)
    if found == "Completed" and runs:
        return "Running" if is_true(pod.status.conditions, "Ready") else "NotReady"
    return found


def pod_restarts(pod: Pod, now: datetime) -> str:
    """RESTARTS: how many, and how long ago the last one was; of init containers until they have done their work."""
    sidecars = _sidecars(pod)
    begun = _is_begun(pod)
    counted = [each for each in pod.status.init_container_statuses if not begun or each.name in sidecars]
    counted += pod.status.container_statuses if begun else []
    count = sum(each.restart_count or 0 for each in counted)
    ends = [end.finished_at for each in counted if (end := each.last_state.terminated) and end.finished_at]
    return f"{count} ({age(max(ends), now)} ago)" if count and ends else str(count)


def _beginning(pod: Pod) -> str:
    """What the first init container that keeps the others waiting does; "" if there is none."""
    sidecars, told = _sidecars(pod), pod.status.init_container_statuses
    for position, each in enumerate(told):
        ended, waiting = each.state.terminated, each.state.waiting
        if (ended and not ended.exit_code) or (each.name in sidecars and each.started):
            continue
        if ended:
            return f"Init:{_ended(ended)}"
        if waiting and waiting.reason not in ("", "PodInitializing"):
            return f"Init:{waiting.reason}"
        return f"Init:{position}/{len(pod.spec.init_containers)}"
    return ""


def _is_begun(pod: Pod) -> bool:
    """True if the init containers have done their work, or did once."""
    return not _beginning(pod) or is_true(pod.status.conditions, "Initialized")


def _ended(detail: ContainerStateDetail) -> str:
    return detail.reason or (f"Signal:{detail.signal}" if detail.signal else f"ExitCode:{detail.exit_code or 0}")


def _sidecars(pod: Pod) -> set[str]:
    return {each.name for each in pod.spec.init_containers if each.restart_policy == "Always"}

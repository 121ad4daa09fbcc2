"""What a Pod's status says, for whoever sends traffic to it or shows it."""

from __future__ import annotations

from svcnat.model.objects import Container, ContainerStatus, Pod

STAND_IN = "stand-in://"
"""How the ID begins of a container whose image does not run: a lab's stand-in answers for it."""


def is_ready(pod: Pod) -> bool:
    """Tell whether a Pod's Ready condition is True, and those of all its readinessGates; without conditions it is not.

    A kubelet lets gates count in the Ready condition; whoever wrote this one may not have.
    """
    true = {each.type for each in pod.status.conditions if each.status == "True"}
    return "Ready" in true and true.issuperset(gate.condition_type for gate in pod.spec.readiness_gates)


def lasting(pod: Pod) -> list[Container]:
    """Return the containers on whose readiness that of a Pod depends: its sidecars, and all but init containers."""
    return [*(each for each in pod.spec.init_containers if each.restart_policy == "Always"), *pod.spec.containers]


def lasting_statuses(pod: Pod) -> list[ContainerStatus]:
    """Return what a Pod's status tells of those."""
    names = {each.name for each in lasting(pod)}
    told = (*pod.status.init_container_statuses, *pod.status.container_statuses)
    return [each for each in told if each.name in names]


def has_ended(pod: Pod) -> bool:
    """Tell whether a Pod has done its work, or failed: it never comes back."""
    return pod.status.phase in ("Succeeded", "Failed")


def addresses_of(pod: Pod) -> list[str]:
    """Return a Pod's addresses as written, the first family first."""
    status = pod.status
    return [each.ip for each in status.pod_ips] or ([status.pod_ip] if status.pod_ip else [])


def is_stand_in(status: ContainerStatus) -> bool:
    """Tell whether a lab's stand-in answers for a container."""
    return status.container_id.startswith(STAND_IN)

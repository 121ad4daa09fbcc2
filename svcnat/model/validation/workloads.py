"""What a Pod must keep, in the fields that svcnat uses.

Source: core/v1 ValidatePodSpec. Liveness probes, security contexts and the like are not looked at: nothing here depends
on them.
"""

from __future__ import annotations

from msgspec.structs import replace

from svcnat.model.objects import (
    Condition,
    Container,
    ContainerPort,
    Pod,
    PodIP,
    PodSpec,
    PodStatus,
)
from svcnat.model.validation.addresses import check_address, check_pair
from svcnat.model.validation.metadata import check_metadata
from svcnat.model.validation.names import (
    PROTOCOLS,
    check,
    check_choice,
    check_counts,
    check_labels,
    check_port,
    dns_label,
    dns_subdomain,
    port_name,
)
from svcnat.model.validation.probes import check_readiness_probe
from svcnat.model.validation.problems import Problem, duplicate, forbidden, invalid, required, unsupported
from svcnat.model.validation.resolving import check_resolving
from svcnat.model.validation.volumes import check_volumes

PHASES = ("Pending", "Running", "Succeeded", "Failed", "Unknown")
RESTART_POLICIES = ("Always", "OnFailure", "Never")
DNS_POLICIES = ("ClusterFirst", "ClusterFirstWithHostNet", "Default", "None")

_POD_UPDATE = (
    "pod updates may not change fields other than `spec.containers[*].image`, `spec.initContainers[*].image`, "
    "`spec.activeDeadlineSeconds`, `spec.tolerations` (only additions to existing tolerations) or "
    "`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)"
)


def check_pod(pod: Pod) -> list[Problem]:
    """Return the problems of a Pod that has its defaults."""
    problems = check_metadata(pod.metadata, "Pod", dns_subdomain)
    claims = any(each.kind == "StatefulSet" for each in pod.metadata.owner_references)
    return problems + check_pod_spec(pod.spec, "spec", claims=claims) + _check_pod_status(pod.status)


def check_pod_spec(spec: PodSpec, path: str, *, claims: bool = False) -> list[Problem]:
    """Return the problems of a Pod's spec, its own or a template's; with `claims`, that of a StatefulSet."""
    problems = [] if spec.containers else [required(f"{path}.containers")]
    names: set[str] = set()
    for group, containers in (("initContainers", spec.init_containers), ("containers", spec.containers)):
        for index, container in enumerate(containers):
            at = f"{path}.{group}[{index}]"
            if container.name in names:
                problems.append(duplicate(f"{at}.name", container.name))
            names.add(container.name) if container.name else None
            problems += _check_container(container, at, host=bool(spec.host_network))
    problems += check_choice(f"{path}.restartPolicy", spec.restart_policy, RESTART_POLICIES)
    problems += check_choice(f"{path}.dnsPolicy", spec.dns_policy, DNS_POLICIES)
    problems += check_resolving(spec, path)
    forms = (("hostname", dns_label), ("subdomain", dns_label), ("nodeName", dns_subdomain))
    for name, form in forms:
        value = {"hostname": spec.hostname, "subdomain": spec.subdomain, "nodeName": spec.node_name}[name]
        problems += check(f"{path}.{name}", value, form) if value else []
    problems += check_labels(f"{path}.nodeSelector", spec.node_selector)
    problems += check_volumes(spec, path, claims=claims)
    return problems + check_counts({f"{path}.terminationGracePeriodSeconds": spec.termination_grace_period_seconds})


def _check_container(container: Container, path: str, *, host: bool) -> list[Problem]:
    problems = check(f"{path}.name", container.name, dns_label) if container.name else [required(f"{path}.name")]
    if not container.image:
        problems.append(required(f"{path}.image"))
    names: set[str] = set()
    for index, port in enumerate(container.ports):
        at = f"{path}.ports[{index}]"
        problems += _check_container_port(port, at, host=host)
        if port.name in names:
            problems.append(duplicate(f"{at}.name", port.name))
        names.update([port.name] if port.name else [])
    if container.readiness_probe:
        problems += check_readiness_probe(container.readiness_probe, f"{path}.readinessProbe")
    missing = [index for index, variable in enumerate(container.env) if not variable.name]
    return problems + [required(f"{path}.env[{index}].name") for index in missing]


def _check_container_port(port: ContainerPort, path: str, *, host: bool) -> list[Problem]:
    problems = check(f"{path}.name", port.name, port_name) if port.name else []
    number = port.container_port
    problems += check_port(f"{path}.containerPort", number) if number else [required(f"{path}.containerPort")]
    if port.host_port and port.host_port != number:
        problems += check_port(f"{path}.hostPort", port.host_port)
        if host:
            text = "must match `hostPort` when `hostNetwork` is true"
            problems.append(invalid(f"{path}.containerPort", number, text))
    problems += check_choice(f"{path}.protocol", port.protocol, PROTOCOLS)
    return problems + (check_address(f"{path}.hostIP", port.host_ip) if port.host_ip else [])


def _check_pod_status(status: PodStatus) -> list[Problem]:
    problems = check_choice("status.phase", status.phase, PHASES)
    problems += _check_status_addresses("podIP", status.pod_ip, status.pod_ips)
    problems += _check_status_addresses("hostIP", status.host_ip, status.host_ips)
    return problems + check_conditions(status.conditions)


def _check_status_addresses(name: str, single: str, several: list[PodIP]) -> list[Problem]:
    path = f"status.{name}s"
    if single and [each.ip for each in several[:1]] not in ([], [single]):
        return [invalid(f"status.{name}", single, f"must match the first of `{name}s`")]
    if single and len(several) == 1:
        # The plural is what the defaults made of the singular, or equal to it: report once.
        return check_address(f"status.{name}", single)
    problems = []
    for index, each in enumerate(several):
        problems += check_address(f"{path}[{index}].ip", each.ip)
    return problems or check_pair(path, [each.ip for each in several])


def check_conditions(conditions: list[Condition]) -> list[Problem]:
    """Return the problems of the conditions of a status."""
    problems = []
    for index, condition in enumerate(conditions):
        path = f"status.conditions[{index}]"
        if not condition.type:
            problems.append(required(f"{path}.type"))
        if condition.status not in ("True", "False", "Unknown"):
            problems.append(unsupported(f"{path}.status", condition.status, ("True", "False", "Unknown")))
    return problems


def check_pod_update(old: Pod, new: Pod) -> list[Problem]:
    """Return the problem of a Pod whose spec changed in what may not change.

    A Pod that was on no node may be put on one: that is scheduling.
    """
    return [] if _fixed(old.spec) == _fixed(_placed(old.spec, new.spec)) else [forbidden("spec", _POD_UPDATE)]


def _placed(old: PodSpec, new: PodSpec) -> PodSpec:
    return new if old.node_name else replace(new, node_name="")


def _fixed(spec: PodSpec) -> PodSpec:
    """Return a Pod's spec without what an update may change."""
    return replace(
        spec,
        containers=[replace(each, image="") for each in spec.containers],
        init_containers=[replace(each, image="") for each in spec.init_containers],
        active_deadline_seconds=None,
        termination_grace_period_seconds=None,
        tolerations=None,
    )

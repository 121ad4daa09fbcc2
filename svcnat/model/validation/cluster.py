"""What a Node and a Namespace must keep.

Source: core/v1 ValidateNode and ValidateNamespace.
"""

from __future__ import annotations

from svcnat.model.objects import Namespace, Node
from svcnat.model.validation.addresses import check_address, check_network, check_pair
from svcnat.model.validation.metadata import check_metadata
from svcnat.model.validation.names import check_choice, dns_label, dns_subdomain
from svcnat.model.validation.problems import Problem, duplicate, forbidden, invalid
from svcnat.model.validation.workloads import check_conditions


def check_node(node: Node) -> list[Problem]:
    """Return the problems of a Node that has its defaults."""
    problems = check_metadata(node.metadata, "Node", dns_subdomain, namespaced=False)
    return problems + _check_pod_ranges(node) + _check_addresses(node) + check_conditions(node.status.conditions)


def _check_pod_ranges(node: Node) -> list[Problem]:
    ranges = node.spec.pod_cidrs
    if ranges == [node.spec.pod_cidr]:
        # The defaults make each of the two from the other: the one that everybody writes is reported.
        return check_network("spec.podCIDR", ranges[0])
    problems = []
    for index, text in enumerate(ranges):
        problems += check_network(f"spec.podCIDRs[{index}]", text)
    if ranges and node.spec.pod_cidr != ranges[0]:
        problems.append(invalid("spec.podCIDR", node.spec.pod_cidr, "must match the first of `podCIDRs`"))
    return problems or check_pair("spec.podCIDRs", ranges)


def _check_addresses(node: Node) -> list[Problem]:
    problems = []
    seen = set()
    for index, each in enumerate(node.status.addresses):
        path = f"status.addresses[{index}]"
        if each.type in ("InternalIP", "ExternalIP"):
            problems += check_address(f"{path}.address", each.address)
        if each in seen:
            problems.append(duplicate(path, f"{each.type} {each.address}"))
        seen.add(each)
    return problems


def check_node_update(old: Node, new: Node) -> list[Problem]:
    """Return the problem of a Node whose pod ranges changed once they were set."""
    if old.spec.pod_cidrs in ([], new.spec.pod_cidrs):
        return []
    return [forbidden("spec.podCIDRs", 'node updates may not change podCIDR except from "" to valid')]


def check_namespace(namespace: Namespace) -> list[Problem]:
    """Return the problems of a Namespace that has its defaults."""
    problems = check_metadata(namespace.metadata, "Namespace", dns_label, namespaced=False)
    return problems + check_choice("status.phase", namespace.status.phase, ("Active", "Terminating"))

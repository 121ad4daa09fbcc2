"""Which node a pod of a lab runs on: the one that it names, or the one with the fewest among those that may have it.

Neither affinities nor resources are looked at, and of taints only that of nodes of which nothing is heard.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping

from svcnat.controllers.node_lifecycle import is_usable
from svcnat.errors import LabError
from svcnat.lab.topology import Node
from svcnat.model import objects
from svcnat.model.objects import Pod
from svcnat.model.selectors import matches


class Scheduler:
    """The nodes of a lab, by name: as they were built, and as they are in the store; `silent` ones get nothing."""

    def __init__(
        self, nodes: Mapping[str, Node], known: Mapping[str, objects.Node], silent: Collection[str] = ()
    ) -> None:
        self._nodes, self._known, self._silent = nodes, known, silent

    def choose(self, pod: Pod, load: Counter[str]) -> Node:
        """The node of a pod, given how many each has.

        Raises:
            LabError: there is none that may have it.

        """
        if pod.spec.node_name:
            if pod.spec.node_name not in self._nodes:
                raise LabError(f"this lab has no node {pod.spec.node_name}")
            return self._nodes[pod.spec.node_name]
        fitting = [node for name, node in self._nodes.items() if name not in self._silent and self._may_run(pod, name)]
        if not fitting:
            raise LabError("no node is schedulable and has the labels of its nodeSelector")
        return min(fitting, key=lambda node: load[node.name])

    def _may_run(self, pod: Pod, name: str) -> bool:
        known = self._known.get(name)
        if known is None:
            return not pod.spec.node_selector
        return is_usable(known) and matches(pod.spec.node_selector, known.metadata.labels)

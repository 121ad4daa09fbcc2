"""A node loses its power, or cannot be reached: the service goes on with the pods of the other one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from svcnat.testing.lab import LabFixture

MANIFESTS = Path(__file__).parent / "back-end.yaml"

TWO_NODES = """
apiVersion: svcnat.io/v1alpha1
kind: Topology
nodes: [{name: node-1}, {name: node-2}]
"""


@pytest.mark.parametrize("failure", ["stop", "partition"])
def test_a_node_fails_and_the_service_does_not(svcnat_lab: LabFixture, failure: str) -> None:
    """Requests go to the other node's pods, all of them, and to both nodes' again when it is back."""
    svcnat_lab.apply(TWO_NODES)
    svcnat_lab.apply(MANIFESTS)
    node, end = svcnat_lab.node("node-2"), {"stop": "start", "partition": "heal"}[failure]
    both = {each.pod for each in svcnat_lab.endpoints("back-end")}
    getattr(node, failure)()
    assert not node.ready
    left = {each.pod for each in svcnat_lab.endpoints("back-end") if each.ready}
    assert len(left) == 1
    assert set(svcnat_lab.flows(40, to="back-end:http").pods) == left
    getattr(node, end)()
    assert node.ready
    assert set(svcnat_lab.flows(40, to="back-end:http").pods) == both

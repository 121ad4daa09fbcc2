"""Switch nodes of a lab off, as by a power cut: all that runs there ends at once, and nobody is told.

The node becomes NotReady, its pods unready, and services go on with the others' pods: at once, or after the topology's
nodeMonitorGraceSeconds. After its podEvictionSeconds (default: 300, as in Kubernetes) the pods are deleted, and those
of Deployments made again on other nodes. `svcnat lab node start` brings the node back.
"""

from __future__ import annotations

import argparse

from svcnat.cli import lab_nodes

add_arguments = lab_nodes.add_arguments


def run(options: argparse.Namespace) -> int:
    """Stop the nodes."""
    with lab_nodes.find(options) as lab:
        lab_nodes.tell(options.nodes, lab.stop_nodes(*options.nodes), "stopped")
    return 0

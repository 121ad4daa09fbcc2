"""Switch nodes of a lab on again. The pods that are still theirs start anew, with other addresses."""

from __future__ import annotations

import argparse

from svcnat.cli import lab_nodes

add_arguments = lab_nodes.add_arguments


def run(options: argparse.Namespace) -> int:
    """Start the nodes."""
    with lab_nodes.find(options) as lab:
        lab_nodes.tell(options.nodes, lab.start_nodes(*options.nodes), "started")
    return 0

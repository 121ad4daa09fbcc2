"""Cut nodes of a lab off: what runs there goes on, but no packet passes between them and the others, either way.

The others are those that --from names, or else everybody: the other nodes, the clients, and the control plane, which
takes the nodes for lost as if they were off. With --from it hears all of them, and nothing becomes NotReady: only
packets between the two sides are gone. Partitions add up; `svcnat lab node heal` ends them.
"""

from __future__ import annotations

import argparse

from svcnat.cli import lab_nodes
from svcnat.cli.terminal import visible


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of ``lab node partition``."""
    lab_nodes.add_arguments(parser)
    parser.add_argument(
        "--from",
        dest="others",
        action="append",
        default=[],
        metavar="NODE|CLIENT",
        help="only from this one; may be repeated, or have commas",
    )


def run(options: argparse.Namespace) -> int:
    """Cut the nodes off."""
    others = [name for text in options.others for name in text.split(",") if name]
    with lab_nodes.find(options) as lab:
        lab.partition(*options.nodes, others=others)
    for node in dict.fromkeys(options.nodes):
        print(visible(f"node/{node} cut off from {', '.join(others) or 'all others'}"))
    return 0

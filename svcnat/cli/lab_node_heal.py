"""End partitions of a lab: these nodes or clients reach everybody again, or with --all everybody does."""

from __future__ import annotations

import argparse

from svcnat.cli import lab_nodes
from svcnat.cli.terminal import visible
from svcnat.errors import UsageError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of ``lab node heal``."""
    parser.add_argument("nodes", nargs="*", metavar="NODE|CLIENT", help="which nodes or clients")
    parser.add_argument("--all", action="store_true", help="all of them")


def run(options: argparse.Namespace) -> int:
    """End the partitions."""
    if bool(options.nodes) == options.all:
        raise UsageError("say which nodes, or --all")
    with lab_nodes.find(options) as lab:
        lab.heal(*options.nodes)
        members = [member.name for member in lab.built.topology.members]
        nodes = {node for node, _ in lab.built.nodes}
    for name in dict.fromkeys(options.nodes or members):
        print(visible(f"{'node/' if name in nodes else ''}{name} reaches everybody"))
    return 0

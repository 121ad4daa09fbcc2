"""Have no more pods placed on nodes; those that are there stay, and a DaemonSet's come all the same."""

from __future__ import annotations

import argparse

from svcnat.cli import session
from svcnat.cli.terminal import visible
from svcnat.errors import NotFoundError
from svcnat.model.objects import Node


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of ``cordon`` and ``uncordon``."""
    parser.add_argument("nodes", nargs="+", metavar="NODE", help="which nodes")


def run(options: argparse.Namespace) -> int:
    """Cordon the nodes."""
    return change(options, unschedulable=True)


def change(options: argparse.Namespace, *, unschedulable: bool) -> int:
    """Cordon or uncordon nodes, and say of each what became of it, in kubectl's words."""
    wanted = list(dict.fromkeys(name.removeprefix("node/") for name in options.nodes))
    with session.open_cluster(options, create=False) as cluster:
        with cluster.read() as snapshot:
            before = {node.metadata.name: bool(node.spec.unschedulable) for node in snapshot.list(Node)}
        if missing := [name for name in wanted if name not in before]:
            raise NotFoundError(f'nodes "{missing[0]}" not found')
        cluster.cordon([name for name in wanted if before[name] != unschedulable], unschedulable=unschedulable)
    word = "cordoned" if unschedulable else "uncordoned"
    for name in wanted:
        print(visible(f"node/{name} {'already ' if before[name] == unschedulable else ''}{word}"))
    return 0

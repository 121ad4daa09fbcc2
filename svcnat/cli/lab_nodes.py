"""What the verbs of ``lab node`` share: which nodes, of which lab, and saying what became of them."""

from __future__ import annotations

import argparse
from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING

from svcnat.cli.terminal import visible
from svcnat.errors import LabError

if TYPE_CHECKING:  # costs more to import than a help page may take
    from svcnat.api import Lab


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the nodes."""
    parser.add_argument("nodes", nargs="+", metavar="NODE", help="which nodes")


def find(options: argparse.Namespace) -> Lab:
    """The lab that ``--lab`` names, or the only one that has these nodes.

    Raises:
        LabError: there is none, or more than one.

    """
    from svcnat import api

    return api.Lab.find(options.lab or _only(options.nodes))


def _only(nodes: Collection[str]) -> str:
    from svcnat.lab.labs import Lab
    from svcnat.lab.listing import running

    found = []
    for name in running():
        with Lab.open(name) as lab:
            if {member for member, _ in (*lab.nodes, *lab.clients)}.issuperset(nodes):
                found.append(name)
    if len(found) != 1:
        what = f"has {' and '.join(nodes)}" if nodes else "is up"
        if not set(nodes).isdisjoint(running()):
            what += ": a lab is named by --lab"
        raise LabError(f"several labs: say --lab {' or --lab '.join(found)}" if found else f"no lab {what}")
    return found[0]


def tell(nodes: Iterable[str], changed: Collection[str], word: str) -> None:
    """Print a line a node."""
    for node in dict.fromkeys(nodes):
        print(visible(f"node/{node} {'' if node in changed else 'already '}{word}"))

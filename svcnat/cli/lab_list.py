"""List the labs that are up."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from svcnat.cli.terminal import say, table

if TYPE_CHECKING:  # costs more to import than a help page may take
    from svcnat.lab.listing import Summary


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of ``lab list``."""
    parser.add_argument("--no-headers", action="store_true", help="leave the line of column names out")


def run(options: argparse.Namespace) -> int:
    """Print one line a lab."""
    from svcnat.lab.listing import labs

    rows = [[lab.name, _status(lab), str(lab.nodes), str(lab.pods)] for lab in labs()]
    if not rows:
        say("No labs found")
        return 0
    headers = [] if options.no_headers else [["NAME", "STATUS", "NODES", "PODS"]]
    for line in table(headers + rows):
        print(line)
    return 0


def _status(lab: Summary) -> str:
    """As kubectl joins what it has to say of a node."""
    return lab.state if lab.attended or lab.state == "broken" else f"{lab.state},no-agent"

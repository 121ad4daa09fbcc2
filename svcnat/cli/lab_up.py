"""Build a lab: nodes, clients and pods as network namespaces.

PATHs hold manifests, and perhaps one Topology (nodes, clients, address ranges). Without one the lab has one
node and one client. All of it or nothing is built.
"""

from __future__ import annotations

import argparse

from svcnat.cli import session
from svcnat.cli.terminal import counted, visible
from svcnat.model.objects import Pod

DEFAULT_NAME = "lab"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of ``lab up``."""
    parser.add_argument("name", nargs="?", help=f"what to call it (default: {DEFAULT_NAME})")
    session.add_manifest_flags(parser, required=False)


def run(options: argparse.Namespace) -> int:
    """Build the lab and say what is in it."""
    from svcnat import api

    name = options.lab = (options.lab or DEFAULT_NAME) if options.name is None else options.name
    with api.Lab.up(name, wanted=session.load_lab(options)) as lab:
        with lab.read() as snapshot:
            pods = len(snapshot.list(Pod))
        nodes, clients = len(lab.built.nodes), len(lab.built.clients)
    contents = ", ".join(counted(*item) for item in ((nodes, "node"), (pods, "pod"), (clients, "client")))
    print(visible(f"lab {name} is up: {contents}"))
    return 0

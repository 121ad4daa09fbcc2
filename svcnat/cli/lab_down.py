"""Remove labs: their processes, namespaces, links and files, whatever is left of them."""

from __future__ import annotations

import argparse

from svcnat.cli.lab_up import DEFAULT_NAME
from svcnat.cli.terminal import say, visible
from svcnat.errors import UsageError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of ``lab down``."""
    parser.add_argument("name", nargs="?", help=f"which lab (default: {DEFAULT_NAME})")
    parser.add_argument("--all", action="store_true", help="every lab")


def run(options: argparse.Namespace) -> int:
    """Take the lab, or all, down."""
    from svcnat.lab.labs import down

    for name in _names(options):
        down(name)
        print(visible(f"lab {name} is down"))
    return 0


def _names(options: argparse.Namespace) -> list[str]:
    from svcnat.lab.listing import labs

    name = options.lab if options.name is None else options.name
    if not options.all:
        return [DEFAULT_NAME if name is None else name]
    if name is not None:
        raise UsageError("a lab's name and --all cannot be given together")
    names = [lab.name for lab in labs()]
    if not names:
        say("No labs found")
    return names

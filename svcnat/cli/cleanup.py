"""Remove svcnat's tables, proxy neighbours and routes from a network namespace, and nothing else.

Objects stay in the state file; the next change to them brings the rules back. Settings below /proc/sys stay as they
are: another program may have come to need them.
"""

from __future__ import annotations

import argparse

from svcnat.cli.terminal import say, say_warnings


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add no flags: the global ones say where."""


def run(options: argparse.Namespace) -> int:
    """Remove them, and name the tables that were there."""
    from svcnat import api

    places = [options.netns]
    if options.lab:
        with api.Lab.find(options.lab) as lab:
            places = [str(netns) for _, netns in lab.built.nodes]
    cleaned = [api.cleanup(netns) for netns in places]
    for family in (family for each in cleaned for family in each.families):
        print(f"table {family} svcnat removed")
    if not any(each.families for each in cleaned):
        say("No svcnat tables found")
    for each in cleaned:
        say_warnings(each.warnings)
    return 0

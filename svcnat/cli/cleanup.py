"""Remove every svcnat table from a network namespace, and nothing else.

Objects stay in the state file; the next change to them brings the rules back.
"""

from __future__ import annotations

import argparse

from svcnat.cli.terminal import say


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add no flags: the global ones say where."""


def run(options: argparse.Namespace) -> int:
    """Remove the tables."""
    from svcnat import api

    places = [options.netns]
    if options.lab:
        with api.Lab.find(options.lab) as lab:
            places = [str(netns) for _, netns in lab.built.nodes]
    families = [family for netns in places for family in api.cleanup(netns)]
    for family in families:
        print(f"table {family} svcnat removed")
    if not families:
        say("No svcnat tables found")
    return 0

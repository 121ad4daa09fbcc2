"""Let the templates of deployments change without consequence, until they are resumed.

A rollout that is on its way stays where it is; the number of pods can be changed all the same.
"""

from __future__ import annotations

import argparse

from svcnat.cli import editing


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of ``rollout pause``."""
    editing.add_arguments(parser, "what to pause")


def run(options: argparse.Namespace) -> int:
    """Pause the deployments that the flags name."""
    return editing.run(options, lambda cluster, places, dry_run: cluster.pause(places, dry_run=dry_run), "paused")

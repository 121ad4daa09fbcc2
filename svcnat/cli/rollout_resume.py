"""Let paused deployments go on: what changed in their templates becomes one rollout."""

from __future__ import annotations

import argparse

from svcnat.cli import editing


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of ``rollout resume``."""
    editing.add_arguments(parser, "what to resume")


def run(options: argparse.Namespace) -> int:
    """Resume the deployments that the flags name."""
    return editing.run(options, lambda cluster, places, dry_run: cluster.resume(places, dry_run=dry_run), "resumed")

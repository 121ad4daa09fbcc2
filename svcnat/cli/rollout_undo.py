"""Give deployments, daemonsets and statefulsets a former template, as a rollout.

It becomes a new revision. `svcnat rollout history` lists those that there are.
"""

from __future__ import annotations

import argparse

from svcnat.cli import editing


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of ``rollout undo``."""
    editing.add_arguments(parser, "what to change back")
    parser.add_argument(
        "--to-revision", type=int, default=0, metavar="NUMBER", help="go back to this one (default: the one before)"
    )


def run(options: argparse.Namespace) -> int:
    """Change the objects back that the flags name."""
    wanted = options.to_revision
    return editing.run(
        options,
        lambda cluster, places, dry_run: cluster.undo(places, wanted, dry_run=dry_run),
        "rolled back",
        f"skipped rollback (current template already matches revision {wanted})",
    )

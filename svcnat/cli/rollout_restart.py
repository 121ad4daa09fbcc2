"""Make all pods of deployments, daemonsets and statefulsets anew, as a rollout.

Nothing but an annotation of their template changes: kubectl.kubernetes.io/restartedAt.
"""

from __future__ import annotations

import argparse
from datetime import UTC, datetime

from svcnat.cli import editing


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of ``rollout restart``."""
    editing.add_arguments(parser, "what to restart")


def run(options: argparse.Namespace) -> int:
    """Restart the objects that the flags name."""
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return editing.run(
        options, lambda cluster, places, dry_run: cluster.restart(places, now, dry_run=dry_run), "restarted"
    )

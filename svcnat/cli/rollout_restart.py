"""Make all pods of deployments, daemonsets and statefulsets anew, as a rollout.

Nothing but an annotation of their template changes: kubectl.kubernetes.io/restartedAt.
"""

from __future__ import annotations

import argparse
from datetime import UTC, datetime

from svcnat.cli import references, session


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of ``rollout restart``."""
    parser.add_argument("words", nargs="*", metavar="KIND NAME | KIND/NAME", help="what to restart")
    parser.add_argument("-l", "--selector", default="", help="only objects with these labels: a=b,c!=d,e in (f,g)")
    session.add_mutation_flags(parser)


def run(options: argparse.Namespace) -> int:
    """Restart the objects that the flags name."""
    form = session.mutation_format(options)
    selections = references.parse(options.words)
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    with session.open_cluster(options, create=False) as cluster:
        places = references.places(cluster, selections, options.namespace or "default", options.selector)
        return session.change(options, form, lambda dry_run: cluster.restart(places, now, dry_run=dry_run), "restarted")

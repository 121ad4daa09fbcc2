"""Create objects from manifests, and make the rules follow.

All of them or none: if one exists already, or is wrong, nothing changes.
"""

from __future__ import annotations

import argparse

from svcnat.cli import session


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of ``create``."""
    session.add_manifest_flags(parser)
    session.add_mutation_flags(parser)


def run(options: argparse.Namespace) -> int:
    """Create the objects of ``-f``."""
    form = session.mutation_format(options)
    loaded = session.load_some(options)
    with session.open_cluster(options) as cluster:
        return session.change(options, form, lambda dry_run: cluster.create(loaded, dry_run=dry_run))

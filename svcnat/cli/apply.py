"""Create objects from manifests, or change those that exist to match, and make the rules follow.

What a former apply set and this one leaves out is removed; what others set stays. All of the objects or none.
"""

from __future__ import annotations

import argparse

from svcnat.cli import session


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of ``apply``."""
    session.add_manifest_flags(parser)
    session.add_mutation_flags(parser)


def run(options: argparse.Namespace) -> int:
    """Apply the objects of ``-f``."""
    form = session.mutation_format(options)
    loaded = session.load_some(options)
    with session.open_cluster(options) as cluster:
        return session.change(options, form, lambda dry_run: cluster.apply(loaded, dry_run=dry_run))

"""Put objects of manifests in the place of those with their names, and make the rules follow.

What a manifest leaves out is gone, but for what the system gave: addresses, node ports, the node of a pod, the status.
All of the objects or none: it is an error if one does not exist, or has another resourceVersion than its manifest says.
"""

from __future__ import annotations

import argparse

from svcnat.cli import session


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of ``replace``."""
    session.add_manifest_flags(parser)
    session.add_mutation_flags(parser)


def run(options: argparse.Namespace) -> int:
    """Replace the objects of ``-f``."""
    form = session.mutation_format(options)
    loaded = session.load_some(options)
    with session.open_cluster(options, create=False) as cluster:
        return session.change(options, form, lambda dry_run: cluster.replace(loaded, dry_run=dry_run))

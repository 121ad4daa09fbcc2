"""Create objects from manifests, and make the rules follow.

All of them or none: if one exists already, or is wrong, nothing changes. A ConfigMap or a Secret needs no manifest:

  svcnat create configmap NAME --from-literal KEY=VALUE --from-file [KEY=]PATH
  svcnat create secret generic NAME --from-literal KEY=VALUE --from-file [KEY=]PATH
  svcnat create secret tls NAME --cert FILE --key FILE
"""

from __future__ import annotations

import argparse

from svcnat.cli import literals, session
from svcnat.errors import UsageError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of ``create``."""
    session.add_manifest_flags(parser, required=False)
    literals.add_arguments(parser)
    session.add_mutation_flags(parser)


def run(options: argparse.Namespace) -> int:
    """Create the objects of ``-f``, or the one that the flags describe."""
    form = session.mutation_format(options)
    if bool(options.filename) == bool(options.words):
        raise UsageError(literals.FORMS)
    loaded = session.load_some(options) if options.filename else literals.load(options)
    with session.open_cluster(options) as cluster:
        return session.change(options, form, lambda dry_run: cluster.create(loaded, dry_run=dry_run))

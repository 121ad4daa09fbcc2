"""Set how many pods a deployment, replicaset or statefulset has, and make the rules follow.

All of the objects or none; with --current-replicas, only if each has that many now.
"""

from __future__ import annotations

import argparse

from svcnat.cli import references, session
from svcnat.errors import UsageError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of ``scale``."""
    parser.add_argument("words", nargs="*", metavar="KIND NAME | KIND/NAME", help="what to scale")
    parser.add_argument("--replicas", type=int, metavar="COUNT", help="how many pods there are to be")
    parser.add_argument("--current-replicas", type=int, metavar="COUNT", help="only if there are so many now")
    parser.add_argument("--all", action="store_true", help="all objects of the kind, in the namespace")
    parser.add_argument("-l", "--selector", default="", help="only objects with these labels: a=b,c!=d,e in (f,g)")
    session.add_mutation_flags(parser)


def run(options: argparse.Namespace) -> int:
    """Scale the objects that the flags name."""
    form = session.mutation_format(options)
    if options.replicas is None or options.replicas < 0:
        raise UsageError("The --replicas=COUNT flag is required, and COUNT must be greater than or equal to 0")
    selections = references.parse(options.words)
    if not (options.all or options.selector or any(selection.names for selection in selections)):
        raise UsageError("resource(s) were provided, but no name was specified: give names, --all or -l SELECTOR")
    current = None if options.current_replicas in (None, -1) else options.current_replicas
    with session.open_cluster(options, create=False) as cluster:
        places = references.places(cluster, selections, options.namespace or "default", options.selector)
        return session.change(
            options,
            form,
            lambda dry_run: cluster.scale(places, options.replicas, current=current, dry_run=dry_run),
            "scaled",
        )

"""List the revisions of deployments, daemonsets and statefulsets, the oldest first.

With --revision, the pod template of one of them.
"""

from __future__ import annotations

import argparse

from svcnat.cli import references, session
from svcnat.cli.formats import reference
from svcnat.cli.rollouts import templates
from svcnat.cli.terminal import aligned, say, visible
from svcnat.cli.workloads import template_rows
from svcnat.errors import NotFoundError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of ``rollout history``."""
    parser.add_argument("words", nargs="*", metavar="KIND NAME | KIND/NAME", help="whose history")
    parser.add_argument("--revision", type=int, default=0, metavar="NUMBER", help="show this one, with its template")
    parser.add_argument("-l", "--selector", default="", help="only objects with these labels: a=b,c!=d,e in (f,g)")


def run(options: argparse.Namespace) -> int:
    """Print the histories, each followed by an empty line."""
    selections = references.parse(options.words)
    with session.open_cluster(options, create=False) as cluster, cluster.read() as snapshot:
        blocks, missing = references.found(
            snapshot, selections, namespace=options.namespace or "default", selector=options.selector
        )
        for resource in (resource for _, found in blocks for resource in found):
            revisions = templates(snapshot, resource)
            name = visible(reference(resource))
            if not options.revision:
                rows = [
                    ["REVISION", "CHANGE-CAUSE"],
                    *([str(number), cause] for number, (cause, _) in revisions.items()),
                ]
                lines = aligned(rows) if revisions else ["No rollout history found."]
                print(f"{name} ", *lines, "", sep="\n")
            elif options.revision in revisions:
                lines = aligned(template_rows(revisions[options.revision][1]))
                print(f"{name} with revision #{options.revision}", *lines, "", sep="\n")
            else:
                raise NotFoundError("unable to find the specified revision")
    say(*(f"error: {message}" for message in missing))
    return 1 if missing else 0

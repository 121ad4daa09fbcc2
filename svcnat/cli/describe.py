"""Show objects in full: kubectl's lines, the scheduler and what the kernel counted, and what happened to them.

Without a name, every object of the kind.
"""

from __future__ import annotations

import argparse
from datetime import UTC, datetime

from svcnat.cli import references, session
from svcnat.cli.descriptions import Context, describe
from svcnat.cli.terminal import aligned, say
from svcnat.errors import KernelError
from svcnat.model.objects import Service


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of ``describe``."""
    parser.add_argument("words", nargs="*", metavar="KIND NAME | KIND/NAME", help="what to describe")
    parser.add_argument("-A", "--all-namespaces", action="store_true", help="in every namespace")
    parser.add_argument("-l", "--selector", default="", help="only objects with these labels: a=b,c!=d,e in (f,g)")


def run(options: argparse.Namespace) -> int:
    """Print the descriptions, two blank lines apart."""
    selections = references.parse(options.words)
    with session.open_cluster(options, create=False) as cluster, cluster.read() as snapshot:
        blocks, missing = references.found(
            snapshot,
            selections,
            namespace=options.namespace or "default",
            all_namespaces=options.all_namespaces,
            selector=options.selector,
        )
        resources = [resource for _, found in blocks for resource in found]
        for index, resource in enumerate(resources):
            connections = None
            if isinstance(resource, Service):
                try:
                    connections = cluster.connections(resource)
                except KernelError as error:
                    if options.verbose:
                        say(f"the kernel's counters cannot be read: {error}")
            print("\n\n" * (index > 0), end="")
            context = Context(snapshot, connections, snapshot.events_about(resource), datetime.now(UTC))
            for line in aligned(describe(resource, context)):
                print(line)
    if not resources and not missing:
        say("No resources found")
    say(*(f"error: {message}" for message in missing))
    return 1 if missing else 0

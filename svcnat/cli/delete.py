"""Delete objects, and make the rules follow.

Name them by -f, or as KIND NAME..., KIND/NAME..., KIND -l SELECTOR, KIND --all. All of them or none. What an object
owns goes with it: a Deployment's pods, a Service's endpoint slices, all that is in a Namespace.

In a lab, pods with processes terminate: they have their terminationGracePeriodSeconds to end in, and the command waits
for that. Elsewhere nobody runs pods, and they go at once.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from svcnat.cli import references, session
from svcnat.cli.terminal import say, say_warnings
from svcnat.errors import UsageError
from svcnat.model.objects import Endpoints, Resource
from svcnat.model.selectors import Selector
from svcnat.store.snapshot import Snapshot

if TYPE_CHECKING:  # costs more to import than a help page may take
    from svcnat.api import Changed, Cluster

_FORCED = (
    "Immediate deletion does not wait for confirmation that the running resource has been terminated. "
    "The resource may continue to run on the cluster indefinitely."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of ``delete``."""
    parser.add_argument("words", nargs="*", metavar="KIND NAME | KIND/NAME", help="what to delete")
    session.add_manifest_flags(parser, required=False)
    session.add_mutation_flags(parser)
    parser.add_argument("--all", action="store_true", help="all objects of the kind, in the namespace")
    parser.add_argument("-A", "--all-namespaces", action="store_true", help="with --all or -l: in every namespace")
    parser.add_argument("-l", "--selector", metavar="SELECTOR", help="objects with these labels: a=b,c!=d,e in (f,g)")
    parser.add_argument(
        "--grace-period",
        type=int,
        default=-1,
        metavar="SECONDS",
        help="how long pods of a lab may take to end (default: what each one says); 0 only with --force",
    )
    parser.add_argument("--now", action="store_true", help="as --grace-period=1")
    parser.add_argument("--force", action="store_true", help="remove pods of a lab at once, and kill their processes")
    parser.add_argument(
        "--wait",
        nargs="?",
        choices=("true", "false"),
        default="true",
        const="true",
        help="wait until pods have ended (default: true)",
    )
    parser.add_argument("--ignore-not-found", action="store_true", help="what is not there is not an error")


def run(options: argparse.Namespace) -> int:
    """Delete the objects that the flags name."""
    form = session.mutation_format(options)
    if bool(options.filename) == bool(options.words):
        raise UsageError("say what to delete: either -f PATH, or KIND and NAME, --all or -l")
    grace = _grace(options)
    selections = [] if options.filename else _selections(options)
    loaded = session.load_some(options) if options.filename else None
    with session.open_cluster(options, create=False) as cluster:
        with cluster.read() as snapshot:
            if loaded is None:
                wanted = _wanted(options, selections, snapshot)
            else:
                wanted = [
                    (type(resource), resource.metadata.namespace, resource.metadata.name)
                    for resource in (manifest.resource for manifest in loaded.manifests)
                ]
            if options.ignore_not_found:
                wanted = [place for place in wanted if snapshot.get(*place)]
        if not wanted:
            say("No resources found")
            return 0
        if options.force:
            say_warnings([_FORCED])
        return session.change(
            options,
            form,
            lambda dry_run: _delete(cluster, wanted, grace, dry_run=dry_run, wait=options.wait == "true"),
            "force deleted" if options.force else "",
        )


def _delete(
    cluster: Cluster,
    wanted: list[tuple[type[Resource], str, str]],
    grace: int | None,
    *,
    dry_run: bool,
    wait: bool,
) -> Changed:
    from svcnat import api

    if isinstance(cluster, api.Lab):
        return cluster.delete(wanted, dry_run=dry_run, grace=grace, wait=wait and grace != 0)
    return cluster.delete(wanted, dry_run=dry_run)


def _grace(options: argparse.Namespace) -> int | None:
    """The seconds that pods have, None for their own; by kubectl's rules."""
    grace: int = options.grace_period
    if options.now:
        if grace != -1:
            raise UsageError("--now and --grace-period cannot be specified together")
        grace = 1
    if options.force:
        if grace > 0:
            raise UsageError("--force and --grace-period greater than 0 cannot be specified together")
        return 0
    return None if grace < 0 else max(grace, 1)


def _selections(options: argparse.Namespace) -> list[references.Selection]:
    selections = references.parse(options.words)
    by_name = any(selection.names for selection in selections)
    if by_name and (options.all or options.selector is not None):
        raise UsageError("a name cannot be given together with --all or -l")
    if not by_name and not options.all and options.selector is None:
        raise UsageError("resource(s) were provided, but no name was specified: give names, --all or -l SELECTOR")
    if options.all and options.selector is not None:
        raise UsageError("--all and -l cannot be given together")
    return selections


def _wanted(
    options: argparse.Namespace, selections: list[references.Selection], snapshot: Snapshot
) -> list[tuple[type[Resource], str, str]]:
    namespace = options.namespace or "default"
    wanted: dict[tuple[type[Resource], str, str], None] = {}
    for selection in selections:
        kind = selection.kind
        for name in selection.names:
            wanted[kind.type, namespace if kind.namespaced else "", name] = None
        if not selection.names:
            scope = None if options.all_namespaces else namespace
            for resource in references.listed(snapshot, kind, scope, Selector.parse(options.selector or "")):
                place = kind.type, resource.metadata.namespace, resource.metadata.name
                if kind.type is not Endpoints or snapshot.get(*place):  # Others follow from slices, and from Pods.
                    wanted[place] = None
    return list(wanted)

"""Delete objects, and make the rules follow.

Name them by -f, or as KIND NAME..., KIND/NAME..., KIND -l SELECTOR, KIND --all. All of them or none. What an object
owns goes with it: a Deployment's pods, a Service's endpoint slices, all that is in a Namespace.
"""

from __future__ import annotations

import argparse

from svcnat.cli import references, session
from svcnat.cli.terminal import say
from svcnat.errors import UsageError
from svcnat.model.objects import Endpoints, Resource
from svcnat.model.selectors import Selector
from svcnat.store.snapshot import Snapshot


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of ``delete``."""
    parser.add_argument("words", nargs="*", metavar="KIND NAME | KIND/NAME", help="what to delete")
    session.add_manifest_flags(parser, required=False)
    session.add_mutation_flags(parser)
    parser.add_argument("--all", action="store_true", help="all objects of the kind, in the namespace")
    parser.add_argument("-A", "--all-namespaces", action="store_true", help="with --all or -l: in every namespace")
    parser.add_argument("-l", "--selector", metavar="SELECTOR", help="objects with these labels: a=b,c!=d,e in (f,g)")
    parser.add_argument("--ignore-not-found", action="store_true", help="what is not there is not an error")


def run(options: argparse.Namespace) -> int:
    """Delete the objects that the flags name."""
    form = session.mutation_format(options)
    if bool(options.filename) == bool(options.words):
        raise UsageError("say what to delete: either -f PATH, or KIND and NAME, --all or -l")
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
        return session.change(options, form, lambda dry_run: cluster.delete(wanted, dry_run=dry_run))


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

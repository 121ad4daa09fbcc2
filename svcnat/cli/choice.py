"""Which objects a verb is about: by ``-f``, by name, by label, or all of a kind; the flags and what they mean."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from svcnat.cli import references, session
from svcnat.cli.references import Place
from svcnat.errors import UsageError
from svcnat.model.objects import Endpoints
from svcnat.model.selectors import Selector
from svcnat.store.snapshot import Snapshot

_NONE = "one or more resources must be specified as <resource> <name> or <resource>/<name>"
_NO_NAME = "resource(s) were provided, but no name was specified: give names, --all or -l SELECTOR"


def add_arguments(parser: argparse.ArgumentParser, metavar: str, what: str) -> None:
    """Add the flags that say which objects."""
    parser.add_argument("words", nargs="*", metavar=metavar, help=what)
    session.add_manifest_flags(parser, required=False)
    parser.add_argument("-l", "--selector", default="", help="only objects with these labels: a=b,c!=d,e in (f,g)")
    parser.add_argument("--all", action="store_true", help="all objects of the kind, in the namespace")
    parser.add_argument("-A", "--all-namespaces", action="store_true", help="with --all or -l: in every namespace")


class Choice:
    """What the flags choose: found out before anything is opened, as far as that goes."""

    def __init__(self, options: argparse.Namespace, words: Sequence[str]) -> None:
        """Read the flags, and the manifests of ``-f``.

        Raises:
            UsageError: they choose nothing, or contradict each other.
            ManifestError: something is wrong with the manifests.

        """
        if not words and not options.filename:
            raise UsageError(_NONE)
        if words and options.filename:
            raise UsageError("say which objects either by -f PATH, or by KIND and NAME, --all or -l")
        if options.all and options.selector:
            raise UsageError("cannot set --all and --selector at the same time")
        self._manifests = session.load_some(options).manifests if options.filename else ()
        self._selections = [] if options.filename else references.parse(words)
        self._labels = Selector.parse(options.selector)
        self._namespace = options.namespace or "default"
        self._scope = None if options.all_namespaces else self._namespace
        if any(each.names for each in self._selections) and (options.all or options.selector or options.all_namespaces):
            raise UsageError("a name cannot be given together with --all, -l or -A")
        unnamed = any(not each.names for each in self._selections)
        if unnamed and not (options.all or options.selector):
            raise UsageError(_NO_NAME)

    @property
    def by_name(self) -> bool:
        """True if each object is named: one that is not there is missed."""
        return not self._selections or any(each.names for each in self._selections)

    def places(self, snapshot: Snapshot) -> list[Place]:
        """Where the objects are: those that are named, whether or not they are there, or all that match.

        Endpoints that only follow from slices are nobody's to change.
        """
        found: dict[Place, None] = {}
        for resource in (manifest.resource for manifest in self._manifests):
            found[references.place_of(resource)] = None
        for selection in self._selections:
            kind = selection.kind
            for name in selection.names:
                found[kind.type, self._namespace if kind.namespaced else "", name] = None
            for resource in [] if selection.names else references.listed(snapshot, kind, self._scope, self._labels):
                place = references.place_of(resource)
                if kind.type is not Endpoints or snapshot.get(*place):
                    found[place] = None
        return list(found)

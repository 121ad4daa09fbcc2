"""What ``label`` and ``annotate`` share: ``KEY=VALUE`` and ``KEY-``, their flags, and how they go about it."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from svcnat.cli import choice, references, session
from svcnat.cli.references import Place
from svcnat.cli.terminal import say, visible
from svcnat.controllers.merge import LAST_APPLIED
from svcnat.errors import NotFoundError, UsageError
from svcnat.model.contents import REDACTED
from svcnat.model.kinds import BY_NAME, kind_of
from svcnat.model.objects import ObjectMeta, Resource, Secret
from svcnat.store.snapshot import Snapshot

if TYPE_CHECKING:  # costs more to import than a help page may take
    from svcnat.api import Changed, Cluster

Marks = dict[str, str | None]


def add_arguments(parser: argparse.ArgumentParser, noun: str) -> None:
    """Add the flags of ``label`` and ``annotate``; `noun` is what they set."""
    choice.add_arguments(parser, "KIND NAME | KIND/NAME | KEY=VALUE | KEY-", f"objects, then {noun}s; KEY- removes one")
    parser.add_argument("--overwrite", action="store_true", help=f"{noun}s that are there may get another value")
    parser.add_argument(
        "--resource-version", default="", metavar="VERSION", help="only if that is what the object's is now"
    )
    parser.add_argument("--list", action="store_true", help=f"print the {noun}s")
    session.add_mutation_flags(parser)


def split(words: Sequence[str], noun: str) -> tuple[list[str], Marks]:
    """Part what says which objects from the changes; a key that is to be removed has None.

    Raises:
        UsageError: one is neither, or an object comes after a change, or a key is both set and removed.

    """
    objects: list[str] = []
    marks: Marks = {}
    removed = []
    for number, word in enumerate(words):
        key, equals, value = word.partition("=")
        if equals and key:
            marks[key] = value
        elif not equals and word.endswith("-") and word != "-":
            removed.append(word[:-1])
        elif len(objects) < number:
            raise UsageError(f"all resources must be specified before {noun} changes: {word}")
        else:
            objects.append(word)
    if both := [key for key in removed if key in marks]:
        raise UsageError(
            f"can not both modify and remove the following {noun}(s) in the same command: {', '.join(both)}"
        )
    return objects, marks | dict.fromkeys(removed)


def run(
    options: argparse.Namespace,
    objects: Sequence[str],
    marks: Marks,
    act: Callable[[Cluster, list[Place], bool], Changed],
    words: tuple[str, str],
    marked: Callable[[ObjectMeta], Mapping[str, str]],
    noun: str,
) -> int:
    """Change what `marked` gives of the chosen objects by `act`, or print it; `words` are for changed and unchanged."""
    form = session.mutation_format(options)
    if options.list and options.output:
        raise UsageError("--list and --output may not be specified together")
    if bool(marks) == options.list:
        text = f"--list only prints: it takes no {noun} updates" if marks else f"at least one {noun} update is required"
        raise UsageError(text)
    chosen = choice.Choice(options, objects)
    with session.open_cluster(options, create=False) as cluster:
        with cluster.read() as snapshot:
            places = chosen.places(snapshot)
            resources = _found(snapshot, places)
        if options.resource_version and len(places) != 1:
            raise UsageError("--resource-version may only be used with a single resource")
        if not places:
            say("No resources found")
            return 0
        if options.list:
            _list(resources, marked, noun)
            return 0
        if noun == "label":  # kubectl says nothing of annotations
            for resource in resources:
                missing = [
                    key for key, value in marks.items() if value is None and key not in marked(resource.metadata)
                ]
                say(*(f'label "{key}" not found.' for key in missing))
        return session.change(options, form, lambda dry_run: act(cluster, places, dry_run), *words)


def _found(snapshot: Snapshot, places: Sequence[Place]) -> list[Resource]:
    found = []
    for place in places:
        resource = references.at(snapshot, place)
        if resource is None:
            raise NotFoundError(f"{BY_NAME[place[0].__name__].quote(place[2])} not found")
        found.append(resource)
    return found


def _list(resources: Sequence[Resource], marked: Callable[[ObjectMeta], Mapping[str, str]], noun: str) -> None:
    for resource in resources:
        kind = kind_of(resource)
        group = kind.group_version.rpartition("/")[0]
        if len(resources) > 1:
            print(visible(f"Listing {noun}s for {kind.name}.{group}/{resource.metadata.name}:"))
        for key, value in sorted(marked(resource.metadata).items()):
            if isinstance(resource, Secret) and key == LAST_APPLIED:
                value = REDACTED
            print(visible(f"{' ' * (len(resources) > 1)}{key}={value}"))

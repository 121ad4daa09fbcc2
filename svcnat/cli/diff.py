"""Show what apply would change: objects as a unified diff, and below them the rules that would follow.

Nothing is written, and only the state file is read: no privilege is needed beyond that. Addresses and node ports that
nobody asked for are drawn when the objects are applied, and may be others then. What a Secret holds is not shown.

Exit code 0 if nothing would change, 1 if something would, 2 if that cannot be told.
"""

from __future__ import annotations

import argparse
import difflib
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from svcnat.cli import session
from svcnat.cli.formats import as_yaml, document
from svcnat.cli.terminal import say_error, say_warnings, visible
from svcnat.controllers.merge import LAST_APPLIED
from svcnat.errors import SvcnatError
from svcnat.model.kinds import kind_of
from svcnat.model.objects import Resource, Secret

if TYPE_CHECKING:  # costs more to import than a help page may take
    from svcnat.agent.targets import Target
    from svcnat.api.differences import Difference
    from svcnat.ruleset.diff import Change, TableChange

_HIDDEN = "***"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of ``diff``."""
    session.add_manifest_flags(parser)


def run(options: argparse.Namespace) -> int:
    """Print the differences that the objects of ``-f`` would make."""
    try:
        loaded = session.load_some(options)
        with session.open_cluster(options, create=False) as cluster:
            found = cluster.diff(loaded)
    except SvcnatError as error:  # 1 is the answer that there are differences
        say_error(error, causes=options.verbose)
        return 2
    lines = [line for each in found.objects for line in _object(each)]
    say_warnings(found.warnings)
    if lines and not (found.rules or found.warnings):
        lines.append("rules: unchanged")
    lines += [line for target, change in found.rules for line in _rules(target, change, alone=len(found.rules) == 1)]
    for line in lines:
        print(visible(line, keep="\t"))
    return 1 if lines else 0


def _object(difference: Difference) -> Iterator[str]:
    after = _shown(difference.after)
    before = _shown(difference.before) if difference.before else None
    _settle(before, after)
    if isinstance(difference.after, Secret):
        _hide(before, after)
    old, new = ([] if each is None else as_yaml(each).splitlines() for each in (before, after))
    if old != new:
        name = _name(difference.after)
        yield f"diff -u -N LIVE/{name} MERGED/{name}"
        yield from difflib.unified_diff(old, new, f"LIVE/{name}", f"MERGED/{name}", lineterm="")


def _shown(resource: Resource) -> dict[str, Any]:
    shown = document(resource)
    annotations = shown["metadata"].get("annotations", {})
    annotations.pop(LAST_APPLIED, None)
    if not annotations:
        shown["metadata"].pop("annotations", None)
    return shown


def _settle(before: dict[str, Any] | None, after: dict[str, Any]) -> None:
    """Leave out what another try would draw anew: a new object's identity, every object's version."""
    for metadata in [each["metadata"] for each in (before, after) if each]:
        metadata.pop("resourceVersion", None)
    if before is None:
        after["metadata"].pop("uid", None)
        after["metadata"].pop("creationTimestamp", None)


def _hide(before: dict[str, Any] | None, after: dict[str, Any]) -> None:
    """Say only which entries of a Secret differ."""
    old, new = ((each or {}).get("data", {}) for each in (before, after))
    changed = {key for key in old.keys() & new.keys() if old[key] != new[key]}
    old.update({key: f"{_HIDDEN} (before)" if key in changed else _HIDDEN for key in old})
    new.update({key: f"{_HIDDEN} (after)" if key in changed else _HIDDEN for key in new})


def _name(resource: Resource) -> str:
    kind = kind_of(resource)
    group, version = kind.group_version.rpartition("/")[::2]
    metadata = resource.metadata
    return ".".join([*filter(None, [group]), version, kind.name, metadata.namespace, metadata.name])


def _rules(target: Target, change: Change, *, alone: bool) -> Iterator[str]:
    from svcnat.agent.report import Report

    where = "" if alone else f" of {target.node}"
    yield f"rules{where}: {session.counts_text(Report(change, 0))}"
    for part in change.values():
        yield from _table(part)


def _table(part: TableChange) -> Iterator[str]:
    """What a table loses and gains: elements with their data, the rest by name."""
    from svcnat.ruleset.nftables import element_text

    def named(sign: str, noun: str, names: Iterable[str]) -> Iterator[str]:
        return (f"{sign}{part.family} {noun} {name}" for name in names)

    if part.remake:
        yield f"+{part.family} table svcnat, anew"
    else:
        yield from named("-", "chain", (*part.unhook, *part.sweep))
        yield from named("-", "set", part.sweep_sets)
        yield from named("+", "set", (each.name for each in part.sets if each.name not in part.regrow))
        yield from named("+", "chain", (each.name for each in part.chains))
        yield from named("~", "set", part.regrow)
        yield from named("~", "chain", (each.name for each in part.refill if each.name not in part.sweep))
    for sign, held in (("-", part.stale), ("-", part.forgotten), ("+", part.fresh)):
        for name, elements in held.items():
            yield from named(sign, name, (element_text(key, data) for key, data in elements.items()))

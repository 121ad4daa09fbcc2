"""List objects, the oldest first.

KIND is a kind or its short name, several with commas (svc,po), or all: pods, services and what makes pods.
"""

from __future__ import annotations

import argparse
import select
import sys
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, NoReturn

from svcnat.cli import references, session
from svcnat.cli.formats import Format, document, parse_format
from svcnat.cli.listing import Style, tables
from svcnat.cli.references import Selection
from svcnat.cli.terminal import say
from svcnat.errors import NotFoundError, UsageError
from svcnat.model.kinds import Kind
from svcnat.model.objects import Resource
from svcnat.store.snapshot import Snapshot

if TYPE_CHECKING:  # costs more to import than a help page may take
    from svcnat.api import Cluster

Blocks = list[tuple[Kind, list[Resource]]]

_WATCH_SECONDS = 1.0  # between two looks, if no agent tells of changes
_TOLD_SECONDS = 10.0  # if one does, in case that it hangs


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of ``get``."""
    parser.add_argument("words", nargs="*", metavar="KIND[,KIND] NAME | KIND/NAME", help="what to list")
    parser.add_argument("-A", "--all-namespaces", action="store_true", help="in every namespace")
    parser.add_argument("-l", "--selector", default="", help="only objects with these labels: a=b,c!=d,e in (f,g)")
    parser.add_argument(
        "-o",
        "--output",
        default="",
        metavar="FORMAT",
        help="wide, json, yaml, name, jsonpath=TEMPLATE or custom-columns=HEADER:PATH,...",
    )
    parser.add_argument("-w", "--watch", action="store_true", help="then go on, printing each object that changes")
    parser.add_argument(
        "-L", "--label-columns", action="append", default=[], metavar="KEY[,KEY]", help="add a column for a label"
    )
    parser.add_argument("--show-labels", action="store_true", help="add a column of labels")
    parser.add_argument("--no-headers", action="store_true", help="leave the line of column names out")
    parser.add_argument("--sort-by", metavar="PATH", help="sort by a field: .metadata.name")
    parser.add_argument("--ignore-not-found", action="store_true", help="what is not there is not an error")


def run(options: argparse.Namespace) -> int:
    """Print the objects that the flags select."""
    form = parse_format(options.output)
    if options.show_labels and not form.is_table:
        raise UsageError(f"--show-labels option cannot be used with {form.name} printer")
    selections = references.parse(options.words)
    with session.open_cluster(options, create=False) as cluster:
        with cluster.read() as snapshot:
            blocks, missing = _found(options, selections, snapshot)
        _require_field(options, blocks)
        asked = sum(len(selection.names) for selection in selections)
        _print(options, form, blocks, single=asked == 1)
        if not missing and not options.ignore_not_found and not any(resources for _, resources in blocks):
            _say_nothing_found(options, form, selections)
        if options.watch and not missing:
            _watch(options, form, selections, cluster, blocks)
    if options.ignore_not_found:
        return 0
    say(*(f"error: {message}" for message in missing))
    return 1 if missing else 0


def _found(options: argparse.Namespace, selections: list[Selection], snapshot: Snapshot) -> tuple[Blocks, list[str]]:
    blocks, missing = references.found(
        snapshot,
        selections,
        namespace=options.namespace or "default",
        all_namespaces=options.all_namespaces,
        selector=options.selector,
    )
    if options.sort_by:
        blocks = [(kind, _sorted(resources, options.sort_by)) for kind, resources in blocks]
    return blocks, missing


def _print(options: argparse.Namespace, form: Format, blocks: Blocks, *, single: bool, headers: bool = True) -> None:
    if form.is_table:
        style = Style(
            wide=form.name == "wide",
            headers=headers and not options.no_headers,
            show_labels=options.show_labels,
            label_columns=tuple(key for keys in options.label_columns for key in keys.split(",") if key),
            all_namespaces=options.all_namespaces,
        )
        for line in tables(blocks, style, datetime.now(UTC)):
            print(line)
        return
    resources = [resource for _, found in blocks for resource in found]
    if options.watch and form.name != "custom-columns":
        # A list would end before the first change: whoever reads on gets objects, from the first to the last.
        for resource in resources:
            if form.name == "yaml":
                print("---")
            session.print_formatted(form, [resource], single=True)
    elif resources or not single:
        session.print_formatted(form, resources, single=single, headers=headers and not options.no_headers)


def _watch(
    options: argparse.Namespace, form: Format, selections: list[Selection], cluster: Cluster, blocks: Blocks
) -> NoReturn:
    """Print what is new or changed, and what is gone as it was last, until somebody interrupts."""
    shown = _identified(blocks)
    revision = -1
    news = cluster.news()
    while True:
        sys.stdout.flush()
        if not news.wait(_TOLD_SECONDS):
            time.sleep(_WATCH_SECONDS)
        _require_reader()
        with cluster.read() as snapshot:
            if snapshot.revision == revision:
                continue
            revision = snapshot.revision
            blocks, _ = _found(options, selections, snapshot)
        now = _identified(blocks)
        for uid, (kind, resource) in {**shown, **now}.items():
            if shown.get(uid) != now.get(uid):
                # Naming several kinds makes names carry theirs, in every line.
                others: Blocks = [(other, []) for other, _ in blocks if other is not kind]
                _print(options, form, [(kind, [resource]), *others], single=True, headers=False)
        shown = now


def _require_reader() -> None:
    """Notice that nobody reads any more, as after `| grep -m1 Running`: the next change may never come.

    Raises:
        BrokenPipeError: whoever read our output hung up.

    """
    try:
        descriptor = sys.stdout.fileno()
    except OSError:  # no file
        return
    poll = select.poll()
    poll.register(descriptor, 0)  # of a pipe's end that writes, POLLERR tells that the other one is closed (poll(2))
    if any(event & select.POLLERR for _, event in poll.poll(0)):
        raise BrokenPipeError


def _identified(blocks: Blocks) -> dict[str, tuple[Kind, Resource]]:
    """Whatever is made anew is another object; namespaces that nobody declared have only a name."""
    return {
        resource.metadata.uid or resource.metadata.name: (kind, resource)
        for kind, resources in blocks
        for resource in resources
    }


def _sorted(resources: list[Resource], path: str) -> list[Resource]:
    from svcnat.cli.jsonpath import Path, sort_key

    key = sort_key(Path.parse(path))
    return sorted(resources, key=lambda resource: key(document(resource)))


def _require_field(options: argparse.Namespace, blocks: Blocks) -> None:
    """Make sure that what is to be sorted by is anywhere: else it is a slip, and the order would be any."""
    resources = [resource for _, found in blocks for resource in found]
    if not options.sort_by or not resources:
        return
    from svcnat.cli.jsonpath import Path

    path = Path.parse(options.sort_by)
    if not any(path.values(document(resource)) for resource in resources):
        raise NotFoundError(f'couldn\'t find any field with path "{options.sort_by}" in the list of objects')


def _say_nothing_found(options: argparse.Namespace, form: Format, selections: list[Selection]) -> None:
    if form.is_table:
        namespaced = any(selection.kind.namespaced for selection in selections) and not options.all_namespaces
        where = f" in {options.namespace or 'default'} namespace." if namespaced else ""
        say(f"No resources found{where}")

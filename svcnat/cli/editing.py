"""What the verbs share that change objects by name or label: their flags, and how they go about it."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import TYPE_CHECKING

from svcnat.cli import references, session
from svcnat.cli.references import Place

if TYPE_CHECKING:  # costs more to import than a help page may take
    from svcnat.api import Changed, Cluster


def add_arguments(parser: argparse.ArgumentParser, what: str) -> None:
    """Add the flags that say which objects."""
    parser.add_argument("words", nargs="*", metavar="KIND NAME | KIND/NAME", help=what)
    parser.add_argument("-l", "--selector", default="", help="only objects with these labels: a=b,c!=d,e in (f,g)")
    session.add_mutation_flags(parser)


def run(
    options: argparse.Namespace,
    act: Callable[[Cluster, list[Place], bool], Changed],
    word: str,
    unchanged: str = "",
) -> int:
    """Change the objects that the flags name by `act`, which is told whether it is a dry run, and say so."""
    form = session.mutation_format(options)
    selections = references.parse(options.words)
    with session.open_cluster(options, create=False) as cluster:
        places = references.places(cluster, selections, options.namespace or "default", options.selector)
        return session.change(options, form, lambda dry_run: act(cluster, places, dry_run), word, unchanged)

"""Set annotations of objects, or remove them, and make the rules follow.

Those of svcnat change rules. This drains a pod, and brings it back: nothing new goes there, connections go on.

  svcnat annotate pod web-1 svcnat.io/weight=0
  svcnat annotate pod web-1 svcnat.io/weight-

An annotation that is there gets another value with --overwrite only. All of the objects or none.
"""

from __future__ import annotations

import argparse

from svcnat.cli import marks


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of ``annotate``."""
    marks.add_arguments(parser, "annotation")


def run(options: argparse.Namespace) -> int:
    """Annotate the objects that the flags name."""
    objects, annotations = marks.split(options.words, "annotation")
    return marks.run(
        options,
        objects,
        annotations,
        lambda cluster, places, dry_run: cluster.annotate(
            places, annotations, overwrite=options.overwrite, version=options.resource_version, dry_run=dry_run
        ),
        ("annotated", "annotated"),
        lambda metadata: metadata.annotations,
        "annotation",
    )

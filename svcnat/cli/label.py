"""Set labels of objects, or remove them, and have all that selects by them follow: endpoints, and the rules.

  svcnat label pod web-1 tier=front         a label that is there gets another value with --overwrite only
  svcnat label pods -l app=web tier-        KEY- removes it

All of the objects or none.
"""

from __future__ import annotations

import argparse

from svcnat.cli import marks
from svcnat.errors import UsageError
from svcnat.model.validation.names import label_value


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of ``label``."""
    marks.add_arguments(parser, "label")


def run(options: argparse.Namespace) -> int:
    """Label the objects that the flags name."""
    objects, labels = marks.split(options.words, "label")
    for key, value in labels.items():
        if value and (wrong := label_value(value)):
            raise UsageError(f'invalid label value: "{key}={value}": {";".join(wrong)}')
    removing = all(value is None for value in labels.values())
    return marks.run(
        options,
        objects,
        labels,
        lambda cluster, places, dry_run: cluster.label(
            places, labels, overwrite=options.overwrite, version=options.resource_version, dry_run=dry_run
        ),
        ("unlabeled" if removing else "labeled", "not labeled"),
        lambda metadata: metadata.labels,
        "label",
    )

"""Make the rules of a network namespace equal to manifests, without a state file.

It makes the smallest change, and says what it added and removed; doing it twice writes nothing.
"""

from __future__ import annotations

import argparse

from svcnat.cli import session
from svcnat.cli.formats import as_json, parse_format
from svcnat.cli.terminal import say_warnings
from svcnat.errors import UsageError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of ``sync``."""
    session.add_manifest_flags(parser)
    session.add_mutation_flags(parser)
    parser.add_argument("--force", action="store_true", help="take over rules that came from a state file")


def run(options: argparse.Namespace) -> int:
    """Sync the objects of ``-f``."""
    from svcnat import api

    form = parse_format(options.output, ("", "json"))
    if options.lab:
        raise UsageError("a lab keeps its state: use apply, or --netns with the namespace of one of its nodes")
    config = api.configuration(options.config)
    loaded = session.load_some(options)
    dry_run = options.dry_run != "none"
    report = api.sync(loaded, options.netns, config=config, dry_run=dry_run, force=options.force)
    say_warnings(report.warnings)
    if form.name == "json":
        print(as_json({**report.counts, "generation": report.generation, "dryRun": dry_run}), end="")
    else:
        print(f"rules: {session.counts_text(report)}{' (dry run)' if dry_run else ''}")
    return 0

"""What verbs share: the flags of those that read or change objects, opening the cluster, and saying what changed."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from svcnat.cli.formats import Format, formatted, parse_format, reference
from svcnat.cli.terminal import say, say_warnings, visible
from svcnat.errors import Finding, ManifestError, UnfollowedError
from svcnat.model.objects import Resource

if TYPE_CHECKING:  # The API costs more to import than a help page may take.
    from svcnat.agent.report import Report
    from svcnat.api import Changed, Cluster, Following, Wanted
    from svcnat.model.manifests import Loaded
    from svcnat.store.transaction import Outcome

MUTATION_FORMATS = ("", "json", "yaml", "name", "jsonpath")


def add_manifest_flags(parser: argparse.ArgumentParser, *, required: bool = True) -> None:
    """Add ``-f``, ``-R`` and ``--validate``."""
    parser.add_argument(
        "-f",
        "--filename",
        action="append",
        default=[],
        required=required,
        metavar="PATH",
        help="manifests: a file, a folder, or - for standard input; may be repeated",
    )
    parser.add_argument("-R", "--recursive", action="store_true", help="look into the folders below a folder too")
    parser.add_argument(
        "--validate",
        choices=("strict", "warn", "ignore", "true", "false"),
        default="warn",
        help="what unknown fields are: errors (strict), warnings (the default) or nothing (ignore)",
    )


def add_mutation_flags(parser: argparse.ArgumentParser) -> None:
    """Add ``--dry-run`` and ``-o``."""
    parser.add_argument(
        "--dry-run",
        choices=("none", "client", "server"),
        default="none",
        help="check everything and say what would happen, but change nothing",
    )
    parser.add_argument("-o", "--output", default="", metavar="FORMAT", help="json, yaml, name or jsonpath=...")


def open_cluster(options: argparse.Namespace, *, create: bool = True) -> Cluster:
    """Open the lab that ``--lab`` names, or else the state file that the other global flags do."""
    from svcnat import api

    if options.lab:
        return api.Lab.find(options.lab)
    return api.Cluster.open(state=options.state, config=options.config, netns=options.netns, create=create)


def add_following_flags(parser: argparse.ArgumentParser) -> None:
    """Add ``-f`` and ``-R`` of verbs that follow manifests, if not a state file or a lab."""
    parser.add_argument(
        "-f",
        "--filename",
        action="append",
        default=[],
        metavar="PATH",
        help="follow manifests, files or folders, instead of a state file; may be repeated",
    )
    parser.add_argument("-R", "--recursive", action="store_true", help="with -f: also folders below folders")


def following(options: argparse.Namespace, *, netns: str | None, patient: bool = False) -> Following:
    """What the flags say to follow, in `netns`; `patient`: wait for a lab that is being built."""
    from svcnat import api

    return api.following(
        state=options.state,
        config=options.config,
        netns=netns,
        lab=options.lab,
        paths=options.filename,
        recursive=options.recursive,
        namespace=options.namespace or "default",
        patient=patient,
    )


def load_manifests(options: argparse.Namespace) -> Loaded:
    """Read what ``-f`` names, and say what is doubtful or skipped.

    Raises:
        ManifestError: something is wrong with them, or an object is not in the namespace that ``-n`` names.

    """
    from svcnat import api

    loaded = api.load(*options.filename, **_reading(options))
    _say_doubts(options, loaded)
    return loaded


def load_lab(options: argparse.Namespace) -> Wanted:
    """Like :func:`load_manifests`, for a lab: there may be a Topology among them."""
    from svcnat import api

    wanted = api.load_lab(*options.filename, **_reading(options))
    _say_doubts(options, wanted.manifests)
    return wanted


def _reading(options: argparse.Namespace) -> dict[str, Any]:
    return {
        "recursive": options.recursive,
        "strict": options.validate in {"strict", "true"},
        "namespace": options.namespace or "default",
        "stdin": sys.stdin.buffer,
    }


def _say_doubts(options: argparse.Namespace, loaded: Loaded) -> None:
    if options.validate not in {"ignore", "false"}:
        say_warnings(loaded.warnings)
    if options.namespace:
        _require_namespace(loaded, options.namespace)
    _say_skipped(options, loaded)


def load_some(options: argparse.Namespace) -> Loaded:
    """Like :func:`load_manifests`, but nothing at all is an error too."""
    loaded = load_manifests(options)
    if not loaded.manifests and not loaded.skipped:
        raise ManifestError([Finding("", 0, "", "", f"no objects in {', '.join(options.filename)}")])
    return loaded


def _say_skipped(options: argparse.Namespace, loaded: Loaded) -> None:
    skipped = {finding: finding.subject.partition(" ")[0] for finding in loaded.skipped}
    if options.lab:  # A lab's topology may lie beside its manifests; the lab has read it.
        skipped = {finding: kind for finding, kind in skipped.items() if kind != "Topology"}
    if options.verbose:
        say(*map(str, skipped))
    elif skipped:
        say(f"skipped, as svcnat has no use for these kinds: {', '.join(dict.fromkeys(skipped.values()))}")


def _require_namespace(loaded: Loaded, namespace: str) -> None:
    findings = [
        Finding(
            manifest.source,
            manifest.locate("metadata.namespace"),
            reference(manifest.resource),
            "metadata.namespace",
            f"the namespace '{found}' does not match -n {namespace}; pass -n {found}, or leave -n out",
        )
        for manifest in loaded.manifests
        if (found := manifest.resource.metadata.namespace) not in {"", namespace}
    ]
    if findings:
        raise ManifestError(findings)


def mutation_format(options: argparse.Namespace) -> Format:
    """The ``-o`` of a verb that changes objects: to be asked for before anything is changed."""
    return parse_format(options.output, MUTATION_FORMATS)


def change(
    options: argparse.Namespace, form: Format, act: Callable[[bool], Changed], word: str = "", unchanged: str = ""
) -> int:
    """Change objects by `act`, which is told whether it is a dry run, and say what became of them, or `word`.

    Of what is as it was, `unchanged`, if that is given.

    Raises:
        UnfollowedError: the rules did not follow; what was saved has been said.

    """
    try:
        changed = act(options.dry_run != "none")
    except UnfollowedError as error:
        _print_outcomes(options, form, error.outcomes, word, unchanged)
        raise
    _print_outcomes(options, form, changed.outcomes, word, unchanged)
    for report in changed.reports:
        say_warnings(report.warnings)
        if options.verbose:
            say(f"rules: {counts_text(report)}")
    return 0


def _print_outcomes(
    options: argparse.Namespace, form: Format, outcomes: Sequence[Outcome], word: str, unchanged: str
) -> None:
    """Print one line an object, ``service/back-end created``, or what ``-o`` asks for."""
    if form.name:
        resources = [outcome.resource for outcome in outcomes]
        print_formatted(form, resources, single=len(resources) == 1)
        return
    suffix = "" if options.dry_run == "none" else f" ({'server ' * (options.dry_run == 'server')}dry run)"
    for outcome in outcomes:
        name = reference(outcome.resource)
        if outcome.action == "deleted":  # kubectl's own inconsistency
            kind, _, bare = name.partition("/")
            name = f'{kind} "{bare}"'
        said = unchanged if unchanged and outcome.action == "unchanged" else word or outcome.action
        print(f"{visible(name)} {said}{suffix}")


def counts_text(report: Report) -> str:
    """What a pass did to the rules, in words."""
    return ", ".join(f"{count} {what}" for what, count in report.counts.items() if count) or "unchanged"


def print_formatted(form: Format, resources: Sequence[Resource], *, single: bool, headers: bool = True) -> None:
    """Print objects in a format other than the tables."""
    print(formatted(form, resources, single=single, terminal=sys.stdout.isatty(), headers=headers), end="")

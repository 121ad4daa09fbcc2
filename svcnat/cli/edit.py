"""Edit objects in an editor, and make the rules follow: that of KUBE_EDITOR, EDITOR or VISUAL, or vi.

What is wrong is said at the top of the file, which is opened again. Nothing happens if nothing was changed, or the
file is empty. Objects that others have changed meanwhile are left alone; a copy of what was edited is kept then.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING

from svcnat.cli import references, session
from svcnat.cli.editor import Draft
from svcnat.cli.formats import Format, as_json, as_yaml, collection, document
from svcnat.cli.references import Place, place_of
from svcnat.cli.terminal import say, visible
from svcnat.errors import Finding, ManifestError, NotFoundError, SvcnatError, UnfollowedError, UsageError
from svcnat.model.kinds import BY_NAME, kind_of
from svcnat.model.objects import Resource

if TYPE_CHECKING:  # costs more to import than a help page may take
    from svcnat.api import Cluster

_HEADER = """\
# Please edit the object below. Lines beginning with a '#' will be ignored,
# and an empty file will abort the edit. If an error occurs while saving this file will be
# reopened with the relevant failures.
#
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of ``edit``."""
    parser.add_argument("words", nargs="*", metavar="KIND NAME | KIND/NAME", help="what to edit")
    session.add_manifest_flags(parser, required=False)
    parser.add_argument("-o", "--output", default="yaml", choices=("yaml", "json"), help="what to edit it as")
    parser.set_defaults(dry_run="none")


def run(options: argparse.Namespace) -> int:
    """Have the objects edited that the flags name."""
    if bool(options.words) == bool(options.filename):
        raise UsageError("say what to edit: either -f PATH, or KIND and NAME")
    loaded = session.load_some(options) if options.filename else None
    selections = [] if loaded else references.parse(options.words)
    with session.open_cluster(options, create=False) as cluster:
        if loaded:
            places = [place_of(manifest.resource) for manifest in loaded.manifests]
        else:
            places = references.places(cluster, selections, options.namespace or "default")
        with cluster.read() as snapshot:
            shown = [(place, snapshot.get(*place)) for place in places]
        resources = [resource for _, resource in shown if resource]
        if missing := [place for place, resource in shown if not resource]:
            raise NotFoundError(f"{BY_NAME[missing[0][0].__name__].quote(missing[0][2])} not found")
        if not resources:
            raise NotFoundError("edit cancelled, no objects found")
        return _edit(options, cluster, resources)


def _edit(options: argparse.Namespace, cluster: Cluster, resources: list[Resource]) -> int:
    """Open the editor until what it saves is valid, and put that into the store."""
    content = document(resources[0]) if len(resources) == 1 else collection(resources)
    text = as_json(content) if options.output == "json" else as_yaml(content)
    original = {place_of(each): each for each in _parse(text)}
    complaints: list[str] = []
    with Draft(f"svcnat-edit.{options.output}") as draft:
        while True:
            try:
                saved = _plain(draft.edit("".join((_HEADER, *complaints, text))))
            except SvcnatError:
                if complaints:
                    _keep(draft)
                raise
            if not saved.strip():
                say("Edit cancelled, saved file was empty.")
                return 0
            if saved == text and complaints:
                _keep(draft)
                raise SvcnatError("Edit cancelled, no valid changes were saved.")
            if saved == text:
                say("Edit cancelled, no changes made.")
                return 0
            text = saved
            try:
                return _save(options, cluster, _pairs(resources, original, _parse(text)))
            except ManifestError as error:
                complaints = _complaints(resources, error.findings)
            except UnfollowedError:
                raise
            except SvcnatError:
                _keep(draft)
                raise


def _save(options: argparse.Namespace, cluster: Cluster, pairs: list[tuple[Resource, Resource]]) -> int:
    return session.change(options, Format(), lambda _: cluster.rewrite(pairs), "edited", "skipped")


def _plain(saved: bytes) -> str:
    """What was saved, without comments; no value of YAML or JSON has lines that begin so."""
    text = saved.decode(errors="surrogateescape")
    return "".join(line for line in text.splitlines(keepends=True) if not line.startswith("#"))


def _parse(text: str) -> list[Resource]:
    from svcnat.model.manifests import load

    data = text.encode(errors="surrogateescape")
    return [manifest.resource for manifest in load([("", data)], strict=True).manifests]


def _pairs(
    shown: list[Resource], original: dict[Place, Resource], edited: list[Resource]
) -> list[tuple[Resource, Resource]]:
    """What each object was and is to be.

    Raises:
        ManifestError: they are not the same objects.

    """
    found = {place_of(each): each for each in edited}
    if found.keys() != original.keys():
        text = "At least one of apiVersion, kind and name was changed"
        raise ManifestError([Finding("", 0, "", "", text)])
    return [
        (each, each if found[place_of(each)] == original[place_of(each)] else found[place_of(each)]) for each in shown
    ]


def _complaints(shown: list[Resource], findings: Sequence[Finding]) -> list[str]:
    """What is wrong, as comments; lines are those of the file that has them at its top."""
    kind, name = kind_of(shown[0]), shown[0].metadata.name
    what = f"{kind.quote(name)} was not valid" if len(shown) == 1 else "the objects were not valid"
    above = _HEADER.count("\n") + len(findings) + 2
    lines = [f"{what}:"]
    for each in findings:
        subject = each.subject if len(shown) > 1 else ""
        place = f"line {each.line + above}" if each.line else ""
        lines.append("* " + ": ".join(part for part in (place, subject, each.field, each.reason) if part))
    return [f"# {visible(line)}\n" for line in lines] + ["#\n"]


def _keep(draft: Draft) -> None:
    say(f'A copy of your changes has been stored to "{draft.keep()}"')

"""Change fields of objects by a patch, and make the rules follow: what it names is set, null removes a field.

Items of lists are found by their names, as apply does; with --type=merge lists are replaced. With --type=json the patch
is a list of operations (RFC 6902: add, remove, replace, move, copy, test), all of which are done or none:

  svcnat patch service web --type=json -p '[{op: replace, path: /spec/ports/0/port, value: 81}]'

--subresource=status changes nothing but the status. This opens a readiness gate of a pod:

  svcnat patch pod web --subresource=status -p '{status: {conditions: [{type: example.com/gate, status: "True"}]}}'
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from svcnat.cli import editing, references
from svcnat.errors import UsageError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of ``patch``."""
    editing.add_arguments(parser, "what to change")
    parser.add_argument("-p", "--patch", default="", metavar="PATCH", help="the patch, in JSON or YAML")
    parser.add_argument("--patch-file", default="", metavar="FILE", help="a file with the patch; - is standard input")
    parser.add_argument(
        "--type", default="strategic", choices=("strategic", "merge", "json"), help="default: strategic"
    )
    parser.add_argument("--subresource", default="", choices=("", "status"), help="change the status alone")


def run(options: argparse.Namespace) -> int:
    """Patch the objects that the flags name."""
    if not options.selector and not all(each.names for each in references.parse(options.words)):
        raise UsageError("resource(s) were provided, but no name was specified: give names, or -l SELECTOR")
    patch = _patch(options)
    return editing.run(
        options,
        lambda cluster, places, dry_run: cluster.patch(
            places,
            patch,
            strategic=options.type == "strategic",
            status=options.subresource == "status",
            dry_run=dry_run,
        ),
        "patched",
        "patched (no change)",
    )


def _patch(options: argparse.Namespace) -> dict[str, Any] | list[Any]:
    """The patch, of which no error repeats anything: it may be a Secret's."""
    from svcnat.model import manifest_text

    if bool(options.patch) == bool(options.patch_file):
        raise UsageError("must specify --patch or --patch-file containing the contents of the patch")
    try:
        if options.patch_file == "-":
            text = sys.stdin.buffer.read()
        else:
            text = Path(options.patch_file).read_bytes() if options.patch_file else options.patch.encode()
    except OSError as error:
        raise UsageError(f"cannot read {options.patch_file}: {error.strerror}") from error
    documents = [each for each in manifest_text.documents(text) if each.root is not None or each.flaws]
    for document in documents:
        for flaw in document.flaws:
            raise UsageError(f"the patch, line {flaw.line}: {flaw.reason}")
    root: Any = documents[0].root if len(documents) == 1 else None
    if options.type == "json" and not isinstance(root, list):
        raise UsageError("the patch must be one list of operations, in JSON or YAML")
    if options.type != "json" and not isinstance(root, dict):
        raise UsageError("the patch must be one object, in JSON or YAML")
    patch: dict[str, Any] | list[Any] = root
    return patch

"""Findings about objects, with the file and line of the manifest that each object came from."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator

from svcnat.errors import Finding, ManifestError
from svcnat.model.kinds import subject
from svcnat.model.manifests import Placed


@contextlib.contextmanager
def located(manifests: Iterable[Placed]) -> Iterator[None]:
    """Give the findings of a ManifestError their places, where one of the manifests is their subject."""
    try:
        yield
    except ManifestError as error:
        by_subject = {subject(manifest.resource): manifest for manifest in manifests}
        raise ManifestError(
            [
                Finding(manifest.source, manifest.locate(finding.field), finding.subject, finding.field, finding.reason)
                if not finding.source and (manifest := by_subject.get(finding.subject))
                else finding
                for finding in error.findings
            ]
        ) from error

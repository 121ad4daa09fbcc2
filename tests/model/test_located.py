"""Findings about objects get the file and line of the manifest that the object came from."""

from __future__ import annotations

import pytest

from svcnat.errors import Finding, ManifestError
from svcnat.model.located import located
from svcnat.model.manifests import load

TEXT = b"""apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  ports:
  - port: 80
"""


def test_a_finding_about_an_object_is_placed_where_the_object_was_written():
    loaded = load([("web.yaml", TEXT)])
    known = Finding("other.yaml", 7, "Service default/web", "spec", "it has its place already")
    stranger = Finding("", 0, "Service default/other", "spec.ports", "nobody wrote that object")
    with pytest.raises(ManifestError) as caught, located(loaded.manifests):
        raise ManifestError([Finding("", 0, "Service default/web", "spec.ports[0].port", "taken"), known, stranger])
    first, *others = caught.value.findings
    assert (first.source, first.line, first.reason) == ("web.yaml", 6, "taken")
    assert others == [known, stranger]


def test_without_an_error_nothing_happens():
    with located(()):
        pass

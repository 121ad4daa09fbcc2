"""Manifests that an agent follows: what it knows of files that stayed the same is never older than they are."""

from __future__ import annotations

import tempfile
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from svcnat.agent.desired import Desired, Touched
from svcnat.agent.sources import Manifests
from svcnat.errors import ManifestError
from svcnat.model.configuration import Configuration
from svcnat.model.objects import Resource

NAMES = ("a.yaml", "b.yml", "c.json")


def service(name: str, spec: str = "") -> str:
    return f"""\
apiVersion: v1
kind: Service
metadata: {{name: {name}}}
spec:
  ports: [{{port: 80}}]
  {spec}
"""


def endpoints(name: str, last: int) -> str:
    return f"""\
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: {name}-1, labels: {{kubernetes.io/service-name: {name}}}}}
addressType: IPv4
ports: [{{port: 8080}}]
endpoints: [{{addresses: [192.0.2.{last}]}}]
"""


POD = """\
apiVersion: v1
kind: Pod
metadata: {name: web-1, labels: {app: web}}
spec: {containers: [{name: main, image: web}]}
status: {phase: Running, podIP: 10.0.0.2}
---
"""

TEXTS = (
    service("web") + endpoints("web", 1),
    service("other") + endpoints("other", 1),
    endpoints("web", 1),
    service("web", "clusterIP: 10.96.0.9"),
    service("other", "clusterIP: 10.96.0.9"),  # with the one above it collides, and may also be there twice
    service("selecting", "selector: {app: web}"),
    POD,
    POD + service("web", "type: NodePort"),
    "apiVersion: v1\nkind: Service\nmetadata: {name: web}\nspec: {ports: [{port: 99999}]}\n",
    service("web", "unknown: 1") + "---\nkind: Other\napiVersion: example.com/v1\n",
    "{ this is : no : manifest",
    "",
)
Edit = tuple[str, str | None, int, int]
"""The file, what it says from now on (None: it goes), after how many empty lines, and the endpoints' last number."""


def edits(texts: list[str | None]) -> st.SearchStrategy[list[Edit]]:
    """Edits among a few texts: most return to what was there before, or nearly."""
    edit = st.tuples(st.sampled_from(NAMES), st.sampled_from(texts), st.integers(0, 1), st.integers(1, 2))
    return st.lists(edit, min_size=1, max_size=8)


FEW = st.lists(st.sampled_from((None, *TEXTS)), min_size=1, max_size=4, unique=True)


def held(desired: Desired) -> tuple[object, ...]:
    """All that an agent has of objects."""
    slices = {(each.metadata.namespace, each.metadata.name): each for each in desired.slices()}
    return dict(desired.services), slices, dict(desired.pods), set(desired.leaving)


def refreshed(source: Manifests, desired: Desired) -> str | Touched:
    try:
        return source.refresh(desired)
    except ManifestError as error:
        return str(error)


@given(FEW.flatmap(edits))
def test_after_any_edits_it_has_what_a_fresh_one_has(made: list[Edit]) -> None:
    """Objects, what the last edit touched, and every finding with its line, also across files; or they stay."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "node.yaml").write_text("apiVersion: v1\nkind: Node\nmetadata: {name: node-1}\n")
        source, desired = Manifests([folder]), Desired()
        source.open(Configuration())
        source.refresh(desired)
        for name, text, above, last in made:
            file = Path(folder) / name
            if text is None:
                file.unlink(missing_ok=True)
            else:
                file.write_text("\n" * above + text.replace("192.0.2.1", f"192.0.2.{last}"))
            before = held(desired)
            fresh, other = Manifests([folder]), Desired()
            fresh.open(Configuration())
            said, expected = refreshed(source, desired), refreshed(fresh, other)
            if isinstance(expected, str):
                assert said == expected
                assert held(desired) == before
            else:
                assert held(desired) == held(other)
                assert isinstance(said, Touched)
                assert bool(said) == (held(desired) != before)


def test_findings_of_files_that_stay_are_told_with_those_of_others(tmp_path: Path) -> None:
    """Two files want one address, then one of them another object's name: every finding has its line."""
    (tmp_path / "a.yaml").write_text("# first\n" + service("web", "clusterIP: 10.96.0.9"))
    (tmp_path / "b.yaml").write_text(service("other", "clusterIP: 10.96.0.8"))
    source, desired = Manifests([str(tmp_path)]), Desired()
    source.open(Configuration())
    source.refresh(desired)
    (tmp_path / "b.yaml").write_text(service("other", "clusterIP: 10.96.0.9"))
    with pytest.raises(ManifestError, match=r"[ab]\.yaml:[67]: Service default/.*10\.96\.0\.9"):
        source.refresh(desired)
    (tmp_path / "b.yaml").write_text(service("web"))
    with pytest.raises(ManifestError, match=r"b\.yaml:3: .*metadata\.name: Duplicate value.*a\.yaml:2"):
        source.refresh(desired)


def test_only_what_changed_is_read_anew(tmp_path: Path) -> None:
    """An object of a file that stays the same is the very same: nothing was parsed for it, whatever else is wrong."""
    slices = tmp_path / "slices.yaml"
    slices.write_text(endpoints("web", 1))
    source, desired = Manifests([str(tmp_path)]), Desired()
    source.open(Configuration())
    other = tmp_path / "web.yaml"
    other.write_text(service("web"))
    source.refresh(desired)
    (first,) = desired.slices()
    for text in (service("web", "clusterIP: 10.96.0.9"), "{ no : manifest", service("web", "clusterIP: 10.96.0.10")):
        other.write_text(text)
        refreshed(source, desired)
    assert desired.services["default", "web"].spec.cluster_ip == "10.96.0.10"
    (last,) = desired.slices()
    assert last.endpoints is first.endpoints
    slices.write_text(endpoints("web", 2))
    refreshed(source, desired)
    assert _addresses(*desired.slices()) == [["192.0.2.2"]]


def _addresses(*resources: Resource) -> list[list[str]]:
    return [each["addresses"] for one in resources for each in msgspec.to_builtins(one)["endpoints"]]

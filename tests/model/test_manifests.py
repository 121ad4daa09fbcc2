"""Files become objects, or every finding about them, each with its place."""

from __future__ import annotations

import json

import pytest

from svcnat.errors import ManifestError
from svcnat.model import kinds
from svcnat.model.manifests import LARGEST, Loader, load
from svcnat.model.validation import validate
from tests.model.build import COURSE, GOOD, NAMESPACE, NODE, POD, dedent, errors, loaded, one, service


def test_the_course_example() -> None:
    """The example the project started from is one sound Service, on the first line of its file."""
    manifest = one(COURSE)
    assert manifest.line == 1
    assert manifest.locate("spec.ports[0].targetPort") == 8
    assert manifest.locate("spec.ports[0].nodePort") == 8
    assert manifest.locate("spec.selector[type]") == 12
    assert manifest.source == "m.yml"
    assert kinds.from_document(manifest.document) == manifest.resource
    assert "lines" not in repr(manifest)


@pytest.mark.parametrize("text", GOOD)
def test_sound_objects(text: str) -> None:
    """Every kind loads without a finding, survives the round trip, and is the same from JSON."""
    result = loaded(text, strict=True)
    assert (result.warnings, result.skipped) == ((), ())
    (manifest,) = result.manifests
    assert validate(manifest.resource) == []
    again = loaded(json.dumps(kinds.to_document(manifest.resource), indent=1)).manifests[0]
    assert again.resource == manifest.resource
    assert again.document == manifest.document


def test_many_documents_and_files() -> None:
    """Objects come in the order of files and documents, each with its source."""
    result = load(
        [
            ("a.yml", f"{COURSE}---\n{POD}".encode()),
            (
                "b.json",
                b'{"apiVersion":"v1","kind":"Pod",'
                b'"metadata":{"name":"other"},"spec":{"containers":[{"name":"a","image":"b"}]}}',
            ),
        ]
    )
    found = [(each.source, each.line, each.resource.metadata.name) for each in result.manifests]
    assert found == [("a.yml", 1, "back-end"), ("a.yml", 14, "web"), ("b.json", 1, "other")]


def test_empty_documents_are_nothing() -> None:
    """Comments, separators and empty files say nothing."""
    assert loaded("---\n# nothing\n---\n").manifests == ()
    assert loaded("").manifests == ()


def test_namespaces() -> None:
    """A namespaced object without one gets the caller's; one that names it keeps it; the others have none."""
    text = (
        f"{COURSE}---\n{service('{ports: [{port: 80}]}', '{name: other, namespace: shop}')}---\n{NODE}---\n{NAMESPACE}"
    )
    result = load([("m.yml", text.encode())], namespace="team")
    assert [each.resource.metadata.namespace for each in result.manifests] == ["team", "shop", "", ""]


def test_lists() -> None:
    """Lists are opened, however nested; items have their own lines and subjects."""
    text = dedent("""
        apiVersion: v1
        kind: List
        items:
        - apiVersion: v1
          kind: Service
          metadata: {name: one}
          spec: {ports: [{port: 80}]}
        - apiVersion: v1
          kind: List
          items:
          - apiVersion: v1
            kind: Service
            metadata: {name: two}
            spec:
              ports:
              - port: 70000
        - null
        - kind: LimitRange
          apiVersion: v1
    """)
    with pytest.raises(ManifestError) as caught:
        loaded(text)
    assert str(caught.value).splitlines() == [
        "m.yml:16: Service default/two: spec.ports[0].port: Invalid value: 70000: "
        "must be between 1 and 65535, inclusive",
        "m.yml:17: a manifest is an object with apiVersion, kind and metadata, not just null",
    ]
    result = loaded(text.replace("70000", "81").replace("- null\n", ""))
    assert [(each.line, each.resource.metadata.name) for each in result.manifests] == [(4, "one"), (11, "two")]
    assert [str(each) for each in result.skipped] == [
        'm.yml:17: LimitRange: skipped: svcnat has no use for kind "LimitRange"'
    ]


@pytest.mark.parametrize(
    ("version", "kind"),
    [
        *(("v1", kind) for kind in ("ServiceAccount", "PersistentVolumeClaim", "LimitRange", "ReplicationController")),
        *(("batch/v1", kind) for kind in ("Job", "CronJob")),
        *(("networking.k8s.io/v1", kind) for kind in ("Ingress", "NetworkPolicy")),
        *(("rbac.authorization.k8s.io/v1", kind) for kind in ("Role", "RoleBinding", "ClusterRole")),
        ("autoscaling/v2", "HorizontalPodAutoscaler"),
        ("policy/v1", "PodDisruptionBudget"),
        ("bitnami.com/v1alpha1", "SealedSecret"),
        ("gateway.networking.k8s.io/v1", "HTTPRoute"),
    ],
)
def test_kinds_of_the_wild_are_no_slips(version: str, kind: str) -> None:
    """What applications bring along is skipped, and not taken for a misspelt kind of ours."""
    found = loaded(f"apiVersion: {version}\nkind: {kind}\nmetadata: {{name: it}}\nspec: {{x: 1}}\n")
    assert (found.manifests, len(found.skipped)) == ((), 1)


def test_typed_lists() -> None:
    """What the API serves: the items of a ServiceList need not say what they are."""
    items = [{"metadata": {"name": "a"}, "spec": {"ports": [{"port": 80}]}}, 7]
    text = json.dumps({"apiVersion": "v1", "kind": "ServiceList", "items": items[:1]})
    assert loaded(text).manifests[0].document["kind"] == "Service"
    text = "apiVersion: v1\nkind: ServiceList\nitems:\n- metadata: {name: a}\n  spec: {ports: [{port: 0}]}\n- 7\n"
    assert [each.split(":")[0] for each in errors(text)] == ["5", "6"]
    assert loaded("apiVersion: v1\nkind: LimitRangeList\nitems: []\n").manifests == ()
    assert loaded("apiVersion: v1\nkind: LimitRangeList\nitems: 3\n").skipped[0].line == 1


@pytest.mark.parametrize("kind", ["List", "ServiceList"])
def test_lists_of_nothing_and_of_no_list(kind: str) -> None:
    """Go writes an empty list as null; what is no list at all is an error, not a kind without use."""
    for items in ("", "items:\n", "items: []\n"):
        found = loaded(f"apiVersion: v1\nkind: {kind}\n{items}")
        assert (found.manifests, found.skipped) == ((), ())
    assert errors(f"apiVersion: v1\nkind: {kind}\nitems: {{}}\n") == ["3: items: Invalid value: {}: must be a list"]


def test_json_findings_have_lines() -> None:
    """JSON that is sound but wrong is located as YAML is."""
    text = (
        '\n{"apiVersion": "v1", "kind": "Service",\n "metadata": {"name": "a"},\n "spec": {"ports": [\n  {"port": 0}]}}'
    )
    assert errors(text) == ["5: spec.ports[0].port: Invalid value: 0: must be between 1 and 65535, inclusive"]


def test_kinds_without_use_are_skipped() -> None:
    """One line each; another vendor's Service is none of ours."""
    text = "apiVersion: v1\nkind: Role\nmetadata: {name: a}\n---\napiVersion: serving.knative.dev/v1\nkind: Service\n"
    result = loaded(text)
    assert result.manifests == ()
    assert [str(each) for each in result.skipped] == [
        'm.yml:1: Role default/a: skipped: svcnat has no use for kind "Role"',
        'm.yml:5: Service: skipped: svcnat has no use for kind "Service"',
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("kind: Service\n", "1: apiVersion: Required value"),
        ("apiVersion: v1\n", "1: kind: Required value"),
        ("apiVersion: v1\nkind: ''\n", "2: kind: Required value"),
        ("apiVersion: 1\nkind: Service\n", "1: apiVersion: Invalid value: 1: must be text"),
        ("apiVersion: v1\nkind: [Service]\n", '2: kind: Invalid value: ["Service"]: must be text'),
        ("apiVersion: v2\nkind: Service\n", '1: apiVersion: Unsupported value: "v2": supported values: "v1"'),
        (
            "apiVersion: extensions/v1beta1\nkind: Deployment\n",
            '1: apiVersion: Unsupported value: "extensions/v1beta1": supported values: "apps/v1"',
        ),
        (
            "apiVersion: discovery.k8s.io/v1beta1\nkind: EndpointSlice\n",
            '1: apiVersion: Unsupported value: "discovery.k8s.io/v1beta1": supported values: "discovery.k8s.io/v1"',
        ),
        ("apiVersion: v1\nkind: service\n", '2: kind: Invalid value: "service": did you mean "Service"?'),
        ("apiVersion: v1\nkind: Sevice\n", '2: kind: Invalid value: "Sevice": did you mean "Service"?'),
        (
            "apiVersion: v1\nkind: endpointslice\n",
            '2: kind: Invalid value: "endpointslice": did you mean "EndpointSlice"?',
        ),
        ("just text\n", '1: : a manifest is an object with apiVersion, kind and metadata, not just "just text"'),
        ("- 1\n", "1: : a manifest is an object with apiVersion, kind and metadata, not a list"),
    ],
)
def test_what_is_no_manifest(text: str, expected: str) -> None:
    """A slip in kind or version is an error, not a skipped document."""
    assert errors(text) == [expected]


def test_real_kinds_are_no_slips() -> None:
    """Kinds that resemble ours are not taken for them."""
    for kind in ("Role", "Job", "CronJob", "ReplicationController", "PodTemplate", "Ingress"):
        assert loaded(f"apiVersion: v1\nkind: {kind}\n").skipped


def test_the_same_object_twice() -> None:
    """The finding names both places; the same name in another namespace or kind is another object."""
    with pytest.raises(ManifestError) as caught:
        load([("a.yml", COURSE.encode()), ("b\n.yml", f"{POD}---\n{COURSE}".encode())])
    assert str(caught.value) == (
        'b\\u000a.yml:9: Service default/back-end: metadata.name: Duplicate value: "back-end": '
        "the same object is at a.yml:1"
    )
    other = COURSE.replace("name: back-end", "name: back-end\n  namespace: shop")
    assert len(loaded(f"{COURSE}---\n{other}").manifests) == 2


def test_duplicate_keys_are_refused() -> None:
    """A repeated key is an error with both lines, and hides nothing else that is wrong."""
    text = COURSE.replace("  type: ClusterIP\n", "  type: ClusterIP\n  type: NodePort\n")
    assert errors(text.replace("  port: 80", "  port: 0")) == [
        '7: spec.type: key "type" is already set on line 6',
        "10: spec.ports[0].port: Invalid value: 0: must be between 1 and 65535, inclusive",
    ]


def test_a_repeated_key_is_no_label() -> None:
    """A name that stands twice is not taken for one more label, though labels could have it."""
    text = COURSE.replace("  name: back-end\n", "  name: back-end\n  labels:\n    app: x\n  name: other\n")
    assert errors(text) == ['7: metadata.name: key "name" is already set on line 4']


def test_large_objects() -> None:
    """One object may have 3 MiB, measured as JSON; a List has no limit, its items do."""
    pad = "x" * 1000
    big = {f"a{n}": pad for n in range(3200)}
    text = json.dumps({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "a", "annotations": big}})
    assert errors(text) == [f"1: : Too long: may not be more than {LARGEST} bytes"]
    item = {"apiVersion": "v1", "kind": "Node", "metadata": {"labels": {f"a{n}": "x" * 60 for n in range(500)}}}
    items = [{**item, "metadata": {**item["metadata"], "name": f"n{n}"}} for n in range(100)]
    assert len(loaded(json.dumps({"apiVersion": "v1", "kind": "List", "items": items})).manifests) == 100


def test_aliases_count() -> None:
    """An object that is large only with its aliases written out is as large."""
    text = "apiVersion: v1\nkind: LimitRange\nx: &x " + "x" * 1_000_000 + "\ny: [*x, *x]\n"
    assert loaded(text).skipped
    fields = 'metadata:\n  name: web\n  managedFields: [&x "' + "x" * 1_100_000 + '", *x, *x]'
    pod = POD.replace("metadata: {name: web}", fields)
    assert errors(pod) == [f"1: : Too long: may not be more than {LARGEST} bytes"]


def test_undecodable_files() -> None:
    """A file that is no text is one finding; the others are still read."""
    with pytest.raises(ManifestError) as caught:
        load([("a", b"\xff"), ("b", b"kind: Service")])
    assert [each.source for each in caught.value.findings] == ["a", "b"]


def test_subjects() -> None:
    """A finding says which object it is about, as far as its document tells."""
    cases = {
        "Service": "apiVersion: v1\nkind: Service\nmetadata: [x]\n",
        "Node n1": "apiVersion: v1\nkind: Node\nmetadata: {name: n1, namespace: x}\n",
        "Service shop/a": "apiVersion: v1\nkind: Service\nmetadata: {name: a, namespace: shop}\n",
        "Service default/a": "apiVersion: v1\nkind: Service\nmetadata: {name: a, namespace: 7}\n",
    }
    for subject, text in cases.items():
        with pytest.raises(ManifestError) as caught:
            loaded(text)
        assert {each.subject for each in caught.value.findings} == {subject}


def test_files_that_are_loaded_over_and_over() -> None:
    """What stays is not parsed again, and has its lines all the same; what changes, comes or goes counts at once."""
    loader, stays = Loader(namespace="shop"), ("stays.yaml", b"\n" + service("{ports: [{port: 80}]}").encode())
    (kept,) = loader.load([stays])
    assert (kept.source, kept.line, kept.resource.metadata.namespace) == ("stays.yaml", 2, "shop")
    wrong = ("other.yaml", b"\n\n" + service("{type: None, ports: [{port: 80}]}").encode())
    for _ in range(2):
        with pytest.raises(ManifestError) as caught:
            loader.load([wrong, stays])
        with pytest.raises(ManifestError) as expected:
            load([wrong, stays], namespace="shop")
        assert caught.value.findings == expected.value.findings
        assert len(caught.value.findings) == 2
    again, other = loader.load([stays, ("pod.yaml", POD.encode())])
    assert again.resource is kept.resource
    assert (other.line, other.locate("spec.containers")) == (1, 4)
    (changed,) = loader.load([("stays.yaml", b"\n" + stays[1])])
    assert changed.line == 3
    assert loader.load([]) == []

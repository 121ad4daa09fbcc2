"""What a patch makes of an object: what it names, and nothing else."""

from __future__ import annotations

import contextlib
import sys
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from svcnat.controllers.patching import patched
from svcnat.errors import ManifestError, MissingError, UsageError
from svcnat.model.kinds import to_document
from svcnat.model.objects import (
    Condition,
    ConfigMap,
    Container,
    Deployment,
    DeploymentSpec,
    EnvVar,
    ObjectMeta,
    Pod,
    PodSpec,
    PodStatus,
    Secret,
)

META = ObjectMeta(name="web", namespace="default", labels={"app": "web"})
POD = Pod(
    metadata=META,
    spec=PodSpec(
        containers=[
            Container(name="a", image="one", env=[EnvVar(name="X", value="1"), EnvVar(name="Y", value="2")]),
            Container(name="b", image="two"),
        ]
    ),
    status=PodStatus(phase="Running", conditions=[Condition(type="Ready", status="True")]),
)


def test_items_are_found_by_their_names() -> None:
    """Those that the patch does not name stay, null removes a field, a directive an item."""
    env = [{"name": "X", "$patch": "delete"}, {"name": "Z", "value": "3"}]
    made = patched(POD, {"spec": {"containers": [{"name": "a", "image": "three", "env": env}]}})
    assert isinstance(made, Pod)
    assert {each.name: each.image for each in made.spec.containers} == {"a": "three", "b": "two"}
    assert {each.name: each.value for each in made.spec.containers[0].env} == {"Y": "2", "Z": "3"}
    made = patched(made, {"metadata": {"labels": {"app": None, "tier": "web"}}})
    assert made.metadata.labels == {"tier": "web"}


def test_a_merge_patch_replaces_lists() -> None:
    """As RFC 7386 has it; a value that was none is made."""
    made = patched(POD, {"spec": {"containers": [{"name": "c", "image": "x"}]}}, strategic=False)
    assert isinstance(made, Pod)
    assert [each.name for each in made.spec.containers] == ["c"]
    made = patched(made, {"metadata": {"annotations": {"a": "1", "b": None}, "labels": None}}, strategic=False)
    assert (made.metadata.annotations, made.metadata.labels) == ({"a": "1"}, {})


@pytest.mark.parametrize("strategic", [True, False])
def test_the_status_alone(strategic: bool) -> None:
    """Whatever else such a patch says does not count; conditions are found by their types, or replaced."""
    patch = {
        "metadata": {"labels": {"app": "other"}},
        "status": {"conditions": [{"type": "example.com/gate", "status": "True"}]},
    }
    made = patched(POD, patch, strategic=strategic, status=True)
    assert isinstance(made, Pod)
    assert (made.metadata, made.spec, made.status.phase) == (POD.metadata, POD.spec, "Running")
    assert {each.type for each in made.status.conditions} == {"example.com/gate", *["Ready"] * strategic}
    with pytest.raises(UsageError, match="configmaps have no status"):
        patched(ConfigMap(metadata=META), patch, status=True)


def test_strategies_are_merged() -> None:
    """Unlike with apply, which takes them as a whole, what a patch does not name stays."""
    strategy = {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}
    this = Deployment(metadata=META, spec=DeploymentSpec(strategy=strategy))
    made = patched(this, {"spec": {"strategy": {"rollingUpdate": {"maxSurge": 2}}}})
    assert isinstance(made, Deployment)
    assert made.spec.strategy == {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 2, "maxUnavailable": 0}}
    made = patched(made, {"spec": {"strategy": {"type": "Recreate", "rollingUpdate": None}}})
    assert isinstance(made, Deployment)
    assert made.spec.strategy == {"type": "Recreate"}


@pytest.mark.parametrize(
    ("patch", "wrong"),
    [
        ({"metadata": {"name": "other"}}, "metadata.name: field is immutable"),
        ({"metadata": {"namespace": "other"}}, "metadata.name: field is immutable"),
        ({"spec": {"container": []}}, 'spec.container: unknown field: did you mean "containers"?'),
        ({"spec": {"containers": "x"}}, 'spec.containers: Invalid value: "x": must be a list'),
        ({"spec": 7}, "spec: Invalid value: 7: must be an object"),
    ],
)
def test_what_is_refused(patch: dict[str, Any], wrong: str) -> None:
    """Another object, unknown fields, wrong types: by field."""
    with pytest.raises(ManifestError) as caught:
        patched(POD, patch)
    assert str(caught.value).startswith(f"Pod default/web: {wrong}")


@pytest.mark.parametrize("directive", [{"$patch": "replace"}, {"$setElementOrder/env": []}, {"$retainKeys": []}])
def test_directives(directive: dict[str, Any]) -> None:
    """One is known; others would be taken for fields."""
    with pytest.raises(UsageError, match=r"only `\$patch: delete` of a list's item is supported"):
        patched(POD, {"spec": directive})


def test_no_error_tells_a_secret() -> None:
    """Neither of what the patch says nor of what is there."""
    keys = Secret(metadata=META, data={"token": "aHVudGVyMg=="})
    for patch in ({"data": "hunter2"}, {"stringData": {"a": 7}}, {"data": ["aHVudGVyMg=="]}):
        with pytest.raises(ManifestError) as caught:
            patched(keys, patch)
        assert not any(each in str(caught.value) for each in ("hunter2", "aHVudGVyMg", "7"))


texts = st.dictionaries(st.sampled_from("abc"), st.sampled_from("xyz"), max_size=3)
changes = st.dictionaries(st.sampled_from("abc"), st.sampled_from(["x", "y", None]), max_size=3)


@settings(derandomize=True, max_examples=100, database=None)
@given(st.booleans(), texts, changes)
def test_laws(strategic: bool, before: dict[str, str], change: dict[str, str | None]) -> None:
    """What is named is there, or gone, and all else as it was; twice is once; its own document changes nothing."""
    this = ConfigMap(metadata=META, data=before)
    made = patched(this, {"data": change}, strategic=strategic)
    assert isinstance(made, ConfigMap)
    wanted = {key: text for key, text in {**before, **change}.items() if text is not None}
    assert made == replace(this, data=wanted)
    assert patched(made, {"data": change}, strategic=strategic) is made
    assert patched(this, to_document(this), strategic=strategic) is this


PATHS = st.sampled_from(
    [
        "",
        "/",
        "/kind",
        "/metadata/annotations/a",
        "/metadata/labels",
        "/metadata/labels/-",
        "/metadata/labels/app",
        "/metadata/labels/~2",
        "/spec/containers",
        "/spec/containers/-",
        "/spec/containers/-1",
        "/spec/containers/0",
        "/spec/containers/0/env/1",
        "/spec/containers/01",
        "/spec/containers/9",
        "/spec/containers/x",
        "/status/phase/x",
    ]
)
VALUES = st.sampled_from(["one", 1, True, None, [], {}, {"name": "c", "image": "three"}, [1.5]])
OPERATIONS = st.fixed_dictionaries(
    {"op": st.sampled_from(["add", "copy", "move", "remove", "replace", "test", "append"]), "path": PATHS},
    optional={"from": PATHS, "value": VALUES},
)


@given(st.lists(OPERATIONS, max_size=4))
@example([{"op": "copy", "path": "", "from": "/spec/containers/-"}])
@example([{"op": "move", "path": "/metadata/labels/a", "from": "/spec/containers/-"}])
@example([{"op": "test", "path": "/spec/containers/-", "value": {}}])
@settings(max_examples=200)
def test_any_operations_make_an_object_or_are_refused(operations: list[dict[str, Any]]) -> None:
    """In our own words, and the object that they were tried on stays what it was."""
    before = to_document(POD)
    with contextlib.suppress(ManifestError, UsageError):
        assert isinstance(patched(POD, operations), Pod)
    assert to_document(POD) == before


def test_operations_need_a_library(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is an extra: other patches work without it."""
    monkeypatch.setitem(sys.modules, "jsonpatch", None)
    with pytest.raises(MissingError, match="pip install jsonpatch"):
        patched(POD, [{"op": "remove", "path": "/metadata/labels"}])
    assert patched(POD, {}) is POD

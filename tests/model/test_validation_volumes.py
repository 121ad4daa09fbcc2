"""What is refused of volumes and their mounts; whatever else stands there is left alone."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from svcnat.model.objects import (
    Container,
    LabelSelector,
    ObjectMeta,
    OwnerReference,
    Pod,
    PodSpec,
    PodTemplateSpec,
    StatefulSet,
    StatefulSetSpec,
)
from svcnat.model.validation import validate

META = ObjectMeta(name="web", namespace="default")
CONFIG = {"name": "v", "configMap": {"name": "settings"}}


def problems(volumes: Any, mounts: Any = None) -> list[str]:
    """What is wrong with a Pod of these volumes and mounts."""
    main = Container(name="main", image="x", volume_mounts=mounts)
    return [str(each) for each in validate(Pod(metadata=META, spec=PodSpec(containers=[main], volumes=volumes)))]


@pytest.mark.parametrize(
    ("volume", "wrong"),
    [
        ({}, "name: Required value"),
        ({"name": 7}, "name: Required value"),
        ({"name": "../x"}, 'name: Invalid value: "../x": a lowercase RFC 1123 label must consist of'),
        ({"name": "v", "configMap": {}}, "configMap.name: Required value"),
        ({"name": "v", "secret": {"name": "s"}}, "secret.secretName: Required value"),
        ({"name": "v", "secret": {"secretName": "s", "items": [{"path": "p"}]}}, "secret.items[0].key: Required value"),
        (
            {"name": "v", "secret": {"secretName": "s", "items": [{"key": "k"}]}},
            "secret.items[0].path: Required value",
        ),
        (
            {"name": "v", "downwardAPI": {"items": [{"path": "/p"}]}},
            'downwardAPI.items[0].path: Invalid value: "/p": must be a relative path',
        ),
        (
            {"name": "v", "configMap": {"name": "c", "items": [{"key": "k", "path": "a/../b"}]}},
            "configMap.items[0].path: Invalid value: \"a/../b\": must not contain '..'",
        ),
        (
            {"name": "v", "configMap": {"name": "c", "items": [{"key": "k", "path": "..data/x"}]}},
            "configMap.items[0].path: Invalid value: \"..data/x\": must not start with '..'",
        ),
        (
            {"name": "v", "configMap": {"name": "c", "items": [{"key": "k", "path": "p", "mode": 512}]}},
            "configMap.items[0].mode: Invalid value: 512: must be a number between 0 and 0777 (octal), both inclusive",
        ),
        (
            {"name": "v", "configMap": {"name": "c", "defaultMode": True}},
            "configMap.defaultMode: Invalid value: true: must be a number between 0 and 0777",
        ),
        (
            {"name": "v", "projected": {"sources": [{"secret": {"name": "s"}}, {"configMap": {}}]}},
            "projected.sources[1].configMap.name: Required value",
        ),
    ],
)
def test_volumes(volume: dict[str, Any], wrong: str) -> None:
    """In Kubernetes' words, by place."""
    (found,) = problems([volume])
    assert found.startswith(f"spec.volumes[0].{wrong}")


def test_volumes_have_names_of_their_own() -> None:
    """Two of one name could not be told apart."""
    assert problems([CONFIG, CONFIG]) == ['spec.volumes[1].name: Duplicate value: "v"']


@pytest.mark.parametrize(
    ("mount", "wrong"),
    [
        ({"mountPath": "/a"}, "name: Required value"),
        ({"name": "v"}, "mountPath: Required value"),
        ({"name": "w", "mountPath": "/a"}, 'name: Not found: "w"'),
        ({"name": "v", "mountPath": "/a", "subPath": "/b"}, 'subPath: Invalid value: "/b": must be a relative path'),
        (
            {"name": "v", "mountPath": "/a", "subPath": "b/.."},
            "subPath: Invalid value: \"b/..\": must not contain '..'",
        ),
    ],
)
def test_mounts(mount: dict[str, Any], wrong: str) -> None:
    """A volume that there is, somewhere, and nothing outside it."""
    assert problems([CONFIG], [mount]) == [f"spec.containers[0].volumeMounts[0].{wrong}"]


def test_places_are_taken_once() -> None:
    """Two mounts at one place would hide one another."""
    mount = {"name": "v", "mountPath": "/a"}
    assert problems([CONFIG], [mount, mount]) == [
        'spec.containers[0].volumeMounts[1].mountPath: Invalid value: "/a": must be unique'
    ]


def test_claims_of_stateful_sets_are_volumes() -> None:
    """Their templates, and the Pods that are made of them, mount what no volume declares."""
    main = Container(name="main", image="x", volume_mounts=[{"name": "data", "mountPath": "/data"}])
    spec = PodSpec(containers=[main])
    template = PodTemplateSpec(metadata=ObjectMeta(labels={"a": "b"}), spec=spec)
    picks = LabelSelector(match_labels={"a": "b"})
    assert validate(StatefulSet(metadata=META, spec=StatefulSetSpec(selector=picks, template=template))) == []
    owner = OwnerReference(api_version="apps/v1", kind="StatefulSet", name="web", uid="u")
    assert validate(Pod(metadata=replace(META, owner_references=[owner]), spec=spec)) == []
    assert [each.reason for each in validate(Pod(metadata=META, spec=spec))] == ['Not found: "data"']


@pytest.mark.parametrize("nonsense", [7, "x", {"name": "v"}, [7, "x", None, []], [{"name": "v", "configMap": 7}]])
def test_whatever_else_stands_there(nonsense: Any) -> None:
    """Volumes are kept as they were written; what is no list of objects holds none."""
    assert problems(nonsense) == []
    assert problems([CONFIG], nonsense if nonsense != [{"name": "v", "configMap": 7}] else None) == []
    assert problems([{"name": "v", "projected": {"sources": nonsense}}]) == []

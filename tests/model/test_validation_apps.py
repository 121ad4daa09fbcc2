"""ReplicaSets, StatefulSets, DaemonSets and ControllerRevisions keep Kubernetes' rules; so do update strategies."""

from __future__ import annotations

from typing import Any

import pytest

from svcnat.model.defaults import with_defaults
from svcnat.model.kinds import from_document, to_document
from svcnat.model.rollouts import Allowance, daemon_allowance, deployment_allowance, kind_of_update, partition, scaled
from svcnat.model.validation import validate, validate_update

TEMPLATE = {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "a", "image": "b"}]}}
PICKS = {"matchLabels": {"app": "web"}}
NEGATIVE = "must be greater than or equal to 0"
TWICE = "may not be set when maxUnavailable is non-zero"
PERCENT = "a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%',  or '93%', regex used"


def made(kind: str, **spec: Any) -> Any:
    body = {"selector": PICKS, "template": TEMPLATE, **spec}
    return from_document({"kind": kind, "metadata": {"name": "web", "namespace": "default"}, "spec": body})


def problems(kind: str, **spec: Any) -> list[str]:
    return [str(each) for each in validate(made(kind, **spec))]


@pytest.mark.parametrize("kind", ["Deployment", "ReplicaSet", "StatefulSet", "DaemonSet"])
def test_what_all_must_keep(kind: str) -> None:
    """A selector that picks the template's Pods, and a sound template."""
    assert problems(kind) == []
    assert problems(kind, selector=None) == ["spec.selector: Required value"]
    (found,) = problems(kind, selector={})
    assert found.startswith("spec.selector: Invalid value: {}: empty selector is invalid for ")
    (found,) = problems(kind, selector={"matchLabels": {"app": "db"}})
    assert found.endswith("`selector` does not match template `labels`")
    template = {**TEMPLATE, "spec": {"restartPolicy": "Never", "containers": []}}
    assert problems(kind, template=template) == [
        "spec.template.spec.containers: Required value",
        'spec.template.spec.restartPolicy: Unsupported value: "Never": supported values: "Always"',
    ]


@pytest.mark.parametrize("kind", ["Deployment", "ReplicaSet", "DaemonSet"])
def test_selectors_stay(kind: str) -> None:
    """Another selector would be another workload."""
    other = {"matchExpressions": [{"key": "app", "operator": "Exists"}]}
    assert [str(each) for each in validate_update(made(kind), made(kind, selector=other))] == [
        "spec.selector: Invalid value: {}: field is immutable"
    ]
    assert validate_update(made(kind), made(kind, minReadySeconds=3)) == []


@pytest.mark.parametrize("kind", ["Deployment", "ReplicaSet", "StatefulSet"])
def test_replicas(kind: str) -> None:
    """Not negative, and not beyond what one command can make."""
    assert problems(kind, replicas=-1) == ["spec.replicas: Invalid value: -1: must be greater than or equal to 0"]
    assert problems(kind, replicas=10001) == [
        "spec.replicas: Invalid value: 10001: must be less than or equal to 10000"
    ]


@pytest.mark.parametrize(
    ("strategy", "expected"),
    [
        (
            {"type": "Recreate", "rollingUpdate": {}},
            "rollingUpdate: Forbidden: may not be specified when strategy `type` is",
        ),
        ({"type": "Recreate"}, ""),
        ({"rollingUpdate": "x"}, 'rollingUpdate: Invalid value: "x": must be an object'),
        ({"rollingUpdate": {"maxSurge": 0}}, ""),
        ({"rollingUpdate": {"maxSurge": None}}, ""),
        (
            {"rollingUpdate": {"maxSurge": 0, "maxUnavailable": "0%"}},
            'rollingUpdate.maxUnavailable: Invalid value: "0%": may not be 0 when `maxSurge` is 0',
        ),
        ({"rollingUpdate": {"maxSurge": "200%"}}, ""),
        (
            {"rollingUpdate": {"maxUnavailable": "101%"}},
            'rollingUpdate.maxUnavailable: Invalid value: "101%": must not be greater than 100%',
        ),
        ({"rollingUpdate": {"maxSurge": "x"}}, f'rollingUpdate.maxSurge: Invalid value: "x": {PERCENT}'),
        (
            {"rollingUpdate": {"maxSurge": -1}},
            "rollingUpdate.maxSurge: Invalid value: -1: must be greater than or equal to 0",
        ),
        (
            {"rollingUpdate": {"maxSurge": True}},
            "rollingUpdate.maxSurge: Invalid value: true: must be an integer or percentage (e.g '5%')",
        ),
    ],
)
def test_deployment_strategies(strategy: dict[str, Any], expected: str) -> None:
    """The words are kube-apiserver's."""
    found = problems("Deployment", strategy=strategy)
    assert len(found) == bool(expected)
    assert all(each.startswith(f"spec.strategy.{expected}") for each in found)


def test_the_deadline_is_longer_than_the_wait() -> None:
    """Or no rollout could ever be in time."""
    assert problems("Deployment", minReadySeconds=5, progressDeadlineSeconds=5) == [
        "spec.progressDeadlineSeconds: Invalid value: 5: must be greater than minReadySeconds"
    ]


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ({"podManagementPolicy": "Parallel", "updateStrategy": {"type": "OnDelete"}, "ordinals": {"start": 3}}, []),
        (
            {"podManagementPolicy": "x"},
            ["podManagementPolicy: Invalid value: \"x\": must be 'OrderedReady' or 'Parallel'"],
        ),
        ({"ordinals": {"start": -1}}, ["ordinals.start: Invalid value: -1: must be greater than or equal to 0"]),
        ({"updateStrategy": "x"}, ['updateStrategy: Invalid value: "x": must be an object']),
        (
            {"updateStrategy": {"type": "x"}},
            ["updateStrategy.type: Invalid value: \"x\": must be 'RollingUpdate' or 'OnDelete'"],
        ),
        (
            {"updateStrategy": {"type": "OnDelete", "rollingUpdate": {}}},
            ["updateStrategy.rollingUpdate: Invalid value: {}: only allowed for updateStrategy 'RollingUpdate'"],
        ),
        (
            {"updateStrategy": {"rollingUpdate": 1}},
            ["updateStrategy.rollingUpdate: Invalid value: 1: must be an object"],
        ),
        (
            {"updateStrategy": {"rollingUpdate": {"partition": "x"}}},
            ['updateStrategy.rollingUpdate.partition: Invalid value: "x": must be an integer'],
        ),
        (
            {"updateStrategy": {"rollingUpdate": {"partition": -1}}},
            ["updateStrategy.rollingUpdate.partition: Invalid value: -1: must be greater than or equal to 0"],
        ),
        (
            {"template": {**TEMPLATE, "spec": {**TEMPLATE["spec"], "activeDeadlineSeconds": 1}}},
            ["template.spec.activeDeadlineSeconds: Forbidden: activeDeadlineSeconds in StatefulSet is not Supported"],
        ),
    ],
)
def test_stateful_sets(spec: dict[str, Any], expected: list[str]) -> None:
    """The words are kube-apiserver's."""
    assert problems("StatefulSet", **spec) == [f"spec.{each}" for each in expected]


def test_what_a_stateful_set_may_change() -> None:
    """Its number, template and strategy; not its service."""
    assert validate_update(made("StatefulSet"), made("StatefulSet", replicas=3, minReadySeconds=1)) == []
    (found,) = validate_update(made("StatefulSet"), made("StatefulSet", serviceName="other"))
    assert str(found).startswith("spec: Forbidden: updates to statefulset spec for fields other than 'replicas', 'ordi")


@pytest.mark.parametrize(
    ("strategy", "expected"),
    [
        ({"type": "OnDelete"}, []),
        ("x", ['updateStrategy: Invalid value: "x": must be an object']),
        ({"type": "x"}, ['updateStrategy.type: Unsupported value: "x": supported values: "OnDelete", "RollingUpdate"']),
        ({"rollingUpdate": []}, ["updateStrategy.rollingUpdate: Invalid value: []: must be an object"]),
        ({"rollingUpdate": {"maxUnavailable": "50%"}}, []),
        ({"rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}}, []),
        (
            {"rollingUpdate": {"maxSurge": -1}},
            ["updateStrategy.rollingUpdate.maxSurge: Invalid value: -1: must be greater than or equal to 0"],
        ),
        (
            {"rollingUpdate": {"maxSurge": "5%"}},
            [f'updateStrategy.rollingUpdate.maxSurge: Invalid value: "5%": {TWICE}'],
        ),
        (
            {"rollingUpdate": {"maxUnavailable": 0}},
            ["updateStrategy.rollingUpdate.maxUnavailable: Required value: cannot be 0 when maxSurge is 0"],
        ),
    ],
)
def test_daemon_sets(strategy: Any, expected: list[str]) -> None:
    """The words are kube-apiserver's."""
    assert problems("DaemonSet", updateStrategy=strategy) == [f"spec.{each}" for each in expected]


def test_controller_revisions() -> None:
    """A number that is none too small."""
    document = {"kind": "ControllerRevision", "metadata": {"name": "web-1"}, "revision": -1, "data": {}}
    assert [str(each) for each in validate(from_document(document))] == [
        "revision: Invalid value: -1: must be greater than or equal to 0"
    ]


@pytest.mark.parametrize(
    ("kind", "defaults"),
    [
        ("ReplicaSet", {"replicas": 1}),
        (
            "StatefulSet",
            {
                "replicas": 1,
                "podManagementPolicy": "OrderedReady",
                "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"partition": 0}},
                "revisionHistoryLimit": 10,
            },
        ),
        (
            "DaemonSet",
            {
                "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 0, "maxUnavailable": 1}},
                "revisionHistoryLimit": 10,
            },
        ),
    ],
)
def test_defaults(kind: str, defaults: dict[str, Any]) -> None:
    """Those of apps/v1; filled in twice, they stay."""
    completed = with_defaults(made(kind))
    spec = to_document(completed)["spec"]
    assert spec["template"]["spec"].pop("terminationGracePeriodSeconds") == 30
    assert {key: value for key, value in spec.items() if key not in ("selector", "template")} == defaults
    assert with_defaults(completed) == completed


@pytest.mark.parametrize(
    ("rolling", "wanted", "expected"),
    [
        ({}, 3, Allowance(1, 0)),
        ({}, 4, Allowance(1, 1)),
        ({}, 0, Allowance(0, 1)),
        ({"maxSurge": "0%", "maxUnavailable": "10%"}, 3, Allowance(0, 1)),
        ({"maxSurge": 2, "maxUnavailable": 5}, 3, Allowance(2, 3)),
    ],
)
def test_what_deployments_may(rolling: dict[str, Any], wanted: int, expected: Allowance) -> None:
    """Surge rounds up, unavailable down; if both come out as nothing, one may be unavailable after all."""
    assert deployment_allowance({"rollingUpdate": rolling}, wanted) == expected


def test_what_others_may() -> None:
    """A DaemonSet's amounts both round up; who says nothing updates one Pod at a time, from ordinal 0 on."""
    assert daemon_allowance(None, 3) == Allowance(0, 1)
    assert daemon_allowance({"rollingUpdate": {"maxUnavailable": "40%"}}, 4) == Allowance(0, 2)
    assert daemon_allowance({"rollingUpdate": {"maxUnavailable": 0, "maxSurge": "0%"}}, 4) == Allowance(0, 1)
    assert (partition(None), partition({"rollingUpdate": {"partition": 2}})) == (0, 2)
    assert (kind_of_update(None), kind_of_update({"type": "OnDelete"})) == ("RollingUpdate", "OnDelete")
    assert (scaled("25%", 5, up=True), scaled("25%", 5, up=False), scaled(7, 5, up=True)) == (2, 1, 7)

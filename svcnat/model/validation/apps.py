"""What the apps/v1 kinds must keep: Deployments, ReplicaSets, StatefulSets, DaemonSets and ControllerRevisions.

Source: apps/v1 validation of kube-apiserver. Volume claims are not looked at: there is no storage here.
"""

from __future__ import annotations

import re
from typing import Any

from msgspec.structs import replace

from svcnat.model.objects import (
    ControllerRevision,
    DaemonSet,
    Deployment,
    LabelSelector,
    PodTemplateSpec,
    ReplicaSet,
    StatefulSet,
    StatefulSetSpec,
)
from svcnat.model.rollouts import ON_DELETE, RECREATE, ROLLING, scaled
from svcnat.model.selectors import Selector
from svcnat.model.validation.metadata import check_labels_and_annotations, check_metadata
from svcnat.model.validation.names import (
    NEGATIVE_TEXT,
    check,
    check_counts,
    check_labels,
    dns_subdomain,
    label_value,
    qualified_name,
)
from svcnat.model.validation.problems import Problem, forbidden, immutable, invalid, required, unsupported
from svcnat.model.validation.workloads import check_conditions, check_pod_spec

OPERATORS = ("In", "NotIn", "Exists", "DoesNotExist")

MAX_REPLICAS = 10_000
"""Kubernetes has no limit, but makes pods one by one; here a slip of the keyboard would be a command without end."""

_PERCENT_TEXT = (
    "a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%',  or '93%', regex used for "
    "validation is '[0-9]+%')"
)
_STATEFUL_UPDATE = (
    "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', 'updateStrategy', "
    "'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden"
)


def check_deployment(deployment: Deployment) -> list[Problem]:
    """Return the problems of a Deployment that has its defaults."""
    spec = deployment.spec
    problems = check_metadata(deployment.metadata, "Deployment", dns_subdomain)
    problems += check_counts(
        {
            "spec.replicas": spec.replicas,
            "spec.minReadySeconds": spec.min_ready_seconds,
            "spec.revisionHistoryLimit": spec.revision_history_limit,
            "spec.progressDeadlineSeconds": spec.progress_deadline_seconds,
        }
    )
    problems += _check_most(spec.replicas)
    deadline = spec.progress_deadline_seconds
    if deadline is not None and deadline <= (spec.min_ready_seconds or 0):
        problems.append(invalid("spec.progressDeadlineSeconds", deadline, "must be greater than minReadySeconds"))
    problems += _check_strategy(spec.strategy)
    problems += _check_template(spec.selector, spec.template, "deployment")
    return problems + check_conditions(deployment.status.conditions)


def check_deployment_update(old: Deployment, new: Deployment) -> list[Problem]:
    """Return the problem of a Deployment whose selector changed."""
    return [] if old.spec.selector == new.spec.selector else [immutable("spec.selector", {})]


def check_replica_set(replica_set: ReplicaSet) -> list[Problem]:
    """Return the problems of a ReplicaSet that has its defaults."""
    spec = replica_set.spec
    problems = check_metadata(replica_set.metadata, "ReplicaSet", dns_subdomain)
    problems += check_counts({"spec.replicas": spec.replicas, "spec.minReadySeconds": spec.min_ready_seconds})
    problems += _check_most(spec.replicas)
    problems += _check_template(spec.selector, spec.template, "deployment")  # kube-apiserver says so, too
    return problems + check_conditions(replica_set.status.conditions)


def check_replica_set_update(old: ReplicaSet, new: ReplicaSet) -> list[Problem]:
    """Return the problem of a ReplicaSet whose selector changed."""
    return [] if old.spec.selector == new.spec.selector else [immutable("spec.selector", {})]


def check_stateful_set(stateful_set: StatefulSet) -> list[Problem]:
    """Return the problems of a StatefulSet that has its defaults."""
    spec = stateful_set.spec
    problems = check_metadata(stateful_set.metadata, "StatefulSet", dns_subdomain)
    if spec.pod_management_policy not in ("OrderedReady", "Parallel"):
        text = "must be 'OrderedReady' or 'Parallel'"
        problems.append(invalid("spec.podManagementPolicy", spec.pod_management_policy, text))
    problems += _check_stateful_strategy(spec.update_strategy)
    problems += check_counts(
        {
            "spec.replicas": spec.replicas,
            "spec.minReadySeconds": spec.min_ready_seconds,
            "spec.ordinals.start": spec.ordinals.start if spec.ordinals else None,
            "spec.revisionHistoryLimit": spec.revision_history_limit,
        }
    )
    problems += _check_most(spec.replicas)
    problems += _check_template(spec.selector, spec.template, "statefulset")
    if spec.template.spec.active_deadline_seconds is not None:
        path = "spec.template.spec.activeDeadlineSeconds"
        problems.append(forbidden(path, "activeDeadlineSeconds in StatefulSet is not Supported"))
    return problems + check_conditions(stateful_set.status.conditions)


def check_stateful_set_update(old: StatefulSet, new: StatefulSet) -> list[Problem]:
    """Return the problem of a StatefulSet that changed in what may not change."""
    return [] if _fixed(old.spec) == _fixed(new.spec) else [forbidden("spec", _STATEFUL_UPDATE)]


def _fixed(spec: StatefulSetSpec) -> StatefulSetSpec:
    return replace(
        spec,
        replicas=None,
        ordinals=None,
        template=PodTemplateSpec(),
        update_strategy=None,
        revision_history_limit=None,
        persistent_volume_claim_retention_policy=None,
        min_ready_seconds=None,
    )


def check_daemon_set(daemon_set: DaemonSet) -> list[Problem]:
    """Return the problems of a DaemonSet that has its defaults."""
    spec = daemon_set.spec
    problems = check_metadata(daemon_set.metadata, "DaemonSet", dns_subdomain)
    problems += _check_template(spec.selector, spec.template, "daemonset")
    problems += check_counts(
        {"spec.minReadySeconds": spec.min_ready_seconds, "spec.revisionHistoryLimit": spec.revision_history_limit}
    )
    problems += _check_daemon_strategy(spec.update_strategy)
    return problems + check_conditions(daemon_set.status.conditions)


def check_daemon_set_update(old: DaemonSet, new: DaemonSet) -> list[Problem]:
    """Return the problem of a DaemonSet whose selector changed."""
    return [] if old.spec.selector == new.spec.selector else [immutable("spec.selector", {})]


def check_controller_revision(revision: ControllerRevision) -> list[Problem]:
    """Return the problems of a ControllerRevision."""
    problems = check_metadata(revision.metadata, "ControllerRevision", dns_subdomain)
    return problems + check_counts({"revision": revision.revision})


def _check_most(replicas: int | None) -> list[Problem]:
    if (replicas or 0) <= MAX_REPLICAS:
        return []
    return [invalid("spec.replicas", replicas, f"must be less than or equal to {MAX_REPLICAS}")]


def _check_template(selector: LabelSelector | None, template: PodTemplateSpec, kind: str) -> list[Problem]:
    """Return the problems of a template, and of the selector that has to pick its Pods."""
    problems = _check_template_selector(selector, template, kind)
    problems += check_labels_and_annotations(template.metadata, "Pod", "spec.template.metadata")
    problems += check_pod_spec(template.spec, "spec.template.spec", claims=kind == "statefulset")
    if template.spec.restart_policy in ("OnFailure", "Never"):
        path = "spec.template.spec.restartPolicy"
        problems.append(unsupported(path, template.spec.restart_policy, ("Always",)))
    return problems


def _check_template_selector(selector: LabelSelector | None, template: PodTemplateSpec, kind: str) -> list[Problem]:
    if selector is None:
        return [required("spec.selector")]
    if not selector.match_labels and not selector.match_expressions:
        return [invalid("spec.selector", {}, f"empty selector is invalid for {kind}")]
    problems = _check_selector(selector, "spec.selector")
    labels = template.metadata.labels
    if not problems and not Selector.of(selector).matches(labels):
        text = "`selector` does not match template `labels`"
        problems.append(invalid("spec.template.metadata.labels", labels, text))
    return problems


def _check_selector(selector: LabelSelector, path: str) -> list[Problem]:
    problems = check_labels(f"{path}.matchLabels", selector.match_labels)
    for index, each in enumerate(selector.match_expressions):
        at = f"{path}.matchExpressions[{index}]"
        if each.operator in ("In", "NotIn"):
            if not each.values:
                problems.append(required(f"{at}.values", "must be specified when `operator` is 'In' or 'NotIn'"))
        elif each.operator not in OPERATORS:
            problems.append(invalid(f"{at}.operator", each.operator, "not a valid selector operator"))
        elif each.values:
            text = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'"
            problems.append(forbidden(f"{at}.values", text))
        problems += check(f"{at}.key", each.key, qualified_name)
        for number, value in enumerate(each.values):
            problems += check(f"{at}.values[{number}]", value, label_value)
    return problems


# --- strategies ----------------------------------------------------------------------------------------------


def _check_strategy(strategy: Any) -> list[Problem]:
    if not isinstance(strategy, dict):
        return [invalid("spec.strategy", strategy, "must be an object")]
    kind, rolling = strategy.get("type"), strategy.get("rollingUpdate")
    path = "spec.strategy.rollingUpdate"
    if kind not in (RECREATE, ROLLING):
        return [unsupported("spec.strategy.type", kind, (RECREATE, ROLLING))]
    if kind == RECREATE:
        text = "may not be specified when strategy `type` is 'Recreate'"
        return [] if rolling is None else [forbidden(path, text)]
    if not isinstance(rolling, dict):
        return [invalid(path, rolling, "must be an object")]
    problems = _check_amounts(rolling, path)
    if not problems and not any(scaled(rolling[name], 100, up=True) for name in ("maxSurge", "maxUnavailable")):
        text = "may not be 0 when `maxSurge` is 0"
        problems.append(invalid(f"{path}.maxUnavailable", rolling["maxUnavailable"], text))
    return problems


def _check_stateful_strategy(strategy: Any) -> list[Problem]:
    path = "spec.updateStrategy"
    if not isinstance(strategy, dict):
        return [invalid(path, strategy, "must be an object")]
    kind, rolling = strategy.get("type"), strategy.get("rollingUpdate")
    if kind not in (ROLLING, ON_DELETE):
        return [invalid(f"{path}.type", kind, "must be 'RollingUpdate' or 'OnDelete'")]
    path = f"{path}.rollingUpdate"
    if kind == ON_DELETE:
        return [] if rolling is None else [invalid(path, rolling, "only allowed for updateStrategy 'RollingUpdate'")]
    if not isinstance(rolling, dict):
        return [invalid(path, rolling, "must be an object")]
    first = rolling.get("partition")
    if not isinstance(first, int) or isinstance(first, bool):
        return [invalid(f"{path}.partition", first, "must be an integer")]
    return check_counts({f"{path}.partition": first})


def _check_daemon_strategy(strategy: Any) -> list[Problem]:
    path = "spec.updateStrategy"
    if not isinstance(strategy, dict):
        return [invalid(path, strategy, "must be an object")]
    kind, rolling = strategy.get("type"), strategy.get("rollingUpdate")
    if kind not in (ROLLING, ON_DELETE):
        return [unsupported(f"{path}.type", kind, (ON_DELETE, ROLLING))]
    path = f"{path}.rollingUpdate"
    if kind == ON_DELETE:
        return []
    if not isinstance(rolling, dict):
        return [invalid(path, rolling, "must be an object")]
    problems = _check_amounts(rolling, path)
    if problems:
        return problems
    surge, unavailable = (scaled(rolling[name], 100, up=True) for name in ("maxSurge", "maxUnavailable"))
    if surge and unavailable:
        text = "may not be set when maxUnavailable is non-zero"
        problems.append(invalid(f"{path}.maxSurge", rolling["maxSurge"], text))
    elif not surge and not unavailable:
        problems.append(required(f"{path}.maxUnavailable", "cannot be 0 when maxSurge is 0"))
    return problems


def _check_amounts(rolling: dict[str, Any], path: str) -> list[Problem]:
    """Return the problems of the two amounts, which the defaults have filled in."""
    return [
        problem
        for name in ("maxUnavailable", "maxSurge")
        for problem in _check_amount(f"{path}.{name}", rolling[name], most=name == "maxUnavailable")
    ]


def _check_amount(path: str, value: Any, *, most: bool) -> list[Problem]:
    """Return the problems of a number or a percentage; one that is `most` is at most everything."""
    if isinstance(value, str):
        if not re.fullmatch("[0-9]{1,9}%", value):
            return [invalid(path, value, _PERCENT_TEXT)]
        return [invalid(path, value, "must not be greater than 100%")] if most and int(value[:-1]) > 100 else []
    if not isinstance(value, int) or isinstance(value, bool):
        return [invalid(path, value, "must be an integer or percentage (e.g '5%')")]
    return [] if value >= 0 else [invalid(path, value, NEGATIVE_TEXT)]

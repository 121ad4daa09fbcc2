"""What every object's metadata must keep: names, labels, annotations, owners, and svcnat's own annotations.

Source: apimachinery's ValidateObjectMeta.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from svcnat.model import extensions
from svcnat.model.objects import ObjectMeta
from svcnat.model.quoting import entry
from svcnat.model.validation.names import Form, check, check_counts, check_labels, dns_label, qualified_name
from svcnat.model.validation.probes import check_annotation
from svcnat.model.validation.problems import Problem, forbidden, invalid, required, too_long

_MOST_ANNOTATED = 256 * 1024
_TIME = re.compile(
    r"[0-9]{4}-(?:0[1-9]|1[0-2])-(?:0[1-9]|[12][0-9]|3[01])T(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](?:\.[0-9]{1,9})?"
    r"(?:Z|[-+][0-9]{2}:[0-9]{2})"
)

_OURS: dict[str, tuple[tuple[str, ...], Callable[[str], Any]]] = {
    extensions.SCHEDULER: (("Service",), extensions.parse_scheduler),
    extensions.ON_REMOVAL: (("Service",), extensions.parse_removal),
    extensions.MAX_CONNECTIONS: (("Service",), extensions.parse_max_connections),
    extensions.CONNECTION_RATE: (("Service",), extensions.parse_rate),
    extensions.PROBE: (("Service",), check_annotation),
    extensions.WEIGHT: (("Pod",), extensions.parse_weight),
    extensions.WEIGHTS: (("EndpointSlice", "Endpoints"), extensions.parse_weights),
    extensions.PROBE_RESULTS: (("EndpointSlice", "Endpoints"), extensions.parse_probe_results),
}
"""Which kinds each annotation belongs on, the first of which messages name, and what reads it."""


def check_metadata(metadata: ObjectMeta, kind: str, form: Form, *, namespaced: bool = True) -> list[Problem]:
    """Return the problems of an object's metadata; `form` is that of the names of its kind."""
    path = "metadata"
    problems = []
    if not metadata.name:
        detail = "svcnat generates no names" if metadata.generate_name else "name or generateName is required"
        problems.append(required(f"{path}.name", detail))
    else:
        problems += check(f"{path}.name", metadata.name, form)
    if namespaced:
        problems += check(f"{path}.namespace", metadata.namespace, dns_label) if metadata.namespace else []
    elif metadata.namespace:
        problems.append(forbidden(f"{path}.namespace", "not allowed on this type"))
    problems += check_labels_and_annotations(metadata, kind, path)
    problems += check_counts(
        {
            f"{path}.generation": metadata.generation,
            f"{path}.deletionGracePeriodSeconds": metadata.deletion_grace_period_seconds,
        }
    )
    problems += check_times(
        {
            f"{path}.creationTimestamp": metadata.creation_timestamp,
            f"{path}.deletionTimestamp": metadata.deletion_timestamp,
        }
    )
    for index, owner in enumerate(metadata.owner_references):
        at = f"{path}.ownerReferences[{index}]"
        parts = {"apiVersion": owner.api_version, "kind": owner.kind, "name": owner.name, "uid": owner.uid}
        problems += [required(f"{at}.{name}") for name, value in parts.items() if not value]
    for index, finalizer in enumerate(metadata.finalizers):
        problems += check(f"{path}.finalizers[{index}]", finalizer, qualified_name)
    return problems


def check_times(values: Mapping[str, str | None]) -> list[Problem]:
    """Return the problems of times, by field, that are none."""
    return [
        invalid(field, value, "must be a time as RFC 3339, 2006-01-02T15:04:05Z")
        for field, value in values.items()
        if value is not None and not _TIME.fullmatch(value)
    ]


def check_labels_and_annotations(metadata: ObjectMeta, kind: str, path: str) -> list[Problem]:
    """Return the problems of the two maps of metadata; a Deployment's template has them for its Pods."""
    given = metadata.annotations
    problems = check_labels(f"{path}.labels", metadata.labels)
    for key in given:
        at = entry(f"{path}.annotations", key)
        problems += [invalid(f"{path}.annotations", key, text, at=at) for text in qualified_name(key.lower())]
    if sum(len(key.encode()) + len(value.encode()) for key, value in given.items()) > _MOST_ANNOTATED:
        problems.append(too_long(f"{path}.annotations", _MOST_ANNOTATED))
    return problems + _check_ours(given, kind, f"{path}.annotations")


def _check_ours(given: Mapping[str, str], kind: str, path: str) -> list[Problem]:
    problems = []
    for key, value in given.items():
        if not key.startswith(extensions.PREFIX):
            continue
        at = entry(path, key)
        if key not in _OURS:
            problems += _check_slip(key, path, at)
            continue
        where, parse = _OURS[key]
        if kind not in where:
            problems.append(forbidden(at, f"has a meaning on a {where[0]} only, not on a {kind}"))
            continue
        try:
            parse(value)
        except ValueError as error:
            problems.append(invalid(at, value, str(error)))
    return problems


def _check_slip(key: str, path: str, at: str) -> list[Problem]:
    """An unknown annotation is its author's business, unless it looks like a slip for one of ours."""
    import difflib  # Only an unknown annotation pays for this import.

    meant = difflib.get_close_matches(key[:64], _OURS, n=1, cutoff=0.85)
    return [invalid(path, key, f"did you mean {meant[0]}?", at=at)] if meant else []

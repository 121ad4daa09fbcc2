"""What ``label`` and ``annotate`` make of an object. Whether keys and values are well formed is validation's subject.

Source: k8s.io/kubectl's ``label`` and ``annotate``.
"""

from __future__ import annotations

from collections.abc import Mapping

from msgspec.structs import replace

from svcnat.controllers.slices import FROM_ENDPOINTS, FROM_PODS
from svcnat.errors import ConflictError
from svcnat.model.contents import REDACTED
from svcnat.model.extensions import WEIGHT, WEIGHTS
from svcnat.model.kinds import kind_of
from svcnat.model.labels import CHANGE_CAUSE, MANAGER_LABEL
from svcnat.model.objects import EndpointSlice, Resource, Secret

_MADE_FROM = {
    FROM_PODS: f"pods: annotate those, with {WEIGHT}",
    FROM_ENDPOINTS: f"endpoints of its service's name: annotate those, with {WEIGHTS}",
}

Marks = Mapping[str, str | None]
"""New values by key; None removes a key."""


def labelled(resource: Resource, marks: Marks, *, overwrite: bool = False) -> Resource:
    """Return the object with other labels; itself if they are what it has.

    Raises:
        ConflictError: a key has another value already, and `overwrite` is False.

    """
    metadata = resource.metadata
    for key, value in marks.items():
        if value is not None and not overwrite and metadata.labels.get(key, value) != value:
            raise ConflictError(f"'{key}' already has a value ({metadata.labels[key]}), and --overwrite is false")
    new = _marked(metadata.labels, marks)
    return resource if new == metadata.labels else replace(resource, metadata=replace(metadata, labels=new))


def annotated(resource: Resource, marks: Marks, *, overwrite: bool = False) -> Resource:
    """Return the object with other annotations; as :func:`labelled`, but the same value is refused as well.

    kubernetes.io/change-cause may always be written over. The weights of a slice that is made from Pods, or from
    Endpoints, are not its own: they would be gone with the next change of those.
    """
    manager = resource.metadata.labels.get(MANAGER_LABEL)
    if isinstance(resource, EndpointSlice) and manager in _MADE_FROM and WEIGHTS in marks:
        named = kind_of(resource).quote(resource.metadata.name)
        raise ConflictError(f"{named} is made from {_MADE_FROM[manager]}")
    metadata, given = resource.metadata, resource.metadata.annotations
    declared = [
        f"'{key}' already has a value ({REDACTED if isinstance(resource, Secret) else given[key]})"
        for key, value in marks.items()
        if value is not None and not overwrite and key in given and key != CHANGE_CAUSE
    ]
    if declared:
        text = "--overwrite is false but found the following declared annotation(s)"
        raise ConflictError(f"{text}: {'; '.join(declared)}")
    new = _marked(given, marks)
    return resource if new == given else replace(resource, metadata=replace(metadata, annotations=new))


def _marked(before: Mapping[str, str], marks: Marks) -> dict[str, str]:
    after: dict[str, str | None] = {**before, **marks}
    return {key: value for key, value in after.items() if value is not None}

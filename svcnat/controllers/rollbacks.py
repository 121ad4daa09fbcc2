"""What ``rollout undo``, ``pause`` and ``resume`` do to an object; the controllers do the rest.

Source: k8s.io/kubectl's ``polymorphichelpers``: ``rollback.go``, ``objectpauser.go`` and ``objectresumer.go``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from msgspec.structs import replace

from svcnat.controllers import deployments, histories
from svcnat.controllers.members import controlled
from svcnat.controllers.rolling import revision_of
from svcnat.controllers.world import World
from svcnat.errors import ConflictError, NotFoundError, UsageError
from svcnat.model.defaults import template_with_defaults
from svcnat.model.kinds import kind_of
from svcnat.model.objects import (
    ControllerRevision,
    DaemonSet,
    Deployment,
    PodTemplateSpec,
    ReplicaSet,
    Resource,
    StatefulSet,
)

Annotations = Mapping[str, str]


def paused(resource: Resource) -> Resource:
    """Return the object with its rollout paused: its template may change, and nothing follows.

    Raises:
        UsageError: only Deployments can be paused.
        ConflictError: it is paused.

    """
    return _paused(resource, True, "pausing is not supported", "is already paused")  # noqa: FBT003 - the field's own value


def resumed(resource: Resource) -> Resource:
    """Return the object with its rollout going on.

    Raises:
        UsageError: only Deployments can be paused.
        ConflictError: it is not paused.

    """
    return _paused(resource, False, "resuming is not supported", "is not paused")  # noqa: FBT003 - the field's own value


def _paused(resource: Resource, wanted: bool, unable: str, same: str) -> Resource:  # noqa: FBT001 - the field's own value
    named = kind_of(resource).quote(resource.metadata.name)
    if not isinstance(resource, Deployment):
        raise UsageError(f"{named} {unable}")
    if bool(resource.spec.paused) == wanted:
        raise ConflictError(f"{named} {same}")
    return replace(resource, spec=replace(resource.spec, paused=wanted or None))


def rolled_back(world: World, resource: Resource, revision: int = 0) -> Resource:
    """Return the object with the template of a former `revision`, or of the last but one; itself if it has that.

    A Deployment gets the annotations of that time back, too: its change cause is one.

    Raises:
        UsageError: its kind has no rollouts.
        ConflictError: it is paused.
        NotFoundError: it never had such a revision, or it has been forgotten.

    """
    found: Mapping[int, tuple[PodTemplateSpec | None, Annotations]]
    match resource:
        case Deployment():
            if resource.spec.paused:
                name = resource.metadata.name
                raise ConflictError(
                    "you cannot rollback a paused deployment; resume it first with "
                    f"'svcnat rollout resume deployment/{name}' and try again"
                )
            found = _of_deployment(world, resource)
        case StatefulSet() | DaemonSet():
            past = controlled(world, resource, ControllerRevision)
            found = {each.revision or 0: (histories.template_of(each), {}) for each in past}
        case _:
            raise UsageError(f"no rollbacker has been implemented for {kind_of(resource).plural}")
    template, annotations = _chosen(resource, found, revision)
    spec: Any = resource.spec
    if template == template_with_defaults(spec.template):
        return resource
    changed: Resource = replace(resource, spec=replace(spec, template=template))
    if isinstance(resource, Deployment):
        kept = {key: text for key, text in resource.metadata.annotations.items() if key in deployments.OWN_ANNOTATIONS}
        changed = replace(changed, metadata=replace(resource.metadata, annotations={**annotations, **kept}))
    return changed


def _of_deployment(world: World, this: Deployment) -> dict[int, tuple[PodTemplateSpec | None, Annotations]]:
    """Return the template and the annotations of each revision; a ReplicaSet without a number is none."""
    found: dict[int, tuple[PodTemplateSpec | None, Annotations]] = {}
    for each in controlled(world, this, ReplicaSet):
        theirs = each.metadata.annotations.items()
        annotations = {key: text for key, text in theirs if key not in deployments.OWN_ANNOTATIONS}
        if number := revision_of(each):
            found[number] = template_with_defaults(deployments.template_of(each)), annotations
    return found


def _chosen(
    resource: Resource, found: Mapping[int, tuple[PodTemplateSpec | None, Annotations]], revision: int
) -> tuple[PodTemplateSpec, Annotations]:
    if not revision and len(found) < 2:
        if isinstance(resource, Deployment):
            raise NotFoundError(f'no rollout history found for deployment "{resource.metadata.name}"')
        raise NotFoundError("no last revision to roll back to")
    template, annotations = found.get(revision or sorted(found)[-2], (None, {}))
    if template is None:
        raise NotFoundError(f"unable to find specified revision {revision} in history")
    return template, annotations

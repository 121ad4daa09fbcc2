"""What ``scale`` and ``rollout restart`` do to an object; the controllers do the rest.

Source: k8s.io/kubectl's ``scale`` and ``polymorphichelpers/objectrestarter.go``.
"""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace

from svcnat.errors import ConflictError, UsageError
from svcnat.model.kinds import kind_of
from svcnat.model.labels import RESTARTED_AT
from svcnat.model.objects import DaemonSet, Deployment, ReplicaSet, Resource, StatefulSet

SCALABLE = (Deployment, ReplicaSet, StatefulSet)
ROLLED_OUT = (Deployment, DaemonSet, StatefulSet)


def scaled(resource: Resource, replicas: int, current: int | None = None) -> Resource:
    """Return the object with so many `replicas`, if it has `current` ones or nobody minds.

    Raises:
        UsageError: its kind has no replicas.
        ConflictError: it has another number of them.

    """
    if not isinstance(resource, SCALABLE):
        raise UsageError(f"{kind_of(resource).plural} cannot be scaled: only {_list(SCALABLE)} can")
    spec: Any = resource.spec
    now = 1 if spec.replicas is None else spec.replicas
    if current is not None and now != current:
        raise ConflictError(f"Expected replicas to be {current}, was {now}")
    return replace(resource, spec=replace(spec, replicas=replicas))


def restarted(resource: Resource, now: str) -> Resource:
    """Return the object with a template that differs in an annotation alone; `now` is RFC 3339.

    Raises:
        UsageError: its kind has no rollouts.
        ConflictError: it is paused, or was restarted in this very second.

    """
    kind = kind_of(resource)
    if not isinstance(resource, ROLLED_OUT):
        raise UsageError(f"{kind.quote(resource.metadata.name)} restarting is not supported")
    named = kind.quote(resource.metadata.name)
    if isinstance(resource, Deployment) and resource.spec.paused:
        raise ConflictError(f"{named} can't restart paused deployment (run rollout resume first)")
    spec: Any = resource.spec
    metadata = spec.template.metadata
    if metadata.annotations.get(RESTARTED_AT) == now:
        text = "if restart has already been triggered within the past second, please wait before attempting another"
        raise ConflictError(f"{named}: {text}")
    template = replace(
        spec.template, metadata=replace(metadata, annotations={**metadata.annotations, RESTARTED_AT: now})
    )
    return replace(resource, spec=replace(spec, template=template))


def _list(kinds: tuple[type[Resource], ...]) -> str:
    *most, last = (f"{kind.__name__}s" for kind in kinds)
    return f"{', '.join(most)} and {last}"

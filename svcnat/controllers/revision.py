"""The metadata that the store, not a person, gives to an object: uid, resourceVersion, creationTimestamp, generation.

It neither counts versions nor reads a clock: a World brings those. Source: metav1.ObjectMeta and the
``PrepareForUpdate`` of each kind in kube-apiserver.
"""

from __future__ import annotations

from typing import Any, TypeVar

from msgspec.structs import replace

from svcnat.model.labels import REVISION
from svcnat.model.objects import DaemonSet, Deployment, EndpointSlice, Pod, ReplicaSet, Resource, StatefulSet

R = TypeVar("R", bound=Resource)


def revise(new: R, old: R | None, *, version: str, uid: str, created: str | None) -> R:
    """Return the object as it is stored: `old` itself if nothing but this metadata differs, else `new` completed.

    `uid` and `created` count for a new object only.
    """
    if old is None:
        return _with_metadata(new, uid, version, created, 1 if _counted(new) is not None else None)
    meta = old.metadata
    same = _with_metadata(new, meta.uid, meta.resource_version, meta.creation_timestamp, meta.generation)
    if same == old:
        return old
    generation = meta.generation
    if _counted(new) != _counted(old):
        generation = (generation or 0) + 1
    return _with_metadata(new, meta.uid, version, meta.creation_timestamp, generation)


def _with_metadata(resource: R, uid: str, version: str, created: str | None, generation: int | None) -> R:
    metadata = replace(
        resource.metadata, uid=uid, resource_version=version, creation_timestamp=created, generation=generation
    )
    return replace(resource, metadata=metadata)


def _counted(resource: Resource) -> Any:
    """Return what a new generation stands for; None for kinds that have no generation."""
    match resource:
        case Deployment():
            # The revision comes from the controller: nobody changed the Deployment.
            return resource.spec, {key: text for key, text in resource.metadata.annotations.items() if key != REVISION}
        case ReplicaSet() | StatefulSet() | DaemonSet():
            return resource.spec
        case Pod():
            return resource.spec
        case EndpointSlice():
            return resource.address_type, resource.endpoints, resource.ports
    return None

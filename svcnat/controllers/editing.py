"""What becomes of an object that somebody edited in full, while others may have changed it, too."""

from __future__ import annotations

from typing import Any, TypeVar

from msgspec.structs import replace

from svcnat.errors import ConflictError
from svcnat.model.kinds import kind_of
from svcnat.model.objects import Resource

R = TypeVar("R", bound=Resource)


def rewritten(live: Resource, before: Resource, after: Resource) -> Resource:
    """Return the object as it was edited, from `before` to `after`; `live` itself if that changed nothing.

    A status that was not edited is the live one: others report it, all the time.

    Raises:
        ConflictError: the live object differs from `before` in more than its status.

    """
    if after == before:
        return live
    if _without_status(live) != _without_status(before) or live.metadata.uid != before.metadata.uid:
        raise ConflictError(
            f"Operation cannot be fulfilled on {kind_of(live).quote(live.metadata.name)}: the object has been "
            "modified; please apply your changes to the latest version and try again"
        )
    made: Any = after
    if hasattr(made, "status") and made.status == before.status:  # type: ignore[attr-defined]
        made = replace(made, status=live.status)  # type: ignore[attr-defined]
    version = live.metadata.resource_version
    managed = live.metadata.managed_fields  # which nobody is shown
    result: Resource = replace(made, metadata=replace(made.metadata, resource_version=version, managed_fields=managed))
    return result


def _without_status(resource: R) -> R:
    bare: Any = replace(resource, metadata=replace(resource.metadata, resource_version=""))
    return replace(bare, status=type(bare.status)()) if hasattr(bare, "status") else bare  # type: ignore[no-any-return]

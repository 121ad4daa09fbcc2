"""What ``patch`` makes of an object.

A strategic patch merges lists whose items have a name of their own item by item, as ``apply`` does; a merge patch
replaces every list. Null removes a field, and so does ``$patch: delete`` an item; other directives are refused.
Sources: RFC 7386, k8s.io/apimachinery's ``strategicpatch``.
"""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace

from svcnat.controllers.merge import REPLACED, Document, three_way
from svcnat.controllers.world import by_place
from svcnat.errors import Finding, ManifestError, UsageError
from svcnat.model import shape
from svcnat.model.kinds import from_document, kind_of, subject, to_document
from svcnat.model.objects import Resource

_DELETE = {"$patch": "delete"}


def patched(resource: Resource, patch: Document, *, strategic: bool = True, status: bool = False) -> Resource:
    """Return the object as a patch makes it, or its `status` alone; itself if that changes nothing.

    Raises:
        UsageError: a directive that is not supported, or a kind that has no status.
        ManifestError: the result has not the shape of its kind, or is another object.

    """
    kind, before = kind_of(resource), to_document(resource)
    if status and not hasattr(resource, "status"):
        raise UsageError(f"{kind.plural} have no status")
    merged = _strategic(patch, before) if strategic else _merged(before, patch)
    found = shape.check(merged, kind.type)
    wrong = [*found.wrong, *((each.path, f"unknown field{each.hint}") for each in found.unknown)]
    new = from_document({"apiVersion": kind.group_version, "kind": kind.name, **found.pruned})
    if by_place(new) != by_place(resource):
        wrong.append(("metadata.name", "field is immutable, as is the namespace"))
    if wrong:
        raise ManifestError([Finding("", 0, subject(resource), field, reason) for field, reason in wrong])
    if status:
        new = replace(resource, status=new.status)  # type: ignore[attr-defined]
    return resource if new == resource else new


def _strategic(patch: Document, live: Document) -> Document:
    return three_way(patch, _without_deletions(patch, live), live)


def _without_deletions(patch: Any, live: Any) -> Any:
    """Return what a patch says that there is to be; what it deletes is in itself alone."""
    if isinstance(patch, list):
        return [_without_deletions(each, None) for each in patch if not _deletes(each)]
    if not isinstance(patch, dict):
        return patch
    if any(key.startswith("$") for key in patch):
        raise UsageError("of the directives of strategic patches only `$patch: delete` of a list's item is supported")
    now = live if isinstance(live, dict) else {}
    # `apply` replaces some fields as a whole; whoever patches one means what is named.
    return {
        key: _merged(now.get(key), value) if key in REPLACED else _without_deletions(value, now.get(key))
        for key, value in patch.items()
        if value is not None
    }


def _deletes(item: Any) -> bool:
    return isinstance(item, dict) and item.items() >= _DELETE.items()


def _merged(live: Any, patch: Any) -> Any:
    """Return what RFC 7386 makes of a value and a patch of it."""
    if not isinstance(patch, dict):
        return patch
    merged = dict(live) if isinstance(live, dict) else {}
    for key, value in patch.items():
        if value is None:
            merged.pop(key, None)
        else:
            merged[key] = _merged(merged.get(key), value)
    return merged

"""What ``patch`` makes of an object.

A strategic patch merges lists whose items have a name of their own item by item, as ``apply`` does; a merge patch
replaces every list. Null removes a field, and so does ``$patch: delete`` an item; other directives are refused. A JSON
patch is operations, one after another, all of them or none.
Sources: RFC 7386, RFC 6902, k8s.io/apimachinery's ``strategicpatch``.
"""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec.structs import replace

from svcnat.controllers.merge import REPLACED, Document, three_way
from svcnat.controllers.world import by_place
from svcnat.errors import Finding, ManifestError, MissingError, UsageError
from svcnat.model import shape
from svcnat.model.kinds import from_document, kind_of, subject, to_document
from svcnat.model.objects import Resource

Operations = list[Any]
"""A JSON patch."""

_DELETE = {"$patch": "delete"}
_MOST_OPERATIONS = 10_000  # as kube-apiserver
_MOST_COPIED = 3 << 20  # bytes of JSON, by all operations of a patch: a few that copy their own copies fill any memory
_MEMBERS = {
    "add": ("path", "value"),
    "copy": ("from", "path"),
    "move": ("from", "path"),
    "remove": ("path",),
    "replace": ("path", "value"),
    "test": ("path", "value"),
}
"""What each operation must have."""


def patched(
    resource: Resource, patch: Document | Operations, *, strategic: bool = True, status: bool = False
) -> Resource:
    """Return the object as a patch makes it, or its `status` alone; itself if that changes nothing.

    A list is a JSON patch; anything else a strategic one, or a merge patch.

    Raises:
        UsageError: a directive that is not supported, no operation, or a kind that has no status.
        ManifestError: the result has not the shape of its kind, or is another object; or an operation fails.
        MissingError: jsonpatch is not installed.

    """
    kind, before = kind_of(resource), to_document(resource)
    if status and not hasattr(resource, "status"):
        raise UsageError(f"{kind.plural} have no status")
    if isinstance(patch, list):
        merged = _operated(resource, before, patch)
    else:
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


def _operated(resource: Resource, document: Document, operations: Operations) -> Document:
    """Return what RFC 6902 makes of a document; what fails is said without any value, which may be a Secret's."""
    try:
        import jsonpatch
        import jsonpointer
    except ImportError as error:
        raise MissingError("--type=json needs the jsonpatch package: pip install jsonpatch") from error
    if len(operations) > _MOST_OPERATIONS:
        raise UsageError(f"the patch has {len(operations)} operations: at most {_MOST_OPERATIONS} are allowed")
    copied = 0
    for number, operation in enumerate(operations, 1):
        said = f"operation {number}, {_require_operation(number, operation)}"
        reason = "there is nothing at this path"
        try:
            if operation["op"] == "copy":
                source = jsonpatch.JsonPointer(operation["from"]).resolve(document)
                if isinstance(source, jsonpointer.EndOfList):  # what "-" means: where nothing is yet
                    raise jsonpatch.JsonPatchConflict(reason)
                copied += len(msgspec.json.encode(source))
                if copied > _MOST_COPIED:
                    reason = f"more than {_MOST_COPIED} bytes would be copied"
                    raise jsonpatch.JsonPatchConflict(reason)
            document = jsonpatch.apply_patch(document, [operation])
        except jsonpatch.JsonPatchTestFailed:
            reason = "the value is another one"
        except (jsonpatch.JsonPatchException, jsonpatch.JsonPointerException):
            pass
        else:
            continue
        raise ManifestError([Finding("", 0, subject(resource), said, reason)])
    if not isinstance(document, dict):
        raise ManifestError([Finding("", 0, subject(resource), "", "the operations leave no object")])
    return document


def _require_operation(number: int, operation: Any) -> str:
    """Make sure that an operation is one, and return it without its value."""
    kind = operation.get("op") if isinstance(operation, dict) else None
    if not isinstance(kind, str) or kind not in _MEMBERS:
        raise UsageError(f"the patch, operation {number}: `op` must be one of {', '.join(_MEMBERS)}")
    for member in _MEMBERS[kind]:
        if member not in operation:
            raise UsageError(f"the patch, operation {number}: {kind} needs `{member}`")
        text = operation[member]
        if member != "value" and not (isinstance(text, str) and (not text or text.startswith("/"))):
            raise UsageError(f"the patch, operation {number}: `{member}` must be a path that begins with a slash")
    return f"{kind} {operation['path']}"


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

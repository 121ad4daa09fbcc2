"""kubectl's three-way merge: what apply makes of the last applied document, the new one and the live object.

Fields that the last document had and the new one lacks are removed; fields of the new one win; what others set stays.
Lists of items with a name of their own are merged item by item (the ``patchMergeKey`` of the API types, and for ports
number **and** protocol), other lists are replaced, and so are ``podIPs``, whose order counts. It works on plain
documents and validates nothing.
"""

from __future__ import annotations

from typing import Any

import msgspec

LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"

Document = dict[str, Any]

_LIST_KEYS: dict[str, tuple[str, ...]] = {
    "spec.ports": ("port", "protocol"),
    "containers.ports": ("containerPort", "protocol"),
    "initContainers.ports": ("containerPort", "protocol"),
    "status.addresses": ("type",),
    "conditions": ("type",),
    "containers": ("name",),
    "env": ("name",),
    "ephemeralContainers": ("name",),
    "hostAliases": ("ip",),
    "imagePullSecrets": ("name",),
    "initContainers": ("name",),
    "ownerReferences": ("uid",),
    "taints": ("key", "effect"),
    "topologySpreadConstraints": ("topologyKey", "whenUnsatisfiable"),
    "volumeDevices": ("devicePath",),
    "volumeMounts": ("mountPath",),
    "volumes": ("name",),
}
_DEFAULTS = {"protocol": "TCP"}
REPLACED = {"strategy", "rollingUpdate"}  # patchStrategy retainKeys: a new type must not inherit the old one's fields


def with_last_applied(document: Document) -> Document:
    """Return the document with itself in the annotation that the next apply reads."""
    metadata = document.get("metadata", {})
    annotations = {key: text for key, text in metadata.get("annotations", {}).items() if key != LAST_APPLIED}
    plain = {**document, "metadata": {**metadata, "annotations": annotations}}
    text = msgspec.json.encode(plain, order="sorted").decode() + "\n"
    return {**plain, "metadata": {**metadata, "annotations": {**annotations, LAST_APPLIED: text}}}


def last_applied(live: Document) -> Document:
    """Return the document that was applied last; empty if the object was never applied."""
    text = live.get("metadata", {}).get("annotations", {}).get(LAST_APPLIED, "{}")
    try:
        return msgspec.json.decode(text, type=dict[str, Any])
    except msgspec.MsgspecError:
        return {}


def three_way(original: Document, modified: Document, live: Document) -> Document:
    """Return `live` with what changed from `original` to `modified`, and all that `modified` says."""
    return _merge_maps(original, modified, live, "")


def _merge_maps(original: Document, modified: Document, live: Document, parent: str) -> Document:
    merged = {field: value for field, value in live.items() if field in modified or field not in original}
    for field, value in modified.items():
        merged[field] = _merge_value(original.get(field), value, live.get(field), parent, field)
    return merged


def _merge_value(original: Any, modified: Any, live: Any, parent: str, field: str) -> Any:
    if isinstance(modified, dict) and isinstance(live, dict) and field not in REPLACED:
        return _merge_maps(original if isinstance(original, dict) else {}, modified, live, field)
    keys = _LIST_KEYS.get(f"{parent}.{field}") or _LIST_KEYS.get(field)
    if keys and isinstance(modified, list) and isinstance(live, list):
        return _merge_lists(original if isinstance(original, list) else [], modified, live, field, keys)
    return modified


def _merge_lists(original: list[Any], modified: list[Any], live: list[Any], field: str, keys: tuple[str, ...]) -> Any:
    before, after, now = (_by_key(items, keys) for items in (original, modified, live))
    if before is None or after is None or now is None:
        return modified
    theirs = [item for key, item in now.items() if key not in after and key not in before]
    return [_merge_maps(before.get(key, {}), item, now.get(key, {}), field) for key, item in after.items()] + theirs


def _by_key(items: list[Any], keys: tuple[str, ...]) -> dict[tuple[Any, ...], Document] | None:
    """Return the items by their merge keys; None if they have none, or share one."""
    if not all(isinstance(item, dict) for item in items):
        return None
    found = {tuple(item.get(key, _DEFAULTS.get(key)) for key in keys): item for item in items}
    return found if len(found) == len(items) else None

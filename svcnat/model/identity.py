"""Which object a raw document claims to be: its kind, its members if it is a list, its name in messages."""

from __future__ import annotations

from typing import Any

from svcnat.model import kinds
from svcnat.model.kinds import Kind
from svcnat.model.quoting import quoted
from svcnat.model.validation.problems import Problem, invalid, required, unsupported

GROUP, VERSION = "svcnat.io", "v1alpha1"
_OWN = ("Configuration", "Topology")
_NAMESAKES = ("events.k8s.io",)


def items_of(root: Any) -> list[Any] | None:
    """Return the members of a list; None when the document is no list.

    The items of a typed list (``ServiceList``), as the API serves them, may leave out what the list's kind says.
    Go writes an empty list as null.
    """
    name = root.get("kind") if isinstance(root, dict) else None
    if not isinstance(name, str) or not name.endswith("List"):
        return None
    items: list[Any] = [] if root.get("items") is None and _lists_known(name) else root.get("items")
    if not isinstance(items, list):
        return None
    member = {"apiVersion": root.get("apiVersion"), "kind": name.removesuffix("List")}
    for item in items if member["kind"] in kinds.BY_NAME else ():
        if isinstance(item, dict):
            for key, value in member.items():
                item.setdefault(key, value)
    return items


def claimed_kind(root: Any) -> tuple[Kind | None, Problem | None]:
    """Return the kind of a document, or what is wrong with it; neither when svcnat has no use for the kind."""
    if not isinstance(root, dict):
        what = "a list" if isinstance(root, list) else f"just {quoted(root)}"
        return None, Problem("", f"a manifest is an object with apiVersion, kind and metadata, not {what}")
    for key in ("apiVersion", "kind"):
        value = root.get(key)
        if value is None or value == "":
            return None, required(key)
        if not isinstance(value, str):
            return None, invalid(key, value, "must be text")
    if _lists_known(root["kind"]):
        return None, invalid("items", root.get("items"), "must be a list")
    return _known(root["apiVersion"], root["kind"])


def _lists_known(name: str) -> bool:
    return name == "List" or (name.endswith("List") and name.removesuffix("List") in kinds.BY_NAME)


def _known(version: str, name: str) -> tuple[Kind | None, Problem | None]:
    kind = kinds.BY_NAME.get(name)
    group = version.rpartition("/")[0]
    if kind is not None and version == kind.group_version:
        return kind, None
    if group == GROUP or (name in _OWN and "." not in group):
        return None, _own_problem(version, name)
    # A group with a dot is somebody's own: there may well be a Service in it that is none of Kubernetes'. The Event of
    # events.k8s.io is Kubernetes' own, but has other fields.
    if "." in group and (not group.endswith(".k8s.io") or group in _NAMESAKES):
        return None, None
    if kind is not None:
        return None, unsupported("apiVersion", version, [kind.group_version])
    import difflib  # Only kinds that svcnat does not know pay for this import.

    meant = difflib.get_close_matches(name[:64].capitalize(), kinds.BY_NAME, n=1, cutoff=0.8)
    return None, invalid("kind", name, f"did you mean {quoted(meant[0])}?") if meant else None


def _own_problem(version: str, name: str) -> Problem | None:
    """Return what is wrong with a document that is, or would be, one of ours and no object; None if nothing is."""
    if name not in _OWN:
        return unsupported("kind", name, _OWN)
    return None if version == f"{GROUP}/{VERSION}" else unsupported("apiVersion", version, [f"{GROUP}/{VERSION}"])


def subject_of(root: Any, namespace: str) -> str:
    """Return ``KIND NAMESPACE/NAME``, as far as a document tells; empty when it tells nothing."""
    if not isinstance(root, dict) or not isinstance(root.get("kind"), str):
        return ""
    name, metadata = root["kind"], root.get("metadata")
    kind = kinds.BY_NAME.get(name)
    own = metadata.get("name") if isinstance(metadata, dict) else None
    if not own or not isinstance(own, str) or not isinstance(metadata, dict):
        return _bare(name)
    if kind is not None and not kind.namespaced:
        return f"{_bare(name)} {_bare(own)}"
    given = metadata.get("namespace")
    return f"{_bare(name)} {_bare(given if given and isinstance(given, str) else namespace)}/{_bare(own)}"


def _bare(text: str) -> str:
    return quoted(text)[1:-1]

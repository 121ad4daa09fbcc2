"""What a command is about: ``KIND NAME...``, ``KIND,KIND``, ``KIND/NAME...`` and ``all``, as kubectl reads them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from svcnat.controllers import legacy
from svcnat.errors import UsageError
from svcnat.model.kinds import BY_NAME, KINDS, Kind, find
from svcnat.model.objects import Endpoints, Namespace, ObjectMeta, Resource
from svcnat.model.selectors import Selector
from svcnat.store.snapshot import Snapshot

if TYPE_CHECKING:  # costs more to import than a help page may take
    from svcnat.api import Cluster

# kubectl's category: what a user has made, not what describes the cluster or follows from something else.
_ALL = ("Pod", "Service", "DaemonSet", "Deployment", "ReplicaSet", "StatefulSet")


Place = tuple[type[Resource], str, str]
"""Type, namespace and name."""


def place_of(resource: Resource) -> Place:
    """Where an object is."""
    return type(resource), resource.metadata.namespace, resource.metadata.name


@dataclass(frozen=True, slots=True)
class Selection:
    """Objects of one kind: those of `names`, or all of them."""

    kind: Kind
    names: tuple[str, ...] = ()


def parse(words: Sequence[str]) -> list[Selection]:
    """Parse ``svc,po``, ``svc back-end front-end`` or ``svc/back-end pod/web-1``.

    Raises:
        UsageError: no kind, an unknown one, or the two ways mixed.

    """
    if not words:
        raise UsageError("you must say which kind of object: one of " + ", ".join(kind.plural for kind in KINDS))
    if any("/" in word for word in words):
        return [_pair(word) for word in words]
    return [Selection(kind, tuple(dict.fromkeys(words[1:]))) for kind in _kinds(words[0])]


def _pair(word: str) -> Selection:
    kind, slash, name = word.partition("/")
    if not slash:
        raise UsageError(f"there is no need to give a kind of its own with KIND/NAME: '{word}'")
    if not name:
        raise UsageError(f"'{word}' must have a kind and a name: KIND/NAME")
    return Selection(_kind(kind), (name,))


def _kinds(text: str) -> list[Kind]:
    kinds: list[Kind] = []
    for word in text.split(","):
        kinds += [BY_NAME[name] for name in _ALL] if word == "all" else [_kind(word)]
    return list(dict.fromkeys(kinds))


def _kind(word: str) -> Kind:
    name, _, group = word.partition(".")
    kind = find(word) or find(name)
    if kind and group in {"", kind.qualified.partition(".")[2]}:
        return kind
    import difflib  # only a mistake pays for it

    words = [name for kind in KINDS for name in (kind.singular, kind.plural, *kind.short)]
    near = difflib.get_close_matches(word.lower(), words, n=1)
    hint = (
        f"did you mean '{near[0]}'?"
        if near
        else f"it has {', '.join(kind.plural for kind in KINDS)}; KIND/NAME is one object"
    )
    raise UsageError(f"svcnat has no kind '{word}'; {hint}")


def listed(snapshot: Snapshot, kind: Kind, namespace: str | None, selector: Selector) -> list[Resource]:
    """All objects of a kind in `namespace` (None: in all) whose labels `selector` matches.

    Namespaces and Endpoints among them may be stored nowhere: the former are there by being named, the latter follow
    from slices.
    """
    resources: Iterable[Resource]
    if kind.type is Namespace:
        resources = _namespaces(snapshot)
    elif kind.type is Endpoints:
        resources = legacy.derived(snapshot, namespace)
    else:
        resources = snapshot.list(kind.type, namespace if kind.namespaced else None)
    return [resource for resource in resources if selector.matches(resource.metadata.labels)]


def named(snapshot: Snapshot, kind: Kind, namespace: str, name: str) -> Resource | None:
    """One object, or None."""
    if kind.type is Namespace:
        return next((each for each in _namespaces(snapshot) if each.metadata.name == name), None)
    if kind.type is Endpoints:
        return legacy.derived_one(snapshot, namespace, name)
    return snapshot.get(kind.type, namespace if kind.namespaced else "", name)


def at(snapshot: Snapshot, place: Place) -> Resource | None:
    """One object by its type, or None."""
    return named(snapshot, BY_NAME[place[0].__name__], *place[1:])


def _namespaces(snapshot: Snapshot) -> list[Resource]:
    """Every namespace: they exist by being named, whether or not somebody declared them."""
    declared = {namespace.metadata.name: namespace for namespace in snapshot.list(Namespace)}
    names = snapshot.namespaces()
    return [declared.get(name) or Namespace(metadata=ObjectMeta(name=name)) for name in names]


def found(
    snapshot: Snapshot,
    selections: Sequence[Selection],
    *,
    namespace: str,
    all_namespaces: bool = False,
    selector: str = "",
) -> tuple[list[tuple[Kind, list[Resource]]], list[str]]:
    """The objects that were asked for, by kind, and what is to be said of those that are not there.

    Raises:
        UsageError: names together with a selector or with all namespaces, or a selector that is none.

    """
    blocks: list[tuple[Kind, list[Resource]]] = []
    missing: list[str] = []
    labels = Selector.parse(selector)
    for selection in selections:
        kind = selection.kind
        resources: list[Resource] = []
        if not selection.names:
            resources = in_creation_order(listed(snapshot, kind, None if all_namespaces else namespace, labels))
        elif selector or all_namespaces:
            raise UsageError("a name cannot be given together with -l or -A")
        for name in selection.names:
            if resource := named(snapshot, kind, namespace, name):
                resources.append(resource)
            else:
                missing.append(f"{kind.quote(name)} not found")
        blocks.append((kind, resources))
    return blocks, missing


def in_creation_order(resources: Iterable[Resource]) -> list[Resource]:
    """Sort by namespace, then the oldest first: ``kubernetes`` is there before anybody's service."""

    def place(resource: Resource) -> tuple[str, str, int, str]:
        metadata = resource.metadata
        version = int(metadata.resource_version) if metadata.resource_version.isdecimal() else 0
        return metadata.namespace, metadata.creation_timestamp or "", version, metadata.name

    return sorted(resources, key=place)


def places(cluster: Cluster, selections: Sequence[Selection], namespace: str, selector: str = "") -> list[Place]:
    """Where the objects are that were asked for: those that are named, whether or not they are there, or all of a kind.

    Raises:
        UsageError: names together with a selector, or a selector that is none.

    """
    labels = Selector.parse(selector)
    found: dict[Place, None] = {}
    with cluster.read() as snapshot:
        for selection in selections:
            kind = selection.kind
            if selection.names and selector:
                raise UsageError("a name cannot be given together with -l")
            for name in selection.names:
                found[kind.type, namespace if kind.namespaced else "", name] = None
            for resource in [] if selection.names else listed(snapshot, kind, namespace, labels):
                found[kind.type, resource.metadata.namespace, resource.metadata.name] = None
    return list(found)

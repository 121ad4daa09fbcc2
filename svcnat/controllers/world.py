"""What a controller may read and write: the World protocol, and a World in memory for stateless runs.

Kinds are named by their class: ``world.get(Service, "default", "back-end")``. Objects without a namespace (Node,
Namespace) live in the namespace "". Nothing here validates, or makes one object from another.
"""

from __future__ import annotations

import hashlib
import uuid
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from svcnat.controllers.allocation import (
    DEFAULT_SERVICE_CIDRS,
    Pool,
    ServiceRange,
    addresses_of,
    allocate,
    parse_ranges,
)
from svcnat.controllers.revision import revise
from svcnat.errors import Finding, ManifestError
from svcnat.model.addresses import canonical
from svcnat.model.defaults import with_defaults
from svcnat.model.kinds import KINDS
from svcnat.model.objects import Resource, Service
from svcnat.model.selectors import matches
from svcnat.model.validation import NODE_PORTS

R = TypeVar("R", bound=Resource)
Place = tuple[str, str]
"""Namespace and name."""
Pair = tuple[str, str, str]
"""Namespace, label key and label value."""


@dataclass(frozen=True, slots=True)
class Change:
    """An object before and after; None before its creation and after its deletion."""

    before: Resource | None
    after: Resource | None


class Reader(Protocol):
    """The reading half of a World; sequences are sorted by namespace and name."""

    def get(self, kind: type[R], namespace: str, name: str) -> R | None:
        """Return the object, or None."""
        ...

    def list(self, kind: type[R], namespace: str | None = None) -> Sequence[R]:
        """Return all objects of a kind, of one namespace or (None) of all."""
        ...

    def labelled(self, kind: type[R], namespace: str, labels: Mapping[str, str]) -> Sequence[R]:
        """Return the objects that have all of `labels`; by index: it costs what the rarest of them costs."""
        ...

    def services_selecting(self, namespace: str, labels: Mapping[str, str]) -> Sequence[Service]:
        """Return the Services whose selector holds for a Pod with `labels`; by index."""
        ...

    def owned(self, uid: str) -> Sequence[Resource]:
        """Return the objects that name `uid` among their ownerReferences; by index, in the order of kinds."""
        ...


class World(Reader, Pool, Protocol):
    """What controllers run on; implemented by :class:`MemoryWorld` and the store's transaction.

    ``ranges`` are where new cluster addresses come from, ``node_ports`` the node ports that may be asked for.
    """

    ranges: tuple[ServiceRange, ...]
    node_ports: range

    def put(self, resource: R) -> R:
        """Write an object and return it as stored; one that differs in nothing is left alone."""
        ...

    def remove(self, resource: Resource) -> None:
        """Delete the object of this kind, namespace and name, and release its addresses."""
        ...


def by_place(resource: Resource) -> Place:
    """Return namespace and name, the order in which Worlds list."""
    return resource.metadata.namespace, resource.metadata.name


class MemoryWorld:
    """A World without clock, randomness or file: what it holds follows from what it was given, in any order."""

    def __init__(self, ranges: tuple[ServiceRange, ...]) -> None:
        self.ranges = ranges
        self.node_ports = NODE_PORTS
        self._objects: dict[type[Resource], dict[Place, Any]] = {kind.type: {} for kind in KINDS}
        self._by_label: defaultdict[tuple[type[Resource], str, str, str], dict[str, None]] = defaultdict(dict)
        self._by_owner: defaultdict[str, dict[tuple[type[Resource], Place], None]] = defaultdict(dict)
        self._by_anchor: defaultdict[Pair, dict[str, None]] = defaultdict(dict)
        self._anchors: dict[Place, Pair] = {}
        self._holders: dict[str, Place] = {}

    @classmethod
    def of(cls, resources: Iterable[Resource], service_cidrs: Iterable[str] = DEFAULT_SERVICE_CIDRS) -> MemoryWorld:
        """Return a world of `resources`, with defaults and cluster addresses; the controllers have not run yet.

        Addresses that somebody asks for are given first, then the rest in the order of namespace and name.

        Raises:
            ManifestError: addresses collide or lie outside the ranges; it holds every such finding.
            ExhaustedError: a range is full.

        """
        world = cls(parse_ranges(service_cidrs))
        complete = sorted((with_defaults(resource) for resource in resources), key=by_place)
        services = [resource for resource in complete if isinstance(resource, Service)]
        for service in services:
            for address in addresses_of(service):
                if any(address in each for each in world.ranges):
                    world.claim(canonical(address) or address, service)
        findings: list[Finding] = []
        for resource in complete:
            try:
                world.put(allocate(resource, None, world.ranges, world) if isinstance(resource, Service) else resource)
            except ManifestError as error:
                findings += error.findings
        if findings:
            raise ManifestError(findings)
        return world

    def everything(self) -> list[Resource]:
        """Return all objects, in the order of kinds, then of namespace and name."""
        return [resource for kind in KINDS for resource in self.list(kind.type)]

    def get(self, kind: type[R], namespace: str, name: str) -> R | None:
        """See :class:`Reader`."""
        found: R | None = self._objects[kind].get((namespace, name))
        return found

    def list(self, kind: type[R], namespace: str | None = None) -> Sequence[R]:
        """See :class:`Reader`."""
        objects: dict[Place, R] = self._objects[kind]
        return [objects[place] for place in sorted(objects) if namespace in (None, place[0])]

    def labelled(self, kind: type[R], namespace: str, labels: Mapping[str, str]) -> Sequence[R]:
        """See :class:`Reader`."""
        if not labels:
            return self.list(kind, namespace)
        rarest = min((self._by_label[kind, namespace, key, value] for key, value in labels.items()), key=len)
        objects: dict[Place, R] = self._objects[kind]
        candidates = (objects[namespace, name] for name in sorted(rarest))
        return [resource for resource in candidates if matches(labels, resource.metadata.labels)]

    def services_selecting(self, namespace: str, labels: Mapping[str, str]) -> Sequence[Service]:
        """See :class:`Reader`."""
        names = {name for key, value in labels.items() for name in self._by_anchor[namespace, key, value]}
        candidates: list[Service] = [self._objects[Service][namespace, name] for name in sorted(names)]
        return [service for service in candidates if matches(service.spec.selector, labels)]

    def owned(self, uid: str) -> Sequence[Resource]:
        """See :class:`Reader`."""
        order = {kind.type: index for index, kind in enumerate(KINDS)}
        owned = sorted(self._by_owner[uid], key=lambda found: (order[found[0]], found[1]))
        return [self._objects[kind][place] for kind, place in owned]

    def put(self, resource: R) -> R:
        """See :class:`World`; a new uid is a hash of kind, namespace and name, and there are no versions or times."""
        kind, place, meta = type(resource), by_place(resource), resource.metadata
        old = self.get(kind, *place)
        stored = revise(
            resource,
            old,
            version="",
            uid=meta.uid or str(uuid.UUID(bytes=_hash(f"uid/{kind.__name__}/{'/'.join(place)}")[:16])),
            created=meta.creation_timestamp,
        )
        if old is not stored:
            if old:
                self._forget(old)
            self._objects[kind][place] = stored
            if isinstance(stored, Service) and stored.spec.selector:
                # A Service is found by one pair of its selector, the rarest so far: what all share costs nothing.
                pairs = [(place[0], key, value) for key, value in sorted(stored.spec.selector.items())]
                self._anchors[place] = min(pairs, key=lambda pair: len(self._by_anchor[pair]))
            for entries, entry in self._entries(stored):
                entries[entry] = None
        return stored

    def remove(self, resource: Resource) -> None:
        """See :class:`World`."""
        old = self.get(type(resource), *by_place(resource))
        if old:
            self._forget(old)
            del self._objects[type(old)][by_place(old)]
            if isinstance(old, Service):
                for address in addresses_of(old):
                    self.release(canonical(address) or address)

    def claim(self, address: str, service: Service) -> bool:
        """See :class:`~svcnat.controllers.allocation.Pool`."""
        return self._holders.setdefault(address, by_place(service)) == by_place(service)

    def release(self, address: str) -> None:
        """See :class:`~svcnat.controllers.allocation.Pool`."""
        self._holders.pop(address, None)

    def draw(self, seed: str, bound: int) -> int:
        """See :class:`~svcnat.controllers.allocation.Pool`: a hash of the seed."""
        return int.from_bytes(_hash(seed), "big") % bound

    def _forget(self, resource: Resource) -> None:
        for entries, entry in self._entries(resource):
            del entries[entry]
        if isinstance(resource, Service):
            self._anchors.pop(by_place(resource), None)

    def _entries(self, resource: Resource) -> Iterable[tuple[dict[Any, None], Any]]:
        """Yield the places where the indexes mention an object."""
        kind, (namespace, name) = type(resource), by_place(resource)
        for key, value in resource.metadata.labels.items():
            yield self._by_label[kind, namespace, key, value], name
        for uid in {reference.uid for reference in resource.metadata.owner_references}:
            yield self._by_owner[uid], (kind, (namespace, name))
        if isinstance(resource, Service) and (anchor := self._anchors.get((namespace, name))):
            yield self._by_anchor[anchor], name


def _hash(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()

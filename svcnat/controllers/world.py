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

from svcnat.controllers.allocation import allocate
from svcnat.controllers.claims import Claim, Pool, balancer_ip, claims_of, is_waiting
from svcnat.controllers.ranges import NODE_PORTS, SERVICE_CIDRS, Ranges
from svcnat.controllers.revision import revise
from svcnat.errors import Finding, ManifestError
from svcnat.model.defaults import with_defaults
from svcnat.model.kinds import KINDS
from svcnat.model.objects import Resource, Service
from svcnat.model.selectors import matches

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

    ``ranges`` are where new addresses and node ports come from.
    """

    ranges: Ranges

    def put(self, resource: R) -> R:
        """Write an object and return it as stored; one that differs in nothing is left alone."""
        ...

    def remove(self, resource: Resource) -> None:
        """Delete the object of this kind, namespace and name, and release what it held."""
        ...

    def waiting(self) -> Sequence[Service]:
        """Return the Services that wait for a load balancer's address; by index, sorted by namespace and name."""
        ...


def by_place(resource: Resource) -> Place:
    """Return namespace and name, the order in which Worlds list."""
    return resource.metadata.namespace, resource.metadata.name


class MemoryWorld:
    """A World without clock, randomness or file: what it holds follows from what it was given, in any order."""

    def __init__(self, ranges: Ranges) -> None:
        self.ranges = ranges
        self._objects: dict[type[Resource], dict[Place, Any]] = {kind.type: {} for kind in KINDS}
        self._by_label: defaultdict[tuple[type[Resource], str, str, str], dict[str, None]] = defaultdict(dict)
        self._by_owner: defaultdict[str, dict[tuple[type[Resource], Place], None]] = defaultdict(dict)
        self._by_anchor: defaultdict[Pair, dict[str, None]] = defaultdict(dict)
        self._anchors: dict[Place, Pair] = {}
        self._waiting: dict[Place, None] = {}
        self._holders: dict[Claim, Place] = {}
        self._held: defaultdict[Place, set[Claim]] = defaultdict(set)

    @classmethod
    def of(
        cls,
        resources: Iterable[Resource],
        service_cidrs: Iterable[str] = SERVICE_CIDRS,
        *,
        node_ports: range = NODE_PORTS,
        load_balancer_pool: Iterable[str] = (),
    ) -> MemoryWorld:
        """Return a world of `resources`, with defaults, addresses and node ports; the controllers have not run yet.

        What somebody asks for is given first, then the rest in the order of namespace and name.

        Raises:
            UsageError: a range is none.
            ManifestError: requests collide or lie outside the ranges; it holds every such finding.
            ExhaustedError: a range is full.

        """
        world = cls(Ranges.of(service_cidrs, node_ports, load_balancer_pool))
        complete = sorted((with_defaults(resource) for resource in resources), key=by_place)
        services = [resource for resource in complete if isinstance(resource, Service)]
        for service in services:
            for claim in claims_of(service):
                world.claim(claim, service)
        for service in services:
            asked = service.spec.load_balancer_ip
            if asked and is_waiting(service):
                world.claim(balancer_ip(asked), service)
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
            for claim in self._held.pop(by_place(old), ()) if isinstance(old, Service) else ():
                del self._holders[claim]

    def waiting(self) -> Sequence[Service]:
        """See :class:`World`."""
        return [self._objects[Service][place] for place in sorted(self._waiting)]

    def claim(self, claim: Claim, service: Service) -> bool:
        """See :class:`~svcnat.controllers.claims.Pool`."""
        place = by_place(service)
        if self._holders.setdefault(claim, place) != place:
            return False
        self._held[place].add(claim)
        return True

    def release(self, claim: Claim, service: Service) -> None:
        """See :class:`~svcnat.controllers.claims.Pool`."""
        place = by_place(service)
        if self._holders.get(claim) == place:
            del self._holders[claim]
            self._held[place].discard(claim)

    def draw(self, seed: str, bound: int) -> int:
        """See :class:`~svcnat.controllers.claims.Pool`: a hash of the seed."""
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
        if isinstance(resource, Service):
            if anchor := self._anchors.get((namespace, name)):
                yield self._by_anchor[anchor], name
            if is_waiting(resource):
                yield self._waiting, (namespace, name)


def _hash(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()

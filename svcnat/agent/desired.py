"""The objects that an agent follows, in memory: what rules and probes are made from, and what a change touches.

It decides nothing, and reads no file and no kernel: :mod:`svcnat.agent.sources` feeds it.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from svcnat.model.labels import SERVICE_LABEL, ZONE_LABEL
from svcnat.model.objects import EndpointSlice, Node, Pod, Resource, Service

Identity = tuple[str, str]
"""Namespace and name of a Service."""
Deleted = tuple[type[Resource], str, str]
"""Kind, namespace and name of what is gone."""

_TO_BE_DELETED = "ToBeDeletedByClusterAutoscaler"

KINDS: tuple[type[Resource], ...] = (Service, EndpointSlice, Node, Pod)
"""The kinds that an agent looks at."""


@dataclass(slots=True)
class Touched:
    """What changes touched: Services whose rules may differ, Nodes whose zone may, and which Pods did."""

    services: set[Identity] = field(default_factory=set)
    nodes: set[str] = field(default_factory=set)
    pods: set[Identity] = field(default_factory=set)

    def __bool__(self) -> bool:
        return bool(self.services or self.nodes or self.pods)

    def __or__(self, other: Touched) -> Touched:
        return Touched(self.services | other.services, self.nodes | other.nodes, self.pods | other.pods)


class Desired:
    """Services with their EndpointSlices, Nodes' zones, and the Pods."""

    def __init__(self) -> None:
        self.services: dict[Identity, Service] = {}
        self.pods: dict[Identity, Pod] = {}
        self.leaving: set[str] = set()
        """The Nodes that are about to go, and so are to get no more clients from load balancers."""
        self._zones: dict[str, str] = {}
        self._slices: dict[Identity, dict[str, EndpointSlice]] = {}
        # Where a slice was: its label may name another Service now, or it may be gone.
        self._homes: dict[Identity, Identity] = {}

    def slices_of(self, service: Identity) -> Sequence[EndpointSlice]:
        """The EndpointSlices that name a Service, in no order."""
        return tuple(self._slices.get(service, {}).values())

    def slices(self) -> Iterator[EndpointSlice]:
        """The EndpointSlices of all Services."""
        return itertools.chain.from_iterable(found.values() for found in self._slices.values())

    def zone_of(self, node: str) -> str:
        """The zone that a Node's label names; "" if there is none."""
        return self._zones.get(node, "")

    def update(self, deleted: Iterable[Deleted], written: Iterable[Resource]) -> Touched:
        """Take over changes: first what is gone, then what is there now; the answer is what may differ for it."""
        touched = Touched()
        for kind, namespace, name in deleted:
            self._remove(kind, (namespace, name), touched)
        for resource in written:
            self._put(resource, touched)
        return touched

    def replace(self, resources: Iterable[Resource]) -> Touched:
        """Hold exactly these objects; the answer is what differs."""
        new = Desired()
        new.update((), resources)
        touched = Touched(
            {
                each
                for each in self.services.keys() | new.services.keys()
                if self.services.get(each) != new.services.get(each)
            }
            | {each for each in self._slices.keys() | new._slices.keys() if self._differ(new, each)},
            {each for each in self._zones.keys() | new._zones.keys() if self.zone_of(each) != new.zone_of(each)},
            {each for each in self.pods.keys() | new.pods.keys() if self.pods.get(each) != new.pods.get(each)},
        )
        self.services, self.pods = new.services, new.pods
        self._zones, self._slices, self._homes = new._zones, new._slices, new._homes
        self.leaving = new.leaving
        return touched

    def _differ(self, other: Desired, service: Identity) -> bool:
        return self._slices.get(service, {}) != other._slices.get(service, {})

    def _put(self, resource: Resource, touched: Touched) -> None:
        place = (resource.metadata.namespace, resource.metadata.name)
        match resource:
            case Service():
                self.services[place] = resource
                touched.services.add(place)
            case EndpointSlice():
                self._remove(EndpointSlice, place, touched)
                if name := resource.metadata.labels.get(SERVICE_LABEL):
                    home = (place[0], name)
                    self._slices.setdefault(home, {})[place[1]] = resource
                    self._homes[place] = home
                    touched.services.add(home)
            case Node():
                self._zones[place[1]] = resource.metadata.labels.get(ZONE_LABEL, "")
                touched.nodes.add(place[1])
                (self.leaving.add if _leaves(resource) else self.leaving.discard)(place[1])
            case Pod():
                self.pods[place] = resource
                touched.pods.add(place)

    def _remove(self, kind: type[Resource], place: Identity, touched: Touched) -> None:
        if kind is Service and place in self.services:
            del self.services[place]
            touched.services.add(place)
        elif kind is EndpointSlice and place in self._homes:
            home = self._homes.pop(place)
            del self._slices[home][place[1]]
            if not self._slices[home]:
                del self._slices[home]
            touched.services.add(home)
        elif kind is Node and place[1] in self._zones:
            del self._zones[place[1]]
            self.leaving.discard(place[1])
            touched.nodes.add(place[1])
        elif kind is Pod and place in self.pods:
            del self.pods[place]
            touched.pods.add(place)


def _leaves(node: Node) -> bool:
    """True of a Node that is being deleted, or has the cluster autoscaler's taint for that (KEP-3836)."""
    taints = node.spec.taints if isinstance(node.spec.taints, list) else []
    tainted = any(isinstance(each, dict) and each.get("key") == _TO_BE_DELETED for each in taints)
    return tainted or node.metadata.deletion_timestamp is not None

"""Which kinds there are, what people call them, and how an object becomes text and back.

Their order is that of ``get all`` and of every walk over all objects. This module knows nothing of files or stores.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgspec

from svcnat.model import objects


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of object; ``group_version`` is the ``apiVersion`` of its manifests."""

    name: str
    plural: str
    short: tuple[str, ...]
    group_version: str
    namespaced: bool
    type: type[objects.Resource]

    @property
    def singular(self) -> str:
        """``service``: what ``TYPE/NAME`` prints."""
        return self.name.lower()

    @property
    def qualified(self) -> str:
        """``deployment.apps``: the singular with the API group, as kubectl prints it in messages."""
        return f"{self.singular}{self._suffix}"

    def quote(self, name: str) -> str:
        """``deployments.apps "web"``: an object of this kind, as errors name it."""
        return f'{self.plural}{self._suffix} "{name}"'

    @property
    def _suffix(self) -> str:
        group, slash, _ = self.group_version.partition("/")
        return f".{group}" if slash else ""


KINDS: tuple[Kind, ...] = (
    Kind("Namespace", "namespaces", ("ns",), "v1", namespaced=False, type=objects.Namespace),
    Kind("Node", "nodes", ("no",), "v1", namespaced=False, type=objects.Node),
    Kind("Pod", "pods", ("po",), "v1", namespaced=True, type=objects.Pod),
    Kind("Service", "services", ("svc",), "v1", namespaced=True, type=objects.Service),
    Kind("DaemonSet", "daemonsets", ("ds",), "apps/v1", namespaced=True, type=objects.DaemonSet),
    Kind("Deployment", "deployments", ("deploy",), "apps/v1", namespaced=True, type=objects.Deployment),
    Kind("ReplicaSet", "replicasets", ("rs",), "apps/v1", namespaced=True, type=objects.ReplicaSet),
    Kind("StatefulSet", "statefulsets", ("sts",), "apps/v1", namespaced=True, type=objects.StatefulSet),
    Kind("ControllerRevision", "controllerrevisions", (), "apps/v1", namespaced=True, type=objects.ControllerRevision),
    Kind("Endpoints", "endpoints", ("ep",), "v1", namespaced=True, type=objects.Endpoints),
    Kind("EndpointSlice", "endpointslices", (), "discovery.k8s.io/v1", namespaced=True, type=objects.EndpointSlice),
    Kind("ConfigMap", "configmaps", ("cm",), "v1", namespaced=True, type=objects.ConfigMap),
    Kind("Secret", "secrets", (), "v1", namespaced=True, type=objects.Secret),
    Kind("Event", "events", ("ev",), "v1", namespaced=True, type=objects.Event),
)

BY_NAME: dict[str, Kind] = {kind.name: kind for kind in KINDS}
_BY_TYPE: dict[type, Kind] = {kind.type: kind for kind in KINDS}
_BY_WORD: dict[str, Kind] = {
    word: kind for kind in KINDS for word in (kind.singular, kind.plural, kind.qualified, *kind.short)
}


def find(word: str) -> Kind | None:
    """The kind that a person means by `word`: singular, plural or short name, in any case; None if there is none."""
    return _BY_WORD.get(word.lower())


def kind_of(resource: objects.Resource) -> Kind:
    """The kind of an object."""
    return _BY_TYPE[type(resource)]


def subject(resource: objects.Resource) -> str:
    """How findings name an object: ``Service default/back-end``."""
    meta = resource.metadata
    return f"{kind_of(resource).name} {'/'.join(filter(None, (meta.namespace, meta.name)))}"


def to_document(resource: objects.Resource) -> dict[str, Any]:
    """The object as a manifest would have it: plain values, keys sorted as kubectl prints them."""
    kind = kind_of(resource)
    body: dict[str, Any] = msgspec.to_builtins(resource)
    return {"apiVersion": kind.group_version, "kind": kind.name, **dict(sorted(body.items()))}


def from_document(document: dict[str, Any]) -> objects.Resource:
    """The object of a document that :mod:`svcnat.model.validation` passed (unknown fields are dropped).

    Raises:
        msgspec.ValidationError: the document was never validated.

    """
    return msgspec.convert(document, BY_NAME[document["kind"]].type)

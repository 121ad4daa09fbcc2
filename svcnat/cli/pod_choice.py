"""Which pod of which lab a person means: by its name, or as one of those that a Service or a workload selects.

Source: kubectl's ``polymorphichelpers`` (AttachablePodForObject): of several pods, one that is ready.
"""

from __future__ import annotations

from svcnat.cli.terminal import say
from svcnat.errors import LabError, NotFoundError, UsageError
from svcnat.model import kinds
from svcnat.model.kinds import Kind
from svcnat.model.objects import DaemonSet, Deployment, Pod, ReplicaSet, Resource, Service, StatefulSet
from svcnat.model.pods import has_ended, is_ready
from svcnat.model.selectors import Selector, matches
from svcnat.store.snapshot import Snapshot


def choose(word: str, namespace: str, lab: str | None) -> tuple[str, str]:
    """The lab and the name of what a word means: POD, pod/POD, TYPE/NAME; whatever else has a name in a lab stays.

    Without a `lab` every one is searched.

    Raises:
        LabError: no lab, or more than one, has such a thing.
        NotFoundError: there is no such object, or it has no pods.
        UsageError: the type has no pods.

    """
    first, slash, name = word.partition("/")
    kind = kinds.find(first) if slash else None
    if kind is None:
        return lab or lab_with(word, namespace), word
    if kind.type is Pod:
        return lab or lab_with(name, namespace), name
    if not issubclass(kind.type, Service | Deployment | ReplicaSet | StatefulSet | DaemonSet):
        raise UsageError(f"{kind.plural} have no pods")
    return _of_selected(kind, name, namespace, lab)


def _of_selected(kind: Kind, name: str, namespace: str, lab: str | None) -> tuple[str, str]:
    from svcnat.lab.labs import Lab
    from svcnat.lab.listing import running

    having: dict[str, list[Pod]] = {}
    for each in [lab] if lab else running():
        with Lab.open(each) as opened, opened.store.read() as snapshot:
            resource = snapshot.get(kind.type, namespace, name)
            if resource is not None:
                having[each] = _selected(snapshot, resource)
    if not having:
        raise NotFoundError(f"{kind.quote(name)} not found")
    (lab, pods), *others = having.items()
    if others:
        raise LabError(f"several labs have {kind.singular}/{name}: say --lab {lab} or another of {', '.join(having)}")
    if not pods:
        raise NotFoundError(f"{kind.singular}/{name} has no pods that run")
    if len(pods) > 1:
        say(f"Found {len(pods)} pods, using pod/{pods[0].metadata.name}")
    return lab, pods[0].metadata.name


def _selected(snapshot: Snapshot, resource: Resource) -> list[Pod]:
    """The pods that an object selects and that have not ended, ready ones first."""
    pods = [pod for pod in snapshot.list(Pod, resource.metadata.namespace) if not has_ended(pod)]
    if isinstance(resource, Service):
        wanted = resource.spec.selector
        pods = [pod for pod in pods if wanted and matches(wanted, pod.metadata.labels)]
    elif isinstance(resource, Deployment | ReplicaSet | StatefulSet | DaemonSet) and resource.spec.selector:
        selector = Selector.of(resource.spec.selector)
        pods = [pod for pod in pods if selector.matches(pod.metadata.labels)]
    return sorted(pods, key=lambda pod: not is_ready(pod))


def lab_with(where: str, namespace: str) -> str:
    """The one lab that has something called `where`."""
    from svcnat.lab.labs import Lab
    from svcnat.lab.listing import running

    found: list[str] = []
    up = running()
    for name in up:
        with Lab.open(name) as lab:
            if lab.has(where, namespace):
                found.append(name)
    if len(found) == 1:
        return found[0]
    if found:
        raise LabError(f"several labs have a {where!r}: say --lab {found[0]} or another of {', '.join(found)}")
    raise LabError(f"no lab has a {where!r}" if up else "no lab is up: `svcnat lab up` builds one")

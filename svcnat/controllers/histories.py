"""The templates that a StatefulSet or DaemonSet has and had, as ControllerRevisions.

A Deployment's history are its ReplicaSets. Source: kube-controller-manager's ``history`` package.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any

import msgspec
from msgspec.structs import replace

from svcnat.controllers.members import controlled, controlled_by, template_hash
from svcnat.controllers.world import Change, World
from svcnat.model.defaults import template_with_defaults
from svcnat.model.labels import REVISION_LABEL
from svcnat.model.objects import ControllerRevision, ObjectMeta, PodTemplateSpec, Resource


@dataclass(frozen=True, slots=True)
class History:
    """The revisions, the oldest first; the last is that of the present template."""

    revisions: Sequence[ControllerRevision]

    @property
    def update(self) -> ControllerRevision:
        """The revision of the present template."""
        return self.revisions[-1]

    def find(self, name: str) -> ControllerRevision:
        """Return the revision of a name; the last one if there is none."""
        return next((each for each in self.revisions if each.metadata.name == name), self.update)


def keep(world: World, owner: Resource, template: PodTemplateSpec) -> tuple[History, list[Change]]:
    """Return the history of an owner with its present template as the last revision, which it writes if need be."""
    template = template_with_defaults(template)
    past = revisions_of(controlled(world, owner, ControllerRevision))
    last = past[-1].revision or 0 if past else 0
    same = next((each for each in reversed(past) if template_of(each) == template), None)
    if same is None:
        new = _make(world, owner, template, last + 1)
        return History([*past, new]), [Change(None, new)]
    if same is past[-1]:
        return History(past), []
    again = world.put(replace(same, revision=last + 1))
    return History([*(each for each in past if each is not same), again]), [Change(same, again)]


def forget(world: World, history: History, used: Collection[str], limit: int | None) -> list[Change]:
    """Delete the oldest revisions beyond `limit` whose names are not `used`."""
    idle = [each for each in history.revisions[:-1] if each.metadata.name not in used]
    gone = idle[: max(len(idle) - (10 if limit is None else limit), 0)]
    for each in gone:
        world.remove(each)
    return [Change(each, None) for each in gone]


def revisions_of(found: Sequence[ControllerRevision]) -> list[ControllerRevision]:
    """Sort revisions, the oldest first."""
    return sorted(found, key=lambda each: (each.revision or 0, each.metadata.name))


def template_of(revision: ControllerRevision) -> PodTemplateSpec | None:
    """Return the template that a revision holds; None if somebody wrote something else there."""
    try:
        template: Any = {**revision.data["spec"]["template"]}
        template.pop("$patch", None)
        return template_with_defaults(msgspec.convert(template, PodTemplateSpec))
    except (TypeError, KeyError, msgspec.ValidationError):
        return None


def _make(world: World, owner: Resource, template: PodTemplateSpec, number: int) -> ControllerRevision:
    meta = owner.metadata
    for attempt in count():
        digest = template_hash(template, attempt)
        name = f"{meta.name}-{digest}"
        if world.get(ControllerRevision, meta.namespace, name) is None:
            break
    return world.put(
        ControllerRevision(
            metadata=ObjectMeta(
                name=name,
                namespace=meta.namespace,
                labels={**template.metadata.labels, REVISION_LABEL: digest},
                owner_references=[controlled_by(owner)],
            ),
            data={"spec": {"template": {**msgspec.to_builtins(template), "$patch": "replace"}}},
            revision=number,
        )
    )

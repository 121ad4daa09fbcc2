"""What a Cluster can do to objects that are there, each named by type, namespace and name.

What becomes of an object is decided by the controllers that these methods call.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from svcnat.agent.report import Report
from svcnat.controllers.editing import rewritten
from svcnat.controllers.exposing import Exposure, exposed
from svcnat.controllers.legacy import derived_one
from svcnat.controllers.marking import Marks, annotated, labelled
from svcnat.controllers.node_lifecycle import with_scheduling
from svcnat.controllers.patching import patched
from svcnat.controllers.rollbacks import paused, resumed, rolled_back
from svcnat.controllers.scaling import restarted, scaled
from svcnat.errors import ConflictError, NotFoundError
from svcnat.model.kinds import BY_NAME
from svcnat.model.objects import Endpoints, Namespace, Node, ObjectMeta, Resource
from svcnat.store.transaction import Outcome, Transaction, require_version

Place = tuple[type[Resource], str, str]
"""Type, namespace and name of an object."""


@dataclass(frozen=True, slots=True)
class Changed:
    """What a change did to the objects, in the order asked for, and then to the rules of each target."""

    outcomes: tuple[Outcome, ...]
    reports: tuple[Report, ...]


class Edits:
    """The half of :class:`~svcnat.api.cluster.Cluster` that changes objects which are there."""

    def label(
        self,
        wanted: Iterable[Place],
        labels: Marks,
        *,
        overwrite: bool = False,
        version: str = "",
        dry_run: bool = False,
    ) -> Changed:
        """Set labels of objects, named as (type, namespace, name); None removes one.

        Raises:
            NotFoundError: one does not exist; nothing was labelled.
            ConflictError: a label has another value and `overwrite` is False, or an object is not of the `version`.
            ManifestError: a label is not well formed.

        """
        return self._edit(
            wanted,
            lambda _, resource: labelled(resource, labels, overwrite=overwrite),
            version=version,
            dry_run=dry_run,
        )

    def annotate(
        self,
        wanted: Iterable[Place],
        annotations: Marks,
        *,
        overwrite: bool = False,
        version: str = "",
        dry_run: bool = False,
    ) -> Changed:
        """Set annotations of objects, named as (type, namespace, name); None removes one.

        The rules follow those of svcnat: ``svcnat.io/weight: "0"`` drains a Pod.

        Raises:
            NotFoundError: one does not exist; nothing was annotated.
            ConflictError: one is there already and `overwrite` is False, or an object is not of the `version`.
            ManifestError: an annotation is not well formed, or means nothing on that kind.

        """
        return self._edit(
            wanted,
            lambda _, resource: annotated(resource, annotations, overwrite=overwrite),
            version=version,
            dry_run=dry_run,
        )

    def scale(
        self,
        wanted: Iterable[Place],
        replicas: int,
        *,
        current: int | None = None,
        dry_run: bool = False,
    ) -> Changed:
        """Give objects, named as (type, namespace, name), so many replicas, if they have `current` ones.

        Raises:
            NotFoundError: one does not exist; nothing was scaled.
            ConflictError: one has another number of replicas than `current`.
            UsageError: one is of a kind that has none.

        """
        return self._edit(wanted, lambda _, resource: scaled(resource, replicas, current), dry_run=dry_run)

    def restart(self, wanted: Iterable[Place], now: str, *, dry_run: bool = False) -> Changed:
        """Have all Pods of objects, named as (type, namespace, name), made anew as a rollout; `now` is RFC 3339.

        Raises:
            NotFoundError: one does not exist; nothing was restarted.
            ConflictError: one is paused, or was restarted at that time already.
            UsageError: one is of a kind that has no rollouts.

        """
        return self._edit(wanted, lambda _, resource: restarted(resource, now), dry_run=dry_run)

    def patch(
        self,
        wanted: Iterable[Place],
        patch: dict[str, Any] | list[Any],
        *,
        strategic: bool = True,
        status: bool = False,
        dry_run: bool = False,
    ) -> Changed:
        """Change fields of objects, named as (type, namespace, name), by a strategic or merge patch.

        A list is a JSON patch (RFC 6902), of which either all operations succeed or none is done. With `status`
        nothing else changes; without, the status does, too, if the patch says so.

        Raises:
            NotFoundError: one does not exist; nothing was changed.
            ManifestError: what the patch makes of one is wrong, or an operation fails.
            UsageError: a directive of the patch is not supported, or no operation, or a kind has no status.

        """
        return self._edit(
            wanted, lambda _, resource: patched(resource, patch, strategic=strategic, status=status), dry_run=dry_run
        )

    def rewrite(self, edited: Iterable[tuple[Resource, Resource]], *, dry_run: bool = False) -> Changed:
        """Put objects as somebody edited them in the place of those that he was shown: pairs of before and after.

        Whatever happened to their status meanwhile stays, unless that was edited.

        Raises:
            NotFoundError: one does not exist any more; nothing was changed.
            ConflictError: something else than its status was changed meanwhile.
            ManifestError: one is wrong.

        """
        pairs = {_place(before): (before, after) for before, after in edited}
        return self._edit(pairs, lambda _, live: rewritten(live, *pairs[_place(live)]), dry_run=dry_run)

    def expose(self, wanted: Iterable[Place], exposure: Exposure, *, dry_run: bool = False) -> Changed:
        """Create a Service for each Pod, Service, Deployment or ReplicaSet, named as (type, namespace, name).

        Raises:
            NotFoundError: one does not exist; nothing was created.
            ConflictError: there is a Service of that name.
            UsageError: one is of another kind, or it has no port or no selector, and `exposure` says none.
            ManifestError: the Service is wrong.

        """

        def run(transaction: Transaction) -> list[Outcome]:
            return [transaction.create(exposed(_live(transaction, place), exposure)) for place in wanted]

        return self._change(run, dry_run=dry_run)

    def pause(self, wanted: Iterable[Place], *, dry_run: bool = False) -> Changed:
        """Have the templates of Deployments, named as (type, namespace, name), change without consequence for now.

        Raises:
            NotFoundError: one does not exist; nothing was paused.
            ConflictError: one is paused.
            UsageError: one is no Deployment.

        """
        return self._edit(wanted, lambda _, resource: paused(resource), dry_run=dry_run)

    def resume(self, wanted: Iterable[Place], *, dry_run: bool = False) -> Changed:
        """Let the rollouts of paused Deployments, named as (type, namespace, name), go on; errors as :meth:`pause`."""
        return self._edit(wanted, lambda _, resource: resumed(resource), dry_run=dry_run)

    def undo(self, wanted: Iterable[Place], revision: int = 0, *, dry_run: bool = False) -> Changed:
        """Give objects, named as (type, namespace, name), the template of a `revision`, by default of the one before.

        Raises:
            NotFoundError: one does not exist, or has no such revision; nothing was changed.
            ConflictError: one is paused.
            UsageError: one is of a kind that has no rollouts.

        """
        return self._edit(
            wanted, lambda transaction, resource: rolled_back(transaction, resource, revision), dry_run=dry_run
        )

    def cordon(self, names: Iterable[str], *, unschedulable: bool = True) -> Changed:
        """Have no more Pods placed on nodes; or, if not `unschedulable`, have them placed there again.

        Raises:
            NotFoundError: one does not exist; nothing was changed.

        """
        places = [(Node, "", name) for name in names]
        return self._edit(places, lambda _, node: with_scheduling(node, unschedulable=unschedulable), dry_run=False)

    def _edit(
        self,
        wanted: Iterable[Place],
        edit: Callable[[Transaction, Resource], Resource],
        *,
        dry_run: bool,
        version: str = "",
    ) -> Changed:
        def run(transaction: Transaction) -> list[Outcome]:
            outcomes = []
            for place in wanted:
                live = _live(transaction, place)
                require_version(live, version)
                edited = edit(transaction, live)
                outcomes.append(Outcome(live, "unchanged") if edited is live else transaction.replace(edited))
            return outcomes

        return self._change(run, dry_run=dry_run)

    def _change(self, run: Callable[[Transaction], list[Outcome]], *, dry_run: bool) -> Changed:
        raise NotImplementedError


def _live(transaction: Transaction, place: Place) -> Resource:
    kind, namespace, name = place
    live = transaction.get(kind, namespace, name)
    if live is None and kind is Namespace and name in transaction.namespaces():
        # Nobody declared it, but it is there: what is said of it, it remembers.
        live = transaction.create(Namespace(metadata=ObjectMeta(name=name))).resource
    named = BY_NAME[kind.__name__].quote(name)
    if live is None and kind is Endpoints and derived_one(transaction, namespace, name):
        raise ConflictError(f"{named} is made from the endpoint slices of its service: change those, or their pods")
    if live is None:
        raise NotFoundError(f"{named} not found")
    return live


def _place(resource: Resource) -> Place:
    return type(resource), resource.metadata.namespace, resource.metadata.name

"""One command's changes to a state file: a World in SQL, and the verbs create, apply, replace, delete and set_status.

Nothing is committed here: :class:`svcnat.store.sqlite.Store` does that, after the controllers ran.
"""

from __future__ import annotations

import sqlite3
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal, TypeVar

import msgspec
from msgspec.structs import replace

from svcnat.controllers.admission import KUBERNETES, admit, keep_status, kubernetes_service
from svcnat.controllers.claims import Claim
from svcnat.controllers.merge import last_applied, three_way, with_last_applied
from svcnat.controllers.ranges import Ranges
from svcnat.controllers.react import react, serve_waiting
from svcnat.controllers.revision import revise
from svcnat.controllers.world import Change, by_place
from svcnat.errors import ConflictError, NotFoundError
from svcnat.model.defaults import with_defaults
from svcnat.model.kinds import BY_NAME, from_document, kind_of, to_document
from svcnat.model.objects import Event, Namespace, ObjectMeta, Pod, Resource, Service
from svcnat.model.pods import has_ended
from svcnat.store.index import index
from svcnat.store.snapshot import Snapshot

TOMBSTONES = 10_000
"""How many deletions a state file remembers, for those who ask what has changed."""

R = TypeVar("R", bound=Resource)
Action = Literal["created", "configured", "unchanged", "replaced", "deleted"]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a verb did: the object as it is now (or was, when deleted), and kubectl's word for it."""

    resource: Resource
    action: Action


class Transaction(Snapshot):
    """A World whose changes are not visible to others yet.

    The controllers run when the transaction ends, over all its changes at once; :meth:`settle` runs them earlier.
    """

    def __init__(
        self,
        connection: sqlite3.Connection,
        ranges: Ranges,
        clock: Callable[[], str],
        randbelow: Callable[[int], int],
        *,
        graceful: bool = False,
    ) -> None:
        super().__init__(connection)
        self._graceful = graceful
        self.ranges = ranges
        self._clock = clock
        self._randbelow = randbelow
        self._began_at = self.revision
        self._changes: list[Change] = []
        self._buried = False

    # --- the verbs -------------------------------------------------------------------------------------------

    def create(self, new: Resource | dict[str, Any]) -> Outcome:
        """Write a new object, given as such or as a validated document.

        Raises:
            ConflictError: there is one of that name.
            ManifestError: it is invalid, or asks for an address or node port that it cannot have.
            ExhaustedError: none is left.

        """
        resource = _resource(new)
        if live := self.get(type(resource), *by_place(resource)):
            going = "object is being deleted: " if live.metadata.deletion_timestamp else ""
            raise ConflictError(f"{going}{_named(resource)} already exists")
        return Outcome(self.put(self._leaving_as(None, admit(self, resource, None))), "created")

    def apply(self, document: dict[str, Any]) -> Outcome:
        """Make the object what a document says, as kubectl does: see :mod:`svcnat.controllers.merge`.

        Raises:
            ConflictError: the document names another resourceVersion than the object has.
            ManifestError: the result is invalid, or changes what may not change.
            ExhaustedError: no address or node port is left.

        """
        modified = with_last_applied(document)
        wanted = from_document(modified)
        live = self.get(type(wanted), *by_place(wanted))
        if live is None:
            return self.create(wanted)
        require_version(live, wanted.metadata.resource_version)
        before = to_document(live)
        merged = from_document(three_way(last_applied(before), modified, before))
        stored = self.put(self._leaving_as(live, admit(self, merged, live)))
        same = stored.metadata.resource_version == live.metadata.resource_version
        return Outcome(stored, "unchanged" if same else "configured")

    def replace(self, new: Resource | dict[str, Any]) -> Outcome:
        """Put an object, given as such or as a validated document, in the place of the one with its name.

        It keeps its addresses, node ports, node and status, unless the new one brings its own.

        Raises:
            NotFoundError: there is none.
            ConflictError: it names another resourceVersion than the object has.
            ManifestError: it is invalid, or changes what may not change.

        """
        resource = _resource(new)
        live = self._live(resource)
        require_version(live, resource.metadata.resource_version)
        admitted = admit(self, keep_status(resource, live), live)
        return Outcome(self.put(self._leaving_as(live, admitted)), "replaced")

    def delete(self, kind: type[Resource], namespace: str, name: str, grace: int | None = None) -> Outcome:
        """Delete an object; what belongs to it goes when the controllers run.

        Where somebody runs Pods, one terminates, in `grace` seconds instead of its own time; with 0 it goes at once.

        Raises:
            NotFoundError: there is none.
            ConflictError: it is the namespace ``default``.

        """
        wanted = kind(metadata=ObjectMeta(namespace=namespace if BY_NAME[kind.__name__].namespaced else "", name=name))
        if kind is Namespace and name == "default":
            raise ConflictError(f"{_named(wanted)} is forbidden: this namespace may not be deleted")
        if kind is Namespace and not self.get(kind, "", name) and name in self.namespaces():
            self._changes.append(Change(wanted, None))  # Nobody declared it, but it has objects.
            return Outcome(wanted, "deleted")
        live = self._live(wanted)
        if self._graceful and isinstance(live, Pod) and grace != 0:
            self._let_go(live, grace)
        else:
            self.purge(live)
        return Outcome(live, "deleted")

    def set_status(self, resource: Resource) -> Outcome:
        """Give the stored object the status of `resource`, and nothing else of it.

        Raises:
            NotFoundError: there is none.
            ConflictError: it is another object of the same name (its uid differs).

        """
        live: Any = self._live(resource)
        if resource.metadata.uid not in ("", live.metadata.uid):
            raise ConflictError(f"{_named(resource)} was deleted and made anew: its uid is {live.metadata.uid}")
        changed: Resource = replace(live, status=resource.status)  # type: ignore[attr-defined]
        # A load balancer's addresses are claims; a Pod's status, which is set most of all, is nobody else's business.
        stored = self.put(admit(self, changed, live) if isinstance(changed, Service) else with_defaults(changed))
        same = stored.metadata.resource_version == live.metadata.resource_version
        return Outcome(stored, "unchanged" if same else "configured")

    def settle(self) -> None:
        """Run the controllers over what has changed so far."""
        if self.get(Service, *KUBERNETES) is None:
            self.put(kubernetes_service(self))
        if self._pool_changed():
            serve_waiting(self)
        changes, self._changes = self._changes, []
        react(self, changes)
        self._changes.clear()  # What the controllers wrote, they have followed up themselves.

    def finish(self) -> None:
        """Run the controllers, and note the last resourceVersion given."""
        self.settle()
        if self._buried:
            self._forget_deletions()
        if self.revision != self._began_at:
            self._connection.execute("UPDATE meta SET value = ? WHERE key = 'revision'", (self.revision,))

    def _forget_deletions(self) -> None:
        """Keep the newest tombstones, and note since when all are there."""
        oldest = self._connection.execute(
            "SELECT revision FROM tombstones WHERE number <= (SELECT max(number) FROM tombstones) - ? "
            "ORDER BY number DESC LIMIT 1",
            (TOMBSTONES,),
        ).fetchone()
        if oldest:
            self._connection.execute("DELETE FROM tombstones WHERE revision <= ?", oldest)
            self._connection.execute("UPDATE meta SET value = ? WHERE key = 'pruned'", oldest)

    def _pool_changed(self) -> bool:
        """Tell whether those that wait for an address have not seen this pool yet; note that they have."""
        pool = repr([(each.first, each.last) for each in self.ranges.balancers])
        update = "UPDATE meta SET value = ? WHERE key = 'loadBalancerPool' AND value != ?"
        return bool(self._connection.execute(update, (pool, pool)).rowcount)

    def _live(self, resource: R) -> R:
        live = self.get(type(resource), *by_place(resource))
        if live is None:
            raise NotFoundError(f"{_named(resource)} not found")
        return live

    # --- the writing half of a World -------------------------------------------------------------------------

    def put(self, resource: R) -> R:
        """Write an object and return it as stored; one that differs in nothing is left alone."""
        place = by_place(resource)
        found = self._find(type(resource), *place)
        old = found[1] if found else None
        stored = revise(resource, old, version=str(self.revision + 1), uid=str(uuid.uuid4()), created=self._clock())
        if stored is old:
            return stored
        self.revision += 1
        body = msgspec.json.encode(stored)
        if found:
            row = found[0]
            self._connection.execute(
                "UPDATE objects SET resource_version = ?, body = ? WHERE id = ?", (self.revision, body, row)
            )
        else:
            row = (
                self._connection.execute(
                    "INSERT INTO objects (kind, namespace, name, resource_version, body) VALUES (?, ?, ?, ?, ?)",
                    (type(stored).__name__, *place, self.revision, body),
                ).lastrowid
                or 0
            )
        index(self._connection, row, old, stored)
        if not isinstance(stored, Event):  # Nothing follows from one.
            self._changes.append(Change(old, stored))
        return stored

    def remove(self, resource: Resource) -> None:
        """Delete the object of this kind, namespace and name; a Pod that somebody runs terminates, and goes later."""
        if self._graceful and isinstance(resource, Pod):
            if live := self.get(Pod, *by_place(resource)):
                self._let_go(live, None)
        else:
            self.purge(resource)

    def _let_go(self, pod: Pod, grace: int | None) -> None:
        """Have a Pod terminate; nobody waits for one that was never started, or that has ended already.

        Source: ``CheckGracefulDelete`` of pkg/registry/core/pod of Kubernetes.
        """
        if not pod.spec.node_name or has_ended(pod):
            self.purge(pod)
            return
        meta, spec = pod.metadata, pod.spec
        if grace is None:
            given = spec.termination_grace_period_seconds
            grace = meta.deletion_grace_period_seconds if meta.deletion_timestamp else given
            grace = 30 if grace is None else grace
        if grace == 0:
            self.purge(pod)
            return
        if meta.deletion_timestamp and grace >= (meta.deletion_grace_period_seconds or 0):
            return
        end = datetime.fromisoformat(self._clock()) + timedelta(seconds=grace)
        times = {"deletion_timestamp": f"{end:%Y-%m-%dT%H:%M:%SZ}", "deletion_grace_period_seconds": grace}
        self.put(replace(pod, metadata=replace(meta, **times)))

    def _leaving_as(self, live: R | None, new: R) -> R:
        """A Pod that somebody runs, with the end of the one before: deleting begins it, and nothing undoes it."""
        if not (self._graceful and isinstance(new, Pod)):
            return new
        before = live.metadata if live else ObjectMeta()
        metadata = replace(
            new.metadata,
            deletion_timestamp=before.deletion_timestamp,
            deletion_grace_period_seconds=before.deletion_grace_period_seconds,
        )
        return replace(new, metadata=metadata)

    def purge(self, resource: Resource) -> None:
        """Delete the object of this kind, namespace and name at once, and release what it held."""
        place = by_place(resource)
        if found := self._find(type(resource), *place):
            row, old = found
            self._connection.execute("DELETE FROM objects WHERE id = ?", (row,))
            index(self._connection, row, old, None)
            if isinstance(old, Service):
                self._connection.execute("DELETE FROM claims WHERE namespace = ? AND name = ?", place)
            self.revision += 1
            if isinstance(old, Event):
                return  # Nothing follows from an Event, and nobody follows them.
            self._connection.execute(
                "INSERT INTO tombstones (revision, kind, namespace, name) VALUES (?, ?, ?, ?)",
                (self.revision, type(old).__name__, *place),
            )
            self._buried = True
            self._changes.append(Change(old, None))

    def forget_events(self, *, before: int, most: int) -> None:
        """Delete Events that happened last before a second of the epoch, and all but those that were written last."""
        rows = self._connection.execute(
            "SELECT objects.namespace, objects.name FROM events JOIN objects ON id = object WHERE seconds < ?1 "
            "OR events.revision <= (SELECT revision FROM events ORDER BY revision DESC LIMIT 1 OFFSET ?2)",
            (before, most),
        ).fetchall()
        for namespace, name in rows:
            self.purge(Event(metadata=ObjectMeta(namespace=namespace, name=name)))

    def waiting(self) -> Sequence[Service]:
        """Return the Services that wait for a load balancer's address, sorted by namespace and name."""
        query = "SELECT body FROM waiting JOIN objects USING (namespace, name) WHERE kind = 'Service'"
        return self._objects(Service, f"{query} ORDER BY namespace, name", ())

    def claim(self, claim: Claim, service: Service) -> bool:
        """Give an address or a node port to a Service; False if another one holds it."""
        place = by_place(service)
        self._connection.execute("INSERT OR IGNORE INTO claims VALUES (?, ?, ?, ?)", (*claim, *place))
        holder: tuple[str, str] = self._connection.execute(
            "SELECT namespace, name FROM claims WHERE kind = ? AND value = ?", claim
        ).fetchone()
        return holder == place

    def release(self, claim: Claim, service: Service) -> None:
        """Take it back, if the Service holds it."""
        self._connection.execute(
            "DELETE FROM claims WHERE kind = ? AND value = ? AND namespace = ? AND name = ?",
            (*claim, *by_place(service)),
        )

    def draw(self, seed: str, bound: int) -> int:  # noqa: ARG002 - only Worlds without randomness need the seed
        """Return a random number below `bound`."""
        return self._randbelow(bound)


def _named(resource: Resource) -> str:
    return kind_of(resource).quote(resource.metadata.name)


def _resource(new: Resource | dict[str, Any]) -> Resource:
    return from_document(new) if isinstance(new, dict) else new


def require_version(live: Resource, version: str) -> None:
    """Make sure that an object is of the resourceVersion that the caller has read; empty: whichever.

    Raises:
        ConflictError: it is of another one.

    """
    if version not in ("", live.metadata.resource_version):
        raise ConflictError(
            f"Operation cannot be fulfilled on {_named(live)}: the object has been modified; "
            "please apply your changes to the latest version and try again"
        )

"""The objects of a state file as they were at one moment: the reading half of a World, in SQL.

Every query is exhausted before it returns, or the write-ahead log could not shrink.
"""

from __future__ import annotations

import gc
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import TypeVar

import msgspec

from svcnat.model.kinds import BY_NAME, KINDS
from svcnat.model.objects import Event, Resource, Service
from svcnat.model.selectors import matches
from svcnat.store.connections import UndecodableError
from svcnat.store.index import digest

R = TypeVar("R", bound=Resource)


@dataclass(frozen=True, slots=True)
class Changes:
    """What happened up to `revision`, Events aside: first what was deleted, then what was written, is the present.

    `deleted` are (type, namespace, name); an object that was deleted and made again is in both. `written` holds each
    object once, as it is now, the one that was written last at the end.
    """

    revision: int
    written: tuple[Resource, ...]
    deleted: tuple[tuple[type[Resource], str, str], ...]


class Snapshot:
    """What one read transaction sees; ``revision`` is the last resourceVersion given."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        (revision,) = connection.execute("SELECT value FROM meta WHERE key = 'revision'").fetchone()
        self.revision = int(revision)

    def get(self, kind: type[R], namespace: str, name: str) -> R | None:
        """Return the object, or None."""
        found = self._find(kind, namespace, name)
        return found[1] if found else None

    def list(self, kind: type[R], namespace: str | None = None) -> Sequence[R]:
        """Return all objects of a kind, of one namespace or (None) of all, sorted by namespace and name."""
        if namespace is None:
            return self._objects(
                kind, "SELECT body FROM objects WHERE kind = ? ORDER BY namespace, name", (kind.__name__,)
            )
        return self._objects(
            kind,
            "SELECT body FROM objects WHERE kind = ? AND namespace = ? ORDER BY name",
            (kind.__name__, namespace),
        )

    def versions(self, kind: type[Resource]) -> Mapping[tuple[str, str], str]:
        """Return the resourceVersion of every object of a kind, by namespace and name, without reading the objects."""
        query = "SELECT namespace, name, resource_version FROM objects WHERE kind = ?"
        rows = self._connection.execute(query, (kind.__name__,)).fetchall()
        return {(namespace, name): str(version) for namespace, name, version in rows}

    def labelled(self, kind: type[R], namespace: str, labels: Mapping[str, str]) -> Sequence[R]:
        """Return the objects that have all of `labels`, sorted by name; it costs what the rarest label costs."""
        if not labels:
            return self.list(kind, namespace)
        pairs = [(kind.__name__, namespace, key, value) for key, value in labels.items()]
        rarest = self._rarest(pairs)
        found = self._objects(
            kind,
            "SELECT body FROM labels JOIN objects ON id = object WHERE labels.kind = ? AND labels.namespace = ? "
            "AND key = ? AND value = ? ORDER BY name",
            rarest,
        )
        return found if len(pairs) == 1 else [each for each in found if matches(labels, each.metadata.labels)]

    def services_selecting(self, namespace: str, labels: Mapping[str, str]) -> Sequence[Service]:
        """Return the Services whose selector holds for a Pod with `labels`, sorted by name."""
        found: list[Service] = []
        for key, value in labels.items():
            found += self._objects(
                Service,
                "SELECT body FROM anchors JOIN objects USING (namespace, name) "
                "WHERE kind = 'Service' AND namespace = ? AND key = ? AND value = ?",
                (namespace, key, value),
            )
        return sorted(
            (service for service in found if matches(service.spec.selector, labels)),
            key=lambda service: service.metadata.name,
        )

    def changes_since(self, revision: int) -> Changes | None:
        """Return what happened after an older snapshot of this file had `revision`; it costs what has changed.

        None means: read everything. So long ago that deletions have been forgotten, or a revision that this file never
        had, because another one (a backup) took its place.
        """
        (pruned,) = self._connection.execute("SELECT value FROM meta WHERE key = 'pruned'").fetchone()
        if not pruned <= revision <= self.revision:
            return None
        deleted = self._connection.execute(
            "SELECT kind, namespace, name FROM tombstones WHERE revision > ? ORDER BY revision", (revision,)
        ).fetchall()
        # The unary plus keeps SQLite from walking all objects by their kind.
        written = self._connection.execute(
            "SELECT kind, body FROM objects WHERE resource_version > ? AND +kind != 'Event' ORDER BY resource_version",
            (revision,),
        ).fetchall()
        with _uncollected():
            return Changes(
                self.revision,
                tuple(_decode(BY_NAME[kind].type, body) for kind, body in written),
                tuple(dict.fromkeys((BY_NAME[kind].type, namespace, name) for kind, namespace, name in deleted)),
            )

    def events_about(self, resource: Resource) -> Sequence[Event]:
        """Return the Events about an object, those of an older one of its name aside, in the order they were made."""
        metadata = resource.metadata
        found = self._objects(
            Event,
            "SELECT body FROM events JOIN objects ON id = object "
            "WHERE events.kind = ? AND events.namespace = ? AND events.name = ? ORDER BY id",
            (type(resource).__name__, metadata.namespace, metadata.name),
        )
        return [event for event in found if event.involved_object.uid in ("", metadata.uid)]

    def event_like(self, event: Event) -> Event | None:
        """Return the Event that tells the same of the same object by the same program and node, or None."""
        row = self._connection.execute(
            "SELECT body FROM events JOIN objects ON id = object WHERE digest = ? "
            "ORDER BY events.revision DESC LIMIT 1",
            (digest(event),),
        ).fetchone()
        return _decode(Event, row[0]) if row else None

    def owned(self, uid: str) -> Sequence[Resource]:
        """Return the objects that name `uid` among their ownerReferences, in the order of kinds, then by name."""
        rows = self._connection.execute(
            "SELECT kind, namespace, name, body FROM owners JOIN objects ON id = object WHERE uid = ?", (uid,)
        ).fetchall()
        order = {kind.name: index for index, kind in enumerate(KINDS)}
        rows.sort(key=lambda row: (order[row[0]], row[1], row[2]))
        return [_decode(BY_NAME[row[0]].type, row[3]) for row in rows]

    def namespaces(self) -> Sequence[str]:
        """Return every namespace that an object names or is, sorted: they exist by being named.

        By more than Events, that is: what happened there last outlives a namespace.
        """
        rows = self._connection.execute(
            "SELECT DISTINCT namespace FROM objects WHERE namespace != '' AND kind != 'Event' "
            "UNION SELECT name FROM objects WHERE kind = 'Namespace' ORDER BY 1"
        ).fetchall()
        return [namespace for (namespace,) in rows]

    def _find(self, kind: type[R], namespace: str, name: str) -> tuple[int, R] | None:
        row = self._connection.execute(
            "SELECT id, body FROM objects WHERE kind = ? AND namespace = ? AND name = ?",
            (kind.__name__, namespace, name),
        ).fetchone()
        return (row[0], _decode(kind, row[1])) if row else None

    def _objects(self, kind: type[R], query: str, parameters: tuple[str, ...]) -> Sequence[R]:
        rows = self._connection.execute(query, parameters).fetchall()
        with _uncollected():
            return [_decode(kind, body) for (body,) in rows]

    def _rarest(self, pairs: Sequence[tuple[str, str, str, str]]) -> tuple[str, str, str, str]:
        """Return the label that the fewest objects have, without counting the common ones to the end."""
        limit = 32 if len(pairs) > 1 else 0
        while limit:
            counts = {
                pair: self._connection.execute(
                    "SELECT count(*) FROM (SELECT 1 FROM labels "
                    "WHERE kind = ? AND namespace = ? AND key = ? AND value = ? LIMIT ?)",
                    (*pair, limit),
                ).fetchone()[0]
                for pair in pairs
            }
            rarest = min(pairs, key=counts.__getitem__)
            if counts[rarest] < limit:
                return rarest
            limit *= 8
        return pairs[0]


@contextmanager
def _uncollected() -> Iterator[None]:
    """Keep the garbage collector from walking a growing list of new values over and over: nine tenths of the time."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _decode(kind: type[R], body: bytes) -> R:
    try:
        decoded: R = _decoder(kind).decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise UndecodableError(f"it holds a {kind.__name__} that cannot be read: {error}") from error
    return decoded


@cache
def _decoder(kind: type[R]) -> msgspec.json.Decoder[R]:
    return msgspec.json.Decoder(kind)

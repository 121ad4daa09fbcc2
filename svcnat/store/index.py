"""By what objects are found: the tables beside that of the objects, kept as their objects are.

It decides nothing about objects and reads no body.
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

import msgspec

from svcnat.controllers.claims import is_waiting
from svcnat.controllers.world import by_place
from svcnat.model.objects import Event, Resource, Service


def index(connection: sqlite3.Connection, row: int, old: Resource | None, new: Resource | None) -> None:
    """Make the index say of an object what `new` says; None means that it is gone."""
    _difference(
        connection,
        "DELETE FROM labels WHERE kind = ? AND namespace = ? AND key = ? AND value = ? AND object = ?",
        "INSERT INTO labels VALUES (?, ?, ?, ?, ?)",
        _labels(row, old),
        _labels(row, new),
    )
    _difference(
        connection,
        "DELETE FROM owners WHERE uid = ? AND object = ?",
        "INSERT INTO owners VALUES (?, ?)",
        _owners(row, old),
        _owners(row, new),
    )
    _difference(
        connection,
        "DELETE FROM waiting WHERE namespace = ? AND name = ?",
        "INSERT INTO waiting VALUES (?, ?)",
        _waiting(old),
        _waiting(new),
    )
    if isinstance(old, Event):
        connection.execute("DELETE FROM events WHERE object = ?", (row,))
    if isinstance(new, Event):
        about = new.involved_object
        found = (about.kind, about.namespace, about.name, digest(new), seconds(new), int(new.metadata.resource_version))
        connection.execute("INSERT INTO events VALUES (?, ?, ?, ?, ?, ?, ?)", (row, *found))
    before = old.spec.selector if isinstance(old, Service) else {}
    after = new.spec.selector if isinstance(new, Service) else {}
    if before != after:
        place = by_place(new or old)  # type: ignore[arg-type]
        connection.execute("DELETE FROM anchors WHERE namespace = ? AND name = ?", place)
        if after:
            connection.execute(
                "INSERT INTO anchors VALUES (?, ?, ?, ?)", (*place, *_anchor(connection, place[0], after))
            )


def digest(event: Event) -> str:
    """Return what is equal for Events that tell the same."""
    about, source = event.involved_object, event.source
    key = [about.kind, about.namespace, about.name, about.uid, event.type, event.reason, event.message]
    return hashlib.sha256(msgspec.json.encode([*key, source.component, source.host])).hexdigest()[:32]


def seconds(event: Event) -> int:
    """Return when it happened last, in seconds of the epoch; 0 if nobody can tell."""
    last = event.series.last_observed_time if event.series else None
    text = last or event.last_timestamp or event.event_time or event.first_timestamp or ""
    try:
        time = datetime.fromisoformat(text or event.metadata.creation_timestamp or "")
        return int((time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp())
    except (ValueError, OverflowError):
        return 0


def _difference(
    connection: sqlite3.Connection, delete: str, insert: str, old: Iterable[Any], new: Iterable[Any]
) -> None:
    before, after = set(old), set(new)
    if before != after:
        connection.executemany(delete, before - after)
        connection.executemany(insert, after - before)


def _anchor(connection: sqlite3.Connection, namespace: str, selector: dict[str, str]) -> tuple[str, str]:
    """Return the pair of a selector that the fewest Services are found by, so that what all share costs nothing."""
    if len(selector) == 1:
        return next(iter(selector.items()))

    def found_by(pair: tuple[str, str]) -> int:
        (count,) = connection.execute(
            "SELECT count(*) FROM anchors WHERE namespace = ? AND key = ? AND value = ?", (namespace, *pair)
        ).fetchone()
        return int(count)

    return min(sorted(selector.items()), key=found_by)


def _labels(row: int, resource: Resource | None) -> Iterable[tuple[Any, ...]]:
    if resource is None:
        return ()
    meta = resource.metadata
    return ((type(resource).__name__, meta.namespace, key, value, row) for key, value in meta.labels.items())


def _owners(row: int, resource: Resource | None) -> Iterable[tuple[str, int]]:
    return ((reference.uid, row) for reference in resource.metadata.owner_references) if resource else ()


def _waiting(resource: Resource | None) -> Iterable[tuple[str, str]]:
    return (by_place(resource),) if isinstance(resource, Service) and is_waiting(resource) else ()

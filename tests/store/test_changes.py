"""What has changed since a revision: enough to keep a copy, at the price of the change."""

from __future__ import annotations

import contextlib
import sqlite3
import tempfile
from contextlib import closing
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from svcnat.errors import ManifestError
from svcnat.model.kinds import KINDS
from svcnat.model.objects import EndpointSlice, Event, Namespace, ObjectMeta, ObjectReference, Resource, Service
from svcnat.store.schema import MIGRATIONS, migrate
from svcnat.store.snapshot import Changes, Snapshot
from svcnat.store.sqlite import Store
from svcnat.store.transaction import TOMBSTONES
from tests.controllers.build import service
from tests.store.test_sequences import POOL, edit, edits


def revision(store: Store) -> int:
    with store.read() as snapshot:
        return snapshot.revision


def since(store: Store, before: int) -> Changes:
    with store.read() as snapshot:
        changes = snapshot.changes_since(before)
    assert changes is not None
    return changes


def test_nothing_has_changed(store: Store) -> None:
    """An empty answer is not None: nothing has to be read."""
    now = revision(store)
    assert since(store, now) == Changes(now, (), ())


def test_what_was_written_is_there_once_and_whole(store: Store) -> None:
    """As it is now, with all that follows from it; the last written comes last."""
    before = revision(store)
    with store.transaction() as transaction:
        transaction.create(service("a"))
        transaction.create(service("b"))
    with store.transaction() as transaction:
        transaction.replace(service("a", ports=(81,)))
    changes = since(store, before)
    assert changes.revision == revision(store)
    assert changes.deleted == ()
    assert [each.metadata.name for each in changes.written if isinstance(each, Service)] == ["b", "a"]
    assert len({(type(each), each.metadata.name) for each in changes.written}) == len(changes.written)
    with store.read() as snapshot:
        for each in changes.written:
            assert each == snapshot.get(type(each), each.metadata.namespace, each.metadata.name)


def test_what_was_deleted_leaves_its_name(store: Store) -> None:
    """Also what went because of it, and what was made and deleted in between."""
    with store.transaction() as transaction:
        transaction.create(service("a", selector={"app": "x"}))
    before = revision(store)
    with store.transaction() as transaction:
        slices = [each.metadata.name for each in transaction.list(EndpointSlice) if "a-" in each.metadata.name]
        transaction.delete(Service, "default", "a")
        transaction.create(service("b", selector={}))
    with store.transaction() as transaction:
        transaction.delete(Service, "default", "b")
    changes = since(store, before)
    assert changes.written == ()
    gone = {(kind.__name__, name) for kind, _, name in changes.deleted}
    assert slices
    assert gone == {("Service", "a"), ("Service", "b"), *(("EndpointSlice", name) for name in slices)}


def test_what_was_deleted_and_made_again_is_in_both(store: Store) -> None:
    """Deleted first, then written: the copy ends with the new one."""
    with store.transaction() as transaction:
        transaction.create(service("a"))
    before = revision(store)
    for _ in range(2):
        with store.transaction() as transaction:
            transaction.delete(Service, "default", "a")
        with store.transaction() as transaction:
            transaction.create(service("a"))
    changes = since(store, before)
    assert changes.deleted.count((Service, "default", "a")) == 1
    assert [each.metadata.name for each in changes.written if isinstance(each, Service)] == ["a"]


def test_a_dry_run_and_a_failure_change_nothing(store: Store) -> None:
    """Neither an object nor a tombstone."""
    with store.transaction() as transaction:
        transaction.create(service("a"))
    now = revision(store)
    with store.transaction(dry_run=True) as transaction:
        transaction.delete(Service, "default", "a")
    with contextlib.suppress(ZeroDivisionError), store.transaction() as transaction:
        transaction.delete(Service, "default", "a")
        raise ZeroDivisionError
    assert since(store, now) == Changes(now, (), ())


def test_events_are_nobodys_business(store: Store) -> None:
    """They come and go all the time, and nothing follows from them."""
    about = ObjectReference(kind="Service", namespace="default", name="a")
    event = Event(metadata=ObjectMeta(namespace="default", name="a.1"), involved_object=about)
    before = revision(store)
    with store.transaction() as transaction:
        transaction.create(event)
    assert revision(store) > before
    assert since(store, before) == Changes(revision(store), (), ())
    with store.transaction() as transaction:
        transaction.delete(Event, "default", "a.1")
    assert since(store, before) == Changes(revision(store), (), ())


def test_a_revision_of_another_file_is_none_of_this_one(store: Store) -> None:
    """Somebody restored a backup: there is nothing to go by."""
    with store.read() as snapshot:
        assert snapshot.changes_since(snapshot.revision + 1) is None
        assert snapshot.changes_since(-1) is None


def test_only_the_newest_deletions_are_remembered(store: Store) -> None:
    """And a copy that is older than those must be read anew."""
    with store.transaction() as transaction:
        for number in range(3):
            transaction.create(Namespace(metadata=ObjectMeta(name=f"n{number}")))
        filled = transaction._connection.execute("SELECT count(*) FROM tombstones").fetchone()[0]
        assert filled == 0
        first = transaction.revision
        transaction._connection.execute(
            "WITH RECURSIVE n(i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n WHERE i < ?) "
            "INSERT INTO tombstones (revision, kind, namespace, name) SELECT ? + i, 'Namespace', '', 'x' || i FROM n",
            (TOMBSTONES - 1, first),
        )
        transaction.revision += TOMBSTONES - 1
    full = revision(store)
    with store.transaction() as transaction:
        transaction.delete(Namespace, "", "n0")
    assert len(since(store, first).deleted) == TOMBSTONES
    with store.transaction() as transaction:
        transaction.delete(Namespace, "", "n1")
        transaction.delete(Namespace, "", "n2")
    with store.read() as snapshot:
        assert snapshot.changes_since(first) is None
        assert snapshot.changes_since(first + 1) is None
        oldest = snapshot.changes_since(first + 2)
        assert oldest
        assert len(oldest.deleted) == TOMBSTONES
        (count,) = snapshot._connection.execute("SELECT count(*) FROM tombstones").fetchone()
        assert count == TOMBSTONES
    assert [name for _, _, name in since(store, full).deleted] == ["n0", "n1", "n2"]


def test_an_older_file_knows_nothing_of_its_past(path: Path) -> None:
    """Deletions before it was converted left no trace: a copy of that time is read anew."""
    path.parent.mkdir()
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        migrate(connection, str(path), MIGRATIONS[:2])
        connection.execute("UPDATE meta SET value = 5 WHERE key = 'revision'")
    with Store.open(path) as store, store.read() as snapshot:
        assert snapshot.changes_since(4) is None
        changes = snapshot.changes_since(5)
        assert changes
        assert [each.metadata.name for each in changes.written] == ["kubernetes"]


def steps(snapshot: Snapshot, revision: int) -> int:
    """How many instructions of SQLite's machine an answer takes."""
    count = 0

    def tick() -> int:
        nonlocal count
        count += 1
        return 0

    snapshot._connection.set_progress_handler(tick, 1)
    assert snapshot.changes_since(revision)
    snapshot._connection.set_progress_handler(None, 0)
    return count


def test_the_cost_follows_the_change(store: Store) -> None:
    """Finding one change among thousands of objects takes what it takes among few."""
    counts = []
    for many in (10, 3000):
        with store.transaction() as transaction:
            for number in range(many):
                transaction.create(Namespace(metadata=ObjectMeta(name=f"n{many}-{number}")))
        before = revision(store)
        with store.transaction() as transaction:
            transaction.create(Namespace(metadata=ObjectMeta(name=f"new-{many}")))
            transaction.delete(Namespace, "", f"n{many}-0")
        with store.read() as snapshot:
            counts.append(steps(snapshot, before))
    assert counts[0] == counts[1]


def everything(snapshot: Snapshot) -> dict[Any, Resource]:
    return {
        (kind.type, each.metadata.namespace, each.metadata.name): each
        for kind in KINDS
        for each in snapshot.list(kind.type)
    }


@settings(max_examples=40, database=None)
@given(edits, st.data())
def test_a_copy_that_takes_over_changes_is_the_original(steps: Any, data: st.DataObject) -> None:
    """Whatever is done in between, and however seldom the copy asks."""
    with tempfile.TemporaryDirectory() as folder, Store.open(Path(folder, "s.db"), load_balancer_pool=POOL) as store:
        with store.read() as snapshot:
            copy, known = everything(snapshot), snapshot.revision
        for new, verb in steps:
            with contextlib.suppress(ManifestError):
                edit(store, new, verb)
            if data.draw(st.booleans()):
                continue
            with store.read() as snapshot:
                changes = snapshot.changes_since(known)
                assert changes
                for place in changes.deleted:
                    copy.pop(place, None)
                for each in changes.written:
                    copy[type(each), each.metadata.namespace, each.metadata.name] = each
                known = changes.revision
                assert copy == everything(snapshot)

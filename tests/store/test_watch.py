"""A watch tells of every commit and of another file at the path; an open store never mixes two files."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from svcnat.errors import StoreError
from svcnat.model.objects import Service
from svcnat.store.connections import Connected, file_id
from svcnat.store.sqlite import Store
from svcnat.store.watch import Watch
from tests.controllers.build import service
from tests.store.test_sqlite import as_nobody, create, shared

__all__ = ["shared"]


def held(path: Path) -> list[str]:
    """The state files, deleted ones too, that this process holds open."""
    links = []
    for descriptor in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):
            links.append(str(descriptor.readlink()))
    return [link for link in links if link.startswith(str(path))]


def remove(path: Path) -> None:
    """Take a state file away with all that belongs to it."""
    for each in list(path.parent.glob(f"{path.name}*")):
        each.unlink()


def test_the_first_answer_is_yes(store: Store) -> None:
    """Whoever has just begun to watch has seen nothing yet."""
    with store.watch() as watch:
        assert watch.changed()
        assert not watch.changed()
        assert not watch.replaced()


def test_every_commit_is_noticed_once(path: Path, store: Store) -> None:
    """Whoever commits: this store, another one, or another program."""

    def ours() -> None:
        with store.transaction() as transaction:
            transaction.create(service("a"))

    def theirs() -> None:
        create(path, "b")

    def foreign() -> None:
        with closing(sqlite3.connect(path)) as editor, editor:
            editor.execute("INSERT INTO meta VALUES ('note', 1)")

    with store.watch() as watch:
        watch.changed()
        for write in (ours, theirs, foreign):
            write()
            assert watch.changed()
            assert not watch.changed()


def test_what_is_not_committed_is_not_noticed(store: Store) -> None:
    """Neither a transaction under way, nor a dry run, nor a failure."""
    with store.watch() as watch:
        watch.changed()
        with store.transaction(dry_run=True) as transaction:
            transaction.create(service("a"))
            assert not watch.changed()
        assert not watch.changed()
        with pytest.raises(ZeroDivisionError), store.transaction() as transaction:  # noqa: PT012
            transaction.create(service("a"))
            raise ZeroDivisionError
        assert not watch.changed()


def test_what_is_noticed_can_be_read(store: Store) -> None:
    """No later, and in another thread than the one that writes."""
    done = threading.Event()

    def write() -> None:
        for number in range(20):
            with store.transaction() as transaction:
                transaction.create(service(f"s{number}"))
        done.set()

    seen: set[str] = set()
    with store.watch() as watch:
        with store.read() as snapshot:
            known = snapshot.revision
        writer = threading.Thread(target=write)
        writer.start()
        while True:
            finished = done.is_set()
            if watch.changed():
                with store.read() as snapshot:
                    changes = snapshot.changes_since(known)
                    assert changes
                    known = changes.revision
                    seen |= {each.metadata.name for each in changes.written if isinstance(each, Service)}
            elif finished:
                break
        writer.join()
    assert seen >= {f"s{number}" for number in range(20)}


def test_watching_does_not_hold_the_log(path: Path, store: Store) -> None:
    """A reader that never ended would make the write-ahead log grow without bound."""
    with store.watch() as watch:
        for number in range(3):
            create(path, f"s{number}")
            assert watch.changed()
            assert not watch.changed()
            with closing(sqlite3.connect(path, isolation_level=None)) as other:
                (busy, _, _) = other.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            assert not busy
            assert path.with_name(f"{path.name}-wal").stat().st_size == 0


def test_a_watch_lets_go_of_the_file(path: Path) -> None:
    """It is a context manager; closed, it says so, and nothing is left open."""
    with Store.open(path) as store:
        watch = store.watch()
        watch.close()
        watch.close()
        with pytest.raises(StoreError, match="closed"):
            watch.changed()
        assert held(path)
    assert not held(path)


def moved_over(path: Path) -> None:
    """Restore a backup as one does by hand, the files of the log included."""
    backup = path.with_name("backup")
    with closing(sqlite3.connect(path)) as source, closing(sqlite3.connect(backup)) as target:
        source.backup(target)
    remove(path)
    backup.rename(path)


def made_anew(path: Path) -> None:
    remove(path)
    create(path, "other")


def copied_over(path: Path, backup: Path) -> None:
    """Restore a backup into the same file, and take the log away."""
    for each in list(path.parent.glob(f"{path.name}-*")):
        each.unlink()
    path.write_bytes(backup.read_bytes())


def test_other_content_in_the_same_file_is_noticed(path: Path) -> None:
    """A backup that is copied over the file, without its log: who holds both would never see another commit."""
    with Store.open(path) as store, store.watch() as watch:
        watch.changed()
        backup = path.with_name("backup")
        with closing(sqlite3.connect(path)) as source, closing(sqlite3.connect(backup)) as target:
            source.backup(target)
        create(path, "later")
        assert watch.changed()
        assert not watch.replaced()
        copied_over(path, backup)
        assert watch.replaced()


@pytest.mark.parametrize("replace", [moved_over, made_anew, remove])
def test_another_file_is_noticed(path: Path, replace: Callable[[Path], None]) -> None:
    """A restored backup, a new file, and none at all; the number of the old inode is not given away meanwhile."""
    with Store.open(path) as store, store.watch() as watch:
        watch.changed()
        replace(path)
        assert watch.replaced()
        assert watch.replaced()
        for verb in (store.read, store.transaction):
            with pytest.raises(StoreError, match="was moved away or replaced while it was in use"), verb():
                pass
        with pytest.raises(StoreError, match="replaced"):
            store.watch()
    assert not held(path)


def test_a_lost_file_is_not_held(path: Path) -> None:
    """Its connections go with the first one who asks; the store stays lost, whatever comes to the path."""
    with Store.open(path) as store:
        path.rename(path.with_name("aside"))
        remove(path)
        with pytest.raises(StoreError, match="replaced"), store.read():
            pass
        assert not held(path.with_name("aside"))
        path.with_name("aside").rename(path)
        with pytest.raises(StoreError, match="replaced"), store.read():
            pass
    with Store.open(path) as store, store.read() as snapshot:
        assert snapshot.get(Service, "default", "kubernetes")


def test_a_file_that_is_replaced_meanwhile_is_not_written_to(path: Path) -> None:
    """A change to a file that nobody will ever see again must not look as if it were saved."""
    with Store.open(path) as store:
        with pytest.raises(StoreError, match="replaced"), store.transaction() as transaction:  # noqa: PT012
            transaction.create(service("a"))
            made_anew(path)
        assert not any("deleted" in link for link in held(path))
    with Store.open(path) as store, store.read() as snapshot:
        assert snapshot.get(Service, "default", "a") is None
        assert snapshot.get(Service, "default", "other")


def test_two_files_of_one_number_are_told_apart(path: Path) -> None:
    """Once nobody holds a file, the next one may get its inode: the identity inside is another."""
    with Store.open(path) as store:
        store._drop_idle()  # As after an error in the only connection.
        remove(path)
        create(path, "other")
        status = path.stat()
        store._file = (status.st_dev, status.st_ino)
        with pytest.raises(StoreError, match="replaced"), store.read():
            pass
        assert not held(path)


def test_a_folder_that_cannot_be_entered_is_no_answer(shared: Path) -> None:
    """Whether the file is another one cannot be told: that is not the same as replaced."""
    if os.geteuid() != 0:
        pytest.skip("becoming another user takes root")
    folder = shared.parent / "inner"
    path = folder / "state.db"
    Store.open(path).close()
    for each in (folder, path):
        try:
            os.chown(each, 65534, 65534)
        except OSError:
            pytest.skip("this user namespace has no other user")
    code = """
        with Store.open(path) as store, store.watch() as watch:
            print(watch.changed(), watch.changed(), watch.replaced(), flush=True)
            os.chmod(os.path.dirname(path), 0)
            try:
                watch.replaced()
            finally:
                os.chmod(os.path.dirname(path), 0o700)
    """
    answer, message = as_nobody(code.strip(), path).splitlines()
    assert answer == "True False False"
    assert "cannot look at the state file: Permission denied" in message


def test_a_file_that_sqlite_takes_for_immutable_is_watched(path: Path) -> None:
    """A reader for whom SQLite can make no -shm file sees commits when they reach the file itself."""
    create(path, "a")
    file = file_id(path)
    assert file
    connection = sqlite3.connect(f"file:{path}?mode=ro&immutable=1", uri=True, isolation_level=None)
    with Watch(path, Connected(connection, file, immutable=True)) as watch:
        assert watch.changed()
        assert not watch.changed()
        create(path, "b")
        assert watch.changed()
        assert not watch.changed()
        remove(path)
        assert watch.changed()
        assert watch.replaced()


def test_what_sqlite_takes_for_immutable_is_not_kept(shared: Path) -> None:
    """Its pages would be remembered for ever, whoever writes."""
    Store.open(shared).close()
    shared.chmod(0o644)
    code = """
        with Store.open(path) as store:
            with store.read() as snapshot:
                print(store.writable, len(snapshot.list(Service)), end=" ")
            print(len(store._idle))
    """
    assert as_nobody(code.strip(), shared) == "False 1 0"

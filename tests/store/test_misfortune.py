"""Bad luck with the state file: one line that says what to do, nothing half done, and it works again afterwards."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from svcnat.errors import StoreError
from svcnat.store.sqlite import Store
from tests.controllers.build import service
from tests.store.test_sqlite import as_nobody, create, names, shared
from tests.store.test_watch import held, remove

__all__ = ["shared"]

ON_A_SMALL_DISK = """
import subprocess, sys
from pathlib import Path
from svcnat.errors import StoreError
from svcnat.model.objects import Service
from svcnat.store.sqlite import Store
from tests.controllers.build import service

disk = Path(sys.argv[1])
# A disk of its own, which nobody else sees and which goes with this process.
if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", disk], capture_output=True).returncode:
    sys.exit(77)

def fill():
    with open(disk / "filler", "ab", buffering=0) as filler:
        try:
            while filler.write(bytes(4096)):
                pass
        except OSError:
            pass

def attempt(*names):
    try:
        with store.transaction() as transaction:
            for name in names:
                transaction.create(service(name))
    except StoreError as error:
        return str(error)

def known():
    with store.read() as snapshot:
        return {each.metadata.name for each in snapshot.list(Service)}

many = [f"s{number}" for number in range(400)]
"""


def on_a_small_disk(code: str, folder: Path) -> None:
    """Run assertions with a disk of one MiB mounted at a folder, in a mount namespace that is gone afterwards."""
    unshare = ["unshare", "-m", "--propagation", "private"] if os.geteuid() == 0 else ["unshare", "-rm"]
    command = [*unshare, sys.executable, "-c", ON_A_SMALL_DISK + code, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode == 77 or "unshare failed" in done.stderr:
        pytest.skip("nobody may mount anything here")
    assert done.stderr == ""
    assert done.returncode == 0


def test_on_a_full_disk_nothing_is_half_done(tmp_path: Path) -> None:
    """The command fails in one line, readers go on, and once there is room the same command works."""
    on_a_small_disk(
        """
with Store.open(disk / "state.db") as store, store.watch() as watch:
    assert attempt("before") is None
    watch.changed()
    fill()
    for _ in range(3):
        message = attempt(*many)
        assert "disk" in message and "full" in message and str(disk) in message, message
        assert known() == {"kubernetes", "before"}
        assert not watch.changed() and not watch.replaced()
    with store.read() as snapshot:
        revision = snapshot.revision
    (disk / "filler").unlink()
    assert attempt("after") is None
    assert watch.changed()
    with store.read() as snapshot:
        written = {each.metadata.name for each in snapshot.changes_since(revision).written}
    assert "after" in written and not written & set(many)
with Store.open(disk / "state.db") as store:
    assert known() == {"kubernetes", "before", "after"}
    with store.read() as snapshot:
        assert snapshot._connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
""",
        tmp_path,
    )


def test_what_was_saved_survives_a_full_disk(tmp_path: Path) -> None:
    """The log cannot be copied into the file when the last one closes it, and is kept."""
    on_a_small_disk(
        """
with Store.open(disk / "state.db") as store:
    assert attempt(*many[:100]) is None
    fill()
with Store.open(disk / "state.db") as store:
    assert known() >= set(many[:100])
(disk / "filler").unlink()
with Store.open(disk / "state.db") as store:
    assert attempt("after") is None
    assert known() == {"kubernetes", "after", *many[:100]}
""",
        tmp_path,
    )


def test_a_new_file_on_a_full_disk_is_tried_again(tmp_path: Path) -> None:
    """Nothing that stands in the way is left when there is room."""
    on_a_small_disk(
        """
fill()
try:
    Store.open(disk / "state.db")
except StoreError as error:
    assert "full" in str(error) or "No space" in str(error), error
else:
    raise AssertionError
(disk / "filler").unlink()
with Store.open(disk / "state.db") as store:
    assert known() == {"kubernetes"}
""",
        tmp_path,
    )


@pytest.mark.parametrize("log", [False, True])
def test_a_disk_that_became_read_only_can_be_read(tmp_path: Path, log: bool) -> None:
    """Also with what a killed process left in the log; writing is refused with a word about why."""
    on_a_small_disk(
        f"""
import os
if os.fork() == 0:
    store = Store.open(disk / "state.db")
    assert attempt("before") is None
    if {log}:
        os._exit(0)
    store.close()
    os._exit(0)
assert os.wait()[1] == 0
assert (disk / "state.db-wal").exists() is {log}
subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
with Store.open(disk / "state.db") as store, store.watch() as watch:
    assert known() == {{"kubernetes", "before"}}
    assert watch.changed() and not watch.changed() and not watch.replaced()
    message = attempt("after")
    assert "read-only" in message, message
subprocess.run(["mount", "-o", "remount,rw", disk], check=True)
with Store.open(disk / "state.db") as store:
    assert attempt("after") is None
    assert known() == {{"kubernetes", "before", "after"}}
""",
        tmp_path,
    )


def damage(path: Path) -> bytes:
    """Write rubbish over all pages but the first, in place."""
    content = path.read_bytes()
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(os.urandom(len(content) - 4096))
    return content


def test_a_file_that_is_damaged_while_it_is_open(path: Path) -> None:
    """It says what to do; the connection that met the damage is not trusted again, and a repaired file is read."""
    create(path, *(f"s{number}" for number in range(300)))
    with Store.open(path) as store, store.watch() as watch:
        watch.changed()
        content = damage(path)

        for _ in range(2):
            with pytest.raises(StoreError, match="is damaged; restore a backup, or move it away to start afresh"):
                names(store)
        assert store._idle == []
        with path.open("r+b") as file:
            file.write(content)
        assert len(names(store)) == 301
        with store.transaction() as transaction:
            transaction.create(service("new"))
        assert watch.changed()
    assert not held(path)


def test_a_damaged_file_is_refused_and_a_backup_is_taken(path: Path) -> None:
    """The way out that the message names: after moving it away one starts afresh, or with a backup."""
    create(path, *(f"s{number}" for number in range(300)))
    backup = path.with_name("backup")
    with closing(sqlite3.connect(path)) as source, closing(sqlite3.connect(backup)) as target:
        source.backup(target)
    damage(path)

    def use() -> None:
        with Store.open(path) as store:
            names(store)

    with pytest.raises(StoreError, match="is damaged; restore a backup, or move it away"):
        use()
    assert not held(path)
    remove(path)
    backup.rename(path)
    with Store.open(path) as store:
        assert len(names(store)) == 301
    remove(path)
    with Store.open(path) as store:
        assert names(store) == ["kubernetes"]


def test_a_restored_backup_is_taken_in_place(path: Path) -> None:
    """SQLite's own way to restore, under an open store: it is noticed, and what a reader knew is worth nothing."""
    backup = path.with_name("backup")
    with Store.open(path) as store, store.watch() as watch:
        create(path, "a")
        with closing(sqlite3.connect(path)) as source, closing(sqlite3.connect(backup)) as target:
            source.backup(target)
        create(path, "b")
        watch.changed()
        with store.read() as snapshot:
            known = snapshot.revision
        with closing(sqlite3.connect(backup)) as source, closing(sqlite3.connect(path)) as target:
            source.backup(target)
        assert watch.changed()
        assert not watch.replaced()
        assert names(store) == ["a", "kubernetes"]
        with store.read() as snapshot:
            assert snapshot.changes_since(known) is None
    remove(backup)


def test_transactions_after_a_failed_one_work(store: Store) -> None:
    """Whatever made it fail: a caller's bug, an error of SQLite in the middle, a rollback behind our back."""
    with pytest.raises(ZeroDivisionError), store.transaction() as transaction:  # noqa: PT012
        transaction.create(service("a"))
        raise ZeroDivisionError
    with pytest.raises(StoreError, match="no such table"), store.transaction() as transaction:  # noqa: PT012
        transaction.create(service("a"))
        transaction._connection.execute("SELECT * FROM nowhere")
    with pytest.raises(StoreError), store.transaction() as transaction:  # noqa: PT012
        transaction.create(service("a"))
        transaction._connection.execute("ROLLBACK")
    with pytest.raises(StoreError), store.transaction() as transaction:
        transaction._connection.close()
    assert names(store) == ["kubernetes"]
    with store.transaction() as transaction:
        transaction.create(service("a"))
    assert names(store) == ["a", "kubernetes"]


def test_a_connection_that_failed_is_not_left_open(path: Path) -> None:
    """Nor are those of a store that was closed in between."""
    with Store.open(path) as store:
        before = len(held(path))
        for _ in range(5):
            with pytest.raises(StoreError), store.transaction() as transaction:
                transaction._connection.execute("SELECT * FROM nowhere")
        assert len(held(path)) <= before
        with store.read(), store.read():
            store.close()
    assert not held(path)


def test_a_file_that_became_read_only_says_so(shared: Path) -> None:
    """Reading and watching go on; writing is refused, and works once it is permitted again."""
    Store.open(shared).close()
    shared.chmod(0o644)
    code = """
        with Store.open(path) as store, store.watch() as watch:
            print(store.writable, watch.changed(), watch.replaced())
            with store.read() as snapshot:
                print(len(snapshot.list(Service)), snapshot.changes_since(snapshot.revision).written)
            with store.transaction():
                pass
    """
    answers = as_nobody(code.strip(), shared).splitlines()
    assert answers[:2] == ["False True False", "1 ()"]
    assert "the state file is read-only for this user; run as root" in answers[2]


def test_an_older_file_that_may_only_be_read_is_refused(shared: Path) -> None:
    """It has to be converted first, by somebody who may."""
    Store.open(shared).close()
    with closing(sqlite3.connect(shared)) as connection:
        connection.execute("PRAGMA user_version = 2")
    shared.chmod(0o644)
    assert "an older schema, to be converted, but the file is read-only; run as root" in as_nobody(
        "Store.open(path)", shared
    )

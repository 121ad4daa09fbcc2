from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from msgspec.structs import replace

from svcnat.errors import ManifestError, StoreError
from svcnat.model.objects import Service, ServicePort
from svcnat.store.schema import MIGRATIONS, migrate
from svcnat.store.sqlite import Store
from tests.controllers.build import service
from tests.store.invariants import check


def create(path: Path, *names: str) -> None:
    with Store.open(path) as store, store.transaction() as transaction:
        for name in names:
            transaction.create(service(name))


def names(store: Store) -> list[str]:
    with store.read() as snapshot:
        return [each.metadata.name for each in snapshot.list(Service)]


def test_a_new_file_is_private_and_holds_kubernetes(path: Path) -> None:
    """Mode 0600 in a folder of 0700: it may hold secrets. Its identity stays."""
    with Store.open(path) as store:
        identity = store.identity
        assert names(store) == ["kubernetes"]
        for file in path.parent.iterdir():
            assert file.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    with Store.open(path) as store:
        assert store.identity == identity
        assert len(identity) == 36


def test_a_rehearsal_is_nobodys_business(path: Path) -> None:
    """Everything happens, on copies: nothing of it is in the file, and others may write to that meanwhile."""
    create(path, "a")
    before = path.read_bytes()
    with Store.open(path) as store, store.rehearsal() as (now, then):
        revision = now.revision
        then.create(service("b"))
        then.finish()
        assert [each.metadata.name for each in now.list(Service)] == ["a", "kubernetes"]
        assert then.get(Service, "default", "b")
        changes = then.changes_since(revision)
        assert changes is not None
        assert [type(each).__name__ for each in changes.written] == ["Service", "EndpointSlice"]
        assert path.read_bytes() == before
        create(path, "c")
        assert now.get(Service, "default", "c") is None
        assert names(store) == ["a", "c", "kubernetes"]


def test_a_folder_that_exists_keeps_its_mode(tmp_path: Path) -> None:
    """Only what svcnat makes is its to protect."""
    tmp_path.chmod(0o755)
    Store.open(tmp_path / "state.db").close()
    assert tmp_path.stat().st_mode & 0o777 == 0o755


def test_without_create_a_missing_file_is_an_error(path: Path) -> None:
    """And no file is made."""
    with pytest.raises(StoreError, match="no such state file"):
        Store.open(path, create=False)
    assert not path.parent.exists()


def test_writes_are_durable_and_readers_do_not_wait(store: Store) -> None:
    """WAL with synchronous=FULL: a reader in the middle of a transaction sees the state before it."""
    with store.transaction() as transaction:
        (journal,) = transaction._connection.execute("PRAGMA journal_mode").fetchone()
        (synchronous,) = transaction._connection.execute("PRAGMA synchronous").fetchone()
        assert (journal, synchronous) == ("wal", 2)
        transaction.create(service("new"))
        assert names(store) == ["kubernetes"]
    assert names(store) == ["kubernetes", "new"]


def test_a_snapshot_does_not_move(store: Store) -> None:
    """All reads of one snapshot are of one moment."""
    with store.read() as snapshot:
        with store.transaction() as transaction:
            transaction.create(service("new"))
        assert [each.metadata.name for each in snapshot.list(Service)] == ["kubernetes"]
        before = snapshot.revision
    with store.read() as snapshot:
        assert snapshot.revision > before


def test_node_ports_may_be_asked_for_in_the_configured_range(path: Path) -> None:
    """The configuration decides, not only when the manifest is read."""
    wanted = service("a", type="NodePort", ports=(ServicePort(port=80, node_port=20080),))
    with (
        Store.open(path) as store,
        store.transaction() as transaction,
        pytest.raises(ManifestError, match="30000-32767"),
    ):
        transaction.create(wanted)
    with Store.open(path, node_ports=range(20000, 21000)) as store, store.transaction() as transaction:
        assert transaction.create(wanted).action == "created"


def test_threads_share_a_store(store: Store) -> None:
    """The agent reads in one thread and writes in another."""

    def work(number: int) -> None:
        for turn in range(5):
            with store.transaction() as transaction:
                transaction.create(service(f"s{number}-{turn}"))
            names(store)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(names(store)) == 21


def test_a_locked_file_is_reported_after_a_while(path: Path, store: Store) -> None:
    """One line that says what is going on, not a traceback of SQLite."""
    with (
        Store.open(path, busy_seconds=0.05) as impatient,
        store.transaction(),
        pytest.raises(StoreError, match="another command keeps the state file locked"),
        impatient.transaction(),
    ):
        pass
    with store.transaction() as transaction:
        transaction.create(service("later"))


def test_a_full_disk_changes_nothing(store: Store) -> None:
    """The command fails in one line, and the next one works."""
    with pytest.raises(StoreError, match="the disk is full"), store.transaction() as transaction:  # noqa: PT012
        transaction._connection.execute("PRAGMA max_page_count = 20")
        for number in range(1000):
            transaction.create(service(f"s{number}"))
    assert names(store) == ["kubernetes"]
    with store.transaction() as transaction:
        transaction._connection.execute("PRAGMA max_page_count = 100000")
        transaction.create(service("new"))
    assert names(store) == ["kubernetes", "new"]


def test_a_closed_store_says_so(store: Store) -> None:
    """Also when it is closed while something is still open."""
    with store.read() as snapshot:
        store.close()
        assert snapshot.get(Service, "default", "kubernetes")
    with pytest.raises(StoreError, match="closed"), store.read():
        pass


def test_odd_paths_are_only_paths(tmp_path: Path) -> None:
    """Nothing in a name is syntax to SQLite's URIs."""
    for name in ("a?mode=memory&x#%41 b", "\udcff"):
        odd = tmp_path / name / "state.db"
        Store.open(odd).close()
        assert odd.exists()


def test_a_link_to_nothing_is_refused(path: Path) -> None:
    """SQLite would make a file at its other end, for everybody to read."""
    path.parent.mkdir()
    path.symlink_to("elsewhere")
    for create in (True, False):
        with pytest.raises(StoreError):
            Store.open(path, create=create)
    assert not path.with_name("elsewhere").exists()


@pytest.mark.parametrize("damage", ["DELETE FROM meta", "UPDATE meta SET value = 'x' WHERE key = 'identity'"])
def test_a_file_without_identity_is_damaged(path: Path, damage: str) -> None:
    """It is known by nothing that its rules could follow."""
    Store.open(path).close()
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(damage)
    with pytest.raises(StoreError, match="is damaged"):
        Store.open(path)
    path.unlink()


def test_what_is_no_plain_file_is_refused(tmp_path: Path) -> None:
    """Neither a pipe nor a device, and nothing waits for them, or is left beside them."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for odd in (pipe, Path("/dev/null")):
        with pytest.raises(StoreError, match="no plain file"):
            Store.open(odd)
        assert not Path(f"{odd}-journal").exists()


@pytest.mark.parametrize("suffix", ["-journal", "-wal", "-shm"])
@pytest.mark.parametrize("put", [os.mkfifo, Path.mkdir, lambda path: path.symlink_to("/dev/zero")])
def test_what_is_no_plain_file_beside_it_is_refused(path: Path, suffix: str, put: Callable[[Path], object]) -> None:
    """SQLite would wait for a pipe; it is named, and everything works again when it is gone."""
    create(path, "a")
    beside = Path(f"{path}{suffix}")
    put(beside)
    with pytest.raises(StoreError, match=f"{beside}: no plain file"):
        Store.open(path)
    beside.rmdir() if beside.is_dir() else beside.unlink()
    create(path, "b")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"this is text, not a database, and long enough to look at\n" * 100, "not an svcnat state file"),
        (b"SQLite format 3\x00" + bytes(84), "not an svcnat state file|is damaged"),
    ],
)
def test_what_is_no_database_is_refused(path: Path, content: bytes, message: str) -> None:
    """With what to do; and the file is left as it was."""
    path.parent.mkdir()
    path.write_bytes(content)
    with pytest.raises(StoreError, match=message) as caught:
        Store.open(path)
    assert "away" in str(caught.value)
    assert str(path) in str(caught.value)
    assert path.read_bytes() == content
    path.unlink()


def test_another_programs_database_is_refused(path: Path) -> None:
    """A stranger's file gets no tables of ours."""
    path.parent.mkdir()
    with closing(sqlite3.connect(path)) as stranger:
        stranger.execute("CREATE TABLE mine (id INTEGER)")
    before = path.read_bytes()
    with pytest.raises(StoreError, match="a database of another program"):
        Store.open(path)
    assert path.read_bytes() == before
    path.unlink()


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    """Whatever stands at the path is named."""
    with pytest.raises(StoreError, match="no plain file"):
        Store.open(tmp_path)


def test_a_damaged_file_is_reported(path: Path) -> None:
    """Pages of rubbish in the middle: a StoreError at the latest when they are read."""
    create(path, *(f"s{number}" for number in range(200)))
    content = bytearray(path.read_bytes())
    content[4096:] = os.urandom(len(content) - 4096)
    path.write_bytes(content)

    def use() -> None:
        with Store.open(path) as store:
            names(store)

    with pytest.raises(StoreError, match="restore a backup"):
        use()
    path.unlink()


def test_an_unreadable_object_is_reported(path: Path) -> None:
    """Somebody edited the table by hand."""
    create(path, "a")
    with closing(sqlite3.connect(path, isolation_level=None)) as editor:
        editor.execute("UPDATE objects SET body = x'7b' WHERE name = 'a'")
    with Store.open(path) as store, pytest.raises(StoreError, match=r"restore a backup.*holds a Service that ") as told:
        names(store)
    assert str(told.value).startswith(str(path))
    path.unlink()


# --- schema versions -----------------------------------------------------------------------------------------

NEXT = (
    *MIGRATIONS,
    ("ALTER TABLE objects ADD COLUMN note TEXT", "UPDATE objects SET note = kind || '/' || name"),
)


def test_an_older_file_is_migrated(path: Path) -> None:
    """Its objects are all there, and the older program is then told to upgrade."""
    create(path, "a")
    with Store.open(path, migrations=NEXT) as store:
        assert names(store) == ["a", "kubernetes"]
        with store.read() as snapshot:
            notes = snapshot._connection.execute("SELECT note FROM objects WHERE name = 'a'").fetchall()
        assert notes == [("Service/a",)]
    with pytest.raises(StoreError, match=r"written by a newer svcnat .* upgrade svcnat"):
        Store.open(path)


def write_first_version(path: Path, *documents: str) -> None:
    """A state file as the first schema had it, with these Services."""
    path.parent.mkdir()
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        migrate(connection, str(path), MIGRATIONS[:1])
        for version, text in enumerate(documents, 1):
            body = json.loads(text)
            body["metadata"] |= {"uid": f"u{version}", "namespace": "default", "resourceVersion": str(version)}
            address = f"10.96.0.{version}"
            body["spec"] |= {"clusterIP": address, "clusterIPs": [address], "ipFamilies": ["IPv4"]}
            row = ("Service", "default", body["metadata"]["name"], version, json.dumps(body).encode())
            connection.execute(
                "INSERT INTO objects (kind, namespace, name, resource_version, body) VALUES (?, ?, ?, ?, ?)", row
            )
            connection.execute("INSERT INTO addresses VALUES (?, ?, ?)", (address, *row[1:3]))
        connection.execute("UPDATE meta SET value = ? WHERE key = 'revision'", (len(documents),))


def exposed(name: str, kind: str, number: int, status: str = "{}", **spec: int) -> str:
    ports = [{"port": 80, "protocol": "TCP", "targetPort": 80, **({"nodePort": number} if number else {})}]
    document = {"metadata": {"name": name}, "spec": {"type": kind, "ports": ports, **spec}}
    return json.dumps({**document, "status": json.loads(status)})


def test_node_ports_of_the_first_version_are_guarded(path: Path) -> None:
    """As are load balancers' addresses; those that wait are known."""
    ingress = '{"loadBalancer": {"ingress": [{"ip": "192.0.2.1", "ipMode": "VIP"}]}}'
    balanced = exposed("b", "LoadBalancer", 30081, ingress, healthCheckNodePort=30082)
    write_first_version(path, exposed("kubernetes", "ClusterIP", 0), balanced, exposed("c", "LoadBalancer", 30083))
    with Store.open(path, load_balancer_pool=["192.0.2.1-192.0.2.2"]) as store:
        check(path)
        for number in (30081, 30082, 30083):
            wanted = service("d", type="NodePort", ports=(ServicePort(port=80, node_port=number),))
            with pytest.raises(ManifestError, match="already allocated"), store.transaction() as transaction:
                transaction.create(wanted)
        with store.transaction() as transaction:
            transaction.create(service("e"))
        with store.read() as snapshot:
            waited = snapshot.get(Service, "default", "c")
        assert waited
        assert [each.ip for each in waited.status.load_balancer.ingress] == ["192.0.2.2"]


def test_of_two_with_one_node_port_the_older_keeps_it(path: Path) -> None:
    """The other one says so with its next change, and can be given another."""
    write_first_version(path, *(exposed(name, "NodePort", 30080) for name in ("older", "younger")))
    with Store.open(path) as store:
        with store.transaction() as transaction:
            older, younger = (transaction.get(Service, "default", name) for name in ("older", "younger"))
            assert older
            assert younger
            assert transaction.replace(older).action == "replaced"
            with pytest.raises(ManifestError, match="30080: provided port is already allocated"):
                transaction.replace(younger)
            moved = [replace(younger.spec.ports[0], node_port=30081)]
            transaction.replace(replace(younger, spec=replace(younger.spec, ports=moved)))
        with store.transaction() as transaction:
            wanted = service("d", type="NodePort", ports=(ServicePort(port=80, node_port=30080),))
            with pytest.raises(ManifestError, match="already allocated"):
                transaction.create(wanted)


def test_a_failed_migration_changes_nothing(path: Path) -> None:
    """The file is what it was, and the program that wrote it can go on."""
    create(path, "a")
    broken = (*MIGRATIONS, ("ALTER TABLE objects ADD COLUMN note TEXT", "UPDATE nothing SET x = 1"))
    with pytest.raises(StoreError, match="nothing"):
        Store.open(path, migrations=broken)
    with Store.open(path) as store:
        assert names(store) == ["a", "kubernetes"]


# --- other people's files ------------------------------------------------------------------------------------


@pytest.fixture
def shared() -> Iterator[Path]:
    """A folder that other users can enter."""
    folder = Path(tempfile.mkdtemp(prefix="svcnat-test-"))
    folder.chmod(0o755)
    yield folder / "state.db"
    shutil.rmtree(folder)


def as_nobody(code: str, path: Path) -> str:
    """Run a few lines as a user without any right, and return what they print."""
    if os.geteuid() != 0:
        pytest.skip("becoming another user takes root")
    # The interpreter may be where others cannot read: everything is imported first.
    script = f"""
import os, sys
from svcnat.errors import StoreError
from svcnat.model.objects import Service
from svcnat.store.sqlite import Store
path = sys.argv[1]
try:
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
except OSError:
    sys.exit(77)
try:
    {code}
except StoreError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", script, str(path)], capture_output=True, text=True, check=False)
    if done.returncode == 77:
        pytest.skip("this user namespace has no other user")
    assert done.stderr == ""
    return done.stdout.strip()


READ = """
    with Store.open(path) as store, store.read() as snapshot:
        print(store.writable, len(snapshot.list(Service)))
"""
WRITE = """
    with Store.open(path) as store, store.transaction():
        print("written")
"""


def test_a_read_only_file_can_be_read(shared: Path) -> None:
    """With and without a log beside it; writing is refused with a word about why."""
    with Store.open(shared) as store, store.transaction() as transaction:
        transaction.create(service("a"))
    shared.chmod(0o644)
    assert as_nobody(READ, shared) == "False 2"
    assert "the state file is read-only for this user; run as root" in as_nobody(WRITE, shared)
    with Store.open(shared) as store:
        with store.transaction() as transaction:
            transaction.create(service("b"))
        for file in shared.parent.iterdir():
            file.chmod(0o644)
        assert as_nobody(READ, shared) == "False 3"


def test_a_private_file_is_not_for_others(shared: Path) -> None:
    """One line with the path and what to do."""
    Store.open(shared).close()
    message = as_nobody(READ, shared)
    assert str(shared) in message
    assert "run as root" in message


def test_a_folder_without_permission_is_reported(shared: Path) -> None:
    """Neither a file nor a folder can be made there."""
    for path in (shared, shared.parent / "new" / "state.db"):
        message = as_nobody(READ, path)
        assert "cannot open or create the state file: Permission denied" in message
    shared.parent.chmod(0o700)
    for code in (READ, READ.replace("open(path)", "open(path, create=False)")):
        assert "cannot open or create the state file: Permission denied" in as_nobody(code, shared)

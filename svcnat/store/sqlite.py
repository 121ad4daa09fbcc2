"""The state file: opening it, reading it, and changing it in one transaction at a time.

SQLite in WAL mode with synchronous=FULL: after a kill at any moment the file holds the old state or the new one, and
readers never wait for a writer. It belongs on a local disk. What the objects mean is not decided here.
"""

from __future__ import annotations

import os
import secrets
import sqlite3
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Self

from svcnat.controllers.admission import KUBERNETES
from svcnat.controllers.ranges import NODE_PORTS, SERVICE_CIDRS, Ranges
from svcnat.errors import StoreError
from svcnat.model.objects import Service
from svcnat.store.connections import DAMAGED, READ_ONLY, REPLACED, Connected, FileId, connect, file_id, reporting
from svcnat.store.schema import MIGRATIONS, Migration, migrate, version_of
from svcnat.store.snapshot import Snapshot
from svcnat.store.transaction import Transaction
from svcnat.store.watch import Watch

_JOURNAL_PAUSE = 0.01  # seconds

BUSY_SECONDS = 10.0
"""How long a command waits for another one's transaction."""


def utc_now() -> str:
    """Return the present as Kubernetes writes it: RFC 3339 in UTC, whole seconds."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


class Store:
    """An open state file; one object may serve several threads, and is a context manager that closes it."""

    def __init__(
        self,
        path: Path,
        ranges: Ranges,
        busy_seconds: float,
        clock: Callable[[], str],
        randbelow: Callable[[int], int],
        *,
        graceful: bool = False,
    ) -> None:
        self.path = path
        self._graceful = graceful
        self.writable = False
        self.identity = ""
        self._ranges = ranges
        self._busy_seconds = busy_seconds
        self._clock = clock
        self._randbelow = randbelow
        self._idle: list[Connected] = []
        self._file: FileId | None = None
        self._closed = False
        self._lost = False

    @classmethod
    def open(
        cls,
        path: str | os.PathLike[str],
        *,
        create: bool = True,
        service_cidrs: Iterable[str] = SERVICE_CIDRS,
        node_ports: range = NODE_PORTS,
        load_balancer_pool: Iterable[str] = (),
        busy_seconds: float = BUSY_SECONDS,
        migrations: Sequence[Migration] = MIGRATIONS,
        clock: Callable[[], str] = utc_now,
        randbelow: Callable[[int], int] = secrets.randbelow,
        graceful: bool = False,
    ) -> Store:
        """Open a state file, making it (0600, in a folder of 0700) or converting an older one first.

        A new one holds the Service ``default/kubernetes`` at the first address of the first service CIDR. A file that
        may not be written is opened for reading. `load_balancer_pool` are CIDRs or FIRST-LAST; Services that wait for
        an address of a pool that is new get it with the next transaction. `graceful`: somebody runs the Pods, and
        takes those that are deleted away when they have ended.

        Raises:
            StoreError: there is none (with ``create=False``), or it is damaged, foreign, newer, or not permitted.
            UsageError: a range of addresses is none.

        """
        ranges = Ranges.of(service_cidrs, node_ports, load_balancer_pool)
        store = cls(Path(path), ranges, busy_seconds, clock, randbelow, graceful=graceful)
        try:
            store._make_file(create=create)
            with reporting(store.path), store._connection() as connection:
                store._prepare(connection, migrations)
            if store.writable and not store._has_kubernetes():
                with store.transaction():
                    pass  # The transaction itself sees to default/kubernetes.
        except BaseException:
            store.close()
            raise
        return store

    def close(self) -> None:
        """Close the file; a transaction that is still open ends first."""
        self._closed = True
        self._drop_idle()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    @contextmanager
    def read(self) -> Iterator[Snapshot]:
        """Give the objects as they are now; later writes are not seen until the next one.

        Raises:
            StoreError: the file is damaged or cannot be read.

        """
        with reporting(self.path), self._connection() as connection:
            connection.execute("BEGIN")
            yield Snapshot(connection)

    @contextmanager
    def transaction(self, *, dry_run: bool = False) -> Iterator[Transaction]:
        """Give a World to change; on leaving, the controllers run and all of it is committed, or none on an error.

        With `dry_run` everything happens and is then forgotten.

        Raises:
            StoreError: the file cannot be written, or another command kept it locked for too long.

        """
        if not self.writable:
            raise StoreError(f"{self.path}: {READ_ONLY}")
        with reporting(self.path), self._connection() as connection:
            connection.execute("BEGIN IMMEDIATE")
            transaction = Transaction(connection, self._ranges, self._clock, self._randbelow, graceful=self._graceful)
            yield transaction
            transaction.finish()
            if not dry_run:
                self._require_file()  # What is written to a file that nobody will see again is not saved.
                connection.execute("COMMIT")

    @contextmanager
    def rehearsal(self) -> Iterator[tuple[Snapshot, Transaction]]:
        """Give the objects as they are, and a World to change, on copies in memory: the file is only read.

        Raises:
            StoreError: the file is damaged or cannot be read.

        """
        with reporting(self.path), closing(_in_memory()) as now, closing(_in_memory()) as then:
            with self._connection() as connection:
                connection.backup(now)
            now.backup(then)
            then.execute("BEGIN")
            changed = Transaction(then, self._ranges, self._clock, self._randbelow, graceful=self._graceful)
            yield Snapshot(now), changed

    def examine(self) -> None:
        """Look through the whole file for damage, also where nobody reads: some milliseconds for thousands of objects.

        Raises:
            StoreError: it is damaged, or cannot be read.

        """
        with reporting(self.path):
            self._require_file()
            # One that was used before remembers pages as they were.
            with closing(self._connect().connection) as connection:
                found = connection.execute("PRAGMA quick_check(1)").fetchall()
        if found != [("ok",)]:
            raise StoreError(f"{self.path}: {DAMAGED}")

    def watch(self) -> Watch:
        """Return what notices commits, of whomever, and that another file took this one's place; close it as well.

        Raises:
            StoreError: the file cannot be read, or is another one already.

        """
        with reporting(self.path):
            self._require_file()
            return Watch(self.path, self._connect())

    def _has_kubernetes(self) -> bool:
        with self.read() as snapshot:
            return snapshot.get(Service, *KUBERNETES) is not None

    @contextmanager
    def _connection(self) -> Iterator[sqlite3.Connection]:
        """Lend a connection; whatever was not committed is rolled back.

        One that failed is not lent again: what SQLite remembers of a broken file is not to be relied on.
        """
        if self._closed:
            raise StoreError(f"{self.path}: the store is closed")
        connected = self._take()
        failed = False
        try:
            yield connected.connection
        except sqlite3.Error:
            failed = True
            raise
        finally:
            self._give_back(connected, reusable=not failed)

    def _take(self) -> Connected:
        """Return a connection to the file that was opened first."""
        if self._file:
            self._require_file()
        try:
            return self._idle.pop()
        except IndexError:
            return self._connect()

    def _require_file(self) -> None:
        """Make sure that the path is still the file that was opened first.

        Raises:
            StoreError: it is another one, or none. It stays so: once nobody holds a file, a new one may get its number.

        """
        if self._lost or file_id(self.path) != self._file:
            self._lost = True
            self._drop_idle()
            raise StoreError(f"{self.path}: {REPLACED}")

    def _give_back(self, connected: Connected, *, reusable: bool) -> None:
        try:
            if connected.connection.in_transaction:
                connected.connection.execute("ROLLBACK")
        except BaseException:
            connected.connection.close()
            raise
        # SQLite never looks again at what it took for immutable, but others may write to it all the same.
        if reusable and not connected.immutable:
            self._idle.append(connected)
        else:
            connected.connection.close()
        if self._closed or self._lost:  # Perhaps since a moment ago, when another thread found nothing to close.
            self._drop_idle()

    def _drop_idle(self) -> None:
        while self._idle:
            try:
                self._idle.pop().connection.close()
            except IndexError:
                return  # Another thread was faster.

    def _connect(self) -> Connected:
        """Open the file: to write if that is permitted, else to read.

        Raises:
            StoreError: it is not the file that was opened first.

        """
        self.writable = os.access(self.path, os.W_OK) and os.access(self.path.parent, os.W_OK)
        connected = connect(self.path, self._busy_seconds, writable=self.writable)
        try:
            same = not self._file or connected.file == self._file
            if same and self.identity:
                same = _identity(connected.connection) == self.identity
        except BaseException:
            connected.connection.close()
            raise
        if not same:
            connected.connection.close()
            raise StoreError(f"{self.path}: {REPLACED}")
        self._file = connected.file
        return connected

    def _make_file(self, *, create: bool) -> None:
        """Create an empty file if there is none; nothing else may open and close it (SQLite's locks would go)."""
        try:
            if create:
                self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                os.close(os.open(self.path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600))
            else:
                self.path.stat()
        except FileExistsError:
            if not os.path.exists(self.path):  # noqa: PTH110 - Path.exists() raises what it cannot see
                raise StoreError(f"{self.path}: a link to nothing; make it anew, or name another file") from None
        except FileNotFoundError as error:
            if not create:
                raise StoreError(
                    f"{self.path}: no such state file; create or apply something first, or name a lab with --lab"
                ) from error
            raise StoreError(f"{self.path}: cannot create a state file there; name another file") from error
        except OSError as error:
            if not (create and os.path.exists(self.path)):  # noqa: PTH110 - Path.exists() raises what it cannot see
                raise StoreError(
                    f"{self.path}: cannot open or create the state file: {error.strerror}; "
                    "run as root, or name another file"
                ) from error

    def _prepare(self, connection: sqlite3.Connection, migrations: Sequence[Migration]) -> None:
        """Bring the file to today's schema, once it is known to be svcnat's."""
        version = version_of(connection, str(self.path), migrations)
        if self.writable:
            self._set_journal(connection)
        if version < len(migrations):
            if not self.writable:
                raise StoreError(
                    f"{self.path}: an older schema, to be converted, but the file is read-only; run as root"
                )
            migrate(connection, str(self.path), migrations)
        identity = _identity(connection)
        if not identity:
            raise StoreError(f"{self.path}: {DAMAGED}")
        self.identity = identity

    def _set_journal(self, connection: sqlite3.Connection) -> None:
        deadline = time.monotonic() + self._busy_seconds
        (mode,) = connection.execute("PRAGMA journal_mode").fetchone()
        while mode != "wal":
            try:
                (mode,) = connection.execute("PRAGMA journal_mode = WAL").fetchone()
                break
            except sqlite3.OperationalError as error:
                # Another process is about to do the same: for this one lock SQLite does not wait, whatever it was told.
                if not error.sqlite_errorname.startswith("SQLITE_BUSY") or time.monotonic() > deadline:
                    raise
                time.sleep(_JOURNAL_PAUSE)
                (mode,) = connection.execute("PRAGMA journal_mode").fetchone()
        if mode != "wal":
            raise StoreError(f"{self.path}: this file system cannot hold a write-ahead log; use a local disk")


def _in_memory() -> sqlite3.Connection:
    return sqlite3.connect(":memory:", isolation_level=None)


def _identity(connection: sqlite3.Connection) -> str:
    """Return what a state file is known by; empty if it has none."""
    row = connection.execute("SELECT value FROM meta WHERE key = 'identity'").fetchone()
    try:
        return str(uuid.UUID(hex=row[0]))
    except (TypeError, ValueError):
        return ""

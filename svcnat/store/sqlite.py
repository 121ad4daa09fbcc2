"""The state file: opening it, reading it, and changing it in one transaction at a time.

SQLite in WAL mode with synchronous=FULL: after a kill at any moment the file holds the old state or the new one, and
readers never wait for a writer. It belongs on a local disk. What the objects mean is not decided here.
"""

from __future__ import annotations

import os
import secrets
import sqlite3
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import quote

from svcnat.controllers.admission import KUBERNETES
from svcnat.controllers.ranges import NODE_PORTS, SERVICE_CIDRS, Ranges
from svcnat.errors import StoreError
from svcnat.model.objects import Service
from svcnat.store.schema import MIGRATIONS, Migration, migrate, version_of
from svcnat.store.snapshot import Snapshot
from svcnat.store.transaction import Transaction

BUSY_SECONDS = 10.0
"""How long a command waits for another one's transaction."""

_DAMAGED = "the state file is damaged; restore a backup, or move it away to start afresh"


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
    ) -> None:
        self.path = path
        self.writable = False
        self.identity = ""
        self._ranges = ranges
        self._busy_seconds = busy_seconds
        self._clock = clock
        self._randbelow = randbelow
        self._idle: list[sqlite3.Connection] = []
        self._closed = False

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
    ) -> Store:
        """Open a state file, making it (0600, in a folder of 0700) or converting an older one first.

        A new one holds the Service ``default/kubernetes`` at the first address of the first service CIDR. A file that
        may not be written is opened for reading. `load_balancer_pool` are CIDRs or FIRST-LAST; Services that wait for
        an address of a pool that is new get it with the next transaction.

        Raises:
            StoreError: there is none (with ``create=False``), or it is damaged, foreign, newer, or not permitted.
            UsageError: a range of addresses is none.

        """
        ranges = Ranges.of(service_cidrs, node_ports, load_balancer_pool)
        store = cls(Path(path), ranges, busy_seconds, clock, randbelow)
        try:
            store._make_file(create=create)
            with store._reporting(), store._connection() as connection:
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
        while self._idle:
            self._idle.pop().close()

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
        with self._reporting(), self._connection() as connection:
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
            raise StoreError(f"{self.path}: the state file is read-only for this user; run as root")
        with self._reporting(), self._connection() as connection:
            connection.execute("BEGIN IMMEDIATE")
            transaction = Transaction(connection, self._ranges, self._clock, self._randbelow)
            yield transaction
            transaction.finish()
            if not dry_run:
                connection.execute("COMMIT")

    def _has_kubernetes(self) -> bool:
        with self.read() as snapshot:
            return snapshot.get(Service, *KUBERNETES) is not None

    @contextmanager
    def _connection(self) -> Iterator[sqlite3.Connection]:
        """Lend a connection; whatever was not committed is rolled back."""
        if self._closed:
            raise StoreError(f"{self.path}: the store is closed")
        connection = self._idle.pop() if self._idle else self._connect()
        try:
            yield connection
        finally:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            if self._closed:
                connection.close()
            else:
                self._idle.append(connection)

    def _connect(self) -> sqlite3.Connection:
        """Open the file: to write if that is permitted, else to read."""
        path = os.path.abspath(self.path)  # noqa: PTH100 - resolve() would follow links
        base = f"file:{quote(os.fsencode(path))}"
        self.writable = os.access(self.path, os.W_OK) and os.access(self.path.parent, os.W_OK)
        try:
            return self._connect_to(f"{base}?mode={'rw' if self.writable else 'ro'}")
        except sqlite3.OperationalError:
            # Reading WAL mode takes a -shm file, which a read-only folder cannot get. Without a log nothing is lost.
            log = Path(f"{self.path}-wal")
            if self.writable or (log.exists() and log.stat().st_size):
                raise
            return self._connect_to(f"{base}?mode=ro&immutable=1")

    def _connect_to(self, uri: str) -> sqlite3.Connection:
        connection = sqlite3.connect(
            uri, uri=True, isolation_level=None, timeout=self._busy_seconds, check_same_thread=False
        )
        try:
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute("SELECT 1 FROM sqlite_schema").fetchall()  # Only now is the file really opened.
        except BaseException:
            connection.close()
            raise
        return connection

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
                raise StoreError(f"{self.path}: no such state file; create or apply something first") from error
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
        row = connection.execute("SELECT value FROM meta WHERE key = 'identity'").fetchone()
        try:
            self.identity = str(uuid.UUID(hex=row[0]))
        except (TypeError, ValueError) as error:
            raise StoreError(f"{self.path}: {_DAMAGED}") from error

    def _set_journal(self, connection: sqlite3.Connection) -> None:
        (mode,) = connection.execute("PRAGMA journal_mode").fetchone()
        if mode != "wal":
            (mode,) = connection.execute("PRAGMA journal_mode = WAL").fetchone()
        if mode != "wal":
            raise StoreError(f"{self.path}: this file system cannot hold a write-ahead log; use a local disk")

    @contextmanager
    def _reporting(self) -> Iterator[None]:
        """Turn what SQLite says into a StoreError that says what to do."""
        try:
            yield
        except sqlite3.Error as error:
            raise StoreError(f"{self.path}: {_advice(error)}") from error


def _advice(error: sqlite3.Error) -> str:
    name = getattr(error, "sqlite_errorname", "")
    if name.startswith("SQLITE_NOTADB"):
        return "not an svcnat state file; name another file, or move this one away to start afresh"
    if name.startswith("SQLITE_CORRUPT"):
        return _DAMAGED
    if name.startswith("SQLITE_BUSY"):
        return "another command keeps the state file locked; try again when it has finished"
    if name.startswith("SQLITE_READONLY"):
        return "the state file is read-only for this user; run as root"
    if name.startswith(("SQLITE_CANTOPEN", "SQLITE_PERM", "SQLITE_AUTH")):
        return "cannot open the state file: check that it is a file that this user may read, or run as root"
    if name.startswith("SQLITE_FULL"):
        return "the disk is full; nothing was changed"
    if name.startswith("SQLITE_IOERR"):
        return "reading or writing failed: is the disk full or broken, or is this no plain file?"
    return f"the state file cannot be used: {error}"

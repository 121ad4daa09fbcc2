"""Connections to a state file: opening one, knowing which file it is, and saying what SQLite's errors mean.

It knows nothing of what the file holds.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

from svcnat.errors import StoreError

DAMAGED = "the state file is damaged; restore a backup, or move it away to start afresh (-wal and -shm with it)"
READ_ONLY = "the state file is read-only for this user; run as root, on a disk that can be written"
REPLACED = "the state file was moved away or replaced while it was in use; try again"

FileId = tuple[int, int]
"""Device and inode; no other file gets them while a connection is open."""

_TRIES = 3
_COMPANY = ("-journal", "-wal", "-shm")


class UndecodableError(Exception):
    """An object in a state file is not what it says that it is."""


class Connected(NamedTuple):
    """A connection, the file that it is to, and whether SQLite takes that for one that nobody ever writes to."""

    connection: sqlite3.Connection
    file: FileId
    immutable: bool


def file_id(path: Path) -> FileId | None:
    """Return which file is at a path; None if there is none.

    Raises:
        StoreError: it cannot be told, or it is no plain file: SQLite would leave a journal beside a device.

    """
    try:
        status = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise StoreError(
            f"{path}: cannot look at the state file: {reason}; run as root, or name another file"
        ) from error
    if not stat.S_ISREG(status.st_mode):
        raise StoreError(f"{path}: the state file is no plain file: name another one")
    return status.st_dev, status.st_ino


def require_company(path: Path) -> None:
    """Refuse to wait for ever for a pipe in the place of a file that SQLite looks for.

    Raises:
        StoreError: something else than a plain file is there.

    """
    for suffix in _COMPANY:
        beside = Path(f"{path}{suffix}")
        with contextlib.suppress(OSError):
            if not stat.S_ISREG(beside.lstat().st_mode):
                raise StoreError(f"{beside}: no plain file, and in the place of one of the state file's: remove it")


def connect(path: Path, busy_seconds: float, *, writable: bool) -> Connected:
    """Open a file that exists.

    Raises:
        StoreError: it is not there any more, or is replaced over and over, or something odd is beside it.
        sqlite3.Error: it cannot be opened, or is no database.

    """
    require_company(path)
    for _ in range(_TRIES):
        before = file_id(path)
        connection, immutable = _open(path, busy_seconds, writable=writable)
        # A file that is put there in this moment, or that an overlay copies because it is opened, has another number.
        try:
            after = file_id(path)
        except BaseException:
            connection.close()
            raise
        if before is not None and before == after:
            return Connected(connection, before, immutable)
        connection.close()
    raise StoreError(f"{path}: {REPLACED}")


def _open(path: Path, busy_seconds: float, *, writable: bool) -> tuple[sqlite3.Connection, bool]:
    absolute = os.path.abspath(path)  # noqa: PTH100 - resolve() would follow links
    base = f"file:{quote(os.fsencode(absolute))}"
    try:
        return _open_as(f"{base}?mode={'rw' if writable else 'ro'}", busy_seconds), False
    except sqlite3.OperationalError:
        # Reading WAL mode takes a -shm file, which a read-only folder cannot get. Without a log nothing is lost.
        log = Path(f"{path}-wal")
        if writable or (log.exists() and log.stat().st_size):
            raise
        return _open_as(f"{base}?mode=ro&immutable=1", busy_seconds), True


def _open_as(uri: str, busy_seconds: float) -> sqlite3.Connection:
    connection = sqlite3.connect(uri, uri=True, isolation_level=None, timeout=busy_seconds, check_same_thread=False)
    try:
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("SELECT 1 FROM sqlite_schema").fetchall()  # Only now is the file really opened.
    except BaseException:
        connection.close()
        raise
    return connection


@contextlib.contextmanager
def reporting(path: Path) -> Iterator[None]:
    """Turn what SQLite says into a StoreError that says what to do."""
    try:
        yield
    except sqlite3.Error as error:
        raise StoreError(f"{path}: {_advice(error)}") from error
    except UndecodableError as error:
        raise StoreError(f"{path}: {DAMAGED}: {error}") from error
    except UnicodeDecodeError as error:  # of a name in a damaged schema, or of what SQLite says of it
        raise StoreError(f"{path}: {DAMAGED}") from error


def _advice(error: sqlite3.Error) -> str:
    name = getattr(error, "sqlite_errorname", "")
    if name.startswith("SQLITE_NOTADB"):
        return "not an svcnat state file; name another file, or move this one away to start afresh"
    if name.startswith("SQLITE_CORRUPT"):
        return DAMAGED
    if name.startswith("SQLITE_BUSY"):
        return "another command keeps the state file locked; try again when it has finished"
    if name.startswith("SQLITE_READONLY_DBMOVED"):
        return REPLACED
    if name.startswith("SQLITE_READONLY"):
        return READ_ONLY
    if name.startswith(("SQLITE_CANTOPEN", "SQLITE_PERM", "SQLITE_AUTH")):
        return "cannot open the state file: check that it is a file that this user may read, or run as root"
    if name.startswith("SQLITE_FULL"):
        return "the disk is full; nothing was changed: make room and try again"
    if name == "SQLITE_IOERR_SHORT_READ":
        return "its log is another file's; let programs that hold that one end, or take -wal and -shm beside it away"
    if name.startswith("SQLITE_IOERR"):
        return "reading or writing failed: is the disk full or broken?"
    return f"the state file cannot be used: {error}"

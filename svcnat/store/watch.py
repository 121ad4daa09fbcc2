"""Noticing, at the price of two system calls, that somebody changed the state file or put another one in its place.

It reads no objects, waits for nothing and polls nothing by itself: whoever has one decides how often to ask. (inotify
on the write-ahead log fires before a commit is visible.)
"""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Self

from svcnat.store.connections import Connected, FileId, file_id, reporting


class Watch:
    """One reader's view of a state file; a context manager. It serves one thread at a time, any one.

    It holds a connection of its own, which keeps the file's inode from being given to another file.
    """

    def __init__(self, path: Path, connected: Connected) -> None:
        self._path = path
        self._connection, self._file, self._immutable = connected
        self._log = self._log_id()
        self._seen: tuple[int, ...] = ()

    def changed(self) -> bool:
        """Tell whether somebody committed since the last call; the first time: yes.

        It says nothing of another file at the same path: ask :meth:`replaced` for that.

        Raises:
            StoreError: the file cannot be read, or the watch is closed.

        """
        with reporting(self._path):
            (version,) = self._connection.execute("PRAGMA data_version").fetchone()
        seen: tuple[int, ...] = (version,)
        if self._immutable:
            seen += self._written()
        changed, self._seen = seen != self._seen, seen
        return changed

    def replaced(self) -> bool:
        """Tell whether the path is another file now, or none, or has another log.

        Nobody removes the log of a file that we hold, but people who put other content into the file, in place.

        Raises:
            StoreError: it cannot be told: a folder on the way to it may not be entered, or the disk is broken.

        """
        return file_id(self._path) != self._file or (self._log is not None and self._log_id() != self._log)

    def close(self) -> None:
        """Let go of the file."""
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _log_id(self) -> FileId | None:
        return file_id(Path(f"{self._path}-wal"))

    def _written(self) -> tuple[int, ...]:
        """Return what a write changes on the outside: SQLite takes a file that it may not lock for one at rest."""
        found: list[int] = []
        for path in (self._path, Path(f"{self._path}-wal")):
            try:
                status = path.stat()
            except OSError:
                found += (0, 0)
            else:
                found += (status.st_mtime_ns, status.st_size)
        return tuple(found)

"""Writes the log in a thread of its own, so that whoever reads it slowly, or not at all, keeps nobody else waiting.

Records wait in a queue that has an end: when it is full, further ones are counted instead, and the count is told where
they would have stood. What a line looks like is :mod:`svcnat.agent.logs`' subject.
"""

from __future__ import annotations

import contextlib
import copy
import io
import logging
import os
import queue
import select
import threading
from collections.abc import Callable
from typing import TextIO

_MOST_WAITING = 1000
_FAREWELL_SECONDS = 1.0  # how long the end waits for what is still to be written

Write = Callable[[str], object]


class ThreadHandler(logging.Handler):
    """Hands records to a daemon thread, which formats and writes them in order; never waits for it but in the end."""

    def __init__(
        self,
        write: Write,
        prepare: Callable[[logging.LogRecord], logging.LogRecord],
        *,
        most: int = _MOST_WAITING,
        farewell: float = _FAREWELL_SECONDS,
    ) -> None:
        """`prepare` makes a record that holds on to nothing that changes; `most` of them wait."""
        super().__init__()
        self._write, self._prepare, self._most, self._farewell = write, prepare, most, farewell
        # Who is interrupted by a garbage collection that tells of something may be in here twice.
        self._order = threading.RLock()
        self._queue: queue.SimpleQueue[logging.LogRecord | None] = queue.SimpleQueue()
        self._dropped = 0
        self._closed = False
        self._thread = threading.Thread(target=self._work, name="svcnat-log", daemon=True)
        self._thread.start()

    def emit(self, record: logging.LogRecord) -> None:
        """Queue a record, or count it."""
        with self._order:
            # Once full, it is left to empty a bit: one notice for many records, not one for each.
            if self._closed or self._queue.qsize() >= (self._most // 2 if self._dropped else self._most):
                self._dropped += 1
                return
            self._tell_dropped()
            try:
                self._queue.put(self._prepare(record))
            except Exception:  # noqa: BLE001 - whatever an argument's own method raises costs the record alone
                # Not logging's own way, a traceback on standard error, for which somebody might have to wait.
                self._queue.put(_notice(f"a record cannot be told: {record.msg}"))

    def close(self) -> None:
        """Write what is queued, unless that takes too long; what comes later is dropped."""
        with self._order:
            if not self._closed:
                self._tell_dropped()
                self._queue.put(None)
            self._closed = True
        # A thread that hangs in a write holds no lock, and ends with the process.
        self._thread.join(self._farewell)
        super().close()

    def _tell_dropped(self) -> None:
        if self._dropped:
            notice = _notice(f"{self._dropped} records were dropped: whoever reads the log is too slow")
            notice.dropped = self._dropped
            self._queue.put(notice)
            self._dropped = 0

    def _work(self) -> None:
        while (record := self._queue.get()) is not None:
            # A reader that has gone, or a full disk: there is nobody to tell.
            with contextlib.suppress(OSError, ValueError):
                self._write(self.format(record) + "\n")
            if self._dropped and self._queue.empty():
                with self._order:
                    if not self._closed:
                        self._tell_dropped()


def lasting(record: logging.LogRecord) -> logging.LogRecord:
    """Return a copy with its message made, and its traceback, which would keep all that the failed functions knew."""
    kept = copy.copy(record)
    kept.msg, kept.args = record.getMessage(), None
    if record.exc_info:
        kept.exc_text = record.exc_text or logging.Formatter().formatException(record.exc_info)
    kept.exc_info = None
    return kept


def writing(stream: TextIO) -> Write:
    """How to write to a stream without its lock, if it is a file: a stalled write would keep others from flushing it.

    One of those others is the interpreter at its end.
    """
    try:
        descriptor = stream.fileno()
    except (OSError, ValueError, io.UnsupportedOperation):  # no file at all
        return stream.write
    encoding = stream.encoding or "utf-8"

    def write(text: str) -> None:
        data = text.encode(encoding, errors="backslashreplace")
        while data:
            try:
                data = data[os.write(descriptor, data) :]
            except BlockingIOError:  # somebody who shares it made it so
                waiting = select.poll()
                waiting.register(descriptor, select.POLLOUT)
                waiting.poll()

    return write


def _notice(text: str) -> logging.LogRecord:
    return logging.LogRecord(__name__, logging.WARNING, __file__, 0, text, None, None)

"""The agent's log: one line for each record, as text for people or as JSON for machines.

Whatever text a record holds, from objects, files or other programs, it stays on its line and colours nothing. Fields
come from ``extra``: ``logger.info("repaired", extra={"node": "n1", "service": "default/web"})``. Where the lines go
from here is the business of whoever started the process.
"""

from __future__ import annotations

import json
import logging
import math
import os
import sys
import traceback
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Literal, TextIO

from svcnat.agent.log_thread import ThreadHandler, lasting, writing
from svcnat.model.quoting import printable

Format = Literal["text", "json"]

_LONGEST = 4000  # characters of a value: journald cuts lines at 48 KiB
_STANDARD = {*vars(logging.makeLogRecord({})), "message", "asctime", "taskName"}
_PRIORITIES = ((logging.CRITICAL, 2), (logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6))  # syslog(3)


def configure(
    format: Format | None = None,  # noqa: A002 - the name of the flag
    *,
    level: int = logging.INFO,
    stream: TextIO | None = None,
    environment: Mapping[str, str] = os.environ,
    patient: bool = True,
) -> logging.Handler:
    """Send every record of the process to `stream` (standard error); returns the only handler that does.

    Without a format: text on a terminal, else JSON. A stream that is journald's gets each record's priority with it.
    Who is not `patient`, because there is other work to do, does not wait until a record is written: it may be dropped.
    """
    stream = stream or sys.stderr
    handler = logging.StreamHandler(stream) if patient else ThreadHandler(writing(stream), _lasting)
    formatter = TextFormatter if (format or ("text" if stream.isatty() else "json")) == "text" else JsonFormatter
    handler.setFormatter(formatter(priorities=_is_journal(stream, environment)))
    root = logging.getLogger()
    for before in list(root.handlers):
        root.removeHandler(before)
        if isinstance(before, ThreadHandler):
            before.close()
    root.addHandler(handler)
    root.setLevel(level)
    return handler


def _lasting(record: logging.LogRecord) -> logging.LogRecord:
    """A record for another thread: its fields, too, are what they are now."""
    kept = lasting(record)
    vars(kept).update({key: _plain(value) for key, value in _fields(record).items()})
    return kept


def leave_out_clients(logger: logging.Logger) -> logging.Logger:
    """Of an aiohttp server's logger, keep our mistakes: anybody may send us garbage, gets their 400 and no word."""
    logger.addFilter(_ours)  # of the same filter, only one is added
    return logger


def _ours(record: logging.LogRecord) -> bool:
    from aiohttp.http_exceptions import HttpProcessingError

    return not (record.exc_info and isinstance(record.exc_info[1], HttpProcessingError))


class JsonFormatter(logging.Formatter):
    """An object a line: ts (UTC, RFC 3339), level, msg, logger, and the record's fields; error, traceback of a bug."""

    def __init__(self, *, priorities: bool = False) -> None:
        super().__init__()
        self._priorities = priorities

    def format(self, record: logging.LogRecord) -> str:
        """One record, one line."""
        said: dict[str, object] = {
            "ts": _time(record),
            "level": record.levelname.lower(),
            "msg": _message(record),
            "logger": record.name,
        }
        said |= {key: _plain(value) for key, value in _fields(record).items() if key not in said}
        if record.exc_info or record.exc_text:
            said |= {"traceback": _cut("\n".join(_traceback(record)))}
        return _priority(record, self._priorities) + printable(json.dumps(said, ensure_ascii=False))


class TextFormatter(logging.Formatter):
    """``TIME LEVEL message key=value``; a bug's traceback follows on indented lines."""

    def __init__(self, *, priorities: bool = False) -> None:
        super().__init__()
        self._priorities = priorities

    def format(self, record: logging.LogRecord) -> str:
        """One record, one line, but for tracebacks."""
        parts = [_time(record), f"{record.levelname:7}", printable(_message(record))]
        parts += [f"{printable(str(key))}={_value(value)}" for key, value in _fields(record).items()]
        lines = [" ".join(parts)]
        if record.exc_info or record.exc_text:
            lines += [f"    {printable(_cut(line))}" for line in _traceback(record)]
        prefix = _priority(record, self._priorities)
        return "\n".join(prefix + line for line in lines)


def _time(record: logging.LogRecord) -> str:
    moment = datetime.fromtimestamp(record.created, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _message(record: logging.LogRecord) -> str:
    return _cut(record.getMessage())


def _fields(record: logging.LogRecord) -> dict[str, object]:
    return {key: value for key, value in vars(record).items() if key not in _STANDARD}


def _plain(value: object) -> object:
    """A value that JSON has a word for."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value if isinstance(value, bool | int | float | None) else _cut(str(value))


def _value(value: object) -> str:
    text = _cut(str(value))
    return text if text.isprintable() and text and not set(text) & set(' "=') else printable(json.dumps(text))


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST else text[:_LONGEST] + "..."


def _traceback(record: logging.LogRecord) -> list[str]:
    if record.exc_info:
        return "".join(traceback.format_exception(*record.exc_info)).rstrip().splitlines()
    return (record.exc_text or "").rstrip().splitlines()


def _priority(record: logging.LogRecord, wanted: bool) -> str:  # noqa: FBT001
    """The prefix from which journald knows how grave a line is (sd-daemon(3)); other readers would see it."""
    if not wanted:
        return ""
    return f"<{next((priority for level, priority in _PRIORITIES if record.levelno >= level), 7)}>"


def _is_journal(stream: TextIO, environment: Mapping[str, str]) -> bool:
    """True if the stream is the one that systemd connected to the journal (systemd.exec(5), JOURNAL_STREAM)."""
    try:
        status = os.fstat(stream.fileno())
    except (OSError, ValueError):  # no file at all, as in tests
        return False
    return environment.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"

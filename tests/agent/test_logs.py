"""The log: one line a record, whatever it says; for people on a terminal, for machines elsewhere."""

from __future__ import annotations

import io
import json
import logging
import os
import re
import subprocess
import sys
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from svcnat.agent.logs import JsonFormatter, TextFormatter, configure

HOSTILE = 'a\nb\r\x1b[31m\x00\x7f\x85\u2028\u202e\udcff "=\\'


@pytest.fixture
def untouched() -> Iterator[None]:
    """The root logger, put back as it was."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers[:], root.level = handlers, level


def record(message: object, *arguments: object, **extra: object) -> logging.LogRecord:
    logger = logging.getLogger("svcnat.agent.keeper")
    return logger.makeRecord(logger.name, logging.WARNING, __file__, 1, message, arguments, None, extra=extra)


def test_json() -> None:
    """The keys are ts, level, msg, logger and the record's own fields, of JSON's types."""
    line = JsonFormatter().format(record("%s of %d", "two", 3, node="n1", service="default/web", took=0.25, ok=True))
    assert "\n" not in line
    said = json.loads(line)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", said.pop("ts"))
    assert said == {
        "level": "warning",
        "msg": "two of 3",
        "logger": "svcnat.agent.keeper",
        "node": "n1",
        "service": "default/web",
        "took": 0.25,
        "ok": True,
    }


def test_text() -> None:
    """A line for people: time, level, message, fields; values with blanks are quoted."""
    line = TextFormatter().format(record("repaired", node="n1", by="nft -f x", took=1))
    assert re.fullmatch(r'\S+Z WARNING repaired node=n1 by="nft -f x" took=1', line)


def test_hostile_text() -> None:
    """Whatever an object's name, a path or another program's name holds, it breaks and colours no line."""
    for formatter in (JsonFormatter(), TextFormatter()):
        line = formatter.format(record("named %s", HOSTILE, service=HOSTILE, **{"k\ney": HOSTILE}))
        assert line.isprintable()
        line.encode()
    said = json.loads(JsonFormatter().format(record("%s", HOSTILE, service=HOSTILE)))
    assert said["msg"] == said["service"] == HOSTILE


@settings(derandomize=True)
@given(st.text(), st.text())
def test_any_text(message: str, value: str) -> None:
    """JSON says exactly what was said; text is one printable line."""
    said = json.loads(JsonFormatter().format(record("%s", message, service=value)))
    assert (said["msg"], said["service"]) == (message, value)
    assert TextFormatter().format(record("%s", message, service=value)).isprintable()


def test_fields_do_not_replace_ours() -> None:
    """A field named like a key of every line does not hide it; what is not JSON's is text; what is long is cut."""
    said = json.loads(JsonFormatter().format(record("m", level="x", ts=1, change=frozenset({1}), big="x" * 10_000)))
    assert said["level"] == "warning"
    assert said["change"] == "frozenset({1})"
    assert len(said["big"]) == 4003
    assert json.loads(JsonFormatter().format(record("m", ratio=float("nan"))))["ratio"] == "nan"


def test_bugs_keep_their_traceback() -> None:
    """On indented lines for people, so that no line of it looks like a record; in one key for machines."""
    try:
        int("first\n2026-01-01T00:00:00.000Z ERROR forged\x1b[31m")
    except ValueError:
        given = record("a bug")
        given.exc_info = sys.exc_info()
    first, *rest = TextFormatter().format(given).split("\n")
    assert first.endswith("a bug")
    assert all(line.startswith("    ") and line.isprintable() for line in rest)
    assert any("forged" in line for line in rest)
    line = JsonFormatter().format(given)
    assert line.isprintable()
    assert json.loads(line)["traceback"].startswith("Traceback (most recent call last):\n")


def test_a_message_that_does_not_fit_its_arguments(untouched: None) -> None:
    """A slip in a logging call costs the record, not the agent."""
    stream = io.StringIO()
    configure("json", stream=stream)
    logging.raiseExceptions, before = False, logging.raiseExceptions
    try:
        logging.getLogger("svcnat").warning("%d", "x")
    finally:
        logging.raiseExceptions = before
    logging.getLogger("svcnat").warning("next")
    assert json.loads(stream.getvalue())["msg"] == "next"


def test_configure(untouched: None) -> None:
    """JSON where no terminal is, text by flag, from the level on; a second call replaces the first."""
    first, second = io.StringIO(), io.StringIO()
    configure(stream=first)
    configure("text", stream=second, level=logging.WARNING)
    logging.getLogger("svcnat.agent").info("not said")
    logging.getLogger("svcnat.agent").warning("said", extra={"node": "n1"})
    assert first.getvalue() == ""
    assert second.getvalue().endswith(" WARNING said node=n1\n")
    configure(stream=first)
    logging.getLogger("svcnat.agent").info("now")
    assert json.loads(first.getvalue())["msg"] == "now"


def test_terminal(untouched: None) -> None:
    """A terminal gets text."""
    leader, follower = os.openpty()
    with os.fdopen(leader, "rb", buffering=0) as seen, os.fdopen(follower, "w") as terminal:
        configure(stream=terminal)
        logging.getLogger("svcnat").warning("to people")
        assert b" WARNING to people" in seen.read(1000)


def test_journal() -> None:
    """Under systemd each line carries its priority, for `journalctl -p warning`; a stream of others does not."""
    program = (
        "import logging, os, sys; from svcnat.agent.logs import configure; status = os.fstat(2)\n"
        "os.environ['JOURNAL_STREAM'] = f'{status.st_dev}:{status.st_ino + int(sys.argv[1])}'\n"
        "configure(level=logging.DEBUG)\n"
        "log = logging.getLogger('svcnat')\n"
        "for say in (log.debug, log.info, log.warning, log.error, log.critical): say('x')\n"
    )
    lines = {}
    for other in (0, 1):
        done = subprocess.run(
            [sys.executable, "-c", program, str(other)], stderr=subprocess.PIPE, text=True, check=True, timeout=60
        )
        lines[other] = done.stderr.splitlines()
    assert [line[:4] for line in lines[0]] == ["<7>{", "<6>{", "<4>{", "<3>{", "<2>{"]
    assert all(json.loads(line)["msg"] == "x" for line in lines[1])

"""The log of who has other work: whoever reads it slowly, or not at all, keeps nobody waiting."""

from __future__ import annotations

import contextlib
import fcntl
import gc
import json
import logging
import os
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from svcnat.agent.log_thread import ThreadHandler, lasting, writing
from svcnat.agent.logs import configure
from svcnat.kernel import netns
from svcnat.kernel.libnftables import Libnftables
from svcnat.store.sqlite import Store
from tests.agent.running import differences, web
from tests.agents import PATIENCE, Agent, until


class Slow:
    """Writes nothing until it may."""

    def __init__(self) -> None:
        self.may, self.lines = threading.Event(), list[str]()
        self.waits = threading.Event()

    def __call__(self, text: str) -> None:
        self.waits.set()
        assert self.may.wait(PATIENCE)
        self.lines.append(text.rstrip("\n"))


@pytest.fixture
def slow() -> Iterator[Slow]:
    made = Slow()
    yield made
    made.may.set()


@pytest.fixture
def making(slow: Slow) -> Iterator[Callable[..., tuple[ThreadHandler, logging.Logger]]]:
    """A function that makes a handler, which is closed at the end, and a logger for it alone."""
    handlers: list[ThreadHandler] = []

    def make(**how: Any) -> tuple[ThreadHandler, logging.Logger]:
        handlers.append(ThreadHandler(slow, how.pop("prepare", lasting), **how))
        logger = logging.Logger("test")
        logger.addHandler(handlers[-1])
        return handlers[-1], logger

    yield make
    slow.may.set()
    for each in handlers:
        each.close()


def test_what_is_too_much_is_counted(slow: Slow, making: Callable[..., Any]) -> None:
    """In order; where records are missing it says how many, once, and before those that come after."""
    handler, logger = making(most=10)
    logger.info("first")
    assert slow.waits.wait(PATIENCE)
    for number in range(25):
        logger.info("%d", number)
    slow.may.set()
    until(lambda: len(slow.lines) >= 12, "all that waited, and the notice, though nothing more is said")
    logger.info("last")
    handler.close()
    notice = "15 records were dropped: whoever reads the log is too slow"
    assert slow.lines == ["first", *map(str, range(10)), notice, "last"]


def test_a_record_says_what_was_true_when_it_was_made(slow: Slow, making: Callable[..., Any]) -> None:
    """Whatever changes until it is written; and it keeps nothing of a failed function alive."""
    _, logger = making()
    logger.info("first")
    changing = ["then"]

    class Held:
        pass

    def fail() -> weakref.ref[Held]:
        held = Held()
        kept = weakref.ref(held)
        try:
            int("oops")
        except ValueError:
            logger.exception("%s", changing)
        return kept

    kept = fail()
    changing[0] = "now"
    gc.collect()
    assert kept() is None
    slow.may.set()
    until(lambda: len(slow.lines) == 2, "written")
    assert slow.lines[1].startswith("['then']\nTraceback")
    assert slow.lines[1].endswith("'oops'")


def test_a_record_that_cannot_be_made_costs_itself(slow: Slow, making: Callable[..., Any], capfd) -> None:
    """It is told of in the log, not on standard error."""
    _, logger = making()
    slow.may.set()
    logger.info("%d", "x")
    logger.info("next")
    until(lambda: len(slow.lines) == 2, "written")
    assert slow.lines == ["a record cannot be told: %d", "next"]
    assert capfd.readouterr() == ("", "")


def test_the_end_waits_no_longer_than_it_may(slow: Slow, making: Callable[..., Any]) -> None:
    """What cannot be written is given up; what is said later is nobody's."""
    handler, logger = making(farewell=0.05)
    for number in range(5):
        logger.info("%d", number)
    handler.close()
    logger.info("too late")
    slow.may.set()
    until(lambda: len(slow.lines) == 5, "the thread was not ended, only not waited for")
    handler.close()
    assert len(slow.lines) == 5


def test_a_reader_that_has_gone_ends_nothing() -> None:
    """Neither does a full disk: later records are tried again."""
    tried = []

    def write(text: str) -> None:
        tried.append(text)
        raise BrokenPipeError

    handler = ThreadHandler(write, lasting)
    logger = logging.Logger("test")
    logger.addHandler(handler)
    logger.info("one")
    logger.info("two")
    handler.close()
    assert tried == ["one\n", "two\n"]


def test_a_pipe_that_does_not_block_gets_all_of_it() -> None:
    """Whoever shares it may have made it so; a line is written whole, however often one has to wait."""
    reading, descriptor = os.pipe()
    os.set_blocking(descriptor, False)
    fcntl.fcntl(descriptor, fcntl.F_SETPIPE_SZ, 4096)
    text = "x" * 100_000 + "\u2028\udcff\n"
    with os.fdopen(descriptor, "w", encoding="ascii") as stream, os.fdopen(reading, "rb") as reader:
        thread = threading.Thread(target=writing(stream), args=(text,))
        thread.start()
        assert reader.read(100_013).endswith(b"x\\u2028\\udcff\n")
        thread.join()


def test_fields_and_tracebacks_come_through(tmp_path: Path) -> None:
    """As they do without the thread."""
    root = logging.getLogger()
    before, level = list(root.handlers), root.level
    lines: list[list[dict[str, object]]] = []
    try:
        for patient in (True, False):
            file = tmp_path / str(patient)
            with file.open("w") as stream:
                handler = configure("json", stream=stream, patient=patient)
                try:
                    int("x")
                except ValueError:
                    logging.getLogger("svcnat").exception("a %s", "bug", extra={"node": "n", "set": {1}, "ok": True})
                handler.close()
            lines.append([json.loads(line) for line in file.read_text().splitlines()])
    finally:
        root.handlers[:], root.level = before, level
    for (line,) in lines:
        line.pop("ts")
    assert lines[0] == lines[1]
    assert lines[1][0]["set"] == "{1}"
    assert str(lines[1][0]["traceback"]).startswith("Traceback")


def test_a_process_writes_what_is_queued_before_it_ends() -> None:
    """Nobody has to say so."""
    program = (
        "import logging; from svcnat.agent.logs import configure; configure('text', patient=False)\n"
        "for number in range(300): logging.getLogger('svcnat').info('line %d', number)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], stderr=subprocess.PIPE, text=True, check=True, timeout=60)
    assert [line.split()[-1] for line in done.stderr.splitlines()] == [str(number) for number in range(300)]


@contextlib.contextmanager
def unread(place: Path) -> Iterator[int]:
    """A FIFO with room for a few lines, which somebody has open and does not read."""
    os.mkfifo(place)
    descriptor = os.open(place, os.O_RDWR | os.O_NONBLOCK)
    try:
        fcntl.fcntl(descriptor, fcntl.F_SETPIPE_SZ, 4096)
        yield descriptor
    finally:
        os.close(descriptor)


def is_full(descriptor: int) -> bool:
    """True if not even a short line has room."""
    try:
        os.write(descriptor, b"\n" * 100)
    except BlockingIOError:
        return True
    return False


@pytest.mark.slow
def test_an_agent_whose_log_nobody_reads_repairs_its_rules(folder: Path, store: Store, empty_netns: str) -> None:
    """All the same, and ends when it is told to; whoever reads again gets what was said in the meantime, in order."""
    web(store)
    with unread(folder / "agent.log") as log, Agent(folder, empty_netns) as agent:
        with netns.entered(empty_netns):
            nft = Libnftables()
        for number in range(1, 401):
            nft.commit("flush ruleset")
            until(lambda number=number: _drift(agent) >= number, f"repair {number}")
        assert not differences(agent.state, empty_netns)
        text = bytearray(os.read(log, 65536))
        assert text.count(b"somebody else changed the rules") < 400  # there was no room for more

        def read_all() -> bool:
            with contextlib.suppress(BlockingIOError):
                text.extend(os.read(log, 65536))
            return text.count(b"somebody else changed the rules") >= 400

        until(read_all, "the log goes on where it stood")
        while not is_full(log):
            nft.commit("flush ruleset")
            time.sleep(0.01)
        assert agent.end() == 0
    stamps = [json.loads(line)["ts"] for line in text.splitlines() if line.startswith(b"{") and line.endswith(b"}")]
    assert stamps == sorted(stamps)


def _drift(agent: Agent) -> int:
    """How often somebody else's changes were repaired."""
    state = agent.ask()
    return state.targets[0].drift if state and state.targets[0].state == "synced" else -1

"""Agents as processes of their own: how tests start one, read its log, ask how it fares, and end it in every way.

Whoever uses this sets SVCNAT_RUNTIME_DIR to a folder of its own first (:func:`runtime` does), or agents would listen
where those of the machine do.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TypeVar

from svcnat.agent.control import AgentState, Client, Verify, socket_of_netns, socket_of_state

PATIENCE = 60.0  # seconds until something that has to happen counts as missing, on a machine that is busy
CONFIG = """\
apiVersion: svcnat.io/v1alpha1
kind: Configuration
metricsBindAddress: ""
healthzBindAddress: ""
"""
"""A configuration of an agent that serves no pages: their ports are the machine's."""

T = TypeVar("T")


@contextlib.contextmanager
def runtime() -> Iterator[Path]:
    """A folder with a short name for sockets and files, which is the runtime folder of this process and its agents."""
    with tempfile.TemporaryDirectory(prefix="svcnat-") as folder:
        before = os.environ.get("SVCNAT_RUNTIME_DIR")
        os.environ["SVCNAT_RUNTIME_DIR"] = folder
        try:
            yield Path(folder)
        finally:
            del os.environ["SVCNAT_RUNTIME_DIR"]
            if before is not None:
                os.environ["SVCNAT_RUNTIME_DIR"] = before


def until(condition: Callable[[], T], what: str, patience: float = PATIENCE) -> T:
    """Wait for a condition, and return what it said."""
    deadline = time.monotonic() + patience
    while not (found := condition()):
        assert time.monotonic() < deadline, f"not in {patience} seconds: {what}"
        time.sleep(0.01)
    return found


class Agent:
    """One agent, begun again as often as it is asked to; a context manager, which leaves no process."""

    def __init__(
        self,
        folder: Path,
        where: str,
        *flags: str,
        config: str = CONFIG,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """An agent for the namespace `where`, with its files in `folder`; it follows ``state.db`` there.

        With ``-f`` among `flags` it follows manifests.
        """
        self.state, self.config, self.log = folder / "state.db", folder / "config.yaml", folder / "agent.log"
        self.config.write_text(config)
        follows = [] if "-f" in flags else ["--state", str(self.state)]
        self.command = [sys.executable, "-m", "svcnat", "run", "--netns", where, "--config", str(self.config)]
        self.command += [*follows, *flags]
        self.socket = socket_of_state(self.state) if follows else socket_of_netns(where)
        self._environment = dict(os.environ) | {"PYTHONFAULTHANDLER": "1"} | dict(environment or {})
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Agent:
        return self.begin()

    def __exit__(self, *_: object) -> None:
        if self._process and self._process.poll() is None:
            self.end()

    @contextlib.contextmanager
    def begun(self) -> Iterator[Agent]:
        """As a context manager, too, but it does not wait for the first pass."""
        self.begin(wait=False)
        with contextlib.ExitStack() as stack:
            stack.push(self.__exit__)
            yield self

    @property
    def pid(self) -> int:
        """Of the agent that was begun last."""
        assert self._process
        return self._process.pid

    @property
    def is_alive(self) -> bool:
        """True while its process is there."""
        return self._process is not None and self._process.poll() is None

    def begin(self, *, wait: bool = True) -> Agent:
        """Start it; returns after the first pass, if that is to be waited for."""
        assert self._process is None or self._process.poll() is not None
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(self.command, stdout=log, stderr=log, env=self._environment)
        if wait:
            self.wait()
        return self

    def wait(self) -> None:
        """Wait until the first pass is over."""

        def answers() -> AgentState | None:
            assert self._process
            assert self._process.poll() is None, f"the agent ended: {self.log.read_text()}"
            return self.ask()

        until(answers, "the agent's first pass")

    def ask(self, *, deep: bool = False) -> AgentState | None:
        """How it fares; None if it does not listen."""
        with contextlib.ExitStack() as stack:
            client = Client.find(self.socket)
            return stack.enter_context(client).ask(Verify(deep)).state if client else None

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        assert self._process
        self._process.send_signal(number)

    def kill(self) -> None:
        """End it without a warning."""
        assert self._process
        self._process.kill()
        self._process.wait()

    def end(self) -> int:
        """Ask it to end, wait until it has, and return its exit code."""
        self.signal(signal.SIGTERM)
        return self.exit_code()

    def exit_code(self) -> int:
        """Wait until it has ended."""
        assert self._process
        try:
            return self._process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self.signal(signal.SIGABRT)  # it tells where it hangs
            self._process.wait()
            raise AssertionError(f"the agent does not end: {self.log.read_text()[-10_000:]}") from None

    def said(self, *words: str, since: int = 0) -> str:
        """The first line of its log, after so many lines, that has all of these words; "" if there is none."""
        for line in self.lines()[since:]:
            if all(word in line for word in words):
                return line
        return ""

    def lines(self) -> list[str]:
        """What it said so far: the messages of its log with what belongs to them, and what was printed."""
        return [_in_words(line) for line in self.log.read_text().splitlines()]

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run a command of svcnat's with the flags of this agent that say where and on what."""
        common = self.command[self.command.index("run") + 1 :]
        command = [*self.command[: self.command.index("run")], *words, *common]
        return subprocess.run(command, capture_output=True, text=True, env=self._environment, check=False)


def _in_words(line: str) -> str:
    """A line of the log as one would read it: the message, then the other fields."""
    try:
        fields = json.loads(line)
    except json.JSONDecodeError:
        return line
    return " ".join([str(fields.pop("msg", "")), *(f"{key}={value}" for key, value in fields.items())])


def memory(pid: int) -> float:
    """The resident memory of a process, in MiB."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    return next(int(line.split()[1]) / 1024 for line in status.splitlines() if line.startswith("VmRSS"))

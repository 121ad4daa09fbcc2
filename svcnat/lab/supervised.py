"""What a supervisor looks after: the containers of a pod, each with a process, a pause, or an end.

Nothing here waits: whoever has a :class:`Pod` tells it what ended, and when time has passed. When a container is
started again is :mod:`svcnat.lab.restarts`' decision.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import time
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from pathlib import Path

from svcnat.dns.listening import EVERYWHERE, listen
from svcnat.errors import SvcnatError
from svcnat.kernel import holes, netns, surroundings
from svcnat.lab import restarts
from svcnat.lab.supervision import LONGEST_MESSAGE, Crew, CrewState, Ended, Task, TaskState

_LONGEST_LOG = 10 << 20  # bytes of a run's log; the kubelet's containerLogMaxSize
_KEPT_LOGS = 10  # runs of a container whose logs are kept
_OUT_OF_THE_WAY = 16  # beyond the descriptors that a process gets
_NOT_STARTED = 128  # the exit code of a container that could not be started

# Python ignores these, and what it starts would, too.
_IGNORED_BY_PYTHON = (signal.SIGPIPE, signal.SIGXFSZ)


class Process:
    """A container: its process, or how long it waits for the next one, or how the last one ended."""

    def __init__(self, crew: Crew, task: Task, house: Callable[[], int]) -> None:
        self.crew, self.task, self._house = crew, task, house
        self.pid = 0
        self.restarts = task.restarts
        self.last = task.ended
        self.due: float | None = None  # when it starts again, by the monotonic clock
        self.held = False  # it would have started, but for its trouble
        self._wait = 0.0
        self._mounts = -1
        self._sockets: list[int] = []
        self._since, self._began = "", 0.0
        self._back_off = restarts.BackOff(crew.back_off)
        self._run = 0
        self._asked = False
        self._log: Path | None = None
        self._logged = 0

    @property
    def begun(self) -> bool:
        """True if it was started, whatever became of it."""
        return bool(self.pid or self.last) or self.due is not None

    @property
    def over(self) -> bool:
        """True if it has ended for good."""
        return self.last is not None and not self.pid and self.due is None and not self.held

    @property
    def failed(self) -> bool:
        """True if it has ended for good, and not well."""
        return self.over and self.last is not None and self.last.code != 0

    @property
    def holds_up(self) -> bool:
        """True if those after it have to wait: for an init container to succeed, for a sidecar to run."""
        if self.task.part == "init":
            return not self.over or self.failed
        return self.task.part == "sidecar" and not self.pid

    @property
    def state(self) -> TaskState:
        """What there is to tell."""
        return TaskState(
            self.task.name,
            self.restarts,
            self._since if self.pid else "",
            self._wait if self.due is not None else 0.0,
            self.last,
            self.task.trouble[:LONGEST_MESSAGE] if self.held else "",
        )

    def start(self) -> None:
        """Run the command; one that cannot be run has ended at once, one that lacks something waits for it."""
        self.due, self._asked = None, False
        self.held = bool(self.task.trouble)
        if self.held:
            return
        self._since, self._began = _now(), time.monotonic()
        try:
            with contextlib.ExitStack() as opened:
                # Now: what the container sees may hide them.
                said = _open(opened, self._next_log(), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
                proc = _open(opened, Path("/proc"), os.O_PATH | os.O_DIRECTORY)
                crew, house = self.crew, self._house()
                self._open_sockets()
                self.pid, self._mounts = surroundings.call(
                    None if self._sockets else crew.netns,
                    crew.seen_by(self.task.name),
                    crew.hostname,
                    lambda: (self._spawn(said), surroundings.mounts(proc)),
                    house,
                )
        except Exception as error:  # noqa: BLE001 - what is wrong with one must never end the others
            why = self._why(error)[:LONGEST_MESSAGE]
            self._end(Ended(_NOT_STARTED, self._since, _now(), reason="StartError", message=why))

    def _why(self, error: Exception) -> str:
        if isinstance(error, SvcnatError):
            return str(error)
        told = error.strerror if isinstance(error, OSError) else f"{type(error).__name__}: {error}"
        return f"cannot run {self.task.command[0]!r}: {told}"

    def _spawn(self, said: int) -> int:
        # In a thread whose current folder is its own.
        os.chdir(self.task.folder)
        null = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        try:
            return os.posix_spawn(
                self.task.command[0],
                list(self.task.command),
                {"PATH": self.crew.path, "HOME": "/root", **self.crew.environments.get(self.task.name, {})},
                file_actions=[
                    (os.POSIX_SPAWN_DUP2, mine, its) for its, mine in enumerate((null, said, said, *self._sockets))
                ],
                setsid=True,
                setsigdef=_IGNORED_BY_PYTHON,
            )
        finally:
            os.close(null)

    def _open_sockets(self) -> None:
        if self.task.port and not self._sockets:
            with netns.entered(self.crew.netns):
                opened = [listen((address, self.task.port)) for address in EVERYWHERE]
            for each in opened:
                # None is to be overwritten by another on its way to where the process expects it.
                self._sockets += (
                    fcntl.fcntl(one, fcntl.F_DUPFD_CLOEXEC, _OUT_OF_THE_WAY) for one in (each.udp, each.tcp)
                )
                each.close()

    def close_sockets(self) -> None:
        """Answer at no port any more: whoever comes now is refused."""
        for each in self._sockets:
            os.close(each)
        self._sockets = []

    def _next_log(self) -> Path:
        folder = Path(self.crew.logs, self.task.name)
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not self._run:
            self._run = max((int(file.stem) for file in folder.glob("*.log") if file.stem.isdecimal()), default=0)
        self._run += 1
        (folder / f"{self._run - _KEPT_LOGS}.log").unlink(missing_ok=True)
        self._log, self._logged = folder / f"{self._run}.log", 0
        return self._log

    def bound_log(self) -> bool:
        """Forget the beginning of a log that has become too long; True if it grows fast."""
        if not self.pid or self._log is None:
            return False
        with contextlib.suppress(OSError):
            found = self._log.stat()
            grown, self._logged = found.st_size - self._logged, found.st_size
            if found.st_blocks * 512 > _LONGEST_LOG:
                descriptor = os.open(self._log, os.O_RDWR | os.O_CLOEXEC)
                try:
                    holes.forget(descriptor, found.st_size - _LONGEST_LOG // 2)
                finally:
                    os.close(descriptor)
            return grown > _LONGEST_LOG // 8
        return False

    def ended(self, status: int) -> None:
        """The process is no more; `status` is what waitpid(2) told."""
        code = os.waitstatus_to_exitcode(status)
        number = -code if code < 0 else 0
        code = 128 + number if number else code
        self.pid = 0
        self.clear_away()
        self._end(Ended(code, self._since, _now(), number, "Error" if code else "Completed"))

    def _end(self, how: Ended) -> None:
        self.pid = 0
        self.last = how
        if restarts.comes_back(restarts.policy_of(self.task.part, self.crew.policy), how.code):
            now = time.monotonic()
            self._wait, self._back_off = self._back_off.after(now - self._began)
            self.due = now + self._wait

    def restart(self) -> None:
        """Start it again."""
        self.restarts += not self.task.trouble
        self.start()

    def renew(self, crew: Crew, task: Task) -> None:
        """Take what is known now, for the next start; one that waited for it starts again."""
        self.crew, self.task = crew, task
        if self.held and not task.trouble:
            self.held = False
            if self.last:
                self.restart()

    def ask(self) -> None:
        """Ask the process to end, once."""
        if self.pid and not self._asked:
            self._asked = True
            _kill([self.pid], signal.SIGTERM)

    def clear_away(self) -> None:
        """End what the container's process left behind, which is all that has its mounts."""
        if self._mounts >= 0:
            _kill(surroundings.processes_with(self._mounts), signal.SIGKILL)
            os.close(self._mounts)
        self._mounts = -1


class Pod:
    """The containers of a pod; `deadline` is when those that were asked to end are made to."""

    def __init__(self, crew: Crew) -> None:
        self.crew = crew
        self.processes = [Process(crew, task, self._open_house) for task in crew.tasks]
        self.leaving = False
        self.deadline: float | None = None
        self._keeper = 0
        self._house = -1

    def _open_house(self) -> int:
        """A pidfd of where its processes are to be, and see only each other."""
        if self._house < 0:
            self._keeper = surroundings.open_house()
            self._house = os.pidfd_open(self._keeper)
        return self._house

    def house(self) -> int:
        """A pidfd of where its processes are, for the caller to close; -1 if there is none."""
        return os.dup(self._house) if self._house >= 0 else -1

    def close_house(self, pid: int = 0) -> None:
        """End what is left there; with a `pid`, if that process kept it, and has ended."""
        if self._house >= 0 and pid in (0, self._keeper):
            if not pid:
                signal.pidfd_send_signal(self._house, signal.SIGKILL)
            os.close(self._house)
            self._house, self._keeper = -1, 0

    @property
    def empty(self) -> bool:
        """True if none of its containers has a process."""
        return not any(process.pid for process in self.processes)

    @property
    def state(self) -> CrewState:
        """What there is to tell."""
        return CrewState(self.crew.key, tuple(process.state for process in self.processes), self.leaving)

    @property
    def _done(self) -> bool:
        """True if there is nothing more to do: its containers have ended for good, or will never be started."""
        main = [process for process in self.processes if process.task.part == "main"]
        lost = any(process.failed for process in self.processes if process.task.part == "init")
        return lost or (bool(main) and all(process.over for process in main))

    def advance(self) -> None:
        """Start what can start now, init containers one after another; ask those to end that are to."""
        if self.leaving or self._done:
            self._wind_up()
            return
        for process in self.processes:
            if not process.begun:
                process.start()
            if process.holds_up:
                break

    def renew(self, crew: Crew) -> None:
        """Take what is known now of every container."""
        self.crew = crew
        tasks = {task.name: task for task in crew.tasks}
        for process in self.processes:
            if process.task.name in tasks:
                process.renew(crew, tasks[process.task.name])
        self.advance()

    def leave(self, grace: float | None) -> None:
        """Ask every process to end, and note how long it may take; with no grace at all nobody is asked."""
        deadline = time.monotonic() + (self.crew.grace if grace is None else grace)
        if grace == 0:
            self.kill()
        # What was asked to end because the others were done has had time already.
        self.deadline = deadline if self.deadline is None else min(self.deadline, deadline)
        self.leaving = True
        for process in self.processes:
            process.close_sockets()
        self._wind_up()

    def _wind_up(self) -> None:
        """End containers, and then sidecars, which serve them, one after another from the last."""
        for process in self.processes:
            process.due = None
            process.held = False
        running = [process for process in self.processes if process.pid]
        if running and self.deadline is None:
            self.deadline = time.monotonic() + self.crew.grace
        others = [process for process in running if process.task.part != "sidecar"]
        for process in others or running[-1:]:
            process.ask()
        if not running:
            self.close_house()

    def kill(self) -> None:
        """End every process."""
        _kill((process.pid for process in self.processes if process.pid), signal.SIGKILL)


def _kill(pids: Iterable[int], number: signal.Signals) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, number)


def _open(opened: contextlib.ExitStack, path: Path, flags: int) -> int:
    """A descriptor that is closed in the end."""
    descriptor = os.open(path, flags | os.O_CLOEXEC, 0o600)
    opened.callback(os.close, descriptor)
    return descriptor


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")

"""The supervisor of a lab, ``python -m svcnat.lab.supervisor FOLDER``: runs what the containers of the pods run.

It is the init of a PID namespace of its own, so that nothing which a container started outlives it, however it ends; it
takes leave of every process, and starts containers again as their pods' restart policies say. It is told what to run
through a socket handed down as descriptor 3 (:mod:`svcnat.lab.supervision`), and exits when its lab's folder goes. It
knows neither the store nor the network, and is kept small: it forks.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import socket
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec

from svcnat.errors import SvcnatError
from svcnat.kernel import surroundings, unix
from svcnat.lab.channel import LISTENER
from svcnat.lab.supervised import Pod
from svcnat.lab.supervision import (
    Answer,
    CrewState,
    Enter,
    Identify,
    Leave,
    Renew,
    Request,
    Run,
    States,
    Supervision,
    Wait,
    read_crew,
)

_LOOK_ROUND = 1.0
_FLOOD_ROUND = 0.05  # while a log grows fast
_LAST_GRACE = 1.0  # seconds for containers when the whole lab goes
_ENOUGH = 64 << 10  # bytes of an answer


class Supervisor:
    """The pods, and the requests of the lab."""

    def __init__(self, folder: Path, outer_pid: int) -> None:
        self._folder, self._outer_pid = folder, outer_pid
        self._pods: dict[str, Pod] = {}
        self._waiting: dict[socket.socket, tuple[int, float]] = {}
        self._logs_due = 0.0
        self.version = 1

    def answer(self, connection: socket.socket, data: bytes) -> tuple[Answer, int] | None:
        """Do what a request says: the answer with a descriptor to hand over, or -1; None if it comes later."""
        handed = -1
        states: tuple[CrewState, ...] = ()
        try:
            match msgspec.json.decode(data, type=Request):
                case Run(keys):
                    self._run(keys)
                case Renew(keys):
                    self._renew(keys)
                case Leave(keys, grace):
                    self._leave(keys, grace)
                case States(after):
                    states = self._states(after)
                case Wait(version, seconds):
                    if version == self.version:
                        self._waiting[connection] = version, time.monotonic() + seconds
                        return None
                case Enter(key):
                    handed = self._pods[key].house() if key in self._pods else -1
                case Identify():
                    return Answer(version=self.version, pid=self._outer_pid), -1
        except (SvcnatError, OSError, msgspec.MsgspecError) as error:
            return Answer(version=self.version, error=str(error)), -1
        return Answer(version=self.version, states=states), handed

    def _states(self, after: str) -> tuple[CrewState, ...]:
        """The states of the first pods after a key, as many as a packet has room for."""
        found: list[CrewState] = []
        size = 0
        for key in sorted(key for key in self._pods if key > after):
            found.append(self._pods[key].state)
            size += len(msgspec.json.encode(found[-1]))
            if size > _ENOUGH:
                break
        return tuple(found)

    def answers_due(self) -> Iterator[tuple[socket.socket, Answer]]:
        """The answers to those who have waited for long enough."""
        now = time.monotonic()
        for connection, (version, end) in tuple(self._waiting.items()):
            if version != self.version or now >= end:
                del self._waiting[connection]
                yield connection, Answer(version=self.version)

    def forget(self, connection: socket.socket) -> None:
        """Somebody has hung up."""
        self._waiting.pop(connection, None)

    def _run(self, keys: Iterable[str]) -> None:
        for key in keys:
            crew = None if key in self._pods else read_crew(self._folder, key)
            if crew:
                self._pods[key] = Pod(crew)
                self._pods[key].advance()
                self.version += 1

    def _renew(self, keys: Iterable[str]) -> None:
        for key in keys:
            crew = read_crew(self._folder, key) if key in self._pods else None
            if crew:
                self._pods[key].renew(crew)
                self.version += 1

    def _leave(self, keys: Iterable[str], grace: float | None) -> None:
        for key in keys:
            if key in self._pods:
                self._pods[key].leave(grace)
                self.version += 1
        self._see_off()

    def leave_all(self) -> None:
        """End everything: the lab goes."""
        for key, pod in tuple(self._pods.items()):
            self._leave([key], min(pod.crew.grace, _LAST_GRACE))

    @property
    def empty(self) -> bool:
        """True if there is no pod any more."""
        return not self._pods

    def reap(self) -> None:
        """Take leave of every process that has ended, those that nobody else looks after too."""
        owners = {process.pid: process for pod in self._pods.values() for process in pod.processes if process.pid}
        with contextlib.suppress(ChildProcessError):
            while True:
                pid, status = os.waitpid(-1, os.WNOHANG)
                if not pid:
                    break
                for pod in self._pods.values():
                    pod.close_house(pid)
                if process := owners.get(pid):
                    process.ended(status)
                    self.version += 1
        for pod in self._pods.values():
            pod.advance()
        self._see_off()

    def pass_time(self) -> None:
        """Start what has waited for long enough, end what has had its time of grace, and keep logs from growing."""
        now = time.monotonic()
        for pod in self._pods.values():
            if pod.deadline is not None and now >= pod.deadline:
                pod.kill()
            for process in pod.processes:
                if process.due is not None and now >= process.due:
                    process.restart()
                    pod.advance()
                    self.version += 1
        if now >= self._logs_due:
            flooded = [process.bound_log() for pod in self._pods.values() for process in pod.processes]
            self._logs_due = now + (_FLOOD_ROUND if any(flooded) else _LOOK_ROUND)

    def _see_off(self) -> None:
        for key in [key for key, pod in self._pods.items() if pod.leaving and pod.empty]:
            del self._pods[key]
            self.version += 1

    def pause(self) -> float:
        """The seconds until something is due, at most :data:`_LOOK_ROUND`."""
        now = time.monotonic()
        due = [self._logs_due, *(end for _, end in self._waiting.values())]
        for pod in self._pods.values():
            due += [process.due for process in pod.processes if process.due is not None]
            if pod.deadline is not None and not pod.empty:
                # One that is killed and held on to by the kernel is not asked again and again.
                due.append(max(pod.deadline, now + 0.05))
        return max(0.0, min([end - now for end in due], default=_LOOK_ROUND))


class _Loop:
    """Requests, signals and time, one after another, until the lab goes."""

    def __init__(self, folder: Path, listener: socket.socket, outer_pid: int) -> None:
        self._socket = folder / Supervision.socket_name
        self._inode = _inode(self._socket)
        self._listener = listener
        self._supervisor = Supervisor(folder, outer_pid)
        self._selector = selectors.DefaultSelector()
        self._stopping = False

    def run(self) -> None:
        """Serve until told to stop, or until the control socket is gone: the lab is no more."""
        awake, wake = socket.socketpair()
        awake.settimeout(0)
        wake.settimeout(0)
        signal.set_wakeup_fd(wake.fileno(), warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)
        self._listener.settimeout(0)
        self._selector.register(self._listener, selectors.EVENT_READ, "listener")
        self._selector.register(awake, selectors.EVENT_READ, "signals")
        while not (self._stopping and self._supervisor.empty):
            self._turn(awake)

    def _stop(self, *_: object) -> None:
        self._stopping = True

    def _turn(self, awake: socket.socket) -> None:
        for key, _ in self._selector.select(min(self._supervisor.pause(), _LOOK_ROUND)):
            if key.data == "listener":
                with contextlib.suppress(OSError):
                    connection, _ = self._listener.accept()
                    self._selector.register(connection, selectors.EVENT_READ, "connection")
            elif key.data == "signals":
                with contextlib.suppress(BlockingIOError):
                    awake.recv(4096)
            elif isinstance(key.fileobj, socket.socket):
                self._serve(key.fileobj)
        if not self._stopping and _inode(self._socket) != self._inode:
            self._stopping = True
        if self._stopping:
            self._supervisor.leave_all()
        self._supervisor.reap()
        self._supervisor.pass_time()
        for connection, answer in self._supervisor.answers_due():
            self._send(connection, answer)

    def _serve(self, connection: socket.socket) -> None:
        try:
            data = connection.recv(unix.LARGEST)
        except OSError:
            data = b""
        if not data:
            self._hang_up(connection)
        elif (answer := self._supervisor.answer(connection, data)) is not None:
            self._send(connection, *answer)

    def _send(self, connection: socket.socket, answer: Answer, handed: int = -1) -> None:
        try:
            if handed >= 0:
                socket.send_fds(connection, [msgspec.json.encode(answer)], [handed])
            else:
                connection.send(msgspec.json.encode(answer))
        except OSError:
            self._hang_up(connection)
        finally:
            if handed >= 0:
                os.close(handed)

    def _hang_up(self, connection: socket.socket) -> None:
        self._supervisor.forget(connection)
        self._selector.unregister(connection)
        connection.close()


def _inode(path: Path) -> int | None:
    try:
        return path.stat().st_ino
    except OSError:
        return None


def main() -> None:
    """Run what the lab in the folder that the command line names asks for, until told to stop."""
    folder = Path(sys.argv[1])
    os.chdir("/")
    os.umask(0o022)
    os.closerange(LISTENER + 1, os.sysconf("SC_OPEN_MAX"))  # whatever the command that started us had open
    outer_pid = int(os.readlink("/proc/self"))  # noqa: PTH115 - before /proc is that of our own namespace
    if not surroundings.begin_apart():
        print("svcnat: /proc shows the processes outside: it cannot be mounted", file=sys.stderr)  # noqa: T201
    with socket.socket(fileno=LISTENER) as listener:
        listener.set_inheritable(False)
        _Loop(folder, listener, outer_pid).run()


if __name__ == "__main__":
    main()

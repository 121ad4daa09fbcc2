"""The processes of a lab: stand-ins, agent, supervisor, and whatever else still runs inside its network namespaces.

A process is known by its id and the time it started, and signalled through a pidfd (pidfd_open(2)): an id that was
given to a stranger meanwhile never gets a signal. What the stand-in process serves is not decided here, nor when there
is an agent (:mod:`svcnat.lab.agent`).
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TypeGuard

from msgspec import Struct

from svcnat.errors import LabError
from svcnat.kernel import surroundings
from svcnat.lab.channel import LISTENER
from svcnat.lab.control import Control
from svcnat.lab.supervision import Supervision

_STANDIN = "svcnat.lab.standin"  # by name: importing it here would import asyncio into every command
_SUPERVISOR = "svcnat.lab.supervisor"
_PATIENCE = 2.0  # seconds for a process to end by itself
_ENDED = {"Z", "X"}
_STATE, _START_TIME = 0, 19  # fields 3 and 22 of proc_pid_stat(5), counted after the command's closing parenthesis
_PACKAGES = Path(__file__).parents[2]


class ProcessId(Struct, frozen=True):
    """A process: its id, and when it started, in clock ticks since boot."""

    pid: int
    started: int


def start_standin(folder: Path) -> ProcessId:
    """Start the stand-in process of the lab in `folder`; it takes requests at once and answers when it is up.

    Raises:
        LabError: it cannot be started.

    """
    with Control.listen(folder) as listener:
        try:
            return start([_STANDIN, str(folder)], folder / Control.log, listener.fileno())
        except OSError as error:
            raise LabError(f"cannot start the stand-in servers: {error}") from error


def start_supervisor(folder: Path) -> ProcessId:
    """Start the supervisor of the lab in `folder`, the init of a PID namespace; it takes requests at once.

    Raises:
        LabError: it cannot be started.
        PrivilegeError: CAP_SYS_ADMIN is missing.

    """
    with Supervision.listen(folder) as listener:
        module, log = [_SUPERVISOR, str(folder)], folder / Supervision.log
        try:
            return surroundings.spawn_as_init(lambda: start(module, log, listener.fileno()))
        except OSError as error:
            raise LabError(f"cannot start the supervisor: {error}") from error


def start(module: Sequence[str], log: Path, listener: int = -1, unset: Iterable[str] = ()) -> ProcessId:
    """Start a module of ours, given with its arguments, as a process that outlives this one and writes to `log`.

    It gets the descriptor `listener` as number :data:`LISTENER`, and the environment without what is `unset`.

    Raises:
        OSError: it cannot be started.

    """
    null, said = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC), -1
    try:
        said = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        environment = {name: text for name, text in os.environ.items() if name not in set(unset)}
        passed = {0: null, 1: said, 2: said} | ({LISTENER: listener} if listener >= 0 else {})
        pid = os.posix_spawn(
            sys.executable,
            # -P: a module of the same name in the current folder must not run as root.
            [sys.executable, "-P", "-m", *module],
            environment | {"PYTHONPATH": os.pathsep.join(python_path())},
            file_actions=[
                # Whoever waits until the command's descriptors are closed must not wait for this process.
                *((os.POSIX_SPAWN_CLOSE, each) for each in _inheritable() if each not in passed.values()),
                *((os.POSIX_SPAWN_DUP2, mine, its) for its, mine in passed.items()),
            ],
            setsid=True,
        )
    finally:
        for descriptor in (null, said):
            if descriptor >= 0:
                os.close(descriptor)
    # It is our child: until we wait for it, it has an entry, even if it ended.
    return ProcessId(pid, int(_stat(pid)[_START_TIME]))


def _inheritable() -> Iterator[int]:
    """The descriptors beyond the standard ones that a program started now would get."""
    for name in os.listdir("/proc/self/fd"):  # noqa: PTH208 - the names are all there is to know
        with contextlib.suppress(OSError):
            if int(name) > 2 and os.get_inheritable(int(name)):
                yield int(name)


def python_path() -> list[str]:
    """Where a Python that we start finds our modules, and what ours were given to find."""
    # An empty entry would mean the current folder.
    return [str(_PACKAGES), *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]


def known(pid: int) -> ProcessId | None:
    """The process of that id, None if there is none."""
    stat = _stat(pid)
    return ProcessId(pid, int(stat[_START_TIME])) if stat else None


def running(*module: str) -> Iterator[ProcessId]:
    """The processes that :func:`start` made of a module and its arguments, whoever did."""
    command = [b"-m", *(os.fsencode(word) for word in module), b""]
    for folder in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if folder.name.isdecimal() and (folder / "cmdline").read_bytes().split(b"\0")[-len(command) :] == command:
                found = known(int(folder.name))
                if found:
                    yield found


def stop(processes: Iterable[ProcessId]) -> None:
    """Ask processes to end, and wait for that; those that do not are killed."""
    ending = set(processes)
    with _opened(ending) as opened:
        _end(opened, politely=True)
    for each in ending:
        is_alive(each)  # takes leave of it, if it was our child


def stop_module(module: str, folder: Path, recorded: ProcessId | None) -> None:
    """End every process that runs a module of ours for the lab in `folder`; None if none is recorded."""
    stop({*([recorded] if recorded else []), *running(module, str(folder))})


def stop_standin(folder: Path, process: ProcessId | None) -> None:
    """Make the stand-in process of the lab in `folder` end, and wait for that; None if none is recorded."""
    with contextlib.ExitStack() as stack:
        opened = stack.enter_context(_opened([process] if process else []))
        with contextlib.suppress(LabError, ProcessLookupError), Control(folder, _PATIENCE) as control:
            # One that nobody recorded, because its lab was never finished, tells who it is.
            opened.append(os.pidfd_open(control.identify()))
            stack.callback(os.close, opened[-1])
            control.stop()
        _end(opened, politely=False)
    if process:
        is_alive(process)  # takes leave of it, if it was our child


def stop_supervisor(folder: Path, process: ProcessId | None) -> None:
    """End the supervisor of the lab in `folder` and everything that it runs; None if none is recorded."""
    ending = {process} if process else set()
    with contextlib.suppress(LabError), Supervision(folder, _PATIENCE) as found:
        # One that nobody recorded, because its lab was never finished, tells who it is.
        ending |= {each for each in [known(found.identify())] if each}
    stop(ending)


def is_alive(process: ProcessId | None) -> TypeGuard[ProcessId]:
    """True if there is such a process, and it runs; one that ended and waits for its parent does not."""
    if process is None:
        return False
    stat = _stat(process.pid)
    if not stat or int(stat[_START_TIME]) != process.started:
        return False
    if stat[_STATE] not in _ENDED or _has_threads(process.pid):
        return True
    with contextlib.suppress(ChildProcessError):
        os.waitpid(process.pid, os.WNOHANG)
    return False


def _has_threads(pid: int) -> bool:
    """True if of a process only the first thread has ended: the others still hold its files, if not for long."""
    try:
        descriptor = os.pidfd_open(pid)
    except OSError:
        return False
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    try:
        return not poll.poll(0)
    finally:
        os.close(descriptor)


def end_inhabitants(namespaces: Iterable[tuple[int, int]]) -> None:
    """End every process but this one that lives in network namespaces, given by their identities.

    A process that only passes through, as svcnat itself does to open a socket, is left alone.
    """
    identities = frozenset(namespaces)
    found = set(_inhabitants(identities))
    if found:
        time.sleep(0.05)
        with _opened(found & set(_inhabitants(identities))) as opened:
            _end(opened, politely=True)


def kill_inhabitants(namespaces: Iterable[tuple[int, int]]) -> None:
    """End every process but this one that lives in network namespaces, as a power cut does: nobody is asked."""
    with _opened(_inhabitants(frozenset(namespaces))) as opened:
        _signal(opened, signal.SIGKILL)
        _wait(opened)


def _inhabitants(identities: frozenset[tuple[int, int]]) -> Iterator[ProcessId]:
    for folder in Path("/proc").iterdir():
        if not folder.name.isdecimal() or folder.name == str(os.getpid()):
            continue
        with contextlib.suppress(OSError):
            status = (folder / "ns/net").stat()
            if (status.st_dev, status.st_ino) in identities:
                stat = _stat(int(folder.name))
                if stat:
                    yield ProcessId(int(folder.name), int(stat[_START_TIME]))


@contextlib.contextmanager
def _opened(processes: Iterable[ProcessId]) -> Iterator[list[int]]:
    """The pidfds of those processes that still are what they were."""
    with contextlib.ExitStack() as stack:
        opened = []
        for process in processes:
            with contextlib.suppress(ProcessLookupError):
                descriptor = os.pidfd_open(process.pid)
                stack.callback(os.close, descriptor)
                if is_alive(process):
                    opened.append(descriptor)
        yield opened


def _end(pidfds: list[int], *, politely: bool) -> None:
    """Wait for processes to end, kill those that do not; `politely` asks them first."""
    if politely:
        _signal(pidfds, signal.SIGTERM)
    remaining = _wait(pidfds)
    _signal(remaining, signal.SIGKILL)
    _wait(remaining)


def _signal(pidfds: list[int], number: signal.Signals) -> None:
    for descriptor in pidfds:
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(descriptor, number)


def _wait(pidfds: list[int]) -> list[int]:
    """The processes that have not ended when patience has."""
    poll = select.poll()
    for descriptor in pidfds:
        poll.register(descriptor, select.POLLIN)
    remaining = set(pidfds)
    end = time.monotonic() + _PATIENCE
    while remaining and (left := end - time.monotonic()) > 0:
        for descriptor, _ in poll.poll(left * 1000):
            poll.unregister(descriptor)
            remaining.discard(descriptor)
    return list(remaining)


def _stat(pid: int) -> list[str]:
    """What /proc says of a process, from its state on; empty if there is none."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []
    return text.rpartition(")")[2].split()

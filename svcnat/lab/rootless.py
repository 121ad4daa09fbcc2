"""Labs of people without root: each in a user namespace, which a process of the lab, its keeper, holds open.

Whoever is to work on such a lab goes inside (:func:`enter`): the program goes on in the keeper's namespaces, as root
there, and everything else is as in any lab. That a lab is one of these tells the keeper's file
(:func:`svcnat.lab.state.keeper_of`); nothing here is imported for others.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
from msgspec import Struct

from svcnat.errors import LabError, PrivilegeError
from svcnat.kernel import folders, handover, netns, userns
from svcnat.lab import agent, process, state
from svcnat.lab.keeper import READY
from svcnat.lab.process import ProcessId

_KEEPER = "svcnat.lab.keeper"
_PATIENCE = 10_000  # milliseconds for a process that was killed, and all those below it
_MOST = 4096


class Keeper(Struct, frozen=True):
    """The keeper of a lab: its process, as outside, and the identity of its user namespace, in this boot."""

    boot: str
    process: ProcessId
    users: tuple[int, int]


@contextlib.contextmanager
def begun(name: str) -> Iterator[None]:
    """Start the keeper of a lab that is built in the block, and go inside; see :func:`enter`.

    If the block fails, the keeper goes when we do.

    Raises:
        LabError: there is a lab of that name, or the keeper cannot be started.
        PrivilegeError: this user may not have user namespaces, and why.

    """
    folder, file = state.folder_of(name), state.keeper_of(name)
    _require_one_thread(name)
    if folder.exists():
        raise LabError(f"lab {name} exists already: `svcnat lab down {name}` removes it")
    try:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.close(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    except FileExistsError as error:
        raise LabError(f"lab {name} exists already: `svcnat lab down {name}` removes it") from error
    except OSError as error:
        raise PrivilegeError(f"cannot use {file.parent}: {error.strerror}: set SVCNAT_RUNTIME_DIR") from error
    try:
        _write(file, _start(file))
        enter(name)
        yield
    except BaseException:
        file.unlink(missing_ok=True)
        raise


def enter(name: str) -> None:
    """Go inside the lab, if it is a rootless one and we are outside: returns in a child, in the lab's namespaces.

    The process that called it does nothing any more but wait for the child, to end as it does.

    Raises:
        LabError: the lab's keeper has ended, or this process has threads.
        PrivilegeError: it is another user's.

    """
    keeper = _read(name)
    if keeper is None or is_inside(keeper):
        return
    _require_own(name)
    _require_one_thread(name)
    with contextlib.ExitStack() as stack:
        opened = _open(keeper)
        if opened is None:
            raise LabError(_gone(name))
        stack.callback(os.close, opened)
        file = state.keeper_of(name)
        # Root's usual folder is not ours, although we shall be root.
        os.environ["SVCNAT_RUNTIME_DIR"] = str(state.runtime_folder().parent)
        try:
            userns.enter(opened)
        except OSError as error:
            raise LabError(f"cannot enter lab {name}: {error.strerror}") from error
        handover.hand_over(lambda: None if file.exists() else _end(opened))
        netns.come_home()


def down(name: str) -> bool:
    """Take a rootless lab down from outside, with its keeper; False if it is none, or we are inside.

    Raises:
        PrivilegeError: it is another user's.

    """
    file = state.keeper_of(name)
    if not file.exists():
        return False
    keeper = None
    with contextlib.suppress(LabError):
        keeper = _read(name)
    if keeper and is_inside(keeper):
        return False
    _require_own(name)
    opened = _open(keeper) if keeper else None
    if opened is not None:
        _call_down(name)
        _end(opened)
        os.close(opened)
    file.unlink(missing_ok=True)
    folder = state.folder_of(name)
    agent.stop(folder, None)
    folders.remove(folder)
    return True


def runs(name: str) -> bool:
    """True if the lab's keeper runs, or the lab is none that needs one."""
    try:
        keeper = _read(name)
    except (LabError, PrivilegeError):
        return False
    if keeper is None or is_inside(keeper):
        return True
    opened = _open(keeper)
    if opened is None:
        return False
    os.close(opened)
    return True


def is_inside(keeper: Keeper) -> bool:
    """True if this process is in the namespaces of the keeper."""
    return userns.identity() == keeper.users and keeper.boot == state.boot()


def _start(file: Path) -> Keeper:
    said, says = os.pipe2(os.O_CLOEXEC)
    try:
        started = userns.spawn(lambda: msgspec.json.encode(process.start([_KEEPER, str(file)], Path(os.devnull), says)))
        os.close(says)
        says = -1
        answer = b""
        while part := os.read(said, _MOST):
            answer += part
    finally:
        os.close(said)
        if says >= 0:
            os.close(says)
    if answer != READY.encode():
        raise LabError(f"cannot start the keeper of lab {file.name}: {answer.decode() or 'it ended at once'}")
    found = msgspec.json.decode(started, type=ProcessId)
    try:
        return Keeper(state.boot(), found, userns.identity(found.pid))
    except OSError as error:
        raise LabError(f"the keeper of lab {file.name} ended at once") from error


def _write(file: Path, keeper: Keeper) -> None:
    new = file.with_name(f".{file.name}.new")  # no name of a lab
    new.write_bytes(msgspec.json.encode(keeper))
    new.replace(file)


def _read(name: str) -> Keeper | None:
    """The keeper of a lab, None if it is none that has one.

    Raises:
        LabError: it cannot be read, or was never started.
        PrivilegeError: it is another user's.

    """
    try:
        return msgspec.json.decode(state.keeper_of(name).read_bytes(), type=Keeper)
    except FileNotFoundError:
        return None
    except PermissionError as error:
        raise PrivilegeError(f"lab {name} is another user's: {error.strerror}") from error
    except (OSError, msgspec.MsgspecError) as error:
        raise LabError(f"lab {name} is half-built: `svcnat lab down {name}` removes it") from error


def _require_own(name: str) -> None:
    """Raise a PrivilegeError if the lab is another user's: who wrote the keeper's file chooses where we go."""
    with contextlib.suppress(FileNotFoundError):
        if state.keeper_of(name).stat().st_uid != os.geteuid():
            raise PrivilegeError(f"lab {name} is another user's: only that user can use it, or take it down")


def _open(keeper: Keeper) -> int | None:
    """A pidfd of the keeper, None if it has ended."""
    if keeper.boot != state.boot():
        return None
    try:
        opened = os.pidfd_open(keeper.process.pid)
    except OSError:
        return None
    if process.is_alive(keeper.process):
        return opened
    os.close(opened)
    return None


def _gone(name: str) -> str:
    with contextlib.suppress(OSError):
        if _KEEPER.encode() in Path("/proc/1/cmdline").read_bytes():
            return f"lab {name} is not this one: whoever is in a rootless lab sees no other"
    return f"lab {name} has ended, with its keeper: `svcnat lab down {name}` removes what is left"


def _call_down(name: str) -> None:
    """Take the lab down from inside, in a child; what does not work there, the end of the keeper does."""
    from svcnat.lab import labs

    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if not child:
        try:
            enter(name)
            labs.down(name)
        finally:
            os._exit(0)
    os.waitpid(child, 0)


def _end(keeper: int) -> None:
    """Kill the keeper, and wait until everything in its namespaces has ended."""
    with contextlib.suppress(ProcessLookupError):
        signal.pidfd_send_signal(keeper, signal.SIGKILL)
    poll = select.poll()
    poll.register(keeper, select.POLLIN)
    poll.poll(_PATIENCE)


def _require_one_thread(name: str) -> None:
    if handover.threads() != 1:
        raise LabError(
            f"a program with threads cannot enter the rootless lab {name}: find the lab before threads are started"
        )

"""What a program in a pod sees besides its network: files of its own under /etc, a host name, no other namespaces.

Everything happens in a thread of its own, which ends with it; the process, and the machine, stay as they are. The
network namespace is :mod:`svcnat.kernel.netns`; which files there are is for others to decide. Sources:
mount_namespaces(7), nss-resolve(8), nscd(8), nss-mdns.
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import socket
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from svcnat.errors import KernelError, PrivilegeError
from svcnat.kernel import netns, syscalls
from svcnat.kernel.mountpoints import Mountpoints

T = TypeVar("T")

_BYPASSES = (
    # With these, glibc asks the machine's resolver or cache instead of the servers of /etc/resolv.conf; the last one
    # for names that end in .local.
    Path("/run/systemd/resolve/io.systemd.Resolve"),
    Path("/run/nscd/socket"),
    Path("/run/avahi-daemon/socket"),
)
_PROC = Path("/proc")


@dataclass(frozen=True, slots=True)
class Seen:
    """A file or folder that is seen at another place; with `make`, also where the machine has nothing.

    What is made and not read-only is the pod's own: places for what is seen within are made there.
    """

    source: Path
    read_only: bool = False
    make: bool = False


def call(
    name_or_path: str | os.PathLike[str] | None,
    files: Mapping[str, Seen],
    hostname: str,
    function: Callable[[], T],
    house: int = -1,
) -> T:
    """The result of `function`, called in a thread in that network namespace, where `files` are seen at other places.

    `files` are what is seen by absolute target; outer folders come before what is in them. What the function starts
    stays there, and sees and signals only the processes of the `house` (:func:`open_house`), if that is given.
    The thread's current folder is its own.

    Raises:
        MissingError: no such namespace.
        PrivilegeError: CAP_SYS_ADMIN is missing, here or there.
        KernelError: the kernel refused.

    """

    def work() -> T:
        with _refusing():
            if house >= 0:
                _move_in(house)
            syscalls.unshare(syscalls.NEWNS | syscalls.NEWUTS)
            syscalls.mount("", Path("/"), "none", syscalls.PRIVATE | syscalls.RECURSIVE)
            # They would be copied for every program, and kept alive by it.
            with contextlib.suppress(OSError):
                syscalls.detach(netns.RUN)
            _cover_all({**{str(each): Seen(Path(os.devnull)) for each in _BYPASSES}, **files})
            if hostname:
                socket.sethostname(hostname)
        return function()

    return netns.call(name_or_path, work)


def begin_apart() -> bool:
    """Give this process mounts of its own, which follow the machine's, with the /proc of its own PID namespace.

    Returns:
        False if the kernel does not let us mount /proc, as in some containers: it shows the outer namespace's then.

    Raises:
        PrivilegeError: CAP_SYS_ADMIN is missing.
        KernelError: the kernel refused.

    """
    with _refusing():
        syscalls.unshare(syscalls.NEWNS)
        syscalls.mount("", Path("/"), "none", syscalls.SLAVE | syscalls.RECURSIVE)
    try:
        syscalls.mount("proc", _PROC, "proc", syscalls.NOSUID | syscalls.NODEV | syscalls.NOEXEC)
    except OSError:
        return False
    return True


def spawn_as_init(function: Callable[[], T]) -> T:
    """The result of `function`, the first process started by which is the init of a PID namespace of its own.

    When that process ends, the kernel kills all others in it.

    Raises:
        PrivilegeError: CAP_SYS_ADMIN is missing.
        KernelError: the kernel refused.

    """

    def work() -> T:
        with _refusing():
            syscalls.unshare(syscalls.NEWPID)
        return function()

    return netns.call(None, work)


def open_house() -> int:
    """The id of a process that is the init of a PID namespace with a /proc of its own, for :func:`call`.

    It does nothing but take leave of orphans. Everything in the house ends with it. Where the kernel does not let us
    mount /proc, that shows the processes outside.

    Raises:
        PrivilegeError: CAP_SYS_ADMIN is missing.
        KernelError: the kernel refused, or it did not start.

    """

    def work() -> int:
        ready, told = os.pipe2(os.O_CLOEXEC)
        try:
            with _refusing():
                syscalls.unshare(syscalls.NEWNS | syscalls.NEWPID)
                syscalls.mount("", Path("/"), "none", syscalls.SLAVE | syscalls.RECURSIVE)
                pid = _forked(lambda: _keep_house(told))
            os.close(told)
            told = -1
            if not os.read(ready, 1):
                os.waitpid(pid, 0)
                raise KernelError("a pod's surroundings: the init of its processes did not start")
            return pid
        finally:
            for each in (ready, told):
                if each >= 0:
                    os.close(each)

    return netns.call(None, work)


def _forked(function: Callable[[], None]) -> int:
    """The id of a new process that calls `function`, and is not to return from it.

    That is a copy of this thread alone: it may do no more than a few system calls, and become another program.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of forking beside other threads, from Python 3.12 on
        pid = os.fork()
    if not pid:
        try:
            function()
        finally:
            os._exit(1)
    return pid


def _keep_house(told: int) -> None:
    """Be the init of this PID namespace: a process that does nothing, in 100 KB."""
    # Who ignores that children end never has to wait for them, and remains so as another program.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    os.setsid()
    null = os.open(os.devnull, os.O_RDWR)
    for each in range(3):
        os.dup2(null, each)
    with contextlib.suppress(OSError):
        syscalls.mount("proc", _PROC, "proc", syscalls.NOSUID | syscalls.NODEV | syscalls.NOEXEC)
    os.write(told, b"!")
    os.execvpe("sleep", ["sleep", "infinity"], {"PATH": os.defpath})  # noqa: S606, S607 - wherever the system has it


def _move_in(house: int) -> None:
    """Give the thread the mounts of the process of a pidfd, and what it starts, its PID namespace."""
    folder = Path.cwd()
    syscalls.unshare(syscalls.FS)
    try:
        syscalls.setns(house, syscalls.NEWNS | syscalls.NEWPID)
    except PermissionError:
        # Mounts are entered with CAP_SYS_CHROOT, which not every container has: it sees the /proc outside, then.
        syscalls.setns(house, syscalls.NEWPID)
    # By its name in these mounts: entering them led to their root.
    with contextlib.suppress(OSError):
        os.chdir(folder)


def mounts(proc: int) -> int:
    """A descriptor of the calling thread's mount namespace; while it is open, no other is taken for that.

    `proc` is a descriptor of the /proc of the thread's own PID namespace, which may not be what it sees there now.
    """
    return os.open("thread-self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC, dir_fd=proc)


def processes_with(mounts: int) -> list[int]:
    """The processes in the mount namespace of a descriptor, none if /proc shows those of another PID namespace."""
    if os.readlink("/proc/self") != str(os.getpid()):  # noqa: PTH115 - a number, not a path
        return []
    wanted, found = os.fstat(mounts), []
    for folder in _PROC.iterdir():
        if folder.name.isdecimal():
            with contextlib.suppress(OSError):
                if (folder / "ns/mnt").stat().st_ino == wanted.st_ino:
                    found.append(int(folder.name))
    return found


def _cover_all(files: Mapping[str, Seen]) -> None:
    """Show files and folders at their targets, if those exist or may be made; symbolic links are followed."""
    before, places = Path.cwd(), Mountpoints()
    with contextlib.ExitStack() as opened:
        # All of them first: a folder that is shown, /tmp or /run, may be that of other sources.
        sources = {target: _Source(seen.source, opened) for target, seen in files.items()}
        for target, seen in files.items():
            if not (seen.make or Path(target).exists()):
                continue
            try:
                place = places.at(Path(target), folder=sources[target].is_folder)
                sources[target].show_at(place)
                places.note(place, may_grow=seen.make and not seen.read_only)
                if seen.read_only:
                    kept = os.statvfs(place).f_flag & (os.ST_NOSUID | os.ST_NODEV | os.ST_NOEXEC)
                    # What was forbidden stays so, or the kernel refuses.
                    syscalls.mount("", place, "none", syscalls.REMOUNT | syscalls.BIND | syscalls.READ_ONLY | kept)
            except OSError as error:
                raise KernelError(f"cannot mount on {target}: {error.strerror}") from error
    try:
        os.chdir(before)
    except OSError:
        os.chdir("/")


class _Source:
    """A file or folder that can be shown elsewhere, even if something is mounted over the way to it."""

    def __init__(self, path: Path, opened: contextlib.ExitStack) -> None:
        real = Path(os.path.realpath(path))  # resolve() gives up on loops
        self.is_folder = real.is_dir()
        self._name = "." if self.is_folder else real.name
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            folder = real if self.is_folder else real.parent
            self._folder = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            opened.callback(os.close, self._folder)
            return
        self._folder = -1

    def show_at(self, place: Path) -> None:
        """Mount it there."""
        if self._folder < 0:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
        os.fchdir(self._folder)
        syscalls.mount(self._name, place, "none", syscalls.BIND)


@contextlib.contextmanager
def _refusing() -> Iterator[None]:
    try:
        yield
    except PermissionError as error:
        raise PrivilegeError(
            "a pod's surroundings: Operation not permitted: run as root, or inside unshare -rnm"
        ) from error
    except OSError as error:
        raise KernelError(f"a pod's surroundings: {error.strerror}") from error

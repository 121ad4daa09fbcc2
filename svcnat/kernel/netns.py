"""Network namespaces: make, find, enter and remove them, by the names that ``ip netns`` uses.

Names are files under ``/run/netns``, bind mounts in a shared mount, as iproute2 makes them (ip-netns(8)):
either tool sees and removes what the other made. All of it happens in threads of this process, never in a fork.
This module knows nothing of links and addresses (:mod:`svcnat.kernel.links`), and needs no library but libc.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

from svcnat.errors import KernelError, MissingError, PrivilegeError, UsageError
from svcnat.kernel import errands, syscalls

T = TypeVar("T")

RUN = Path("/run/netns")

_NS_GET_NSTYPE = 0xB703  # ioctl_nsfs(2)
_NAME_MAX = 255

# /proc/self is the process, whose main thread may well be elsewhere.
_HERE = "/proc/thread-self/ns/net"


def _identity(file: Path) -> tuple[int, int]:
    status = file.stat()
    return status.st_dev, status.st_ino


HOME = _identity(Path(_HERE))
"""The identity of the network namespace that this process is at home in; nobody enters one before importing this."""


def come_home() -> None:
    """Be at home in the network namespace where the process is now: it has moved for good."""
    global HOME
    HOME = _identity(Path(_HERE))


def path(name_or_path: str | os.PathLike[str]) -> Path:
    """The file of a network namespace: an absolute path as it is, a name below ``/run/netns``.

    Raises:
        UsageError: neither an absolute path nor a name that ``ip netns`` would take.

    """
    text = os.fspath(name_or_path)
    if text.startswith("/") and "\0" not in text:
        return Path(text)
    if (
        text in {"", ".", ".."}
        or "/" in text
        or not text.isprintable()
        or len(text.encode(errors="surrogateescape")) > _NAME_MAX
    ):
        raise UsageError(f"{text!r} cannot be the name of a network namespace")
    return RUN / text


def exists(name_or_path: str | os.PathLike[str]) -> bool:
    """True if there is a network namespace of that name (a file left behind without its mount is none)."""
    try:
        descriptor = os.open(path(name_or_path), os.O_RDONLY | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        raise _classified(error, f'network namespace "{name_or_path}"') from error
    try:
        return fcntl.ioctl(descriptor, _NS_GET_NSTYPE) == syscalls.NEWNET
    except OSError:
        return False
    finally:
        os.close(descriptor)


def names() -> list[str]:
    """The names below ``/run/netns``, sorted."""
    try:
        return sorted(file.name for file in RUN.iterdir())
    except FileNotFoundError:
        return []


def create(name: str) -> Path:
    """Make a network namespace under `name`; its loopback is down. Nothing is left behind on failure.

    Raises:
        UsageError: not a name.
        KernelError: it exists already, or the kernel refused.
        PrivilegeError: CAP_SYS_ADMIN is missing.

    """
    file = path(name)
    if file.parent != RUN:
        raise UsageError(f"{name!r} is a path: a network namespace is made by name")
    try:
        _share_run()
        os.close(os.open(file, os.O_RDONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0))
    except FileExistsError as error:
        raise KernelError(f'network namespace "{name}" exists already') from error
    except OSError as error:
        raise _classified(error, f'cannot create network namespace "{name}"') from error
    try:
        call(None, lambda: _unshare_onto(file))
    except BaseException as error:
        _remove(file)
        if isinstance(error, OSError):
            raise _classified(error, f'cannot create network namespace "{name}"') from error
        raise
    return file


def delete(name: str) -> None:
    """Remove the name; the kernel frees the namespace when no process, socket or file descriptor holds it.

    Raises:
        MissingError: there is no such name.
        PrivilegeError: CAP_SYS_ADMIN is missing.

    """
    file = path(name)
    if file.parent != RUN:
        raise UsageError(f"{name!r} is a path: a network namespace is removed by name")
    try:
        _remove(file)
    except OSError as error:
        raise _classified(error, f'network namespace "{name}"') from error


@contextlib.contextmanager
def entered(name_or_path: str | os.PathLike[str] | None) -> Iterator[None]:
    """Run the block with the calling thread in that network namespace; None changes nothing.

    Sockets, and processes that the block starts, belong to the namespace for good. Never await inside the
    block: whatever else the thread runs would be there, too.

    Raises:
        MissingError: no such namespace.
        PrivilegeError: CAP_SYS_ADMIN is missing, here or there.

    """
    if name_or_path is None:
        yield
        return
    file = path(name_or_path)
    subject = f'network namespace "{name_or_path}"'
    try:
        there = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise _classified(error, subject) from error
    try:
        here = os.open(_HERE, os.O_RDONLY | os.O_CLOEXEC)
        try:
            try:
                syscalls.setns(there, syscalls.NEWNET)
            except OSError as error:
                raise _classified(error, subject) from error
            try:
                yield
            finally:
                syscalls.setns(here, syscalls.NEWNET)
        finally:
            os.close(here)
    finally:
        os.close(there)


def call(name_or_path: str | os.PathLike[str] | None, function: Callable[[], T]) -> T:
    """The result of `function`, called in a thread of its own that is in that network namespace.

    Whatever the function does to its thread goes with the thread.

    Raises:
        MissingError: no such namespace.
        PrivilegeError: CAP_SYS_ADMIN is missing, here or there.

    """

    def work() -> T:
        with entered(name_or_path):
            return function()

    return errands.call(work)


def call_apart(function: Callable[[], T]) -> T:
    """The result of `function`, called in a thread in a network namespace that holds nothing and has no name.

    It ends with the thread, unless a socket that the function opened there is still open.

    Raises:
        PrivilegeError: CAP_SYS_ADMIN is missing.

    """

    def apart() -> T:
        try:
            syscalls.unshare(syscalls.NEWNET)
        except OSError as error:
            raise _classified(error, "cannot create a network namespace") from error
        return function()

    return call(None, apart)


def identity(name_or_path: str | os.PathLike[str] | None = None) -> tuple[int, int]:
    """Device and inode of a network namespace, None for the thread's: equal when two names mean the same one.

    Raises:
        MissingError: no such namespace.

    """
    file = path(name_or_path if name_or_path is not None else _HERE)
    try:
        return _identity(file)
    except OSError as error:
        raise _classified(error, f'network namespace "{name_or_path}"') from error


def isolate_run() -> bool:
    """Give a process in its own user and mount namespace (``unshare -rnm``) a ``/run/netns`` of its own.

    A tmpfs goes over ``/run/netns``, or over ``/run`` when that folder does not exist; what else is in ``/run`` then
    stays where it was. A process that is not in namespaces of its own is left alone; a second call does nothing.

    Returns:
        True if ``/run/netns`` is a private one now.

    Raises:
        PrivilegeError: the kernel does not let us mount.

    """
    if not _own_user_and_mount_namespace():
        return False
    target = RUN if RUN.is_dir() else RUN.parent
    lock = os.open(target, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        # Named after this mount namespace: one that we came from may have its own, which we see, too.
        source = f"svcnat-{Path('/proc/self/ns/mnt').stat().st_ino}"
        if f" - tmpfs {source} " not in _read_proc("self/mountinfo"):
            _cover(target, source)
        RUN.mkdir(mode=0o755, exist_ok=True)
    except OSError as error:
        raise _classified(error, f"cannot mount a private {target}") from error
    finally:
        os.close(lock)
    return True


def _cover(folder: Path, source: str) -> None:
    """Mount a tmpfs over a folder, and in it again what was in the folder, but for what belongs to netns."""
    before = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        found = (
            [] if folder == RUN else [(entry.name, entry.is_symlink(), entry.is_dir()) for entry in os.scandir(folder)]
        )
        syscalls.mount(source, folder, "tmpfs", 0, "mode=0755")
        for name, is_link, is_folder in found:
            place = folder / name
            # What cannot be shown here could not have been used here either.
            with contextlib.suppress(OSError):
                if is_link:
                    place.symlink_to(os.readlink(name, dir_fd=before))
                    continue
                if is_folder:
                    place.mkdir()
                else:
                    place.touch()
                syscalls.mount(f"/proc/self/fd/{before}/{name}", place, "none", syscalls.BIND | syscalls.RECURSIVE)
    finally:
        os.close(before)


def writable(folder: Path) -> int:
    """A descriptor of a mount point that is read-only here, as a writable mount; the thread is to end afterwards.

    The thread leaves the mount namespace for one of its own, where the mount is changed, and nowhere else.

    Raises:
        PermissionError: CAP_SYS_ADMIN is missing, or the mount is locked (mount_namespaces(7)).

    """
    syscalls.unshare(syscalls.NEWNS)
    syscalls.mount("", folder, "none", syscalls.REMOUNT | syscalls.BIND)
    return os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)


def _own_user_and_mount_namespace() -> bool:
    if _read_proc("self/uid_map").split() == ["0", "0", "4294967295"]:
        return False
    try:
        return Path("/proc/self/ns/mnt").readlink() != Path("/proc/1/ns/mnt").readlink()
    except OSError:
        # Init belongs to a user namespace above ours; so does its mount namespace.
        return True


def _read_proc(name: str) -> str:
    return Path("/proc", name).read_text(encoding="utf-8", errors="surrogateescape")


def _share_run() -> None:
    """Make ``/run/netns`` a shared mount, so that names reach every mount namespace; as iproute2 does."""
    if not os.access(RUN if RUN.exists() else RUN.parent, os.W_OK):
        isolate_run()
    RUN.mkdir(mode=0o755, parents=True, exist_ok=True)
    lock = os.open(RUN, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            syscalls.mount("", RUN, "none", syscalls.SHARED | syscalls.RECURSIVE)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            # Not a mount point yet.
            syscalls.mount(str(RUN), RUN, "none", syscalls.BIND | syscalls.RECURSIVE)
            syscalls.mount("", RUN, "none", syscalls.SHARED | syscalls.RECURSIVE)
    finally:
        os.close(lock)


def _unshare_onto(file: Path) -> None:
    syscalls.unshare(syscalls.NEWNET)
    syscalls.mount(_HERE, file, "none", syscalls.BIND)


def _remove(file: Path) -> None:
    with contextlib.suppress(OSError):
        while True:
            syscalls.detach(file)
    file.unlink()


def _classified(error: OSError, subject: str) -> KernelError:
    reason = os.strerror(error.errno or 0)
    match error.errno:
        case errno.ENOENT | errno.ENOTDIR:
            return MissingError(f"{subject} does not exist")
        case errno.EINVAL:
            return MissingError(f"{subject} does not exist: its file is not a network namespace")
        case errno.EPERM | errno.EACCES:
            return PrivilegeError(f"{subject}: {reason}: run as root, or inside unshare -rnm")
        case _:
            return KernelError(f"{subject}: {reason}")

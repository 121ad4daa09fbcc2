"""User namespaces, in which somebody without root is root: made, entered, and why the kernel refuses one.

What is done in one is not decided here, nor who may enter it. Sources: user_namespaces(7), subuid(5), newuidmap(1),
setns(2) with a pidfd (Linux 5.8).
"""

from __future__ import annotations

import contextlib
import errno
import os
import pwd
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from svcnat.errors import PrivilegeError
from svcnat.kernel import syscalls

_PROC = Path("/proc")
_FLAGS = syscalls.NEWUSER | syscalls.NEWNS | syscalls.NEWPID | syscalls.NEWNET

_SUBUID, _SUBGID = Path("/etc/subuid"), Path("/etc/subgid")
_NEWUIDMAP, _NEWGIDMAP = "newuidmap", "newgidmap"

_UNSHARED, _MAPPED, _UNMAPPED, _FAILED, _DONE = b"u", b"m", b"n", b"!", b"="
_MOST = 4096  # bytes of an answer: a pipe takes as many at once


@dataclass(frozen=True, slots=True)
class Ranges:
    """The users and groups that a user may have beside their own: the first of each, and how many."""

    uid: int
    uids: int
    gid: int
    gids: int


def spawn(function: Callable[[], bytes]) -> bytes:
    """What `function` returned, a few bytes, in a process that is root in a user namespace of its own.

    The process has mounts and an empty network of its own, too, and the first process that it starts is the init of a
    PID namespace. It ends with the function. Its users are root, who is this user outside, and those of /etc/subuid,
    if newuidmap is there.

    Raises:
        PrivilegeError: the kernel refused, and why.

    """
    found = ranges()
    if found:
        # Whoever may not use these tools, or their ranges, still has a namespace with one user.
        with contextlib.suppress(PrivilegeError, subprocess.SubprocessError, OSError):
            return _spawn(function, found)
    return _spawn(function, None)


def _spawn(function: Callable[[], bytes], beside: Ranges | None) -> bytes:
    from_child, to_parent = os.pipe2(os.O_CLOEXEC)
    from_parent, to_child = os.pipe2(os.O_CLOEXEC)
    uid, gid = os.geteuid(), os.getegid()
    child = os.fork()
    if not child:
        try:
            # With this end open, the child would wait for itself when its parent is gone.
            os.close(to_child)
            _begin(function, uid, gid, from_parent, to_parent)
        finally:
            os._exit(1)
    try:
        os.close(from_parent)
        os.close(to_parent)
        answer = os.read(from_child, _MOST)
        if answer == _UNSHARED:
            if beside:
                _map(child, uid, gid, beside)
            os.write(to_child, _MAPPED if beside else _UNMAPPED)
            answer = os.read(from_child, _MOST)
    finally:
        os.close(to_child)
        os.close(from_child)
        os.waitpid(child, 0)
    if not answer.startswith(_DONE):
        raise PrivilegeError(reason(int(answer.removeprefix(_FAILED) or errno.EPERM)))
    return answer.removeprefix(_DONE)


def _begin(function: Callable[[], bytes], uid: int, gid: int, from_parent: int, to_parent: int) -> None:
    try:
        syscalls.unshare(_FLAGS)
        os.write(to_parent, _UNSHARED)
        answer = os.read(from_parent, 1)
        if not answer:
            return
        if answer == _UNMAPPED:
            _map_one(uid, gid)
        os.write(to_parent, _DONE + function())
    except OSError as error:
        os.write(to_parent, _FAILED + str(error.errno).encode())


def become_root() -> None:
    """Be root from now on, in a user namespace of this process's own, with mounts and an empty network of its own.

    Raises:
        PrivilegeError: the kernel refused, and why, or this process has threads.

    """
    uid, gid = os.geteuid(), os.getegid()
    try:
        syscalls.unshare(syscalls.NEWUSER | syscalls.NEWNS | syscalls.NEWNET)
        _map_one(uid, gid)
    except OSError as error:
        if error.errno == errno.EINVAL:
            raise PrivilegeError("a program with threads cannot get a user namespace") from error
        raise PrivilegeError(reason(error.errno or 0)) from error


def _map_one(uid: int, gid: int) -> None:
    # Only who can give up no group may map one (user_namespaces(7)).
    Path("/proc/self/setgroups").write_text("deny", encoding="ascii")
    Path("/proc/self/uid_map").write_text(f"0 {uid} 1", encoding="ascii")
    Path("/proc/self/gid_map").write_text(f"0 {gid} 1", encoding="ascii")


def _map(pid: int, uid: int, gid: int, beside: Ranges) -> None:
    for tool, own, first, count in (
        (_NEWUIDMAP, uid, beside.uid, beside.uids),
        (_NEWGIDMAP, gid, beside.gid, beside.gids),
    ):
        numbers = (pid, 0, own, 1, 1, first, count)
        subprocess.run([tool, *map(str, numbers)], check=True, capture_output=True, stdin=subprocess.DEVNULL)


def ranges(uids: Path = _SUBUID, gids: Path = _SUBGID) -> Ranges | None:
    """The users and groups that this user may have; None if there are none, or the tools are missing that give them."""
    if not (shutil.which(_NEWUIDMAP) and shutil.which(_NEWGIDMAP)):
        return None
    users, groups = _range(uids), _range(gids)
    return Ranges(*users, *groups) if users and groups else None


def _range(file: Path) -> tuple[int, int] | None:
    names = {str(os.geteuid())}
    with contextlib.suppress(KeyError):
        names.add(pwd.getpwuid(os.geteuid()).pw_name)
    with contextlib.suppress(OSError, ValueError):
        for line in file.read_text(encoding="utf-8", errors="replace").splitlines():
            name, _, numbers = line.partition(":")
            if name in names:
                first, _, count = numbers.partition(":")
                return int(first), int(count)
    return None


def enter(process: int) -> None:
    """Go into the namespaces of a process that :func:`spawn` made, by its pidfd; the current folder keeps its name.

    The PID namespace is that of the children: this process stays where its parent sees it.

    Raises:
        OSError: the process is gone, or this one has threads (EINVAL), or may not.

    """
    folder = "/"
    with contextlib.suppress(FileNotFoundError):
        folder = os.getcwd()  # noqa: PTH109 - a name, also where it cannot be looked at
    syscalls.setns(process, _FLAGS)
    with contextlib.suppress(OSError):
        os.chdir(folder)


def identity(pid: int | None = None) -> tuple[int, int]:
    """The identity of a process's user namespace, by default of this one's.

    Raises:
        OSError: there is no such process, or it is another user's.

    """
    status = (_PROC / str(pid or "self") / "ns/user").stat()
    return status.st_dev, status.st_ino


def users() -> int:
    """How many users this user namespace has."""
    lines = (_PROC / "self/uid_map").read_text(encoding="ascii").splitlines()
    return sum(int(line.split()[2]) for line in lines)


def reason(code: int, proc: Path = _PROC) -> str:
    """Why somebody without root gets no user namespace, in words, from the error that the kernel gave."""
    refused = "no user namespace for somebody without root"
    if code in {errno.ENOSPC, errno.EUSERS}:
        for name in ("max_user_namespaces", "max_mnt_namespaces", "max_pid_namespaces", "max_net_namespaces"):
            if _read(proc / "sys/user" / name) == "0":
                return f"{refused}: the limit is 0: as root, `sysctl -w user.{name}=10000` allows them"
        return f"{refused}: too many, one in another, or beyond the limits: `sysctl user` shows them"
    if code not in {errno.EPERM, errno.EACCES}:
        return f"{refused}: {os.strerror(code)}: does this kernel have CONFIG_USER_NS?"
    if _read(proc / "sys/kernel/unprivileged_userns_clone") == "0":
        return f"{refused}: as root, `sysctl -w kernel.unprivileged_userns_clone=1` allows them"
    if _read(proc / "sys/kernel/apparmor_restrict_unprivileged_userns") == "1":
        return (
            f"{refused}: AppArmor refuses them: as root, "
            "`sysctl -w kernel.apparmor_restrict_unprivileged_userns=0` allows them, or a profile with `userns,`"
        )
    if "\nSeccomp:\t2" in _read(proc / "self/status"):
        return (
            f"{refused}: this process is under a seccomp filter, as in containers, which has to allow unshare and mount"
        )
    return f"{refused}: {os.strerror(code)}: a chroot, or a security module (SELinux, AppArmor), may be the reason"


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""

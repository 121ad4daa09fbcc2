"""The system calls for namespaces and mounts that Python, or its older versions, do not have.

They speak of the calling thread, raise plain OSErrors, and decide nothing. Sources: unshare(2), setns(2), mount(2),
PR_SET_PDEATHSIG(2const).
"""

from __future__ import annotations

import functools
import os
import signal
import sys
from pathlib import Path

NEWNS, NEWUTS, NEWUSER, NEWPID, NEWNET = 0x20000, 0x4000000, 0x10000000, 0x20000000, 0x40000000
FS = 0x200
REMOUNT, BIND, MOVE, RECURSIVE, PRIVATE, SLAVE, SHARED = 0x20, 0x1000, 0x2000, 0x4000, 0x40000, 0x80000, 0x100000
READ_ONLY, NOSUID, NODEV, NOEXEC = 1, 2, 4, 8

_DETACH = 2
_KEEP_SIZE, _PUNCH_HOLE = 1, 2
_SET_PDEATHSIG = 1


def mount(source: str, target: Path, kind: str, flags: int, data: str = "") -> None:
    """Mount something, or change a mount."""
    import ctypes

    _libc(
        "mount",
        os.fsencode(source),
        os.fsencode(target),
        os.fsencode(kind),
        ctypes.c_ulong(flags),
        os.fsencode(data),
    )


def punch(descriptor: int, until: int) -> None:
    """Make a hole of a file's first bytes."""
    import ctypes

    _libc("fallocate", descriptor, _KEEP_SIZE | _PUNCH_HOLE, ctypes.c_long(0), ctypes.c_long(until))


def detach(target: Path) -> None:
    """Take the uppermost mount off `target`, with all below it, whoever uses it."""
    _libc("umount2", os.fsencode(target), _DETACH)


def die_with_parent() -> None:
    """Be killed when the parent ends; what this process starts is not."""
    _libc("prctl", _SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)


@functools.cache
def _library() -> object:
    import ctypes

    return ctypes.CDLL(None, use_errno=True)


def _libc(function: str, *arguments: object) -> None:
    import ctypes

    if getattr(_library(), function)(*arguments) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


if sys.version_info >= (3, 12):

    def setns(descriptor: int, flags: int) -> None:
        """Enter the namespace that a descriptor is of, or those of a process, given by its pidfd, that `flags` name."""
        os.setns(descriptor, flags)

    def unshare(flags: int) -> None:
        """Have namespaces of one's own."""
        os.unshare(flags)

else:

    def setns(descriptor: int, flags: int) -> None:
        """Enter the namespace that a descriptor is of, or those of a process, given by its pidfd, that `flags` name."""
        _libc("setns", descriptor, flags)

    def unshare(flags: int) -> None:
        """Have namespaces of one's own."""
        _libc("unshare", flags)

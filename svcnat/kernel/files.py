"""Small files of ours in places where others may have put something else under their names.

A pipe there would keep its reader waiting for ever, and a link would lead a writer to somebody's file. What is in the
files is for others to decide. Source: open(2).
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

_MOST = 64 << 20  # bytes


def read(path: Path, *, own: bool = False) -> bytes:
    """Return what is in a plain file, not of what a link leads to; `own`: it must be this process's user's.

    Raises:
        OSError: there is none, it is none, somebody else's, or larger than any of ours.

    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "it is no plain file", str(path))
        if own and status.st_uid != os.geteuid():
            raise OSError(errno.EPERM, "it is another user's", str(path))
        data = file.read(_MOST + 1)
    if len(data) > _MOST:
        raise OSError(errno.EFBIG, os.strerror(errno.EFBIG), str(path))
    return data


def replace(path: Path, data: bytes) -> None:
    """Put a file that only this user may read in the place of whatever is there, at once.

    Raises:
        OSError: the kernel refused; what was there is as it was.

    """
    new = path.with_suffix(".new")
    new.unlink(missing_ok=True)
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb") as file:
        file.write(data)
    new.replace(path)


def make_private(path: Path) -> None:
    """Let only its user read and write a plain file, not one that a link leads to.

    Raises:
        OSError: there is none, or the kernel refused.

    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        if stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.fchmod(descriptor, 0o600)
    finally:
        os.close(descriptor)

"""Kernel settings below ``/proc/sys``: those under ``net/`` are the ones of the calling thread's network namespace.

Keys are written with slashes, ``net/ipv4/ip_forward``: a device's name may hold dots. Nothing is remembered and
nothing is put back; enter a namespace with :func:`svcnat.kernel.netns.entered` first.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping
from pathlib import Path

from svcnat.errors import KernelError, MissingError, PrivilegeError

ROOT = Path("/proc/sys")


def read(key: str) -> str:
    """The value of a setting.

    Raises:
        MissingError: this kernel, or this namespace, has no such setting.

    """
    try:
        return (ROOT / key).read_text(encoding="utf-8").strip()
    except OSError as error:
        raise _classified(error, key) from error


def write(settings: Mapping[str, int | str]) -> None:
    """Give each setting its value, in order; one that has it already is not written.

    Raises:
        MissingError: this kernel, or this namespace, has no such setting.
        PrivilegeError: not allowed, or ``/proc/sys`` is read-only, as it is in most containers.

    """
    for key, value in settings.items():
        if read(key) == str(value):
            continue
        try:
            (ROOT / key).write_text(str(value), encoding="utf-8")
        except OSError as error:
            raise _classified(error, key, wanted=str(value)) from error


def _classified(error: OSError, key: str, wanted: str = "") -> KernelError:
    setting = f"sysctl {key}={wanted}" if wanted else f"sysctl {key}"
    match error.errno:
        case errno.ENOENT:
            return MissingError(f"{setting}: this kernel has no such setting")
        case errno.EROFS:
            return PrivilegeError(
                f"{setting}: /proc/sys is read-only: in a container, run it privileged or with /proc/sys writable"
            )
        case errno.EPERM | errno.EACCES:
            return PrivilegeError(f"{setting}: {os.strerror(error.errno)}")
        case _:
            return KernelError(f"{setting}: {os.strerror(error.errno or 0)}")

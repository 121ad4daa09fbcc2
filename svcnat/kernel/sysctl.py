"""Kernel settings below ``/proc/sys``: those under ``net/`` are the ones of the calling thread's network namespace.

Keys are written with slashes, ``net/ipv4/ip_forward``: a device's name may hold dots. Nothing is remembered and
nothing is put back; enter a namespace with :func:`svcnat.kernel.netns.entered` first.

In a container ``/proc/sys`` is usually read-only, whatever its capabilities are, to protect what the container was
given. Network namespaces that the process made or entered are not among that: their settings are written through a view
that is writable, a mount in a mount namespace that has ended, seen by nobody else.
"""

from __future__ import annotations

import errno
import functools
import os
from collections.abc import Mapping
from pathlib import Path

from svcnat.errors import KernelError, MissingError, PrivilegeError
from svcnat.kernel import netns

ROOT = Path("/proc/sys")

_NETWORK = "net/"
_LONGEST = 4096  # bytes of a value: the kernel's own limit for most


def read(key: str) -> str:
    """The value of a setting.

    Raises:
        MissingError: this kernel, or this namespace, has no such setting.

    """
    # Every namespace of a lab has some of these: pathlib and a text file would be most of their cost.
    try:
        descriptor = os.open(f"{ROOT}/{key}", os.O_RDONLY | os.O_CLOEXEC)
        try:
            return os.read(descriptor, _LONGEST).decode().strip()
        finally:
            os.close(descriptor)
    except OSError as error:
        raise _classified(error, key) from error


def write(settings: Mapping[str, int | str]) -> None:
    """Give each setting its value, in order; one that has it already is not written.

    Raises:
        MissingError: this kernel, or this namespace, has no such setting.
        PrivilegeError: not allowed, or ``/proc/sys`` is read-only, as it is in most containers, and the namespace is
            the process's own, or CAP_SYS_ADMIN is missing.

    """
    for key, value in settings.items():
        if read(key) == str(value):
            continue
        try:
            _write(key, str(value).encode())
        except OSError as error:
            raise _classified(error, key, wanted=str(value)) from error


def _write(key: str, value: bytes) -> None:
    descriptor = _open(key)
    try:
        os.write(descriptor, value)
    finally:
        os.close(descriptor)


def _open(key: str) -> int:
    try:
        return os.open(ROOT / key, os.O_WRONLY | os.O_CLOEXEC)
    except OSError as error:
        if error.errno != errno.EROFS or not key.startswith(_NETWORK) or netns.identity() == netns.HOME:
            raise
        try:
            view = _writable_view()
        except OSError:
            raise error from None
    return os.open(key, os.O_WRONLY | os.O_CLOEXEC, dir_fd=view)


@functools.cache
def _writable_view() -> int:
    """A descriptor of ``/proc/sys`` that can be written through, kept for the life of the process.

    Which network namespace is meant is, as ever, a matter of the thread that opens a file below it.

    Raises:
        OSError: CAP_SYS_ADMIN is missing, or the mount was made by a user namespace above ours.

    """
    return netns.call(None, lambda: netns.writable(ROOT))


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

"""One writer of svcnat's tables at a time, in each network namespace.

The lock is an abstract unix socket bound inside the namespace (unix(7)): it belongs to the namespace, whatever files
the writers see, and it goes with its holder, however that dies. It guards against another svcnat, not against other
tools: their changes show in the ruleset's generation.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import time
from collections.abc import Iterator
from pathlib import Path

from svcnat.errors import BusyError, SvcnatError
from svcnat.kernel import netns

_NAME = "\0svcnat/writer"
_PAUSE = 0.02  # seconds between two tries
_CREDENTIALS = struct.Struct("3i")  # struct ucred: pid, uid, gid
_CAP_NET_ADMIN = 1 << 12


@contextlib.contextmanager
def writer(name_or_path: str | None = None, *, patience: float = 10.0) -> Iterator[None]:
    """Be the only writer of the namespace during the block, waiting up to `patience` seconds for another.

    Raises:
        BusyError: another process stays the writer.

    """
    with netns.entered(name_or_path):
        holder = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    with holder:
        deadline = time.monotonic() + patience
        while True:
            try:
                holder.bind(_NAME)
                break
            except OSError as error:
                if time.monotonic() > deadline:
                    raise BusyError(_who(name_or_path)) from error
            time.sleep(_PAUSE)
        holder.listen(1)
        yield


def _who(name_or_path: str | None) -> str:
    where = f'network namespace "{name_or_path}"' if name_or_path else "this network namespace"
    try:
        with netns.entered(name_or_path), socket.socket(socket.AF_UNIX) as question:
            question.settimeout(1)
            question.connect(_NAME)
            credentials = question.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    except (OSError, SvcnatError):
        return f"the lock of the rules of {where} is held; try again, and `ss -xap` there says who has @svcnat/writer"
    pid, uid, _ = _CREDENTIALS.unpack(credentials)
    # Anybody may bind the name. Who may not write rules is no writer, and will not be done by itself.
    if not _may_write(pid):
        return f"pid {pid} of user {uid} holds the lock of the rules of {where}, and cannot be svcnat; end it"
    return f"another svcnat is writing the rules of {where}: pid {pid} of user {uid}; try again when it is done"


def _may_write(pid: int) -> bool:
    """True if the process has CAP_NET_ADMIN, or nothing can be known of it."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("CapEff:"):
                return bool(int(line.split()[1], 16) & _CAP_NET_ADMIN)
    return True

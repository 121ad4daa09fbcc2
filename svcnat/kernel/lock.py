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

from svcnat.errors import BusyError
from svcnat.kernel import netns

_NAME = "\0svcnat/writer"
_PAUSE = 0.02  # seconds between two tries
_CREDENTIALS = struct.Struct("3i")  # struct ucred: pid, uid, gid


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
    message = f"another svcnat is writing the rules of {where}"
    with contextlib.suppress(OSError), netns.entered(name_or_path), socket.socket(socket.AF_UNIX) as question:
        question.settimeout(1)
        question.connect(_NAME)
        pid, uid, _ = _CREDENTIALS.unpack(question.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))
        message += f": pid {pid} of user {uid}"
    return f"{message}; try again when it is done"

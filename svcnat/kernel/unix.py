"""Unix SEQPACKET sockets under names of any length: a packet is a message, and none is ever torn.

What is said over them is for others to decide. Source: unix(7).
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_TIMEVAL = struct.Struct("ll")

LARGEST = 1 << 20
"""Room for any packet: the kernel limits one to the sender's buffer, a fifth of this by default."""


def connect(path: Path, patience: float) -> socket.socket:
    """Connect to whoever listens at `path`; each operation waits `patience` seconds at most.

    Raises:
        BlockingIOError: so many connect at once that the listener does not come to it.
        OSError: nobody listens there, or this user may not.

    """
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
    try:
        # Only a socket that blocks waits while the listener's queue is full; this is how long.
        limit = _TIMEVAL.pack(int(patience), int(patience % 1 * 1e6))
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)
        with _short(path) as short:
            connection.connect(short)
        connection.settimeout(patience)
    except BaseException:
        connection.close()
        raise
    return connection


def listen(path: Path, *, backlog: int = 16) -> socket.socket:
    """Listen at `path`, in the place of whoever left a socket there; its folder must be there.

    Raises:
        OSError: the kernel does not let us.

    """
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
    try:
        path.unlink(missing_ok=True)
        with _short(path) as short:
            listening.bind(short)
        listening.listen(backlog)
    except BaseException:
        listening.close()
        raise
    return listening


@contextmanager
def _short(path: Path) -> Iterator[str]:
    """Another name for `path`, short enough for the 107 bytes that the address of a Unix socket may have."""
    descriptor = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{descriptor}/{path.name}"
    finally:
        os.close(descriptor)

"""What the service manager is told: ready, reloading, stopping, still alive, and one line for `systemctl status`.

The protocol is sd_notify(3): one datagram a message, to the socket that NOTIFY_SOCKET names. Without one, as outside
of systemd, nothing is sent. No message is worth an error: what cannot be sent is not. Sockets of virtual machines
(vsock) are left alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import time
from collections.abc import Callable, MutableMapping
from typing import Self

from svcnat.model.quoting import printable

_PATIENCE = 1.0
_STATUS_MAX = 500  # characters
_VARIABLES = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID")


class Notifier:
    """One process's word to its service manager; a context manager that closes the socket."""

    def __init__(self, address: str = "", watchdog: float = 0.0, *, patience: float = _PATIENCE) -> None:
        """`address`: a path, or with ``@`` an abstract name; `watchdog`: seconds without a sign of life that end us.

        `patience`: how many seconds a message waits for a manager that does not empty its socket.
        """
        self.watchdog = watchdog if address else 0.0
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self._socket: socket.socket | None = None
        if address.startswith(("@", "/")):
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
            self._socket.settimeout(patience)

    @classmethod
    def of_environment(cls, environment: MutableMapping[str, str] = os.environ, pid: int | None = None) -> Self:
        """What the environment says, whose variables are taken out of it: they are not meant for our children."""
        address, microseconds, meant = (environment.pop(name, "") for name in _VARIABLES)
        mine = not meant or meant == str(os.getpid() if pid is None else pid)
        usable = mine and microseconds.isascii() and microseconds.isdigit()
        return cls(address, int(microseconds) / 1e6 if usable else 0.0)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the socket; what is sent later goes nowhere."""
        if self._socket:
            self._socket.close()
            self._socket = None

    def ready(self, status: str = "") -> bool:
        """Say that the start, or a reload, is over; True if that was sent."""
        return self._send("READY=1", *self._status(status))

    def reloading(self) -> bool:
        """Say that the configuration is read again; :meth:`ready` is to follow."""
        return self._send("RELOADING=1", f"MONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")

    def stopping(self, status: str = "") -> bool:
        """Say that the end has begun."""
        return self._send("STOPPING=1", *self._status(status))

    def status(self, text: str) -> bool:
        """Say in one line how things are, for people."""
        return self._send(*self._status(text or " "))

    async def keep_alive(self, alive: Callable[[], bool]) -> None:
        """Give a sign of life twice in each watchdog period while `alive` says so; for ever, or not at all."""
        while self.watchdog:
            if alive():
                self._send("WATCHDOG=1")
            await asyncio.sleep(self.watchdog / 2)

    def _status(self, text: str) -> tuple[str, ...]:
        # A line break would begin another assignment, of whatever an object's name says.
        return (f"STATUS={printable(text)[:_STATUS_MAX]}",) if text else ()

    def _send(self, *assignments: str) -> bool:
        if self._socket is None:
            return False
        with contextlib.suppress(OSError, ValueError):  # a path with a null byte is a ValueError
            self._socket.sendto("\n".join(assignments).encode(errors="replace"), self._address)
            return True
        return False

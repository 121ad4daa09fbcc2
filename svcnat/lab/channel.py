"""How a lab talks to its processes: JSON requests and answers, one a packet, over a Unix SEQPACKET socket.

Connecting, asking, patience and errors are here, for whoever asks; the words for the stand-in process are in
:mod:`svcnat.lab.control`, those for the supervisor in :mod:`svcnat.lab.supervision`. It starts no process
(:mod:`svcnat.lab.process`).
"""

from __future__ import annotations

import socket
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import ClassVar, Generic, Self, TypeVar

import msgspec
from msgspec import Struct

from svcnat.errors import LabError
from svcnat.kernel import unix

LISTENER = 3
"""The descriptor on which a process of the lab gets its listening socket."""

_PATIENCE = 30.0  # seconds; on a busy machine a process that starts is slow to answer the first request
_A_REQUEST = 100  # things in it, that it fits into a packet


class Reply(Struct, frozen=True, omit_defaults=True, kw_only=True):
    """What every answer may have: `error`, what went wrong."""

    error: str = ""


R = TypeVar("R", bound=Reply)
T = TypeVar("T")


class Channel(Generic[R]):
    """The lab's end of a conversation with one of its processes; a context manager, which leaves the process running.

    `socket_name` and `log` are files in the lab's folder, `whose` says in words who answers, `replies` are its answers.
    """

    socket_name: ClassVar[str]
    log: ClassVar[str]
    whose: ClassVar[str]
    replies: type[R]

    def __init__(self, folder: Path, patience: float = _PATIENCE) -> None:
        """Connect to the process of the lab in `folder`, and wait `patience` seconds for each answer.

        Raises:
            LabError: nobody listens there.

        """
        self._handed: list[int] = []
        try:
            self._socket = unix.connect(folder / self.socket_name, patience)
        except OSError as error:
            raise LabError(f"{self.whose} of {folder} does not run") from error

    def ask(self, request: Struct) -> R:
        """Send a request and wait for its answer.

        Raises:
            LabError: there is none, or it is a refusal.

        """
        try:
            self._socket.send(msgspec.json.encode(request))
            data, self._handed, _, _ = socket.recv_fds(self._socket, unix.LARGEST, 1, socket.MSG_CMSG_CLOEXEC)
        except OSError as error:
            raise LabError(f"{self.whose} does not answer: {error}") from error
        if not data:
            raise LabError(f"{self.whose} ended in the middle of a request: see {self.log} of the lab")
        answer = msgspec.json.decode(data, type=self.replies)
        if answer.error:
            raise LabError(f"{self.whose} refused: {answer.error}")
        return answer

    def handed(self) -> int:
        """The descriptor that came with the last answer, for the caller to close; -1 if there was none."""
        return self._handed.pop() if self._handed else -1

    def await_end(self) -> None:
        """Wait until the process hangs up."""
        with suppress(OSError):
            self._socket.recv(unix.LARGEST)

    def close(self) -> None:
        """End the conversation; the process goes on."""
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @classmethod
    def listen(cls, folder: Path) -> socket.socket:
        """The listening socket of the process to be: connections wait in it until it runs.

        Raises:
            LabError: the kernel does not let us.

        """
        try:
            return unix.listen(folder / cls.socket_name)
        except OSError as error:
            raise LabError(f"cannot listen on {folder / cls.socket_name}: {error.strerror}") from error


def portions(things: Sequence[T]) -> Iterator[tuple[T, ...]]:
    """The things in as many parts as there have to be requests."""
    for start in range(0, len(things), _A_REQUEST):
        yield tuple(things[start : start + _A_REQUEST])

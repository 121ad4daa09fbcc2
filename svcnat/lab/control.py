"""How a lab talks to its stand-in process: JSON requests and answers, one a packet, over a Unix SEQPACKET socket.

Used by both sides. It neither starts the process (:mod:`svcnat.lab.process`) nor serves pods
(:mod:`svcnat.lab.standin`).
"""

from __future__ import annotations

import socket
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Self

import msgspec
from msgspec import Struct

from svcnat.errors import LabError
from svcnat.kernel import unix

SOCKET = "standin.sock"

LISTENER = 3
"""The descriptor on which the stand-in process gets its listening socket."""

_PODS_A_REQUEST = 100
_PATIENCE = 30.0  # seconds; on a busy machine a process that starts is slow to answer the first request


class Port(Struct, frozen=True, array_like=True):
    """A port to serve; `protocol` is TCP, UDP or SCTP."""

    protocol: str
    number: int


class StandIn(Struct, frozen=True):
    """A pod to stand in for: `key` is its own in the lab, `netns` a path, `name` what its servers call themselves."""

    key: str
    netns: str
    name: str
    ports: tuple[Port, ...]


class Open(Struct, frozen=True, tag=True):
    """Serve these pods; one that is served already is left alone."""

    pods: tuple[StandIn, ...]


class Close(Struct, frozen=True, tag=True):
    """Finish the requests in hand, for at most `grace` seconds, then close every socket of these pods."""

    keys: tuple[str, ...]
    grace: float


class Served(Struct, frozen=True, tag=True):
    """Tell the keys of the pods that are served, in order, from the first one after `after`."""

    after: str = ""


class Identify(Struct, frozen=True, tag=True):
    """Tell the process's id."""


class Stop(Struct, frozen=True, tag=True):
    """Close everything and exit."""


Request = Open | Close | Served | Identify | Stop


class Answer(Struct, frozen=True, omit_defaults=True):
    """`failures`: ports that could not be opened, by key; `keys`, `pid`: what was asked; `error`: what went wrong."""

    failures: dict[str, tuple[str, ...]] = {}
    keys: tuple[str, ...] = ()
    pid: int = 0
    error: str = ""


class Control:
    """The lab's end of a conversation with its stand-in process."""

    def __init__(self, folder: Path, patience: float = _PATIENCE) -> None:
        """Connect to the stand-in process of the lab in `folder`, and wait `patience` seconds for each answer.

        Raises:
            LabError: nobody listens there.

        """
        try:
            self._socket = unix.connect(folder / SOCKET, patience)
        except OSError as error:
            raise LabError(f"the stand-in servers of {folder} do not run") from error

    def open(self, pods: Sequence[StandIn]) -> dict[str, tuple[str, ...]]:
        """Serve these pods; the answer is what could not be opened, by key."""
        failures: dict[str, tuple[str, ...]] = {}
        for start in range(0, len(pods), _PODS_A_REQUEST):
            failures |= self._ask(Open(tuple(pods[start : start + _PODS_A_REQUEST]))).failures
        return failures

    def close_pods(self, keys: Sequence[str], grace: float = 0.5) -> None:
        """Close every socket of these pods, after at most `grace` seconds for the requests in hand."""
        for start in range(0, len(keys), _PODS_A_REQUEST):
            self._ask(Close(tuple(keys[start : start + _PODS_A_REQUEST]), grace))

    def served(self) -> set[str]:
        """The keys of the pods that are served."""
        keys: set[str] = set()
        after = ""
        while part := self._ask(Served(after)).keys:
            keys.update(part)
            after = part[-1]
        return keys

    def identify(self) -> int:
        """The id of the process that serves."""
        return self._ask(Identify()).pid

    def stop(self) -> None:
        """Make the process close everything and exit; it hangs up when it does."""
        self._ask(Stop())
        with suppress(OSError):
            self._socket.recv(unix.LARGEST)

    def _ask(self, request: Request) -> Answer:
        try:
            self._socket.send(msgspec.json.encode(request))
            data = self._socket.recv(unix.LARGEST)
        except OSError as error:
            raise LabError(f"the stand-in servers do not answer: {error}") from error
        if not data:
            raise LabError("the stand-in servers ended in the middle of a request: see standin.log of the lab")
        answer = msgspec.json.decode(data, type=Answer)
        if answer.error:
            raise LabError(f"the stand-in servers refused: {answer.error}")
        return answer

    def close(self) -> None:
        """End the conversation; the process goes on."""
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def listen(folder: Path) -> socket.socket:
    """The listening socket of the stand-in process to be: connections wait in it until the process runs."""
    try:
        return unix.listen(folder / SOCKET)
    except OSError as error:
        raise LabError(f"cannot listen on {folder / SOCKET}: {error.strerror}") from error

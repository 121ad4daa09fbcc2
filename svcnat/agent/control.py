"""How commands talk to an agent: JSON requests and answers, one a packet, over a Unix SEQPACKET socket.

The words, and the :class:`Client` for commands, which wait; the agent's end is :mod:`svcnat.agent.server`. The socket's
path follows from what the agent follows, so that whoever has the state file's name finds its agent. What a request
means is the agent's business. Source: unix(7); a packet is at most the sender's buffer, 200 KiB by default.
"""

from __future__ import annotations

import os
import socket
import struct
import time
from collections.abc import Iterable
from hashlib import blake2s
from itertools import starmap
from pathlib import Path
from typing import Self

import msgspec
from msgspec import Struct

from svcnat.errors import BusyError, EndedError, KernelError, PrivilegeError
from svcnat.kernel import lock, netns, unix

_PATIENCE = 60.0  # seconds: a first pass over many services may be under way
_CREDENTIALS = struct.Struct("iII")  # pid, uid, gid
_SILENCE = 10.0  # seconds until an agent that holds the lock listens: it reads all objects in between
_PAUSE = 0.05  # seconds between two looks whether it does
_ENDED = "the agent ended before it answered; the rules stay as they are"
GROUP = "svcnat"
"""Whoever is in this group of the system may talk to an agent."""


class Reconcile(Struct, frozen=True, tag=True):
    """Make the rules equal to the objects as they are at `revision` (or later), and tell how it went."""

    revision: int


class Verify(Struct, frozen=True, tag=True):
    """Tell the state; with `deep`, after the kernel's rules were read and compared with what they should be."""

    deep: bool = False


class Watch(Struct, frozen=True, tag=True):
    """Tell of every new revision of the objects, until one of us hangs up."""


Request = Reconcile | Verify | Watch


class Retry(Struct, frozen=True):
    """So many tries failed so far; the next one is in so many seconds."""

    tries: int
    again: float


class TargetState(Struct, frozen=True, omit_defaults=True):
    """How one target fares.

    `state`: ``synced``, ``failing`` (with the reason in `error`), ``gone``, ``off`` (gone, and may be) or ``starting``.
    `refused`: Services whose rules the kernel refused, with the reason. `drift`: how often somebody else's change was
    repaired. `passed`: seconds since the last pass; `took`: how long it took; `added` and `deleted`: elements, since
    the agent began. `different`: what a comparison with the kernel found. `retries`: when what failed is tried again,
    by Service; "" is all of it.
    """

    node: str
    netns: str | None
    state: str
    generation: int = 0
    services: int = 0
    endpoints: int = 0
    error: str = ""
    refused: dict[str, str] = {}
    drift: int = 0
    passed: float = 0.0
    took: float = 0.0
    added: int = 0
    deleted: int = 0
    warnings: tuple[str, ...] = ()
    different: tuple[str, ...] = ()
    retries: dict[str, Retry] = {}

    @property
    def all_warnings(self) -> tuple[str, ...]:
        """The warnings, and what was refused."""
        return *self.warnings, *starmap("{}: the kernel refused its rules: {}".format, self.refused.items())


class AgentState(Struct, frozen=True, omit_defaults=True):
    """How an agent fares; `troubles` are what keeps it from following its objects, a line each."""

    pid: int
    version: str
    follows: str
    revision: int
    uptime: float
    targets: tuple[TargetState, ...]
    troubles: tuple[str, ...] = ()


class Answer(Struct, frozen=True, omit_defaults=True):
    """What an agent answers: its state after what was asked, or the new `revision`; `error`: why it did nothing."""

    state: AgentState | None = None
    revision: int = 0
    error: str = ""


def runtime_folder() -> Path:
    """Where agents listen: ``$SVCNAT_RUNTIME_DIR/agents``, by default ``/run/svcnat/agents``."""
    return Path(os.environ.get("SVCNAT_RUNTIME_DIR") or "/run/svcnat").absolute() / "agents"


def socket_of_state(state: str | os.PathLike[str]) -> Path:
    """The socket of the agent that follows a state file, by the path that it was given.

    Not by what a link on that path leads to, which may be exchanged while the agent runs.
    """
    return _socket(f"state {os.path.abspath(state)}")  # noqa: PTH100 - resolve() would follow links


def socket_of_netns(name_or_path: str | None) -> Path:
    """The socket of the agent that follows manifests, without a state file, in a network namespace.

    Raises:
        MissingError: no such namespace.

    """
    return _socket(f"netns {netns.identity(name_or_path)}")


def findings_beside(listening: Path) -> Path:
    """Where an agent without a state file keeps what probes found out: beside its socket, gone with the next boot."""
    return listening.with_suffix(".findings")


def _socket(what: str) -> Path:
    return runtime_folder() / f"{blake2s(os.fsencode(what), digest_size=10).hexdigest()}.sock"


def _is_same(one: str, other: str | os.PathLike[str]) -> bool:
    try:
        return Path(one).samefile(other)
    except OSError:
        return False


class Client:
    """A command's end of a conversation with an agent; a context manager."""

    def __init__(self, connected: socket.socket) -> None:
        self._socket = connected

    @classmethod
    def find(cls, path: Path, *, patience: float = _PATIENCE) -> Self | None:
        """Connect to the agent that listens there; None if there is none.

        Raises:
            PrivilegeError: there is one, and this user may not talk to it.
            KernelError: there is one, and it is too busy to take the call.

        """
        try:
            return cls(unix.connect(path, patience))
        except PermissionError as error:
            raise PrivilegeError(f"the agent that listens at {path} is for root and the group {GROUP}") from error
        except BlockingIOError as error:
            raise KernelError(f"the agent that listens at {path} does not answer: too many ask it at once") from error
        except OSError:
            return None

    @classmethod
    def of_state(cls, state: str | os.PathLike[str], places: Iterable[str | None]) -> Self | None:
        """Connect to the agent that follows a state file, in one of these network namespaces; None if there is none.

        It may have been given another path of the same file. One that begins, or ends, is waited for.

        Raises:
            PrivilegeError: there is one, and this user may not talk to it.
            BusyError: there is one, and it does not listen.

        """
        places = tuple(places)
        deadline = time.monotonic() + _SILENCE
        while True:
            if found := cls.find(socket_of_state(state)):
                return found
            holders = [holder for each in places if (holder := lock.holder(each)) and holder.follows]
            holders = [holder for holder in holders if _is_same(holder.follows, state)]
            if not holders:
                return None
            socket_path = socket_of_state(holders[0].follows)
            if found := cls.find(socket_path):
                return found
            if time.monotonic() > deadline:
                raise BusyError(
                    f"an agent (pid {holders[0].pid}) follows these objects, and does not listen at {socket_path}: "
                    "SVCNAT_RUNTIME_DIR is to be the same for it and for commands"
                )
            time.sleep(_PAUSE)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Hang up."""
        self._socket.close()

    def ask(self, request: Request) -> Answer:
        """Send a request, and wait for its answer.

        Raises:
            EndedError: the agent ended before it answered.
            KernelError: it does not answer.

        """
        try:
            self._socket.send(msgspec.json.encode(request))
            return self.receive()
        except ConnectionError as error:
            raise EndedError(_ENDED) from error
        except TimeoutError as error:
            raise KernelError(
                f"the agent (pid {self._pid()}) has not answered for {self._socket.gettimeout():g} seconds: "
                "it hangs, or has too much to do; the rules stay as they are"
            ) from error
        except OSError as error:
            raise KernelError(f"the agent does not answer: {error.strerror or error}") from error

    def _pid(self) -> int:
        """Of the process that listens; 0 if it is in another PID namespace (unix(7), SO_PEERCRED)."""
        credentials = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        pid: int = _CREDENTIALS.unpack(credentials)[0]
        return pid

    def receive(self, patience: float | None = None) -> Answer:
        """Wait for the next answer, for `patience` seconds if that is given.

        Raises:
            TimeoutError: none came.
            EndedError: the agent ended.

        """
        if patience is not None:
            self._socket.settimeout(patience)
        packet = self._socket.recv(unix.LARGEST)
        if not packet:
            raise EndedError(_ENDED)
        return msgspec.json.decode(packet, type=Answer)

"""One writer of svcnat's tables at a time, in each network namespace.

The lock is an abstract unix socket bound inside the namespace (unix(7)): it belongs to the namespace, whatever files
the writers see, and it goes with its holder, however that dies. An agent, which holds it for as long as it lives, binds
a second one, whose name says what it follows. It guards against another svcnat, not against other tools: their changes
show in the ruleset's generation.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from svcnat.errors import BusyError, SvcnatError
from svcnat.kernel import netns

_NAME = "\0svcnat/writer"
_AGENT = "svcnat/agent/"
_AGENT_NAME_MAX = 107 - len(_AGENT)  # bytes: sun_path, less the NUL that makes a name abstract
_PAUSE = 0.02  # seconds between two tries
_BACKLOG = 128  # who asks who we are stays in the queue, even after it hung up
_CREDENTIALS = struct.Struct("3i")  # struct ucred: pid, uid, gid
_CAP_NET_ADMIN = 1 << 12


class Held:
    """The lock, while it is held."""

    def __init__(self, listening: socket.socket) -> None:
        self._listening = listening

    def hang_up(self) -> None:
        """Let go of those who asked who we are; a holder that lives long calls it now and then, lest others wait."""
        with contextlib.suppress(OSError):
            while True:
                self._listening.accept()[0].close()


@dataclass(frozen=True, slots=True)
class Holder:
    """The process that is the writer of a namespace; `follows`: what it follows if it is an agent (cut at 94 bytes)."""

    pid: int
    uid: int
    follows: str = ""


@contextlib.contextmanager
def writer(name_or_path: str | None = None, *, patience: float = 10.0, agent: str = "") -> Iterator[Held]:
    """Be the only writer of the namespace during the block, waiting up to `patience` seconds for another.

    `agent` is what an agent follows, for others to read. Nobody waits for an agent: it does not end by itself.

    Raises:
        BusyError: another process stays the writer.

    """
    with contextlib.ExitStack() as stack:
        with netns.entered(name_or_path):
            lock = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
            sign = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)) if agent else None
        deadline = time.monotonic() + patience
        while True:
            try:
                lock.bind(_NAME)
                break
            except OSError as error:
                if time.monotonic() > deadline or _followed(name_or_path):
                    raise BusyError(_who(name_or_path)) from error
            time.sleep(_PAUSE)
        if sign:
            sign.bind(f"\0{_AGENT}{_printable(agent.encode())[:_AGENT_NAME_MAX]}")
        lock.settimeout(0)
        lock.listen(_BACKLOG)
        yield Held(lock)


def holder(name_or_path: str | None = None) -> Holder | None:
    """The writer of a namespace at this moment; None if there is none, or it cannot be told."""
    try:
        with netns.entered(name_or_path), socket.socket(socket.AF_UNIX) as question:
            question.settimeout(1)
            question.connect(_NAME)
            credentials = question.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        pid, uid, _ = _CREDENTIALS.unpack(credentials)
        return Holder(pid, uid, _followed(name_or_path))
    except (OSError, SvcnatError):
        return None


def _followed(name_or_path: str | None) -> str:
    """What the agent of a namespace follows; "" if there is none."""
    with netns.entered(name_or_path):
        sockets = Path("/proc/thread-self/net/unix").read_bytes()
    _, found, name = sockets.partition(f" @{_AGENT}".encode())
    return _printable(name.partition(b"\n")[0]) if found else ""


def _printable(text: bytes) -> str:
    """A name that anybody may have chosen, without what would end a line or colour a terminal."""
    return "".join(letter if " " <= letter <= "~" else "?" for letter in text.decode(errors="replace"))


def _who(name_or_path: str | None) -> str:
    where = f'network namespace "{name_or_path}"' if name_or_path else "this network namespace"
    found = holder(name_or_path)
    if found is None:
        return f"the lock of the rules of {where} is held; try again, and `ss -xap` there says who has @svcnat/writer"
    # Anybody may bind the name. Who may not write rules is no writer, and will not be done by itself.
    if not _may_write(found.pid):
        return (
            f"pid {found.pid} of user {found.uid} holds the lock of the rules of {where}, and cannot be svcnat; end it"
        )
    if found.follows:
        return (
            f"an agent (pid {found.pid}) keeps the rules of {where} equal to {found.follows}: "
            "change that, or stop the agent"
        )
    writer_of = f"pid {found.pid} of user {found.uid}"
    return f"another svcnat is writing the rules of {where}: {writer_of}; try again when it is done"


def _may_write(pid: int) -> bool:
    """True if the process has CAP_NET_ADMIN, or nothing can be known of it."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("CapEff:"):
                return bool(int(line.split()[1], 16) & _CAP_NET_ADMIN)
    return True

"""The agent of a lab: ``svcnat --lab NAME run``, as a process of its own that lives as long as the lab.

Level-triggered: whoever is about to change the lab has one (:func:`have`), started again if it died. It starts up while
the lab is still being built. What an agent does is :mod:`svcnat.agent`'s subject, not known here. Without the libraries
of the extra "agent" a lab has none, and commands write its rules themselves.
"""

from __future__ import annotations

import contextlib
import importlib.util
import socket
import struct
import time
from pathlib import Path

from msgspec.structs import replace

from svcnat.agent.control import Client, socket_of_state
from svcnat.errors import LabError
from svcnat.kernel import unix
from svcnat.lab import process, state
from svcnat.lab.process import ProcessId

LOG = "agent.log"

_LIBRARIES = ("aiohttp", "asyncinotify", "prometheus_client")
_PATIENCE = 60.0  # seconds until an agent that runs listens, on a machine that is very busy
_PAUSE = 0.005  # seconds between two looks whether it does
_CREDENTIALS = struct.Struct("3i")  # struct ucred: pid, uid, gid
_LONGEST_QUOTE = 300

_NOT_ITS_OWN = (
    # A lab brings these itself ...
    "SVCNAT_CONFIG",
    "SVCNAT_STATE",
    "SVCNAT_NETNS",
    # ... and whoever started the command is told of the command alone (sd_notify(3)).
    "NOTIFY_SOCKET",
    "WATCHDOG_PID",
    "WATCHDOG_USEC",
)


def is_possible() -> bool:
    """True if the libraries that an agent needs are installed."""
    return all(importlib.util.find_spec(each) for each in _LIBRARIES)


def start(folder: Path) -> ProcessId:
    """Start the agent of the lab in `folder`; it waits until the lab is built, and is to be recorded.

    Raises:
        LabError: it cannot be started.

    """
    try:
        return process.start(
            ["svcnat", "--lab", folder.name, "run", "--log-format", "text"], folder / LOG, unset=_NOT_ITS_OWN
        )
    except OSError as error:
        raise LabError(f"cannot start the agent: {error}") from error


def runs(folder: Path, recorded: ProcessId | None) -> bool:
    """True if the lab in `folder` has an agent: the one that was recorded, or one that somebody started by hand."""
    return process.is_alive(recorded) or _listener(folder) is not None


def have(folder: Path) -> bool:
    """Start the agent of the lab in `folder` if it does not run; False if it cannot: its libraries are missing.

    Raises:
        LabError: the lab is gone, or the agent cannot be started.

    """
    if runs(folder, state.read(folder).agent):
        return True
    if not is_possible():
        return False
    with state.locked(folder):
        record = state.read(folder)
        if not runs(folder, record.agent):
            state.write(folder, replace(record, agent=start(folder)))
    return True


def connect(folder: Path) -> Client:
    """Begin a conversation with the agent of the lab in `folder`, which is there or starting.

    Raises:
        LabError: it ended while it started.

    """
    path = socket_of_state(folder / state.STORE)
    recorded = state.read(folder).agent
    end = time.monotonic() + _PATIENCE
    while (client := Client.find(path)) is None:
        if not process.is_alive(recorded):
            raise LabError(f"the agent of lab {folder.name} ended: {_last_words(folder)}")
        if time.monotonic() > end:
            raise LabError(f"the agent of lab {folder.name} does not get ready: see {folder / LOG}")
        time.sleep(_PAUSE)
    return client


def stop(folder: Path, recorded: ProcessId | None) -> None:
    """End every agent of the lab in `folder`, and take away what it listened at; None if none is recorded."""
    process.stop({each for each in (recorded, _listener(folder)) if each})
    with contextlib.suppress(OSError):
        socket_of_state(folder / state.STORE).unlink()


def _listener(folder: Path) -> ProcessId | None:
    """The process that listens where the agent of a lab does."""
    with contextlib.suppress(OSError), unix.connect(socket_of_state(folder / state.STORE), 1.0) as connection:
        credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        return process.known(_CREDENTIALS.unpack(credentials)[0])
    return None


def _last_words(folder: Path) -> str:
    """The end of what an agent said."""
    log = folder / LOG
    with contextlib.suppress(OSError, IndexError):
        line = log.read_text(encoding="utf-8", errors="replace").splitlines()[-1]
        return f"{line[:_LONGEST_QUOTE]} (see {log})"
    return f"it left no word in {log}"

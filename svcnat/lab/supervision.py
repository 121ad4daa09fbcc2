"""What a lab says to its supervisor, and hears: the words of :mod:`svcnat.lab.channel`, used by both sides.

What a pod's processes are is in a file of its own (:class:`Crew`), as an environment can be larger than a packet. It
neither starts the supervisor (:mod:`svcnat.lab.process`) nor runs anything (:mod:`svcnat.lab.supervisor`).
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import msgspec
from msgspec import Struct

from svcnat.errors import LabError
from svcnat.kernel.surroundings import Seen
from svcnat.lab.channel import Channel, Reply, portions

LONGEST_MESSAGE = 1024
"""Characters of what is told of a container that could not be started: answers are packets."""

_PODS, _LOGS, _CREW = "pods", "logs", "crew.json"

Part = Literal["main", "init", "sidecar"]
"""What a container is in its pod: one of its `containers`, or an init container, which may be one that stays."""


class Task(Struct, frozen=True, omit_defaults=True):
    """A container's process: what to run, and in which folder.

    `restarts` is how often it was started again before this supervisor had it; `ended`, that it has ended for good, or
    `trouble`, that it cannot be run now: in either case it is not. One with a `port` is in the machine's network, and
    gets that port of its pod as open sockets, from descriptor 3 on: UDP and TCP of IPv4, then of IPv6. They stay open
    when it ends and is started again, so that what comes meanwhile waits.
    """

    name: str
    command: tuple[str, ...]
    folder: str = "/"
    restarts: int = 0
    ended: Ended | None = None
    trouble: str = ""
    part: Part = "main"
    port: int = 0


class Mount(Struct, frozen=True, omit_defaults=True):
    """A file or folder that a container sees at some place."""

    source: str
    read_only: bool = False


class Crew(Struct, frozen=True, omit_defaults=True):
    """The processes of a pod, and what they see.

    `key` is its own in the lab, `netns` a path, `logs` a folder, `files` are sources by target, `environments` are by
    container, also of those without a process; `path` is where programs are looked for. `tasks` are in the order in
    which they start.
    """

    key: str
    name: str
    netns: str
    hostname: str
    logs: str
    files: dict[str, str] = {}
    policy: str = "Always"
    grace: float = 30.0
    back_off: float = 10.0
    path: str = ""
    environments: dict[str, dict[str, str]] = {}
    mounts: dict[str, dict[str, Mount]] = {}
    tasks: tuple[Task, ...] = ()

    def seen_by(self, container: str) -> dict[str, Seen]:
        """The files and folders that a container sees in place of the machine's, or beside them."""
        found = {target: Seen(Path(source)) for target, source in self.files.items()}
        for target, mount in self.mounts.get(container, {}).items():
            found[target] = Seen(Path(mount.source), mount.read_only, make=True)
        return found


class Ended(Struct, frozen=True, omit_defaults=True):
    """How a process ended; times are RFC 3339. One that a signal ended has its number, and the code of a shell."""

    code: int
    started: str = ""
    finished: str = ""
    signal: int = 0
    reason: str = ""
    message: str = ""


class TaskState(Struct, frozen=True, omit_defaults=True):
    """Where a container is: running `since`, or waiting for `wait` seconds, or else ended for good; `last` is how."""

    name: str
    restarts: int = 0
    since: str = ""
    wait: float = 0.0
    last: Ended | None = None
    trouble: str = ""


class CrewState(Struct, frozen=True, omit_defaults=True):
    """Where a pod's containers are; one that is `leaving` goes when all of its processes are gone."""

    key: str
    tasks: tuple[TaskState, ...]
    leaving: bool = False


class Run(Struct, frozen=True, tag=True):
    """Run the crews of these pods, from their files; one that runs is left alone."""

    keys: tuple[str, ...]


class Renew(Struct, frozen=True, tag=True):
    """Read again what the crews of these pods are: it counts for what starts from now on, or could not before."""

    keys: tuple[str, ...]


class Leave(Struct, frozen=True, tag=True):
    """End the crews of these pods: a signal, then `grace` seconds or their own time of grace, then another signal.

    With no grace at all, nobody is asked.
    """

    keys: tuple[str, ...]
    grace: float | None = None


class States(Struct, frozen=True, tag=True):
    """Tell the states of the pods, in order, from the first one after `after`."""

    after: str = ""


class Wait(Struct, frozen=True, tag=True):
    """Answer when something has happened since `version`, or after `seconds`."""

    version: int
    seconds: float


class Enter(Struct, frozen=True, tag=True):
    """Hand over a pidfd of the house of a pod's processes (:func:`svcnat.kernel.surroundings.open_house`)."""

    key: str


class Identify(Struct, frozen=True, tag=True):
    """Tell the process's id, as it is outside."""


Request = Run | Renew | Leave | States | Wait | Enter | Identify


class Answer(Reply, frozen=True, omit_defaults=True, kw_only=True):
    """`version` counts what happened; `states`, `pid`: what was asked."""

    version: int = 0
    states: tuple[CrewState, ...] = ()
    pid: int = 0


class Supervision(Channel[Answer]):
    """The lab's end of a conversation with its supervisor; `version` is that of the last answer."""

    socket_name, log, whose, replies = "supervisor.sock", "supervisor.log", "the supervisor", Answer
    version = 0

    def ask(self, request: Struct) -> Answer:
        """Ask, and note the version."""
        answer = super().ask(request)
        self.version = answer.version
        return answer

    def run(self, keys: Sequence[str]) -> None:
        """Have the crews of these pods; returns when they have been started."""
        for portion in portions(keys):
            self.ask(Run(portion))

    def renew(self, keys: Sequence[str]) -> None:
        """Have the files of these pods read again."""
        for portion in portions(keys):
            self.ask(Renew(portion))

    def leave(self, keys: Sequence[str], grace: float | None = None) -> None:
        """Make the crews of these pods end, each in its own time of grace, or in `grace` seconds."""
        for portion in portions(keys):
            self.ask(Leave(portion, grace))

    def states(self) -> dict[str, CrewState]:
        """Where the containers of every pod are, by key."""
        found: dict[str, CrewState] = {}
        after = ""
        while part := self.ask(States(after)).states:
            found.update((each.key, each) for each in part)
            after = part[-1].key
        return found

    def wait(self, seconds: float) -> bool:
        """Wait until something has happened since the last answer; False if nothing has for so many seconds."""
        before = self.version
        return self.ask(Wait(before, seconds)).version != before

    def enter(self, key: str) -> int:
        """A descriptor of where a pod's processes are, for the caller to close; -1 if it has none."""
        self.ask(Enter(key))
        return self.handed()

    def identify(self) -> int:
        """The id of the supervisor's process."""
        return self.ask(Identify()).pid


def files_of(folder: Path, key: str) -> Path:
    """The folder of what the lab in `folder` keeps about a pod, for as long as it runs."""
    return folder / _PODS / key


def logs_of(folder: Path, uid: str) -> Path:
    """The folder of a pod's logs: below it a folder for each container, with a numbered file for each run."""
    return folder / _LOGS / uid


def write_crew(folder: Path, crew: Crew) -> None:
    """Write down what a pod is, for the supervisor and for those who run commands in the pod."""
    path = files_of(folder, crew.key) / _CREW
    new = path.with_suffix(".new")
    # An environment may hold secrets.
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600), "wb") as file:
        file.write(msgspec.json.encode(crew))
    new.replace(path)


def read_crew(folder: Path, key: str) -> Crew | None:
    """What was written, None if nothing was.

    Raises:
        LabError: it cannot be read.

    """
    path = files_of(folder, key) / _CREW
    try:
        return msgspec.json.decode(path.read_bytes(), type=Crew)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.MsgspecError) as error:
        raise LabError(f"cannot read {path}: {error}") from error

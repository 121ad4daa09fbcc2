"""What events of the ruleset say of others: who touched svcnat's tables, in words, and whether structure is in doubt.

It decides nothing; :mod:`svcnat.agent.writer` does. Whose a commit is, the kernel tells by a number that only means
something in the machine's own PID namespace; elsewhere (in a container) the name of the thread has to do.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from pathlib import Path

from svcnat.kernel import process
from svcnat.kernel.events import Commit, Overrun
from svcnat.kernel.nfnetlink import following, is_newer

_MACHINES = 0xEFFFFFFC  # the inode of the first PID namespace (PROC_PID_INIT_INO)

Heard = Sequence[Commit | Overrun]


def after(heard: Heard, since: int, commits: int = 1) -> int | None:
    """The generation after exactly so many commits to our tables since that one.

    None if there were others, or may have been: those who made these commits were not alone. Commits to tables of
    others move the generation, and do not count.
    """
    known, ours = since, 0
    for event in heard:
        if isinstance(event, Overrun):
            return None
        if event.generation == following(known):
            known, ours = event.generation, ours + event.ours
        elif is_newer(event.generation, known):
            return None  # what came between was lost
    return known if ours == commits else None


def strangers(heard: Iterable[Commit | Overrun]) -> list[Commit]:
    """Those commits to our tables that are not of the calling thread."""
    command = Path("/proc/thread-self/comm").read_text(encoding="utf-8", errors="replace").rstrip("\n")
    number = threading.get_native_id() if Path("/proc/self/ns/pid").stat().st_ino == _MACHINES else None
    mine = process.printable(command)
    commits = (each for each in heard if isinstance(each, Commit) and each.ours)
    return [each for each in commits if each.command != mine or number not in (None, each.pid)]


def touches_structure(commit: Commit) -> bool:
    """True if a commit may have changed more of our tables than elements."""
    return commit.ours and not all(" elements " in word for word in commit.what)


def doubts(heard: Heard, commits: int) -> bool:
    """True if somebody else than who made so many commits may have changed structure."""
    touched = [each for each in heard if isinstance(each, Overrun) or each.ours]
    return len(touched) > commits and any(isinstance(each, Overrun) or touches_structure(each) for each in touched)


def words(commit: Commit) -> str:
    """What somebody did, and who: both for people."""
    return f"{process.describe(commit.pid, commit.command)} {', '.join(commit.what) or 'changed them'}"

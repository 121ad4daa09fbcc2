"""The boundary to nftables, made worse: a kernel that refuses, and a process that dies, when a test says so."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TypeVar

from svcnat.errors import KernelError
from svcnat.kernel.nftables import Namespace
from svcnat.ruleset.diff import Change, Outline
from svcnat.ruleset.endpoints import Family
from svcnat.ruleset.nouns import Data, Key, Table

T = TypeVar("T")


class Death(BaseException):
    """The process is killed here: nothing after this line happens."""


@dataclass
class Faults:
    """What goes wrong from now on, in every namespace that is opened with :meth:`opener`.

    ``poison``: addresses that no element may name. ``refusals``: what the next commits end with, the first at the end.
    ``life``: so many questions and commands until the process dies, None: it lives; ``late``: after the last one was
    done. ``commits``: the change or script of every commit that the kernel took; ``reads``: how often the tables were
    read. ``before_commit``, ``after_commit``, ``before_reading``, ``before_remembering``: what happens then, the first
    at the end.
    """

    poison: set[str] = field(default_factory=set)
    refusals: list[KernelError] = field(default_factory=list)
    life: int | None = None
    late: bool = False
    commits: list[Change | str] = field(default_factory=list)
    reads: int = 0
    before_commit: list[Callable[[], None]] = field(default_factory=list)
    after_commit: list[Callable[[], None]] = field(default_factory=list)
    before_reading: list[Callable[[], None]] = field(default_factory=list)
    before_remembering: list[Callable[[], None]] = field(default_factory=list)

    def opener(self, name_or_path: str | None) -> Namespace:
        """For :class:`svcnat.agent.keeper.Keeper`."""
        return Unreliable(name_or_path, self)

    def heal(self) -> None:
        """From now on, everything works."""
        self.poison.clear()
        self.refusals.clear()
        self.before_commit.clear()
        self.life = None

    def live(self, work: Callable[[], T]) -> T:
        """Do something, unless the process dies before, or after it."""
        if self.life is None:
            return work()
        self.life -= 1
        if self.life < 0 and not self.late:
            raise Death
        done = work()
        if self.life < 0:
            raise Death
        return done

    def judge(self, texts: Iterable[str]) -> None:
        """Refuse a commit with these elements, each as it is written to the kernel."""
        if self.refusals:
            raise self.refusals.pop()
        for text in texts if self.poison else ():
            if found := self.poison & set(re.split(r"[ ,{}]+", text)):
                raise KernelError(f"nftables: {min(found)}: the kernel does not like it")


class Unreliable(Namespace):
    """A namespace with faults."""

    def __init__(self, name_or_path: str | None, faults: Faults) -> None:
        self._faults = faults
        super().__init__(name_or_path)

    def generation(self) -> int:
        return self._faults.live(super().generation)

    def check(self, script: str) -> None:
        self._faults.judge(_added(script))
        self._faults.live(lambda: super(Unreliable, self).check(script))

    def commit(self, script: str) -> None:
        if not script:
            return
        _next(self._faults.before_commit)
        self._faults.judge(_added(script))
        self._faults.live(lambda: super(Unreliable, self).commit(script))
        self._faults.commits.append(script)
        _next(self._faults.after_commit)

    def commit_elements(self, change: Change, *, generation: int) -> int:
        _next(self._faults.before_commit)
        self._faults.judge(
            f"{key} {data}".replace("'", " ").replace("(", " ").replace(")", " ")
            for part in change.values()
            for elements in part.fresh.values()
            for key, data in elements.items()
        )
        made = self._faults.live(lambda: super(Unreliable, self).commit_elements(change, generation=generation))
        self._faults.commits.append(change)
        _next(self._faults.after_commit)
        return made

    def read(self, tables: Iterable[Table]) -> dict[Family, Outline]:
        self._faults.reads += 1
        _next(self._faults.before_reading)
        return self._faults.live(lambda: super(Unreliable, self).read(tables))

    def remembered(self, table: Table) -> dict[str, dict[Key, Data]]:
        _next(self._faults.before_remembering)
        return self._faults.live(lambda: super(Unreliable, self).remembered(table))


def _next(happenings: list[Callable[[], None]]) -> None:
    if happenings:
        happenings.pop()()


def _added(script: str) -> Iterable[str]:
    return (line for line in script.splitlines() if line.startswith("add element"))

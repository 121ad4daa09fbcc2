"""What became of the rules: the answer of every pass, whoever made it.

It imports nothing of the kernel's, so that a command whose agent did the work need not either.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from svcnat.ruleset.diff import Change, Outline
    from svcnat.ruleset.endpoints import Family
    from svcnat.ruleset.plan import Identity

_COUNTED = (
    *("elements added", "elements deleted", "chains added", "chains deleted"),
    *("sets added", "sets deleted", "objects deleted"),
)


@dataclass(frozen=True, slots=True)
class Report:
    """What a pass did, or with a dry run would do; ``generation`` is the kernel's ruleset id after it.

    ``warnings``: what the host lacks for its services, a line each. ``had``: what was there before, at the generation
    ``since``; after that the pass made so many ``commits``, and if the generation says that there were more, others
    made them, to whatever tables. ``swept``: what nothing needs is gone. ``going``: what is to be taken away when its
    flows have ended (:mod:`svcnat.ruleset.farewell`).
    """

    change: Change
    generation: int
    warnings: tuple[str, ...] = ()
    had: Mapping[Family, Outline] = field(default_factory=dict)
    since: int = 0
    commits: int = 0
    swept: bool = True
    going: Change = field(default_factory=dict)

    @property
    def counts(self) -> dict[str, int]:
        """How many nouns of each kind are added and deleted, over both families."""
        total = Counter(dict.fromkeys(_COUNTED, 0))
        for part in self.change.values():
            total.update(part.counts())
        return dict(total)


@dataclass(slots=True)
class Written:
    """What an agent committed, in order; ``refused``: Services that the kernel did not take, which are as they were.

    ``swept``: what nothing needs is gone, too.
    """

    full: bool = False
    changes: list[Change] = field(default_factory=list)
    refused: dict[Identity, str] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    swept: bool = True

    @property
    def moved(self) -> bool:
        """True if node ports answer on other addresses than before."""
        parts = (part for change in self.changes for part in change.values())
        return any("nodeport-ips" in {*part.stale, *part.fresh} for part in parts)

    @property
    def counts(self) -> tuple[int, int]:
        """Elements added and deleted."""
        counts = [part.counts() for change in self.changes for part in change.values()]
        return sum(each["elements added"] for each in counts), sum(each["elements deleted"] for each in counts)

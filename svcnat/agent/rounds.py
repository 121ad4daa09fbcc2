"""What a round of an agent is about: why there is one, what it found, how a target fares, and who is told of it.

What is done in a round is :mod:`svcnat.agent.reconciler`'s affair.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from svcnat.agent.desired import Identity, Touched
from svcnat.agent.keeper import Keeper, Overran
from svcnat.agent.targets import Target
from svcnat.model.configuration import Configuration


@dataclass(slots=True)
class Reasons:
    """Why there is to be a round.

    ``objects``: they have changed; ``look``: ask whether they, or the targets, have; ``events``: the kernel told of
    something; ``urgent``: somebody waits, so that what failed is tried again at once; ``config``: a new one.
    """

    objects: bool = False
    look: bool = False
    events: bool = False
    urgent: bool = False
    config: Configuration | None = None


@dataclass(slots=True)
class Round:
    """What a round found: the objects' revision, what changed of them, and whether targets came or went."""

    revision: int
    touched: Touched = field(default_factory=Touched)
    moved: bool = False


@dataclass(slots=True)
class Member:
    """A target, and how it fares.

    `pending`: Services that may have changed since the last pass. `begun`: a pass has ended well since it was opened.
    `error`: why the last one did not, after `tries` in a row; the next is at `again`, by the clock. `drift`: how often
    somebody else changed its rules. `added`, `deleted`: elements, in all. `passed`: when the last pass ended well, 0.0
    if none did; `took`: its seconds. `tidied`: when what nothing needs was last removed.
    """

    target: Target
    keeper: Keeper | None = None
    pending: set[Identity] = field(default_factory=set)
    begun: bool = False
    error: str = ""
    tries: int = 0
    again: float = 0.0
    drift: int = 0
    added: int = 0
    deleted: int = 0
    passed: float = 0.0
    took: float = 0.0
    warnings: tuple[str, ...] = ()
    tidied: float = 0.0

    @property
    def state(self) -> str:
        """In one word."""
        if self.keeper is None:
            return "off" if self.target.optional else "gone"
        if self.error:
            return "failing"
        return "synced" if self.begun else "starting"


class Observer:
    """Who wants to know what happens in rounds, in their thread; this one does not."""

    def requested(self, target: Target) -> None:
        """There is a reason for a pass over a target."""

    def passed(self, target: Target, *, full: bool, seconds: float, changes: int) -> None:
        """A pass over a target ended well."""

    def failed(self, target: Target) -> None:
        """A pass over a target failed."""

    def drifted(self, target: Target, what: str) -> None:
        """Somebody else changed a target's rules; the pass that repairs them follows."""

    def refused(self, target: Target, service: Identity, reason: str) -> None:
        """The rules of a Service cannot be had."""

    def holds(self, target: Target, *, services: int, endpoints: int, far: Mapping[str, int]) -> None:
        """So much has rules in a target now; `far`: see :class:`svcnat.agent.tally.Tally`."""

    def read(self, target: Target, *, well: bool) -> None:
        """The objects cannot be read any more, so a target's rules may be old; or they can again, and are current."""

    def gone(self, target: Target) -> None:
        """The target is not there any more."""

    def overrun(self, source: Overran) -> None:
        """Events of the kernel were lost; what they told of is looked at."""

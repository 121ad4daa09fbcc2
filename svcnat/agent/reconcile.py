"""One pass: read what is there, compare, commit what differs, sweep.

Level-triggered: whatever the kernel holds, the pass ends at the wanted ruleset, and writes nothing if it is there
already. What packets see changes in one transaction. When to run a pass is the caller's decision.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import replace

from svcnat.agent.report import Report
from svcnat.errors import KernelError, StaleError, TooLargeError
from svcnat.kernel.nftables import Namespace
from svcnat.ruleset import farewell, regrowth
from svcnat.ruleset.diff import Change, Outline, TableChange, diff, forget
from svcnat.ruleset.endpoints import Family
from svcnat.ruleset.nftables import render_change, render_parts, render_sweep, render_sweep_singly
from svcnat.ruleset.nouns import Ruleset

_ATTEMPTS = 5
_IN_PARTS = (
    "the change is too large for one transaction in this user namespace (net.core.wmem_max): committed in parts, so "
    "packets may meet rules that are half changed"
)


def reconcile(
    namespace: Namespace,
    want: Ruleset,
    *,
    dry_run: bool = False,
    distrust: bool = False,
    quietly: Callable[[Change], AbstractContextManager[object]] = contextlib.nullcontext,
) -> Report:
    """Make the namespace's tables equal to `want`, by the smallest transaction.

    The frontends in the report's ``going`` refuse, and are to be taken away when their flows have ended.
    With `distrust` every chain is filled anew: somebody may have replaced a rule by one that looks like it.
    `quietly` surrounds the commit of a change.
    Tables of others are neither read nor written. A dry run asks the kernel whether it would take the change.

    Raises:
        StaleError: others changed the tables between each reading and each commit, several times.
        KernelError: the kernel refused; the rules are as they were.

    """
    for attempt in range(_ATTEMPTS):
        before = namespace.generation()
        have = namespace.read(want.values())
        # A family that no service uses needs no table, but one that is there stays, empty: removing the last NAT
        # hook would stop the translation of flows that are still alive.
        needed = {family: table for family, table in want.items() if family in have or any(table.elements.values())}
        change = diff(_doubted(have) if distrust else have, needed)
        first, going = farewell.in_two(change, have, needed)
        writing = _Counted(namespace)
        try:
            if dry_run:
                warnings = _check(namespace, change)
            else:
                with quietly(first):
                    warnings = _commit(writing, first)
        except StaleError:
            if attempt == _ATTEMPTS - 1:
                raise
            continue
        swept = dry_run or _finish(writing, needed, change)
        generation = namespace.generation()
        return Report(change, generation, warnings, have, before, writing.commits, swept=swept, going=going)
    raise AssertionError("unreachable: the last attempt returns or raises")


def take_away(namespace: Namespace, report: Report) -> Report:
    """Take away the frontends that a pass left until their flows have ended; what is not there any more is no harm."""
    if not report.going:
        return report
    with contextlib.suppress(KernelError):
        namespace.commit(render_change(report.going))
    return replace(report, generation=namespace.generation(), going={})


def _doubted(have: Mapping[Family, Outline]) -> dict[Family, Outline]:
    """The same, with chains whose rules are those of no ruleset."""
    return {
        family: replace(each, chains={name: chain._replace(rules=("?",)) for name, chain in each.chains.items()})
        for family, each in have.items()
    }


class _Counted:
    """A namespace whose commits are counted."""

    def __init__(self, namespace: Namespace) -> None:
        self.namespace = namespace
        self.commits = 0

    def commit(self, script: str) -> None:
        self.namespace.commit(script)
        self.commits += bool(script)

    def commit_elements(self, change: Change) -> None:
        self.namespace.commit_elements(change, generation=self.namespace.generation())
        self.commits += 1


def _check(namespace: Namespace, change: Change) -> tuple[str, ...]:
    """Ask the kernel about a change; returns what is doubtful about it."""
    try:
        namespace.check(render_change(change))
    except TooLargeError:
        return (_IN_PARTS,)
    return ()


def _commit(writing: _Counted, change: Change) -> tuple[str, ...]:
    """Commit a change in one transaction, or where that may not be sent, in several; returns what is to be said.

    Sets that outgrow their size take further ones, before and after it, that no packet notices. A stranger's elements
    that text cannot say go before it, since they may be in the way of ours.
    """
    doubtful: tuple[str, ...] = ()
    if strange := {f: TableChange(f, strange=part.strange) for f, part in change.items() if part.strange}:
        writing.commit_elements(strange)
        change = {family: replace(part, strange={}) for family, part in change.items()}
    mark = str(writing.namespace.generation())
    for step in regrowth.steps(change, mark):
        try:
            writing.commit(render_change(step))
        except TooLargeError:
            for script in render_parts(step):
                writing.commit(script)
            doubtful = (_IN_PARTS,)
    writing.commit(render_sweep(regrowth.twins(change, mark)))
    return doubtful


def _finish(writing: _Counted, want: Ruleset, change: Change) -> bool:
    """Do what may come after the commit, and tell whether all was swept: what was not, the next pass tries again."""
    for family, part in change.items():
        # A packet that was translated before the commit is learned after it: look once more.
        if want[family].learned and (part.stale or part.refill or part.forgotten):
            with contextlib.suppress(StaleError):
                late = forget(writing.namespace.remembered(want[family]), want[family])
                writing.commit(render_change({family: late}) if late else "")
    return sweep(writing, change)


def sweep(namespace: Namespace | _Counted, change: Change) -> bool:
    """Remove what nothing needs, as much as can be; tells whether that was all of it.

    What something of a stranger's still points at stays, and sets may go with the last rule that asks them.
    """
    try:
        namespace.commit(render_sweep(change))
    except KernelError:
        refused = 0
        for statement in render_sweep_singly(change):
            try:
                namespace.commit(statement)
            except KernelError:
                refused += 1
        return not refused
    return True

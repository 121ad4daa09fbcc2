"""One pass: read what is there, compare, commit what differs, sweep.

Level-triggered: whatever the kernel holds, the pass ends at the wanted ruleset, and writes nothing if it is there
already. What packets see changes in one transaction. When to run a pass is the caller's decision.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from dataclasses import dataclass

from svcnat.errors import KernelError, StaleError, TooLargeError
from svcnat.kernel.nftables import Namespace
from svcnat.ruleset.diff import Change, diff, forget
from svcnat.ruleset.nftables import render_change, render_parts, render_sweep
from svcnat.ruleset.nouns import Ruleset

_ATTEMPTS = 5
_IN_PARTS = (
    "the change is too large for one transaction in this user namespace (net.core.wmem_max): committed in parts, so "
    "packets may meet rules that are half changed"
)


@dataclass(frozen=True, slots=True)
class Report:
    """What a pass did, or with a dry run would do; ``generation`` is the kernel's ruleset id after it.

    ``warnings``: what the host lacks for its services, a line each.
    """

    change: Change
    generation: int
    warnings: tuple[str, ...] = ()

    @property
    def counts(self) -> dict[str, int]:
        """Elements and chains added and deleted, over both families."""
        total = Counter({"elements added": 0, "elements deleted": 0, "chains added": 0, "chains deleted": 0})
        for part in self.change.values():
            total.update(part.counts())
        return dict(total)


def reconcile(namespace: Namespace, want: Ruleset, *, dry_run: bool = False) -> Report:
    """Make the namespace's tables equal to `want`, by the smallest transaction.

    Tables of others are neither read nor written. A dry run asks the kernel whether it would take the change.

    Raises:
        StaleError: others changed the tables between each reading and each commit, several times.
        KernelError: the kernel refused; the rules are as they were.

    """
    for attempt in range(_ATTEMPTS):
        have = namespace.read(want.values())
        # A family that no service uses needs no table, but one that is there stays, empty: removing the last NAT
        # hook would stop the translation of flows that are still alive.
        needed = {family: table for family, table in want.items() if family in have or any(table.elements.values())}
        change = diff(have, needed)
        try:
            warnings = _check(namespace, change) if dry_run else _commit(namespace, change)
        except StaleError:
            if attempt == _ATTEMPTS - 1:
                raise
            continue
        if not dry_run:
            _finish(namespace, needed, change)
        return Report(change, namespace.generation(), warnings)
    raise AssertionError("unreachable: the last attempt returns or raises")


def _check(namespace: Namespace, change: Change) -> tuple[str, ...]:
    """Ask the kernel about a change; returns what is doubtful about it."""
    try:
        namespace.check(render_change(change))
    except TooLargeError:
        return (_IN_PARTS,)
    return ()


def _commit(namespace: Namespace, change: Change) -> tuple[str, ...]:
    """Commit a change in one transaction, or where that may not be sent, in several; returns what is to be said."""
    try:
        namespace.commit(render_change(change))
    except TooLargeError:
        for script in render_parts(change):
            namespace.commit(script)
        return (_IN_PARTS,)
    return ()


def _finish(namespace: Namespace, want: Ruleset, change: Change) -> None:
    """Do what may come after the commit; what fails here is tried again by the next pass."""
    for family, part in change.items():
        # A packet that was translated before the commit is learned after it: look once more.
        if want[family].learned and (part.stale or part.refill or part.forgotten):
            with contextlib.suppress(StaleError):
                late = forget(namespace.remembered(want[family]), want[family])
                namespace.commit(render_change({family: late}) if late else "")
    # A chain that something of a stranger's still points at stays.
    with contextlib.suppress(KernelError):
        namespace.commit(render_sweep(change))

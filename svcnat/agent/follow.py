"""One network namespace follows its objects: look at the host, plan, commit, prepare the host, clean up flows.

The order is the point. Rules are compiled from what the host looks like, under the writer's lock; what the host needs
beside them comes after they guard it; flows are cleaned last, when no new one can go the old way.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from itertools import chain

from svcnat.agent import flows, ownership
from svcnat.agent.departures import departures
from svcnat.agent.host import look, prepare, unguard
from svcnat.agent.reconcile import reconcile, take_away
from svcnat.agent.report import Report
from svcnat.agent.settings import Host
from svcnat.errors import KernelError
from svcnat.kernel import lock
from svcnat.kernel.nftables import Namespace
from svcnat.model.configuration import Configuration
from svcnat.ruleset.compile import compile_plan, doubts
from svcnat.ruleset.layout import GUARD
from svcnat.ruleset.needs import Needs
from svcnat.ruleset.plan import Plan


@dataclass(frozen=True, slots=True)
class Objects:
    """Where a namespace's objects come from: ``plan`` decides them for a host; ``identity`` is their state file's.

    Without an identity they come from manifests alone. ``force``: take over rules that follow a state file.
    """

    plan: Callable[[Host], Plan]
    identity: str | None = None
    force: bool = False

    @property
    def origin(self) -> str:
        """What the ``about`` chain says."""
        return ownership.origin_of(self.identity) if self.identity else "manifests"


def follow(netns: str | None, objects: Objects, config: Configuration, *, dry_run: bool = False) -> Report:
    """Make the rules of a network namespace (by name or path; None: the current one) equal to what its objects ask for.

    Raises:
        BusyError: another svcnat is writing there.
        ConflictError: the rules there follow another state file.
        KernelError: the kernel refused; the rules are as they were.

    """
    # The objects are read under the lock: of two commands at once, the later writer has seen both changes.
    with contextlib.nullcontext() if dry_run else lock.writer(netns), Namespace(netns) as namespace:
        if not objects.force:
            ownership.require(namespace, objects.identity, netns)
        plan = objects.plan(look(netns, config))
        report = reconcile(namespace, compile_plan(plan, objects.origin), dry_run=dry_run)
        if dry_run:
            return report
        warnings = [*report.warnings, *doubts(plan), *prepare(netns, Needs.of(plan), config)]
        if any(GUARD in (*part.sweep, *part.unhook) for part in report.change.values()):
            warnings += unguard(netns)
        left = departures(report.going)
        left.update(departures(report.change, chain.from_iterable(plan.services.values())))
        try:
            flows.clean_in(netns, left, plan.settings.node_port_addresses)
        except KernelError as error:
            warnings.append(f"flows that nobody serves any more stay until they expire: {error}")
        report = take_away(namespace, report)
        return Report(report.change, report.generation, tuple(warnings))

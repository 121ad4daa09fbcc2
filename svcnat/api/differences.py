"""What a change would do to objects, and to the rules that follow them: found out on a copy in memory.

The rules of both sides are compiled from objects, so that whoever may read these needs nothing of the kernel's. What
somebody else did to the rules meanwhile is not told: status does.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from svcnat.agent.settings import Host
from svcnat.agent.targets import Target
from svcnat.api.followers import Followers
from svcnat.controllers.world import by_place
from svcnat.errors import KernelError
from svcnat.model.objects import EndpointSlice, Node, Resource, Service
from svcnat.ruleset.diff import Change, diff, outline
from svcnat.store.snapshot import Snapshot
from svcnat.store.sqlite import Store
from svcnat.store.transaction import Outcome, Transaction

_RULED_BY = (Service, EndpointSlice, Node)
"""The kinds that rules are compiled from."""


@dataclass(frozen=True, slots=True)
class Difference:
    """An object as it is (None: there is none), and as it would be."""

    before: Resource | None
    after: Resource


@dataclass(frozen=True, slots=True)
class Differences:
    """What would change: objects in the order asked for, and the rules of each target.

    ``warnings`` say why rules were not compared, if they were not.
    """

    objects: tuple[Difference, ...]
    rules: tuple[tuple[Target, Change], ...]
    warnings: tuple[str, ...] = ()


def differences(store: Store, followers: Followers, change: Callable[[Transaction], Sequence[Outcome]]) -> Differences:
    """Find out what a change would do.

    Raises:
        SvcnatError: whatever the change raises.

    """
    with store.rehearsal() as (before, after):
        outcomes = change(after)
        after.finish()
        objects = tuple(
            Difference(before.get(type(each.resource), *by_place(each.resource)), each.resource)
            for each in outcomes
            if each.action != "unchanged"
        )
        if not _concerns_rules(before, after):
            return Differences(objects, ())
        try:
            hosts = followers.hosts()
        except KernelError as error:
            return Differences(objects, (), (f"the rules were not compared: {error}",))
        return Differences(objects, _rules(followers, before, after, hosts))


def _concerns_rules(before: Snapshot, after: Snapshot) -> bool:
    changes = after.changes_since(before.revision)
    if changes is None:
        return True
    kinds = {type(each) for each in changes.written} | {kind for kind, _, _ in changes.deleted}
    return not kinds.isdisjoint(_RULED_BY)


def _rules(
    followers: Followers, before: Snapshot, after: Snapshot, hosts: dict[Target, Host]
) -> tuple[tuple[Target, Change], ...]:
    have, want = followers.rulesets(before, hosts), followers.rulesets(after, hosts)
    changes = ((target, diff(outline(have[target]), want[target])) for target in hosts)
    return tuple((target, change) for target, change in changes if change)

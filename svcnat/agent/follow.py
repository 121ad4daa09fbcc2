"""One network namespace follows its objects: look at the host, plan, commit, prepare the host, clean up flows.

The order is the point. Rules are compiled from what the host looks like, under the writer's lock; what the host needs
beside them comes after they guard it; flows are cleaned last, when no new one can go the old way.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from svcnat.agent import flows, ownership
from svcnat.agent.host import look, prepare, unguard
from svcnat.agent.reconcile import Report, reconcile
from svcnat.agent.settings import Host
from svcnat.errors import KernelError
from svcnat.kernel import lock
from svcnat.kernel.conntrack import Conntrack
from svcnat.kernel.nftables import Namespace
from svcnat.model.configuration import Configuration
from svcnat.ruleset.compile import compile_plan, doubts, frontend_of
from svcnat.ruleset.diff import Change
from svcnat.ruleset.endpoints import Backend, Family
from svcnat.ruleset.layout import GUARD
from svcnat.ruleset.plan import Kind, Plan


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
    with lock.writer(netns), Namespace(netns) as namespace:
        if not objects.force:
            ownership.require(namespace, objects.identity)
        plan = objects.plan(look(netns, config))
        report = reconcile(namespace, compile_plan(plan, objects.origin), dry_run=dry_run)
        if dry_run:
            return report
        warnings = [*report.warnings, *doubts(plan), *prepare(netns, plan, config)]
        if any(GUARD in part.sweep for part in report.change.values()):
            warnings += unguard(netns)
        try:
            _clean(netns, plan, report.change)
        except KernelError as error:
            warnings.append(f"flows that nobody serves any more stay until they expire: {error}")
        return Report(report.change, report.generation, tuple(warnings))


def _clean(netns: str | None, plan: Plan, change: Change) -> None:
    """Delete the flows of changed frontends that nobody serves any more.

    Those of UDP always, since they never end by themselves as long as packets come; of other protocols only where the
    Service asks for it (``svcnat.io/on-endpoint-removal: terminate``).
    """
    frontends: dict[tuple[Family, str, str, int], frozenset[Backend]] = {}
    node_ports: dict[tuple[Family, str, int], frozenset[Backend]] = {}
    touched = set(_touched(change))
    # Whose clients these were is not known: all frontends of the protocol are looked at.
    gone = {(family, key[1]) for family, part in change.items() for key in part.stale.get("unchosen", ())}
    moved = {family for family, part in change.items() if "nodeport-ips" in {*part.stale, *part.fresh}}
    # A frontend that is gone has nobody to serve its flows.
    for family, address, protocol, number in touched:
        if protocol == "udp" and address:
            frontends[family, address, protocol, number] = frozenset()
        elif protocol == "udp":
            node_ports[family, protocol, number] = frozenset()
    for port in (port for ports in plan.services.values() for port in ports):
        if not port.ends_flows:
            continue
        everywhere = (port.family, port.protocol) in gone
        for frontend in port.frontends:
            looked_at = everywhere or (port.family, frontend.address, port.protocol, frontend.port) in touched
            if not looked_at and not (frontend.kind is Kind.NODE_PORT and port.family in moved):
                continue
            serving = frozenset(port.endpoints.serving)
            if frontend.kind is Kind.NODE_PORT:
                for address in _silenced(change, port.family):
                    frontends.setdefault((port.family, address, port.protocol, frontend.port), frozenset())
                node_ports[port.family, port.protocol, frontend.port] = serving
            else:
                frontends[port.family, frontend.address, port.protocol, frontend.port] = serving
    if frontends or node_ports:
        with Conntrack(netns) as conntrack:
            flows.clean(conntrack, frontends, node_ports, plan.settings.node_port_addresses)


def _silenced(change: Change, family: Family) -> Iterator[str]:
    """The node's addresses that answered node ports until now."""
    part = change.get(family)
    for key in part.stale.get("nodeport-ips", ()) if part else ():
        yield str(key[0])


def _touched(change: Change) -> Iterator[tuple[Family, str, str, int]]:
    """The frontends whose elements a change adds or deletes: family, address ("" for a node port), protocol, port."""
    for family, part in change.items():
        for elements in (part.stale, part.fresh):
            for name, keys in elements.items():
                for key in keys:
                    if found := frontend_of(name, key):
                        yield (family, *found)

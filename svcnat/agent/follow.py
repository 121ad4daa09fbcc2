"""One network namespace follows its objects: look at the host, plan, commit, prepare the host, clean up flows.

The order is the point. Rules are compiled from what the host looks like, under the writer's lock; what the host needs
beside them comes after they guard it; flows are cleaned last, when no new one can go the old way.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from svcnat.agent import flows, ownership
from svcnat.agent.host import look, prepare
from svcnat.agent.reconcile import Report, reconcile
from svcnat.agent.settings import Host
from svcnat.errors import KernelError
from svcnat.kernel import lock
from svcnat.kernel.conntrack import Conntrack
from svcnat.kernel.nftables import Namespace
from svcnat.model.configuration import Configuration
from svcnat.ruleset.compile import compile_plan, doubts
from svcnat.ruleset.diff import Change
from svcnat.ruleset.endpoints import Backend, Family
from svcnat.ruleset.nouns import Key
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
        warnings = [*doubts(plan), *prepare(netns, plan, config)]
        with contextlib.suppress(KernelError):  # a kernel that cannot do it keeps the flows until they expire
            _clean(netns, plan, report.change)
        return Report(report.change, report.generation, tuple(warnings))


def _clean(netns: str | None, plan: Plan, change: Change) -> None:
    """Delete the flows of changed frontends that nobody serves any more.

    Those of UDP always, since they never end by themselves as long as packets come; of other protocols only where the
    Service asks for it (``svcnat.io/on-endpoint-removal: terminate``).
    """
    frontends: dict[tuple[Family, str, str, int], frozenset[Backend]] = {}
    node_ports: dict[tuple[Family, str, int], frozenset[Backend]] = {}
    touched = set(_touched(change))
    # A frontend that is gone has nobody to serve its flows.
    for family, address, protocol, number in touched:
        if protocol == "udp" and address:
            frontends[family, address, protocol, number] = frozenset()
        elif protocol == "udp":
            node_ports[family, protocol, number] = frozenset()
    for port in (port for ports in plan.services.values() for port in ports):
        if port.protocol != "udp" and port.terminate_after is None:
            continue
        for frontend in port.frontends:
            if (port.family, frontend.address, port.protocol, frontend.port) not in touched:
                continue
            serving = frozenset(port.endpoints.serving)
            if frontend.kind is Kind.NODE_PORT:
                node_ports[port.family, port.protocol, frontend.port] = serving
            else:
                frontends[port.family, frontend.address, port.protocol, frontend.port] = serving
    if frontends or node_ports:
        with Conntrack(netns) as conntrack:
            addresses = plan.settings.node_port_addresses
            flows.clean(conntrack, frontends, node_ports, addresses, protocols=("udp", "tcp", "sctp"))


def _touched(change: Change) -> Iterator[tuple[Family, str, str, int]]:
    """The frontends whose elements a change adds or deletes: family, address ("" for a node port), protocol, port."""
    for family, part in change.items():
        for elements in (part.stale, part.fresh):
            for name, keys in elements.items():
                for key in keys:
                    if found := _frontend(name, key):
                        yield (family, *found)


def _frontend(name: str, key: Key) -> tuple[str, str, int] | None:
    """The frontend that an element belongs to; None for elements that lead to no endpoint."""
    match key:
        case (str(address), str(protocol), int(port)) if name == "frontends":
            return address, protocol, port
        case (str(protocol), int(port)) if name == "nodeports":
            return "", protocol, port
        case (str(address), int(port), int(_)) if "backends-" in name:
            return address, name.rpartition("-")[2], port
        case (int(port), int(_)) if "nodeport-backends-" in name:
            return "", name.rpartition("-")[2], port
    return None

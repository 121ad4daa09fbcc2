"""Rules without a state file: compile manifests, print or commit the result."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from svcnat.agent.follow import Objects, follow
from svcnat.agent.host import unprepare
from svcnat.agent.report import Report
from svcnat.agent.settings import Host, settings_for
from svcnat.api.configured import node_name, service_ranges
from svcnat.controllers.react import settled
from svcnat.kernel import lock
from svcnat.kernel.nftables import Namespace
from svcnat.model.configuration import Configuration
from svcnat.model.located import located
from svcnat.model.manifests import Loaded
from svcnat.model.objects import EndpointSlice, Resource, Service
from svcnat.ruleset import nftables
from svcnat.ruleset.compile import compile_plan
from svcnat.ruleset.endpoints import Family
from svcnat.ruleset.nouns import Ruleset
from svcnat.ruleset.plan import Plan, plan


@dataclass(frozen=True, slots=True)
class Cleaned:
    """What :func:`cleanup` found: the families that had a table, and what it could not put back, a line each."""

    families: tuple[Family, ...]
    warnings: tuple[str, ...]


def compile_ruleset(
    objects: Loaded | Iterable[Resource],
    config: Configuration | None = None,
    *,
    host: Host | None = None,
    node: str | None = None,
) -> Ruleset:
    """The rules that objects ask for, without any state: the same objects give the same rules, in any order.

    Addresses and node ports that nobody asked for follow from family, namespace and name. What depends on the `host`
    (which addresses answer node ports, above all) is left out without one; `node` is its name if the configuration
    has none.

    Raises:
        ManifestError: objects contradict each other, for instance by asking for one address twice.

    """
    return compile_plan(_plan(objects, config or Configuration(), host or Host(), node))


def _plan(objects: Loaded | Iterable[Resource], config: Configuration, host: Host, node: str | None = None) -> Plan:
    manifests = objects.manifests if isinstance(objects, Loaded) else ()
    resources = objects if not isinstance(objects, Loaded) else [manifest.resource for manifest in manifests]
    with located(manifests):
        world = settled(
            resources,
            service_ranges(config),
            node_ports=config.node_ports,
            load_balancer_pool=config.load_balancer_pool,
        )
    settings = settings_for(config, host, node_name(config, node))
    return plan(world.list(Service), world.list(EndpointSlice), settings)


def render(ruleset: Ruleset) -> str:
    """The rules as a script for ``nft -f``, which makes svcnat's tables equal to them, whatever was in them."""
    return nftables.render(ruleset)


def sync(
    objects: Loaded | Iterable[Resource],
    netns: str | None = None,
    *,
    config: Configuration | None = None,
    dry_run: bool = False,
    force: bool = False,
) -> Report:
    """Make the rules of a network namespace (by name or path; None: the current one) equal to what objects ask for.

    Raises:
        ManifestError: objects contradict each other.
        ConflictError: the rules there follow a state file; `force` takes them all the same.
        BusyError: another svcnat is writing there.
        KernelError: the kernel refused; the rules are as they were.

    """
    config = config or Configuration()
    wanted = Objects(lambda host: _plan(objects, config, host), force=force)
    return follow(netns, wanted, config, dry_run=dry_run)


def cleanup(netns: str | None = None) -> Cleaned:
    """Remove svcnat's tables, proxy neighbours and routes from a network namespace, and nothing else.

    Raises:
        BusyError: another svcnat is writing there.
        KernelError: the kernel refused.

    """
    with lock.writer(netns), Namespace(netns) as namespace:
        families = namespace.families()
        namespace.commit(nftables.render_cleanup(families))
        return Cleaned(tuple(families), tuple(unprepare(netns)))

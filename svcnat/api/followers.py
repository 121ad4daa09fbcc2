"""The network namespaces whose rules follow a state file: what the objects ask of each, and what each counted."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass

from svcnat.agent import ownership
from svcnat.agent.follow import Objects, follow
from svcnat.agent.host import look
from svcnat.agent.report import Report
from svcnat.agent.settings import Host, settings_for
from svcnat.agent.targets import Target
from svcnat.kernel.nftables import Namespace
from svcnat.model.configuration import Configuration
from svcnat.model.labels import SERVICE_LABEL, ZONE_LABEL
from svcnat.model.objects import EndpointSlice, Node, Service
from svcnat.ruleset.compile import backend_keys, compile_plan
from svcnat.ruleset.nouns import Ruleset
from svcnat.ruleset.plan import Plan, Settings, plan, plan_service
from svcnat.store.snapshot import Snapshot
from svcnat.store.sqlite import Store


@dataclass(frozen=True, slots=True)
class Followers:
    """Targets that follow one store; the methods of :class:`~svcnat.api.cluster.Cluster` say more."""

    store: Store
    config: Configuration
    targets: tuple[Target, ...]

    def require(self) -> None:
        """Raise what keeps a target from following at all: no privilege, no such namespace, another's rules."""
        for target in self.targets:
            with Namespace(target.netns) as namespace:
                ownership.require(namespace, self.store.identity, target.netns)

    def follow(self, *, dry_run: bool = False) -> tuple[Report, ...]:
        """Make the rules of every target equal to the objects."""
        return tuple(
            follow(
                target.netns,
                Objects(functools.partial(self._plan, target), self.store.identity),
                self.config,
                dry_run=dry_run,
            )
            for target in self.targets
        )

    def plans(self) -> list[tuple[Target, Plan]]:
        """What the objects ask of each target, now."""
        return [(target, self._plan(target, host)) for target, host in self.hosts().items()]

    def hosts(self) -> dict[Target, Host]:
        """What the host of each target looks like."""
        return {target: look(target.netns, self.config) for target in self.targets}

    def rulesets(self, snapshot: Snapshot, hosts: Mapping[Target, Host]) -> dict[Target, Ruleset]:
        """The rules that the objects of a snapshot ask for, whatever is in the kernel."""
        return {target: compile_plan(self._planned(snapshot, target, host)) for target, host in hosts.items()}

    def connections(self, service: Service) -> dict[tuple[str, int], int | None]:
        """How many connections each endpoint got through a Service."""
        with self.store.read() as snapshot:
            slices = snapshot.labelled(
                EndpointSlice, service.metadata.namespace, {SERVICE_LABEL: service.metadata.name}
            )
            settings = {target: self._settings(snapshot, target, host) for target, host in self.hosts().items()}
        counted: dict[tuple[str, int], int | None] = {}
        for target in self.targets:
            ports = plan_service(service, slices, settings[target])
            with Namespace(target.netns) as namespace:
                for port in ports:
                    for part in backend_keys(port):
                        found = namespace.counters(port.family, part.declared, part.keys)
                        for key, backend in part.keys.items():
                            before, now = counted.get(backend, 0), found.get(key, (0, 0))
                            counted[backend] = None if before is None or now is None else before + now[0]
        return counted

    def _plan(self, target: Target, host: Host) -> Plan:
        with self.store.read() as snapshot:
            return self._planned(snapshot, target, host)

    def _planned(self, snapshot: Snapshot, target: Target, host: Host) -> Plan:
        services, slices = snapshot.list(Service), snapshot.list(EndpointSlice)
        return plan(services, slices, self._settings(snapshot, target, host))

    def _settings(self, snapshot: Snapshot, target: Target, host: Host) -> Settings:
        node = snapshot.get(Node, "", target.node)
        zone = node.metadata.labels.get(ZONE_LABEL, "") if node else ""
        return settings_for(self.config, host, target.node, zone)

"""An agent as a process of a test's own, what it tells, and whether the kernel is equal to the objects."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from svcnat.agent.control import AgentState, Client, Reconcile, TargetState
from svcnat.agent.desired import Desired
from svcnat.agent.follow import Objects, follow
from svcnat.agent.keeper import Keeper
from svcnat.agent.reconciler import Reconciler
from svcnat.agent.rounds import Observer, Reasons
from svcnat.agent.settings import Host, settings_for
from svcnat.agent.sources import StateFile
from svcnat.agent.targets import Target
from svcnat.kernel import netns
from svcnat.kernel.links import Device, Route, Veth, build
from svcnat.kernel.nftables import Namespace
from svcnat.model.configuration import Configuration
from svcnat.ruleset.plan import Plan, plan
from svcnat.store.sqlite import Store
from tests.agents import PATIENCE, Agent


class Running(Agent):
    """An agent with one target, which is to be in step when the rest of the test is over."""

    def __exit__(self, *error: object) -> None:
        super().__exit__(*error)
        if error == (None, None, None):
            assert not self.said("Traceback"), self.log.read_text()

    def now(self, *, deep: bool = True) -> AgentState:
        """What it tells of itself; it must be there."""
        found = self.ask(deep=deep)
        assert found is not None, "the agent is gone"
        return found

    @property
    def target(self) -> TargetState:
        """What it tells of its target, after it read the kernel's rules."""
        return self.now().targets[0]

    def reconcile(self, revision: int = 0) -> str:
        """Have it follow; why it did not, "" if it did."""
        client = Client.find(self.socket)
        assert client is not None, "the agent is gone"
        with client:
            return client.ask(Reconcile(revision)).error

    def in_step(self) -> bool:
        """True if it says that the kernel's rules are equal to the objects."""
        return self.target.state == "synced" and not self.target.different


def svcnat(*arguments: str | Path, **options: Any) -> subprocess.CompletedProcess[str]:
    """A command that ends by itself."""
    command = [sys.executable, "-m", "svcnat", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False, **options)


def differences(state: Path, where: str, config: Configuration | None = None, node: str = "n") -> dict[str, int]:
    """How the kernel's rules differ from those that a first pass over the objects would make; nobody is asked."""
    desired = Desired()
    source = StateFile(state, lambda _: Store.open(state))
    source.open(Configuration())
    try:
        source.refresh(desired)
    finally:
        source.close()
    config = config or Configuration()

    def decide(host: Host) -> Plan:
        return plan(desired.services.values(), desired.slices(), settings_for(config, host, node))

    report = follow(where, Objects(decide, source.identity, force=True), config, dry_run=True)
    return {what: count for what, count in report.counts.items() if count}


def link(where: str, peer: str, address: str = "192.0.2.1", name: str = "eth0") -> None:
    """Give a network namespace a link to another one, and a default route through it."""
    other = f"{address.rpartition('.')[0]}.254"
    near = Device(netns.path(where), name, (f"{address}/24",), (Route("0.0.0.0/0", other),))
    build([Veth(near, Device(netns.path(peer), name, (f"{other}/24",)))])


def nft(where: str, script: str) -> None:
    """What another program does to the rules."""
    with netns.entered(where):
        subprocess.run(["nft", script], check=True, capture_output=True)


def service(name: str, number: int = 1, **spec: Any) -> dict[str, Any]:
    """A Service without a selector."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"namespace": "default", "name": name},
        "spec": {
            "clusterIP": f"10.96.{1 + number // 250}.{1 + number % 250}",
            "ports": [{"port": 80, "targetPort": 8080}],
            **spec,
        },
    }


def endpoints(name: str, *addresses: str) -> dict[str, Any]:
    """The EndpointSlice of a Service."""
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"namespace": "default", "name": name, "labels": {"kubernetes.io/service-name": name}},
        "addressType": "IPv4",
        "ports": [{"port": 8080}],
        "endpoints": [{"addresses": [each]} for each in addresses],
    }


def create(store: Store, *documents: dict[str, Any]) -> int:
    """Make objects in one transaction; the revision then."""
    with store.transaction() as transaction:
        for document in documents:
            transaction.create(document)
    return transaction.revision


def web(store: Store, number: int = 1, **spec: Any) -> int:
    """A Service with two endpoints; the revision then."""
    name = f"web-{number}"
    return create(store, service(name, number, **spec), endpoints(name, "192.0.2.7", "192.0.2.8"))


def open_files() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def rules(where: str) -> str:
    """All rules of a network namespace, without what packets and listings change."""
    with netns.entered(where):
        return subprocess.run(["nft", "-s", "list", "ruleset"], capture_output=True, text=True, check=True).stdout


def node_port_addresses(where: str) -> str:
    """Where the rules of a network namespace answer node ports."""
    listed = rules(where).partition("set nodeport-ips {")[2].partition("\n\t}")[0]
    return listed.partition("elements = {")[2].partition("}")[0].strip()


class Rounds:
    """An agent without a process: its targets' rounds are made here, one by one, by clocks of the test's own."""

    def __init__(self, state: Path, *where: str, opener: Callable[[str | None], Namespace] = Namespace) -> None:
        self.clock, self.wall = 1000.0, datetime(2026, 1, 1, tzinfo=UTC)
        self.observer = Seen()
        self.source = StateFile(state, lambda _: Store.open(state), now=lambda: self.wall)
        self.reconciler = Reconciler(
            self.source,
            [Target(f"n{number}", each) for number, each in enumerate(where, 1)],
            Configuration(),
            observer=self.observer,
            keeping=lambda target, config, source: Keeper(
                target,
                config,
                follows=source.follows,
                identity=source.identity,
                opener=opener,
                clock=lambda: self.clock,
            ),
            clock=lambda: self.clock,
        )

    def __enter__(self) -> Rounds:
        self.reconciler.open()
        self.round(objects=True)
        return self

    def __exit__(self, *_: object) -> None:
        self.reconciler.close()

    def round(self, *, seconds: float = 1.0, **reasons: bool) -> list[str]:
        """Make a round some time later; how its targets are then."""
        self.clock += seconds
        self.reconciler.round(Reasons(**reasons))
        return [each.state for each in self.reconciler.state(deep=True).targets]


class Seen(Observer):
    """Notes what an agent would count."""

    def __init__(self) -> None:
        self.overruns: list[str] = []
        self.full = self.refusals = 0

    def overrun(self, source: str) -> None:
        self.overruns.append(source)

    def passed(self, target: Target, *, full: bool, seconds: float, changes: int) -> None:
        self.full += full

    def refused(self, target: Target, service: tuple[str, str], reason: str) -> None:
        self.refusals += 1

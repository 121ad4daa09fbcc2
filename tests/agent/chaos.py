"""Whatever happens, in whatever order: the rules end where a fresh sync of the final objects does.

A state machine for hypothesis. Its agent is a :class:`Reconciler` of two targets whose rounds are made here, one by
one; it dies at any question to the kernel, and then the kernel closes its sockets, as after ``kill -9``.
``python -m tests.agent.chaos SECONDS`` runs it with random seeds, which it prints.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import logging
import random
import resource
import shutil
import socket
import sqlite3
import subprocess
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from msgspec.structs import replace

from svcnat.agent import flows
from svcnat.agent.departures import everything
from svcnat.agent.desired import KINDS
from svcnat.agent.follow import Objects, follow
from svcnat.agent.host import look
from svcnat.agent.keeper import Keeper
from svcnat.agent.reconciler import Reconciler
from svcnat.agent.rounds import Observer, Reasons
from svcnat.agent.settings import settings_for
from svcnat.agent.sources import StateFile
from svcnat.agent.targets import Target
from svcnat.errors import BusyError, KernelError, PrivilegeError, StaleError, SvcnatError, TooLargeError
from svcnat.kernel import netns
from svcnat.kernel.conntrack import Conntrack
from svcnat.kernel.libnftables import Libnftables
from svcnat.kernel.nftables import Namespace
from svcnat.model.configuration import Configuration
from svcnat.model.objects import (
    Endpoint,
    EndpointConditions,
    EndpointSlice,
    EndpointSlicePort,
    ObjectMeta,
    Pod,
    Resource,
    Service,
    ServicePort,
)
from svcnat.model.objects import Namespace as NamespaceObject
from svcnat.model.objects import Node as NodeObject
from svcnat.ruleset.compile import compile_plan
from svcnat.ruleset.diff import Outline, forget, outline
from svcnat.ruleset.plan import Plan, plan
from svcnat.store.sqlite import Store
from tests.agent.unreliable import Death, Faults
from tests.controllers.build import pod, service
from tests.store.test_sequences import edit

NODES = ("here", "there")
NAMES = ("a", "b", "c", "d")
SPACES = ("default", "default", "default", "shop")
POOL = ["198.51.100.1-198.51.100.3", "2001:db8:5::1-2001:db8:5::3"]
STORE = {"load_balancer_pool": POOL, "clock": lambda: "2026-01-01T00:00:00Z", "busy_seconds": 1.0}

# --- what people and controllers do to objects ---------------------------------------------------------------------

_NOTES = (
    {},
    {},
    {"svcnat.io/scheduler": "round-robin"},
    {"svcnat.io/scheduler": "source-hash"},
    {"svcnat.io/scheduler": "maglev"},
    {"svcnat.io/max-connections": "5"},
    {"svcnat.io/connection-rate": "5/minute"},
    {"svcnat.io/on-endpoint-removal": "terminate"},
    {"svcnat.io/on-endpoint-removal": "terminate=30"},
)
_TYPES = (
    {"type": "ClusterIP"},
    {"type": "ClusterIP", "cluster_ip": "None"},
    {"type": "NodePort"},
    {"type": "LoadBalancer"},
    {"type": "LoadBalancer", "load_balancer_source_ranges": ["192.0.2.0/24"]},
    {"type": "ExternalName", "external_name": "example.org"},
)


@st.composite
def services(draw: st.DrawFn) -> Service:
    """A Service of any kind; some want the node port, or the external address, of another."""
    fields = dict(draw(st.sampled_from(_TYPES)))
    outside = fields["type"] in ("NodePort", "LoadBalancer")
    numbers = draw(st.sampled_from([(80,), (80,), (53, 80)]))
    ports = [
        ServicePort(
            name=f"p{number}",
            port=number,
            target_port=draw(st.sampled_from([None, 8080, 9090])),
            protocol=draw(st.sampled_from(["TCP", "UDP", "UDP", "SCTP"])),
            node_port=draw(st.sampled_from([None, None, 30080])) if outside and number == 80 else None,
        )
        for number in numbers
    ]
    name = draw(st.sampled_from(NAMES))
    if fields["type"] != "ExternalName":
        fields["ip_family_policy"] = draw(st.sampled_from([None, "PreferDualStack"]))
        fields["session_affinity"] = draw(st.sampled_from(["None", "ClientIP"]))
        fields["internal_traffic_policy"] = draw(st.sampled_from(["Cluster", "Cluster", "Local"]))
        fields["external_ips"] = draw(st.sampled_from([[], [], ["203.0.113.1"], ["203.0.113.1", "2001:db8::5"]]))
    if outside:
        fields["external_traffic_policy"] = draw(st.sampled_from(["Cluster", "Local"]))
    one = service(
        name,
        namespace=draw(st.sampled_from(SPACES)),
        ports=tuple(ports),
        selector=draw(st.sampled_from([{"app": name}, {"tier": "x"}, {"tier": "x"}, {"tier": "y"}, {}])),
        publish_not_ready_addresses=draw(st.sampled_from([False, False, True])),
        traffic_distribution=draw(st.sampled_from([None, None, "PreferSameNode"])),
        **fields,
    )
    return replace(one, metadata=replace(one.metadata, annotations=dict(draw(st.sampled_from(_NOTES)))))


@st.composite
def pods(draw: st.DrawFn) -> Pod:
    """A Pod that comes, changes, or is about to go."""
    number = draw(st.integers(1, 8))
    one = pod(
        f"p{number}",
        f"10.244.0.{number}",
        f"fd00:10:244::{number}",
        namespace=draw(st.sampled_from(SPACES)),
        labels={"app": draw(st.sampled_from(NAMES)), "tier": draw(st.sampled_from(["x", "x", "y"]))},
        ready=draw(st.sampled_from([True, True, False])),
        phase=draw(st.sampled_from(["Running", "Running", "Running", "Failed"])),
        deleted=draw(st.sampled_from([None, None, None, "2026-01-01T00:00:00Z"])),
        node_name=draw(st.sampled_from(NODES)),
    )
    notes = draw(st.sampled_from([{}, {}, {"svcnat.io/weight": "0"}, {"svcnat.io/weight": "7"}]))
    return replace(one, metadata=replace(one.metadata, annotations=dict(notes)))


@st.composite
def slices(draw: st.DrawFn) -> EndpointSlice:
    """A slice that somebody wrote by hand; its label may move it to another Service."""
    number = draw(st.integers(1, 4))
    prefix, family = draw(st.sampled_from([("10.244.1.", "IPv4"), ("fd00:10:244:1::", "IPv6")]))
    hosts = draw(st.lists(st.integers(1, 5), unique=True, max_size=4))
    conditions = st.sampled_from(
        [
            EndpointConditions(),
            EndpointConditions(),
            EndpointConditions(ready=False),
            EndpointConditions(ready=False, serving=True, terminating=True),
        ]
    )
    notes = draw(st.sampled_from([{}, {"svcnat.io/weights": f'{{"{prefix}1": 0, "{prefix}2": 3}}'}]))
    return EndpointSlice(
        metadata=ObjectMeta(
            name=f"by-hand-{family.lower()}-{number}",
            namespace=draw(st.sampled_from(SPACES)),
            labels={"kubernetes.io/service-name": draw(st.sampled_from(NAMES))},
            annotations=dict(notes),
        ),
        address_type=family,
        endpoints=[
            Endpoint(addresses=[f"{prefix}{host}"], conditions=draw(conditions), node_name=draw(st.sampled_from(NODES)))
            for host in hosts
        ],
        ports=[
            EndpointSlicePort(name=name, port=8080, protocol=draw(st.sampled_from(["TCP", "UDP"])))
            for name in ("p80", "p53")
        ],
    )


nodes = st.builds(
    lambda name, zone: NodeObject(metadata=ObjectMeta(name=name, labels={"topology.kubernetes.io/zone": zone})),
    st.sampled_from(NODES),
    st.sampled_from(["east", "west"]),
)
edits = st.tuples(
    services() | services() | pods() | pods() | pods() | slices() | slices() | nodes,
    st.sampled_from(["put", "put", "put", "put", "delete"]),
)
beginnings = st.builds(
    lambda *parts: [each for part in parts for each in part],
    st.lists(services(), min_size=3, max_size=6),
    st.lists(pods(), min_size=4, max_size=8),
    st.lists(slices(), min_size=1, max_size=3),
)
somewhat = st.lists(edits, min_size=1, max_size=4)
configurations = st.builds(
    Configuration,
    cluster_cidr=st.sampled_from(["10.244.0.0/16,fd00:10:244::/56", ""]),
    service_cidr=st.sampled_from(["10.96.0.0/12,fd00:10:96::/112", ""]),
    masquerade_all=st.sampled_from([False, False, True]),
    node_port_addresses=st.sampled_from([["primary"], [], ["192.0.2.0/24"], ["2001:db8:c::1/128"]]),
    endpoint_counters=st.sampled_from(["auto", "auto", "on", "off"]),
    localhost_node_ports=st.sampled_from([False, False, True]),
    load_balancer_pool=st.just(POOL),
)

POISONOUS = ("10.244.0.1", "10.244.0.2", "10.244.1.2", "fd00:10:244::1", "fd00:10:244::3", "203.0.113.1", "30080")
# --- what others do to nftables ------------------------------------------------------------------------------------

_FAMILIES = st.sampled_from(["ip", "ip6"])
OUTSIDE = (
    "add table inet stranger; add chain inet stranger c { type filter hook forward priority 0; }; "
    "add rule inet stranger c counter accept",
    "add table ip stranger; add set ip stranger s { type ipv4_addr; }; add element ip stranger s { 192.0.2.9 }",
    "add table ip stranger; add chain ip stranger nat { type nat hook postrouting priority 100; }; "
    "add rule ip stranger nat oifname nowhere masquerade",
    "add table ip stranger; delete table ip stranger",
    "delete table inet stranger",
)
INSIDE = (
    "flush ruleset",
    "flush table {f} svcnat",
    "delete table {f} svcnat",
    "flush chain {f} svcnat services",
    "flush chain {f} svcnat translated",
    "insert rule {f} svcnat services counter accept",
    "add rule {f} svcnat nat-postrouting masquerade",
    "flush set {f} svcnat cluster-ips",
    "flush map {f} svcnat frontends",
    "flush map {f} svcnat backends-udp",
    "add chain {f} svcnat stranger; add rule {f} svcnat stranger jump services",
    "add chain {f} svcnat stranger {{ type nat hook prerouting priority -200; }}; "
    "add rule {f} svcnat stranger jump services",
    "add set {f} svcnat strangers {{ type inet_service; }}; add element {f} svcnat strangers {{ 7 }}",
    "add map {f} svcnat strange {{ type inet_service : verdict; }}; "
    "add element {f} svcnat strange {{ 7 : goto refuse, 8 : goto services }}",
    "add map {f} svcnat strange {{ type inet_service : verdict; }}; add chain {f} svcnat stranger; "
    "add rule {f} svcnat stranger tcp dport vmap @strange; add element {f} svcnat strange {{ 7 : goto refuse }}",
    "add map {f} svcnat strange {{ type inet_service : verdict; }}; "
    "add element {f} svcnat strange {{ 7 : goto udp-random-1 }}; "
    "add element {f} svcnat strange {{ 8 : goto tcp-random-1 }}; "
    "add element {f} svcnat strange {{ 9 : goto udp-random-2 }}",
    "add counter {f} svcnat counted",
    "add table {f} svcnat {{ flags dormant; }}",
)

ROUTES = "route replace 0.0.0.0/0 via 192.0.2.254 dev d0 onlink\nroute replace ::/0 via fe80::1 dev d0"
Steps = st.integers(0, 10**6)


@contextlib.contextmanager
def full_disk(full: bool) -> Iterator[None]:
    """Let no file grow, as on a disk without room: what is written to sockets and /proc goes through."""
    if not full:
        yield
        return
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


class Place:
    """A network namespace of a target's, which can be deleted and made again, with an address and somebody in it."""

    def __init__(self, *addresses: str) -> None:
        self.name = f"svcnat-chaos-{uuid.uuid4().hex[:12]}"
        self._addresses = addresses
        self.there = False
        self.make()

    def make(self) -> None:
        netns.create(self.name)
        self.there = True
        lines = [
            "link set lo up",
            "link add d0 type veth peer name d1",
            "link set d0 up",
            "link set d1 up",
            *(f"addr add {address} dev d0 nodad" for address in self._addresses),
            ROUTES,
        ]
        self.ip("\n".join(lines))
        with netns.entered(self.name):
            self.nft = Libnftables()

    def ip(self, lines: str) -> None:
        """Run lines of ``ip -batch``, whether or not they fit."""
        subprocess.run(["ip", "-force", "-n", self.name, "-batch", "-"], input=lines.encode(), capture_output=True)

    def delete(self) -> None:
        if self.there:
            netns.delete(self.name)
            self.there = False

    def meddle(self, script: str) -> None:
        """Commit what another program would, if it fits; the commands of the script one by one."""
        for line in script.split("; "):
            with contextlib.suppress(KernelError):
                self.nft.commit(line if line.count("{") == line.count("}") else script)


class Counting(Observer):
    """Says how much happened."""

    def drifted(self, target: Target, what: str) -> None:
        Chaos.drifts += 1

    def refused(self, target: Target, service: tuple[str, str], reason: str) -> None:
        Chaos.refusals += 1

    def overrun(self, source: str) -> None:
        Chaos.overruns += 1


class Chaos(RuleBasedStateMachine):
    """Two targets of one agent, and everything that can happen to them."""

    steps = 0
    deaths = 0
    rejected = 0
    drifts = 0
    refusals = 0
    overruns = 0
    departed = 0

    def __init__(self) -> None:
        super().__init__()
        self._stack = contextlib.ExitStack()
        self._made = False
        self.since = 0

    @initialize(number=Steps, config=configurations, objects=beginnings)
    def begin(self, number: int, config: Configuration, objects: list[Resource]) -> None:
        """Make the world, and the first agent in it."""
        self.chance = random.Random(number)
        self.faults = Faults()
        self.now = 1000.0
        self.full = False
        self.config = config
        folder = self._stack.enter_context(tempfile.TemporaryDirectory(prefix="svcnat-chaos-"))
        self.path = Path(folder, "state.db")
        self.places = [
            self._place("192.0.2.1/24", "2001:db8:c::1/64"),
            self._place("192.0.2.2/24", "2001:db8:c::2/64"),
        ]
        self.fresh = self._place("192.0.2.3/24", "2001:db8:c::3/64")
        self.backup = Path(folder, "backup.db")
        self.store = self._opened(config)
        self._stack.callback(lambda: self.store.close())
        self.agent: Reconciler | None = None
        self._stack.callback(self.kill)
        self._made = True
        for each in objects:
            self._edit(each, "put")
        self.start()

    def _place(self, *addresses: str) -> Place:
        place = Place(*addresses)
        self._stack.callback(place.delete)
        return place

    def _opened(self, config: Configuration) -> Store:
        return Store.open(
            self.path, service_cidrs=map(str, config.service_networks), randbelow=self.chance.randrange, **STORE
        )

    def teardown(self) -> None:
        """End well, whatever happened, and leave nothing behind."""
        with self._stack:
            if self._made:
                self.everything_ends_well()

    @invariant()
    def count(self) -> None:
        """Every step counts."""
        Chaos.steps += 1
        self.since += 1

    # --- the agent -------------------------------------------------------------------------------------------

    def start(self) -> None:
        targets = [Target(node, place.name) for node, place in zip(NODES, self.places, strict=True)]
        agent = Reconciler(
            StateFile(self.path, self._opened),
            targets,
            self.config,
            keeping=lambda target, config, source: Keeper(
                target,
                config,
                follows=source.follows,
                identity=source.identity,
                opener=self.faults.opener,
                clock=lambda: self.now,
            ),
            clock=lambda: self.now,
            observer=Counting(),
        )
        try:
            with full_disk(self.full):
                agent.open()
        except Death:
            Chaos.deaths += 1
            self.faults.life = None
        except SvcnatError:
            pass  # a namespace is missing: systemd would try again
        else:
            self.agent = agent
            if self.chance.random() < 0.3:
                self._deafen(agent)

    def round(self, reasons: Reasons) -> None:
        """Let the agent do its work; it may die of it."""
        self.now += 0.05
        if self.agent is None:
            return
        try:
            with full_disk(self.full):
                self.agent.round(reasons)
        except Death:
            Chaos.deaths += 1
            self.kill()

    @rule()
    def kill(self) -> None:
        """``kill -9``: the kernel closes its sockets, and nothing else happens."""
        if self.agent:
            self.agent.close()
            self.agent = None
        self.faults.life = None

    @precondition(lambda self: self.agent is None)
    @rule()
    def restart(self) -> None:
        self.start()
        self.round(Reasons(objects=True))

    @precondition(lambda self: self.agent is None)
    @rule()
    def restart_again(self) -> None:
        """More often than not, it is restarted soon."""
        self.restart()

    @rule(after=st.integers(0, 25), late=st.booleans())
    def doom(self, after: int, late: bool) -> None:
        """It will die, some questions to the kernel from now."""
        self.faults.life, self.faults.late = after, late

    @rule(after=st.integers(0, 8), late=st.booleans(), what=somewhat, again=st.booleans())
    def die_at_work(self, after: int, late: bool, what: list[tuple[Resource, str]], again: bool) -> None:
        """It dies between two steps of a pass; the next one may, too."""
        self.doom(after, late)
        self.edit_in_a_burst(what)
        self.kill()
        if again:
            self.doom(after, late)
        self.restart()

    @rule()
    def wake_for_objects(self) -> None:
        self.round(Reasons(objects=True))

    @rule()
    def wake_for_events(self) -> None:
        self.round(Reasons(events=True))

    @rule(urgent=st.booleans())
    def wake_to_look(self, urgent: bool) -> None:
        self.round(Reasons(look=True, events=True, urgent=urgent))

    @rule(seconds=st.sampled_from([0.3, 1.5, 31.0, 200.0]))
    def wait(self, seconds: float) -> None:
        self.now += seconds
        self.round(Reasons(look=True, events=True))

    @rule(config=configurations)
    def reload(self, config: Configuration) -> None:
        self.config = config
        if self.agent:
            self.round(Reasons(config=config))

    # --- objects ---------------------------------------------------------------------------------------------

    def _edit(self, new: Resource, verb: str) -> None:
        try:
            with full_disk(self.full):
                edit(self.store, new, verb)
        except SvcnatError:
            Chaos.rejected += 1

    @rule(what=somewhat)
    def edit(self, what: list[tuple[Resource, str]]) -> None:
        for each in what:
            self._edit(*each)
            self.round(Reasons(objects=True, urgent=True))

    @rule(what=somewhat)
    def edit_in_a_burst(self, what: list[tuple[Resource, str]]) -> None:
        for each in what:
            self._edit(*each)
        self.round(Reasons(objects=True))

    @rule(what=somewhat)
    def edit_while_nobody_looks(self, what: list[tuple[Resource, str]]) -> None:
        for each in what:
            self._edit(*each)

    @rule(number=st.integers(1, 8), space=st.sampled_from(SPACES))
    def pod_dies(self, number: int, space: str) -> None:
        with contextlib.suppress(SvcnatError), full_disk(self.full), self.store.transaction() as transaction:
            transaction.delete(Pod, space, f"p{number}")
        self.round(Reasons(objects=True))

    @rule(services=st.sampled_from([False, False, False, False, True]), what=somewhat)
    def delete_a_namespace(self, services: bool, what: list[tuple[Resource, str]]) -> None:
        """All that is in a namespace goes at once; of the default one, the Services do. Then others come."""
        with contextlib.suppress(SvcnatError), full_disk(self.full), self.store.transaction() as transaction:
            if services:
                for each in transaction.list(Service, "default"):
                    transaction.delete(Service, "default", each.metadata.name)
            else:
                transaction.delete(NamespaceObject, "", "shop")
        self.edit_in_a_burst(what)

    @rule(what=somewhat)
    def back_up(self, what: list[tuple[Resource, str]]) -> None:
        with (
            contextlib.closing(sqlite3.connect(self.path)) as live,
            contextlib.closing(sqlite3.connect(self.backup)) as copy,
        ):
            live.backup(copy)
        self.edit_in_a_burst(what)

    @precondition(lambda self: self.backup.exists() and not self.full)
    @rule(what=somewhat)
    def restore_the_backup(self, what: list[tuple[Resource, str]]) -> None:
        """An older file of the same identity takes the place of the one that is followed, and goes its own way."""
        self.store.close()
        for suffix in ("-wal", "-shm"):
            Path(f"{self.path}{suffix}").unlink(missing_ok=True)
        shutil.copy(self.backup, f"{self.path}.new")
        Path(f"{self.path}.new").rename(self.path)
        self.store = self._opened(self.config)
        self.edit_in_a_burst(what)

    @rule(full=st.sampled_from([True, False, False]))
    def disk(self, full: bool) -> None:
        self.full = full

    # --- the kernel, and others who use it -------------------------------------------------------------------

    def _meddle(self, which: int, script: str) -> None:
        if self.places[which].there:
            self.places[which].meddle(script)

    @rule(which=st.integers(0, 1), script=st.sampled_from(INSIDE), family=_FAMILIES)
    def meddle(self, which: int, script: str, family: str) -> None:
        self._meddle(which, script.format(f=family))
        self.round(Reasons(events=True))

    @rule(which=st.integers(0, 1), script=st.sampled_from(INSIDE), family=_FAMILIES, what=somewhat)
    def meddle_and_edit(self, which: int, script: str, family: str, what: list[tuple[Resource, str]]) -> None:
        """Both at once."""
        self._meddle(which, script.format(f=family))
        self.edit_in_a_burst(what)

    @rule(which=st.integers(0, 1), script=st.sampled_from(OUTSIDE), times=st.sampled_from([1, 1, 3, 40]))
    def do_something_else(self, which: int, script: str, times: int) -> None:
        for _ in range(times):
            self._meddle(which, script)

    @rule(which=st.integers(0, 1), number=Steps, what=st.sampled_from(["delete", "change", "add"]))
    def meddle_with_an_element(self, which: int, number: int, what: str) -> None:
        """One element, of all that there are."""
        place = self.places[which]
        if not place.there:
            return
        with Namespace(place.name) as namespace:
            want = compile_plan(Plan(settings_for(self.config, look(place.name, self.config), "x"), {}))
            found = [
                (family, name, key, data)
                for family, part in namespace.read(want.values()).items()
                for name, elements in sorted(part.elements.items())
                for key, data in sorted(elements.items(), key=repr)
            ]
        if not found:
            return
        family, name, key, data = found[number % len(found)]
        text = " . ".join(map(str, key))
        verdict = data is not None and not isinstance(data, tuple)
        if what != "add":
            place.meddle(f"delete element {family} svcnat {name} {{ {text} }}")
        if what == "change" and verdict:
            place.meddle(f"add element {family} svcnat {name} {{ {text} : drop }}")
        if what == "add" and verdict and len(key) == 3:
            stranger = "192.0.2.77" if family == "ip" else "2001:db8::77"
            place.meddle(f"add element {family} svcnat {name} {{ {stranger} . tcp . 7 : drop }}")

    @rule(which=st.integers(0, 1), what=st.sampled_from(OUTSIDE + INSIDE), family=_FAMILIES)
    def somebody_comes_right_before_a_commit(self, which: int, what: str, family: str) -> None:
        script = what.format(f=family) if what in INSIDE else what
        self.faults.before_commit.append(lambda: self._meddle(which, script))

    @rule(addresses=st.sets(st.sampled_from(POISONOUS), max_size=3))
    def poison(self, addresses: set[str]) -> None:
        """The kernel refuses what has to do with some addresses or ports, until further notice."""
        self.faults.poison = addresses

    @rule(what=somewhat, script=st.sampled_from(INSIDE), family=_FAMILIES)
    def repair_what_is_refused(self, what: list[tuple[Resource, str]], script: str, family: str) -> None:
        """The rules are to be written again when the kernel would not take some of them any more."""
        self.faults.poison = set(POISONOUS[1::2])
        self.edit_in_a_burst(what)
        self._meddle(0, script.format(f=family))
        self.round(Reasons(events=True))

    @rule(
        kinds=st.lists(
            st.sampled_from([KernelError, StaleError, TooLargeError, BusyError, PrivilegeError]), min_size=1, max_size=4
        )
    )
    def refuse(self, kinds: list[Callable[[str], KernelError]]) -> None:
        """The kernel refuses the next commits, whatever they are."""
        self.faults.refusals = [kind("refused, by chance") for kind in kinds]
        self.round(Reasons(objects=True, urgent=True))

    def _deafen(self, agent: Reconciler) -> None:
        for _, keeper in agent.keepers:
            for number in keeper.filenos():
                with socket.fromfd(number, socket.AF_NETLINK, socket.SOCK_RAW) as same:
                    same.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)

    @rule(which=st.integers(0, 1), number=Steps)
    def deafen(self, which: int, number: int) -> None:
        """So small a buffer that nearly all events are lost, and many of them."""
        if self.agent:
            self._deafen(self.agent)
        for script in (*OUTSIDE, *OUTSIDE):
            self._meddle(which, script)
        self._meddle(which, INSIDE[number % len(INSIDE)].format(f="ip"))
        self.round(Reasons(events=True))

    @rule(
        which=st.integers(0, 1),
        verb=st.sampled_from(["add", "del"]),
        address=st.sampled_from(["192.0.2.50/24", "198.18.0.1/16", "2001:db8:c::50/64", "10.96.200.1/24"]),
    )
    def readdress(self, which: int, verb: str, address: str) -> None:
        if self.places[which].there:
            self.places[which].ip(f"addr {verb} {address} dev d0{' nodad' if verb == 'add' else ''}")
        self.round(Reasons(events=True))

    @rule(which=st.integers(0, 1), up=st.booleans())
    def link(self, which: int, up: bool) -> None:
        """Down, it takes routes along; they come back with it."""
        if self.places[which].there:
            lines = f"link set d0 up\n{ROUTES}" if up else "link set d0 down"
            self.places[which].ip(lines)

    @rule(which=st.integers(0, 1), seen=st.booleans())
    def namespace_goes(self, which: int, seen: bool) -> None:
        self.places[which].delete()
        if seen:
            self.round(Reasons(look=True, events=True))

    @rule(which=st.integers(0, 1))
    def namespace_comes(self, which: int) -> None:
        if not self.places[which].there:
            self.places[which].make()

    @rule(
        which=st.integers(0, 1),
        numbers=st.lists(st.integers(1, 4), min_size=2, max_size=2, unique=True),
        protocol=st.sampled_from(["TCP", "UDP"]),
        seen=st.booleans(),
    )
    def an_endpoint_goes_that_clients_are_with(self, which: int, numbers: list[int], protocol: str, seen: bool) -> None:
        """It is remembered, and has flows, when it goes, perhaps without an agent."""
        port = ServicePort(port=80, protocol=protocol)
        sticky = service("sticky", ports=(port,), ip_family_policy="PreferDualStack", session_affinity="ClientIP")
        pair = [
            pod(f"s{each}", f"10.244.2.{each}", f"fd00:10:244:2::{each}", labels={"app": "sticky"}, node_name="here")
            for each in numbers
        ]
        for each in (sticky, *pair):
            self._edit(each, "put")
        self.round(Reasons(objects=True, look=True, events=True, urgent=True))
        self.link(which, up=True)
        with self.store.read() as snapshot:
            found = snapshot.get(Service, "default", "sticky")
        for address in found.spec.cluster_ips if found and self.places[which].there else ():
            self._client(which, address, 80, protocol)
        if not seen:
            self.kill()
        self._edit(pair[0], "delete")
        self.round(Reasons(objects=True))

    @rule(which=st.integers(0, 1), seen=st.booleans(), after=st.integers(0, 6), late=st.booleans())
    def a_service_goes_that_clients_are_with(self, which: int, seen: bool, after: int, late: bool) -> None:
        """Its flows of UDP end with it, though the agent dies before it comes to that, or is not there at all."""
        port = ServicePort(port=80, protocol="UDP")
        one = service("going", ports=(port,), selector={"app": "going"}, ip_family_policy="PreferDualStack")
        there = pod("g1", "10.244.2.9", "fd00:10:244:2::9", labels={"app": "going"}, node_name="here")
        for each in (one, there):
            self._edit(each, "put")
        self.round(Reasons(objects=True, look=True, events=True, urgent=True))
        self.link(which, up=True)
        with self.store.read() as snapshot:
            found = snapshot.get(Service, "default", "going")
        if not found or not self.places[which].there or not self._is_synced(which):
            return
        for address in found.spec.cluster_ips:
            self._client(which, address, 80, "UDP")
        if not seen:
            self.kill()
        self.doom(after, late)
        self._edit(one, "delete")
        self.round(Reasons(objects=True))
        self.kill()
        self.restart()
        with self.store.read() as snapshot:
            stays = snapshot.get(Service, "default", "going")
        if stays or not self._is_synced(which):
            return
        with Conntrack(self.places[which].name) as conntrack:
            assert not [flow for flow in conntrack.flows() if flow.destination in found.spec.cluster_ips]
        Chaos.departed += 1

    def _is_synced(self, which: int) -> bool:
        return self.agent is not None and self.agent.state().targets[which].state == "synced"

    @rule(which=st.integers(0, 1), number=Steps)
    def clients_come(self, which: int, number: int) -> None:
        """Packets meet the rules, are tracked, and learn; nobody answers."""
        if not self.places[which].there:
            return
        with self.store.read() as snapshot:
            frontends = [
                (address, port.port, port.protocol)
                for each in snapshot.list(Service)
                for address in [*each.spec.cluster_ips, *each.spec.external_ips]
                for port in each.spec.ports
                if address != "None" and port.protocol in ("TCP", "UDP")
            ]
        if not frontends:
            return
        for offset in range(min(5, len(frontends))):
            self._client(which, *frontends[(number + offset) % len(frontends)])

    def _client(self, which: int, address: str, port: int, protocol: str) -> None:
        with netns.entered(self.places[which].name):
            client = socket.socket(
                socket.AF_INET6 if ":" in address else socket.AF_INET,
                (socket.SOCK_STREAM if protocol == "TCP" else socket.SOCK_DGRAM) | socket.SOCK_NONBLOCK,
            )
        with client, contextlib.suppress(OSError):
            client.connect((address, port))
            client.send(b"?")

    # --- the end ---------------------------------------------------------------------------------------------

    @precondition(lambda self: self.since > 12)
    @rule()
    def everything_ends_well(self) -> None:
        """Nothing new happens: the rules are where a fresh sync would put them, and stay there."""
        self.faults.heal()
        self.full, self.since = False, 0
        for place in self.places:
            if not place.there:
                place.make()
        if self.agent is None:
            self.start()
            assert self.agent, "it does not start"
        for _ in range(4):
            self.now += 100.0  # past every pause between tries
            self.round(Reasons(objects=True, look=True, events=True))
        state = self.agent.state(deep=False)
        assert not state.troubles, state.troubles
        for target in state.targets:
            assert (target.state, target.error, target.refused) == ("synced", "", {}), target
        generations = []
        for place in self.places:
            with Namespace(place.name) as namespace:
                generations.append(namespace.generation())
        self.now += 0.05
        self.round(Reasons(objects=True, look=True, events=True, urgent=True))
        for (target, keeper), place, generation in zip(self.agent.keepers, self.places, generations, strict=True):
            self._is_as_fresh(target, keeper, place)
            assert keeper.writer.generation == keeper.writer.namespace.generation() == generation, "it wrote again"
            self._nobody_talks_to_the_gone(keeper, place)

    def _is_as_fresh(self, target: Target, keeper: Keeper, place: Place) -> None:
        with self.store.read() as snapshot:
            held: list[Resource] = [each for kind in KINDS for each in snapshot.list(kind)]
        zone = next(
            (
                each.metadata.labels.get("topology.kubernetes.io/zone", "")
                for each in held
                if isinstance(each, NodeObject) and each.metadata.name == target.node
            ),
            "",
        )
        config = self.config
        decided = plan(
            [each for each in held if isinstance(each, Service)],
            [each for each in held if isinstance(each, EndpointSlice)],
            settings_for(config, look(place.name, config), target.node, zone),
        )
        want = compile_plan(decided, f"state {self.store.identity}")
        self.fresh.meddle("flush ruleset")
        follow(self.fresh.name, Objects(lambda _: decided, self.store.identity), config)
        with Namespace(self.fresh.name) as fresh, Namespace(place.name) as used:
            made, kept = fresh.read(want.values()), used.read(want.values())
            for table in want.values():
                assert forget(used.remembered(table), table) is None, "clients remember what is gone"
        for family, part in kept.items():
            # The table of a family that nobody uses any more stays, empty.
            assert comparable(part) == comparable(made.get(family) or outline(want)[family]), (target, family)
        assert made.keys() <= kept.keys()
        assert dict(keeper.ports) == dict(decided.services)

    def _nobody_talks_to_the_gone(self, keeper: Keeper, place: Place) -> None:
        serving = everything(port for ports in keeper.ports.values() for port in ports if port.protocol == "udp")
        addresses = keeper.settings.node_port_addresses
        with Conntrack(place.name) as conntrack:
            left = [
                flow
                for flow in conntrack.flows()
                if flows.stale(flow, serving.frontends, serving.node_ports, addresses)
            ]
        assert not left, left


def comparable(part: Outline) -> tuple[object, ...]:
    """What two tables must have in common: sizes never shrink, and what was learned is their clients' affair."""
    learned = {name for name in part.elements if "affinity" in name}
    return (
        part.readable,
        {name: signature for name, (signature, _) in part.sets.items()},
        dict(part.chains),
        {name: dict(held) for name, held in part.elements.items() if name not in learned},
    )


def run(*, examples: int, steps: int, number: int | None = None, phases: tuple[Phase, ...] = tuple(Phase)) -> None:
    """Run the machine; without a `number`, always the same way."""
    machine = Chaos if number is None else seed(number)(type("Chaos", (Chaos,), {}))
    how = settings(
        derandomize=number is None,
        max_examples=examples,
        stateful_step_count=steps,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
        phases=phases,
        print_blob=False,
    )
    before = logging.root.manager.disable
    logging.disable()
    try:
        run_state_machine_as_test(machine, settings=how)
    finally:
        logging.disable(before)
        gc.unfreeze()  # an agent keeps what it has at the start; this process goes on to other things


def said() -> str:
    """How much happened."""
    return (
        f"{Chaos.steps} steps, {Chaos.deaths} deaths, {Chaos.drifts} foreign changes, {Chaos.overruns} overruns, "
        f"{Chaos.refusals} refused Services, {Chaos.departed} that went with clients"
    )


def main() -> None:
    """Run until the time is over, or something is found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("seconds", type=float, nargs="?", default=600.0)
    parser.add_argument("--seed", type=int, help="run one batch with this seed")
    parser.add_argument("--examples", type=int, default=10)
    parser.add_argument("--steps", type=int, default=100)
    options = parser.parse_args()
    began = time.monotonic()
    while True:
        number = options.seed if options.seed is not None else random.SystemRandom().randrange(10**9)
        print(f"seed {number}; so far {said()}", flush=True)
        run(examples=options.examples, steps=options.steps, number=number)
        if options.seed is not None or time.monotonic() - began > options.seconds:
            break
    print(f"{said()}: all well")


if __name__ == "__main__":
    main()

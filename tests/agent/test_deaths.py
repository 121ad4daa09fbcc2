"""Agents that are killed while they work, at random instants, under clients of UDP that never stop: real processes."""

from __future__ import annotations

import contextlib
import random
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest
from msgspec.structs import replace

from svcnat.agent import flows
from svcnat.agent.control import Reconcile
from svcnat.agent.departures import everything
from svcnat.agent.host import look
from svcnat.agent.settings import settings_for
from svcnat.errors import SvcnatError
from svcnat.kernel import netns
from svcnat.kernel.conntrack import Conntrack, Flow
from svcnat.kernel.nftables import Namespace
from svcnat.model.configuration import Configuration
from svcnat.model.objects import EndpointSlice, Resource, Service, ServicePort
from svcnat.ruleset.plan import Plan, plan
from svcnat.store.sqlite import Store
from tests.agent.chaos import POOL, Place
from tests.agent.test_chaos import outlines
from tests.agents import CONFIG, Agent
from tests.controllers.build import service
from tests.ruleset.build import slice_of
from tests.store.test_sequences import edit

NAMES = ("a", "b", "c")
PREFIXES = {"IPv4": "10.244.0.", "IPv6": "fd00:10:244::"}
CLIENTS = 24  # to each frontend
KILLS = 24


def addresses(name: str) -> tuple[str, ...]:
    """Where a Service is reached, if it wants all of it: two cluster IPs, and two addresses from outside."""
    number = NAMES.index(name)
    return f"10.96.0.{10 + number}", f"fd00:10:96::{10 + number}", f"203.0.113.{1 + number}", f"2001:db8:5::{number:x}"


FRONTENDS = [(address, 80) for name in NAMES for address in addresses(name)] + [
    (address, port) for address in ("192.0.2.1", "2001:db8:c::1") for port in (30080, 30081, 30082, 30083)
]


class Talkers(threading.Thread):
    """Clients of UDP, some to each frontend that there may be, each of which keeps its socket; a context manager."""

    def __init__(self, where: str) -> None:
        super().__init__()
        self._ending = threading.Event()
        self._sockets = []
        with netns.entered(where):
            for to in FRONTENDS:
                family = socket.AF_INET6 if ":" in to[0] else socket.AF_INET
                made = [socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) for _ in range(CLIENTS)]
                self._sockets += [(each, to) for each in made]

    def __enter__(self) -> Talkers:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.set()
        self.join()
        for each, _ in self._sockets:
            each.close()

    def run(self) -> None:
        """Let each say something, by turns."""
        while not self._ending.is_set():
            for number, (each, to) in enumerate(self._sockets):
                with contextlib.suppress(OSError):  # refused
                    each.sendto(b"?", to)
                if number % 20 == 0:
                    time.sleep(0.0005)


def change(store: Store, chance: random.Random) -> None:
    """Make changes until one is one."""
    before = revision(store)
    while revision(store) == before:
        with contextlib.suppress(SvcnatError):
            edit(store, *changed(chance))


def revision(store: Store) -> int:
    with store.read() as snapshot:
        return snapshot.revision


def changed(chance: random.Random) -> tuple[Resource, str]:
    """What somebody does: a Service or its endpoints are made, changed, deleted."""
    name = chance.choice(NAMES)
    if chance.random() < 0.5:
        kind = chance.choice(["IPv4", "IPv6"])
        hosts = chance.sample(range(1, 6), chance.randrange(4))
        one = slice_of(name, *(f"{PREFIXES[kind]}{each}" for each in hosts), kind=kind, ports=(("p", 8080, "UDP"),))
        return replace(one, metadata=replace(one.metadata, name=f"{name}-{kind.lower()}")), "put"
    four, six, *outside = addresses(name)
    made = service(
        name,
        selector={},
        type="NodePort",
        cluster_ip=four,
        cluster_ips=[four, six],
        ip_family_policy="RequireDualStack",
        external_ips=chance.choice([outside, outside, []]),
        session_affinity=chance.choice(["None", "ClientIP"]),
        ports=(ServicePort(name="p", port=80, protocol="UDP", node_port=30080 + chance.randrange(4)),),
    )
    note = {"svcnat.io/scheduler": chance.choice(["random", "maglev", "source-hash"])}
    return replace(made, metadata=replace(made.metadata, annotations=note)), chance.choice(["put", "put", "delete"])


def decide(store: Store, where: str) -> Plan:
    """What the rules are to be."""
    with store.read() as snapshot:
        settings = settings_for(Configuration(), look(where, Configuration()), "here")
        return plan(snapshot.list(Service), snapshot.list(EndpointSlice), settings)


def stray(decided: Plan, where: str) -> list[Flow]:
    """The flows that nobody serves: of a frontend whose endpoint went, and of one that is no more."""
    serving = everything(port for ports in decided.services.values() for port in ports)
    known = decided.settings.node_port_addresses

    def wrong(flow: Flow) -> bool:
        if flows.stale(flow, serving.frontends, serving.node_ports, known):
            return True
        ours = (flow.family, flow.destination, "udp", flow.destination_port) in serving.frontends
        ours |= flow.destination in known and (flow.family, "udp", flow.destination_port) in serving.node_ports
        return not ours and flow.reply_source != flow.destination

    with Conntrack(where) as conntrack:
        return [flow for flow in conntrack.flows() if flow.protocol == "udp" and wrong(flow)]


@pytest.fixture
def place(make_netns: Callable[[], str]) -> Iterator[Place]:
    made = Place("192.0.2.1/24", "2001:db8:c::1/64")
    yield made
    made.delete()


@pytest.mark.slow
@pytest.mark.parametrize("number", [1, 2])
def test_no_flow_is_left_to_nobody_whenever_an_agent_dies(
    place: Place, make_netns: Callable[[], str], folder: Path, number: int
) -> None:
    """Killed around its commit, and some while they begin: the next one ends what it left, and equals a fresh sync.

    The time from a change to the kill follows from what others had done in it, so that half of them have committed. It
    goes on until one has died between the rules and the flows, which is rare on some machines.
    """
    chance, fresh = random.Random(number), make_netns()
    committed, midway, pause = 0, 0, 0.01
    agent = Agent(folder, place.name, config=CONFIG + "hostnameOverride: here\n")
    with (
        Store.open(agent.state, load_balancer_pool=POOL, randbelow=chance.randrange) as store,
        Namespace(place.name) as rules,
        Talkers(place.name),
        agent,
    ):
        for turn in range(5 * KILLS):
            if turn >= KILLS and midway and 0 < committed < turn:
                break
            before = rules.generation()
            change(store, chance)
            with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as asking:
                asking.connect(str(agent.socket))
                asking.send(msgspec.json.encode(Reconcile(0)))
                time.sleep(chance.uniform(0, pause))
                agent.kill()
            moved = rules.generation() != before
            committed, pause = committed + moved, pause * (0.7 if moved else 1.3)
            midway += moved and bool(stray(decide(store, place.name), place.name))
            if turn % 3 == 0:
                change(store, chance)
                agent.begin(wait=False)
                time.sleep(chance.uniform(0, 1))
                agent.kill()
            agent.begin()
            assert not stray(decide(store, place.name), place.name), turn
            used, made = outlines(store, place.name, fresh)
            assert used == made, turn
        else:
            raise AssertionError(f"{committed} had committed, {midway} died between the rules and the flows")

"""One target: Services that are refused, flows of endpoints that are gone, and whose rules they are."""

from __future__ import annotations

import contextlib
import dataclasses
import re
import socket
from collections.abc import Callable, Iterator

import pytest
from msgspec.structs import replace

from svcnat.agent.desired import Desired, Identity
from svcnat.agent.keeper import Keeper
from svcnat.agent.targets import Target
from svcnat.errors import BusyError, ConflictError, KernelError, MissingError
from svcnat.kernel import netns
from svcnat.kernel.conntrack import Conntrack
from svcnat.kernel.libnftables import Libnftables
from svcnat.kernel.nfnetlink import following
from svcnat.kernel.nftables import Namespace
from svcnat.model.configuration import Configuration
from svcnat.model.objects import EndpointSlice, Service
from tests.agent.chaos import Place
from tests.agent.unreliable import Death, Faults
from tests.ruleset.build import service, slice_of

STATE = "0123456789abcdef0123456789abcdef"
OTHER = "fedcba9876543210fedcba9876543210"


class House:
    """A namespace with an address and a default route, objects, and keepers that come and go."""

    def __init__(self) -> None:
        self.place = Place("192.0.2.1/24", "2001:db8:c::1/64")
        self.faults = Faults()
        self.now = 1000.0
        self.desired = Desired()
        self.touched: set[Identity] = set()
        self.keeper: Keeper | None = None
        self.tracker: Callable[[str | None], Conntrack] = Conntrack

    def close(self) -> None:
        self.leave()
        self.place.delete()

    def made(self, identity: str | None = STATE, *, force: bool = False) -> Keeper:
        return Keeper(
            Target("here", self.place.name),
            Configuration(),
            follows="objects",
            identity=identity,
            force=force,
            opener=self.faults.opener,
            tracker=self.tracker,
            clock=lambda: self.now,
        )

    def enter(self, **how: object) -> Keeper:
        """A keeper takes over; its first pass is made."""
        self.keeper = self.made(**how)  # type: ignore[arg-type]
        self.keeper.open()
        self.follow()
        return self.keeper

    def leave(self) -> None:
        """The keeper goes, and the rules stay."""
        if self.keeper:
            self.keeper.close()
            self.keeper = None

    def put(self, name: str, *endpoints: str, protocol: str = "TCP", removal: str = "") -> None:
        """A Service of one of three names at 10.96.0.10 and on, and its only slice."""
        one = service(name, f"10.96.0.{10 + 'abc'.index(name)}", ports=((80, protocol),))
        notes = {"svcnat.io/on-endpoint-removal": removal} if removal else {}
        one = replace(one, metadata=replace(one.metadata, annotations=notes))
        self.touched |= self.desired.update(
            (), [one, slice_of(name, *endpoints, ports=(("p80", 8080, protocol),))]
        ).services

    def remove(self, name: str) -> None:
        self.touched |= self.desired.update(
            [(Service, "default", name), (EndpointSlice, "default", f"{name}-x")], ()
        ).services

    def follow(self) -> dict[Identity, str]:
        """One pass over what was touched; who is refused, and why."""
        assert self.keeper
        self.keeper.follow(self.desired, self.touched)
        self.touched = set()
        return {identity: refusal.reason for identity, refusal in self.keeper.refused.items()}

    def wait(self, seconds: float) -> None:
        """Time passes, and what is due then is done."""
        self.now += seconds
        assert self.keeper
        if self.keeper.due is not None and self.keeper.due <= self.now:
            self.keeper.cut()

    def client(self, address: str = "10.96.0.10", kind: int = socket.SOCK_STREAM, port: int = 80) -> None:
        """A flow of its own begins."""
        with netns.entered(self.place.name):
            made = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, kind | socket.SOCK_NONBLOCK)
        with made, contextlib.suppress(BlockingIOError):
            made.connect((address, port))
            made.send(b"?")

    def flows(self, begins: str = "10.96.") -> list[str]:
        """To which endpoints flows go, of those whose destination begins so."""
        with Conntrack(self.place.name) as conntrack:
            return sorted(flow.reply_source for flow in conntrack.flows() if flow.destination.startswith(begins))

    def frontends(self) -> str:
        """The rules, as nft prints them."""
        with netns.entered(self.place.name):
            nft = Libnftables()
        nft._context.set_handle_output(False)
        return str(nft._context.cmd("list ruleset")[1])

    def is_equal(self) -> bool:
        assert self.keeper
        return not self.keeper.writer.differences()


@pytest.fixture
def house(make_netns: Callable[[], str]) -> Iterator[House]:
    made = House()
    yield made
    made.close()


A, B, C = "10.244.0.1", "10.244.0.2", "10.244.0.3"
PORTS = (("p80", 8080, "UDP"),)


def die() -> None:
    """Nothing after this happens."""
    raise Death


def test_a_refused_service_keeps_no_other_waiting_and_is_tried_again(house: House) -> None:
    """With a pause that doubles; when the kernel takes it, it is forgotten that it did not."""
    house.put("a", A)
    keeper = house.enter()
    house.faults.poison = {B}
    house.put("b", B)
    house.put("c", C)
    assert B in house.follow()["default", "b"]
    assert C in house.frontends()
    pauses = []
    for _ in range(8):
        (refusal,) = keeper.refused.values()
        pauses.append(refusal.again - house.now)
        assert not keeper.retries(refusal.again - 0.01)
        assert keeper.retries(refusal.again)
        assert keeper.due == refusal.again
        house.follow()
        assert keeper.refused["default", "b"].tries == refusal.tries, "not before its time"
        house.now = refusal.again
        house.follow()
    assert pauses == [1, 2, 4, 8, 16, 32, 60, 60]
    (refusal,) = keeper.refused.values()
    keeper.refused["default", "b"] = dataclasses.replace(refusal, tries=5000)
    house.now = refusal.again
    house.follow()
    assert keeper.refused["default", "b"].again == house.now + 60, "after days, too"
    house.faults.heal()
    house.now += 100
    assert not house.follow()
    assert keeper.due is None
    assert house.is_equal()


def test_a_pass_over_everything_tells_of_all_that_it_refuses(house: House) -> None:
    """Of Services that did not change, too: they are tried again, and come back."""
    house.put("a", A)
    house.put("b", B)
    keeper = house.enter()
    house.place.meddle("flush ruleset")
    assert keeper.interfered()
    house.faults.poison = {B}
    assert house.follow().keys() == {("default", "b")}
    assert A in house.frontends()
    assert B not in house.frontends()
    house.faults.heal()
    house.now += 2
    assert not house.follow()
    assert house.is_equal()


def test_a_refused_service_that_is_deleted_or_mended_is_refused_no_more(house: House) -> None:
    """Whatever the pause until its next try was."""
    house.enter()
    house.faults.poison = {B}
    for _ in range(2):
        house.put("a", B)
        house.put("b", B)
        assert len(house.follow()) == 2
        house.remove("a")
        house.put("b", C)
        assert not house.follow()
        assert house.is_equal()


def test_a_pass_that_failed_is_made_up_for(house: House) -> None:
    """What it was to do for the flows and the host is done by the next one, whose objects did not change."""
    house.put("a", A, protocol="UDP")
    keeper = house.enter()
    house.client(kind=socket.SOCK_DGRAM)
    assert house.flows() == [A]
    house.faults.refusals = [BusyError("not now")]
    house.put("a", B, protocol="UDP")
    with pytest.raises(BusyError):
        house.follow()
    assert keeper.host_changed(), "the host is to be looked at, and prepared, again"
    house.touched = set()
    house.follow()
    assert house.flows() == []
    assert house.is_equal()


@pytest.mark.parametrize("kind", ["UDP", "terminate", "terminate=0"])
def test_flows_of_an_endpoint_that_is_gone_end_at_once(house: House, kind: str) -> None:
    """Those of UDP always, others where their Service says so; those of endpoints that stay go on."""
    udp = kind == "UDP"
    how = {"protocol": "UDP"} if udp else {"removal": kind}
    sort = socket.SOCK_DGRAM if udp else socket.SOCK_STREAM
    house.put("a", A, **how)
    house.put("b", B, **how)
    house.enter()
    house.client(kind=sort)
    house.client("10.96.0.11", kind=sort)
    house.put("a", C, **how)
    house.follow()
    assert house.flows() == [B]
    house.remove("b")
    house.follow()
    assert house.flows() == []


def test_flows_stay_where_nobody_asked_for_their_end(house: House) -> None:
    """The default: connections end by themselves, through a restart, too."""
    house.put("a", A)
    house.enter()
    house.client()
    house.put("a", B)
    house.follow()
    house.leave()
    house.enter()
    house.wait(1000)
    assert house.flows() == [A]


def test_terminate_with_seconds_ends_late_and_only_those_flows(house: House) -> None:
    """Each endpoint's so many seconds after it went; not those of the others, and not if it came back."""
    for endpoint in (A, B, C):
        house.put("a", endpoint, removal="terminate=30")
        house.follow() if house.keeper else house.enter()
        house.client()
        house.wait(10)
    # A went at 10, B at 20, C is there; now it is 30.
    assert house.flows() == [A, B, C]
    house.wait(9)
    assert house.flows() == [A, B, C]
    house.wait(2)
    assert house.flows() == [B, C]
    house.put("a", B, C, removal="terminate=30")
    house.follow()
    house.wait(100)
    assert house.flows() == [B, C]


def test_endpoints_that_went_one_after_the_other_may_be_due_together(house: House) -> None:
    """Whoever comes late to it ends the flows of all of them; of a Service that is deleted as well."""
    for endpoint in (A, B, C):
        house.put("a", endpoint, removal="terminate=30")
        house.follow() if house.keeper else house.enter()
        house.client()
        house.wait(1)
    house.wait(100)
    assert house.flows() == [C]
    house.remove("a")
    house.follow()
    house.wait(29)
    assert house.flows() == [C]
    house.wait(2)
    assert house.flows() == []


def test_after_a_restart_flows_end_as_if_there_had_been_none(house: House) -> None:
    """What went meanwhile: UDP and ``terminate`` at once, ``terminate=SECONDS`` so long after it was noticed."""
    removals = {"a": "terminate=30", "b": "terminate", "c": ""}
    for name, removal in removals.items():
        house.put(name, A, removal=removal, protocol="UDP" if name == "c" else "TCP")
    house.enter()
    for number, _ in enumerate(removals):
        house.client(f"10.96.0.{10 + number}", socket.SOCK_DGRAM if number == 2 else socket.SOCK_STREAM)
    assert house.flows() == [A, A, A]
    house.leave()
    for name, removal in removals.items():
        house.put(name, B, removal=removal, protocol="UDP" if name == "c" else "TCP")
    house.enter()
    house.client()
    assert house.flows() == [A, B]
    house.wait(29)
    assert house.flows() == [A, B]
    house.wait(2)
    assert house.flows() == [B]


def outside(*, node_port: int, protocol: str = "UDP") -> Service:
    """The Service a, at its node port and at an external address, too."""
    one = service("a", "10.96.0.10", type="NodePort", ports=((80, protocol),), external_ips=["203.0.113.1"])
    return replace(one, spec=replace(one.spec, ports=[replace(one.spec.ports[0], node_port=node_port)]))


EVERYWHERE = (("10.96.0.10", 80), ("203.0.113.1", 80), ("192.0.2.1", 30080))


@pytest.mark.parametrize("dies", [False, True], ids=["while-nobody-follows", "between-rules-and-flows"])
@pytest.mark.parametrize("change", ["service", "external address", "node port", "protocol"])
def test_flows_of_frontends_that_are_gone_end_after_a_restart(house: House, change: str, dies: bool) -> None:
    """Of every kind of frontend: whether it went while there was no agent, or its rules did and the agent died."""
    house.touched |= house.desired.update((), [outside(node_port=30080), slice_of("a", A, ports=PORTS)]).services
    house.put("b", B, protocol="UDP")
    house.enter()
    for address, port in (*EVERYWHERE, ("10.96.0.11", 80)):
        house.client(address, socket.SOCK_DGRAM, port)
    assert house.flows("") == [A, A, A, B]
    if not dies:
        house.leave()
    match change:
        case "service":
            house.remove("a")
        case "external address":
            one = outside(node_port=30080)
            one = replace(one, spec=replace(one.spec, external_ips=[]))
            house.touched |= house.desired.update((), [one]).services
        case "node port":
            house.touched |= house.desired.update((), [outside(node_port=30081)]).services
        case "protocol":
            house.touched |= house.desired.update((), [outside(node_port=30080, protocol="TCP")]).services
    if dies:
        house.faults.after_commit.append(die)
        with pytest.raises(Death):
            house.follow()
        house.leave()
    keeper = house.enter()
    assert house.flows("") == {"external address": [A, A, B], "node port": [A, A, B]}.get(change, [B])
    assert house.is_equal()
    generation = keeper.writer.generation
    house.leave()
    assert house.enter().writer.generation == generation


@pytest.mark.parametrize(
    ("between", "full"),
    [
        ("add table ip stranger", False),
        ("flush ruleset", True),
        ("delete element ip svcnat frontends { 10.96.0.10 . udp . 80 }", True),
        ("", True),
    ],
    ids=["elsewhere", "flushed", "taken", "refused"],
)
def test_a_frontend_that_cannot_be_taken_away_is_taken_away_later(house: House, between: str, full: bool) -> None:
    """Its flows have ended, and it refuses: whoever comes before the second step, the next pass makes up for it."""
    house.put("a", A, protocol="UDP")
    house.put("b", B, protocol="UDP")
    keeper = house.enter()
    house.client(kind=socket.SOCK_DGRAM)
    house.remove("a")

    def interfere() -> None:
        if between:
            house.place.meddle(between)
        else:
            house.faults.refusals = [KernelError("not now")]

    house.faults.before_commit = [interfere, lambda: None]
    house.follow()
    assert house.flows() == []
    assert (keeper.writer.generation is None) is full
    house.follow()
    assert "10.96.0.10" not in house.frontends()
    assert house.is_equal()
    assert keeper.writer.generation == keeper.writer.namespace.generation()


@pytest.mark.parametrize("dies", [False, True], ids=["while-nobody-follows", "between-rules-and-flows"])
def test_flows_to_an_address_that_answers_no_more_end_after_a_restart(house: House, dies: bool) -> None:
    """Of node ports, when the node has got another address for them, and keeps the old one."""
    house.touched |= house.desired.update((), [outside(node_port=30080), slice_of("a", A, ports=PORTS)]).services
    keeper = house.enter()
    for address, port in EVERYWHERE:
        house.client(address, socket.SOCK_DGRAM, port)
    if not dies:
        house.leave()
    house.place.ip("addr add 192.0.2.8/24 dev d0")
    house.place.ip("route replace 0.0.0.0/0 via 192.0.2.254 dev d0 onlink src 192.0.2.8")
    if dies:
        assert keeper.host_changed()
        house.faults.after_commit.append(die)
        with pytest.raises(Death):
            house.follow()
        house.leave()
    house.enter()
    house.client("192.0.2.8", socket.SOCK_DGRAM, 30080)
    assert house.flows("192.0.2.1") == []
    assert house.flows("") == [A, A, A]


@pytest.mark.parametrize(
    ("spec", "notes", "endpoints", "remembered"),
    [
        ({}, {"svcnat.io/scheduler": "maglev"}, (A, B), [A, B]),
        ({}, {"svcnat.io/scheduler": "round-robin"}, (A, B), [A, B]),
        ({}, {"svcnat.io/max-connections": "9", "svcnat.io/connection-rate": "9/minute"}, (A, B), [A, B]),
        ({"external_ips": ["203.0.113.1"]}, {}, (A, B), [A, B]),
        ({"internal_traffic_policy": "Local"}, {}, (A, B), [A, B]),
        ({}, {}, (A, B, C), [A, B]),
        ({}, {}, (B, C), [B]),
        ({}, {}, (), []),
        ({"session_affinity": "None"}, {}, (A, B), None),
    ],
    ids=["maglev", "round-robin", "limits", "address", "local", "more", "fewer", "none", "affinity"],
)
def test_clients_keep_their_endpoints_whatever_changed_meanwhile(
    house: House, spec, notes, endpoints, remembered
) -> None:
    """While no agent ran: as long as there is affinity, and the endpoint; for as long as they had left."""

    def put(*addresses: str, **fields: object) -> None:
        fields = {"session_affinity": "ClientIP", **fields}
        one = service("a", "10.96.0.10", ports=((80, "UDP"),), **fields)
        one = replace(one, metadata=replace(one.metadata, annotations=notes if house.keeper is None else {}))
        piece = slice_of("a", *addresses, ports=PORTS, node="here")
        house.touched |= house.desired.update((), [one, piece]).services

    def memory() -> dict[str, tuple[str, str]]:
        """By client: the endpoint, and how long it is remembered."""
        found = re.findall(r"(198\.18\.0\.\d+) timeout (\S+) expires \S+ : (\S+) \. 8080", house.frontends())
        return {client: (endpoint, timeout) for client, timeout, endpoint in found}

    put(A, B)
    house.keeper = house.made()
    house.keeper.open()
    house.follow()
    name = re.findall(r"map (affinity-\S+) ", house.frontends())[0]
    for number, endpoint in enumerate((A, B), 1):
        house.place.meddle(
            f"add element ip svcnat {name} {{ 198.18.0.{number} timeout {number}00m : {endpoint} . 8080 }}"
        )
    before = memory()
    assert [endpoint for endpoint, _ in before.values()] == [A, B]
    house.leave()
    put(*endpoints, **spec)
    house.enter()
    assert house.is_equal()
    if remembered is None:
        assert name not in house.frontends()
    else:
        assert memory() == {client: held for client, held in before.items() if held[0] in remembered}


def test_a_restart_writes_nothing(house: House) -> None:
    """If nothing changed meanwhile, the generation is what it was."""
    house.put("a", A, B)
    house.put("b", A, protocol="UDP")
    house.enter()
    house.leave()
    with Namespace(house.place.name) as namespace:
        generation = namespace.generation()
        house.enter()
        assert namespace.generation() == generation


def test_a_host_that_changes_changes_its_rules(house: House) -> None:
    """Addresses that answer node ports follow the host's; its events say when to look."""
    one = service("a", "10.96.0.10", type="NodePort")
    one = replace(one, spec=replace(one.spec, ports=[replace(one.spec.ports[0], node_port=30080)]))
    house.touched |= house.desired.update((), [one, slice_of("a", A)]).services
    keeper = house.enter()
    keeper.host_changed()
    house.follow()
    assert not keeper.host_changed()
    house.place.ip("addr add 192.0.2.9/24 dev d0\naddr del 192.0.2.1/24 dev d0\naddr add 192.0.2.8/24 dev d0")
    house.place.ip("route replace 0.0.0.0/0 via 192.0.2.254 dev d0 onlink src 192.0.2.8")
    assert keeper.host_changed()
    house.follow()
    assert keeper.settings.node_port_addresses[0] == "192.0.2.8"
    assert house.is_equal()


def test_an_address_of_the_host_is_no_reason_to_read_the_rules(house: House) -> None:
    """What follows from it is written as any other change, and UDP's node ports at the old one go after their flows."""
    for name in ("a", "b"):
        house.put(name, A)
    house.touched |= house.desired.update((), [outside(node_port=30080), slice_of("a", A, ports=PORTS)]).services
    keeper = house.enter()
    keeper.host_changed()
    house.follow()
    generation = keeper.writer.generation
    house.place.ip("addr add 192.0.2.8/24 dev d0")
    house.place.ip("route replace 0.0.0.0/0 via 192.0.2.254 dev d0 onlink src 192.0.2.8")
    assert keeper.host_changed()
    written = keeper.follow(house.desired, ())
    assert not written.full
    assert written.counts == (1, 1)
    assert keeper.writer.generation == following(generation, 2)
    assert house.is_equal()


def test_there_is_one_keeper_of_a_namespace(house: House) -> None:
    """The second one is told who is there; when that is gone, it may."""
    house.enter()
    with pytest.raises(BusyError, match="objects"):
        house.made().open()
    house.leave()
    house.enter()


def test_rules_of_another_state_file_are_left_alone(house: House) -> None:
    """Unless it is told to take them over; a file that takes the place of the one that is followed may."""
    house.put("a", A)
    keeper = house.enter()
    keeper.adopt(OTHER)
    house.follow()
    house.leave()
    with pytest.raises(ConflictError):
        house.made(STATE).open()
    with pytest.raises(ConflictError):
        house.made(None).open()
    house.enter(identity=OTHER)
    house.leave()
    house.enter(identity=None, force=True)
    house.leave()
    house.enter(identity=STATE)


def test_a_namespace_that_is_gone_is_noticed(house: House) -> None:
    """Also when another one has its name."""
    keeper = house.enter()
    assert keeper.is_there()
    house.place.delete()
    assert not keeper.is_there()
    with pytest.raises(MissingError):
        house.made().open()
    house.place.make()
    assert not keeper.is_there()


def test_rules_go_only_when_that_is_wished(house: House) -> None:
    """They stay when the keeper closes; with `cleanup`, its tables go, and others' stay."""
    house.put("a", A)
    house.place.meddle("add table ip stranger")
    house.enter()
    house.leave()
    assert A in house.frontends()
    keeper = house.enter()
    keeper.close(cleanup=True)
    house.keeper = None
    assert A not in house.frontends()
    assert "stranger" in house.frontends()


def test_flows_that_cannot_be_ended_are_warned_of(house: House) -> None:
    """The rules are there all the same, and the next pass looks at everything."""
    house.put("a", A, removal="terminate=30")
    keeper = house.enter()
    house.put("a", B, removal="terminate=30")
    house.follow()
    house.place.delete()  # what is opened by name cannot be had any more
    house.wait(31)
    assert keeper.due is None
    house.put("a", C, removal="terminate")
    written = keeper.follow(house.desired, house.touched)
    assert [each for each in written.warnings if "until they expire" in each]


def test_connection_tracking_is_opened_once_and_after_a_failure_anew(house: House) -> None:
    """Closing its socket would wait for the kernel to destroy what the last commit removed: so none is, at a change."""
    opened: list[Unsteady] = []

    def tracker(where: str | None) -> Conntrack:
        opened.append(Unsteady(where))
        return opened[-1]

    house.tracker = tracker
    house.put("a", A, protocol="UDP")
    keeper = house.enter()
    for number in range(6):
        house.client(kind=socket.SOCK_DGRAM)
        house.put("a", (A, B)[number % 2], protocol="UDP")
        house.follow()
        assert set(house.flows()) <= {(A, B)[number % 2]}
    assert len(opened) == 1
    opened[0].broken = True
    house.put("a", C, protocol="UDP")
    written = keeper.follow(house.desired, house.touched)
    assert [each for each in written.warnings if "until they expire" in each]
    house.client(kind=socket.SOCK_DGRAM)
    house.put("a", A, protocol="UDP")
    house.follow()
    assert set(house.flows()) <= {A}
    assert len(opened) == 2
    house.leave()
    assert [each.closed for each in opened] == [1, 1]


class Unsteady(Conntrack):
    """Connection tracking that does not answer any more when a test says so."""

    broken = False
    closed = 0

    def count(self) -> int:
        if self.broken:
            raise KernelError("connection tracking: no buffer space available")
        return super().count()

    def close(self) -> None:
        self.closed += 1
        super().close()

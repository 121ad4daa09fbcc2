"""What a writer writes, and when it has to read first."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Callable, Iterator

import pytest

from svcnat.agent.reconcile import reconcile
from svcnat.agent.report import Written
from svcnat.agent.writer import Writer
from svcnat.errors import BusyError, KernelError, PrivilegeError, StaleError, TooLargeError
from svcnat.kernel import netns
from svcnat.kernel.events import RulesetEvents
from svcnat.kernel.libnftables import Libnftables
from svcnat.ruleset.compile import compile_plan, compile_service
from svcnat.ruleset.plan import Identity
from svcnat.ruleset.planner import Planner
from tests.agent.unreliable import Faults
from tests.ruleset.build import service, slice_of
from tests.ruleset.edits import SETTINGS


class Desk:
    """A writer, the services that are to be written, and a stranger."""

    def __init__(self, place: str) -> None:
        self.faults = Faults()
        self.planner = Planner(SETTINGS)
        self.namespace = self.faults.opener(place)
        self.events = RulesetEvents(place)
        self.writer = Writer(self.namespace, self.events, "manifests")
        self.writer.restart(SETTINGS)
        with netns.entered(place):
            self.stranger = Libnftables()

    def close(self) -> None:
        self.events.close()
        self.namespace.close()

    def put(self, name: str, *endpoints: str, weights: str = "", **spec: object) -> None:
        """A Service of one of ten names, each with an address of its own."""
        one = service(name, f"10.96.0.{10 + 'abcdefghij'.index(name)}", **spec)
        self.planner.put(one, [slice_of(name, *endpoints, weights=weights)])

    def write(self) -> Written:
        """Write what has changed."""
        return self.writer.write({identity: compile_service(ports) for identity, ports in self.planner.take().items()})

    def begin(self, *names: str) -> None:
        """Services with two endpoints each."""
        for number, name in enumerate(names or "abc"):
            self.put(name, f"10.244.{number}.1", f"10.244.{number}.2")
        assert self.write().full
        self.forget()

    def forget(self) -> None:
        """What was done so far does not count."""
        self.writer.interfered()
        self.faults.commits.clear()
        self.faults.reads = 0

    def differs(self, *without: str) -> object:
        """What is not as it should be, but for these services, once it is tidy."""
        self.writer.tidy()
        planner = Planner(SETTINGS)
        planner._services.update(  # type: ignore[attr-defined]
            {each: ports for each, ports in self.planner.services.items() if each[1] not in without}
        )
        planner._seniority.update(self.planner._seniority)  # type: ignore[attr-defined]
        return reconcile(self.namespace, compile_plan(planner.plan(), "manifests"), dry_run=True).change


@pytest.fixture
def desk(empty_netns: str) -> Iterator[Desk]:
    made = Desk(empty_netns)
    yield made
    made.close()


def identity(name: str) -> Identity:
    return ("default", name)


OUTSIDE = "add table ip stranger"
INSIDE = "delete element ip svcnat frontends { 10.96.0.10 . tcp . 80 }"


def nft(place: str, *arguments: str) -> str:
    """What another program does."""
    with netns.entered(place):
        return subprocess.run(["nft", *arguments], check=True, capture_output=True, text=True).stdout


def impostor(place: str) -> Callable[[], object]:
    """Somebody who has a rule for somebody else alone, and keeps its comment and what it does."""

    def act() -> None:
        line = next(
            each
            for each in nft(place, "-a", "list", "chain", "ip", "svcnat", "nat-output").splitlines()
            if " comment " in each
        )
        text, _, handle = line.partition(" # handle ")
        rule = f"ip saddr 203.0.113.9 jump services comment {text.partition(' comment ')[2]}"
        nft(place, f"replace rule ip svcnat nat-output handle {handle} {rule}")

    return act


def test_who_comes_while_structure_is_written_is_named(desk: Desk, empty_netns: str) -> None:
    """By either side of the commit; what they did is undone, though it looks like ours."""
    desk.begin()
    for number, hook in enumerate((desk.faults.before_commit, desk.faults.after_commit), 4):
        hook.append(impostor(empty_netns))
        desk.put("a", *(f"10.244.0.{each}" for each in range(number)))  # of a shape that has no chain yet
        desk.write()
        (told,) = desk.writer.interfered()
        assert told.startswith("nft (pid ")
        assert "rule" in told
        if desk.writer.generation is None:
            assert desk.writer.write({}).full
        assert "203.0.113.9" not in nft(empty_netns, "list", "chain", "ip", "svcnat", "nat-output")
        assert not desk.differs()


def test_who_comes_while_a_full_pass_reads_is_named(desk: Desk, empty_netns: str) -> None:
    """The pass is made again, and does not believe the comments."""
    desk.begin()
    nft(empty_netns, "delete table ip svcnat")
    assert desk.writer.interfered()
    desk.faults.after_commit.append(impostor(empty_netns))
    assert desk.write().full
    (told,) = desk.writer.interfered()
    assert told.startswith("nft (pid ")
    assert "203.0.113.9" not in nft(empty_netns, "list", "chain", "ip", "svcnat", "nat-output")
    assert not desk.differs()


def test_who_comes_while_nobody_listens_is_found(desk: Desk, empty_netns: str) -> None:
    """Around a large commit nobody listens: whoever came then may have done anything."""
    desk.begin()
    nft(empty_netns, "flush", "map", "ip", "svcnat", "frontends")
    desk.writer.interfered()
    for number in range(250):
        desk.planner.put(
            service(f"n{number}", f"10.97.{number}.1"),
            [slice_of(f"n{number}", *(f"10.1.{number}.{i}" for i in range(9)))],
        )
    desk.faults.after_commit.append(impostor(empty_netns))
    desk.write()
    assert "203.0.113.9" not in nft(empty_netns, "list", "chain", "ip", "svcnat", "nat-output")


def test_a_change_writes_the_elements_of_its_service_alone(desk: Desk) -> None:
    """One transaction, without reading anything; every element in it is of the Service that changed."""
    desk.begin()
    desk.put("b", "10.244.1.1", "10.244.1.7")
    written = desk.write()
    assert not written.full
    assert desk.faults.reads == 0
    (change,) = desk.faults.commits
    assert not isinstance(change, str)
    elements = [
        (*key, *(data if isinstance(data, tuple) else (data,)))
        for part in change.values()
        for held in (*part.stale.values(), *part.fresh.values())
        for key, data in held.items()
    ]
    assert elements
    assert all("10.96.0.11" in each or "10.244.1.2" in each or "10.244.1.7" in each for each in elements), elements
    assert not desk.differs()


def test_what_is_there_is_not_written_again(desk: Desk) -> None:
    """Neither by a pass over everything, nor by a change that changes nothing, nor by the next writer's first one."""
    desk.begin()
    assert not desk.writer.write({}).changes
    desk.writer.generation = None
    written = desk.writer.write({})
    assert written.full
    assert written.counts == (0, 0)
    with RulesetEvents(None) as events:
        again = Writer(desk.namespace, events, "manifests")
        again.restart(SETTINGS)
        again.write({each: compile_service(ports) for each, ports in desk.planner.services.items()})
    assert not desk.faults.commits


def test_a_service_that_goes_takes_its_chains_along(desk: Desk) -> None:
    """At once what packets meet; what nothing uses any more when it is tidied, once."""
    desk.begin("a")
    desk.put("b", "10.244.1.1", "10.244.1.2", "10.244.1.3", session_affinity="ClientIP")
    desk.write()
    desk.planner.remove(identity("b"))
    desk.write()
    desk.writer.tidy()
    generation = desk.namespace.generation()
    assert desk.writer.generation == generation
    desk.writer.tidy()
    assert desk.namespace.generation() == generation
    assert not desk.differs()


@pytest.mark.parametrize("told", [True, False])
@pytest.mark.parametrize("endpoints", [("10.244.1.1", "10.244.1.7"), ("10.244.1.7",)])
def test_commits_of_others_to_tables_of_their_own_do_not_matter(
    desk: Desk, endpoints: tuple[str, ...], told: bool
) -> None:
    """Whether their events are read before the next write, or only when its commit is found to come too late."""
    desk.begin()
    desk.put("b", *endpoints)
    desk.stranger.commit(OUTSIDE)
    if told:
        assert not desk.writer.interfered()
    assert not desk.write().full
    assert not desk.faults.reads
    assert not desk.writer.interfered()
    assert desk.writer.generation == desk.namespace.generation()
    assert not desk.differs()


def test_others_may_come_right_before_a_commit(desk: Desk) -> None:
    """The kernel says so, and it is made again."""
    desk.begin()
    desk.faults.before_commit = [lambda: desk.stranger.commit(OUTSIDE)]
    desk.put("b", "10.244.1.1", "10.244.1.7")
    assert not desk.write().full
    assert not desk.faults.reads
    assert not desk.differs()


@pytest.mark.parametrize("script", [INSIDE, "flush ruleset", "add rule ip svcnat services counter"])
def test_commits_of_others_to_our_tables_are_noticed_and_repaired(desk: Desk, script: str) -> None:
    """With words that say who it was and what he did; the next write reads, and puts it right."""
    desk.begin()
    desk.stranger.commit(script)
    (words,) = desk.writer.interfered()
    assert "pid" in words
    assert "ip svcnat" in words
    assert desk.writer.generation is None
    assert desk.writer.write({}).full
    assert not desk.differs()


def test_a_commit_is_not_made_over_somebody_elses(desk: Desk) -> None:
    """One who comes between the last look and the commit is noticed by the kernel, repaired, and told of."""
    desk.begin()
    desk.faults.before_commit = [lambda: desk.stranger.commit(INSIDE)]
    desk.put("b", "10.244.1.1", "10.244.1.7")
    assert desk.write().full
    assert not desk.differs()
    assert "deleted elements from ip svcnat frontends" in " ".join(desk.writer.interfered())


def test_a_change_of_structure_notices_somebody_else_too(desk: Desk) -> None:
    """It is no compare-and-swap, but afterwards the generation tells."""
    desk.begin()
    desk.faults.before_commit = [lambda: desk.stranger.commit(INSIDE)]
    desk.put("b", "10.244.1.7")
    assert desk.write().full
    assert not desk.differs()


def test_a_full_pass_waits_for_no_quiet_moment(desk: Desk) -> None:
    """It listens, but to large commits of its own: commits of others to other tables are no matter, however many."""
    desk.begin()
    desk.stranger.commit(INSIDE)
    desk.writer.interfered()
    desk.faults.after_commit = [lambda: desk.stranger.commit(OUTSIDE)]
    desk.faults.before_reading = [lambda: desk.stranger.commit("add table ip other; delete table ip other")] * 9
    assert desk.write().full
    assert desk.faults.reads == 1
    assert desk.writer.generation == desk.namespace.generation()
    assert not desk.differs()


def test_a_full_pass_among_others_does_not_miss_who_touches_our_tables(desk: Desk) -> None:
    """Between its reading and its commit, and right after that, in whichever round: it reads again."""
    desk.begin()
    others = ("10.96.0.11", "10.96.0.12")
    desk.stranger.commit(INSIDE)
    desk.writer.interfered()
    desk.faults.before_commit = [
        lambda: desk.stranger.commit(f"delete element ip svcnat cluster-ips {{ {others[0]} }}"),
        lambda: desk.stranger.commit(OUTSIDE),
    ]
    desk.faults.after_commit = [
        lambda: desk.stranger.commit(OUTSIDE),
        lambda: desk.stranger.commit(f"delete element ip svcnat cluster-ips {{ {others[1]} }}"),
    ]
    desk.faults.commits.clear()
    assert desk.write().full
    assert len(desk.faults.commits) == 3, "one for each who touched them"
    assert desk.writer.generation == desk.namespace.generation()
    assert not desk.differs()


def test_lost_events_make_a_difference_only_if_there_was_one(desk: Desk) -> None:
    """A listener that was overrun asks for the generation: only if that is not its own must it read the tables."""
    desk.begin()
    with socket.fromfd(desk.events.fileno(), socket.AF_NETLINK, socket.SOCK_RAW) as same:
        same.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
    for number in range(20):
        desk.put("b", f"10.244.1.{number + 1}")
        desk.write()
    assert not desk.writer.interfered()
    assert desk.writer.generation == desk.namespace.generation()
    for _ in range(20):
        desk.stranger.commit("flush set ip svcnat cluster-ips")
        desk.stranger.commit("add element ip svcnat cluster-ips { 192.0.2.7 }")
    assert desk.writer.interfered()
    assert desk.writer.write({}).full
    assert not desk.differs()


def test_a_service_that_the_kernel_refuses_keeps_what_it_had(desk: Desk) -> None:
    """The others are written; it is named with the reason, and nothing of its new rules is there."""
    desk.begin()
    desk.faults.poison = {"10.244.1.66"}
    for number, name in enumerate("abcd"):
        desk.put(name, f"10.244.{number}.66", f"10.244.{number}.67")
    written = desk.write()
    assert written.refused.keys() == {identity("b")}
    assert "10.244.1.66" in written.refused[identity("b")]
    assert not written.full
    desk.put("b", "10.244.1.1", "10.244.1.2")  # what it had
    assert not desk.differs()


def test_a_pass_over_everything_goes_on_without_what_is_refused(desk: Desk) -> None:
    """Whether or not it was refused before, and whether or not it changed."""
    desk.begin()
    desk.stranger.commit("flush ruleset")
    desk.writer.interfered()
    desk.faults.poison = {"10.244.1.2"}
    written = desk.writer.write({})
    assert written.full
    assert written.refused.keys() == {identity("b")}
    assert not desk.differs("b")
    desk.faults.heal()
    written = desk.writer.write({identity("b"): compile_service(desk.planner.services[identity("b")])})
    assert not written.refused
    assert not desk.differs()


def test_what_was_set_apart_by_a_pass_that_failed_is_not_lost(desk: Desk) -> None:
    """Nobody was told that it was refused, so the next pass brings it."""
    desk.begin()
    desk.stranger.commit("flush ruleset")
    desk.writer.interfered()
    desk.faults.poison = {"10.244.1.2"}
    desk.faults.before_commit = [lambda: desk.faults.refusals.append(KernelError("out of memory")), lambda: None]
    with pytest.raises(KernelError, match="out of memory"):
        desk.writer.write({})
    desk.faults.heal()
    assert desk.writer.write({}).full
    assert not desk.differs()


@pytest.mark.parametrize("kind", [BusyError, PrivilegeError])
def test_what_is_nobodys_fault_is_tried_again_as_a_whole(desk: Desk, kind: type[KernelError]) -> None:
    """A commit that fails, whatever the Services, is raised; the next write does what it did not."""
    desk.begin()
    desk.put("b", "10.244.1.7")
    desk.faults.refusals = [kind("not now")]
    with pytest.raises(kind, match="not now"):
        desk.write()
    assert desk.writer.write({}).full
    assert not desk.differs()


@pytest.mark.parametrize("kind", [StaleError, TooLargeError])
def test_what_cannot_be_written_in_small_is_written_in_a_full_pass(desk: Desk, kind: type[KernelError]) -> None:
    """In the same write."""
    desk.begin()
    desk.put("b", "10.244.1.7")
    desk.faults.refusals = [kind("not so")]
    assert desk.write().full
    assert not desk.differs()


def test_a_stranger_after_a_large_commit_does_not_stop_the_others(desk: Desk) -> None:
    """It is made unheard: who came meanwhile asks for a full pass, even between halves of what was refused."""
    desk.begin("a")
    for name in "bcd":
        desk.put(name, "10.244.8.1", "10.244.8.2", weights='{"10.244.8.1": 500, "10.244.8.2": 499}')
    desk.put("e", "10.244.9.66")
    desk.put("f", "10.244.9.1")
    desk.faults.poison = {"10.244.9.66"}
    # The first to be taken is of b and c, which are many elements.
    desk.faults.after_commit = [lambda: desk.stranger.commit(INSIDE)]
    written = desk.write()
    assert written.refused.keys() == {identity("e")}
    desk.writer.interfered()
    desk.writer.write({})
    assert not desk.differs("e")


def test_what_clients_remember_goes_with_the_endpoint(desk: Desk) -> None:
    """In the transaction of the change; if it cannot be looked for once more, a full pass does so."""
    desk.put("a", "10.244.0.1", "10.244.0.2", session_affinity="ClientIP")
    desk.write()
    ((name, _),) = (
        (name, each)
        for name, each in compile_plan(desk.planner.plan(), "manifests")["ip"].sets.items()
        if name.startswith("affinity-")
    )
    entry = f"add element ip svcnat {name} {{ 192.0.2.7 : 10.244.0.1 . 8080, 192.0.2.8 : 10.244.0.2 . 8080 }}"
    desk.stranger.commit(entry)
    desk.writer.interfered()
    desk.writer.write({})
    desk.forget()
    desk.put("a", "10.244.0.2", session_affinity="ClientIP")
    assert not desk.write().full
    change = desk.faults.commits[-1]
    assert isinstance(change, str)  # the chain of two endpoints gives way to that of one
    assert "192.0.2.7" in change
    assert "192.0.2.8" not in change
    assert not desk.differs()

    desk.put("a", "10.244.0.3", session_affinity="ClientIP")

    def fail() -> None:
        raise KernelError("not again")

    desk.faults.before_remembering = [fail, lambda: None]
    written = desk.write()
    assert written.full
    assert not written.refused
    assert not desk.differs()


def test_what_a_stranger_points_at_goes_with_what_points_at_it(desk: Desk) -> None:
    """A foreign map whose elements jump to a chain of ours does not keep the two in our table."""
    desk.begin("a")
    desk.stranger.commit(
        "add map ip svcnat strange { type inet_service : verdict; elements = { 7 : goto tcp-random-2 } }"
    )
    desk.put("a", "10.244.0.1")
    desk.writer.interfered()
    assert desk.write().full
    assert "strange" not in desk.namespace.read(compile_plan(desk.planner.plan(), "manifests").values())["ip"].sets
    assert not desk.differs()


def test_differences_are_counted_by_reading(desk: Desk) -> None:
    """Whoever asks how the kernel fares gets an answer that no memory is in."""
    desk.begin()
    assert desk.writer.differences() == {}
    desk.stranger.commit(INSIDE)
    assert desk.writer.differences() == {"elements added": 1}

"""What the kernel says unasked: every commit of anybody, who made it, and that something was lost if it was."""

from __future__ import annotations

import select
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from svcnat.errors import MissingError
from svcnat.kernel import netns
from svcnat.kernel.events import Commit, HostEvents, Overrun, RulesetEvents
from svcnat.kernel.netlink import Request, attribute, text
from svcnat.kernel.nfnetlink import NFGENMSG, NFPROTO
from svcnat.kernel.nftables import Namespace
from tests.kernel.tables import change, make

PATIENCE = 20
# The kernel's number of a process is that of the machine's first PID namespace.
FIRST_PIDS = Path("/proc/self/ns/pid").readlink() == Path("pid:[4026531836]")
NEWCHAIN, CREATE = 0xA03, 0x400


@pytest.fixture
def kernel(empty_netns: str) -> Iterator[Namespace]:
    with Namespace(empty_netns) as opened:
        yield opened


@pytest.fixture
def events(empty_netns: str) -> Iterator[RulesetEvents]:
    with RulesetEvents(empty_netns) as opened:
        yield opened


def run(where: str, *command: str) -> int:
    """Run a command in a network namespace; its process id."""
    with netns.entered(where), subprocess.Popen(command) as running:
        assert running.wait() == 0
        return running.pid


def test_a_commit_names_its_process_and_what_it_did(empty_netns, kernel, events) -> None:
    """Whoever undoes a change can say who made it, to which of svcnat's nouns."""
    assert events.read() == []
    script = "add table ip svcnat; add chain ip svcnat a; add rule ip svcnat a drop; add rule ip svcnat a accept; "
    pid = run(empty_netns, "nft", f"{script} add set ip svcnat s {{ type ipv4_addr; elements = {{ 1.1.1.1 }}; }}")
    pids = [pid, run(empty_netns, "nft", "flush chain ip svcnat a; delete element ip svcnat s { 1.1.1.1 }")]
    pids.append(run(empty_netns, "nft", "flush ruleset"))
    generation = kernel.generation()
    commits = events.read()
    assert [commit.generation for commit in commits] == [generation - 2, generation - 1, generation]
    assert {(commit.command, commit.ours) for commit in commits} == {("nft", True)}
    if FIRST_PIDS:
        assert [commit.pid for commit in commits] == pids
    assert [commit.what for commit in commits] == [
        (
            "added or changed table ip svcnat",
            "added or changed chain ip svcnat a",
            "added rule to ip svcnat a",
            "added or changed set ip svcnat s",
            "added elements to ip svcnat s",
        ),
        ("deleted rule from ip svcnat a", "deleted elements from ip svcnat s"),
        ("deleted table ip svcnat",),
    ]
    assert events.read() == []


def test_other_tables_are_not_ours(empty_netns, kernel, events) -> None:
    """They move the generation all the same; a table of our name in another family is a stranger's."""
    for table in ("ip stranger", "inet svcnat", "ip svcnat-other"):
        run(empty_netns, "nft", f"add table {table}; add chain {table} c; add rule {table} c counter")
    run(empty_netns, "nft", "add table ip6 svcnat; add table ip stranger2")
    assert [(commit.ours, commit.what) for commit in events.read()] == [
        (False, ()),
        (False, ()),
        (False, ()),
        (True, ("added or changed table ip6 svcnat",)),
    ]


def test_our_own_commits_are_told_by_their_generation(kernel, events) -> None:
    """Both ways of writing are announced like everybody's, under the name of the thread that commits."""
    generation = make(kernel)
    wanted = change(fresh={"cluster-ips": {("10.96.0.1",): None, ("10.96.0.2",): None}})
    written = kernel.commit_elements(wanted, generation=generation)
    structure, elements = events.read()
    assert (structure.generation, elements.generation) == (generation, written)
    assert len(structure.what) == 8  # a few words, not the whole table
    assert elements.what == ("added elements to ip svcnat cluster-ips",)
    command = Path("/proc/thread-self/comm").read_text().strip()
    assert {structure.command, elements.command} == {command}
    if FIRST_PIDS:
        assert {structure.pid, elements.pid} == {threading.get_native_id()}


def test_whoever_does_not_read_in_time_is_told(empty_netns, kernel) -> None:
    """Lost events leave a mark at their place, what remains of a torn transaction counts as ours, and life goes on."""
    with RulesetEvents(empty_netns, buffer=1) as events:
        kernel.commit("add table ip stranger")
        for number in range(200):
            kernel.commit(f"add chain ip stranger c{number}")
        seen: list[Commit | Overrun] = []
        while arrived := events.read():
            seen += arrived
        assert Overrun() in seen
        assert len(seen) < 200
        kernel.commit("add chain ip stranger last")
        (torn,) = events.read()
        assert isinstance(torn, Commit)
        assert torn.generation == kernel.generation()
        assert torn.ours
        assert torn.what[-1] == "perhaps more, which was lost"
        kernel.commit("add chain ip stranger really")
        (whole,) = events.read()
        assert whole == Commit(kernel.generation(), torn.pid, torn.command, ours=False)


def test_a_pause_is_silent_and_loses_nothing_from_before(kernel, events) -> None:
    """Around a large commit of our own nobody listens; the generation tells whether others wrote meanwhile."""
    kernel.commit("add table ip svcnat")
    before = kernel.generation()
    events.pause()
    for number in range(3):
        kernel.commit(f"add chain ip svcnat c{number}")
    events.resume()
    kernel.commit("add chain ip svcnat after")
    assert [commit.generation for commit in events.read()] == [before, before + 4]
    events.pause()
    events.pause()  # twice is once
    events.resume()
    assert events.read() == []


def test_an_event_loop_is_woken(kernel, events) -> None:
    """The descriptor is readable when there is something to read, and not when it was read."""
    assert select.select([events], [], [], 0)[0] == []
    kernel.commit("add table ip stranger")
    assert select.select([events], [], [], PATIENCE)[0] == [events]
    # From another thread, in another namespace than the socket's.
    read: list[Commit | Overrun] = []
    reader = threading.Thread(target=lambda: read.extend(events.read()))
    reader.start()
    reader.join()
    assert [commit.generation for commit in read] == [kernel.generation()]
    assert select.select([events], [], [], 0)[0] == []


def test_names_that_others_choose_are_printable(kernel, events) -> None:
    """The kernel takes any bytes for a chain's name; they end in logs and on terminals."""
    kernel.commit("add table ip svcnat")
    body = NFGENMSG.pack(NFPROTO["ip"], 0, 0) + attribute(1, text("svcnat")) + attribute(3, b"a\n\x1b[31m\xff\0")
    assert not kernel._connection.transact([Request(NEWCHAIN, CREATE, body)], kernel.generation())
    assert events.read()[-1].what == ("added or changed chain ip svcnat a??[31m\ufffd",)


def test_changes_of_the_host_are_noticed(empty_netns, make_netns) -> None:
    """Links, addresses and routes of both families, in this namespace and no other."""
    with HostEvents(netns.path(empty_netns)) as events, HostEvents(make_netns()) as elsewhere:
        assert not events.read()
        for command in (
            "link set lo up",
            "link add d0 type veth peer name d1",
            "link set d1 up",
            "link set d0 up",
            "address add 192.0.2.1/24 dev d0",
            "address add 2001:db8::1/64 dev d0 nodad",
            "route add 198.51.100.0/24 via 192.0.2.9",
            "-6 route add 2001:db8:1::/48 via 2001:db8::9",
            "link delete d0",
        ):
            run(empty_netns, "ip", *command.split())
            assert select.select([events], [], [], PATIENCE)[0] == [events], command
            assert events.read(), command
            while select.select([events], [], [], 0.2)[0]:  # a link comes up in several steps
                events.read()
            assert not events.read()
        assert not elsewhere.read()


def test_a_lost_change_of_the_host_is_a_change(empty_netns) -> None:
    """Whoever looks again sees it anyway."""
    with HostEvents(empty_netns, buffer=1) as events:
        for number in range(50):
            run(empty_netns, "ip", "address", "add", f"127.0.1.{number}/32", "dev", "lo")
        assert events.read()
        assert not events.read()


def test_a_namespace_that_does_not_exist_is_an_error() -> None:
    """A typo must not be listened to."""
    for kind in (RulesetEvents, HostEvents):
        with pytest.raises(MissingError, match="no-such-namespace"):
            kind("no-such-namespace")


IN_A_USER_NAMESPACE = """
from svcnat.kernel.events import HostEvents, RulesetEvents
from svcnat.kernel.nftables import Namespace

with Namespace() as kernel, RulesetEvents() as events, HostEvents() as host:
    kernel.commit("add table ip svcnat")
    print(*(commit.what for commit in events.read()), host.read())
"""


def test_root_of_a_user_namespace_may_listen(make_netns) -> None:
    """Rootless labs have an agent, too."""
    done = subprocess.run(
        ["unshare", "-rn", sys.executable, "-c", IN_A_USER_NAMESPACE],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parents[2],
    )
    assert done.stdout == "('added or changed table ip svcnat',) []\n", done.stderr

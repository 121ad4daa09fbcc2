"""Every kind of foreign change is noticed by event, undone and told of, whichever way it came; others keep theirs."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import re
import socket
import subprocess
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from svcnat import api
from svcnat.errors import KernelError, StaleError
from svcnat.kernel import netns
from svcnat.kernel.libnftables import Libnftables
from svcnat.model.configuration import Configuration
from svcnat.store.sqlite import Store
from tests.agent.meddling import OBJECTS, SCRIPTS, messages, nft, send, take_table, words
from tests.agent.running import Rounds, web
from tests.agent.unreliable import Faults
from tests.agents import PATIENCE, Agent, runtime, until

pytestmark = pytest.mark.packets

FAMILIES = ("ip", "ip6")
THEIRS = """
add table inet svcnat
add chain inet svcnat c { type filter hook forward priority 3; }
add table bridge svcnat
add set bridge svcnat s { type ether_addr; }
add table arp svcnat
add chain arp svcnat c { type filter hook input priority 0; }
add table netdev svcnat
add chain netdev svcnat c
add table ip theirs
add map ip theirs m { type ipv4_addr : verdict; elements = { 192.0.2.1 : drop }; }
"""
"""Tables of others; some have svcnat's name in families that svcnat has nothing to do with."""
MESSAGES = (
    "objects that not every nft knows",
    "objects whose names nft cannot say",
    "set whose name nft cannot say",
    "chain whose name nft cannot say",
    "element with a quota",
    "verdict that returns",
    "protocol that is longer than one",
    "port that is longer than one",
    "name of a link that nft cannot say",
    "comment that is no text",
    "rule without a comment",
    "rule without anything",
    "rules of all chains",
    "limit of a client",
    "connections of a client",
)
ENDPOINTS = ("192.0.2.7", "192.0.2.8", "2001:db8:7::7", "2001:db8:7::8")
KERNELS = ("add flowtable", "flowtable in use", "add secmark", "add synproxy", "add helper", "add timeout")
"""What not every kernel has."""


@contextlib.contextmanager
def namespace() -> Iterator[str]:
    if os.geteuid() != 0:
        pytest.skip("network namespaces need root, or `unshare -rnm`")
    name = f"svcnat-test-{uuid.uuid4().hex[:12]}"
    netns.create(name)
    try:
        yield name
    finally:
        netns.delete(name)


@pytest.fixture(scope="module")
def where() -> Iterator[str]:
    """A network namespace with the endpoints of every Service in it, which accept connections."""
    with namespace() as name, contextlib.ExitStack() as stack:
        lines = [f"addr add {each}/{32 if '.' in each else 128} dev lo" for each in ENDPOINTS]
        lines = ["link set lo up", *lines, "route add default dev lo", "-6 route add default dev lo"]
        for line in lines:
            subprocess.run(["ip", "-n", name, *line.split()], check=True)
        with netns.entered(name):
            for kind, host in ((socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::")):
                stack.enter_context(socket.create_server((host, 8080), family=kind, backlog=1000))
        yield name


@pytest.fixture(scope="module")
def agent(where: str) -> Iterator[Agent]:
    """An agent that follows Services of many kinds, beside tables of others."""
    with runtime() as folder, Agent(folder, where) as running:
        with api.Cluster.open(state=running.state, config=running.config, netns=where) as cluster:
            cluster.apply(api.load(text=OBJECTS))
        nft(where, "-f", "-", script=THEIRS)
        yield running


def ours(where: str) -> str:
    """What svcnat has, as nft prints it but for numbers that change and the order, which says nothing."""
    listed = nft(where, "-s", "list", "ruleset")
    tables = [f"table {each}" for each in listed.split("table ") if each.startswith(("ip svcnat {", "ip6 svcnat {"))]
    return "\n".join(itertools.chain(*(sorted(map(str.strip, each[:-2].split("\n\n"))) for each in sorted(tables))))


def ours_or_nothing(where: str) -> str:
    """The same, "" while nft can list nothing."""
    try:
        return ours(where)
    except AssertionError:
        return ""


def settle(agent: Agent) -> None:
    """Wait until the agent says that all is well, and has nothing more to do."""

    def well() -> bool:
        state = agent.ask(deep=True)
        return state is not None and (state.targets[0].error, state.targets[0].different) == ("", ())

    until(well, "the agent says that all is well")


def others(where: str) -> list[str]:
    """What others have, to the letter."""
    return [
        json.dumps(each)
        for each in json.loads(nft(where, "-j", "list", "ruleset"))["nftables"]
        for noun in each.values()
        if (noun.get("family"), noun.get("table", noun.get("name"))) not in (("ip", "svcnat"), ("ip6", "svcnat"))
    ]


def meddle(where: str, family: str, kind: str) -> None:
    """Do it, as another program would."""
    if kind in MESSAGES:
        send(where, messages(where, family)[kind])
        return
    try:
        nft(where, "-f", "-", script=SCRIPTS[kind].format(**words(where, family)))
    except AssertionError:
        if kind not in KERNELS:
            raise
        pytest.skip("this kernel has no such thing")


def connect(where: str) -> None:
    """Be a client of a Service, by either family."""
    with netns.entered(where):
        for address in ("10.96.0.10", "fd00:10:96::a"):
            socket.create_connection((address, 80), timeout=PATIENCE).close()


@pytest.mark.parametrize("kind", [*SCRIPTS, *MESSAGES])
def test_what_a_stranger_does_is_undone(agent: Agent, where: str, kind: str) -> None:
    """In both families: the rules are what they were, others' tables too, and the log names the program once.

    Connections are accepted as before.
    """
    before, theirs = ours(where), others(where)
    for family in FAMILIES:
        since = len(agent.lines())
        meddle(where, family, kind)
        until(lambda since=since: agent.said("rules repaired", since=since), "a line that tells of the repair")
        assert ours(where) == before
        connect(where)
        told = [line for line in agent.lines()[since:] if "somebody else changed the rules" in line]
        assert len(told) == 1
        assert ("python" if kind in MESSAGES else "nft (pid") in told[0]
    assert others(where) == theirs
    state = agent.ask(deep=True)
    assert state
    assert (state.targets[0].error, state.targets[0].different) == ("", ())


ASKED = (
    "add counter",
    "add flowtable",
    "add set",
    "add chain",
    "catch-all of a map",
    "interval, not a prefix",
    "comment of a backend",
    "limit of a client",
)


@pytest.mark.parametrize("kind", ASKED)
def test_who_has_no_agent_is_told_by_a_command(kind: str) -> None:
    """`sync --dry-run` and `status` count what a stranger left; `sync` removes it, and then there is nothing to do."""
    with namespace() as where:
        objects = api.load(text=OBJECTS)
        api.sync(objects, where)
        before = ours(where)
        meddle(where, "ip", kind)
        found = api.sync(objects, where, dry_run=True)
        assert any(found.counts.values())
        assert ours(where) != before
        api.sync(objects, where)
        assert ours(where) == before
        assert not any(api.sync(objects, where, dry_run=True).counts.values())


def test_names_of_bridges_are_no_words_of_nft() -> None:
    """Whoever made a bridge chose its name: any is written between quotes, one that cannot be is left out."""
    config = Configuration(bridge_masquerade="on")
    with namespace() as where:
        for name in ("br-1.0", "tcp", "a;b", "x}", "9", 'q"q', "w*", "b\\"):
            subprocess.run(["ip", "-n", where, "link", "add", name, "type", "bridge"], check=True)
        api.sync(api.load(text=OBJECTS), where, config=config)
        listed = nft(where, "list", "set", "ip", "svcnat", "bridge-hairpins")
        assert sorted(re.findall(r'"(\S+)" \. "\1"', listed)) == ["9", "a;b", "br-1.0", "tcp", "x}"]
        assert not any(api.sync(api.load(text=OBJECTS), where, config=config).counts.values())
        subprocess.run(["ip", "-n", where, "link", "delete", "a;b"], check=True)
        assert api.sync(api.load(text=OBJECTS), where, config=config).counts["elements deleted"] == 2


@pytest.mark.parametrize("flags", [2, 6])  # NFT_TABLE_F_OWNER, with NFT_TABLE_F_PERSIST
def test_a_table_that_somebody_took_is_had_again(agent: Agent, where: str, flags: int) -> None:
    """While its owner lives, the status says so; no Service is blamed. Then all that works is there again.

    The flag `persist` stays: the kernel takes it from no table, and without an owner it means nothing.
    """
    since = len(agent.lines())
    with take_table(where, flags):
        until(lambda: agent.said("another program owns svcnat's table", since=since), "a line that tells why")
        told = agent.run("status")
        assert told.returncode == 1
        assert "another program owns svcnat's table (flags owner): end it" in told.stdout
    until(lambda: agent.said("rules repaired", since=since), "a line that tells of the repair")
    connect(where)
    state = agent.ask(deep=True)
    assert state
    assert (state.targets[0].error, state.targets[0].different) == ("", ())
    assert "python" in agent.said("somebody else changed the rules", since=since)
    assert not agent.said("because of those of", since=since)
    since = len(agent.lines())
    nft(where, "delete table ip svcnat")  # with its flag
    until(lambda: agent.said("rules repaired", since=since), "a line that tells of the repair")


def test_who_stops_is_not_waited_for(state: Path, store: Store) -> None:
    """However long others kept it from writing, the next try is the usual pause away, and not half a minute."""
    web(store)
    faults = Faults()
    with namespace() as where, Rounds(state, where, opener=faults.opener) as agent:
        nft(where, "flush ruleset")
        for _ in range(9):
            faults.refusals = [StaleError("they keep changing it") for _ in range(5)]
            assert agent.round(seconds=0.6, events=True) == ["failing"]
        faults.heal()
        assert agent.round(seconds=0.6, events=True) == ["synced"]


@pytest.mark.parametrize(
    "kinds", [("delete element", "add element", "flush set"), ("add rule", "add chain", "add counter")]
)
def test_who_never_stops_is_outlasted(agent: Agent, where: str, kinds: tuple[str, ...]) -> None:
    """Two hundred changes in a second or so; when they stop, the rules are what they were, and it was told of."""
    before, since = ours(where), len(agent.lines())
    scripts = [SCRIPTS[kind].format(**words(where, family)) for family in FAMILIES for kind in kinds]
    with netns.entered(where):
        stranger = Libnftables()
    for script in itertools.islice(itertools.cycle(scripts), 200):
        with contextlib.suppress(KernelError):  # it is gone, or there, already
            stranger.commit(script)
        time.sleep(0.005)
    until(lambda: ours_or_nothing(where) == before, "the rules are as they were")
    connect(where)
    assert agent.said("somebody else changed the rules", since=since)
    settle(agent)


@settings(max_examples=12, derandomize=True, deadline=None, database=None, suppress_health_check=list(HealthCheck))
@given(
    st.lists(st.tuples(st.sampled_from([*SCRIPTS, *MESSAGES]), st.sampled_from(FAMILIES)), min_size=2, max_size=6),
    st.lists(st.integers(1, 250), max_size=3),
)
def test_whatever_strangers_do_while_objects_change(
    agent: Agent, where: str, deeds: list[tuple[str, str]], hosts: list[int]
) -> None:
    """Any kinds of changes, one after another, between changes of a Service: it all ends well."""
    before, theirs = ours(where), others(where)
    with api.Cluster.open(state=agent.state, config=agent.config, netns=where) as cluster:
        for (kind, family), host in itertools.zip_longest(deeds, hosts[: len(deeds)]):
            if host:  # of the same number of endpoints: an agent keeps chains that it may need again for a while
                cluster.apply(api.load(text=OBJECTS.replace('"192.0.2.8"', f'"198.18.0.{host}"')))
            with contextlib.suppress(AssertionError, KeyError, StopIteration, pytest.skip.Exception):
                meddle(where, family, kind)  # what it is about may be gone, by what came before
        cluster.apply(api.load(text=OBJECTS))
    until(lambda: ours_or_nothing(where) == before, "the rules are as they were")
    connect(where)
    assert others(where) == theirs
    settle(agent)

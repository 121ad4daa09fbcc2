"""Strangers who change the rules: an agent, as a process of its own, notices by event, repairs, and says who it was."""

from __future__ import annotations

import contextlib
import itertools
import os
import sqlite3
import subprocess
import uuid
from collections.abc import Iterator

import pytest

from svcnat import api
from svcnat.kernel import netns
from tests.agents import Agent, runtime, until

pytestmark = pytest.mark.packets

WEB = """
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  clusterIP: 10.96.0.10
  clusterIPs: [10.96.0.10, "fd00:10:96::a"]
  ipFamilyPolicy: RequireDualStack
  type: NodePort
  ports: [{port: 80, nodePort: 30080}]
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: web-1, labels: {kubernetes.io/service-name: web}}
addressType: IPv4
ports: [{port: 8080}]
endpoints: [{addresses: [192.0.2.7]}, {addresses: [192.0.2.8]}]
"""
THEIRS = """
table inet theirs {
    set those { type ipv4_addr; elements = { 192.0.2.99 } }
    chain input { type filter hook input priority 0; ip saddr @those drop; }
}
"""


def nft(where: str, *words: str, script: str | None = None) -> str:
    with netns.entered(where):
        done = subprocess.run(["nft", *words], input=script, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def where() -> Iterator[str]:
    if os.geteuid() != 0:
        pytest.skip("network namespaces need root, or `unshare -rnm`")
    name = f"svcnat-test-{uuid.uuid4().hex[:12]}"
    netns.create(name)
    yield name
    netns.delete(name)


@pytest.fixture(scope="module")
def agent(where: str) -> Iterator[Agent]:
    """An agent that follows one Service."""
    with runtime() as folder, Agent(folder, where) as running:
        with api.Cluster.open(state=running.state, config=running.config, netns=where) as cluster:
            cluster.apply(api.load(text=WEB))
        yield running


def rules(where: str) -> str:
    """Those of svcnat, as nft prints them but for numbers that change and the order, which says nothing."""
    tables = (nft(where, "-s", "list", "table", family, "svcnat") for family in ("ip", "ip6"))
    blocks = (sorted(map(str.strip, table.removesuffix("}\n").split("\n\n"))) for table in tables)
    return "\n".join(itertools.chain(*blocks))


def chain_of(where: str) -> str:
    """The chain that spreads the connections of a Service with two endpoints."""
    (name,) = {line.split()[1] for line in rules(where).splitlines() if line.startswith("chain tcp-random-2")}
    return name


def replacement(where: str, chain: str, kind: str) -> str:
    """A statement that puts something else in the place of a chain's first rule, with that rule's comment."""
    listed = nft(where, "-a", "list", "chain", "ip", "svcnat", chain).splitlines()
    line = next(each for each in listed if " comment " in each)
    text, _, handle = line.strip().rpartition(" # handle ")
    rule, _, comment = text.partition(" comment ")
    other = "drop" if kind == "replace rule" else f"ip daddr != 203.0.113.1 {rule}"
    return f"replace rule ip svcnat {chain} handle {handle} {other} comment {comment}"


@pytest.mark.parametrize(
    "script",
    [
        "flush ruleset",
        "delete table ip svcnat",
        "flush table ip svcnat",
        "flush map ip svcnat frontends",
        "delete element ip svcnat frontends { 10.96.0.10 . tcp . 80 }",
        "delete element ip svcnat nodeports { tcp . 30080 }",
        "add element ip svcnat hairpins { 192.0.2.55 . 192.0.2.55 }",
        "add rule ip svcnat services drop",
        "insert rule ip6 svcnat services drop",
        "flush chain ip svcnat services",
        "add chain ip svcnat mine\nadd rule ip svcnat mine accept",
        "add chain ip svcnat mine { type filter hook forward priority 0; policy drop; }",
        "delete chain",  # of the Service
        "flush ruleset\nadd table ip svcnat",
        "rename chain ip svcnat services serv2",
        "rename chain ip svcnat services serv2\n"
        "add chain ip svcnat mine { type filter hook output priority 200; policy drop; }",
        "replace rule",  # by one that drops and has its comment
        "replace constant",  # by one that does the same for other addresses, and has its comment
        "add set ip svcnat seen { type ipv4_addr; flags dynamic; size 3; }\n"
        "add chain ip svcnat mine { type filter hook input priority 0; }\n"
        "add rule ip svcnat mine add @seen { ip saddr limit rate over 1/second } drop\n"
        "add rule ip svcnat mine meter those { ip saddr ct count over 3 } drop",
    ],
)
def test_what_a_stranger_changed_is_repaired(agent: Agent, where: str, script: str) -> None:
    """Nobody asks for it, and nothing else happens: the event is enough. The log names the program.

    What somebody else has in tables of their own stays as it is.
    """
    before = rules(where)
    if "theirs" not in nft(where, "list", "tables"):
        nft(where, "-f", "-", script=THEIRS)
    theirs = nft(where, "list", "table", "inet", "theirs")
    if script == "delete chain":
        script = (
            f"flush map ip svcnat frontends\nflush map ip svcnat nodeports\ndelete chain ip svcnat {chain_of(where)}"
        )
    if script.startswith("replace"):
        script = replacement(where, "nat-prerouting" if script == "replace rule" else "services", script)
    since = len(agent.lines())
    nft(where, "-f", "-", script=script)
    until(lambda: agent.said("rules repaired", since=since), "a line that tells of the repair")
    assert rules(where) == before
    assert "nft" in agent.said("somebody else changed the rules", since=since)
    state = agent.ask(deep=True)
    assert state
    assert not state.targets[0].different
    assert "flush ruleset" in script or nft(where, "list", "table", "inet", "theirs") == theirs


def test_a_locked_state_file_keeps_no_rule_waiting(agent: Agent, where: str) -> None:
    """What is told of a repair, as an Event, waits for whoever has the file; the next repair does not."""
    before, began = rules(where), len(agent.lines())
    with contextlib.closing(sqlite3.connect(agent.state, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        for _ in range(3):
            since = len(agent.lines())
            nft(where, "flush", "ruleset")
            until(lambda since=since: agent.said("rules repaired", since=since), "a line that tells of the repair")
        # Had they waited, this would have been said before.
        assert not agent.said("cannot be written", since=began)
        assert rules(where) == before
        other.execute("ROLLBACK")


def test_what_strangers_do_in_tables_of_their_own_is_their_business(agent: Agent, where: str) -> None:
    """Many commits of theirs: none is undone or taken for a change of svcnat's rules, also not by the next change."""
    if "theirs" not in nft(where, "list", "tables"):
        nft(where, "-f", "-", script=THEIRS)
    state = agent.ask()
    assert state
    drift, before = state.targets[0].drift, rules(where)
    for number in range(20):
        nft(where, "-f", "-", script=f"add element inet theirs those {{ 198.51.100.{number} }}")
    theirs = nft(where, "list", "table", "inet", "theirs")
    with api.Cluster.open(state=agent.state, config=agent.config, netns=where) as cluster:
        cluster.apply(api.load(text=WEB.replace("192.0.2.8", "192.0.2.9")))
        assert rules(where) == before.replace("192.0.2.8", "192.0.2.9")
        cluster.apply(api.load(text=WEB))
    assert rules(where) == before
    state = agent.ask(deep=True)
    assert state
    assert (state.targets[0].drift, state.targets[0].different) == (drift, ())
    assert nft(where, "list", "table", "inet", "theirs") == theirs

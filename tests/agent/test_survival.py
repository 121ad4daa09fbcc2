"""Agents that die, and endpoints that are replaced, under traffic that must not notice: processes and packets."""

from __future__ import annotations

import json
import os
import random
import re
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from svcnat import api
from svcnat.agent.host import look
from svcnat.agent.settings import settings_for
from svcnat.kernel import netns
from svcnat.kernel.nftables import Namespace
from svcnat.model.objects import EndpointSlice, Service
from svcnat.ruleset.compile import compile_plan
from svcnat.ruleset.nftables import render
from svcnat.ruleset.plan import plan
from tests.agent.traffic import Load, Servers
from tests.agents import Agent, runtime
from tests.bed import ADDRESSES, PODS, Bed, temporary_bed

pytestmark = pytest.mark.packets

VIPS = {"web": ("10.96.0.10", "fd00:10:96::a"), "sticky": ("10.96.0.11", "fd00:10:96::b")}
RATE = 300  # connections a second
LEAVING = "conditions: {ready: false, serving: true, terminating: true}"


@pytest.fixture
def bed() -> Iterator[Bed]:
    if os.geteuid() != 0:
        pytest.skip("network namespaces need root, or `unshare -rnm`")
    with temporary_bed() as made:
        yield made


@pytest.fixture
def folder() -> Iterator[Path]:
    with runtime() as made:
        yield made


def manifest(name: str, pods: list[str], fields: str = "", leaving: str = "") -> str:
    """A dual-stack Service of TCP and UDP, with these pods, of which one may be terminating."""
    four, six = VIPS.get(name, ("10.96.0.99", "fd00:10:96::99"))
    text = f"""
apiVersion: v1
kind: Service
metadata: {{name: {name}}}
spec:
  clusterIP: "{four}"
  clusterIPs: ["{four}", "{six}"]
  ipFamilyPolicy: RequireDualStack
  {fields}
  ports: [{{name: t, port: 80, targetPort: 8081}}, {{name: u, port: 80, protocol: UDP, targetPort: 8081}}]
"""
    for index, kind in enumerate(("IPv4", "IPv6")):
        listed = ", ".join(
            f'{{addresses: ["{ADDRESSES[pod][index]}"], {LEAVING if pod == leaving else ""}}}' for pod in pods
        )
        text += f"""---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: {name}-{kind.lower()}, labels: {{kubernetes.io/service-name: {name}}}}}
addressType: {kind}
ports: [{{name: t, port: 8081}}, {{name: u, port: 8081, protocol: UDP}}]
endpoints: [{listed}]
"""
    return text


def learned(where: str) -> set[tuple[str, str]]:
    """What the rules remember of clients: the map's name, and client and endpoint."""
    with netns.entered(where):
        listed = subprocess.run(["nft", "-j", "list", "ruleset"], check=True, capture_output=True).stdout
    maps = [each["map"] for each in json.loads(listed)["nftables"] if "map" in each]
    return {
        (each["name"], f"{element[0]['elem']['val']} {element[1]}")
        for each in maps
        if each["name"].startswith("affinity-")
        for element in each.get("elem", ())
    }


def counted(cluster: api.Cluster, name: str) -> int:
    """How many connections the endpoints of a Service got, by the kernel's counters."""
    with cluster.read() as snapshot:
        service = snapshot.get(Service, "default", name)
    assert service
    found = cluster.connections(service)
    assert len(found) == 6
    return sum(count or 0 for count in found.values())


def test_agents_come_and_go_and_nobody_notices(bed: Bed, folder: Path) -> None:
    """Killed and begun again 20 times under 300 connections a second, some of them while it was beginning.

    No connection fails, none that lasts ends, clients keep their endpoints, no connection is counted twice or
    forgotten; and an agent that finds nothing to do writes nothing.
    """
    node, draw = bed.netns("node"), random.Random(4)
    destinations = [(address, 80) for name in VIPS for address in VIPS[name]]
    agent = Agent(folder, node)
    loads = [Load(bed.netns("client"), destinations, RATE / 2), Load(node, destinations, RATE / 2)]
    with (
        Servers(bed, 8081, PODS[:3]),
        api.Cluster.open(state=agent.state, config=agent.config, netns=node) as cluster,
        Namespace(node) as rules,
        agent,
    ):
        for name, fields in (("web", ""), ("sticky", "sessionAffinity: ClientIP")):
            cluster.apply(api.load(text=manifest(name, list(PODS[:3]), fields)))
        with loads[0], loads[1]:
            known = learned(node)
            for number in range(20):
                before = rules.generation()
                agent.kill()
                if number % 4 == 0:
                    # What changed while nobody followed is followed from the beginning.
                    with cluster._store.transaction() as transaction:
                        for each in api.load(text=manifest("other", [PODS[number % 3]])).manifests:
                            transaction.apply(each.document)
                if number % 4 in (0, 1):
                    agent.begin(wait=False)
                    time.sleep(draw.uniform(0, 0.5))
                    agent.kill()
                agent.begin()
                assert (rules.generation() == before) == (number % 4 != 0), number
                assert learned(node) == known
        assert not [failure for load in loads for failure in load.failures]
        assert not any(load.repeated for load in loads)
        assert min(load.count("lasting") for load in loads) > 100
        assert min(load.count("kept") for load in loads) > 50
        assert len({(each.to, each.result) for load in loads for each in load.attempts if each.kind == "lasting"}) <= 8
        made = [each for load in loads for each in load.attempts if each.to in VIPS["web"]]
        made = [each for each in made if each.kind in ("connection", "datagram")]
        assert counted(cluster, "web") == len(made) + 2 * len(loads) * (1 + Load.KEPT)
        # Two clients, two families, two protocols: each was given an endpoint once, and for IPv6 its port apart.
        assert counted(cluster, "sticky") == 8
        assert len(known) == 12
        state = agent.ask(deep=True)
        assert state
        assert not state.targets[0].different


CHANGES = (
    ("", "svcnat.io/scheduler: maglev", PODS[:3]),
    ("sessionAffinity: ClientIP", "svcnat.io/scheduler: source-hash", PODS[:3]),
    ("sessionAffinity: ClientIP", "", PODS[1:4]),
    ("type: NodePort", "svcnat.io/scheduler: round-robin", PODS[2:5]),
    ("externalTrafficPolicy: Local, type: LoadBalancer", 'svcnat.io/max-connections: "60000"', PODS[3:6]),
    ("", "", PODS[:3]),
)


def test_what_changed_while_nobody_followed_breaks_nothing(bed: Bed, folder: Path) -> None:
    """Scheduler, affinity, limits, type and all endpoints: the next agent follows, and no connection fails.

    An endpoint that went ends when the agent has begun, and nothing that a client begins later reaches it.
    """
    node = bed.netns("node")
    agent = Agent(folder, node)
    went: list[tuple[str, float, float]] = []
    with (
        Servers(bed, 8081, PODS[:3]) as servers,
        api.Cluster.open(state=agent.state, config=agent.config, netns=node) as cluster,
        agent,
    ):
        cluster.apply(api.load(text=manifest("web", list(PODS[:3]))))
        serving, away = PODS[:3], dict.fromkeys(PODS[3:], time.monotonic())
        with Load(bed.netns("client"), [(address, 80) for address in VIPS["web"]], RATE) as load:
            for fields, note, pods in CHANGES:
                agent.kill()
                for new in set(pods) - set(serving):
                    servers.open(new)
                    went.append((new, away.pop(new), time.monotonic()))
                text = manifest("web", list(pods), fields.replace(", ", "\n  "))
                with cluster._store.transaction() as transaction:
                    for each in api.load(
                        text=text.replace("{name: web}", f"{{name: web, annotations: {{{note}}}}}")
                    ).manifests:
                        transaction.apply(each.document)
                agent.begin()
                for old in set(serving) - set(pods):
                    away[old] = time.monotonic()
                    servers.close(old)
                serving = pods
                until_moved(load, len(load.attempts))
                state = agent.ask(deep=True)
                assert state
                assert not state.targets[0].different
        went += [(pod, since, float("inf")) for pod, since in away.items()]
    # Of an answer over UDP that is under way when its endpoint goes, nobody knows whose it is.
    assert not [each for each in load.failures if each.kind != "datagram"]
    begun = [each for each in load.attempts if each.kind != "lasting"]
    for pod, since, again in went:
        assert not [each for each in begun if each.result == pod and since < each.began and each.ended < again]
    assert load.count("lasting") > 50


def older(cluster: api.Cluster, node: str) -> str:
    """The rules of a svcnat that wrote other words, named a chain otherwise, and had one more."""
    with cluster.read() as snapshot:
        settings = settings_for(cluster._config, look(node, cluster._config), "here")
        decided = plan(snapshot.list(Service), snapshot.list(EndpointSlice), settings)
    text = render(compile_plan(decided, f"state {cluster._store.identity}"))
    text = re.sub(r"(add rule .*#)([0-9a-f]{8})", lambda found: found[1] + found[2][::-1], text)
    text = re.sub(r"\btranslated\b", "afterwards", text).replace("svcnat layout", "svcnat-old layout")
    return f"{text}add chain ip svcnat bygone\nadd rule ip svcnat bygone counter return\n"


def test_rules_of_an_older_svcnat_are_replaced_and_nobody_notices(bed: Bed, folder: Path) -> None:
    """In one transaction, and one that sweeps: no packet is lost, clients keep their endpoints, counters go on."""
    node = bed.netns("node")
    destinations = [(address, 80) for name in VIPS for address in VIPS[name]]
    agent = Agent(folder, node)
    loads = [Load(bed.netns("client"), destinations, RATE / 2), Load(node, destinations, RATE / 2)]
    with (
        Servers(bed, 8081, PODS[:3]),
        api.Cluster.open(state=agent.state, config=agent.config, netns=node) as cluster,
        Namespace(node) as rules,
    ):
        for name, fields in (("web", ""), ("sticky", "sessionAffinity: ClientIP")):
            cluster.apply(api.load(text=manifest(name, list(PODS[:3]), fields)))
        with netns.entered(node):
            subprocess.run(["nft", "-f", "-"], input=older(cluster, node), check=True, text=True)
        with loads[0], loads[1]:
            before, known = rules.generation(), learned(node)
            with agent:
                assert rules.generation() == before + 2
                assert learned(node) == known
                state = agent.ask(deep=True)
                assert state
                assert not state.targets[0].different
                until_moved(loads[0], len(loads[0].attempts))
        assert not [failure for load in loads for failure in load.failures]
        assert not any(load.repeated for load in loads)
        made = [each for load in loads for each in load.attempts if each.to in VIPS["web"]]
        made = [each for each in made if each.kind in ("connection", "datagram")]
        assert counted(cluster, "web") == len(made) + 2 * len(loads) * (1 + Load.KEPT)
        assert counted(cluster, "sticky") == 8


@pytest.mark.parametrize("graceful", [True, False], ids=["terminating-first", "at-once"])
def test_every_endpoint_is_replaced_and_nobody_notices(bed: Bed, folder: Path, graceful: bool) -> None:
    """Ten rolling replacements of three endpoints under 300 connections a second, acknowledged by the agent.

    A new endpoint comes, an old one is terminating, then removed; when that is acknowledged, its server ends. Nothing
    that a client begins later reaches it, until the endpoint is there again; nothing fails, and UDP clients move on.
    Of an endpoint that was not terminating, only an answer over UDP that is under way right then is lost.
    """
    node = bed.netns("node")
    agent = Agent(folder, node)
    gone: list[tuple[str, float, float]] = []  # which pod, from when until when
    with (
        Servers(bed, 8081, PODS[:3]) as servers,
        api.Cluster.open(state=agent.state, config=agent.config, netns=node) as cluster,
        agent,
    ):
        serving = list(PODS[:3])
        cluster.apply(api.load(text=manifest("web", serving)))
        away = dict.fromkeys(PODS[3:], time.monotonic())
        with Load(bed.netns("client"), [(address, 80) for address in VIPS["web"]], RATE, lasting=False) as load:
            for _ in range(10):
                for old in tuple(serving):
                    new = next(iter(away))  # the one that is away longest
                    servers.open(new)
                    gone.append((new, away.pop(new), time.monotonic()))
                    cluster.apply(api.load(text=manifest("web", [*serving, new])))
                    if graceful:
                        cluster.apply(api.load(text=manifest("web", [*serving, new], leaving=old)))
                    serving = [*(pod for pod in serving if pod != old), new]
                    cluster.apply(api.load(text=manifest("web", serving)))
                    away[old] = time.monotonic()
                    servers.close(old)
            until_moved(load, len(load.attempts))
        gone += [(pod, since, float("inf")) for pod, since in away.items()]
    assert not [each for each in load.failures if graceful or each.kind != "datagram"]
    assert load.count("connection") > 200
    for pod, since, again in gone:
        assert not [each for each in load.attempts if each.result == pod and since < each.began and each.ended < again]
    moved = {each.result for each in load.attempts if each.kind == "kept"}
    assert moved == set(PODS)


def until_moved(load: Load, position: int) -> None:
    """Wait until every client that stays has asked once more."""
    while sum(each.kind == "kept" for each in load.attempts[position:]) < 4 * Load.KEPT:
        assert load.is_alive()
        time.sleep(0.01)

"""Bad company: hosts that change under an agent, others who write rules, and too much of everything at once.

Whoever they are, the rules end equal to the objects, the tables of others are left alone, and what happened is told.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import itertools
import json
import os
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from svcnat import api
from svcnat.agent import control
from svcnat.agent.keeper import Keeper
from svcnat.agent.reconciler import Reconciler
from svcnat.agent.sources import StateFile
from svcnat.agent.surroundings import Surroundings
from svcnat.agent.targets import Target
from svcnat.errors import BusyError, KernelError
from svcnat.kernel import netns
from svcnat.kernel.libnftables import Libnftables
from svcnat.kernel.nftables import Namespace
from svcnat.model.configuration import Configuration
from svcnat.model.objects import Service
from svcnat.ruleset.diff import Change
from svcnat.store.sqlite import Store
from tests.agent.running import (
    Rounds,
    Running,
    differences,
    endpoints,
    link,
    nft,
    node_port_addresses,
    open_files,
    rules,
    service,
    svcnat,
    web,
)
from tests.agent.witness import ENDPOINTS, Witness
from tests.agents import CONFIG, until

# --- events, links, namespaces -----------------------------------------------------------------------------------


def shrink(descriptor: int) -> None:
    """Leave a socket room for next to nothing that it is told."""
    with socket.socket(fileno=os.dup(descriptor)) as same:
        same.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)


def test_lost_events_are_counted_and_looked_for(state: Path, store: Store, make_netns) -> None:
    """What happened while nobody listened is found: rules of ours that were changed, and addresses that came."""
    where, peer = make_netns(), make_netns()
    link(where, peer)
    web(store, type="NodePort", ports=[{"port": 80, "targetPort": 8080, "nodePort": 30080}])
    with Rounds(state, where) as agent:
        ((_, keeper),) = agent.reconciler.keepers
        for each in keeper.filenos():
            shrink(each)
        noise = "; ".join(f"add table ip noise{number}" for number in range(300))
        for number in range(3):
            nft(where, noise)
            nft(where, "delete table ip svcnat")
            nft(where, noise.replace("add", "delete"))
            lines = [
                f"address {verb} 198.51.100.{each}/32 dev eth0" for verb in ("add", "delete") for each in range(50)
            ]
            lines += [
                f"address delete 192.0.2.{1 + number}/24 dev eth0",
                f"address add 192.0.2.{2 + number}/24 dev eth0",
            ]
            lines += ["route replace default via 192.0.2.254"]
            with netns.entered(where):
                subprocess.run(["ip", "-batch", "-"], input="\n".join(lines), text=True, check=True)
            assert agent.round(events=True) == ["synced"]
            assert not differences(state, where, node="n1")
            assert node_port_addresses(where) == f"192.0.2.{2 + number}"
            assert agent.observer.overruns.count("nftables") > number
            assert agent.observer.overruns.count("rtnetlink") > number
        # Nothing of ours was touched: that is found, too, and no rule is written.
        passes = agent.observer.full
        nft(where, noise)
        assert agent.round(events=True) == ["synced"]
        web(store, 2)
        assert agent.round(objects=True) == ["synced"]
        assert agent.observer.full <= passes + 1
        assert not differences(state, where, node="n1")


def listeners(pid: int) -> Iterator[socket.socket]:
    """The sockets of another process that the kernel tells of what happens."""
    process = os.pidfd_open(pid)
    try:
        for each in Path(f"/proc/{pid}/fd").iterdir():
            if not str(each.readlink()).startswith("socket:"):
                continue
            found = ctypes.CDLL(None, use_errno=True).syscall(438, process, int(each.name), 0)  # pidfd_getfd(2)
            if found < 0:
                pytest.skip(f"nobody may look into another process here: {os.strerror(ctypes.get_errno())}")
            with socket.socket(fileno=found) as same:
                if same.family == socket.AF_NETLINK and same.getsockname()[1]:
                    yield same
    finally:
        os.close(process)


@pytest.mark.packets
def test_an_agent_that_lost_events_finds_what_they_told(folder: Path, store: Store, make_netns) -> None:
    """A process of its own, without room for what it is told: rules come back, and node ports follow the address."""
    where, peer = make_netns(), make_netns()
    link(where, peer, "198.18.0.1")
    web(store, type="NodePort", ports=[{"port": 80, "targetPort": 8080, "nodePort": 30080}])
    noise = "; ".join(f"add table ip noise{number}" for number in range(300))
    with Witness(where) as witness, Running(folder, where) as agent:
        assert witness.reaches()
        assert len([shrink(each.fileno()) for each in listeners(agent.pid)]) == 2
        for number in range(1, 4):
            agent.signal(signal.SIGSTOP)
            nft(where, noise)
            nft(where, "delete table ip svcnat")
            nft(where, noise.replace("add", "delete"))
            assert not witness.reaches()
            agent.signal(signal.SIGCONT)
            until(witness.reaches, "repaired")
            until(agent.in_step, "in step")
            assert agent.target.drift == number
            assert agent.said("somebody else changed the rules: more happened than could be read")
            agent.signal(signal.SIGSTOP)
            lines = [
                f"address {verb} 203.0.113.{each}/32 dev eth0" for verb in ("add", "delete") for each in range(100)
            ]
            lines += [f"address delete 198.18.0.{number}/24 dev eth0", f"address add 198.18.0.{number + 1}/24 dev eth0"]
            lines += ["route replace default via 198.18.0.254"]
            with netns.entered(where):
                subprocess.run(["ip", "-batch", "-"], input="\n".join(lines), text=True, check=True)
            agent.signal(signal.SIGCONT)
            until(lambda n=number: node_port_addresses(where) == f"198.18.0.{n + 1}", "the node port follows")
            until(agent.in_step, "in step")
    assert not differences(agent.state, where)


def test_lost_events_show_in_the_metrics(folder: Path, store: Store) -> None:
    """Whoever watches sees that the agent could not keep up."""

    async def main() -> str:
        source = StateFile(store.path, lambda _: Store.open(store.path))
        with ThreadPoolExecutor(1) as worker:
            async with Surroundings(source, Configuration(), None, worker, lambda: None) as surroundings:
                for source_of in ("nftables", "nftables", "rtnetlink"):
                    surroundings.observer.overrun(source_of)
                assert surroundings.metrics
                return surroundings.metrics.text().decode()

    text = asyncio.run(main())
    assert 'svcnat_event_overruns_total{source="nftables"} 2.0' in text
    assert 'svcnat_event_overruns_total{source="rtnetlink"} 1.0' in text


def test_a_target_that_is_gone_shows_in_the_metrics(folder: Path, store: Store) -> None:
    """An alert on nodes that do not follow comes for it, too, unless it may be gone, as a node of a lab that is off."""

    async def main() -> str:
        source = StateFile(store.path, lambda _: Store.open(store.path))
        with ThreadPoolExecutor(1) as worker:
            async with Surroundings(source, Configuration(), None, worker, lambda: None) as surroundings:
                for target in (Target("host", "blue"), Target("off", "blue", optional=True), Target("stays", "blue")):
                    surroundings.observer.requested(target)
                    surroundings.observer.passed(target, full=True, seconds=0.1, changes=1)
                    if target.node != "stays":
                        surroundings.observer.gone(target)
                assert surroundings.metrics
                return surroundings.metrics.text().decode()

    text = asyncio.run(main())
    assert 'svcnat_node_in_sync{node="host"} 0.0' in text
    assert 'svcnat_node_in_sync{node="stays"} 1.0' in text
    assert 'node="off"' not in text
    assert 'svcnat_changes_total{node="host"}' not in text


def test_a_round_that_hangs_leaves_the_metrics_readable(folder: Path, store: Store) -> None:
    """Connections, for which a scrape waits for the round, are left out then; what tells of the trouble is there."""
    source = StateFile(store.path, lambda _: Store.open(store.path))
    reconciler = Reconciler(source, [], Configuration(), keeping=lambda target, config, _: Keeper(target, config))

    async def main() -> str:
        hangs = threading.Event()
        with ThreadPoolExecutor(1) as worker:
            async with Surroundings(source, Configuration(), None, worker, lambda: None, patience=0.01) as surroundings:
                worker.submit(hangs.wait)
                serving = asyncio.create_task(surroundings.serve(reconciler))
                await asyncio.sleep(0)
                assert surroundings.metrics
                try:
                    return (await asyncio.to_thread(surroundings.metrics.text)).decode()
                finally:
                    serving.cancel()
                    hangs.set()

    text = asyncio.run(main())
    assert "svcnat_connection_reads_failed_total 1.0" in text
    assert "svcnat_build_info" in text
    assert "svcnat_service_connections_total" not in text


def test_a_link_that_goes_and_comes_is_followed(folder: Path, state: Path, make_netns) -> None:
    """Node ports move with the primary address, and what was announced on the link is announced on the new one."""
    where, peer = make_netns(), make_netns()
    link(where, peer)
    with Store.open(state, load_balancer_pool=["192.0.2.200/32"]) as store:
        web(store, type="LoadBalancer", ports=[{"port": 80, "targetPort": 8080, "nodePort": 30080}])
    balancing = "loadBalancerPool: [192.0.2.200/32]\nloadBalancerInterfaces: [eth0]\n"

    def announces() -> bool:
        with netns.entered(where):
            found = subprocess.run(["ip", "neighbour", "show", "proxy"], capture_output=True, text=True, check=True)
        return "192.0.2.200 dev eth0" in found.stdout

    with Running(folder, where, config=CONFIG + balancing) as agent:
        until(announces, "announced")
        for address in ("192.0.2.1", "192.0.2.1", "192.0.2.33"):
            with netns.entered(where):
                subprocess.run(["ip", "link", "delete", "eth0"], check=True)
            until(lambda: not node_port_addresses(where), "no node port without an address")
            link(where, peer, address)
            until(lambda address=address: node_port_addresses(where) == address, "the node port follows")
            until(announces, "announced again")
            until(agent.in_step, "in step")
        assert agent.target.drift == 0


def test_a_namespace_that_goes_leaves_the_others(state: Path, store: Store, make_netns) -> None:
    """It is gone, and says so; the others are kept; made again, it gets its rules. Nothing stays open for it."""
    first, second = make_netns(), make_netns()
    web(store)
    with Rounds(state, first, second) as agent:
        files = []
        for number in range(2, 6):
            netns.delete(second)
            # Before anybody looks, its rules can still be written; nobody is told of a failure.
            web(store, number)
            assert agent.round(objects=True)[0] == "synced"
            assert agent.round(look=True) == ["synced", "gone"]
            assert agent.round(look=True, urgent=True) == ["synced", "gone"]
            assert f'network namespace "{second}" does not exist' in agent.reconciler.state().targets[1].error
            web(store, 10 * number)
            assert agent.round(objects=True) == ["synced", "gone"]
            assert not differences(state, first, node="n1")
            netns.create(second)
            assert agent.round(look=True) == ["synced", "synced"]
            assert not differences(state, second, node="n2")
            files.append(open_files())
        assert files[-1] <= files[0], files
        assert [each.drift for each in agent.reconciler.state().targets] == [0, 0]


def test_callers_and_a_namespace_that_comes_and_goes(folder: Path, store: Store, empty_netns: str) -> None:
    """What is closed here is not mistaken for what is opened there, though it may get its number."""
    web(store)
    enough = threading.Event()

    def call(agent: Running) -> None:
        while not enough.is_set():
            agent.now(deep=False)
            assert agent.reconcile() == ""

    with Running(folder, empty_netns) as agent, ThreadPoolExecutor(3) as pool:
        callers = [pool.submit(call, agent) for _ in range(3)]
        try:
            for number in range(2, 6):
                netns.delete(empty_netns)
                until(lambda: agent.target.state == "gone", "it is missed")
                web(store, number)
                netns.create(empty_netns)
                until(agent.in_step, "in step")
                assert not differences(agent.state, empty_netns)
        finally:
            enough.set()
        for each in callers:
            each.result()


def test_what_cannot_be_removed_keeps_nothing_else(state: Path, store: Store, make_netns) -> None:
    """At the end of an agent that cleans up, one of its namespaces is gone: the others' rules are removed."""
    first, second = make_netns(), make_netns()
    web(store)
    agent = Rounds(state, first, second)
    agent.__enter__()
    netns.delete(first)
    agent.reconciler.close(cleanup=True)
    assert rules(second) == ""
    netns.create(first)


# --- others who write --------------------------------------------------------------------------------------------


def test_a_second_agent_says_so_and_ends(folder: Path, state: Path, store: Store, make_netns, monkeypatch) -> None:
    """Whether it finds the first one's socket or its lock; a command that does not find it says who keeps the rules."""
    where, elsewhere = make_netns(), make_netns()
    web(store)
    with Running(folder, where) as agent:
        before = agent.target
        done = svcnat("run", "--netns", where, "--state", state)
        assert (done.returncode, "Traceback" in done.stderr) == (1, False)
        assert f"an agent (pid {agent.pid})" in done.stderr
        done = svcnat("run", "--netns", elsewhere, "--state", state)
        assert (done.returncode, "Traceback" in done.stderr) == (1, False)
        assert "another agent follows the same objects" in done.stderr
        other = folder / "other"
        other.mkdir()
        monkeypatch.setenv("SVCNAT_RUNTIME_DIR", str(other))
        for command in (
            ("run", "--state", state),
            ("run", "--once", "--state", state),
            ("sync", "-f", agent.config),
            ("cleanup",),
        ):
            done = svcnat(*command, "--netns", where)
            assert (done.returncode, "Traceback" in done.stderr) == (1, False), (command, done.stderr)
        monkeypatch.setattr(control, "_SILENCE", 0.2)
        with (
            api.Cluster.open(state=state, config=agent.config, netns=where) as cluster,
            pytest.raises(BusyError, match=rf"\(pid {agent.pid}\) follows these objects, and does not listen at"),
        ):
            cluster.delete([(Service, "default", "web-1")])
        monkeypatch.setenv("SVCNAT_RUNTIME_DIR", str(folder))
        assert until(agent.in_step, "in step")
        assert agent.target.drift == 0
        assert before.services == 2


class _Contested(Namespace):
    """A namespace in which somebody undoes a change as soon as it is made."""

    def commit_elements(self, change: Change, *, generation: int) -> int:
        made = super().commit_elements(change, generation=generation)
        super().commit("flush set ip svcnat cluster-ips")
        return made


def test_who_changes_rules_during_a_pass_is_noticed(state: Path, store: Store, empty_netns: str) -> None:
    """It is told and counted like any other change of somebody else's, and repaired by the next pass."""
    web(store, 9)  # what it needs besides elements is there then
    with Rounds(state, empty_netns, opener=_Contested) as agent:
        for number in range(1, 4):
            web(store, number)
            agent.round(objects=True)
            assert agent.reconciler.state().targets[0].drift == number
            assert agent.round(events=True) == ["synced"]
            assert not differences(state, empty_netns, node="n1")


class Meddler(threading.Thread):
    """Another program: it commits scripts, one after the other, until it is told to stop, whatever the kernel says."""

    def __init__(self, where: str, *scripts: str, pause: float = 0.003) -> None:
        super().__init__()
        self._scripts, self._pause, self._enough = scripts, pause, threading.Event()
        self.commits = 0
        with netns.entered(where):
            self._nft = Libnftables()

    def run(self) -> None:
        for script in itertools.cycle(self._scripts):
            with contextlib.suppress(KernelError):
                self._nft.commit(script)
                self.commits += 1
            if self._enough.wait(self._pause):
                return

    def __enter__(self) -> Meddler:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._enough.set()
        self.join()


def test_who_keeps_changing_other_tables_is_in_nobodys_way(folder: Path, store: Store, empty_netns: str) -> None:
    """Every request is answered in time, with rules that are there; the other tables are left alone."""
    nft(empty_netns, "add table inet other; add set inet other s { type ipv4_addr; }")
    with (
        Running(folder, empty_netns) as agent,
        Meddler(
            empty_netns,
            "add element inet other s { 192.0.2.1 }",
            "delete element inet other s { 192.0.2.1 }",
            "add table ip svcnat-other",
        ) as other,
    ):
        for number in range(1, 60):
            affinity = {"sessionAffinity": "ClientIP"} if number % 10 == 0 else {}
            assert agent.reconcile(web(store, number, **affinity)) == ""
            before = other.commits
            until(lambda before=before: other.commits > before, "the other one goes on")
        assert agent.target.drift == 0
    assert not differences(agent.state, empty_netns)
    assert "table inet other" in rules(empty_netns)


def test_who_keeps_changing_other_tables_stops_no_pass_over_everything(
    folder: Path, state: Path, store: Store, empty_netns: str
) -> None:
    """An agent begins, repairs, and compares what is there, although nobody ever finds the ruleset quiet."""
    for number in range(300):
        web(store, number)
    other = Meddler(empty_netns, "add table inet other; add chain inet other c", "delete table inet other", pause=0.001)
    with other, Running(folder, empty_netns) as agent:
        assert agent.in_step()
        nft(empty_netns, "delete table ip svcnat")
        until(lambda: agent.target.drift == 1 and agent.in_step(), "it is repaired")
        assert agent.said("nft (pid")
        assert svcnat("status", "--netns", empty_netns, "--state", state).returncode == 0
        assert svcnat("status", "--netns", empty_netns, "-f", folder).returncode == 1, "not its objects"
        assert not agent.said("keep changing")
    assert not differences(state, empty_netns)


def test_who_fights_over_our_tables_does_not_win(folder: Path, store: Store, empty_netns: str) -> None:
    """As long as it goes on, both write; requests are answered all the same, and at the end the rules are ours."""
    web(store, 1)
    with Running(folder, empty_netns) as agent:
        with Meddler(
            empty_netns,
            "delete element ip svcnat cluster-ips { 10.96.1.2 }",
            "add chain ip svcnat theirs; add rule ip svcnat theirs counter",
            "flush chain ip svcnat services",
            "delete table ip svcnat",
            pause=0.02,
        ):
            for number in range(2, 12):
                answer = agent.reconcile(web(store, number))
                assert answer == "", answer
            until(lambda: agent.now(deep=False).targets[0].drift >= 10, "it notices")
        until(agent.in_step, "in step")
        assert agent.said("somebody else changed the rules")
    assert not differences(agent.state, empty_netns)
    assert "theirs" not in rules(empty_netns)


# --- very many at once -------------------------------------------------------------------------------------------


def test_a_burst_of_ten_thousand_objects(folder: Path, state: Path, store: Store, empty_netns: str) -> None:
    """In one transaction and in many, while others ask: every request is answered, and few passes did it all."""

    def burst(first: int, last: int) -> int:
        with store.transaction() as transaction:
            for number in range(first, last):
                transaction.create(service(f"web-{number}", number))
                transaction.create(endpoints(f"web-{number}", f"192.0.2.{1 + number % 200}"))
        return transaction.revision

    with Running(folder, empty_netns) as agent, ThreadPoolExecutor(40) as pool:
        assert agent.reconcile(burst(0, 2500)) == ""
        assert agent.target.services == 2501
        # In many, as fast as it can follow, and while it is too slow for all of them.
        answers = [pool.submit(agent.reconcile, burst(first, first + 50)) for first in range(2500, 4000, 50)]
        assert {each.result() for each in answers} == {""}
        assert agent.target.services == 4001
        generation = agent.target.generation
        agent.signal(signal.SIGSTOP)
        answers = [pool.submit(agent.reconcile, burst(first, first + 25)) for first in range(4000, 5000, 25)]
        agent.signal(signal.SIGCONT)
        assert {each.result() for each in answers} == {""}
        assert agent.target.generation <= generation + 2
        assert agent.target.services == 5001
        assert agent.in_step()
    assert not differences(state, empty_netns)


@pytest.mark.packets
def test_a_burst_of_manifests_and_their_end(folder: Path, empty_netns: str, witness: Witness) -> None:
    """Ten thousand objects in files that come and go all at once: who was there before is served all the time."""
    manifests = folder / "manifests"
    manifests.mkdir()

    def write(name: str, numbers: range) -> None:
        items = [
            each for n in numbers for each in (service(f"web-{n}", n), endpoints(f"web-{n}", *ENDPOINTS[: 1 + n % 2]))
        ]
        new = manifests / f"{name}.new"
        new.write_text(json.dumps({"apiVersion": "v1", "kind": "List", "items": items}))
        new.rename(manifests / f"{name}.json")

    enough = threading.Event()

    def ask() -> list[bool]:
        found = []
        while not enough.wait(0.01):
            found.append(witness.reaches(1))
        return found

    write("first", range(1, 2))
    with Running(folder, empty_netns, "-f", str(manifests)) as agent, ThreadPoolExecutor(1) as pool:
        asked = pool.submit(ask)
        try:
            for first in range(2, 5002, 250):
                write(f"burst-{first}", range(first, first + 250))
            until(lambda: agent.target.services == 5001, "all of them")
            assert witness.reaches(2)
            assert witness.reaches(5001)
            for each in manifests.glob("burst-*"):
                each.unlink()
            until(lambda: agent.target.services == 1, "none of them")
            assert not witness.reaches(5001)
            until(agent.in_step, "in step")
        finally:
            enough.set()
        answers = asked.result()
        assert answers
        assert all(answers), f"{answers.count(False)} of {len(answers)} were refused"
        assert agent.target.drift == 0

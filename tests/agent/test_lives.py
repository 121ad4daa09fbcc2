"""How agents begin, end, reload, and get on with each other and with commands: real processes in namespaces."""

from __future__ import annotations

import contextlib
import signal
import socket
import subprocess
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from svcnat import api
from svcnat.kernel import lock, netns
from svcnat.kernel.nftables import Namespace
from svcnat.store.sqlite import Store
from tests.agent.running import Running, create, endpoints, service
from tests.agents import CONFIG, Agent, runtime, until

pytestmark = pytest.mark.packets

WEB = """
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {clusterIP: 10.96.0.10, ports: [{port: 80}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: web-1, labels: {kubernetes.io/service-name: web}}
addressType: IPv4
ports: [{port: 8080}]
endpoints: [{addresses: [192.0.2.7]}]
"""


@pytest.fixture
def folder() -> Iterator[Path]:
    with runtime() as made:
        yield made


@pytest.fixture
def agent(folder: Path, empty_netns: str) -> Iterator[Agent]:
    """An agent that follows a state file with one Service."""
    with Agent(folder, empty_netns) as running:
        apply(running, empty_netns)
        yield running


def apply(agent: Agent, where: str, text: str = WEB) -> None:
    with api.Cluster.open(state=agent.state, config=agent.config, netns=where) as cluster:
        cluster.apply(api.load(text=text))


def rules(where: str) -> str:
    with netns.entered(where):
        return subprocess.run(["nft", "-s", "list", "ruleset"], check=True, capture_output=True, text=True).stdout


def generation(where: str) -> int:
    with Namespace(where) as namespace:
        return namespace.generation()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_rules_stay_when_an_agent_is_asked_to_end(agent: Agent, empty_netns: str, number: signal.Signals) -> None:
    """Not a byte of them changes; the exit code says that all is well, and nobody listens any more."""
    before = rules(empty_netns), generation(empty_netns)
    assert "192.0.2.7" in before[0]
    agent.signal(number)
    assert agent.exit_code() == 0
    assert (rules(empty_netns), generation(empty_netns)) == before
    assert agent.said("ended: the rules stay")
    assert not agent.socket.exists()
    assert lock.holder(empty_netns) is None


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_whoever_asks_again_gets_no_other_end(agent: Agent, empty_netns: str, number: signal.Signals) -> None:
    """Nor a traceback: not while it ends, and not when it has ended and its process has not."""
    before = rules(empty_netns), generation(empty_netns)

    def has_ended() -> bool:
        agent.signal(number)
        return not agent.is_alive

    until(has_ended, "the end")
    assert agent.exit_code() == 0
    assert (rules(empty_netns), generation(empty_netns)) == before
    assert agent.said("ended: the rules stay")
    assert not [line for line in agent.lines() if "Traceback" in line]


def test_the_rules_go_if_that_was_asked_for(folder: Path, empty_netns: str) -> None:
    """`--cleanup-on-exit` removes svcnat's tables, and no other; killed, an agent removes nothing."""
    with netns.entered(empty_netns):
        subprocess.run(["nft", "add", "table", "ip", "theirs"], check=True)
    with Agent(folder, empty_netns, "--cleanup-on-exit") as agent:
        apply(agent, empty_netns)
        agent.kill()
        assert "192.0.2.7" in rules(empty_netns)
        agent.begin()
        assert agent.end() == 0
        assert agent.said("the rules are removed")
        assert rules(empty_netns).split() == ["table", "ip", "theirs", "{", "}"]


def test_another_configuration_changes_the_rules(agent: Agent, empty_netns: str) -> None:
    """SIGHUP reads it; one that is wrong changes nothing, and is told with its line; the next right one is taken."""
    before = rules(empty_netns)
    agent.config.write_text(CONFIG + "masqueradeAll: yes please\n")
    agent.signal(signal.SIGHUP)
    said = until(lambda: agent.said("the configuration stays as it was"), "a line about the configuration")
    assert "masqueradeAll" in said
    assert f"{agent.config}:5" in said
    assert rules(empty_netns) == before
    agent.config.unlink()
    agent.signal(signal.SIGHUP)
    until(lambda: agent.said("the configuration stays as it was", "no such file"), "a line about the missing file")
    assert rules(empty_netns) == before
    agent.config.write_text(CONFIG + "masqueradeAll: true\n")
    agent.signal(signal.SIGHUP)
    until(lambda: agent.said("the configuration was read again"), "a line about the configuration")
    assert rules(empty_netns) != before
    state = agent.ask(deep=True)
    assert state
    assert state.targets[0].state == "synced"
    assert not state.targets[0].different
    agent.config.write_text(CONFIG)
    agent.signal(signal.SIGHUP)
    until(lambda: rules(empty_netns) == before, "the rules as they were")


def test_another_configuration_changes_the_name_of_the_node(folder: Path, empty_netns: str) -> None:
    """What is for a node by its name follows: endpoints of policy Local are those of the node that it is now."""
    with Store.open(folder / "state.db") as store:
        near = [{"addresses": [f"192.0.2.{number}"], "nodeName": node} for number, node in ((7, "one"), (8, "two"))]
        create(store, service("web", internalTrafficPolicy="Local"), {**endpoints("web"), "endpoints": near})

    def served() -> tuple[bool, bool]:
        listed = rules(empty_netns)
        return "192.0.2.7 . 8080" in listed, "192.0.2.8 . 8080" in listed

    with Running(folder, empty_netns, config=CONFIG + "hostnameOverride: one\n") as agent:
        assert served() == (True, False)
        agent.config.write_text(CONFIG + "hostnameOverride: two\n")
        agent.signal(signal.SIGHUP)
        until(lambda: served() == (False, True), "the endpoint on the node of the new name")
        assert agent.target.node == "two"
        assert agent.in_step()
        agent.config.write_text(CONFIG)
        agent.signal(signal.SIGHUP)
        until(lambda: agent.target.node == socket.gethostname().lower(), "the machine's own name")
        assert served() == (False, False)


@pytest.mark.parametrize("called", ["name", "path", "current"])
def test_there_is_one_agent_for_a_namespace(agent: Agent, folder: Path, empty_netns: str, called: str) -> None:
    """The second says who the first is and what it follows, exits with 1, and changes nothing; the first goes on.

    Whatever the second calls the namespace.
    """
    before = rules(empty_netns), generation(empty_netns)
    other = folder / "other"
    other.mkdir()
    second = Agent(other, empty_netns if called == "name" else str(netns.path(empty_netns)))
    if called == "current":
        position = second.command.index("--netns")
        del second.command[position : position + 2]
        second.command[:0] = ["nsenter", f"--net={netns.path(empty_netns)}"]
    second.begin(wait=False)
    assert second.exit_code() == 1
    said = second.said("error:")
    assert str(agent.pid) in said
    assert str(agent.state) in said
    assert (rules(empty_netns), generation(empty_netns)) == before
    assert agent.ask()


def test_there_is_one_agent_for_a_state_file(agent: Agent, make_netns: Callable[[], str]) -> None:
    """In other namespaces, too: commands would not know whom to ask. The second removes nothing, whatever its flags."""
    elsewhere = make_netns()
    command = [*agent.command]
    command[command.index("--netns") + 1] = elsewhere
    subprocess.run([*command, "--once"], capture_output=True, check=True)
    before = rules(elsewhere)
    assert "192.0.2.7" in before
    second = subprocess.run([*command, "--cleanup-on-exit"], capture_output=True, text=True, check=False)
    assert second.returncode == 1
    assert "another agent follows the same objects" in second.stderr
    assert rules(elsewhere) == before
    assert agent.ask()
    # Its lock was let go with it.
    assert lock.holder(elsewhere) is None


def test_it_is_found_by_any_path_of_its_state_file(folder: Path, empty_netns: str) -> None:
    """Also when the path that it was given is a link that is exchanged, as by whoever restores a backup."""
    real = [folder / "one" / "a.db", folder / "two" / "b.db"]
    for each in real:
        Store.open(each).close()
    (folder / "state.db").symlink_to(real[0])
    with Agent(folder, empty_netns) as agent:

        def change(state: Path, number: int) -> None:
            with api.Cluster.open(state=state, config=agent.config, netns=empty_netns) as cluster:
                cluster.apply(api.load(text=WEB.replace("192.0.2.7", f"192.0.2.{number}")))
            assert f"192.0.2.{number}" in rules(empty_netns)

        change(agent.state, 11)
        change(real[0], 12)
        (folder / "new").symlink_to(real[1])
        (folder / "new").replace(folder / "state.db")
        change(agent.state, 13)
        change(real[1], 14)
        state = agent.ask(deep=True)
        assert state
        assert (state.targets[0].state, state.targets[0].different) == ("synced", ())


def test_who_writes_rules_without_the_agent_is_refused(agent: Agent, folder: Path, empty_netns: str) -> None:
    """`sync` and `cleanup` name the agent's process and what it follows, and change nothing; `status` is fine."""
    before = rules(empty_netns), generation(empty_netns)
    manifest = folder / "web.yaml"
    manifest.write_text(WEB.replace("192.0.2.7", "192.0.2.8"))
    for words in (("sync", "-f", str(manifest)), ("cleanup",)):
        command = [*agent.command[:3], *words, "--netns", empty_netns]
        refused = subprocess.run(command, capture_output=True, text=True, check=False)
        assert refused.returncode == 1, words
        assert f"pid {agent.pid}" in refused.stderr
        assert str(agent.state) in refused.stderr
        assert len(refused.stderr.splitlines()) == 1
    assert (rules(empty_netns), generation(empty_netns)) == before
    told = agent.run("status")
    assert told.returncode == 0, told.stderr
    assert str(agent.pid) in told.stdout


def test_an_agent_waits_for_a_command_that_writes(folder: Path, empty_netns: str) -> None:
    """It begins when the command is done: a reboot must not depend on who is first."""
    with contextlib.ExitStack() as stack:
        with lock.writer(empty_netns):
            agent = stack.enter_context(Agent(folder, empty_netns).begun())
            # The state file is there when the agent has got so far as to ask for the lock.
            until(agent.state.exists, "the agent's state file")
            assert agent.ask() is None
        agent.wait()
        assert not agent.said("error")


def test_the_service_manager_is_told(folder: Path, empty_netns: str) -> None:
    """READY after the first pass, signs of life, RELOADING and READY around a reload, STOPPING at the end."""
    name = f"svcnat-test/{uuid.uuid4().hex}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(f"\0{name}")
        manager.settimeout(60)

        def heard(word: str) -> list[str]:
            """The next message that begins with this word; signs of life may come before it, and words for people."""
            while (lines := manager.recv(65536).decode().splitlines())[0] != word:
                assert lines[0] == "WATCHDOG=1" or lines[0].startswith("STATUS=")
            return lines

        environment = {"NOTIFY_SOCKET": f"@{name}", "WATCHDOG_USEC": "200000"}
        with Agent(folder, empty_netns, environment=environment).begun() as agent:
            _, status = heard("READY=1")
            assert str(agent.state) in status
            assert "table ip svcnat" in rules(empty_netns)
            heard("WATCHDOG=1")
            for config in (CONFIG, "broken"):
                agent.config.write_text(config)
                agent.signal(signal.SIGHUP)
                assert heard("RELOADING=1")[1].startswith("MONOTONIC_USEC=")
                heard("READY=1")
            heard("WATCHDOG=1")
            assert agent.end() == 0
            heard("STOPPING=1")


def test_nobody_is_told_to_wait_for_an_agent_that_cannot_begin(folder: Path, empty_netns: str) -> None:
    """What keeps it from beginning is one line, and the exit code is 1: no traceback, no endless try."""
    agent = Agent(folder, empty_netns, config=CONFIG + "nonsense: 1\n").begin(wait=False)
    assert agent.exit_code() == 1
    assert "nonsense" in agent.said("error")
    agent.config.write_text(CONFIG)
    agent.state.write_text("this is no database, " * 100)
    agent.begin(wait=False)
    assert agent.exit_code() == 1
    assert str(agent.state) in agent.said("error", "state.db")
    assert not [line for line in agent.lines() if "Traceback" in line]
    assert not rules(empty_netns)
    assert agent.state.exists()

"""Bad luck in any order, and the rules that survive it: see :mod:`tests.agent.chaos`."""

from __future__ import annotations

import contextlib
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest
from hypothesis import Phase

from svcnat.agent.control import Client, Reconcile, socket_of_state
from svcnat.agent.follow import Objects, follow
from svcnat.agent.settings import settings_for
from svcnat.errors import SvcnatError
from svcnat.kernel import netns
from svcnat.kernel.libnftables import Libnftables
from svcnat.kernel.nftables import Namespace
from svcnat.model.configuration import Configuration
from svcnat.model.objects import EndpointSlice, Service
from svcnat.ruleset.compile import compile_plan
from svcnat.ruleset.diff import outline
from svcnat.ruleset.plan import plan
from svcnat.store.sqlite import Store
from tests.agent import chaos
from tests.controllers.build import pod, service
from tests.store.test_sequences import edit

_KILLS = 12
_PATIENCE = 30.0


@pytest.mark.slow
@pytest.mark.parametrize("number", [1, 2])
def test_whatever_happens_the_rules_end_where_a_fresh_sync_does(make_netns, number: int) -> None:
    """2,000 steps of edits, deaths, foreign changes, refusals, full disks, lost events and namespaces that go.

    Nothing is left over, nobody talks to an endpoint that is gone, and a further round writes nothing. The sequences
    are always the same; ``make chaos`` tries others. They are in two parts, as no other test takes that long.
    """
    before = chaos.Chaos.steps
    chaos.run(examples=20, steps=72, number=number, phases=(Phase.generate,))
    assert chaos.Chaos.steps - before >= 1000
    happened = chaos.Chaos
    kinds = happened.deaths, happened.drifts, happened.refusals, happened.overruns, happened.departed
    assert min(kinds) > 0, chaos.said()


@contextlib.contextmanager
def agent(state: Path, place: str, folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """``svcnat run`` in a process of its own; killed at the end, if it lives."""
    config = folder / "config.yaml"
    config.write_text(
        "apiVersion: svcnat.io/v1alpha1\nkind: Configuration\nhostnameOverride: here\n"
        'metricsBindAddress: ""\nhealthzBindAddress: ""\n',
        encoding="utf-8",
    )
    command = [sys.executable, "-m", "svcnat", "run", "--state", state, "--netns", place, "--config", config]
    with (folder / "log").open("ab") as log, subprocess.Popen(command, stderr=log) as process:
        try:
            yield process
        finally:
            process.kill()


def follows(store: Store, process: subprocess.Popen[bytes]) -> None:
    """Wait until the agent has followed to the objects as they are."""
    with store.read() as snapshot:
        revision = snapshot.revision
    deadline = time.monotonic() + _PATIENCE
    while time.monotonic() < deadline:
        assert process.poll() is None, "the agent ended"
        if client := Client.find(socket_of_state(store.path)):
            with client, contextlib.suppress(OSError):
                answer = client.ask(Reconcile(revision))
                assert not answer.error, answer.error
                return
        time.sleep(0.05)
    raise AssertionError("the agent does not answer")


def outlines(store: Store, place: str, fresh: str) -> tuple[object, object]:
    """What is there, and what a fresh sync makes of the same objects; a table that nobody uses any more stays."""
    with store.read() as snapshot:
        settings = settings_for(Configuration(hostname_override="here"), chaos.look(place, Configuration()), "here")
        decided = plan(snapshot.list(Service), snapshot.list(EndpointSlice), settings)
    want = compile_plan(decided, f"state {store.identity}")
    follow(fresh, Objects(lambda _: decided, store.identity), Configuration())
    with Namespace(place) as used, Namespace(fresh) as made:
        there, new = used.read(want.values()), made.read(want.values())
    new |= {family: part for family, part in outline(want).items() if family in there and family not in new}
    return tuple({family: chaos.comparable(part) for family, part in each.items()} for each in (there, new))


@pytest.mark.slow
def test_an_agent_that_is_killed_leaves_what_the_next_one_needs(make_netns: Callable[[], str], folder: Path) -> None:
    """``kill -9`` at any moment, with edits and ``nft flush ruleset`` before and after: the next agent catches up."""
    chance = random.Random(4)
    place, fresh = make_netns(), make_netns()
    with netns.entered(place):
        stranger = Libnftables()
    with Store.open(folder / "state.db", randbelow=chance.randrange) as store:
        for _ in range(_KILLS):
            with agent(store.path, place, folder) as process:
                follows(store, process)
                for _ in range(4):
                    change(store, chance)
                if chance.random() < 0.5:
                    stranger.commit("flush ruleset")
                with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as asking:
                    asking.connect(str(socket_of_state(store.path)))
                    asking.send(msgspec.json.encode(Reconcile(0)))  # it begins now, and nobody waits for its answer
                    time.sleep(chance.random() / 20)
                    process.send_signal(signal.SIGKILL)
                    process.wait()
            change(store, chance)
            if chance.random() < 0.5:
                stranger.commit("flush ruleset")
        with agent(store.path, place, folder) as process:
            follows(store, process)
            used, made = outlines(store, place, fresh)
            assert used == made
            process.send_signal(signal.SIGTERM)
            assert process.wait(_PATIENCE) == 0
        assert outlines(store, place, fresh)[0] == made, "the rules stay"


def change(store: Store, chance: random.Random) -> None:
    """One edit, by chance."""
    number = chance.randrange(1, 6)
    name = chance.choice("abc")
    new = chance.choice(
        [service(name), pod(f"p{number}", f"10.244.0.{number}", labels={"app": name}, node_name="here")]
    )
    with contextlib.suppress(SvcnatError):
        edit(store, new, chance.choice(["put", "put", "delete"]))

"""Bad luck: what an agent does when its files, its kernel, its host or its clock are not as they should be.

It never makes rules worse than they were, says what is wrong and what helps, and goes on by itself when that is over.
"""

from __future__ import annotations

import contextlib
import random
import signal
import sqlite3
import subprocess
from datetime import timedelta
from pathlib import Path

import pytest

from svcnat.agent.control import Retry
from svcnat.agent.desired import Desired
from svcnat.agent.sources import Happening, StateFile
from svcnat.cli import status
from svcnat.errors import MissingError, SvcnatError
from svcnat.kernel import netns
from svcnat.kernel.nftables import Namespace
from svcnat.model.configuration import Configuration
from svcnat.model.objects import Event, Service
from svcnat.ruleset.diff import Change
from svcnat.store.sqlite import Store
from tests.agent.running import (
    Rounds,
    Running,
    create,
    differences,
    endpoints,
    nft,
    rules,
    service,
    svcnat,
    web,
)
from tests.agent.witness import Witness
from tests.agents import until

READ_ONLY = 'mount --bind "$1" "$1" && mount -o remount,bind,ro "$1" && cd "$1" && shift && exec "$@"'
WITHOUT_PYTHON3_NFTABLES = 'mount -t tmpfs none /usr/lib/python3/dist-packages && exec "$@"'
GARBAGE = b"This is no database.\n" * 1000


def apart(script: str, *arguments: str) -> list[str]:
    """The beginning of a command line that runs the rest of it where a script has mounted something."""
    done = subprocess.run(["unshare", "-m", "true"], capture_output=True, check=False)
    if done.returncode:
        pytest.skip("nobody may mount anything here")
    return ["unshare", "-m", "--propagation", "private", "sh", "-c", script, "sh", *arguments]


# --- the state file ----------------------------------------------------------------------------------------------


def test_a_state_file_that_can_only_be_read_is_followed(folder: Path, empty_netns: str) -> None:
    """What cannot be written, results of probes and Events, is told once, and costs nothing else."""
    objects = folder / "objects"
    objects.mkdir()
    probe = {"svcnat.io/probe": '{"tcpSocket": {}, "periodSeconds": 1, "failureThreshold": 1}'}
    with Store.open(objects / "state.db") as store:
        web(store)
        agent = Running(objects, empty_netns)
        agent.command = [*apart(READ_ONLY, str(objects)), *agent.command, "--verbose"]
        with agent:
            revision = create(
                store,
                service("probed", 9, ports=[{"port": 80, "targetPort": 8080}])
                | {"metadata": {"namespace": "default", "name": "probed", "annotations": probe}},
                endpoints("probed", "192.0.2.9"),
            )
            assert agent.reconcile(revision) == ""
            for number in range(3):
                nft(empty_netns, "flush ruleset")
                until(lambda number=number: agent.target.drift > number, "repaired")
                until(agent.in_step, "in step")
            until(lambda: agent.said("cannot be written"), "it says so")
            web(store, 2)
            until(lambda: not differences(agent.state, empty_netns), "rules")
            tried = "the result was not written"
            until(lambda: sum(tried in line for line in agent.lines()) > 1, "another attempt to write")
            said = [line for line in agent.lines() if "written" in line and tried not in line]
            assert len(said) == 1, said
            assert "the state file is read-only for this user; run as root" in said[0]
        with store.read() as snapshot:
            assert snapshot.list(Event) == []


@pytest.mark.packets
def test_a_damaged_state_file_is_refused_at_the_start(
    folder: Path, state: Path, empty_netns: str, witness: Witness
) -> None:
    """One line says what is wrong with it and what to do; the rules are left as they were."""
    with Store.open(state) as store:
        web(store)
    with Running(folder, empty_netns):
        before = rules(empty_netns)
    good = state.read_bytes()
    for damaged, words in (
        (GARBAGE, "not an svcnat state file; name another file, or move this one away to start afresh"),
        (good[: len(good) // 2], "restore a backup, or move it away to start afresh"),
        (good[:4096] + GARBAGE * (len(good) // len(GARBAGE)), "restore a backup, or move it away to start afresh"),
        (b"", "follow another state file"),
    ):
        state.write_bytes(damaged)
        with witness.untouched():
            done = svcnat("run", "--netns", empty_netns, "--state", state, "--log-format", "text")
        assert done.returncode == 1
        assert words in done.stderr
        assert "Traceback" not in done.stderr
        assert rules(empty_netns) == before
        for left in folder.glob("state.db-*"):
            left.unlink()
    state.write_bytes(good)
    with Running(folder, empty_netns) as agent:
        assert agent.target.added == 0
        assert rules(empty_netns) == before


def _in_place(state: Path, damaged: bytes) -> None:
    with state.open("r+b") as file:
        file.truncate(len(damaged))
        file.write(damaged)


def _another(state: Path, damaged: bytes) -> None:
    other = state.with_name("other")
    other.write_bytes(damaged)
    other.replace(state)


@pytest.mark.packets
def test_a_state_file_that_breaks_is_waited_for(folder: Path, state: Path, empty_netns: str, witness: Witness) -> None:
    """The rules stay, status and log say why, commands are told; when the file is good again, nobody has to do more."""
    with Store.open(state) as store:
        web(store)
    with Running(folder, empty_netns) as agent:
        before = rules(empty_netns)
        for number, (put, damaged) in enumerate(
            ((_in_place, GARBAGE), (_in_place, b""), (_another, GARBAGE), (_another, b""), (_another, None)), start=2
        ):
            with contextlib.closing(sqlite3.connect(state)) as connection:
                connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            good = state.read_bytes()
            if damaged is None:
                state.unlink()
            else:
                put(state, damaged)
            agent.signal(signal.SIGHUP)  # somebody looks at it
            until(lambda: agent.now().troubles, "it says so")
            with witness.untouched():
                assert str(state) in agent.now().troubles[0]
                assert str(state) in agent.reconcile()
                assert svcnat("status", "--netns", empty_netns, "--state", state).returncode == 1
            assert rules(empty_netns) == before
            put(state, good)
            until(lambda: not agent.now().troubles, "it is over")
            with Store.open(state) as store:
                assert agent.reconcile(web(store, number)) == ""
            assert not differences(state, empty_netns)
            before = rules(empty_netns)
            told = [line for line in agent.lines() if "the rules stay as they are" in line]
            assert len(told) == number - 1, told
        assert agent.target.drift == 0


def test_whatever_a_damaged_file_holds_is_told(tmp_path: Path, store: Store, state: Path) -> None:
    """Bytes changed at random: the objects are read, or one line says that they cannot be; nothing else is raised."""
    for number in range(1, 30):
        web(store, number)
    store.close()
    good, told = state.read_bytes(), []
    for seed in range(150):
        draw, damaged = random.Random(seed), bytearray(good)
        for _ in range(draw.choice((1, 5, 50))):
            place = draw.randrange(len(good))
            damaged[place : place + 4] = draw.randbytes(4)
        path = tmp_path / f"{seed}.db"
        path.write_bytes(damaged)
        source = StateFile(path, lambda _, path=path: Store.open(path, create=False))
        try:
            source.open(Configuration())
            source.changed()
            source.refresh(Desired())
        except SvcnatError as error:
            told.append(str(error))
        finally:
            source.close()
    assert told
    assert all(map(str.isprintable, told))


# --- the clock ---------------------------------------------------------------------------------------------------


def test_a_wall_clock_that_jumps_moves_no_rules(state: Path, store: Store, empty_netns: str) -> None:
    """Rounds follow another clock; what is told of objects has the wall's time, and is told whatever it says."""
    web(store)
    told = Happening(Service, "default", "web-1", "Warning", "Reason", "message", "svcnat", "n1")
    with Rounds(state, empty_netns) as agent:
        generation = agent.reconciler.state().targets[0].generation
        for number, jump in enumerate((-10_000, 20_000, -5, 0, 400_000), start=2):
            agent.wall += timedelta(days=jump)
            agent.source.write([], [told])
            assert agent.round(look=True, events=True) == ["synced"]
            assert agent.reconciler.state().targets[0].generation == generation
            with store.read() as snapshot:
                (event,) = snapshot.list(Event)
                assert event.last_timestamp == agent.wall.strftime("%Y-%m-%dT%H:%M:%SZ")
            web(store, number)
            assert agent.round(look=True) == ["synced"]
            assert not differences(state, empty_netns, node="n1")
            generation = agent.reconciler.state().targets[0].generation


def test_after_a_long_sleep_everything_is_tried_at_once(state: Path, store: Store, empty_netns: str) -> None:
    """A clock that is a year later finds what waited for its turn due, once; one that stands still finds nothing."""
    web(store)
    lacking = Lacking()
    with Rounds(state, empty_netns, opener=lacking.opener) as agent:
        lacking.words = "192.0.2.7"
        nft(empty_netns, "flush ruleset")
        assert agent.round(events=True) == ["synced"]
        assert agent.observer.refusals == 1
        asked = lacking.asked
        for _ in range(20):
            agent.round(seconds=0, events=True, look=True)
        assert lacking.asked == asked
        lacking.words = "nothing"
        assert agent.round(seconds=3e7, events=True) == ["synced"]
        assert not agent.reconciler.state().targets[0].refused
        assert not differences(state, empty_netns, node="n1")


# --- the kernel and its library ----------------------------------------------------------------------------------


class Lacking:
    """A kernel without a feature: it takes no commit with certain words in it."""

    def __init__(self, words: str = "nothing") -> None:
        self.words, self.asked = words, 0

    def opener(self, name_or_path: str | None) -> Namespace:
        """For :class:`Keeper`."""
        return _Lacking(name_or_path, self)

    def require(self, text: str) -> None:
        self.asked += bool(text)
        if self.words in text:
            raise MissingError("nftables: Operation not supported: this kernel lacks a feature that the rules need")


class _Lacking(Namespace):
    def __init__(self, name_or_path: str | None, kernel: Lacking) -> None:
        self._kernel = kernel
        super().__init__(name_or_path)

    def check(self, script: str) -> None:
        self._kernel.require(script)
        super().check(script)

    def commit(self, script: str) -> None:
        self._kernel.require(script)
        super().commit(script)

    def commit_elements(self, change: Change, *, generation: int) -> int:
        self._kernel.require(repr(change))
        return super().commit_elements(change, generation=generation)


@pytest.mark.packets
def test_without_python3_nftables_an_agent_says_what_to_install(
    folder: Path, state: Path, empty_netns: str, witness: Witness
) -> None:
    """The message has the command that fixes it; rules that are there stay."""
    if not Path("/usr/lib/python3/dist-packages/nftables").is_dir():
        pytest.skip("the nftables module is somewhere else here")
    with Store.open(state) as store:
        web(store)
    with Running(folder, empty_netns) as agent:
        before = rules(empty_netns)
    command = [*apart(WITHOUT_PYTHON3_NFTABLES), *agent.command]
    with witness.untouched():
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "apt install python3-nftables" in done.stderr
    assert "Traceback" not in done.stderr
    assert rules(empty_netns) == before


def test_a_library_that_goes_while_the_agent_runs_is_waited_for(state: Path, store: Store, make_netns) -> None:
    """A namespace that comes back needs it anew: the target says so until it is there; the others do not wait."""
    first, second = make_netns(), make_netns()
    missing = "the nftables module for Python is not installed; on Debian: apt install python3-nftables nftables"
    without = set()

    def opener(where: str | None) -> Namespace:
        if where in without:
            raise MissingError(missing)
        return Namespace(where)

    web(store)
    with Rounds(state, first, second, opener=opener) as agent:
        without.add(second)
        netns.delete(second)
        netns.create(second)
        assert agent.round(look=True) == ["synced", "gone"]
        for _ in range(3):
            web(store, agent.source.revision)
            agent.round(look=True)
            state_of = agent.reconciler.state().targets
            assert (state_of[0].state, state_of[1].error) == ("synced", missing)
        without.clear()
        assert agent.round(look=True) == ["synced", "synced"]
        for number, where in enumerate((first, second), 1):
            assert not differences(state, where, node=f"n{number}")


def test_what_is_refused_tells_when_it_is_tried_again(state: Path, store: Store, empty_netns: str) -> None:
    """With pauses that double; each change of another Service has its rules in its own round meanwhile."""
    web(store, 1)
    web(store, 2, sessionAffinity="ClientIP")
    kernel = Lacking("update @")
    with Rounds(state, empty_netns, opener=kernel.opener) as agent:
        for tries in range(1, 6):
            target = agent.reconciler.state().targets[0]
            assert target.retries == {"default/web-2": Retry(tries, 2.0 ** (tries - 1))}
            told = dict(status._rows(agent.reconciler.state()))
            attempts = "1 attempt" if tries == 1 else f"{tries} attempts"
            assert told["  Refused:"].endswith(f" ({attempts} failed, the next one in {2 ** (tries - 1)}s)")
            web(store, 10 + tries)
            agent.round(seconds=0, objects=True)
            assert f"10.96.1.{11 + tries} " in rules(empty_netns)
            agent.round(seconds=2.0 ** (tries - 1), events=True)
        kernel.words = "nothing"
        agent.round(seconds=100, events=True)
        assert not agent.reconciler.state().targets[0].retries


def test_a_feature_that_one_service_needs_sets_that_one_apart(state: Path, store: Store, empty_netns: str) -> None:
    """The others have their rules, at the start and later; with the feature it gets its own without being asked."""
    affine = {"sessionAffinity": "ClientIP"}
    web(store, 1)
    web(store, 2, **affine)
    kernel = Lacking("update @")
    with Rounds(state, empty_netns, opener=kernel.opener) as agent:
        assert agent.reconciler.state().targets[0].state == "synced"
        refused = agent.reconciler.state().targets[0].refused
        assert list(refused) == ["default/web-2"]
        assert "this kernel lacks a feature" in refused["default/web-2"]
        web(store, 3)
        web(store, 4, **affine)
        assert agent.round(objects=True) == ["synced"]
        assert list(agent.reconciler.state().targets[0].refused) == ["default/web-2", "default/web-4"]
        assert "10.96.1.4" in rules(empty_netns)
        assert "10.96.1.3" not in rules(empty_netns)
        nft(empty_netns, "flush ruleset")
        assert agent.round(events=True) == ["synced"]
        assert "10.96.1.4" in rules(empty_netns)
        kernel.words = "nothing"
        assert agent.round(seconds=100, events=True) == ["synced"]
        assert not agent.reconciler.state().targets[0].refused
        assert not differences(state, empty_netns, node="n1")


def test_a_feature_that_everything_needs_fails_clearly(state: Path, store: Store, empty_netns: str) -> None:
    """Nothing is half there; it is told once, tried ever less often, and at once when somebody asks."""
    web(store)
    kernel = Lacking("table ip svcnat")
    with Rounds(state, empty_netns, opener=kernel.opener) as agent:
        assert "this kernel lacks a feature" in agent.reconciler.state().targets[0].error
        assert rules(empty_netns) == ""
        for _ in range(10):
            assert agent.round(seconds=60, events=True) == ["failing"]
        asked = kernel.asked
        for _ in range(10):
            assert agent.round(seconds=0.1, events=True, look=True) == ["failing"]
        assert kernel.asked == asked
        kernel.words = "nothing"
        assert agent.round(seconds=0.1, urgent=True) == ["synced"]
        assert not differences(state, empty_netns, node="n1")

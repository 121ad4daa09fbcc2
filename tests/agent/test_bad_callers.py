"""Whoever talks to an agent, in whatever way and number: the rules are kept, and the next one gets an answer."""

from __future__ import annotations

import contextlib
import os
import resource
import shutil
import signal
import socket
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import pytest

from svcnat.agent.control import Answer, Client, Reconcile, Request, Verify, Watch, runtime_folder, socket_of_state
from svcnat.kernel import lock, unix
from svcnat.store.sqlite import Store
from tests.agent.running import Running, differences, link, nft, svcnat, web
from tests.agents import CONFIG, until

GARBAGE = [
    b"\0",
    b"\xff\xfe" * 100,
    b"null",
    b"[]",
    b'{"type": "Destroy"}',
    b'{"type": "\xff"}',
    b'{"\xff": "Watch"}',
    b'{"type": "Reconcile", "revision": "\xff"}',
    b'{"type": "Reconcile"}',
    b'{"type": "Reconcile", "revision": "now"}',
    b'{"type": "Verify", "x": ' + b"[" * 50_000,
    b'{"type": "Verify", "deep": "' + b"x" * 150_000 + b'"}',
]


def call(agent: Running) -> socket.socket:
    return unix.connect(agent.socket, 30)


def ask(caller: socket.socket, request: bytes | Request) -> Answer:
    caller.send(request if isinstance(request, bytes) else msgspec.json.encode(request))
    return msgspec.json.decode(caller.recv(unix.LARGEST), type=Answer)


def open_files(agent: Running) -> int:
    return sum(1 for _ in Path(f"/proc/{agent.pid}/fd").iterdir())


def connections(agent: Running) -> int:
    """What is open but for files: SQLite keeps a descriptor that it may not close yet, for its next connection."""
    found = 0
    for each in Path(f"/proc/{agent.pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # closed since it was listed
            found += not each.readlink().is_absolute()
    return found


def test_nobody_who_calls_keeps_an_agent_from_its_work(folder: Path, store: Store, empty_netns: str) -> None:
    """Garbage is refused in words; who hangs up, or watches and goes, costs nothing; 200 at once are all answered."""
    revision = web(store)
    with Running(folder, empty_netns) as agent:
        _garbage_is_refused(agent)
        _who_hangs_up_leaves_nothing(agent)
        _all_of_many_are_answered(agent, revision)
        _too_many_wait(agent)
        assert agent.in_step()
        assert agent.target.services == 2  # with default/kubernetes


def _garbage_is_refused(agent: Running) -> None:
    with call(agent) as caller:
        for garbage in GARBAGE:
            assert ask(caller, garbage).error.startswith("not a request: ")
        assert ask(caller, Verify()).state
    with call(agent) as caller:
        caller.send(b"")  # looks like the end
        assert not caller.recv(unix.LARGEST)


def _who_hangs_up_leaves_nothing(agent: Running) -> None:
    before = connections(agent)
    for _ in range(50):
        for request in (Reconcile(1), Watch(), Verify(deep=True)):
            with call(agent) as caller:
                caller.send(msgspec.json.encode(request))
    with call(agent) as caller:  # whoever watches is told once, and then nothing for a long time
        assert ask(caller, Watch()).revision
    until(lambda: connections(agent) <= before, "what callers left stays open")


def _all_of_many_are_answered(agent: Running, revision: int) -> None:
    """While it is stopped, more call than its queue takes: none of them may think that there is no agent."""

    def request(number: int) -> Answer:
        client = Client.find(agent.socket)
        assert client is not None, "an agent that is busy looks like none"
        with client:
            return client.ask(Reconcile(revision) if number % 2 else Verify())

    os.kill(agent.pid, signal.SIGSTOP)
    try:
        with ThreadPoolExecutor(200) as pool:
            answers = [pool.submit(request, number) for number in range(200)]
            until(lambda: sum(each.running() for each in answers) == 200, "all call")
            os.kill(agent.pid, signal.SIGCONT)
            for each in answers:
                found = each.result()
                assert not found.error
                assert found.state
                assert found.state.targets[0].state == "synced"
    finally:
        os.kill(agent.pid, signal.SIGCONT)


def _too_many_wait(agent: Running) -> None:
    """More than it may have files open: those that do not fit wait, and the agent goes on."""
    limits = resource.prlimit(agent.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(agent.pid, resource.RLIMIT_NOFILE, (open_files(agent) + 20, limits[1]))
    try:
        callers = [call(agent) for _ in range(60)]
        until(lambda: agent.said("a command has to wait"), "it runs out of files")
    finally:
        resource.prlimit(agent.pid, resource.RLIMIT_NOFILE, limits)
    try:
        assert all(ask(each, Verify()).state for each in callers)
    finally:
        for each in callers:
            each.close()


def test_callers_in_any_number_leave_files_to_the_rules(folder: Path, store: Store, empty_netns: str) -> None:
    """Who says nothing has to make room for who does, and no rule waits for either."""
    revision = web(store)
    with Running(folder, empty_netns) as agent, contextlib.ExitStack() as stack:
        limits = resource.prlimit(agent.pid, resource.RLIMIT_NOFILE)
        most = 4 * open_files(agent)
        resource.prlimit(agent.pid, resource.RLIMIT_NOFILE, (most, limits[1]))
        for _ in range(most + 20):
            stack.enter_context(call(agent))
        until(lambda: agent.said("too many talk to the agent"), "they fill their share")
        for _ in range(3):
            before = agent.log.read_text().count("rules repaired")
            nft(empty_netns, "flush ruleset")
            until(lambda before=before: agent.log.read_text().count("rules repaired") > before, "the rules are back")
        assert open_files(agent) < most
        assert agent.reconcile(revision) == ""
        assert agent.in_step()


def test_without_a_file_to_spare_it_fails_in_words(folder: Path, store: Store, make_netns) -> None:
    """The host cannot be looked at, the store not opened: that is told, and everything is done as soon as it can be."""
    where, peer = make_netns(), make_netns()
    web(store)
    with Running(folder, where) as agent:
        limits = resource.prlimit(agent.pid, resource.RLIMIT_NOFILE)
        resource.prlimit(agent.pid, resource.RLIMIT_NOFILE, (3, limits[1]))
        try:
            link(where, peer)
            for _ in range(5):
                nft(where, "flush ruleset")
                nft(where, "add table ip svcnat")
            agent.signal(signal.SIGHUP)
            web(store, 2)
            until(lambda: agent.said("Too many open files"), "it says so")
        finally:
            resource.prlimit(agent.pid, resource.RLIMIT_NOFILE, limits)
        until(lambda: agent.target.services == 3, "the state file is read again")
        until(lambda: agent.in_step() and not differences(agent.state, where), "in step")


def test_a_caller_who_reads_nothing_keeps_nobody_waiting(folder: Path, store: Store, empty_netns: str) -> None:
    """Its answers stay in its own queue; others are answered."""
    with Running(folder, empty_netns) as agent, call(agent) as caller:
        caller.settimeout(0)
        request = msgspec.json.encode(Verify())
        with contextlib.suppress(BlockingIOError):
            while caller.send(request):
                pass
        assert agent.reconcile(web(store)) == ""
        assert not differences(agent.state, empty_netns)


def test_signals_in_a_storm_change_nothing(folder: Path, store: Store, empty_netns: str) -> None:
    """However often the configuration is to be read again, it ends with the last one, and the rules are not touched."""
    web(store)
    with Running(folder, empty_netns) as agent:
        before = agent.target
        for number in range(300):
            os.kill(agent.pid, signal.SIGHUP)
            if number % 50 == 0:
                assert agent.reconcile() == ""
        agent.config.write_text("kind: Nonsense\n", encoding="utf-8")
        os.kill(agent.pid, signal.SIGHUP)
        until(lambda: agent.said("the configuration stays as it was"), "it says so")
        assert agent.target.generation == before.generation
        agent.config.write_text(f"{CONFIG}masqueradeAll: true\n", encoding="utf-8")
        for _ in range(100):
            os.kill(agent.pid, signal.SIGHUP)
        until(lambda: agent.target.generation != before.generation, "the last configuration")
        until(agent.in_step, "in step")


def test_a_folder_for_the_socket_is_made_and_made_again(
    folder: Path, store: Store, empty_netns: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may be missing at the start; systemd removes it when another unit that shares it ends."""
    monkeypatch.setenv("SVCNAT_RUNTIME_DIR", str(folder / "not" / "there"))
    with Running(folder, empty_netns) as agent:
        shutil.rmtree(runtime_folder().parent)
        until(agent.socket.exists, "the socket")
        assert agent.reconcile(web(store)) == ""
        # It cannot be made: told, and the rules follow all the same.
        shutil.rmtree(runtime_folder().parent)
        runtime_folder().parent.write_bytes(b"")
        until(lambda: agent.said("commands cannot ask this agent"), "it says so")
        web(store, 2)
        until(lambda: not differences(agent.state, empty_netns), "rules")
        runtime_folder().parent.unlink()
        until(agent.socket.exists, "the socket")
        assert agent.target.services == 3  # with default/kubernetes
    assert not agent.socket.exists()


def test_the_way_to_the_socket_is_open_whatever_the_umask(
    folder: Path, store: Store, empty_netns: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The unit's umask leaves nothing to others, and yet a group may ask: the socket alone says who."""
    web(store)
    monkeypatch.setenv("SVCNAT_RUNTIME_DIR", str(folder / "not" / "there"))
    before = os.umask(0o077)
    try:
        with Running(folder, empty_netns) as agent:
            ways = [each.stat().st_mode & 0o777 for each in (runtime_folder(), runtime_folder().parent)]
            assert ways == [0o755, 0o755]
            assert agent.socket.stat().st_mode & 0o007 == 0
    finally:
        os.umask(before)


def test_without_a_place_for_the_socket_an_agent_does_not_begin(
    folder: Path, store: Store, empty_netns: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It says which place and how to name another one; the namespace is free for others then."""
    web(store)
    monkeypatch.setenv("SVCNAT_RUNTIME_DIR", str(folder / "file"))
    runtime_folder().parent.write_bytes(b"")
    state = folder / "state.db"
    done = svcnat("run", "--netns", empty_netns, "--state", state)
    assert done.returncode == 1
    assert f"cannot listen at {socket_of_state(state)}: Not a directory" in done.stderr
    assert "SVCNAT_RUNTIME_DIR names another folder" in done.stderr
    with lock.writer(empty_netns, patience=0):
        pass

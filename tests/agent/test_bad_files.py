"""Bad luck with files: what an agent, a process of its own, does when those that it needs go, break or are locked away.

The rules stay as they are, which packets and the generation prove; what is said has a way out, and that works.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import signal
import sqlite3
import subprocess
from pathlib import Path

import pytest

from svcnat.store.sqlite import Store
from tests.agent.running import Running, endpoints, nft, service, svcnat, web
from tests.agent.witness import ENDPOINTS, Witness
from tests.agents import until

pytestmark = pytest.mark.packets

# As the unit file has it: root that may not override what a file's mode says.
CONFINED = ["setpriv", "--bounding-set", "-dac_override,-dac_read_search"]


@pytest.fixture
def objects(folder: Path) -> Path:
    """A folder of the state file's own."""
    found = folder / "objects"
    found.mkdir()
    return found


def alone(folder: Path, objects: Path, where: str) -> Running:
    """An agent whose state file has a folder of its own, so that nothing else of it suffers with that."""
    agent = Running(objects, where)
    agent.log = folder / agent.log.name
    kept = Path(shutil.move(agent.config, folder))
    agent.command[agent.command.index(str(agent.config))] = str(kept)
    agent.config = kept
    return agent


def test_a_state_file_that_may_not_be_read_is_waited_for(
    folder: Path, objects: Path, empty_netns: str, witness: Witness
) -> None:
    """Its mode, or that of its folder, locks it away: also when the configuration is read again meanwhile."""
    if not shutil.which("setpriv"):
        pytest.skip("needs setpriv")
    with Store.open(objects / "state.db") as store:
        web(store)
    agent = alone(folder, objects, empty_netns)
    agent.command = [*CONFINED, *agent.command]
    with agent:
        for number, (what, mode) in enumerate(((objects, 0o700), (objects / "state.db", 0o600)), start=2):
            what.chmod(0)
            agent.signal(signal.SIGHUP)
            until(lambda: agent.now().troubles, "it says so")
            assert agent.now().troubles
            nft(empty_netns, "flush ruleset")
            until(witness.reaches, "repaired")
            with witness.untouched():
                for _ in range(3):
                    agent.signal(signal.SIGHUP)
                    assert agent.reconcile() != ""
            what.chmod(mode)
            until(lambda: not agent.now().troubles, "it is over")
            with Store.open(objects / "state.db") as store:
                assert agent.reconcile(web(store, number)) == ""
            assert witness.reaches(number)


def test_damage_that_nobody_has_read_is_found_by_status(
    folder: Path, objects: Path, empty_netns: str, witness: Witness
) -> None:
    """An agent reads only what changes; who asks how it fares is told that it could not begin again. A copy helps."""
    state = objects / "state.db"
    with Store.open(state) as store:
        for number in range(1, 60):
            web(store, number)
    with alone(folder, objects, empty_netns) as agent:
        with contextlib.closing(sqlite3.connect(state)) as connection:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        assert agent.run("status").returncode == 0
        good = state.read_bytes()
        with witness.untouched(1, 59):
            with state.open("r+b") as file:
                file.seek(len(good) // 2)
                file.write(b"\xaa" * 3 * 4096)
            told = agent.run("status")
            assert told.returncode == 1
            assert f"{state}: the state file is damaged; restore a backup, or move it away" in told.stdout
            refused = agent.run("get", "services")
            assert (refused.returncode, "the state file is damaged" in refused.stderr) == (1, True)
        copy = folder / "copy.db"
        copy.write_bytes(good)
        copy.replace(state)
        until(lambda: agent.run("status").returncode == 0, "it is over")
        with Store.open(state) as store:
            assert agent.reconcile(web(store, 60)) == ""
        assert witness.reaches(60)


def test_who_starts_afresh_without_an_agent_interrupts_nothing(
    folder: Path, objects: Path, empty_netns: str, witness: Witness
) -> None:
    """As the guide has it: the damaged file is moved away, `sync --force` takes the rules over, `apply` goes on."""
    state = objects / "state.db"
    with Store.open(state) as store:
        for number in (1, 2):
            web(store, number)
    with alone(folder, objects, empty_netns) as agent:
        pass
    manifest = folder / "manifest.json"
    items = [
        each for name in ("web-1", "web-3") for each in (service(name, int(name[-1])), endpoints(name, *ENDPOINTS))
    ]
    manifest.write_text(json.dumps({"apiVersion": "v1", "kind": "List", "items": items}))
    with witness.untouched(1, 2):
        state.write_bytes(b"This is no database.\n" * 1000)
        assert "move this one away to start afresh" in agent.run("apply", "-f", str(manifest)).stderr
        for left in objects.glob("state.db*"):
            left.rename(folder / left.name)
        refused = agent.run("apply", "-f", str(manifest)).stderr
        assert "follow another state file; `svcnat run --once --force` takes them over" in refused
    where = ("--netns", empty_netns, "--config", agent.config)
    taken = svcnat("sync", "--force", "-f", manifest, *where)
    assert (taken.returncode, witness.reaches(1), witness.reaches(2), witness.reaches(3)) == (0, True, False, True)
    applied = agent.run("apply", "-f", str(manifest))
    assert (applied.returncode, applied.stderr) == (0, "")
    with agent:
        assert agent.in_step()
        assert witness.reaches(1)
    # Another state file takes over, too, and what both ask for is as it was.
    with Store.open(folder / "other.db") as store:
        web(store, 3)
    command = ("run", "--once", "--netns", empty_netns, "--config", agent.config, "--state", folder / "other.db")
    assert "follow another state file" in svcnat(*command).stderr
    assert svcnat(*command, "--force").returncode == 0
    assert (witness.reaches(1), witness.reaches(3)) == (False, True)


def test_a_full_disk_keeps_no_rule_waiting(folder: Path, objects: Path, empty_netns: str, witness: Witness) -> None:
    """Who wants to save more is told, and nothing is saved; repairs go on, and with room everything does."""
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "none", objects], check=False).returncode:
        pytest.skip("nobody may mount anything here")
    try:
        with Store.open(objects / "state.db") as store:
            web(store)
        with alone(folder, objects, empty_netns) as agent:
            rest = objects / "rest"
            with contextlib.suppress(OSError), rest.open("wb", buffering=0) as file:
                while True:
                    file.write(bytes(4096))
            manifest = folder / "manifest.json"
            items = [service(f"web-{number}", number) for number in range(2, 1500)]
            manifest.write_text(json.dumps({"apiVersion": "v1", "kind": "List", "items": items}))
            with witness.untouched():
                refused = agent.run("apply", "-f", str(manifest))
                assert refused.returncode == 1
                assert "the disk is full; nothing was changed: make room and try again" in refused.stderr
                assert agent.in_step()
            nft(empty_netns, "flush ruleset")
            until(witness.reaches, "repaired")
            until(agent.in_step, "in step")
            rest.unlink()
            items[1:] = [endpoints("web-2", *ENDPOINTS)]
            manifest.write_text(json.dumps({"apiVersion": "v1", "kind": "List", "items": items}))
            done = agent.run("apply", "-f", str(manifest))
            assert (done.returncode, done.stderr) == (0, "")
            assert witness.reaches(2)
    finally:
        subprocess.run(["umount", "-l", objects], check=True)


def test_commands_wait_for_an_agent_whose_socket_went(
    folder: Path, objects: Path, empty_netns: str, witness: Witness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody removed the runtime folder, or the agent has only begun: it will listen soon, and so nothing fails."""
    runtime = folder / "run"
    monkeypatch.setenv("SVCNAT_RUNTIME_DIR", str(runtime))
    with Store.open(objects / "state.db") as store:
        web(store)
    manifest = folder / "manifest.json"
    with alone(folder, objects, empty_netns) as agent:
        for number in (2, 3):
            shutil.rmtree(runtime)
            items = [service(f"web-{number}", number), endpoints(f"web-{number}", *ENDPOINTS)]
            manifest.write_text(json.dumps({"apiVersion": "v1", "kind": "List", "items": items}))
            done = agent.run("apply", "-f", str(manifest))
            assert (done.returncode, done.stderr) == (0, "")
            assert witness.reaches(number)
        agent.kill()
        agent.begin(wait=False)
        done = agent.run("delete", "service", "web-3")
        assert (done.returncode, done.stderr) == (0, "")
        assert not witness.reaches(3)
        agent.wait()

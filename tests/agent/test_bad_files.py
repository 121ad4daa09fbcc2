"""Bad luck with files: what an agent, a process of its own, does when those that it needs go, break or are locked away.

The rules stay as they are, which packets and the generation prove; what is said has a way out, and that works.
"""

from __future__ import annotations

import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from svcnat.store.sqlite import Store
from tests.agent.running import Running, nft, web
from tests.agent.witness import Witness
from tests.agents import until

pytestmark = pytest.mark.packets

# As the unit file has it: root that may not override what a file's mode says.
CONFINED = ["setpriv", "--bounding-set", "-dac_override,-dac_read_search"]


@pytest.fixture
def witness(empty_netns: str) -> Iterator[Witness]:
    with Witness(empty_netns) as found:
        yield found


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
    kept = agent.config.rename(folder / agent.config.name)
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

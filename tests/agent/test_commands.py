"""Commands of exec probes run in their namespace, and never longer than they may."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest

from svcnat.agent.attempts import Ran
from svcnat.agent.commands import run
from svcnat.errors import MissingError
from svcnat.kernel import netns
from tests.agents import until
from tests.processes import ending

pytestmark = pytest.mark.packets


def shell(script: str) -> list[str]:
    return ["sh", "-c", script]


def files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_a_command_says_how_it_ended(empty_netns: str) -> None:
    """Its status, and what it said on both of its outputs; it runs in the namespace and hears nothing."""

    async def main() -> None:
        before = files()
        assert await run(empty_netns, shell("cat; echo out; echo err >&2; exit 3")) == Ran(3, b"out\nerr\n")
        ran = await run(empty_netns, ["readlink", "/proc/self/ns/net"])
        assert ran == Ran(0, f"net:[{netns.identity(empty_netns)[1]}]\n".encode())
        assert (await run(None, shell("kill -9 $$"))).code == -9
        assert len((await run(None, shell("head -c 1000000 /dev/zero"))).output) == 10 * 1024
        assert files() == before

    asyncio.run(main())


def test_what_cannot_be_run(empty_netns: str) -> None:
    """No such command, no such namespace."""
    with pytest.raises(FileNotFoundError):
        asyncio.run(run(empty_netns, ["/no/such/command"]))
    with pytest.raises(MissingError):
        asyncio.run(run("svcnat-test-nowhere", ["true"]))


def is_gone(pid: int) -> bool:
    """True when a process has ended, whether or not anybody has asked for its status."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


@pytest.mark.parametrize("script", ["sleep 1000 & echo $! $$ >{0}; wait", "trap '' TERM; echo $$ >{0}; sleep 1000; :"])
def test_a_command_ends_with_its_probe(tmp_path: Path, script: str) -> None:
    """Cancelled, it is killed with its children, whatever they think of signals; nothing is left open."""
    note = tmp_path / "note"

    async def main() -> None:
        before = files()
        task = asyncio.create_task(run(None, shell(script.format(note))))
        while not note.exists() or not note.read_text().endswith("\n"):
            await asyncio.sleep(0.01)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert task.cancelled()
        assert files() == before
        pids = [int(each) for each in note.read_text().split()]
        for _ in range(1000):
            if all(map(is_gone, pids)):
                return
            await asyncio.sleep(0.01)
        raise AssertionError(f"still there: {pids}")

    asyncio.run(main())


PROBER = """
import asyncio, pathlib, sys
from svcnat.agent.commands import run

async def main(where, script, note):
    probe = asyncio.create_task(run(where, ["sh", "-c", script]))
    while not pathlib.Path(note).exists():
        await asyncio.sleep(0.01)
    print("tied: what comes after the start of the command is not interrupted", flush=True)
    await probe

asyncio.run(main(*sys.argv[1:]))
"""


def test_a_command_ends_with_an_agent_that_is_killed(tmp_path: Path, empty_netns: str) -> None:
    """Whoever was to end it cannot any more; or there would be one more of them after each agent that dies."""
    note = tmp_path / "note"
    script = f"sleep 1000 & echo $! $$ >{note}.new; mv {note}.new {note}; wait"
    command = [sys.executable, "-c", PROBER, empty_netns, script, str(note)]
    with ending(subprocess.Popen(command, stdout=subprocess.PIPE)) as prober:
        assert prober.stdout
        assert prober.stdout.readline().startswith(b"tied"), "the command did not start"
        prober.kill()
        prober.wait()
    pids = [int(each) for each in note.read_text().split()]
    until(lambda: all(map(is_gone, pids)), "the command's end")


def test_a_child_that_stays_does_not_hold_the_probe(tmp_path: Path) -> None:
    """The command has exited: that is the answer, whoever still has its output open."""
    note = tmp_path / "note"

    async def main() -> None:
        async with asyncio.timeout(60):
            assert await run(None, shell(f"sleep 1000 & echo $! >{note}; echo done; exit 0")) == Ran(0, b"done\n")

    asyncio.run(main())
    pid = int(note.read_text())
    assert not is_gone(pid)
    os.kill(pid, 9)

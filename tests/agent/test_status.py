"""`svcnat status` beside an agent that follows something else than what it was asked of, or that hangs."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from svcnat.agent.control import Client, Verify
from svcnat.errors import KernelError
from svcnat.kernel import lock, unix
from tests.agent.running import svcnat


def test_an_agent_that_follows_something_else_is_named(empty_netns: str, folder: Path) -> None:
    """Whoever forgot its -f is told what to ask of, instead of that there is no state file."""
    with lock.writer(empty_netns, agent="/etc/svcnat/services"):
        done = svcnat("status", "--netns", empty_netns, "--state", folder / "state.db")
    assert done.returncode == 1
    assert "keeps the rules" in done.stderr
    assert "equal to /etc/svcnat/services: ask about that, with --state or -f" in done.stderr
    assert not (folder / "state.db").exists()


def test_an_agent_that_hangs_is_named(tmp_path: Path) -> None:
    """It took the call and says nothing: whoever asks learns which process to look at."""
    with unix.listen(tmp_path / "agent.sock"):
        client = Client.find(tmp_path / "agent.sock", patience=0.1)
        assert client
        said = rf"the agent \(pid {os.getpid()}\) has not answered for 0.1 seconds"
        with client, pytest.raises(KernelError, match=said):
            client.ask(Verify())

"""`svcnat status` beside an agent that follows something else than what it was asked of."""

from __future__ import annotations

from pathlib import Path

from svcnat.kernel import lock
from tests.agent.running import svcnat


def test_an_agent_that_follows_something_else_is_named(empty_netns: str, folder: Path) -> None:
    """Whoever forgot its -f is told what to ask of, instead of that there is no state file."""
    with lock.writer(empty_netns, agent="/etc/svcnat/services"):
        done = svcnat("status", "--netns", empty_netns, "--state", folder / "state.db")
    assert done.returncode == 1
    assert "keeps the rules" in done.stderr
    assert "equal to /etc/svcnat/services: ask about that, with --state or -f" in done.stderr
    assert not (folder / "state.db").exists()

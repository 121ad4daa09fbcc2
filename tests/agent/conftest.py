"""What tests of agents share: a folder for their files and sockets, and a state file in it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from svcnat.store.sqlite import Store
from tests.agent.witness import Witness
from tests.agents import runtime


@pytest.fixture
def folder() -> Iterator[Path]:
    with runtime() as found:
        yield found


@pytest.fixture
def state(folder: Path) -> Path:
    return folder / "state.db"


@pytest.fixture
def store(state: Path) -> Iterator[Store]:
    with Store.open(state) as opened:
        yield opened


@pytest.fixture
def witness(empty_netns: str) -> Iterator[Witness]:
    with Witness(empty_netns) as found:
        yield found

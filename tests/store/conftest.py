from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from svcnat.store.sqlite import Store
from tests.store.invariants import check


@pytest.fixture
def path(tmp_path: Path) -> Iterator[Path]:
    """Where a state file may be; whatever a test left there is sound."""
    file = tmp_path / "state" / "state.db"
    yield file
    if file.exists():
        check(file)


@pytest.fixture
def store(path: Path) -> Iterator[Store]:
    with Store.open(path) as opened:
        yield opened

"""A state file is known for what it is, whoever makes it at the same time."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from svcnat.store.schema import MIGRATIONS, migrate, version_of


class Overtaken(sqlite3.Connection):
    """A connection that another process overtakes: it makes the tables after so many of our reads."""

    reads = 0
    path = ""

    def execute(self, statement: str, *parameters: object) -> sqlite3.Cursor:
        cursor = super().execute(statement, *parameters)
        self.reads -= 1
        if self.reads == 0:
            rows = cursor.fetchall()
            other = sqlite3.connect(self.path, isolation_level=None)
            migrate(other, self.path, MIGRATIONS)
            other.close()
            return super().execute(f"VALUES ({rows[0][0]})")
        return cursor


@pytest.mark.parametrize("reads", [1, 2, 3])
def test_a_file_that_is_made_meanwhile_is_ours(tmp_path: Path, reads: int) -> None:
    """Of two commands that find no state file, the slower one never takes the new file for a stranger's."""
    path = str(tmp_path / "state.db")
    connection = sqlite3.connect(path, isolation_level=None, factory=Overtaken)
    connection.path, connection.reads = path, reads
    assert version_of(connection, path, MIGRATIONS) in (0, len(MIGRATIONS))
    connection.close()

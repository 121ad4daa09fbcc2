"""The doctor reads state files of any kind, and writes to none."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from pathlib import Path

from svcnat.agent.doctor import stored
from svcnat.agent.doctor.facts import Unknown, Wanted
from svcnat.api import load
from svcnat.store.schema import APPLICATION_ID, MIGRATIONS
from svcnat.store.sqlite import Store
from tests.agent.test_doctor_places import MANIFESTS


def test_state_files_are_read_and_not_touched(tmp_path: Path) -> None:
    """Sound, absent, damaged, older: each is told, and none is converted or made."""
    file = tmp_path / "state.db"
    with Store.open(file) as store, store.transaction() as transaction:
        for manifest in load(text=MANIFESTS).manifests:
            transaction.create(manifest.document)
    before = file.read_bytes()
    sound = stored.read(file)
    assert file.read_bytes() == before
    assert (sound.present, sound.trouble) == (True, "")
    assert isinstance(sound.wanted, Wanted)
    assert set(sound.wanted.addresses) >= {"10.96.0.10", "fd00:10:96::a"}
    assert sound.wanted.endpoints >= {"10.244.0.1", "fd00:10:244::1"}
    assert sound.wanted.ending == ("default/web",)
    assert sound.wanted.newest is not None
    absent = stored.read(tmp_path / "no" / "state.db")
    assert (absent.present, absent.trouble) == (False, "")
    assert not (tmp_path / "no").exists()
    damaged = tmp_path / "damaged.db"
    damaged.write_bytes(b"no database at all, but long enough to be read as one" * 100)
    assert "not an svcnat state file" in stored.read(damaged).trouble
    assert damaged.read_bytes().startswith(b"no database")
    assert stored.read(tmp_path / damaged.name / "below").present is None


def test_a_pipe_beside_a_state_file_is_told(tmp_path: Path) -> None:
    """And not waited for."""
    path = tmp_path / "state.db"
    Store.open(path).close()
    os.mkfifo(f"{path}-journal")
    assert f"{path}-journal: no plain file" in stored.read(path).trouble


def test_an_older_state_file_is_not_converted(tmp_path: Path) -> None:
    """The next change does that; a doctor only says so."""
    file = tmp_path / "old.db"
    with contextlib.closing(sqlite3.connect(file)) as connection:
        for statement in MIGRATIONS[0]:
            connection.execute(statement)
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute("PRAGMA user_version = 1")
        connection.commit()
    before = file.read_bytes()
    found = stored.read(file)
    assert found.trouble == ""
    assert isinstance(found.wanted, Unknown)
    assert "older svcnat" in found.wanted.reason
    assert file.read_bytes() == before


def test_a_half_made_state_file_is_not_completed(tmp_path: Path) -> None:
    """One that lost default/kubernetes gets it with the next change, not by a look."""
    file = tmp_path / "half.db"
    Store.open(file).close()
    with contextlib.closing(sqlite3.connect(file)) as connection:
        connection.execute("DELETE FROM objects")
        connection.commit()
    found = stored.read(file)
    assert found.trouble == ""
    assert isinstance(found.wanted, Unknown)
    assert "not complete" in found.wanted.reason
    with contextlib.closing(sqlite3.connect(file)) as connection:
        assert connection.execute("SELECT count(*) FROM objects").fetchone() == (0,)

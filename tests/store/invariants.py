"""What is true of every state file at every moment, whatever was killed."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path


def check(path: Path) -> None:
    """Open the file with nothing but SQLite, and hold its tables against the objects in it."""
    connection = sqlite3.connect(path)
    try:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        rows = connection.execute("SELECT id, kind, namespace, name, resource_version, body FROM objects").fetchall()
        (revision,) = connection.execute("SELECT value FROM meta WHERE key = 'revision'").fetchone()
        labels, owners, anchors, addresses = (
            set(connection.execute(f"SELECT * FROM {table}")) for table in ("labels", "owners", "anchors", "addresses")
        )
    finally:
        connection.close()
    bodies = [(row[:5], json.loads(row[5])) for row in rows]
    metas = [(row, body["metadata"]) for row, body in bodies]
    services = [(row, body["spec"]) for row, body in bodies if row[1] == "Service"]
    assert all(int(meta["resourceVersion"]) == row[4] <= revision for row, meta in metas)
    assert len({meta["uid"] for _, meta in metas}) == len(metas)
    assert labels == {
        (row[1], row[2], key, value, row[0]) for row, meta in metas for key, value in meta.get("labels", {}).items()
    }
    assert owners == {(each["uid"], row[0]) for row, meta in metas for each in meta.get("ownerReferences", [])}
    assert {anchor[:2] for anchor in anchors} == {row[2:4] for row, spec in services if spec.get("selector")}
    given = [
        (address, *row[2:4]) for row, spec in services for address in spec.get("clusterIPs", ()) if address != "None"
    ]
    assert sorted(given) == sorted(addresses)
    assert len({address for address, *_ in given}) == len(given)
    assert all(len(body.get("endpoints", ())) <= 100 for row, body in bodies if row[1] == "EndpointSlice")

"""What is true of every state file at every moment, whatever was killed."""

from __future__ import annotations

import json
import sqlite3
from itertools import pairwise
from pathlib import Path


def check(path: Path) -> None:
    """Open the file with nothing but SQLite, and hold its tables against the objects in it."""
    connection = sqlite3.connect(path)
    try:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        rows = connection.execute("SELECT id, kind, namespace, name, resource_version, body FROM objects").fetchall()
        (revision,) = connection.execute("SELECT value FROM meta WHERE key = 'revision'").fetchone()
        labels, owners, anchors, claims, waiting = (
            set(connection.execute(f"SELECT * FROM {table}"))
            for table in ("labels", "owners", "anchors", "claims", "waiting")
        )
        events = connection.execute("SELECT object, kind, namespace, name, revision FROM events").fetchall()
        tombstones = connection.execute("SELECT number, revision, kind FROM tombstones ORDER BY number").fetchall()
        (pruned,) = connection.execute("SELECT value FROM meta WHERE key = 'pruned'").fetchone()
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
    given = {
        ("clusterIP", address, *row[2:4])
        for row, spec in services
        for address in spec.get("clusterIPs", ())
        if address != "None"
    }
    for row, spec in services:
        numbers = {port.get("nodePort") for port in spec.get("ports", ())} | {spec.get("healthCheckNodePort")}
        given |= {("nodePort", str(number), *row[2:4]) for number in numbers - {None}}
    balanced = {claim for claim in claims if claim[0] == "loadBalancerIP"}
    assert claims - balanced == given
    assert len({claim[:2] for claim in given}) == len(given)
    ingress = [
        (row[2:4], [each["ip"] for each in body.get("status", {}).get("loadBalancer", {}).get("ingress", ())])
        for row, body in bodies
        if row[1] == "Service" and body["spec"]["type"] == "LoadBalancer"
    ]
    assert balanced <= {("loadBalancerIP", address, *place) for place, addresses in ingress for address in addresses}
    assert {claim[1] for claim in balanced} == {address for _, addresses in ingress for address in addresses}
    assert waiting == {place for place, addresses in ingress if not addresses}
    assert all(len(body.get("endpoints", ())) <= 100 for row, body in bodies if row[1] == "EndpointSlice")
    abouts = [(row, body.get("involvedObject", {})) for row, body in bodies if row[1] == "Event"]
    assert set(events) == {
        (row[0], *(about.get(key, "") for key in ("kind", "namespace", "name")), row[4]) for row, about in abouts
    }
    assert len(tombstones) <= 10_000
    assert all(pruned < each <= revision and kind != "Event" for _, each, kind in tombstones)
    assert all(later[0] == one[0] + 1 and later[1] > one[1] for one, later in pairwise(tombstones))

"""The tables of a state file, and how an older file becomes a newer one.

Migrations are only ever appended: number N makes schema version N (``PRAGMA user_version``) of version N - 1. The
objects themselves are JSON as a manifest would have them; the other tables only find them.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from svcnat.errors import StoreError

APPLICATION_ID = 0x73766E74
"""``PRAGMA application_id``: "svnt", so that file(1) and svcnat know the file for what it is."""

Migration = tuple[str, ...]

MIGRATIONS: tuple[Migration, ...] = (
    (
        "CREATE TABLE meta (key TEXT PRIMARY KEY, value ANY NOT NULL) STRICT, WITHOUT ROWID",
        "INSERT INTO meta VALUES ('identity', lower(hex(randomblob(16)))), ('revision', 0)",
        """CREATE TABLE objects (
            id INTEGER PRIMARY KEY,
            kind TEXT NOT NULL,
            namespace TEXT NOT NULL,
            name TEXT NOT NULL,
            resource_version INTEGER NOT NULL UNIQUE,
            body BLOB NOT NULL,
            UNIQUE (kind, namespace, name)
        ) STRICT""",
        # Which objects have a label; which belong to an owner's uid.
        """CREATE TABLE labels (
            kind TEXT NOT NULL,
            namespace TEXT NOT NULL,
            key TEXT NOT NULL,
            value TEXT NOT NULL,
            object INTEGER NOT NULL,
            PRIMARY KEY (kind, namespace, key, value, object)
        ) STRICT, WITHOUT ROWID""",
        """CREATE TABLE owners (
            uid TEXT NOT NULL,
            object INTEGER NOT NULL,
            PRIMARY KEY (uid, object)
        ) STRICT, WITHOUT ROWID""",
        # The one pair of each Service's selector by which Services are found from a Pod's labels.
        """CREATE TABLE anchors (
            namespace TEXT NOT NULL,
            name TEXT NOT NULL,
            key TEXT NOT NULL,
            value TEXT NOT NULL,
            PRIMARY KEY (namespace, name)
        ) STRICT, WITHOUT ROWID""",
        "CREATE INDEX anchors_by_pair ON anchors (namespace, key, value)",
        # The primary key is the promise that no cluster address is ever given twice.
        """CREATE TABLE addresses (
            address TEXT PRIMARY KEY,
            namespace TEXT NOT NULL,
            name TEXT NOT NULL
        ) STRICT, WITHOUT ROWID""",
        "CREATE INDEX addresses_by_service ON addresses (namespace, name)",
    ),
    (
        # The primary key is the promise that no address and no node port is ever given twice.
        """CREATE TABLE claims (
            kind TEXT NOT NULL,
            value TEXT NOT NULL,
            namespace TEXT NOT NULL,
            name TEXT NOT NULL,
            PRIMARY KEY (kind, value)
        ) STRICT, WITHOUT ROWID""",
        "CREATE INDEX claims_by_service ON claims (namespace, name)",
        "INSERT INTO claims SELECT 'clusterIP', address, namespace, name FROM addresses",
        "DROP TABLE addresses",
        # Node ports and load balancers' addresses were not guarded before: of two Services the older one keeps them.
        """INSERT OR IGNORE INTO claims
            SELECT 'nodePort', json_extract(port.value, '$.nodePort') || '', namespace, name
            FROM objects, json_each(CAST(body AS TEXT), '$.spec.ports') AS port
            WHERE kind = 'Service' AND json_extract(port.value, '$.nodePort') > 0 ORDER BY objects.id""",
        """INSERT OR IGNORE INTO claims
            SELECT 'nodePort', json_extract(CAST(body AS TEXT), '$.spec.healthCheckNodePort') || '', namespace, name
            FROM objects WHERE kind = 'Service'
            AND json_extract(CAST(body AS TEXT), '$.spec.healthCheckNodePort') > 0 ORDER BY id""",
        """INSERT OR IGNORE INTO claims
            SELECT 'loadBalancerIP', json_extract(entry.value, '$.ip'), namespace, name
            FROM objects, json_each(CAST(body AS TEXT), '$.status.loadBalancer.ingress') AS entry
            WHERE kind = 'Service' AND json_extract(entry.value, '$.ip') IS NOT NULL ORDER BY objects.id""",
        # The Services that wait for a load balancer's address, and the pool that they were shown last.
        """CREATE TABLE waiting (
            namespace TEXT NOT NULL,
            name TEXT NOT NULL,
            PRIMARY KEY (namespace, name)
        ) STRICT, WITHOUT ROWID""",
        """INSERT INTO waiting SELECT namespace, name FROM objects WHERE kind = 'Service'
            AND json_extract(CAST(body AS TEXT), '$.spec.type') = 'LoadBalancer'
            AND json_extract(CAST(body AS TEXT), '$.spec.loadBalancerClass') IS NULL
            AND json_extract(CAST(body AS TEXT), '$.status.loadBalancer.ingress[0]') IS NULL""",
        "INSERT INTO meta VALUES ('loadBalancerPool', '')",
    ),
    (
        # What was deleted, the newest of it: Events leave none. `pruned` is the last revision of which one is missing.
        # Numbers have no gaps, so that counting the tombstones costs nothing.
        """CREATE TABLE tombstones (
            number INTEGER PRIMARY KEY,
            revision INTEGER NOT NULL UNIQUE,
            kind TEXT NOT NULL,
            namespace TEXT NOT NULL,
            name TEXT NOT NULL
        ) STRICT""",
        "INSERT INTO meta SELECT 'pruned', value FROM meta WHERE key = 'revision'",
        # Which object an Event is about, what makes another one the same, and which are the oldest: by their seconds,
        # and by their revisions, which a clock that jumps cannot mix up.
        """CREATE TABLE events (
            object INTEGER PRIMARY KEY,
            kind TEXT NOT NULL,
            namespace TEXT NOT NULL,
            name TEXT NOT NULL,
            digest TEXT NOT NULL,
            seconds INTEGER NOT NULL,
            revision INTEGER NOT NULL
        ) STRICT""",
        "CREATE INDEX events_by_subject ON events (kind, namespace, name)",
        "CREATE INDEX events_by_digest ON events (digest)",
        "CREATE INDEX events_by_age ON events (seconds)",
        "CREATE INDEX events_by_revision ON events (revision)",
    ),
)


def migrate(connection: sqlite3.Connection, path: str, migrations: Sequence[Migration]) -> None:
    """Bring the file to the newest schema version, in one transaction.

    Raises:
        StoreError: another program's file, or a newer svcnat's.

    """
    connection.execute("BEGIN IMMEDIATE")
    try:
        # Another process may have done it while this one waited for the lock.
        for migration in migrations[version_of(connection, path, migrations) :]:
            for statement in migration:
                connection.execute(statement)
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {len(migrations)}")
        connection.execute("COMMIT")
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")


def version_of(connection: sqlite3.Connection, path: str, migrations: Sequence[Migration]) -> int:
    """Return the schema version of a file; 0 if it is empty.

    Raises:
        StoreError: another program's file, or a newer svcnat's.

    """
    # In this order: another process may make the tables between two of these reads, and then all that follow tell so.
    empty = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0] == 0
    version = int(connection.execute("PRAGMA user_version").fetchone()[0])
    application = connection.execute("PRAGMA application_id").fetchone()[0]
    if application != APPLICATION_ID and not (empty and version == 0):
        raise StoreError(f"{path}: a database of another program, not an svcnat state file; name another file")
    if version > len(migrations):
        raise StoreError(
            f"{path}: written by a newer svcnat (schema {version}, this program knows {len(migrations)}); "
            "upgrade svcnat, or name another file"
        )
    return version

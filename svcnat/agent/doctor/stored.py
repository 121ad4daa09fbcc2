"""Reading a state file as a doctor may: nothing is made, converted or repaired, whoever the user is."""

from __future__ import annotations

import contextlib
import os
import re
import sqlite3
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import quote

from svcnat.agent.doctor.facts import Spot, State, Unknown, Wanted
from svcnat.errors import StoreError
from svcnat.model.objects import EndpointSlice, Service
from svcnat.model.services import cluster_ips_of
from svcnat.ruleset.plan import Settings, plan
from svcnat.store.connections import require_company
from svcnat.store.schema import MIGRATIONS
from svcnat.store.snapshot import Snapshot
from svcnat.store.sqlite import Store

_KUBERNETES = "SELECT 1 FROM objects WHERE kind = 'Service' AND namespace = 'default' AND name = 'kubernetes'"


def read(path: Path) -> State:
    """What a state file is like, and what its objects ask for."""
    try:
        status = path.stat()
    except FileNotFoundError:
        return State(str(path), file_system=_file_system(path), free=_free(path), wanted=Wanted())
    except OSError as error:
        return State(str(path), None, str(error.strerror), wanted=Unknown(str(error.strerror)))
    if not os.access(path, os.R_OK):
        reason = "this user may not read it"
        return State(str(path), None, reason, wanted=Unknown(reason))
    trouble, identity, wanted = _objects(path)
    return State(
        str(path),
        present=True,
        trouble=trouble,
        identity=identity,
        mode=status.st_mode & 0o777,
        file_system=_file_system(path),
        free=_free(path),
        wanted=wanted,
    )


def _objects(path: Path) -> tuple[str, str, Wanted | Unknown]:
    """What is wrong with the file, its identity, and what its objects ask for."""
    try:
        require_company(path)
        if reason := _would_change(path):
            return "", "", Unknown(reason)
        with Store.open(path, create=False) as store, store.read() as snapshot:
            return "", store.identity, _wanted(snapshot)
    except StoreError as error:
        return str(error), "", Unknown(str(error))


def _would_change(path: Path) -> str:
    """Why opening the file as other commands do would write to it; "" if it would not, or they say what is wrong."""
    uri = f"file:{quote(os.fsencode(path.absolute()))}?mode=ro"
    with contextlib.suppress(sqlite3.Error), contextlib.closing(sqlite3.connect(uri, uri=True)) as connection:
        version = int(connection.execute("PRAGMA user_version").fetchone()[0])
        if 0 < version < len(MIGRATIONS):
            return f"the file is of an older svcnat (schema {version}); the next change converts it"
        if version <= len(MIGRATIONS) and connection.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
            return "the file is not complete; the next change completes it"
        if version == len(MIGRATIONS) and not connection.execute(_KUBERNETES).fetchone():
            return "the file is not complete; the next change completes it"
    return ""


def _wanted(snapshot: Snapshot) -> Wanted:
    services, slices = snapshot.list(Service), snapshot.list(EndpointSlice)
    planned = plan(services, slices, Settings())
    addresses: dict[str, None] = {}
    endpoints = set()
    ending = []
    frontends: dict[Spot, None] = {}
    backends: dict[Spot, None] = {}
    for (namespace, name), ports in planned.services.items():
        for port in ports:
            addresses |= {frontend.address: None for frontend in port.frontends if frontend.address}
            endpoints |= {address for address, _ in port.endpoints.serving}
            family, protocol = port.family, port.protocol
            frontends |= {Spot(family, protocol, each.address, each.port): None for each in port.frontends}
            backends |= {Spot(family, protocol, *each): None for each in port.endpoints.cluster.backends}
        if any(port.terminate_after is not None for port in ports):
            ending.append(f"{namespace}/{name}")
    made = [when for each in (*services, *slices) if (when := _time(each.metadata.creation_timestamp))]
    count = sum(bool(cluster_ips_of(each.spec)) for each in services)
    return Wanted(
        count,
        tuple(addresses),
        frozenset(endpoints),
        tuple(ending),
        max(made, default=None),
        tuple(frontends),
        tuple(backends),
    )


def _time(text: object) -> datetime | None:
    """The time that RFC 3339 text with whole seconds in UTC names; None if it is no such text."""
    try:
        return datetime.strptime(str(text), "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
    except ValueError:
        return None


def _free(path: Path) -> int | None:
    """The bytes that are left on the disk where a file is, or would be."""
    for folder in path.absolute().parents:
        with contextlib.suppress(OSError):
            status = os.statvfs(folder)
            return status.f_bavail * status.f_frsize
    return None


def _file_system(path: Path) -> str:
    """The kind of the file system where a file is, or would be; "" if it cannot be told."""
    real = os.path.realpath(path)
    found, longest = "", -1
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="surrogateescape").splitlines():
            before, _, after = line.partition(" - ")
            point = re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), before.split(" ")[4])
            if os.path.commonpath([point, real]) == point and len(point) >= longest:
                found, longest = after.split(" ")[0], len(point)
    return found

"""Where an agent's objects come from: a state file, or manifests on disk.

A source brings what is in memory up to date, and tells what that touched. When to ask is the agent's decision; that
files changed, a folder's watcher tells (:mod:`svcnat.agent.folders`).
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, Protocol

from svcnat.agent.desired import KINDS, Desired, Touched
from svcnat.agent.findings import Findings
from svcnat.agent.probes import Result
from svcnat.controllers.react import settled
from svcnat.controllers.readiness import with_result
from svcnat.controllers.world import MemoryWorld
from svcnat.errors import StoreError, SvcnatError
from svcnat.model.configuration import Configuration
from svcnat.model.located import located
from svcnat.model.manifests import Loader
from svcnat.model.objects import Endpoints, EndpointSlice, Pod, Resource
from svcnat.store import events
from svcnat.store.connections import file_id
from svcnat.store.folder import read_sources
from svcnat.store.snapshot import Snapshot
from svcnat.store.sqlite import Store
from svcnat.store.watch import Watch


@dataclass(frozen=True, slots=True)
class Happening:
    """What is to be told of an object, as an Event: `kind` and place, then kubectl's columns."""

    kind: type[Resource]
    namespace: str
    name: str
    type: Literal["Normal", "Warning"]
    reason: str
    message: str
    component: str
    host: str


class Source(Protocol):
    """What an agent follows."""

    follows: str
    """What people are told."""
    identity: str | None
    """The state file's, None if objects come from manifests."""
    revision: int
    """Of the objects in memory; it grows with every change."""
    store: Store | None
    """Where what the agent finds out is written; None if there is no such place."""

    def open(self, config: Configuration) -> None:
        """Begin, or begin anew with another configuration; after an error nothing is open."""
        ...

    def changed(self) -> bool:
        """Tell, at next to no cost, whether there may be something to :meth:`refresh`."""
        ...

    def refresh(self, desired: Desired) -> Touched:
        """Bring `desired` up to date; after an error it is as it was."""
        ...

    def examine(self) -> None:
        """Look at all of it, also at what did not change.

        Raises:
            StoreError: it could not be read again.

        """
        ...

    def write(self, results: Sequence[Result], happenings: Sequence[Happening]) -> None:
        """Write down what probes found out, and what is to be told of objects; those that are gone are left out.

        Raises:
            StoreError: it cannot be written.

        """
        ...

    def close(self) -> None:
        """Let go of files."""
        ...


class StateFile:
    """The objects of a state file."""

    def __init__(
        self,
        path: Path,
        opening: Callable[[Configuration], Store],
        *,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """`opening` opens the file at `path`, as a command would; `now` is what is written into objects."""
        self.follows = str(path)
        self.identity: str | None = None
        self.revision = -1
        self.store: Store | None = None
        self._opening, self._now = opening, now
        self._config = Configuration()
        self._watch: Watch | None = None
        self._anew = True  # it may be another file, or a backup of it: what is known says nothing of it

    def open(self, config: Configuration) -> None:
        """See :class:`Source`.

        Raises:
            StoreError: the file cannot be used.

        """
        self.close()
        self._config = config
        if self.identity and file_id(Path(self.follows)) is None:
            raise StoreError(f"{self.follows}: the state file is gone; restore a backup, or apply to start afresh")
        if self.identity and _is_empty(self.follows):
            raise StoreError(f"{self.follows}: the state file is empty; restore a backup, or remove it to start afresh")
        store = self._opening(config)
        try:
            self._watch = store.watch()
        except BaseException:
            store.close()
            raise
        self.store, self.identity, self._anew = store, store.identity, True

    def changed(self) -> bool:
        """See :class:`Source`.

        Raises:
            StoreError: the file cannot be read any more.

        """
        if self._watch is None or self._watch.replaced():
            self.open(self._config)
        assert self._watch is not None
        with self._closing_what_is_broken():
            return self._watch.changed() or self._anew

    def refresh(self, desired: Desired) -> Touched:
        """See :class:`Source`.

        Raises:
            StoreError: the file cannot be read.

        """
        if self._watch is None or self._watch.replaced():
            self.open(self._config)
        assert self.store is not None
        with self._closing_what_is_broken(), self.store.read() as snapshot:
            changes = None if self._anew else snapshot.changes_since(self.revision)
            if changes is None:
                touched = desired.replace(_everything(snapshot))
            else:
                touched = desired.update(changes.deleted, changes.written)
            self.revision, self._anew = snapshot.revision, False
        return touched

    def examine(self) -> None:
        """See :class:`Source`."""
        if self.store:
            self.store.examine()

    @contextlib.contextmanager
    def _closing_what_is_broken(self) -> Iterator[None]:
        """Let go of a file that fails: what SQLite remembers of it would outlive its repair."""
        try:
            yield
        except StoreError:
            self.close()
            raise

    def write(self, results: Sequence[Result], happenings: Sequence[Happening]) -> None:
        """See :class:`Source`."""
        store, now = self.store, self._now()  # another thread may be about to open another one
        if store is None:
            raise StoreError(f"{self.follows}: the state file is not open")
        with store.transaction() as transaction:
            for result in results:
                kind, key = PROBED[result.key.kind], result.key
                live = transaction.get(kind, key.namespace, key.name)
                if live and key.uid in ("", live.metadata.uid):
                    transaction.put(with_result(live, key.part, result.ready, rfc3339(now)))
            for each in happenings:
                about = transaction.get(each.kind, each.namespace, each.name)
                if about:
                    events.record(
                        transaction,
                        about,
                        type=each.type,
                        reason=each.reason,
                        message=each.message,
                        component=each.component,
                        host=each.host,
                        now=now,
                    )

    def close(self) -> None:
        """See :class:`Source`."""
        if self._watch:
            self._watch.close()
        if self.store:
            self.store.close()
        self._watch = self.store = None


class Manifests:
    """The objects that manifests ask for, and what follows from them; addresses nobody asked for follow from names."""

    identity: str | None = None
    store: Store | None = None

    def __init__(
        self,
        paths: Sequence[str],
        *,
        recursive: bool = False,
        namespace: str = "default",
        findings: Path | None = None,
    ) -> None:
        """`findings` is the file where what probes find out is kept for the next agent; None: nowhere."""
        self.paths = tuple(paths)
        self.follows = ", ".join(paths)
        self.recursive = recursive
        self.revision = 0
        self._loader = Loader(namespace=namespace)
        self._config = Configuration()
        self._read: list[tuple[str, bytes]] | None = None
        self._wrong: tuple[list[tuple[str, bytes]], SvcnatError] | None = None
        self._findings = Findings(self.follows, findings)
        self._told = False

    def open(self, config: Configuration) -> None:
        """See :class:`Source`."""
        self._config, self._read, self._wrong = config, None, None

    def changed(self) -> bool:
        """See :class:`Source`: files are watched, so there is nothing to ask."""
        return self._read is None or self._told

    def refresh(self, desired: Desired) -> Touched:
        """See :class:`Source`.

        Raises:
            ManifestError: a manifest is wrong; every finding of every file.

        """
        sources = read_sources(self.paths, recursive=self.recursive)
        if sources == self._read and not self._told:
            return Touched()
        if self._wrong and self._wrong[0] == sources and not self._told:
            # Reading costs little, and finding the mistakes again may cost seconds.
            raise self._wrong[1].with_traceback(None)
        try:
            world = self._world(sources)
        except SvcnatError as error:
            self._read, self._wrong, self._told = None, (sources, error), False
            raise
        touched = desired.replace([each for kind in KINDS for each in world.list(kind)])
        self._read, self._wrong, self._told = sources, None, False
        self.revision += bool(touched)
        return touched

    def _world(self, sources: list[tuple[str, bytes]]) -> MemoryWorld:
        """All objects: those that are written down, and what follows from them."""
        manifests = self._loader.load(sources)
        config = self._config
        resources = [manifest.resource for manifest in manifests]
        self._findings.keep(resources)
        now = rfc3339(datetime.now(UTC))
        with located(manifests):
            return settled(
                [self._findings.added_to(each, now) for each in resources],
                tuple(map(str, config.service_networks)),
                node_ports=config.node_ports,
                load_balancer_pool=config.load_balancer_pool,
            )

    def examine(self) -> None:
        """See :class:`Source`: every file is read again when one of them changes."""

    def write(self, results: Sequence[Result], happenings: Sequence[Happening]) -> None:  # noqa: ARG002 - no store
        """See :class:`Source`: results are remembered, what happened is not."""
        if results:
            self._findings.take(results)
            self._told = True

    def close(self) -> None:
        """See :class:`Source`."""


PROBED: dict[str, type[Resource]] = {"Pod": Pod, "EndpointSlice": EndpointSlice, "Endpoints": Endpoints}
"""The objects that results of probes are written to."""


def rfc3339(moment: datetime) -> str:
    """A moment as Kubernetes writes it."""
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def _is_empty(path: str) -> bool:
    """True of a file that was cut off, which opening would make one without objects."""
    with contextlib.suppress(OSError):
        return Path(path).stat().st_size == 0
    return False


def _everything(snapshot: Snapshot) -> list[Resource]:
    return [resource for kind in KINDS for resource in snapshot.list(kind)]

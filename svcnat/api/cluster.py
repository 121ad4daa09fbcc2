"""Objects in a state file, and network namespaces whose rules follow them."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Self

from svcnat.agent.control import Client, Reconcile, socket_of_state
from svcnat.agent.report import Report
from svcnat.agent.targets import Target
from svcnat.api.configured import DEFAULT_STATE, LAB_BRINGS_ITS_OWN, configuration, node_name, open_store
from svcnat.api.edits import Changed, Edits, Place
from svcnat.api.news import News
from svcnat.controllers.claims import asks
from svcnat.errors import Finding, KernelError, ManifestError, SvcnatError, UnfollowedError, UsageError
from svcnat.model.configuration import Configuration
from svcnat.model.kinds import subject
from svcnat.model.located import located
from svcnat.model.manifests import Loaded, Manifest
from svcnat.model.objects import Resource, Service
from svcnat.store.snapshot import Snapshot
from svcnat.store.sqlite import Store
from svcnat.store.transaction import Outcome, Transaction

if TYPE_CHECKING:
    from svcnat.api.differences import Differences
    from svcnat.api.followers import Followers
    from svcnat.ruleset.plan import Plan

_LOOK_SECONDS = 0.2  # between two looks, if no agent tells of changes
_TOLD_SECONDS = 5.0  # if one does, in case that it hangs


class Cluster(Edits):
    """Objects in a state file, and the network namespaces whose rules follow them.

    Every change is one transaction over all its objects; the rules follow before the method returns. A context
    manager; one instance serves one thread.
    """

    def __init__(self, store: Store, config: Configuration, targets: Sequence[Target]) -> None:
        """Work on an open store; :meth:`open` is how to get one."""
        self._store = store
        self._config = config
        self._targets = tuple(targets)

    @classmethod
    def open(
        cls,
        *,
        state: str | Path | None = None,
        config: str | Path | None = None,
        netns: str | None = None,
        lab: str | None = None,
        create: bool = True,
    ) -> Cluster:
        """Open a state file (default ``/var/lib/svcnat/state.db``), whose rules live in `netns`; or a lab, by name.

        Raises:
            UsageError: a lab has its own state file, configuration and namespaces: they cannot be chosen.
            PrivilegeError: the state file is to be made, and the caller may not program the rules.
            StoreError: the state file cannot be used, or is not there and `create` is False.
            ManifestError: the configuration is wrong.

        """
        if lab:
            if state or netns or config:
                raise UsageError(LAB_BRINGS_ITS_OWN)
            from svcnat.api.labs import Lab

            return Lab.find(lab)
        found = configuration(config)
        file = Path(state or DEFAULT_STATE)
        if create and not os.path.exists(file):  # noqa: PTH110 - Path.exists raises for names that are too long
            from svcnat.kernel.nftables import Namespace

            Namespace(netns).close()  # who may not program the rules shall not leave a state file behind
        store = open_store(file, found, create=create)
        return cls(store, found, [Target(node_name(found), netns)])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the state file."""
        self._store.close()

    @contextlib.contextmanager
    def read(self) -> Iterator[Snapshot]:
        """The objects as they are now, for as many questions as the block asks."""
        with self._store.read() as snapshot:
            yield snapshot

    def create(self, loaded: Loaded, *, dry_run: bool = False) -> Changed:
        """Create objects.

        Raises:
            ConflictError: one exists already; nothing was created.
            ManifestError: every object that cannot be; nothing was created.
            UnfollowedError: the objects are saved, but the rules could not follow.

        """
        return self._change_all(
            loaded, lambda transaction, manifest: transaction.create(manifest.document), dry_run=dry_run
        )

    def apply(self, loaded: Loaded, *, dry_run: bool = False) -> Changed:
        """Create objects, or make them what the manifests say, keeping what others set; errors as :meth:`create`."""
        return self._change_all(
            loaded, lambda transaction, manifest: transaction.apply(manifest.document), dry_run=dry_run
        )

    def replace(self, loaded: Loaded, *, dry_run: bool = False) -> Changed:
        """Put objects in the place of those with their names.

        Raises:
            NotFoundError: one does not exist; nothing was replaced.

        """
        return self._change_all(
            loaded, lambda transaction, manifest: transaction.replace(manifest.document), dry_run=dry_run
        )

    def delete(
        self,
        wanted: Iterable[Resource | tuple[type[Resource], str, str]],
        *,
        dry_run: bool = False,
        grace: int | None = None,
    ) -> Changed:
        """Delete objects, given as such or as (type, namespace, name).

        In a lab Pods have `grace` seconds instead of their own time; with 0 they go at once. Elsewhere all do.

        Raises:
            NotFoundError: one does not exist; nothing was deleted.

        """
        places = [
            (type(one), one.metadata.namespace, one.metadata.name) if isinstance(one, Resource) else one
            for one in wanted
        ]
        return self._change(
            lambda transaction: [transaction.delete(*place, grace) for place in places], dry_run=dry_run
        )

    def follow(self, *, dry_run: bool = False) -> tuple[Report, ...]:
        """Make the rules of every target equal to the objects, whatever is there; their agent does it, if one runs.

        Raises:
            ConflictError: the rules there follow another state file.
            KernelError: the kernel refused; the rules there are as they were.

        """
        if agent := None if dry_run else self._agent():
            with agent:
                return self._have_followed(agent)
        return self._followers().follow(dry_run=dry_run)

    def plans(self) -> list[tuple[Target, Plan]]:
        """What the objects ask of each target, now."""
        return self._followers().plans()

    def connections(self, service: Service) -> dict[tuple[str, int], int | None]:
        """How many connections each endpoint (address, port) got through a Service since it was added to the rules.

        Only usable endpoints are in the answer, with None where the rules do not count (endpointCounters). Costs one
        question to the kernel for each slot.
        """
        return self._followers().connections(service)

    def news(self) -> News:
        """How to learn that the objects changed: see :class:`~svcnat.api.news.News`."""
        return News(socket_of_state(self._store.path))

    def wait_for(
        self,
        wanted: Iterable[Place],
        met: Callable[[Resource | None], bool],
        seconds: float,
        told: Callable[[Place, Resource | None], None] = lambda *_: None,
        look: Callable[[Snapshot, Place], Resource | None] = lambda snapshot, place: snapshot.get(*place),
    ) -> tuple[Place, ...]:
        """Wait, at most so many seconds, until all objects, named as (type, namespace, name), have `met` something.

        It is asked at least once of each, with None for one that is not there (which `look` finds out); `told` is
        called when one has met it. The answer is those that have not; if there are none, an agent's rules are there.
        """
        end = time.monotonic() + seconds
        left, revision = list(wanted), -1
        with self.news() as news:
            while True:
                with self.read() as snapshot:
                    if snapshot.revision != revision:
                        revision = snapshot.revision
                        found = [(place, look(snapshot, place)) for place in left]
                        done = {place for place, resource in found if met(resource)}
                        left = [place for place in left if place not in done]
                    else:
                        found, done = [], set()
                for place, resource in found:
                    if place in done:
                        told(place, resource)
                rest = end - time.monotonic()
                if not left or rest <= 0:
                    break
                if not news.wait(min(rest, _TOLD_SECONDS)):
                    time.sleep(min(rest, _LOOK_SECONDS))
        if not left:
            with contextlib.suppress(SvcnatError):  # whoever may only read waits for the objects alone
                if agent := self._agent():
                    with agent:
                        self._have_followed(agent)
        return tuple(left)

    def _require(self) -> None:
        if agent := self._agent():
            agent.close()
        else:
            self._followers().require()

    def _agent(self) -> Client | None:
        return Client.of_state(self._store.path, (target.netns for target in self._targets))

    def _have_followed(self, agent: Client) -> tuple[Report, ...]:
        """Wait until the agent's rules are equal to the objects as they are now.

        Raises:
            KernelError: they are not, and why.

        """
        with self._store.read() as snapshot:
            revision = snapshot.revision
        answer = agent.ask(Reconcile(revision))
        if answer.error or answer.state is None:
            raise KernelError(f"the agent cannot follow: {answer.error}")
        followed = [each for each in answer.state.targets if each.state != "off"]
        failing = [f"{each.node}: {each.error}" for each in followed if each.state != "synced"]
        if failing:
            raise KernelError("; ".join(failing))
        return tuple(Report({}, each.generation, each.all_warnings) for each in followed)

    def _followers(self) -> Followers:
        from svcnat.api.followers import Followers  # whoever only reads objects needs no rules

        return Followers(self._store, self._config, tuple(each for each in self._targets if not each.missing))

    def diff(self, loaded: Loaded) -> Differences:
        """What :meth:`apply` would change, of the objects and of the rules; nothing is written, the file is only read.

        Raises:
            ManifestError: every object that cannot be.

        """
        from svcnat.api.differences import differences

        with located(loaded.manifests):
            return differences(
                self._store,
                self._followers(),
                lambda transaction: _each(
                    transaction, loaded, lambda transaction, manifest: transaction.apply(manifest.document)
                ),
            )

    def _change_all(
        self, loaded: Loaded, verb: Callable[[Transaction, Manifest], Outcome], *, dry_run: bool
    ) -> Changed:
        with located(loaded.manifests):
            return self._change(lambda transaction: _each(transaction, loaded, verb), dry_run=dry_run)

    def _change(self, run: Callable[[Transaction], list[Outcome]], *, dry_run: bool) -> Changed:
        if dry_run:
            with self._store.transaction(dry_run=True) as transaction:
                return Changed(tuple(run(transaction)), ())
        # What cannot work (no privilege, no such namespace, another's rules) is said before anything changes.
        self._require()
        with self._store.transaction() as transaction:
            outcomes = run(transaction)
        try:
            return Changed(tuple(outcomes), self.follow())
        except SvcnatError as error:
            raise UnfollowedError(error, outcomes) from error


def _each(transaction: Transaction, loaded: Loaded, verb: Callable[[Transaction, Manifest], Outcome]) -> list[Outcome]:
    """Do the same to each object, in their order, and raise every finding."""
    outcomes: dict[str, Outcome] = {}
    findings: list[Finding] = []
    # What is asked for is claimed before anything is given away, in one transaction as in one set of manifests.
    for manifest in sorted(loaded.manifests, key=lambda manifest: not asks(manifest.resource)):
        try:
            outcomes[subject(manifest.resource)] = verb(transaction, manifest)
        except ManifestError as error:
            findings += error.findings
    if findings:
        raise ManifestError(findings)
    return [outcomes[subject(manifest.resource)] for manifest in loaded.manifests]

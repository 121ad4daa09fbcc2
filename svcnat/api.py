"""The public Python API: what the command line, lab scripts and tests are written on.

Two ways to use it. Stateless: :func:`load` manifests, :func:`compile_ruleset`, then :func:`render` or :func:`sync`.
With a state file: a :class:`Cluster`, whose objects keep their addresses, and whose rules follow every change. A
:class:`Lab` is a Cluster whose nodes and pods are network namespaces of its own. All of it is also an attribute of
``svcnat``, imported when first touched. Nothing here prints; every error is an :class:`svcnat.errors.SvcnatError`.
"""

from __future__ import annotations

import contextlib
import socket
import subprocess
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Self, TypeVar

from svcnat.agent.reconcile import Report, reconcile
from svcnat.agent.settings import Host, settings_for
from svcnat.controllers.react import settled
from svcnat.controllers.slices import ZONE_LABEL
from svcnat.errors import ConflictError, Finding, ManifestError, SvcnatError, UnfollowedError, UsageError
from svcnat.kernel import lock
from svcnat.kernel.nftables import Namespace
from svcnat.model.configuration import Configuration, parse_configuration
from svcnat.model.kinds import kind_of
from svcnat.model.manifests import Loaded, Manifest
from svcnat.model.manifests import load as load_texts
from svcnat.model.objects import EndpointSlice, Node, Resource, Service
from svcnat.ruleset import nftables
from svcnat.ruleset.compile import backend_keys, compile_plan
from svcnat.ruleset.endpoints import Family
from svcnat.ruleset.nouns import Ruleset
from svcnat.ruleset.plan import SERVICE_LABEL, Plan, plan, plan_service
from svcnat.store.folder import read_sources
from svcnat.store.snapshot import Snapshot
from svcnat.store.sqlite import Store
from svcnat.store.transaction import Outcome, Transaction

if TYPE_CHECKING:
    from svcnat.lab import labs  # imported late: only labs pay for them
    from svcnat.lab.topology import Topology

DEFAULT_CONFIG = "/etc/svcnat/config.yaml"
DEFAULT_STATE = "/var/lib/svcnat/state.db"

T = TypeVar("T")


# --- stateless -------------------------------------------------------------------------------------------------


def load(
    *paths: str | Path,
    text: str | bytes | None = None,
    recursive: bool = False,
    strict: bool = False,
    namespace: str = "default",
    stdin: BinaryIO | None = None,
) -> Loaded:
    """Read manifests: files, folders (with `recursive` what is below them too), ``-`` for `stdin`, or `text`.

    Raises:
        ManifestError: every finding of every file; with `strict`, unknown fields are errors and not warnings.
        UsageError: a path makes no sense.

    """
    sources = read_sources([str(path) for path in paths], recursive=recursive, stdin=stdin)
    if text is not None:
        sources.append(("<text>", text.encode() if isinstance(text, str) else text))
    return load_texts(sources, strict=strict, namespace=namespace)


def configuration(path: str | Path | None = None) -> Configuration:
    """Read the configuration file; without a path, the default one, which need not exist.

    Raises:
        ManifestError: the file cannot be read, or what is in it is wrong.

    """
    file = Path(path or DEFAULT_CONFIG)
    try:
        data = file.read_bytes()
    except OSError as error:
        if path is None and isinstance(error, FileNotFoundError):
            return Configuration()
        raise ManifestError([Finding(str(file), 0, "", "", f"cannot be read: {error.strerror}")]) from error
    return parse_configuration(data, str(file))


def compile_ruleset(
    objects: Loaded | Iterable[Resource],
    config: Configuration | None = None,
    *,
    host: Host | None = None,
    node: str | None = None,
) -> Ruleset:
    """The rules that objects ask for, without any state: the same objects give the same rules, in any order.

    Addresses and node ports that nobody asked for follow from family, namespace and name. What depends on the `host`
    (which addresses answer node ports, above all) is left out without one; `node` is its name if the configuration
    has none.

    Raises:
        ManifestError: objects contradict each other, for instance by asking for one address twice.

    """
    config = config or Configuration()
    manifests = {}
    if isinstance(objects, Loaded):
        manifests = {_identity(manifest.resource): manifest for manifest in objects.manifests}
        objects = [manifest.resource for manifest in objects.manifests]
    with _located(manifests):
        world = settled(objects, _ranges(config))
    known = settings_for(config, host or Host(), _node_name(config, node))
    return compile_plan(plan(world.list(Service), world.list(EndpointSlice), known))


def _node_name(config: Configuration, node: str | None = None) -> str:
    return node or config.hostname_override or socket.gethostname().lower()


def render(ruleset: Ruleset) -> str:
    """The rules as a script for ``nft -f``, which makes svcnat's tables equal to them, whatever was in them."""
    return nftables.render(ruleset)


def sync(ruleset: Ruleset, netns: str | None = None, *, dry_run: bool = False, force: bool = False) -> Report:
    """Make the rules of a network namespace (by name or path; None: the current one) equal to `ruleset`.

    Raises:
        ConflictError: the rules there follow a state file; `force` takes them all the same.
        BusyError: another svcnat is writing there.
        KernelError: the kernel refused; the rules are as they were.

    """
    with lock.writer(netns), Namespace(netns) as namespace:
        if not force:
            _require_owner(namespace, None)
        return reconcile(namespace, ruleset, dry_run=dry_run)


def cleanup(netns: str | None = None) -> list[Family]:
    """Remove svcnat's tables from a network namespace, and nothing else; returns the families that had one.

    Raises:
        BusyError: another svcnat is writing there.
        KernelError: the kernel refused.

    """
    with lock.writer(netns), Namespace(netns) as namespace:
        families = namespace.families()
        namespace.commit(nftables.render_cleanup(families))
        return families


# --- with a state file -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Target:
    """A network namespace whose rules follow a state file, the name of the node that it is, and what it looks like."""

    node: str
    netns: str | None
    host: Host = field(default_factory=Host)


@dataclass(frozen=True, slots=True)
class Changed:
    """What a change did to the objects, in the order asked for, and then to the rules of each target."""

    outcomes: tuple[Outcome, ...]
    reports: tuple[Report, ...]


class Cluster:
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
                raise UsageError("--lab comes with its own state file, configuration and network namespaces")
            return Lab.find(lab)
        found = configuration(config)
        file = Path(state or DEFAULT_STATE)
        if create and not file.exists():
            Namespace(netns).close()  # who may not program the rules shall not leave a state file behind
        store = Store.open(file, create=create, service_cidrs=_ranges(found))
        return cls(store, found, [Target(_node_name(found), netns)])

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

    def delete(self, wanted: Iterable[Resource | tuple[type[Resource], str, str]], *, dry_run: bool = False) -> Changed:
        """Delete objects, given as such or as (type, namespace, name).

        Raises:
            NotFoundError: one does not exist; nothing was deleted.

        """
        places = [
            (type(one), one.metadata.namespace, one.metadata.name) if isinstance(one, Resource) else one
            for one in wanted
        ]
        return self._change(lambda transaction: [transaction.delete(*place) for place in places], dry_run=dry_run)

    def follow(self, *, dry_run: bool = False) -> tuple[Report, ...]:
        """Make the rules of every target equal to the objects, whatever is there.

        Raises:
            ConflictError: the rules there follow another state file.
            KernelError: the kernel refused; the rules there are as they were.

        """
        reports = []
        for target in self._targets:
            # The objects are read under the lock: of two commands at once, the later writer has seen both changes.
            with lock.writer(target.netns), Namespace(target.netns) as namespace:
                _require_owner(namespace, self._store.identity)
                wanted = compile_plan(self._plan(target), origin=_origin(self._store.identity))
                reports.append(reconcile(namespace, wanted, dry_run=dry_run))
        return tuple(reports)

    def plans(self) -> list[tuple[Target, Plan]]:
        """What the objects ask of each target, now."""
        return [(target, self._plan(target)) for target in self._targets]

    def connections(self, service: Service) -> dict[tuple[str, int], int]:
        """How many connections each endpoint (address, port) got through a Service since it was added to the rules.

        Only usable endpoints are in the answer. Costs one question to the kernel for each slot.
        """
        with self._store.read() as snapshot:
            slices = snapshot.labelled(
                EndpointSlice, service.metadata.namespace, {SERVICE_LABEL: service.metadata.name}
            )
        counted: dict[tuple[str, int], int] = {}
        for target in self._targets:
            ports = plan_service(service, slices, settings_for(self._config, target.host, target.node))
            with Namespace(target.netns) as namespace:
                for port in ports:
                    for part in backend_keys(port):
                        for backend in part.keys.values():
                            counted.setdefault(backend, 0)
                        for key, (packets, _) in namespace.counters(port.family, part.declared, part.keys).items():
                            counted[part.keys[key]] += packets
        return counted

    def _plan(self, target: Target) -> Plan:
        with self._store.read() as snapshot:
            services, slices = snapshot.list(Service), snapshot.list(EndpointSlice)
            node = snapshot.get(Node, "", target.node)
        zone = node.metadata.labels.get(ZONE_LABEL, "") if node else ""
        return plan(services, slices, settings_for(self._config, target.host, target.node, zone))

    def _change_all(
        self, loaded: Loaded, verb: Callable[[Transaction, Manifest], Outcome], *, dry_run: bool
    ) -> Changed:
        # Explicit addresses are claimed before any is given away, in one transaction as in one set of manifests.
        order = sorted(loaded.manifests, key=lambda manifest: not _asks_for_address(manifest.resource))

        def run(transaction: Transaction) -> list[Outcome]:
            outcomes: dict[str, Outcome] = {}
            findings: list[Finding] = []
            for manifest in order:
                try:
                    with _located({_identity(manifest.resource): manifest}):
                        outcomes[_identity(manifest.resource)] = verb(transaction, manifest)
                except ManifestError as error:
                    findings += error.findings
            if findings:
                raise ManifestError(findings)
            return [outcomes[_identity(manifest.resource)] for manifest in loaded.manifests]

        return self._change(run, dry_run=dry_run)

    def _change(self, run: Callable[[Transaction], list[Outcome]], *, dry_run: bool) -> Changed:
        if dry_run:
            with self._store.transaction(dry_run=True) as transaction:
                return Changed(tuple(run(transaction)), ())
        for target in self._targets:
            # What will not work at all (no privilege, no such namespace) is said before the objects change.
            Namespace(target.netns).close()
        with self._store.transaction() as transaction:
            outcomes = run(transaction)
        try:
            return Changed(tuple(outcomes), self.follow())
        except SvcnatError as error:
            raise UnfollowedError(error, outcomes) from error


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a lab is to be: its nodes, clients and ranges, and its objects."""

    topology: Topology
    manifests: Loaded


def load_lab(
    *paths: str | Path,
    recursive: bool = False,
    strict: bool = False,
    namespace: str = "default",
    stdin: BinaryIO | None = None,
) -> Wanted:
    """Read what a lab is to be: manifests as :func:`load` does, and perhaps one Topology among them.

    Raises:
        ManifestError: every finding of every file.

    """
    from svcnat.lab import topology, topology_file

    sources = read_sources([str(path) for path in paths], recursive=recursive, stdin=stdin)
    loaded = load_texts(sources, strict=strict, namespace=namespace)
    others = tuple(each for each in loaded.skipped if each.subject.partition(" ")[0] != topology_file.KIND)
    return Wanted(topology_file.find(sources) if sources else topology.simple(), replace(loaded, skipped=others))


class Lab(Cluster):
    """A Cluster in network namespaces of its own: nodes, clients, and a namespace for each Pod.

    What a change asks for happens in this order: the objects, the pods that are missing, the rules of every node,
    and last the end of the pods that nobody wants: no connection is ever sent to a pod that has ended. A context
    manager that leaves the lab running; :meth:`down` takes it down. See :mod:`svcnat.lab` for the names of the
    namespaces.
    """

    def __init__(self, lab: labs.Lab) -> None:
        """Work on a lab that runs; :meth:`up` and :meth:`find` are how to get one."""
        self.built = lab
        config = Configuration(cluster_cidr=str(lab.topology.cluster), service_cidr=str(lab.topology.services))
        hosts = {
            node.name: Host(addresses=tuple(node.addresses), primary=tuple(node.addresses))
            for node in lab.topology.nodes
        }
        targets = [Target(node, str(where), hosts[node]) for node, where in lab.nodes]
        super().__init__(lab.store, config, targets)

    @classmethod
    def up(cls, name: str, *paths: str | Path, wanted: Wanted | None = None) -> Self:
        """Build a lab from files and folders, or from what :func:`load_lab` read of them; all of it or nothing.

        Raises:
            ManifestError: every finding of every file; nothing was built.
            LabError: there is one of that name, or it cannot be built.
            KernelError: the kernel refused.

        """
        from svcnat.lab import labs

        wanted = wanted or load_lab(*paths)
        lab = cls(labs.Lab.up(name, wanted.topology))
        try:
            lab.apply(wanted.manifests)
        except BaseException:
            lab.down()
            raise
        return lab

    @classmethod
    def find(cls, name: str) -> Self:
        """Find a lab that runs.

        Raises:
            LabError: there is none of that name, or only parts of one.

        """
        from svcnat.lab import labs

        return cls(labs.Lab.open(name))

    def down(self) -> None:
        """Take the lab down: no namespace, link, process or file stays."""
        self.built.down()

    def exec(
        self, where: str, command: Sequence[str], namespace: str = "default", **options: Any
    ) -> subprocess.CompletedProcess[Any]:
        """Run a command in a pod, a node or a client, and wait for it; `options` are :class:`subprocess.Popen`'s.

        Raises:
            LabError: there is nothing of that name, or no such command.

        """
        return self.built.exec(where, command, namespace, **options)

    def run(self, where: str, function: Callable[[], T], namespace: str = "default") -> T:
        """The result of a Python function that runs in the network namespace of a pod, a node or a client.

        Raises:
            LabError: there is nothing of that name.

        """
        return self.built.run(where, function, namespace)

    def follow(self, *, dry_run: bool = False) -> tuple[Report, ...]:
        """Start the pods that are missing, make the rules of every node follow, end the pods that nobody wants."""
        from svcnat.lab import kubelet

        if dry_run:
            return super().follow(dry_run=True)
        kubelet.start(self.built)
        reports = super().follow()
        kubelet.sweep(self.built)
        return reports


def _origin(identity: str) -> str:
    return f"state {identity}"


def _require_owner(namespace: Namespace, identity: str | None) -> None:
    """Refuse rules that follow a state file, unless it is the one with this identity.

    Raises:
        ConflictError: they do.

    """
    for family in namespace.families():
        _, _, origin = namespace.about(family).partition("from state ")
        if origin and (identity is None or not origin.startswith(identity)):
            raise ConflictError(
                f"the rules in this network namespace follow {'another' if identity else 'a'} state file; "
                f"{'`svcnat cleanup` gives them up' if identity else '--force takes them over'}"
            )


def _ranges(config: Configuration) -> tuple[str, ...]:
    return tuple(map(str, config.service_networks))


def _asks_for_address(resource: Resource) -> bool:
    return isinstance(resource, Service) and resource.spec.cluster_ip not in (None, "", "None")


def _identity(resource: Resource) -> str:
    return f"{kind_of(resource).name} {resource.metadata.namespace}/{resource.metadata.name}"


@contextlib.contextmanager
def _located(manifests: dict[str, Manifest]) -> Iterator[None]:
    """Give findings about objects the file and line of the manifest that the object came from."""
    try:
        yield
    except ManifestError as error:
        raise ManifestError(
            [
                Finding(manifest.source, manifest.locate(finding.field), finding.subject, finding.field, finding.reason)
                if not finding.source and (manifest := manifests.get(finding.subject))
                else finding
                for finding in error.findings
            ]
        ) from error

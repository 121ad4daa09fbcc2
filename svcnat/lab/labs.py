"""Labs: build one, find one, run things in it, take it down.

A lab is a folder below the runtime folder (its record, its store, its stand-in process's socket, two logs) and network
namespaces whose names begin with its own. It changes nothing in the machine's own namespace. Pods come and go in
:mod:`svcnat.lab.kubelet`; rules on the nodes are the agent's (:mod:`svcnat.lab.agent`).
"""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Self, TypeVar

from msgspec.structs import replace

from svcnat.errors import LabError, PrivilegeError
from svcnat.kernel import folders, netns, surroundings
from svcnat.lab import agent, fabric, lines, names, network, process, state, stores, topology, watcher
from svcnat.lab.state import Record
from svcnat.lab.supervision import Crew, Supervision, read_crew
from svcnat.lab.topology import Topology
from svcnat.model.objects import Pod
from svcnat.store.sqlite import Store

T = TypeVar("T")

_PATIENCE = 2.0  # seconds for the supervisor, without which a command starts all the same

_ROOTS_PATH = ("/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin")


class Lab:
    """A lab that runs; a context manager that closes the store, and leaves the lab running."""

    def __init__(self, name: str, folder: Path, plan: Topology, store: Store) -> None:
        self.name = name
        self.folder = folder
        self.topology = plan
        self.store = store

    @classmethod
    def up(cls, name: str, plan: Topology | None = None, *, attended: bool = False, manned: bool = False) -> Lab:
        """Build a lab: its nodes and clients, the process for stand-in servers, and a store that knows the nodes.

        All of it or nothing: whatever fails, what was built is taken down again. `attended`: with an agent, if its
        libraries are installed, and `manned`: with a supervisor; they may still be starting.

        Raises:
            LabError: it exists, or cannot be built.
            KernelError: the kernel refused; PrivilegeError if that is for want of privilege.

        """
        plan = plan or topology.simple()
        folder = state.folder_of(name)
        if os.geteuid() != 0:
            raise PrivilegeError("labs need root; without it, `svcnat lab up --rootless` builds one that is yours")
        if not folder.exists() and _namespaces(name):
            raise LabError(f"parts of an older lab {name} are there: `svcnat lab down {name}` removes them")
        with state.locked(folder, create=True):
            try:
                return cls._build(name, folder, plan, attended=attended and agent.is_possible(), manned=manned)
            except BaseException:
                _remove(name, folder)
                raise

    @classmethod
    def _build(cls, name: str, folder: Path, plan: Topology, *, attended: bool, manned: bool) -> Lab:
        # The processes start up while the network is built.
        standin = process.start_standin(folder)
        attendant = agent.start(folder) if attended else None
        supervisor = None
        try:
            supervisor = process.start_supervisor(folder) if manned else None
            network.build(name, plan)
            if any(each.link.loss for each in plan.members):
                fabric.write(name, plan, ())
            store = stores.create_store(folder, plan)
            record = Record(state.boot(), plan.declaration, standin, attendant, supervisor, path=_search_path())
            state.write(folder, record)
            if network.has_lines(name):
                state.write(folder, replace(record, lines=lines.have(folder, None)))
        except BaseException:
            agent.stop(folder, attendant)
            process.stop_supervisor(folder, supervisor)
            raise
        return cls(name, folder, plan, store)

    @classmethod
    def open(cls, name: str) -> Lab:
        """Find a lab that runs.

        Raises:
            LabError: there is none of that name, or only parts of one.

        """
        folder = state.folder_of(name)
        plan = topology.plan(state.read(folder).topology)
        return cls(name, folder, plan, stores.open_store(folder, plan))

    def close(self) -> None:
        """Close the store; the lab goes on."""
        self.store.close()

    def down(self) -> None:
        """Take the lab down: see :func:`down`."""
        self.close()
        down(self.name)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def nodes(self) -> tuple[tuple[str, Path], ...]:
        """Each node's name and network namespace, where its rules belong."""
        return tuple((node.name, self._member(node.name)) for node in self.topology.nodes)

    @property
    def clients(self) -> tuple[tuple[str, Path], ...]:
        """Each client's name and network namespace."""
        return tuple((client.name, self._member(client.name)) for client in self.topology.clients)

    def has(self, where: str, namespace: str = "default") -> bool:
        """True if `where` is a node, a client, the router or a pod of this lab, whether or not it runs."""
        return where in self._members() or self._pod(where, namespace) is not None

    def netns_of(self, where: str, namespace: str = "default") -> Path:
        """The network namespace of a node, ``client``, ``client-2``, ``router``, or a pod: POD or NAMESPACE/POD.

        A pod on the host network is in its node's.

        Raises:
            LabError: there is nothing of that name, or it has not started.

        """
        if where in self._members():
            self._require_power(where)
            return self._member(where)
        before, slash, after = where.partition("/")
        key = names.pod(self.name, before, after) if slash else names.pod(self.name, namespace, where)
        started = state.read(self.folder).pods.get(key)
        if started is None:
            pod = self._pod(where, namespace)
            if pod is not None and pod.spec.node_name:
                self._require_power(pod.spec.node_name, f"pod {where} does not run: ")
            raise LabError(f"lab {self.name} has no pod, node or client {where!r} that runs")
        return self._member(started.node) if started.host_network else netns.path(key)

    def crew_of(self, where: str, namespace: str = "default") -> Crew | None:
        """What a pod's programs see, None of a node, a client or the router."""
        if where in self._members():
            return None
        before, slash, after = where.partition("/")
        started = state.read(self.folder).pods.get(
            names.pod(self.name, *((before, after) if slash else (namespace, where)))
        )
        return read_crew(self.folder, started.device) if started else None

    def stands_in_for(self, pod: str, namespace: str, container: str) -> bool:
        """True if a stand-in answers for a container of a pod that runs."""
        started = state.read(self.folder).pods.get(names.pod(self.name, namespace, pod))
        return any(each.name == container and not each.command for each in (started.programs if started else ()))

    def run(self, where: str, function: Callable[[], T], namespace: str = "default") -> T:
        """The result of a Python function, called in a thread that is in the network namespace of `where`.

        In a pod it looks names up as the pod's programs do.

        Raises:
            LabError: see :meth:`netns_of`.

        """
        place, crew = self.netns_of(where, namespace), self.crew_of(where, namespace)
        if crew is None:
            return netns.call(place, function)
        return surroundings.call(place, crew.seen_by(""), crew.hostname, function)

    def spawn(
        self, where: str, command: Sequence[str], namespace: str = "default", container: str = "", **options: Any
    ) -> subprocess.Popen[Any]:
        """Start a command in the network namespace of `where`; `options` are those of :class:`subprocess.Popen`.

        In a pod it also has the pod's host name, ``/etc/hosts`` and ``/etc/resolv.conf``, and beside our environment
        that of the `container`, or of the first one, with its volumes. If the pod has processes, it sees these, and no
        others.

        Raises:
            LabError: see :meth:`netns_of`; or there is no such command, or container.

        """
        place, crew = self.netns_of(where, namespace), self.crew_of(where, namespace)

        def start() -> subprocess.Popen[Any]:
            try:
                return subprocess.Popen(list(command), **options)
            except OSError as error:
                raise LabError(f"cannot run {command[0]!r}: {os.strerror(error.errno or 0)}") from error

        if crew is None:
            return netns.call(place, start)
        if container and container not in crew.environments:
            raise LabError(f"pod {crew.name} has no container {container!r}: it has {', '.join(crew.environments)}")
        container = container or next(iter(crew.environments), "")
        variables = crew.environments.get(container, {})
        given = options.get("env")
        options["env"] = {**os.environ, **variables} if given is None else {**variables, **given}
        with self._house_of(crew) as house:
            return surroundings.call(place, crew.seen_by(container), crew.hostname, start, house)

    @contextlib.contextmanager
    def _house_of(self, crew: Crew) -> Iterator[int]:
        """A descriptor of where a pod's processes are; -1 if it has none."""
        house = -1
        if crew.tasks:
            with contextlib.suppress(LabError), Supervision(self.folder, _PATIENCE) as supervision:
                house = supervision.enter(crew.key)
        try:
            yield house
        finally:
            if house >= 0:
                os.close(house)

    def exec(
        self, where: str, command: Sequence[str], namespace: str = "default", **options: Any
    ) -> subprocess.CompletedProcess[Any]:
        """Run a command in the network namespace of `where` and wait for it; `options` are Popen's.

        Raises:
            LabError: see :meth:`spawn`.

        """
        with self.spawn(where, command, namespace, **options) as running:
            output, errors = running.communicate()
            return subprocess.CompletedProcess(list(command), running.returncode, output, errors)

    def _pod(self, where: str, namespace: str) -> Pod | None:
        before, slash, after = where.partition("/")
        with self.store.read() as snapshot:
            return snapshot.get(Pod, before, after) if slash else snapshot.get(Pod, namespace, where)

    def _require_power(self, node: str, consequence: str = "") -> None:
        if node in state.read(self.folder).off:
            hint = f"`svcnat --lab {self.name} lab node start {node}` starts it"
            raise LabError(f"{consequence}node {node} of lab {self.name} is off: {hint}")

    def _members(self) -> set[str]:
        return {names.ROUTER, *(name for name, _ in (*self.nodes, *self.clients))}

    def _member(self, name: str) -> Path:
        return netns.path(names.member(self.name, name))


def enter(name: str) -> None:
    """Go where the lab is, if it is a rootless one: see :func:`svcnat.lab.rootless.enter`.

    Raises:
        LabError: we cannot.

    """
    if state.keeper_of(name).exists():
        from svcnat.lab import rootless

        rootless.enter(name)


def down(name: str) -> None:
    """Take a lab down, whatever is left of it: its processes, namespaces, links and files.

    Raises:
        LabError: nothing of that name is there.

    """
    folder = state.folder_of(name)
    if state.keeper_of(name).exists():
        from svcnat.lab import rootless

        if rootless.down(name):
            return
    if folder.is_dir():
        with state.locked(folder):
            _remove(name, folder)
    elif _namespaces(name):
        _remove(name, folder)
    else:
        raise LabError(f"there is no lab {name}: `svcnat lab list` names those that run")


def _remove(name: str, folder: Path) -> None:
    standin = attendant = supervisor = watching = carrying = None
    with contextlib.suppress(LabError):
        record = state.read(folder)
        standin, attendant = record.standin, record.agent
        supervisor, watching, carrying = record.supervisor, record.watcher, record.lines
    watcher.stop(folder, watching)
    lines.stop(folder, carrying)
    agent.stop(folder, attendant)
    process.stop_supervisor(folder, supervisor)
    process.stop_standin(folder, standin)
    namespaces = _namespaces(name)
    process.end_inhabitants(netns.identity(namespace) for namespace in namespaces)
    network.remove(namespaces)
    folders.remove(folder)
    state.keeper_of(name).unlink(missing_ok=True)


def _search_path() -> str:
    """Where the programs of containers are looked for: where ours are, and root's."""
    words = [*os.environ.get("PATH", "").split(os.pathsep), *_ROOTS_PATH]
    return os.pathsep.join(dict.fromkeys(word for word in words if word.startswith("/")))


def _namespaces(name: str) -> list[str]:
    return [namespace for namespace in netns.names() if namespace.startswith(names.prefix_of(name))]

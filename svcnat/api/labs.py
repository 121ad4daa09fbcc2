"""A Cluster in network namespaces of its own."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Self, TypeVar

from svcnat.api import lab_agents
from svcnat.api.cluster import Cluster
from svcnat.api.edits import Changed
from svcnat.controllers.members import is_terminating
from svcnat.controllers.readiness import GATES_NOT_READY
from svcnat.errors import EndedError, LabError, SvcnatError
from svcnat.kernel.errands import at_home
from svcnat.model.manifests import Loaded
from svcnat.model.manifests import load as load_texts
from svcnat.model.objects import Pod, Resource
from svcnat.model.pods import is_ready, lasting
from svcnat.store.folder import read_sources

if TYPE_CHECKING:
    import subprocess

    from svcnat.agent.control import Client
    from svcnat.agent.report import Report
    from svcnat.lab import labs  # imported late: only labs pay for them
    from svcnat.lab.topology import Topology

T = TypeVar("T")
Progress = Callable[[int, int], None]
"""Is told how many pods are ready, of how many that have readiness probes."""

READY_SECONDS = 60.0
_LOOK_SECONDS = 1.0
_PASSES = 1_000  # more pods than that have never waited for each other
_TRIES = 4  # an agent may be killed at any moment, also while it starts


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
    and last the end of the pods that nobody wants: no connection is ever sent to a pod that has ended. The rules are
    its agent's, a process that every change finds running or starts again; without the libraries of the extra "agent"
    the change makes the rules itself, and nobody probes pods. A context manager that leaves the lab running;
    :meth:`down` takes it down. See :mod:`svcnat.lab` for the names of the namespaces.
    """

    def __init__(self, lab: labs.Lab) -> None:
        """Work on a lab that runs; :meth:`up` and :meth:`find` are how to get one."""
        self.built = lab
        super().__init__(lab.store, lab_agents.configuration_of(lab.topology), lab_agents.targets_of(lab))

    @classmethod
    def up(
        cls,
        name: str,
        *paths: str | Path,
        wanted: Wanted | None = None,
        timeout: float = READY_SECONDS,
        progress: Progress | None = None,
        rootless: bool = False,
    ) -> Self:
        """Build a lab from files and folders, or from what :func:`load_lab` read of them; all of it or nothing.

        It waits until its pods are ready, but not longer than `timeout` seconds: see :meth:`wait`. With `rootless` it
        is in a user namespace, where this program goes on as root: see :meth:`find`.

        Raises:
            ManifestError: every finding of every file; nothing was built.
            LabError: there is one of that name, or it cannot be built.
            KernelError: the kernel refused; PrivilegeError if that is for want of root, or of user namespaces.

        """
        from svcnat.lab import labs, nameserver

        wanted = wanted or load_lab(*paths)
        manifests = wanted.manifests.manifests
        naming = nameserver.manifests(wanted.topology, manifests) if nameserver.is_possible() else ()
        with _begun(name) if rootless else contextlib.nullcontext():
            lab = cls(labs.Lab.up(name, wanted.topology, attended=True, manned=bool(naming)))
        try:
            lab.apply(replace(wanted.manifests, manifests=(*naming, *manifests)))
        except BaseException:
            lab.down()
            raise
        lab.wait(timeout, progress)
        return lab

    @classmethod
    def find(cls, name: str) -> Self:
        """Find a lab that runs.

        If it is a rootless one, the program goes on inside, as root of the lab's user namespace, with another process
        id: its first process only waits for it. That is not possible in a program with threads, nor for a second lab.

        Raises:
            LabError: there is none of that name, or only parts of one, or we cannot go inside.

        """
        from svcnat.lab import labs

        labs.enter(name)
        return cls(labs.Lab.open(name))

    @property
    def nameless(self) -> bool:
        """True if it is to have DNS, and has none for want of the libraries of the extra "dns"."""
        from svcnat.lab import nameserver

        return self.built.topology.dns and not nameserver.is_possible()

    @property
    def attended(self) -> bool:
        """True if an agent keeps the rules."""
        from svcnat.lab import agent, state

        return agent.runs(self.built.folder, state.read(self.built.folder).agent)

    def wait(self, timeout: float = READY_SECONDS, progress: Progress | None = None) -> tuple[str, ...]:
        """Wait, at most `timeout` seconds, until all pods that run are ready, as far as that takes time.

        That is, until their init containers have done their work, and their readiness probes have succeeded. The answer
        is the pods, as NAMESPACE/NAME, that are not ready. `progress` is told how many of how many are.
        """
        end = time.monotonic() + timeout
        with self.news() as news:
            while True:
                probed = self._awaited()
                unready = tuple(pod.metadata.qualified_name for pod in probed if not is_ready(pod))
                left = end - time.monotonic()
                if not unready or left <= 0:
                    if probed:
                        # The store knows of the last probe before the rules do.
                        with contextlib.suppress(SvcnatError):
                            self._have_rules()
                    return unready
                if progress:
                    progress(len(probed) - len(unready), len(probed))
                if not news.wait(min(left, _LOOK_SECONDS)):
                    time.sleep(min(left, _LOOK_SECONDS))

    def _awaited(self) -> list[Pod]:
        with self.read() as snapshot:
            return [pod for pod in snapshot.list(Pod) if is_awaited(pod)]

    def down(self) -> None:
        """Take the lab down: no namespace, link, process or file stays."""
        self.built.down()

    def stop_nodes(self, *names: str) -> tuple[str, ...]:
        """Switch nodes off, as by a power cut: all that runs there ends at once, and nobody is told.

        The control plane notices after the topology's nodeMonitorGraceSeconds: nodes and their pods become unready, and
        services go on with the others. After podEvictionSeconds more pods are deleted, and those of Deployments made
        again elsewhere. The answer is the nodes that were on.

        Raises:
            LabError: the lab has no such node.

        """
        from svcnat.lab import nodes

        stopped = nodes.stop(self.built, names)
        self.follow()
        return stopped

    def start_nodes(self, *names: str) -> tuple[str, ...]:
        """Switch nodes on again: their pods start anew, with other addresses. The answer is those that were off.

        Raises:
            LabError: the lab has no such node.

        """
        from svcnat.lab import nodes

        started = nodes.start(self.built, names)
        self.follow()
        return started

    def partition(self, *names: str, others: Sequence[str] = ()) -> None:
        """Drop every packet between nodes and `others`, nodes or clients; by default between them and everybody else.

        Nodes that nobody reaches are taken for lost, as after :meth:`stop_nodes`; what runs there goes on.

        Raises:
            LabError: the lab has no such node, or one is on both sides.

        """
        from svcnat.lab import nodes

        nodes.partition(self.built, names, others)
        self.follow()

    def heal(self, *members: str) -> None:
        """Let nodes and clients reach everybody again; by default all of them.

        Raises:
            LabError: the lab has nothing of that name.

        """
        from svcnat.lab import nodes

        nodes.heal(self.built, members)
        self.follow()

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

    def delete(
        self,
        wanted: Iterable[Resource | tuple[type[Resource], str, str]],
        *,
        dry_run: bool = False,
        grace: int | None = None,
        wait: bool = True,
    ) -> Changed:
        """Delete objects, and `wait` until their pods have ended: errors as :meth:`Cluster.delete`.

        A pod with processes terminates: it stays, with its endpoints terminating, until they have ended, which they are
        to do in `grace` seconds, or its own terminationGracePeriodSeconds. With 0 it goes at once, and they are killed.
        """
        changed = super().delete(wanted, dry_run=dry_run, grace=grace)
        if not dry_run and wait:
            at_home(self._see_off)
        return changed

    def _see_off(self) -> None:
        """Wait until the pods that are ending have ended."""
        from svcnat.lab.supervision import Supervision

        while self._end_pods(frozenset()):
            with contextlib.suppress(LabError), Supervision(self.built.folder) as supervision:
                supervision.identify()
                if self._end_pods(frozenset()):
                    supervision.wait(_LOOK_SECONDS)

    def _end_pods(self, gone: frozenset[str]) -> bool:
        """End the pods that terminate, and those `gone` from the rules, by uid; True if some take their time."""
        from svcnat.lab import kubelet

        done = kubelet.retire(self.built)
        # The watcher may have taken some out of the store, and not come to their end.
        if unwanted := kubelet.unwanted(self.built) - gone:
            gone |= unwanted
            self._have_rules()
        return bool(done.ending + kubelet.sweep(self.built, gone).ending)

    def follow(self, *, dry_run: bool = False) -> tuple[Report, ...]:
        """Start the pods that are missing, make the rules of every node follow, end the pods that nobody wants.

        Pods whose processes take their time of grace go later; nobody waits for them. A function in a pod may ask, too.
        """
        return super().follow(dry_run=True) if dry_run else at_home(self._follow)

    def _follow(self) -> tuple[Report, ...]:
        from svcnat.lab import agent, kubelet, watcher

        probing = agent.have(self.built.folder)
        for _ in range(_PASSES):
            # A pod that is ready may be what others have waited for: the next of a StatefulSet, or of a rollout.
            done = kubelet.start(self.built, probing=probing)
            if not (done.started or done.retired):
                break
        gone = kubelet.unwanted(self.built)
        reports = self._have_rules()
        self._end_pods(gone)
        watcher.have(self.built.folder)
        return reports

    def _have_rules(self) -> tuple[Report, ...]:
        for _ in range(_TRIES - 1):
            # Another agent takes the place of one that died.
            with contextlib.suppress(EndedError, LabError):
                return super().follow()
        return super().follow()

    def _require(self) -> None:
        from svcnat.lab import agent

        # It starts while the objects change and pods start; what it cannot do, it says when it is asked to.
        if not agent.have(self.built.folder):
            super()._require()

    def _agent(self) -> Client | None:
        from svcnat.lab import agent

        folder = self.built.folder
        return agent.connect(folder) if agent.have(folder) else None


def is_awaited(pod: Pod) -> bool:
    """Tell whether a pod becomes ready later: by a probe, when its init containers are done, or because it is new.

    New is one that was made because another got ready, as the next of a StatefulSet, and that nobody has started yet.
    What a readiness gate waits for may never come.
    """
    status = pod.status
    if is_terminating(pod) or any(each.reason == GATES_NOT_READY for each in status.conditions):
        return False
    if status.phase == "Running":
        return any(each.readiness_probe for each in lasting(pod))
    if status.phase not in (None, "Pending"):
        return False
    return bool(pod.spec.init_containers) if status.pod_ip else not status.conditions


def _begun(name: str) -> contextlib.AbstractContextManager[None]:
    from svcnat.lab import rootless

    return rootless.begun(name)

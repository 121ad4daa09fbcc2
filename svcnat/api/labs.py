"""A Cluster in network namespaces of its own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Self, TypeVar

from svcnat.api.cluster import Cluster, Target
from svcnat.model.configuration import Configuration
from svcnat.model.manifests import Loaded
from svcnat.model.manifests import load as load_texts
from svcnat.store.folder import read_sources

if TYPE_CHECKING:
    import subprocess

    from svcnat.agent.reconcile import Report
    from svcnat.lab import labs  # imported late: only labs pay for them
    from svcnat.lab.topology import Topology

T = TypeVar("T")


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
        targets = [Target(node, str(where)) for node, where in lab.nodes]
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

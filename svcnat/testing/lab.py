"""The object that the fixtures of the pytest plugin give: a lab to apply manifests to, and to ask.

It is built with the first manifests, so that they can bring a Topology, under a name that no other test has, and taken
down with all that was started in it. When something fails, the message says what was asked and what was there.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import re
import secrets
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from textwrap import dedent
from typing import Any, TypeVar

from svcnat.api.labs import Lab, Wanted, load_lab
from svcnat.errors import LabError, NotFoundError, UsageError
from svcnat.lab.labs import Lab as BuiltLab
from svcnat.lab.topology import simple
from svcnat.model.kinds import find
from svcnat.model.manifests import Loaded
from svcnat.model.objects import Pod, Resource, Service
from svcnat.model.selectors import Selector
from svcnat.testing import contents, traffic
from svcnat.testing.contents import NAMESPACE, Endpoint
from svcnat.testing.destinations import Destination, Names
from svcnat.testing.node import Node
from svcnat.testing.place import Place
from svcnat.testing.traffic import PATIENCE, Answer, Flows

T = TypeVar("T")

_READY_SECONDS = 30.0
_PAUSE = 0.02
_GRACE = 2.0
_CLIENT = "client"
_REFERENCE = re.compile(r"[A-Za-z.]+/[^/\s:]+")


class LabFixture:
    """A lab for tests; see ``docs/testing.md``. Names are of the namespace ``default``, or ``NAMESPACE/NAME``."""

    def __init__(self) -> None:
        self.name = f"pytest-{os.getpid()}-{secrets.token_hex(3)}"
        self._lab: Lab | None = None
        self._running: list[subprocess.Popen[Any]] = []

    # Objects

    def apply(self, what: str | Path, *, timeout: float = _READY_SECONDS, ready: bool = False) -> None:
        """Create or change objects: YAML or JSON text, or a file or folder. Pods run and rules follow before it ends.

        The first manifests may have a Topology among them; without one, a lab has one node and one client. With
        `ready` it waits, as :meth:`wait` does, until readiness probes succeed.

        Raises:
            ManifestError: every finding; nothing was changed.
            UsageError: a Topology for a lab that is built already.
            KernelError: the kernel refused.

        """
        wanted = _read(what)
        if self._lab is None:
            self._build(wanted)
        else:
            if wanted.topology not in (simple(), self.built.topology):
                raise UsageError(f"lab {self.name} is built: its Topology has to come with the first manifests")
            self._lab.apply(wanted.manifests)
        if ready:
            self.wait(timeout=timeout)

    def delete(self, *what: str | Path) -> None:
        """Delete objects: ``KIND/NAME``, or what is in a manifest, given as for :meth:`apply`.

        Raises:
            NotFoundError: one of them does not exist; nothing was deleted.

        """
        wanted: list[Resource | tuple[type[Resource], str, str]] = []
        for each in what:
            if reference := _reference(each):
                wanted.append(reference)
            else:
                wanted += [manifest.resource for manifest in _read(each).manifests.manifests]
        self.lab.delete(wanted)

    def kill(self, *pods: str | Place) -> None:
        """Delete pods: connections go elsewhere first, then all that runs in them ends; a Deployment makes new ones.

        Raises:
            NotFoundError: there is no such pod.

        """
        wanted = [contents.split(str(each)) for each in pods]
        try:
            self.lab.delete([(Pod, namespace, name) for namespace, name in wanted])
        except NotFoundError as error:
            raise NotFoundError(f"{error}\n{self}") from error

    def wait(
        self, condition: Callable[[], T] | None = None, *, timeout: float = _READY_SECONDS, what: str = ""
    ) -> T | None:
        """Wait until a function returns something true, and return that; without one, until every pod is ready.

        A function that raises OSError or AssertionError is asked again. Afterwards the rules of all nodes are as the
        objects are. `what` names the condition in the message of a failure.

        Raises:
            TimeoutError: it did not come true in `timeout` seconds.

        """
        if condition is None:
            if unready := self.lab.wait(timeout):
                raise TimeoutError(f"not ready after {timeout:g} s: {', '.join(unready)}\n{self}")
            self.lab.follow()
            return None
        end = time.monotonic() + timeout
        while True:
            failure = ""
            try:
                if result := condition():
                    self.lab.follow()
                    return result
            except (OSError, AssertionError) as error:
                said = getattr(error, "strerror", None) or str(error)
                failure = f"; at last: {said.partition(chr(10))[0]}"
            if time.monotonic() > end:
                subject = what or getattr(condition, "__qualname__", repr(condition))
                raise TimeoutError(f"{subject} did not come true in {timeout:g} s{failure}\n{self}")
            time.sleep(_PAUSE)

    # Places

    def pod(self, name: str) -> Place:
        """A pod by name, ``NAME`` or ``NAMESPACE/NAME``.

        Raises:
            LabError: there is none.

        """
        if contents.split(name) not in {(each.metadata.namespace, each.metadata.name) for each in self._names().pods}:
            raise LabError(f"lab {self.name} has no pod {name!r}\n{self}")
        return Place(self, name)

    def pods(self, selector: str = "", namespace: str = NAMESPACE) -> list[Place]:
        """The pods with labels as kubectl's -l takes them, ``app=web,tier!=db``; all of the namespace without."""
        wanted = Selector.parse(selector)
        return [
            Place(self, contents.name_of(each))
            for each in self._names().pods
            if each.metadata.namespace == namespace and wanted.matches(each.metadata.labels)
        ]

    def at(self, where: str) -> Place:
        """A node, a client, the router, or a pod that runs.

        Raises:
            LabError: there is nothing of that name.

        """
        self.built.netns_of(where)
        return Place(self, where)

    def node(self, name: str) -> Node:
        """A node, which can be stopped, started, and cut off.

        Raises:
            UsageError: there is none of that name.

        """
        if name not in {node for node, _ in self.built.nodes}:
            raise UsageError(f"there is no node {name!r}\n{self}")
        return Node(self, name)

    @property
    def client(self) -> Place:
        """The host outside the cluster."""
        return self.at(_CLIENT)

    def netns(self, where: str) -> str:
        """The name of the network namespace of a pod, a node or a client."""
        return Place(self, where).netns

    def addresses_of(self, where: str) -> tuple[str, ...]:
        """The addresses of a pod, a node or a client.

        Raises:
            UsageError: there is nothing of that name.

        """
        names = self._names()
        if where in names.hosts:
            return names.hosts[where]
        for pod in names.pods:
            if (pod.metadata.namespace, pod.metadata.name) == contents.split(where):
                return tuple(each.ip for each in pod.status.pod_ips)
        raise UsageError(f"there is no pod, node or client {where!r}\n{self}")

    def exec(self, where: str, command: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
        """Run a command in a pod, a node or a client: see :meth:`Place.run`."""
        return Place(self, where).run(command, **options)

    def spawn(self, where: str, command: list[str], **options: Any) -> subprocess.Popen[Any]:
        """Start a command that goes on: see :meth:`Place.spawn`."""
        return Place(self, where).spawn(command, **options)

    # Services

    @property
    def services(self) -> dict[str, Service]:
        """Every Service by name, ``NAMESPACE/NAME`` outside of ``default``; ``spec.cluster_ip`` is its address."""
        return {contents.name_of(each): each for each in self._names().services}

    def endpoints(self, service: str) -> list[Endpoint]:
        """What is behind a service, each pod once, the ready ones first.

        Raises:
            UsageError: there is no such service.

        """
        namespace, name = contents.split(service)
        if (namespace, name) not in {(each.metadata.namespace, each.metadata.name) for each in self._names().services}:
            raise UsageError(f"there is no service {service!r}\n{self}")
        with self.lab.read() as snapshot:
            return contents.endpoints(snapshot, namespace, name)

    # Traffic

    def connect(self, to: str, *, from_: str | Place = _CLIENT, **how: Any) -> Answer:
        """Ask ``back-end:80`` from a pod, a node or a client, and say who answered: see :meth:`Place.connect`."""
        return self.send(str(from_), to, **how)

    def flows(
        self,
        count: int,
        *,
        to: str,
        from_: str | Place = _CLIENT,
        strict: bool = True,
        protocol: str | None = None,
        family: int | None = None,
        patience: float = PATIENCE,
        say: bytes = b"hello\n",
    ) -> Flows:
        """Ask `count` times, and say which pods answered and which sources they saw.

        `protocol` is TCP or UDP, by default the service's; `family` is 4 or 6, by default the service's first. Without
        `strict` flows may fail, and are in the result.

        Raises:
            UsageError: there is nothing of that name.
            OSError: one got no answer.

        """
        where, destination = str(from_), self._destination(to, protocol, family)
        place = self.built.netns_of(where)
        with self._explained(where, destination):
            return traffic.many(count, lambda: traffic.ask(place, destination, patience, say), strict=strict)

    def send(
        self,
        where: str,
        to: str,
        *,
        protocol: str | None = None,
        family: int | None = None,
        patience: float = PATIENCE,
        say: bytes = b"hello\n",
    ) -> Answer:
        """One flow from `where`: see :meth:`Place.connect`."""
        destination = self._destination(to, protocol, family)
        with self._explained(where, destination):
            return traffic.ask(self.built.netns_of(where), destination, patience, say)

    def open(self, where: str, to: str, *, protocol: str | None, family: int | None, patience: float) -> socket.socket:
        """A socket from `where`: see :meth:`Place.socket`."""
        destination = self._destination(to, protocol, family)
        with self._explained(where, destination):
            return traffic.connected(self.built.netns_of(where), destination, patience)

    # The lab itself

    @property
    def lab(self) -> Lab:
        """The lab as the Python API has it; built now if it is not yet."""
        if self._lab is None:
            self._build(Wanted(simple(), Loaded((), (), ())))
        assert self._lab is not None
        return self._lab

    @property
    def built(self) -> BuiltLab:
        """The lab's nodes, pods and folder."""
        return self.lab.built

    def keep(self, process: subprocess.Popen[Any]) -> None:
        """End a process with the lab."""
        self._running.append(process)

    def close(self) -> None:
        """Take the lab down, with everything that was started in it."""
        lab, self._lab = self._lab, None
        try:
            self._end_processes()
        finally:
            if lab:
                lab.down()

    def __str__(self) -> str:
        """What is in the lab, for whoever reads a failure."""
        if self._lab is None:
            return f"lab {self.name}: nothing was applied"
        return f"lab {self.name}:\n{contents.describe(self.lab)}"

    def _build(self, wanted: Wanted) -> None:
        self._lab = Lab.up(self.name, wanted=wanted, timeout=0)

    def _names(self) -> Names:
        return contents.names(self.lab)

    def _destination(self, to: str, protocol: str | None, family: int | None) -> Destination:
        return self._names().resolve(to, protocol, family)

    @contextlib.contextmanager
    def _explained(self, where: str, destination: Destination) -> Iterator[None]:
        """Say in every error what was asked, and what was there."""
        try:
            yield
        except OSError as error:
            asked = f"{where} asked {destination}: {traffic.reason(error)}\n{self}"
            # The number decides which of OSError's subclasses it is.
            raise OSError(error.errno or errno.ETIMEDOUT, asked) from error

    def _end_processes(self) -> None:
        running, self._running = self._running, []
        for process in running:
            process.terminate()
        for process in running:
            try:
                process.communicate(timeout=_GRACE)
            except subprocess.TimeoutExpired:
                process.kill()
                process.communicate()


def _read(what: str | Path) -> Wanted:
    """Manifests of a text, if it has the look of one (indented as a whole, as tests have them), or else of a path."""
    if isinstance(what, str) and ("\n" in what or ": " in what or what.lstrip().startswith("{")):
        return load_lab("-", stdin=io.BytesIO(dedent(what).encode()))
    return load_lab(what)


def _reference(what: str | Path) -> tuple[type[Resource], str, str] | None:
    """The object that ``KIND/NAME`` means; None if it is something else."""
    if not isinstance(what, str) or not _REFERENCE.fullmatch(what) or Path(what).exists():
        return None
    word, _, name = what.partition("/")
    kind = find(word)
    return (kind.type, NAMESPACE if kind.namespaced else "", name) if kind else None


__all__ = ["Answer", "Endpoint", "Flows", "LabFixture", "Node", "Place"]

"""The kubelet of a lab: makes the pods that run equal to the pods in the store.

Level-triggered: each pass compares what is there with what should be, whatever happened before. :func:`start` brings
up what is missing and writes the pods' status; :func:`sweep` ends what is gone. Between the two belongs a sync of the
rules, so that no connection is sent to a pod that has ended. What containers run is the supervisor's affair
(:mod:`svcnat.lab.crews`), and nothing is probed here: a pod is ready when its stand-in servers listen and its processes
run, or, with a readinessProbe, when the agent's first probe succeeds. What a pass knows, and concludes, is
:mod:`svcnat.lab.inventory`'s.
"""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager, suppress

from msgspec.structs import replace

from svcnat.controllers.members import is_terminating
from svcnat.errors import ExhaustedError, LabError
from svcnat.kernel import netns
from svcnat.lab import crews, lines, names, network, nodes, power, process, state
from svcnat.lab.addressing import Addresses, next_pod
from svcnat.lab.containers import Place
from svcnat.lab.control import Control, StandIn
from svcnat.lab.crews import Crews, Furnisher
from svcnat.lab.inventory import STILL_ENDING, Inventory, Pass, ports_of
from svcnat.lab.labs import Lab
from svcnat.lab.state import Started
from svcnat.lab.topology import Node
from svcnat.model.objects import Pod

__all__ = ["Pass", "is_settled", "retire", "start", "sweep", "unwanted"]

_LEAST_GRACE = 1.0  # seconds, as the kubelet's, for pods that are to go at once


def start(lab: Lab, *, probing: bool = True) -> Pass:
    """Start every pod of the store that does not run, and write the status of all that need it, in one transaction.

    A pod runs in a network namespace of its own with a new address, on the node that it names or that has the fewest;
    with ``hostNetwork`` in its node's. One that was deleted and made anew, or has other ports, starts anew. If nobody
    is `probing`, a pod with a readinessProbe is ready like any other.

    Raises:
        LabError: the lab is gone, or its stand-in servers cannot be run.
        KernelError: the kernel refused; pods of this pass do not run, the others do.

    """
    with _Round.begin(lab, probing=probing) as now:
        now.power()
        now.judge()
        now.let_go(now.idle())
        now.stop(key for key, pod in now.wanted.items() if key in now.pods and not now.runs(key, pod))
        now.clear_away_strangers()
        # The cluster's own pods come last: addresses begin with those that somebody asked for.
        new = [key for key in now.wanted if key not in now.pods]
        now.start(sorted(new, key=lambda key: now.wanted[key].metadata.namespace == names.SYSTEM))
        now.renew()
        now.man()
        now.serve()
        now.report()
        return now.done


def unwanted(lab: Lab) -> frozenset[str]:
    """The uids of the pods that run and are no longer in the store."""
    now = _Round(lab, probing=True)
    return frozenset(started.uid for key, started in now.pods.items() if not now.is_wanted(key, started))


def retire(lab: Lab) -> Pass:
    """End the processes of pods that terminate, and take those pods out of the store whose processes have ended.

    These are `retired`, and go with the next sweep, before which belongs a sync of the rules; the others are `ending`.

    Raises:
        LabError: the lab is gone.

    """
    with _Round.begin(lab) as now:
        now.retire()
        return now.done


def sweep(lab: Lab, gone: Collection[str] | None = None) -> Pass:
    """End every pod that is no longer in the store: processes, servers after the requests in hand, then its namespace.

    A pod whose processes do not end at once is `ending`, and is gone after a later sweep.
    With `gone`, which :func:`unwanted` told before the rules followed, no other pod begins to end: one that was deleted
    since then still gets connections.

    Raises:
        LabError: the lab is gone.
        KernelError: the kernel refused.

    """
    with _Round.begin(lab) as now:
        now.stop(
            key
            for key, started in now.pods.items()
            if started.ending or (not now.is_wanted(key, started) and (gone is None or started.uid in gone))
        )
        return now.done


def is_settled(lab: Lab) -> bool:
    """Tell whether a pass would have nothing to do, but for stand-in servers that ended; it changes nothing.

    Raises:
        LabError: the lab is gone.

    """
    return _Round(lab, probing=True).is_settled()


class _Round(Inventory):
    """One pass, with the lab locked."""

    def __init__(self, lab: Lab, *, probing: bool) -> None:
        record = state.read(lab.folder)
        super().__init__(lab, record, Crews(lab.folder, record.supervisor, self._note_supervisor), probing=probing)
        self._cursors = dict(record.cursors)
        self._renewed: dict[str, Started] = {}

    @classmethod
    @contextmanager
    def begin(cls, lab: Lab, *, probing: bool = True) -> Iterator[_Round]:
        """Lock the lab, and remember at the end what runs, whatever goes wrong."""
        with state.locked(lab.folder):
            this = cls(lab, probing=probing)
            try:
                yield this
            finally:
                this._remember()

    def power(self) -> None:
        """Take everything from the nodes that are off, at once and in silence, and build those that are on again.

        A node whose namespace somebody has deleted has lost its power, too: the links of its pods went with it.
        """
        for node in self.lab.topology.nodes:
            if node.name in self.record.off:
                self._cut(node)
            elif node.name in self.record.unfinished or not power.is_on(self.lab, node):
                self._rebuild(node)
        if network.has_lines(self.lab.name):
            self.record = replace(self.record, lines=lines.have(self.lab.folder, self.record.lines))
        self._remember()

    def _cut(self, node: Node) -> None:
        lost = {key: started for key, started in self.pods.items() if started.node == node.name}
        power.cut(self.lab, node, lost, self.crews)
        for key in lost:
            del self.pods[key]

    def _rebuild(self, node: Node) -> None:
        """Build a node from nothing; if this process is killed meanwhile, the next pass knows."""
        others = tuple(name for name in self.record.unfinished if name != node.name)
        self.record = replace(self.record, unfinished=(*others, node.name))
        self._remember()
        self._cut(node)
        power.restore(self.lab, node)
        self.record = replace(self.record, unfinished=others)

    def judge(self) -> None:
        """Let the control plane draw its conclusions from which nodes it hears, and choose the way in."""
        self.record = replace(self.record, pods=self.pods)
        if nodes.settle(self.lab, self.record, self.known.values(), self.wanted.values()):
            self.read()
        entrance = nodes.entrance(self.record, self.lab.topology)
        if entrance != (self.record.entrance or self.lab.topology.nodes[0].name):
            network.enter_by(self.lab.name, self.lab.topology, self.nodes[entrance])
            self.record = replace(self.record, entrance=entrance)

    def retire(self) -> None:
        """Ask the processes of pods that terminate to end, and let those go that have none any more."""
        terminating = self.terminating
        graces = {
            started.device: float(self.wanted[key].metadata.deletion_grace_period_seconds or 0)
            for key, started in terminating.items()
            if started.manned
        }
        busy = self.crews.dismiss(graces)
        self.done.ending += [started.name for started in terminating.values() if started.device in busy]
        self.let_go([*self.idle(), *(key for key, started in terminating.items() if started.device not in busy)])

    def let_go(self, keys: Iterable[str]) -> None:
        """Take pods that terminate out of the store."""
        gone = {key: self.wanted.pop(key) for key in set(keys)}
        if not gone:
            return
        with self.lab.store.transaction() as transaction:
            for pod in gone.values():
                live = transaction.get(Pod, pod.metadata.namespace, pod.metadata.name)
                if live and live.metadata.uid == pod.metadata.uid:
                    transaction.purge(live)
        self.done.retired += [pod.metadata.qualified_name for pod in gone.values()]

    def stop(self, keys: Iterable[str]) -> None:
        """End pods: processes, servers, then the link, then whatever else runs there, then the namespace.

        Those whose processes do not end at once stay, and are `ending`. What is no longer in the store has had its time
        of grace, or was not to have any.
        """
        ending = {key: self.pods[key] for key in keys if not self.is_silent(key)}
        if not ending:
            return
        busy = self.crews.dismiss(
            {
                started.device: None if self.is_wanted(key, started) else _LEAST_GRACE
                for key, started in ending.items()
                if started.manned
            }
        )
        for key, started in ending.items():
            if started.device in busy:
                self.pods[key] = replace(started, ending=True)
                self.done.ending.append(started.name)
                if key in self.wanted:
                    self.done.pending[started.name] = STILL_ENDING
        ending = {key: started for key, started in ending.items() if started.device not in busy}
        with suppress(LabError), Control(self.lab.folder) as control:
            control.close_pods([started.device for started in ending.values()])
        separate = {key: started for key, started in ending.items() if not started.host_network}
        network.disconnect_pods(self.lab.name, [(started.node, started.device) for started in separate.values()])
        self._remove(list(separate))
        for key, started in ending.items():
            del self.pods[key]
            self.crews.forget(started.device)
            self.done.stopped.append(started.name)

    def clear_away_strangers(self) -> None:
        """Remove namespaces of pods that a pass began and never finished, as a killed one does."""
        members = {name for name, _ in (*self.lab.nodes, *self.lab.clients)} | {names.ROUTER, names.LINES}
        known = {names.member(self.lab.name, name) for name in members} | set(self.pods)
        prefix = names.prefix_of(self.lab.name)
        self._remove([each for each in netns.names() if each.startswith(prefix) and each not in known])

    def start(self, keys: Iterable[str]) -> None:
        """Give pods a node and an address, and make their namespaces and links."""
        load = Counter(started.node for started in self.pods.values())
        used = {started.v4 for started in self.pods.values()}
        reached = (key for key in keys if not self.is_silent(key))
        new = {key: started for key in reached if (started := self._place(self.wanted[key], load, used))}
        if not new:
            return
        # An address that is spent stays spent, even if this process is killed on the next line.
        self._remember()
        separate = [key for key, started in new.items() if not started.host_network]
        try:
            network.create_pods(separate)
            network.connect_pods(
                self.lab.name,
                [
                    (key, self.nodes[new[key].node], new[key].device, Addresses(new[key].v4, new[key].v6))
                    for key in separate
                ],
            )
        except BaseException:
            self._remove(separate)
            raise
        self._furnish(new)
        self.pods |= new
        self.done.started += [started.name for started in new.values()]

    def serve(self) -> None:
        """Have the ports of every pod served, and no others, by a process that is started again if it ended."""
        standin = self.record.standin
        if not process.is_alive(standin):
            self.record = replace(self.record, standin=process.start_standin(self.lab.folder))
            self._remember()
        with Control(self.lab.folder) as control:
            served = control.served()
            control.close_pods(sorted(served - {started.device for started in self.pods.values()}))
            missing = {
                key: started
                for key, started in self.pods.items()
                if started.device not in served and self.is_initialized(key, started)
            }
            failures = control.open([self._stand_in(key, started) for key, started in missing.items()])
        for key, started in missing.items():
            self.pods[key] = replace(started, troubles=failures.get(started.device, ()))

    def _furnish(self, new: dict[str, Started]) -> None:
        """Write down what these pods are to run and see."""
        with self.lab.store.read() as snapshot:
            furnisher = Furnisher(self.lab, snapshot, self.record.path)
            for key, started in new.items():
                where = self._where(key, started)
                new[key] = furnisher.furnish(self.wanted[key], started, self._place_of(started), where)

    def _place_of(self, started: Started) -> Place:
        node = self.nodes[started.node]
        return Place(node.name, node.addresses, Addresses(started.v4, started.v6))

    def renew(self) -> None:
        """Write down what pods are to be given of ConfigMaps and Secrets that came, changed or went."""
        outdated = self.outdated()
        if not outdated:
            return
        with self.lab.store.read() as snapshot:
            furnisher = Furnisher(self.lab, snapshot, self.record.path)
            for key, started in outdated.items():
                self._renewed[key] = furnisher.renew(self.wanted[key], started, self._place_of(started))

    def man(self) -> None:
        """Have the processes of every pod run, and no others; those of pods that nobody wants wait for their sweep."""
        renewed = {started.device for started in self._renewed.values()}
        kept = {
            started.device
            for key, started in self.pods.items()
            if self.is_silent(key) or not self.is_wanted(key, started) or is_terminating(self.wanted[key])
        }
        self.crews.man({started.device: pod for started, pod in self.manned_pods()}, renewed, kept)
        # What was written down counts as given once the supervisor knows.
        self.pods |= self._renewed

    def _note_supervisor(self, supervisor: process.ProcessId) -> None:
        self.record = replace(self.record, supervisor=supervisor)
        self._remember()

    def _where(self, key: str, started: Started) -> str:
        return names.member(self.lab.name, started.node) if started.host_network else key

    def report(self) -> None:
        """Write the node and the status of pods into the store, where they are not there yet."""
        keys = [key for key, pod in self.wanted.items() if self.is_news(key, pod)]
        if not keys:
            return
        with self.lab.store.transaction() as transaction:
            for key in keys:
                pod = self.wanted[key]
                live = transaction.get(Pod, pod.metadata.namespace, pod.metadata.name)
                # What probes found out meanwhile stays.
                if live and live.metadata.uid == pod.metadata.uid and self.is_news(key, live):
                    node, status = self.status_of(key, live)
                    transaction.put(replace(live, spec=replace(live.spec, node_name=node), status=status))

    def _remember(self) -> None:
        record = replace(self.record, pods=self.pods, cursors=self._cursors)
        if record != state.read(self.lab.folder):
            state.write(self.lab.folder, record)

    def _remove(self, namespaces: list[str]) -> None:
        existing = [each for each in namespaces if netns.exists(each)]
        if existing:
            process.end_inhabitants(netns.identity(each) for each in existing)
        network.remove(namespaces)

    def _place(self, pod: Pod, load: Counter[str], used: set[str]) -> Started | None:
        """Choose a node and addresses, and count them; None, with a reason in `pending`, if there are none."""
        try:
            node = self.scheduler.choose(pod, load)
            addresses = node.addresses if pod.spec.host_network else self._next_address(node, used)
        except (LabError, ExhaustedError) as error:
            self.done.pending[pod.metadata.qualified_name] = str(error)
            return None
        load[node.name] += 1
        programs = crews.programs_of(self.lab, pod, self.record.path)
        return Started(
            uid=pod.metadata.uid,
            name=pod.metadata.qualified_name,
            node=node.name,
            # Not made from its address: the kernel takes its time to remove the device of whoever had that before.
            device=f"veth{secrets.token_hex(5)}",
            v4=addresses.v4,
            v6=addresses.v6,
            ports=ports_of(pod, programs),
            host_network=bool(pod.spec.host_network),
            programs=programs,
        )

    def _next_address(self, node: Node, used: set[str]) -> Addresses:
        addresses, self._cursors[node.name] = next_pod(node.pods, self._cursors.get(node.name, 0), used)
        used.add(addresses.v4)
        return addresses

    def _stand_in(self, key: str, started: Started) -> StandIn:
        return StandIn(
            started.device, str(netns.path(self._where(key, started))), started.name.partition("/")[2], started.ports
        )

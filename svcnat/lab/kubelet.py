"""The kubelet of a lab: makes the pods that run equal to the pods in the store.

Level-triggered: each pass compares what is there with what should be, whatever happened before. :func:`start` brings
up what is missing and writes the pods' status; :func:`sweep` ends what is gone. Between the two belongs a sync of the
rules, so that no connection is sent to a pod that has ended. What containers run is the supervisor's affair
(:mod:`svcnat.lab.crews`), and nothing is probed here: a pod is ready when its stand-in servers listen and its processes
run, or, with a readinessProbe, when the agent's first probe succeeds.
"""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

from msgspec.structs import replace

from svcnat.controllers.members import is_terminating
from svcnat.errors import ExhaustedError, LabError
from svcnat.kernel import netns
from svcnat.lab import crews, lines, names, network, nodes, ports, power, process, state, statuses
from svcnat.lab.addressing import Addresses, next_pod
from svcnat.lab.containers import Place
from svcnat.lab.control import Control, Port, StandIn
from svcnat.lab.crews import Crews, Furnisher
from svcnat.lab.labs import Lab
from svcnat.lab.scheduler import Scheduler
from svcnat.lab.state import Program, Started
from svcnat.lab.topology import Node
from svcnat.model import objects
from svcnat.model.objects import Pod, PodStatus
from svcnat.model.pods import has_ended
from svcnat.store.sqlite import utc_now

_STILL_ENDING = "the pod of this name that was there before is still ending"


@dataclass(slots=True)
class Pass:
    """What a pass did, by NAMESPACE/NAME.

    `pending` are pods that cannot start, with the reason; `ending`, those whose processes have been asked to end, and
    have not: they go in a later pass. `retired` were deleted, and have gone from the store.
    """

    started: list[str] = field(default_factory=list)
    stopped: list[str] = field(default_factory=list)
    pending: dict[str, str] = field(default_factory=dict)
    ending: list[str] = field(default_factory=list)
    retired: list[str] = field(default_factory=list)


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


def sweep(lab: Lab, gone: Collection[str] | None = None, grace: float | None = None) -> Pass:
    """End every pod that is no longer in the store: processes, servers after the requests in hand, then its namespace.

    A pod whose processes take their time of grace, or `grace` seconds, is `ending`, and is gone after a later sweep.
    With `gone`, which :func:`unwanted` told before the rules followed, no other pod begins to end: one that was deleted
    since then still gets connections.

    Raises:
        LabError: the lab is gone.
        KernelError: the kernel refused.

    """
    with _Round.begin(lab) as now:
        now.stop(
            (
                key
                for key, started in now.pods.items()
                if started.ending or (not now.is_wanted(key, started) and (gone is None or started.uid in gone))
            ),
            grace,
        )
        return now.done


def is_settled(lab: Lab) -> bool:
    """Tell whether a pass would have nothing to do, but for stand-in servers that ended; it changes nothing.

    Raises:
        LabError: the lab is gone.

    """
    return _Round(lab, probing=True).is_settled()


class _Round:
    """One pass, with the lab locked: `wanted` are the store's pods, `pods` those that run, by network namespace."""

    def __init__(self, lab: Lab, *, probing: bool) -> None:
        self.lab = lab
        self._probing = probing
        self.done = Pass()
        self._record = state.read(lab.folder)
        self.pods = dict(self._record.pods)
        self._cursors = dict(self._record.cursors)
        self._nodes = {node.name: node for node in lab.topology.nodes}
        self._crews = Crews(lab.folder, self._record.supervisor, self._note_supervisor)
        self._renewed: dict[str, Started] = {}
        self._read()

    def _read(self) -> None:
        with self.lab.store.read() as snapshot:
            found = snapshot.list(Pod)
            self._versions = crews.versions(snapshot)
            self._known = {node.metadata.name: node for node in snapshot.list(objects.Node)}
        self._scheduler = Scheduler(self._nodes, self._known, self._record.silent)
        self.wanted = {names.pod(self.lab.name, pod.metadata.namespace, pod.metadata.name): pod for pod in found}

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

    def is_wanted(self, key: str, started: Started) -> bool:
        """True if the pod that runs there is still in the store."""
        pod = self.wanted.get(key)
        return pod is not None and pod.metadata.uid == started.uid

    def runs(self, key: str, pod: Pod) -> bool:
        """True if what runs under `key` is this pod, as it is in the store; one that terminates is not begun anew."""
        started = self.pods[key]
        if self.is_wanted(key, started) and is_terminating(pod):
            return True
        host_network = bool(pod.spec.host_network)
        return (
            self.is_wanted(key, started)
            and not started.ending
            and (started.ports, started.host_network) == (_ports(pod, started.programs), host_network)
            and tuple(each.asked for each in started.programs) == crews.asked_of(pod)
            and (host_network or netns.exists(key))
        )

    def is_settled(self) -> bool:
        """True if nothing is to be started, ended or reported."""
        if not nodes.is_settled(self.lab, self._record, self._known.values(), self.wanted.values()):
            return False
        if any(is_terminating(pod) and not self._is_silent(key) for key, pod in self.wanted.items()):
            return False
        reached = {key: started for key, started in self.pods.items() if not self._is_silent(key)}
        if any(not self.is_wanted(key, started) or started.ending for key, started in reached.items()):
            return False
        here = ((key, pod) for key, pod in self.wanted.items() if not self._is_silent(key))
        if not all(key in self.pods and self.runs(key, pod) for key, pod in here):
            return False
        if self._outdated():
            return False
        self._crews.look()
        if any(started.device not in self._crews.states for started, _ in self._manned()):
            return False
        return all(self._status(key, pod)[1] is pod.status for key, pod in self.wanted.items())

    def power(self) -> None:
        """Take everything from the nodes that are off, at once and in silence, and build those that are on again."""
        for node in self.lab.topology.nodes:
            if node.name in self._record.off:
                lost = {key: started for key, started in self.pods.items() if started.node == node.name}
                power.cut(self.lab, node, lost, self._crews)
                for key in lost:
                    del self.pods[key]
            else:
                power.restore(self.lab, node)
        if network.has_lines(self.lab.name):
            self._record = replace(self._record, lines=lines.have(self.lab.folder, self._record.lines))
        self._remember()

    def judge(self) -> None:
        """Let the control plane draw its conclusions from which nodes it hears, and choose the way in."""
        self._record = replace(self._record, pods=self.pods)
        if nodes.settle(self.lab, self._record, self._known.values(), self.wanted.values()):
            self._read()
        entrance = nodes.entrance(self._record, self.lab.topology)
        if entrance != (self._record.entrance or self.lab.topology.nodes[0].name):
            network.enter_by(self.lab.name, self.lab.topology, self._nodes[entrance])
            self._record = replace(self._record, entrance=entrance)

    def _is_silent(self, key: str) -> bool:
        """True if a pod is on a node whose kubelet neither hears nor is heard: it is as it was."""
        started, pod = self.pods.get(key), self.wanted.get(key)
        node = started.node if started else pod.spec.node_name if pod else ""
        return node in self._record.silent

    def idle(self) -> list[str]:
        """The pods that terminate and have no processes: nothing of them takes time."""
        return [
            key
            for key, pod in self.wanted.items()
            if is_terminating(pod)
            and not self._is_silent(key)
            and not (key in self._terminating and self.pods[key].manned)
        ]

    @property
    def _terminating(self) -> dict[str, Started]:
        """The pods that run, and terminate."""
        return {
            key: started
            for key, started in self.pods.items()
            if self.is_wanted(key, started) and is_terminating(self.wanted[key]) and not self._is_silent(key)
        }

    def retire(self) -> None:
        """Ask the processes of pods that terminate to end, and let those go that have none any more."""
        terminating = self._terminating
        graces = {
            started.device: float(self.wanted[key].metadata.deletion_grace_period_seconds or 0)
            for key, started in terminating.items()
            if started.manned
        }
        busy = self._crews.dismiss(graces)
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
        self.done.retired += [_name(pod) for pod in gone.values()]

    def stop(self, keys: Iterable[str], grace: float | None = None) -> None:
        """End pods: processes, servers, then the link, then whatever else runs there, then the namespace.

        Those whose processes do not end at once stay, and are `ending`.
        """
        ending = {key: self.pods[key] for key in keys if not self._is_silent(key)}
        if not ending:
            return
        busy = self._crews.dismiss({started.device: grace for started in ending.values() if started.manned})
        for key, started in ending.items():
            if started.device in busy:
                self.pods[key] = replace(started, ending=True)
                self.done.ending.append(started.name)
                if key in self.wanted:
                    self.done.pending[started.name] = _STILL_ENDING
        ending = {key: started for key, started in ending.items() if started.device not in busy}
        with suppress(LabError), Control(self.lab.folder) as control:
            control.close_pods([started.device for started in ending.values()])
        separate = {key: started for key, started in ending.items() if not started.host_network}
        network.disconnect_pods(self.lab.name, [(started.node, started.device) for started in separate.values()])
        self._remove(list(separate))
        for key, started in ending.items():
            del self.pods[key]
            self._crews.forget(started.device)
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
        reached = (key for key in keys if not self._is_silent(key))
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
                    (key, self._nodes[new[key].node], new[key].device, Addresses(new[key].v4, new[key].v6))
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
        standin = self._record.standin
        if standin is None or not process.is_alive(standin):
            self._record = replace(self._record, standin=process.start_standin(self.lab.folder))
            self._remember()
        with Control(self.lab.folder) as control:
            served = control.served()
            control.close_pods(sorted(served - {started.device for started in self.pods.values()}))
            missing = {
                key: started
                for key, started in self.pods.items()
                if started.device not in served and self._is_initialized(key, started)
            }
            failures = control.open([self._stand_in(key, started) for key, started in missing.items()])
        for key, started in missing.items():
            self.pods[key] = replace(started, troubles=failures.get(started.device, ()))

    def _is_initialized(self, key: str, started: Started) -> bool:
        pod = self.wanted.get(key)
        if pod and started.name in self.done.started:
            pod = replace(pod, status=PodStatus())  # it speaks of the time before
        return pod is None or statuses.is_initialized(pod, self._tasks(started))

    def _tasks(self, started: Started) -> statuses.Tasks:
        crew = self._crews.states.get(started.device)
        return {each.name: each for each in crew.tasks} if crew else {}

    def _furnish(self, new: dict[str, Started]) -> None:
        """Write down what these pods are to run and see."""
        with self.lab.store.read() as snapshot:
            furnisher = Furnisher(self.lab, snapshot, self._record.path)
            for key, started in new.items():
                where = self._where(key, started)
                new[key] = furnisher.furnish(self.wanted[key], started, self._place_of(started), where)

    def _place_of(self, started: Started) -> Place:
        node = self._nodes[started.node]
        return Place(node.name, node.addresses, Addresses(started.v4, started.v6))

    def renew(self) -> None:
        """Write down what pods are to be given of ConfigMaps and Secrets that came, changed or went."""
        outdated = self._outdated()
        if not outdated:
            return
        with self.lab.store.read() as snapshot:
            furnisher = Furnisher(self.lab, snapshot, self._record.path)
            for key, started in outdated.items():
                self._renewed[key] = furnisher.renew(self.wanted[key], started, self._place_of(started))

    def _outdated(self) -> dict[str, Started]:
        """The pods that were given something else of ConfigMaps and Secrets than there is now."""
        return {
            key: started
            for key, started in self.pods.items()
            if crews.is_outdated(started, self._versions)
            and not (started.ending or self._is_silent(key))
            and self.is_wanted(key, started)
            and not is_terminating(self.wanted[key])
            and not has_ended(self.wanted[key])
        }

    def man(self) -> None:
        """Have the processes of every pod run, and no others; those of pods that nobody wants wait for their sweep."""
        renewed = {started.device for started in self._renewed.values()}
        kept = {
            started.device
            for key, started in self.pods.items()
            if self._is_silent(key) or not self.is_wanted(key, started) or is_terminating(self.wanted[key])
        }
        self._crews.man({started.device: pod for started, pod in self._manned()}, renewed, kept)
        # What was written down counts as given once the supervisor knows.
        self.pods |= self._renewed

    def _manned(self) -> Iterator[tuple[Started, Pod]]:
        """The pods that have processes, and are to have them."""
        for key, started in self.pods.items():
            pod = self.wanted.get(key)
            ends = started.ending or (pod is not None and (is_terminating(pod) or has_ended(pod)))
            if pod and started.uid == pod.metadata.uid and started.manned and not ends:
                yield started, pod

    def _note_supervisor(self, supervisor: process.ProcessId) -> None:
        self._record = replace(self._record, supervisor=supervisor)
        self._remember()

    def _where(self, key: str, started: Started) -> str:
        return names.member(self.lab.name, started.node) if started.host_network else key

    def report(self) -> None:
        """Write the node and the status of pods into the store, where they are not there yet."""
        keys = [key for key, pod in self.wanted.items() if self._is_news(key, pod)]
        if not keys:
            return
        with self.lab.store.transaction() as transaction:
            for key in keys:
                pod = self.wanted[key]
                live = transaction.get(Pod, pod.metadata.namespace, pod.metadata.name)
                # What probes found out meanwhile stays.
                if live and live.metadata.uid == pod.metadata.uid and self._is_news(key, live):
                    node, status = self._status(key, live)
                    transaction.put(replace(live, spec=replace(live.spec, node_name=node), status=status))

    def _is_news(self, key: str, pod: Pod) -> bool:
        """True if the store says something else of a pod than this round does."""
        node, status = self._status(key, pod)
        return status is not pod.status or node != pod.spec.node_name

    def _remember(self) -> None:
        record = replace(self._record, pods=self.pods, cursors=self._cursors)
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
            node = self._scheduler.choose(pod, load)
            addresses = node.addresses if pod.spec.host_network else self._next_address(node, used)
        except (LabError, ExhaustedError) as error:
            self.done.pending[_name(pod)] = str(error)
            return None
        load[node.name] += 1
        programs = crews.programs_of(self.lab, pod, self._record.path)
        return Started(
            uid=pod.metadata.uid,
            name=_name(pod),
            node=node.name,
            # Not made from its address: the kernel takes its time to remove the device of whoever had that before.
            device=f"veth{secrets.token_hex(5)}",
            v4=addresses.v4,
            v6=addresses.v6,
            ports=_ports(pod, programs),
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

    def _status(self, key: str, pod: Pod) -> tuple[str, PodStatus]:
        """The node and the status that a pod should have in the store: the very ones it has, if they will do."""
        started, now = self.pods.get(key), utc_now()
        if self._is_silent(key) and (started is None or started.uid == pod.metadata.uid):
            return pod.spec.node_name, pod.status
        if started is None or started.ending or started.uid != pod.metadata.uid:
            reason = self.done.pending.get(_name(pod), _STILL_ENDING)
            return pod.spec.node_name, statuses.pending(pod, reason, now)
        tasks = self._tasks(started)
        status, anew = pod.status, _name(pod) in self.done.started
        if status.pod_ip == started.v4 and not anew and (status.phase == "Running" or started.manned):
            return started.node, statuses.faring(pod, tasks, now, probing=self._probing, troubles=started.troubles)
        node = self._nodes[started.node]
        return started.node, statuses.running(pod, started, node, tasks, now, probing=self._probing)


def _name(pod: Pod) -> str:
    return f"{pod.metadata.namespace}/{pod.metadata.name}"


def _ports(pod: Pod, programs: tuple[Program, ...]) -> tuple[Port, ...]:
    return ports.stood_in(pod, {each.name for each in programs if each.command})

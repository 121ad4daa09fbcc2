"""What a round of a lab's kubelet knows, and what follows from it: nothing here changes anything.

That is the pods of the store, the pods that run, and how their processes fare. What is done about it is
:mod:`svcnat.lab.kubelet`'s affair.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from msgspec.structs import replace

from svcnat.controllers.members import is_terminating
from svcnat.kernel import netns
from svcnat.lab import crews, names, network, nodes, ports, statuses
from svcnat.lab.control import Port
from svcnat.lab.crews import Crews
from svcnat.lab.labs import Lab
from svcnat.lab.scheduler import Scheduler
from svcnat.lab.state import Program, Record, Started
from svcnat.model import objects
from svcnat.model.objects import Pod, PodStatus
from svcnat.model.pods import has_ended
from svcnat.store.sqlite import utc_now

STILL_ENDING = "the pod of this name that was there before is still ending"


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


class Inventory:
    """What a pass knows: `wanted` are the store's pods, `pods` those that run, by network namespace."""

    def __init__(self, lab: Lab, record: Record, crews: Crews, *, probing: bool) -> None:
        self.lab = lab
        self.probing = probing
        self.done = Pass()
        self.record = record
        self.crews = crews
        self.pods = dict(record.pods)
        self.nodes = {node.name: node for node in lab.topology.nodes}
        self.read()

    def read(self) -> None:
        """Learn what the store says."""
        with self.lab.store.read() as snapshot:
            found = snapshot.list(Pod)
            self.versions = crews.versions(snapshot)
            self.known = {node.metadata.name: node for node in snapshot.list(objects.Node)}
        self.scheduler = Scheduler(self.nodes, self.known, self.record.silent)
        self.wanted = {names.pod(self.lab.name, pod.metadata.namespace, pod.metadata.name): pod for pod in found}

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
            and (started.ports, started.host_network) == (ports_of(pod, started.programs), host_network)
            and tuple(each.asked for each in started.programs) == crews.asked_of(pod)
            and (host_network or netns.exists(key))
        )

    def is_settled(self) -> bool:
        """True if nothing is to be started, ended or reported."""
        if not nodes.is_settled(self.lab, self.record, self.known.values(), self.wanted.values()):
            return False
        if network.lacks_nodes(self.lab.name, self.lab.topology, self.record.off):
            return False
        if any(is_terminating(pod) and not self.is_silent(key) for key, pod in self.wanted.items()):
            return False
        reached = {key: started for key, started in self.pods.items() if not self.is_silent(key)}
        if any(not self.is_wanted(key, started) or started.ending for key, started in reached.items()):
            return False
        here = ((key, pod) for key, pod in self.wanted.items() if not self.is_silent(key))
        if not all(key in self.pods and self.runs(key, pod) for key, pod in here):
            return False
        if self.outdated():
            return False
        self.crews.look()
        if any(started.device not in self.crews.states for started, _ in self.manned_pods()):
            return False
        return all(self.status_of(key, pod)[1] is pod.status for key, pod in self.wanted.items())

    def is_silent(self, key: str) -> bool:
        """True if a pod is on a node whose kubelet neither hears nor is heard: it is as it was."""
        started, pod = self.pods.get(key), self.wanted.get(key)
        node = started.node if started else pod.spec.node_name if pod else ""
        return node in self.record.silent

    def idle(self) -> list[str]:
        """The pods that terminate and have no processes: nothing of them takes time."""
        busy = {key for key, started in self.terminating.items() if started.manned}
        ending = (key for key, pod in self.wanted.items() if is_terminating(pod))
        return [key for key in ending if key not in busy and not self.is_silent(key)]

    @property
    def terminating(self) -> dict[str, Started]:
        """The pods that run, and terminate."""
        return {
            key: started
            for key, started in self.pods.items()
            if self.is_wanted(key, started) and is_terminating(self.wanted[key]) and not self.is_silent(key)
        }

    def is_initialized(self, key: str, started: Started) -> bool:
        """True if nothing of a pod that runs waits for its init containers."""
        pod = self.wanted.get(key)
        if pod and started.name in self.done.started:
            pod = replace(pod, status=PodStatus())  # it speaks of the time before
        return pod is None or statuses.is_initialized(pod, self.tasks(started))

    def tasks(self, started: Started) -> statuses.Tasks:
        """How the processes of a pod fare."""
        crew = self.crews.states.get(started.device)
        return {each.name: each for each in crew.tasks} if crew else {}

    def outdated(self) -> dict[str, Started]:
        """The pods that were given something else of ConfigMaps and Secrets than there is now."""
        return {
            key: started
            for key, started in self.pods.items()
            if crews.is_outdated(started, self.versions)
            and not (started.ending or self.is_silent(key))
            and self.is_wanted(key, started)
            and not is_terminating(self.wanted[key])
            and not has_ended(self.wanted[key])
        }

    def manned_pods(self) -> Iterator[tuple[Started, Pod]]:
        """The pods that have processes, and are to have them."""
        for key, started in self.pods.items():
            pod = self.wanted.get(key)
            ends = started.ending or (pod is not None and (is_terminating(pod) or has_ended(pod)))
            if pod and started.uid == pod.metadata.uid and started.manned and not ends:
                yield started, pod

    def is_news(self, key: str, pod: Pod) -> bool:
        """True if the store says something else of a pod than this round does."""
        node, status = self.status_of(key, pod)
        return status is not pod.status or node != pod.spec.node_name

    def status_of(self, key: str, pod: Pod) -> tuple[str, PodStatus]:
        """The node and the status that a pod should have in the store: the very ones it has, if they will do."""
        started, now = self.pods.get(key), utc_now()
        if self.is_silent(key) and (started is None or started.uid == pod.metadata.uid):
            return pod.spec.node_name, pod.status
        if started is None or started.ending or started.uid != pod.metadata.uid:
            reason = self.done.pending.get(pod.metadata.qualified_name, STILL_ENDING)
            return pod.spec.node_name, statuses.pending(pod, reason, now)
        tasks = self.tasks(started)
        status, anew = pod.status, pod.metadata.qualified_name in self.done.started
        if status.pod_ip == started.v4 and not anew and (status.phase == "Running" or started.manned):
            return started.node, statuses.faring(pod, tasks, now, probing=self.probing, troubles=started.troubles)
        node = self.nodes[started.node]
        return started.node, statuses.running(pod, started, node, tasks, now, probing=self.probing)


def ports_of(pod: Pod, programs: tuple[Program, ...]) -> tuple[Port, ...]:
    """The ports that are to be stood in for, beside these programs."""
    return ports.stood_in(pod, {each.name for each in programs if each.command})

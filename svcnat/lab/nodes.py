"""Nodes of a lab that fail: switched off, cut off from others, and what the control plane makes of the silence.

The control plane is part of no node: what is cut off from everybody is cut off from it, too. A verb writes down what is
to be (:class:`~svcnat.lab.state.Record`); the kubelet's next pass makes it so, and whoever makes a pass judges. What
follows for nodes and pods is :mod:`svcnat.controllers.node_lifecycle`'s decision.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Literal

from msgspec.structs import replace

from svcnat.controllers.members import is_terminating
from svcnat.controllers.node_lifecycle import (
    heard,
    is_marked,
    is_ready,
    marked,
    patience_of,
    unheard,
    unmarked,
)
from svcnat.errors import LabError
from svcnat.lab import fabric, state, stores
from svcnat.lab.labs import Lab
from svcnat.lab.state import Cut, Record
from svcnat.lab.topology import Topology
from svcnat.model.objects import Node, Pod, Resource
from svcnat.store import events
from svcnat.store.sqlite import utc_now
from svcnat.store.transaction import Transaction

_LIFECYCLE, _EVICTION = "node-controller", "taint-eviction-controller"


def stop(lab: Lab, nodes: Collection[str]) -> tuple[str, ...]:
    """Have these nodes switched off, as by a power cut; the answer is those that were on.

    Raises:
        LabError: one is no node of the lab.

    """
    with _changing(lab, nodes) as change:
        were = tuple(dict.fromkeys(each for each in nodes if each not in change.record.off))
        change.record = replace(change.record, off=(*change.record.off, *were))
    return were


def start(lab: Lab, nodes: Collection[str]) -> tuple[str, ...]:
    """Have these nodes switched on; the answer is those that were off.

    Raises:
        LabError: one is no node of the lab.

    """
    with _changing(lab, nodes) as change:
        were = tuple(dict.fromkeys(each for each in nodes if each in change.record.off))
        change.record = replace(change.record, off=tuple(each for each in change.record.off if each not in were))
    return were


def partition(lab: Lab, nodes: Collection[str], others: Collection[str] = ()) -> None:
    """Drop every packet between these nodes and those `others`, nodes or clients; by default between them and all else.

    Raises:
        LabError: one is no node of the lab, or on both sides.
        KernelError: the kernel refused.

    """
    if both := sorted(set(nodes) & set(others)):
        raise LabError(f"{', '.join(both)} cannot be on both sides of a partition")
    with _changing(lab, nodes, others) as change:
        cut = Cut(tuple(dict.fromkeys(nodes)), tuple(dict.fromkeys(others)))
        if cut not in change.record.cuts:
            change.record = replace(change.record, cuts=(*change.record.cuts, cut))
        fabric.write(lab.name, lab.topology, change.record.cuts)


def heal(lab: Lab, members: Collection[str] = ()) -> None:
    """Let these nodes, or clients, reach everybody again; by default all of them.

    Raises:
        LabError: one is no node or client of the lab.
        KernelError: the kernel refused.

    """
    with _changing(lab, (), members) as change:
        healed = [each.without(members) for each in change.record.cuts] if members else []
        change.record = replace(change.record, cuts=tuple(each for each in healed if each))
        fabric.write(lab.name, lab.topology, change.record.cuts)


@dataclass(slots=True)
class _Change:
    record: Record


@contextlib.contextmanager
def _changing(lab: Lab, nodes: Iterable[str], members: Iterable[str] = ()) -> Iterator[_Change]:
    """The lab's record, locked, to be replaced by what is put there; these have to be nodes, and those members."""
    known = {node.name for node in lab.topology.nodes}
    _require(lab, nodes, known, "node")
    _require(lab, members, known | {client.name for client in lab.topology.clients}, "node or client")
    with state.locked(lab.folder):
        change = _Change(state.read(lab.folder))
        yield change
        state.write(lab.folder, _noted(change.record, time.time()))


def _require(lab: Lab, wanted: Iterable[str], known: Collection[str], what: str) -> None:
    for name in wanted:
        if name not in known:
            raise LabError(f"lab {lab.name} has no {what} {name!r}: it has {', '.join(sorted(known))}")


def _noted(record: Record, now: float) -> Record:
    """The record with the nodes of which nothing is heard, and since when."""
    isolated = {node for cut in record.cuts if not cut.others for node in cut.nodes}
    silent = sorted({*record.off, *isolated})
    return replace(record, silent={node: record.silent.get(node, now) for node in silent})


@dataclass(slots=True)
class Verdict:
    """What the control plane makes of the nodes' silence: objects that change, and Pods to be evicted."""

    changed: list[Resource] = field(default_factory=list)
    evicted: list[Pod] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.changed or self.evicted)

    def note(self, before: Resource, after: Resource) -> None:
        """Remember what became of an object, if something did."""
        if after is not before:
            self.changed.append(after)


def lost(record: Record, topology: Topology, now: float) -> set[str]:
    """The nodes that have been silent for too long; times are seconds since 1970."""
    return {node for node, since in record.silent.items() if now - since >= topology.monitor_grace}


def judge(nodes: Iterable[Node], pods: Iterable[Pod], record: Record, topology: Topology, now: float) -> Verdict:
    """Decide what is to be written of nodes and their Pods; nothing, if all of it is known."""
    verdict, gone, text = Verdict(), lost(record, topology, now), utc_now()
    running = {started.uid for started in record.pods.values()}
    ours = {node.name for node in topology.nodes}
    unregistered = {node.name: node for node in topology.nodes if node.name not in record.silent}
    for node in nodes:
        name = node.metadata.name
        unregistered.pop(name, None)
        if name in gone:
            verdict.note(node, unheard(node, text))
        elif name in ours and name not in record.silent:
            verdict.note(node, heard(node, text))
    # Somebody has deleted them. A cluster's kubelet says so again when it starts, ours when it next looks.
    verdict.changed += map(stores.node_object, unregistered.values())
    for pod in pods:
        name = pod.spec.node_name
        if name in gone:
            patience = patience_of(pod, topology.pod_eviction)
            waited = now - record.silent[name] - topology.monitor_grace
            if patience is not None and waited >= patience and not is_terminating(pod):
                verdict.evicted.append(pod)
            else:
                verdict.note(pod, marked(pod, text))
        elif name not in record.silent and pod.metadata.uid in running:
            verdict.note(pod, unmarked(pod, text))
    return verdict


def settle(lab: Lab, record: Record, nodes: Iterable[Node], pods: Iterable[Pod]) -> bool:
    """Write what follows from the nodes' silence, given what the store had; True if there was something.

    Raises:
        StoreError: the store cannot be used.

    """
    now = time.time()
    if not judge(nodes, pods, record, lab.topology, now):
        return False
    with lab.store.transaction() as transaction:
        verdict = judge(transaction.list(Node), transaction.list(Pod), record, lab.topology, now)
        for resource in verdict.changed:
            _tell(transaction, transaction.put(resource))
        for pod in verdict.evicted:
            told = f"Marking for deletion Pod {pod.metadata.qualified_name}"
            _record(transaction, pod, "TaintManagerEviction", told, _EVICTION)
            transaction.delete(Pod, pod.metadata.namespace, pod.metadata.name, 0)  # nobody there could end it
    return True


def _tell(transaction: Transaction, changed: Resource) -> None:
    """Write Events of what became of a node or its pods, in Kubernetes' words."""
    if isinstance(changed, Node):
        reason, component = ("NodeReady", "kubelet") if is_ready(changed) else ("NodeNotReady", _LIFECYCLE)
        _record(transaction, changed, reason, f"Node {changed.metadata.name} status is now: {reason}", component)
    elif isinstance(changed, Pod) and is_marked(changed):
        _record(transaction, changed, "NodeNotReady", "Node is not ready", _LIFECYCLE)


def _record(transaction: Transaction, about: Resource, reason: str, message: str, component: str) -> None:
    kind: Literal["Normal", "Warning"] = "Warning" if isinstance(about, Pod) and reason == "NodeNotReady" else "Normal"
    events.record(
        transaction, about, type=kind, reason=reason, message=message, component=component, now=datetime.now(UTC)
    )


def entrance(record: Record, topology: Topology) -> str:
    """The way in to the service ranges: the first node that is heard, as speakers of load balancers agree on one."""
    gone = lost(record, topology, time.time())
    return next((node.name for node in topology.nodes if node.name not in gone), topology.nodes[0].name)


def is_settled(lab: Lab, record: Record, nodes: Iterable[Node], pods: Iterable[Pod]) -> bool:
    """Tell whether nothing is to be written, nothing runs where the power is off, and the way in is the right one."""
    return (
        not record.unfinished
        and not judge(nodes, pods, record, lab.topology, time.time())
        and entrance(record, lab.topology) == (record.entrance or lab.topology.nodes[0].name)
        and not any(started.node in record.off for started in record.pods.values())
    )

"""The store of a lab: opening it with the ranges of its topology, and making one that knows the nodes.

What happens to the nodes later is :mod:`svcnat.lab.nodes`'.
"""

from __future__ import annotations

import os
from pathlib import Path

from svcnat.lab import state, topology
from svcnat.lab.topology import Topology
from svcnat.model.objects import Condition, Node, NodeAddress, NodeSpec, NodeStatus, ObjectMeta
from svcnat.store.sqlite import Store, utc_now

_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm", "i686": "386"}  # as Go calls them


def open_store(folder: Path, plan: Topology, *, create: bool = False) -> Store:
    """Open the store of the lab in `folder`, with the ranges of its topology."""
    return Store.open(
        folder / state.STORE,
        create=create,
        service_cidrs=[str(cidr) for cidr in plan.services],
        load_balancer_pool=[str(cidr) for cidr in plan.balancers],
        graceful=True,
    )


def create_store(folder: Path, plan: Topology) -> Store:
    """Make the store of a new lab in `folder`: it knows the nodes, and nothing else."""
    store = open_store(folder, plan, create=True)
    try:
        with store.transaction() as transaction:
            for node in plan.nodes:
                transaction.put(node_object(node))
    except BaseException:
        store.close()
        raise
    return store


def node_object(node: topology.Node) -> Node:
    """What a node's kubelet says of it when it registers the node."""
    machine = os.uname().machine
    platform = {"os": "linux", "arch": _ARCHITECTURES.get(machine, machine)}
    labels = {
        "kubernetes.io/hostname": node.name,
        # As the kubelet has them; the second form is old, and manifests still ask for it.
        **{f"{prefix}kubernetes.io/{key}": text for prefix in ("", "beta.") for key, text in platform.items()},
        **node.labels,
    }
    addresses = [NodeAddress(type="InternalIP", address=address) for address in node.addresses]
    return Node(
        metadata=ObjectMeta(name=node.name, labels=labels),
        spec=NodeSpec(pod_cidr=str(node.pods.v4), pod_cidrs=[str(cidr) for cidr in node.pods]),
        status=NodeStatus(
            addresses=[*addresses, NodeAddress(type="Hostname", address=node.name)],
            conditions=[
                Condition(type="Ready", status="True", reason="KubeletReady", last_transition_time=utc_now()),
            ],
        ),
    )

"""The power of a lab's nodes: how all that a node has goes at once, without a word, and how the node is built again.

Which nodes are off is :mod:`svcnat.lab.nodes`' record; when either is due, the kubelet's pass knows.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress

from svcnat.errors import LabError
from svcnat.kernel import netns
from svcnat.lab import names, network, process
from svcnat.lab.control import Control
from svcnat.lab.crews import Crews
from svcnat.lab.labs import Lab
from svcnat.lab.state import Started
from svcnat.lab.topology import Node


def cut(lab: Lab, node: Node, pods: Mapping[str, Started], crews: Crews) -> None:
    """End a node with its pods, given by network namespace; nothing, if nothing is left of them.

    The plug comes first, so that nobody hears a last word, a TCP reset for instance.

    Raises:
        KernelError: the kernel refused.

    """
    member = names.member(lab.name, node.name)
    if not pods and not is_on(lab, node):
        return
    network.unplug_node(lab.name, lab.topology, node)
    devices = [started.device for started in pods.values()]
    crews.dismiss({started.device: 0 for started in pods.values() if started.manned})
    with suppress(LabError), Control(lab.folder) as control:
        control.close_pods(devices, grace=0)
    gone = [member, *(key for key, started in pods.items() if not started.host_network)]
    process.kill_inhabitants(netns.identity(each) for each in gone if netns.exists(each))
    network.remove(gone)
    for device in devices:
        crews.forget(device)


def is_on(lab: Lab, node: Node) -> bool:
    """True if a node is there, be it half-built."""
    return netns.exists(names.member(lab.name, node.name))


def restore(lab: Lab, node: Node) -> None:
    """Build a node that is missing, with nothing on it.

    Raises:
        KernelError: the kernel refused.

    """
    # A namespace whose name is gone lives on for as long as somebody has a socket in it, and so does its link.
    network.unplug_node(lab.name, lab.topology, node)
    network.add_node(lab.name, lab.topology, node)

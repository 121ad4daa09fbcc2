"""What the router of a lab drops: everything between the sides of a partition, and some of what lossy links carry.

A table of the bridge family in the router's namespace, written as a whole: the links themselves, nodes and clients stay
as they are, and whoever lives there sees nothing but silence. A packet gets the number of the port that it came in by
as its mark, which it keeps while the router takes it from one bridge to the other, and loses when it leaves.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from svcnat.kernel import netns
from svcnat.kernel.nftables import Namespace
from svcnat.lab import names, network
from svcnat.lab.state import Cut
from svcnat.lab.topology import Topology

_TABLE = "svcnat-lab"
_ROUTER = 0  # the mark of what the router sends itself
_OF_LOSS = 1_000_000


def write(lab: str, topology: Topology, cuts: Iterable[Cut]) -> None:
    """Make the router drop what these partitions and the links of the topology say, and nothing else.

    Raises:
        KernelError: the kernel refused, for instance because it has no nftables for bridges; all is as it was.

    """
    with Namespace(str(netns.path(names.member(lab, names.ROUTER)))) as namespace:
        namespace.commit(script(topology, tuple(cuts)))


def script(topology: Topology, cuts: tuple[Cut, ...]) -> str:
    """What :func:`write` has loaded: the table, or without a partition or a lossy link none."""
    ports = ports_of(topology)
    marks = {name: number for number, name in enumerate(ports, 1)}
    pairs = sorted(set(_pairs(cuts, [*ports, names.ROUTER])))
    lossy = {ports[name]: loss for name, loss in _losses(topology)}
    lines = [f"add table bridge {_TABLE}", f"delete table bridge {_TABLE}"]
    if not pairs and not lossy:
        return "\n".join(lines) + "\n"
    lines += [f"table bridge {_TABLE} {{"]
    for loss in sorted(set(lossy.values())):
        # nft refuses a comparison that is always true.
        some = f"numgen random mod {_OF_LOSS} < {loss} " if loss < _OF_LOSS else ""
        lines += [f"chain lose-{loss} {{", f"{some}counter drop", "}"]
    lines += _set("map ports", "ifname : mark", (f'"{ports[name]}" : {mark}' for name, mark in marks.items()))
    lines += _set("map lossy", "ifname : verdict", (f'"{port}" : jump lose-{loss}' for port, loss in lossy.items()))
    between = [(marks.get(one, _ROUTER), ports[other]) for one, other in pairs if other in ports]
    lines += _set("set cut", "mark . ifname", (f'{mark} . "{port}"' for mark, port in between))
    to_router = [marks[one] for one, other in pairs if other == names.ROUTER]
    lines += _set("set cut-from-router", "mark", map(str, to_router))
    lines += [
        "chain prerouting {",
        "type filter hook prerouting priority -300; policy accept;",
        "meta mark set iifname map @ports",
        "iifname vmap @lossy",
        "}",
        "chain input {",
        "type filter hook input priority 0; policy accept;",
        "meta mark @cut-from-router counter drop",
        "}",
        "chain postrouting {",
        "type filter hook postrouting priority 0; policy accept;",
        "meta mark . oifname @cut counter drop",
        "oifname vmap @lossy",
        "}",
        "}",
    ]
    return "\n".join(lines) + "\n"


def ports_of(topology: Topology) -> dict[str, str]:
    """The router's end of the link of every node and client."""
    nodes = {node.name: network.port_of_node(position) for position, node in enumerate(topology.nodes)}
    clients = {client.name: network.port_of_client(position) for position, client in enumerate(topology.clients)}
    return nodes | clients


def _losses(topology: Topology) -> Iterator[tuple[str, int]]:
    for each in topology.members:
        if loss := round(each.link.loss * _OF_LOSS):
            yield each.name, loss


def _pairs(cuts: Iterable[Cut], everybody: list[str]) -> Iterator[tuple[str, str]]:
    """Who does not reach whom, either way."""
    for cut in cuts:
        for one in cut.nodes:
            for other in cut.others or (each for each in everybody if each not in cut.nodes):
                yield one, other
                yield other, one


def _set(declared: str, kind: str, elements: Iterable[str]) -> list[str]:
    listed = ", ".join(elements)
    return [f"{declared} {{", f"type {kind}", *([f"elements = {{ {listed} }}"] if listed else []), "}"]

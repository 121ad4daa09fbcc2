r"""The network of a lab: a router between the nodes and the clients, and a routed link from its node to every pod.

::

    client, client-2 ---- [clients] router [nodes] ---- node-1 ==== pod, pod
                          two bridges                \- node-2 ==== pod

Nothing is bridged on a node, unless its topology asks for a bridge that its pods share: packets from pod to pod, on one
node too, pass the node's prerouting, forward and postrouting hooks, as does a pod's packet to itself through a service.
All of it is inside the lab's own namespaces; the machine's stays as it is. Which pods there are is the kubelet's
affair.
"""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

from svcnat.errors import MissingError
from svcnat.kernel import links, netns, sysctl
from svcnat.kernel.links import Bridge, Device, Route, Veth
from svcnat.lab import addressing, names
from svcnat.lab.addressing import POD_GATEWAY, POD_GATEWAY_MAC, Addresses, Ranges
from svcnat.lab.topology import Client, Node, Topology

_NODES, _CLIENTS = "nodes", "clients"
_UPLINK = "eth0"

_BRIDGE_CALLS = ("net/bridge/bridge-nf-call-iptables", "net/bridge/bridge-nf-call-ip6tables")

_HOST = {
    # Port 80 is for everybody, as in pods of containerd and Docker: not every container may open it by capability.
    "net/ipv4/ip_unprivileged_port_start": 0,
    # A host may have switched IPv6 off for new devices.
    "net/ipv6/conf/all/disable_ipv6": 0,
    "net/ipv6/conf/default/disable_ipv6": 0,
    # Addresses are unique by plan: looking for duplicates only makes them unusable for a second.
    "net/ipv6/conf/default/accept_dad": 0,
    "net/ipv6/conf/default/accept_ra": 0,
    "net/ipv6/conf/all/accept_redirects": 0,
    "net/ipv6/conf/default/accept_redirects": 0,
}
_SILENT = {"net/ipv6/conf/all/disable_ipv6": 1, "net/ipv6/conf/default/disable_ipv6": 1}
_FORWARDER = _HOST | {
    "net/ipv4/ip_forward": 1,
    "net/ipv6/conf/all/forwarding": 1,
    # Answers of translated connections may take another way than their requests.
    "net/ipv4/conf/all/rp_filter": 0,
    "net/ipv4/conf/default/rp_filter": 0,
    # A pod that reaches itself leaves by the link that it came from: not a detour to complain about.
    "net/ipv4/conf/all/send_redirects": 0,
    "net/ipv4/conf/default/send_redirects": 0,
}


def build(lab: str, topology: Topology) -> None:
    """Make the router, the nodes and the clients. On failure some of it is there: :func:`remove` it.

    Raises:
        KernelError: the kernel refused, or a namespace of that name exists.

    """
    _create([names.member(lab, names.ROUTER)], _FORWARDER)
    long = long_links(topology)
    if long and not links.can_delay():
        _create([names.member(lab, names.LINES)], _SILENT)
    for node in topology.nodes:
        _create_node(lab, node)
    _create([names.member(lab, client.name) for client in topology.clients], _HOST)
    links.build(_wanted(lab, topology))
    for member, port in long:
        _delay(lab, member, port)


def add_node(lab: str, topology: Topology, node: Node) -> None:
    """Make a node anew that was removed: nothing is left of what it had.

    Raises:
        KernelError: the kernel refused, or its namespace exists.

    """
    _create_node(lab, node)
    position = topology.nodes.index(node)
    links.build(_of_node(lab, topology, position))
    if node.link.latency:
        _delay(lab, node, port_of_node(position))


def unplug_node(lab: str, topology: Topology, node: Node) -> None:
    """Pull a node's plug: from now on nobody hears of it, whatever still runs there.

    Raises:
        KernelError: the kernel refused.

    """
    port = port_of_node(topology.nodes.index(node))
    links.unplug(netns.path(names.member(lab, names.ROUTER)), [port])
    if has_lines(lab):
        links.unplug(netns.path(names.member(lab, names.LINES)), ends_of_line(port))


def lacks_nodes(lab: str, topology: Topology, off: Collection[str]) -> bool:
    """True if a node that is not `off` is not there: whoever deletes its namespace tells nobody."""
    return not all(node.name in off or netns.exists(names.member(lab, node.name)) for node in topology.nodes)


def enter_by(lab: str, topology: Topology, node: Node) -> None:
    """Route the service and load-balancer ranges through this node.

    Raises:
        KernelError: the kernel refused.

    """
    router = netns.path(names.member(lab, names.ROUTER))
    links.reroute(router, _NODES, _to_services(topology, node))


def has_lines(lab: str) -> bool:
    """True if a process has to carry packets (:mod:`svcnat.lab.lines`), because the kernel cannot delay them."""
    return netns.exists(names.member(lab, names.LINES))


def long_links(topology: Topology) -> list[tuple[Node | Client, str]]:
    """The nodes and clients whose links have latency, each with the router's end."""
    ends: list[tuple[Node | Client, str]] = [
        *((node, port_of_node(position)) for position, node in enumerate(topology.nodes)),
        *((client, port_of_client(position)) for position, client in enumerate(topology.clients)),
    ]
    return [(member, port) for member, port in ends if member.link.latency]


def ends_of_line(port: str) -> tuple[str, str]:
    """The inner ends of a link that a process carries: the one towards the router's `port`, and the host's."""
    return f"{port}r", f"{port}h"


def port_of_node(position: int) -> str:
    """The router's end of the link of the node at `position`, from 0."""
    return f"node{position}"


def port_of_client(position: int) -> str:
    """The router's end of the link of the client at `position`, from 0."""
    return f"client{position}"


def create_pods(namespaces: Iterable[str]) -> None:
    """Make the network namespaces of pods.

    Raises:
        KernelError: the kernel refused, or one exists.

    """
    _create(namespaces, _HOST)


def connect_pods(lab: str, pods: Iterable[tuple[str, Node, str, Addresses]]) -> None:
    """Link pods, given as network namespace, node, its device and addresses, to their nodes.

    Raises:
        KernelError: the kernel refused.

    """
    links.build([_pod_link(lab, *pod) for pod in pods])


def disconnect_pods(lab: str, pods: Iterable[tuple[str, str]]) -> None:
    """Make nodes send nothing more to pods, given as node and its device: their addresses are unreachable at once.

    Raises:
        KernelError: the kernel refused.

    """
    devices: defaultdict[str, list[str]] = defaultdict(list)
    for node, device in pods:
        devices[node].append(device)
    for node, theirs in devices.items():
        links.take_down(netns.path(names.member(lab, node)), theirs)


def remove(namespaces: Iterable[str]) -> None:
    """Remove network namespaces, and with them their links; those that are gone already do no harm."""
    for namespace in set(namespaces) & set(netns.names()):
        netns.delete(namespace)


def _create(namespaces: Iterable[str], settings: dict[str, int]) -> None:
    for namespace in namespaces:
        with netns.entered(netns.create(namespace)):
            sysctl.write(settings)


def _delay(lab: str, member: Node | Client, port: str) -> None:
    if not has_lines(lab):
        links.delay(netns.path(names.member(lab, names.ROUTER)), port, member.link.latency)
        links.delay(netns.path(names.member(lab, member.name)), _UPLINK, member.link.latency)


def _create_node(lab: str, node: Node) -> None:
    member = names.member(lab, node.name)
    _create([member], _FORWARDER)
    if node.bridge:
        with netns.entered(netns.path(member)):
            calls = dict.fromkeys(_BRIDGE_CALLS, int(node.bridge.calls_iptables))
            # Without br_netfilter nobody sees what bridges forward: there is no setting, and none is needed.
            with contextlib.nullcontext() if node.bridge.calls_iptables else contextlib.suppress(MissingError):
                sysctl.write(calls)


def _wanted(lab: str, topology: Topology) -> Iterator[Veth | Bridge]:
    router = netns.path(names.member(lab, names.ROUTER))
    pods = [route for node in topology.nodes for route in _via(node.pods, node.addresses)]
    everywhere = (*pods, *_to_services(topology, topology.nodes[0]))
    yield Bridge(_bridge(router, _NODES, topology.node_network, everywhere))
    yield Bridge(_bridge(router, _CLIENTS, topology.client_network, ()))
    for position in range(len(topology.nodes)):
        yield from _of_node(lab, topology, position)
    for position, client in enumerate(topology.clients):
        yield from _uplink(lab, topology.client_network, client, (_CLIENTS, port_of_client(position)), ())


def _of_node(lab: str, topology: Topology, position: int) -> Iterator[Veth | Bridge]:
    node = topology.nodes[position]
    others = [route for each in topology.nodes if each is not node for route in _via(each.pods, each.addresses)]
    # Without these the address of a pod that is gone would go round between router and node. A bridge has its own.
    own = [] if node.bridge else [Route(str(network), unreachable=True) for network in node.pods]
    yield from _uplink(lab, topology.node_network, node, (_NODES, port_of_node(position)), (*others, *own))
    if node.bridge:
        gateway = addressing.router(node.pods)
        addresses = addressing.interface(node.pods, gateway)
        where = netns.path(names.member(lab, node.name))
        yield Bridge(Device(where, node.bridge.name, addresses=addresses, mac=names.mac(gateway.v4)))


def _to_services(topology: Topology, node: Node) -> tuple[Route, ...]:
    return *_via(topology.services, node.addresses), *_via(topology.balancers, node.addresses)


def _via(networks: Ranges, gateway: Addresses) -> tuple[Route, Route]:
    return Route(str(networks.v4), gateway.v4), Route(str(networks.v6), gateway.v6)


def _bridge(router: Path, name: str, network: Ranges, routes: tuple[Route, ...]) -> Device:
    address = addressing.router(network)
    # By itself a bridge has the lowest of its ports' addresses. When that port goes, hosts that know the router by it
    # send to nobody: over IPv6 for half a minute, since the router asks for theirs in its link-local address' name.
    return Device(
        router, name, addresses=addressing.interface(network, address), routes=routes, mac=names.mac(address.v4)
    )


def _uplink(
    lab: str, network: Ranges, host: Node | Client, port: tuple[str, str], routes: tuple[Route, ...]
) -> Iterator[Veth]:
    """The link of a node or client to the router's `port`: bridge, and name of the end that is in it."""
    bridge, name = port
    gateway = addressing.router(network)
    near = Device(netns.path(names.member(lab, names.ROUTER)), name, bridge=bridge)
    far = Device(
        netns.path(names.member(lab, host.name)),
        _UPLINK,
        # One that comes back has the address that its neighbours remember.
        mac=names.mac(host.addresses.v4),
        addresses=addressing.interface(network, host.addresses),
        routes=(Route("0.0.0.0/0", gateway.v4), Route("::/0", gateway.v6), *routes),
    )
    if host.link.latency and has_lines(lab):
        lines = netns.path(names.member(lab, names.LINES))
        towards_router, towards_host = ends_of_line(name)
        yield Veth(near=near, far=Device(lines, towards_router))
        yield Veth(near=Device(lines, towards_host), far=far)
    else:
        yield Veth(near=near, far=far)


def _pod_link(lab: str, namespace: str, node: Node, device: str, pod: Addresses) -> Veth:
    mac = names.mac(pod.v4)
    if node.bridge:
        gateway = addressing.router(node.pods)
        return Veth(
            # The kubelet's hairpin mode: where netfilter sees the bridge, a pod that reaches itself needs it.
            near=Device(netns.path(names.member(lab, node.name)), device, bridge=node.bridge.name, hairpin=True),
            far=Device(
                netns.path(namespace),
                _UPLINK,
                mac=mac,
                addresses=addressing.interface(node.pods, pod),
                routes=(Route("0.0.0.0/0", gateway.v4), Route("::/0", gateway.v6)),
            ),
        )
    v4, v6 = f"{pod.v4}/32", f"{pod.v6}/128"
    return Veth(
        near=Device(
            netns.path(names.member(lab, node.name)),
            device,
            mac=POD_GATEWAY_MAC,
            neighbours=((pod.v4, mac), (pod.v6, mac)),
            routes=(Route(v4, source=node.addresses.v4), Route(v6, source=node.addresses.v6)),
        ),
        far=Device(
            netns.path(namespace),
            _UPLINK,
            mac=mac,
            addresses=(v4, v6),
            neighbours=((POD_GATEWAY.v4, POD_GATEWAY_MAC), (POD_GATEWAY.v6, POD_GATEWAY_MAC)),
            routes=(Route("0.0.0.0/0", POD_GATEWAY.v4, on_link=True), Route("::/0", POD_GATEWAY.v6)),
        ),
    )

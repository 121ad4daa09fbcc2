"""The address plan of a lab: from its ranges to the address of every node, client and start of a pod.

Pure: it configures no address, and does not remember which are in use.
"""

from __future__ import annotations

from collections.abc import Container, Iterator
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_network

from svcnat.errors import ExhaustedError, LabError

_ROUTER = 1
_FIRST_MEMBER = 11  # of nodes and of clients
_FIRST_POD = 2  # elsewhere .1 is the gateway: no pod should look like one
_POD_PREFIX_V4, _POD_PREFIX_V6 = 24, 64


@dataclass(frozen=True, slots=True)
class Addresses:
    """An IPv4 and an IPv6 address of the same thing, as text."""

    v4: str
    v6: str

    def __iter__(self) -> Iterator[str]:
        return iter((self.v4, self.v6))


@dataclass(frozen=True, slots=True)
class Ranges:
    """An IPv4 and an IPv6 range for the same purpose."""

    v4: IPv4Network
    v6: IPv6Network

    def __str__(self) -> str:
        return f"{self.v4},{self.v6}"

    def __iter__(self) -> Iterator[IPv4Network | IPv6Network]:
        return iter((self.v4, self.v6))


# This network, loopback, link-local (with the next hop of pods), multicast and broadcast, in both families.
_NO_HOSTS_V4 = ("0.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "224.0.0.0/4", "255.255.255.255/32")
_NO_HOSTS_V6 = ("::/96", "::ffff:0:0/96", "fe80::/10", "ff00::/8")
_NO_HOSTS = tuple(ip_network(text) for text in (*_NO_HOSTS_V4, *_NO_HOSTS_V6))

POD_GATEWAY = Addresses("169.254.1.1", "fe80::1")
"""The next hop of every pod: an address that no device has. Pods know its MAC and never ask."""

POD_GATEWAY_MAC = "ee:ee:ee:ee:ee:ee"
"""The MAC of every node's end of a pod's link."""


def objection(network: IPv4Network | IPv6Network, least: int) -> str:
    """Why a range does not do for a network of at least that many addresses; empty if it does."""
    if network.num_addresses < least:
        return f"must have at least {least} addresses"
    met = next((each for each in _NO_HOSTS if each.version == network.version and each.overlaps(network)), None)
    return f"must not meet {met}: no host can have these addresses" if met else ""


def router(network: Ranges) -> Addresses:
    """The router's address in a network: the first one."""
    return _at(network, _ROUTER)


def member(network: Ranges, position: int) -> Addresses:
    """The address of the node or client at `position`, from 0, of its network.

    Raises:
        LabError: the network is too small.

    """
    if _FIRST_MEMBER + position > _last(network):
        raise LabError(f"{network} has no address for {position + 1} nodes or clients")
    return _at(network, _FIRST_MEMBER + position)


def interface(network: Ranges, addresses: Addresses) -> tuple[str, str]:
    """Addresses with the prefix lengths of their network, as a device takes them."""
    return f"{addresses.v4}/{network.v4.prefixlen}", f"{addresses.v6}/{network.v6.prefixlen}"


def pods_of(cluster: Ranges, position: int) -> Ranges:
    """The ranges of the pods of the node at `position`, from 0: the next /24 and /64 of the cluster's.

    Raises:
        LabError: the cluster's ranges have no such part.

    """
    v4_bits = max(_POD_PREFIX_V4, cluster.v4.prefixlen)
    v6_bits = max(_POD_PREFIX_V6, cluster.v6.prefixlen)
    parts = 1 << min(v4_bits - cluster.v4.prefixlen, v6_bits - cluster.v6.prefixlen)
    if position >= parts:
        raise LabError(f"clusterCIDR {cluster} has room for the pods of {parts} nodes: give it a shorter prefix")
    return Ranges(
        IPv4Network((int(cluster.v4[0]) + (position << (32 - v4_bits)), v4_bits)),
        IPv6Network((int(cluster.v6[0]) + (position << (128 - v6_bits)), v6_bits)),
    )


def next_pod(pods: Ranges, cursor: int, used: Container[str]) -> tuple[Addresses, int]:
    """The addresses of the next pod to start, and the cursor to ask with next time (0 the first time).

    Both families count alike (``10.244.0.7`` and ``fd00:10:244::7``). An address comes round again only when all
    the others had their turn; `used` holds the IPv4 addresses that are in use.

    Raises:
        ExhaustedError: every address is in use.

    """
    size = max(_last(pods) - _FIRST_POD + 1, 0)
    for step in range(size):
        offset = (cursor + step) % size
        addresses = _at(pods, _FIRST_POD + offset)
        if addresses.v4 not in used:
            return addresses, (offset + 1) % size
    raise ExhaustedError(f"no pod address is left in {pods}")


def _last(network: Ranges) -> int:
    """The highest host number that both families have; IPv4 keeps its broadcast address."""
    return min(network.v4.num_addresses - 2, network.v6.num_addresses - 1)


def _at(network: Ranges, host: int) -> Addresses:
    return Addresses(str(network.v4[host]), str(network.v6[host]))

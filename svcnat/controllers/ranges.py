"""Where cluster addresses, node ports and load balancers' addresses come from, and in what order they are tried.

It knows nothing of who holds what. Sources: KEP-3070 and KEP-3668 (the lower band of a range is left to requests).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from itertools import chain
from typing import Self

from svcnat.errors import UsageError
from svcnat.model.addresses import FamilyName, canonical, family, family_name, parse_network
from svcnat.model.configuration import Configuration

SERVICE_CIDRS = tuple(map(str, Configuration().service_networks))
NODE_PORTS = Configuration().node_ports


@dataclass(frozen=True, slots=True)
class AddressRange:
    """Addresses of one family, as integers: the first and the last."""

    family: FamilyName
    first: int
    last: int

    @classmethod
    def parse(cls, text: str) -> AddressRange:
        """Return the range that ``FIRST-LAST`` or a CIDR means.

        Of a CIDR the network and broadcast addresses are left out, unless it is too small to have them: somebody may
        route it as a subnet.

        Raises:
            UsageError: it is neither.

        """
        first, _, last = (part.strip() for part in text.partition("-"))
        if canonical(first) and canonical(last) and family(first) == family(last) and _number(first) <= _number(last):
            return cls(family_name(first), _number(first), _number(last))
        network = parse_network(text.strip())
        if network is None:
            raise UsageError(f"load balancer pool {text!r} is no range: write it like 192.0.2.0/24 or FIRST-LAST")
        has_ends = network.max_prefixlen - network.prefixlen > 1
        begin = int(network.network_address) + has_ends
        end = int(network.broadcast_address) - (has_ends and network.version == 4)
        return cls("IPv4" if network.version == 4 else "IPv6", begin, end)

    def __contains__(self, address: str) -> bool:
        return family_name(address) == self.family and self.first <= _number(address) <= self.last

    def text(self, number: int) -> str:
        """Return an address of this family as canonical text."""
        return str(IPv4Address(number) if self.family == "IPv4" else IPv6Address(number))


@dataclass(frozen=True, slots=True)
class ServiceRange(AddressRange):
    """The usable addresses of a service CIDR, and where the upper band begins."""

    cidr: str
    upper: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return the range of a CIDR; its lower band holds min(max(16, size/16), 256) addresses.

        Raises:
            UsageError: it is no CIDR, or has no usable address.

        """
        network = parse_network(text)
        if network is None:
            raise UsageError(f"service CIDR {text!r} is no IP range: write it like 10.96.0.0/12")
        first = int(network.network_address) + 1
        # IPv6 has no broadcast address, so its last one is usable.
        last = int(network.broadcast_address) - (network.version == 4)
        if first > last:
            raise UsageError(f"service CIDR {text} has no usable address: take a shorter prefix")
        size = network.num_addresses
        upper = first + (min(max(16, size // 16), 256) if size >= 16 else 0)
        return cls("IPv4" if network.version == 4 else "IPv6", first, last, str(network), min(upper, last))

    @property
    def kubernetes(self) -> str:
        """The first address: that of ``default/kubernetes``."""
        return self.text(self.first)

    def candidates(self, start: int) -> Iterator[str]:
        """Yield the addresses that nobody asked for, upper band first, from its address number `start` on.

        The first address (``kubernetes``) and the tenth (DNS, by custom) are only given on request.
        """
        begin = self.upper + start % (self.last - self.upper + 1)
        order = chain(range(begin, self.last + 1), range(self.upper, begin), range(self.first, self.upper))
        return (self.text(number) for number in order if number - self.first not in (0, 9))


@dataclass(frozen=True, slots=True)
class Ranges:
    """What a World gives to Services: addresses of the first range's family by default, node ports, a pool or none."""

    services: tuple[ServiceRange, ...]
    node_ports: range
    balancers: tuple[AddressRange, ...]

    @classmethod
    def of(
        cls,
        service_cidrs: Iterable[str] = SERVICE_CIDRS,
        node_ports: range = NODE_PORTS,
        load_balancer_pool: Iterable[str] = (),
    ) -> Ranges:
        """Return what one or two service CIDRs, a range of ports and any number of CIDRs or FIRST-LAST mean.

        Raises:
            UsageError: one of them is wrong, or two service CIDRs are of the same family.

        """
        services = tuple(ServiceRange.parse(cidr) for cidr in service_cidrs)
        if len({each.family for each in services}) != len(services) or not services:
            raise UsageError("service CIDRs: give one, or one of each address family")
        return cls(services, node_ports, tuple(AddressRange.parse(text) for text in load_balancer_pool))


def upper_ports(node_ports: range) -> range:
    """Return the node ports above the lowest min(max(16, size/32), 128): a range of up to 16 ports has no lower band.

    Source: ``calculateRangeOffset`` of kube-apiserver's portallocator.
    """
    size = len(node_ports)
    return node_ports[min(max(16, size // 32), 128) if size > 16 else 0 :]


def port_candidates(node_ports: range, start: int) -> Iterator[int]:
    """Yield the node ports that nobody asked for, upper band first, from its port number `start` on."""
    upper = upper_ports(node_ports)
    begin = start % len(upper)
    return chain(upper[begin:], upper[:begin], range(node_ports.start, upper.start))


def pool_candidates(ranges: Sequence[AddressRange], start: int) -> Iterator[str]:
    """Yield every address of ranges that are of one family, from address number `start` on, around and back to it."""
    rest: list[tuple[AddressRange, range]] = []
    skipped: list[tuple[AddressRange, range]] = []
    for each in ranges:
        begin = min(each.first + start, each.last + 1)
        start -= begin - each.first
        rest.append((each, range(begin, each.last + 1)))
        skipped.append((each, range(each.first, begin)))
    return (each.text(number) for each, numbers in rest + skipped for number in numbers)


def pool_size(ranges: Iterable[AddressRange]) -> int:
    """Return how many addresses ranges have."""
    return sum(each.last - each.first + 1 for each in ranges)


def _number(address: str) -> int:
    return int(IPv6Address(address) if family(address) == 6 else IPv4Address(address))

"""Answer for addresses on a link, ARP and neighbour solicitations, without the address ever being on a device.

An address on a device, lo above all, would expose the node's own services to whoever reaches the address. A proxy
neighbour entry makes the kernel answer for it, and the rules translate what then arrives. Which addresses those are is
:mod:`svcnat.ruleset.needs`' subject. Nothing is sent unasked: neighbours that know another host for an address
learn of this one when they ask again.

What the kernel needs (each measured on Linux 6.18):

- Both families: forwarding on the link; without it no proxy answers.
- IPv4: a unicast route to the address that does not leave through the link itself, or the kernel takes the address for
  the asking link's own affair (arp_process); a proxy entry alone stays silent. That route goes to lo. What the rules do
  not translate goes round there until its TTL ends, 63 times: the rules should refuse it.
- IPv6: ``all.proxy_ndp``. ``IF.proxy_ndp`` answers the first solicitation, to the multicast group, but not the unicast
  ones by which a neighbour later makes sure (ip6_forward looks at ``all`` alone): it loses its entry every time. Other
  programs' proxy entries are for their device and address as before. No route: the kernel does not ask for one, and
  makes every IPv6 route to lo an unreachable one.
- ``IF/proxy_delay``: the kernel waits up to 0.8 s before a proxy answers, which delays a client's first connection;
  0 answers within 0.005 s.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import struct
from collections.abc import Iterable
from typing import NamedTuple

from svcnat.errors import KernelError, MissingError
from svcnat.kernel import sysctl
from svcnat.kernel.netlink import ROUTE, Connection, address, attribute, attributes
from svcnat.kernel.routes import CREATE, EXCLUSIVE, PROTOCOL, UNICAST, Route, settle

_NEW, _DELETE, _GET = 28, 29, 30  # RTM_*NEIGH
_NDMSG = struct.Struct("=BxxxiHBB")  # family, device, state, flags, type
_PROXY, _PERMANENT = 0x08, 0x80  # NTF_PROXY, NUD_PERMANENT
_DESTINATION, _PROTOCOL = 1, 12  # NDA_*

_VERSIONS: dict[int, str] = {socket.AF_INET: "ipv4", socket.AF_INET6: "ipv6"}  # as they are spelled below /proc/sys/net


class _Proxy(NamedTuple):
    device: int
    address: str


def announce(addresses: Iterable[str], interfaces: Iterable[str]) -> list[str]:
    """Answer for `addresses` (canonical text) on `interfaces`, and for no others that svcnat answered for before.

    In the network namespace of the calling thread. Entries and routes of others are left alone, and where another
    program answers for an address on a link already, it goes on to. Settings are made and never put back.

    Returns:
        Warnings: what is not answered and why, a line each.

    Raises:
        KernelError: the neighbours or routes cannot be read.

    """
    addresses = tuple(dict.fromkeys(addresses))
    links, warnings = _links(interfaces)
    connection = Connection(ROUTE, "load-balancer addresses on links", strict=True)
    with contextlib.closing(connection):
        have = _read(connection)
        wanted = {_Proxy(index, each) for index in links.values() for each in addresses}
        stale = sorted(proxy for proxy, protocol in have.items() if protocol == PROTOCOL and proxy not in wanted)
        fresh = sorted(wanted - have.keys())
        connection.batch(_DELETE, [_request(proxy) for proxy in stale])
        via = socket.if_nametoindex("lo")
        routes = {Route(each, via, UNICAST) for each in addresses if links and _family(each) == socket.AF_INET}
        unrouted = settle(connection, socket.AF_INET, routes)
        refused = connection.batch(_NEW, [_request(proxy) for proxy in fresh], flags=CREATE | EXCLUSIVE)
    failed = {route.destination: number for route, number in unrouted.items()}
    failed |= {proxy.address: number for proxy, number in zip(fresh, refused, strict=True) if number}
    warnings += _refusals(failed)
    for family in {_family(each) for each in addresses} if links else ():
        warnings += _open(links, family)
    return warnings


def _links(interfaces: Iterable[str]) -> tuple[dict[str, int], list[str]]:
    links, warnings = {}, []
    for name in interfaces:
        try:
            links[name] = socket.if_nametoindex(name)
        except OSError:
            warnings.append(
                f"loadBalancerInterfaces: there is no device {name!r}: load-balancer addresses are not answered on it"
            )
    return links, warnings


def _refusals(failed: dict[str, int]) -> list[str]:
    """A line for each errno, with the addresses that it concerns."""
    warnings = []
    for number in sorted(set(failed.values()) - {errno.EEXIST}):  # another program answers for it already
        first, *others = (each for each, got in failed.items() if got == number)
        more = f" and {len(others)} more" if others else ""
        warnings.append(f"load-balancer address {first}{more}: not answered: {os.strerror(number)}")
    return warnings


def _open(links: Iterable[str], family: int) -> list[str]:
    """Let the kernel answer on links in one family; what is in the way."""
    version, warnings = _VERSIONS[family], []
    if version == "ipv6":
        try:
            sysctl.write({"net/ipv6/conf/all/proxy_ndp": 1})
        except KernelError as error:
            warnings.append(f"IPv6 load-balancer addresses are not answered on any link: {error}")
    for name in links:
        # A late answer is an answer, too: where this setting cannot be had, there is nothing to say.
        with contextlib.suppress(KernelError):
            sysctl.write({f"net/{version}/neigh/{name}/proxy_delay": 0})
        forwarding = f"net/{version}/conf/{name}/forwarding"
        with contextlib.suppress(MissingError):
            if sysctl.read(forwarding) == "0":
                warnings.append(f"load-balancer addresses are not answered on {name}: sysctl {forwarding} is 0")
    return warnings


def _read(connection: Connection) -> dict[_Proxy, int]:
    """Every proxy entry of the namespace, with the protocol number of who made it, 0 if it has none."""
    found = {}
    for body in connection.dump_whole(_GET, _NDMSG.pack(socket.AF_UNSPEC, 0, 0, _PROXY, 0)):
        family, device, _, flags, _ = _NDMSG.unpack_from(body)
        parts = attributes(body[_NDMSG.size :])
        if family in _VERSIONS and flags & _PROXY:
            maker = parts[_PROTOCOL][0] if _PROTOCOL in parts else 0
            found[_Proxy(device, address(bytes(parts[_DESTINATION])))] = maker
    return found


def _request(proxy: _Proxy) -> bytes:
    family = _family(proxy.address)
    return (
        _NDMSG.pack(family, proxy.device, _PERMANENT, _PROXY, 0)
        + attribute(_DESTINATION, socket.inet_pton(family, proxy.address))
        + attribute(_PROTOCOL, bytes([PROTOCOL]))
    )


def _family(text: str) -> int:
    return socket.AF_INET6 if ":" in text else socket.AF_INET

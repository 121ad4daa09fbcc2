"""What a network namespace looks like from inside: its addresses, routes and bridges.

It only reads, and listens to no events: whoever needs to know of a change looks again. Bond, VLAN and other devices
are of no interest here. Source: include/uapi/linux/rtnetlink.h, if_addr.h, if_link.h; rtnetlink(7).
"""

from __future__ import annotations

import socket
import struct
from dataclasses import dataclass

from svcnat.errors import MissingError
from svcnat.kernel import netns, sysctl
from svcnat.kernel.netlink import ROUTE, Attributes, Connection, address, attribute, attributes
from svcnat.ruleset.endpoints import Family

_GETLINK, _GETADDR, _GETROUTE = 18, 22, 26  # RTM_*
_IFINFOMSG = struct.Struct("=BxHiII")  # family, type, index, flags, change
_IFADDRMSG = struct.Struct("=BBBBi")  # family, prefix length, flags, scope, index
_RTMSG = struct.Struct("=BBBBBBBBI")  # family, length of destination, of source, tos, table, origin, scope, type, flags
_NEXTHOP = struct.Struct("=HBBi")  # rtnexthop: length, flags, weight, device

_IFLA_NAME, _IFLA_LINKINFO, _IFLA_EXT_MASK = 3, 18, 29
_INFO_KIND, _INFO_DATA = 1, 2
_SKIP_STATISTICS = 8  # RTEXT_FILTER_SKIP_STATS
_CALLS_IPTABLES = {"ip": 36, "ip6": 37}  # IFLA_BR_NF_CALL_IPTABLES, _IP6TABLES
_CALL_SETTINGS: dict[Family, str] = {
    "ip": "net/bridge/bridge-nf-call-iptables",
    "ip6": "net/bridge/bridge-nf-call-ip6tables",
}
_IFA_ADDRESS, _IFA_LOCAL, _IFA_FLAGS = 1, 2, 8
_RTA_DESTINATION, _RTA_DEVICE, _RTA_PRIORITY, _RTA_SOURCE, _RTA_MULTIPATH, _RTA_TABLE = 1, 4, 6, 7, 9, 15
_TABLE_MAIN, _UNICAST, _CLONED = 254, 1, 0x200

_FAMILIES: dict[int, Family] = {socket.AF_INET: "ip", socket.AF_INET6: "ip6"}
_SCOPES = {0: "global", 200: "site", 253: "link", 254: "host", 255: "nowhere"}
_FLAGS = {0x08: "dadfailed", 0x20: "deprecated", 0x40: "tentative", 0x80: "permanent"}  # IFA_F_*
_SECONDARY = 0x01  # of IPv6 it means temporary: an address that privacy extensions made, and take away again
_UNFIT = frozenset({"secondary", "temporary", "deprecated", "tentative", "dadfailed"})


@dataclass(frozen=True, slots=True)
class Address:
    """An address that the namespace has.

    ``scope`` and ``flags`` are spelled as ip(8) does: global, site, link, host; permanent, secondary, temporary,
    deprecated, tentative, dadfailed.
    """

    family: Family
    device: str
    address: str
    prefix: int
    scope: str
    flags: frozenset[str]


@dataclass(frozen=True, slots=True)
class Route:
    """A route of the main table.

    ``destination`` is a CIDR, ``0.0.0.0/0`` and ``::/0`` for default routes. ``device`` is that of the first next
    hop, "" if there is none: ``usable`` is False for routes that refuse or drop. ``source`` is what the route says
    that the namespace's own packets should come from, or None.
    """

    family: Family
    destination: str
    device: str
    source: str | None
    metric: int
    usable: bool


@dataclass(frozen=True, slots=True)
class _Link:
    name: str
    bridge: Attributes | None  # the IFLA_BR_* attributes; None if it is no bridge


class Network:
    """A look at one network namespace.

    A socket is opened there and stays, so the methods work from any thread, one at a time. Every call looks anew.
    """

    def __init__(self, name_or_path: str | None = None) -> None:
        """Open the namespace by name or path; None is the current one.

        Raises:
            MissingError: no such namespace.
            PrivilegeError: entering it is not allowed.

        """
        with netns.entered(name_or_path):
            self._connection = Connection(ROUTE, "network devices")
        # What /proc/sys shows is the reading thread's: each look at it enters the namespace again.
        self._name_or_path = name_or_path

    def close(self) -> None:
        """Close the socket."""
        self._connection.close()

    def __enter__(self) -> Network:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def local_addresses(self) -> tuple[Address, ...]:
        """All addresses of all devices, loopback too, in the kernel's order: the primary one of a device first."""
        links = self._links()
        return tuple(each for body in self._dump(_GETADDR, _IFADDRMSG) if (each := _address(body, links)))

    def routes(self) -> tuple[Route, ...]:
        """The routes of the main table."""
        links = self._links()
        return tuple(each for body in self._dump(_GETROUTE, _RTMSG) if (each := _route(body, links)))

    def primary_addresses(self) -> tuple[str | None, str | None]:
        """The addresses that the namespace's default routes use, IPv4 and IPv6; None without a default route.

        The source that the route of the lowest metric names; else its device's first global address, lasting ones
        before temporary and deprecated ones; else any device's, as the kernel chooses for a device without any.
        """
        routes, addresses = self.routes(), self.local_addresses()
        return _primary("ip", routes, addresses), _primary("ip6", routes, addresses)

    def bridges(self) -> tuple[str, ...]:
        """The names of the Linux bridges."""
        return tuple(link.name for link in self._links().values() if link.bridge is not None)

    def unseen_bridges(self, family: Family) -> tuple[str, ...]:
        """The names of the bridges whose forwarded traffic netfilter does not see: a reply there escapes translation.

        The setting is each network namespace's own since Linux 5.3, and is not there unless br_netfilter is loaded. A
        bridge can have netfilter called for itself alone (nf_call_iptables in ip-link(8)).
        """
        setting = self._bridge_setting(family)
        if setting == "1":
            return ()
        return tuple(
            link.name
            for link in self._links().values()
            if link.bridge is not None and not (setting and _flag(link.bridge, _CALLS_IPTABLES[family]))
        )

    def _bridge_setting(self, family: Family) -> str:
        with netns.entered(self._name_or_path):
            try:
                return sysctl.read(_CALL_SETTINGS[family])
            except MissingError:
                return ""

    def _links(self) -> dict[int, _Link]:
        mask = attribute(_IFLA_EXT_MASK, struct.pack("=I", _SKIP_STATISTICS))
        links = {}
        for body in self._dump(_GETLINK, _IFINFOMSG, mask):
            found = attributes(body[_IFINFOMSG.size :])
            links[_IFINFOMSG.unpack_from(body)[2]] = _Link(_name(found[_IFLA_NAME]), _bridge(found))
        return links

    def _dump(self, message: int, header: struct.Struct, request: bytes = b"") -> list[memoryview]:
        return self._connection.dump_whole(message, bytes(header.size) + request)


def _name(raw: memoryview) -> str:
    return bytes(raw).rstrip(b"\0").decode(errors="surrogateescape")


def _bridge(link: Attributes) -> Attributes | None:
    info = attributes(link[_IFLA_LINKINFO]) if _IFLA_LINKINFO in link else {}
    if _INFO_KIND not in info or _name(info[_INFO_KIND]) != "bridge":
        return None
    return attributes(info[_INFO_DATA]) if _INFO_DATA in info else {}


def _flag(found: Attributes, kind: int) -> bool:
    return kind in found and found[kind][0] != 0


def _number(found: Attributes, kind: int, default: int) -> int:
    return int(struct.unpack("=I", found[kind])[0]) if kind in found else default


def _address(body: memoryview, links: dict[int, _Link]) -> Address | None:
    number, prefix, bits, scope, index = _IFADDRMSG.unpack_from(body)
    family, found = _FAMILIES.get(number), attributes(body[_IFADDRMSG.size :])
    # IFA_ADDRESS is the other end's on a point-to-point link; IFA_LOCAL, if there is one, is ours.
    raw = found.get(_IFA_LOCAL) or found.get(_IFA_ADDRESS)
    if family is None or raw is None or index not in links:
        return None
    bits = _number(found, _IFA_FLAGS, bits)
    flags = {name for bit, name in _FLAGS.items() if bits & bit}
    if bits & _SECONDARY:
        flags.add("secondary" if family == "ip" else "temporary")
    return Address(
        family, links[index].name, address(bytes(raw)), prefix, _SCOPES.get(scope, str(scope)), frozenset(flags)
    )


def _route(body: memoryview, links: dict[int, _Link]) -> Route | None:
    number, length, _, _, table, _, _, kind, flags = _RTMSG.unpack_from(body)
    family, found = _FAMILIES.get(number), attributes(body[_RTMSG.size :])
    if family is None or flags & _CLONED or _number(found, _RTA_TABLE, table) != _TABLE_MAIN:
        return None
    destination = bytes(found.get(_RTA_DESTINATION, bytes(4 if family == "ip" else 16)))
    source = found.get(_RTA_SOURCE)
    device = links.get(_device(found))
    return Route(
        family,
        f"{address(destination)}/{length}",
        device.name if device else "",
        address(bytes(source)) if source else None,
        _number(found, _RTA_PRIORITY, 0),
        kind == _UNICAST,
    )


def _device(route: Attributes) -> int:
    if _RTA_MULTIPATH in route:
        return int(_NEXTHOP.unpack_from(route[_RTA_MULTIPATH])[3])
    return _number(route, _RTA_DEVICE, 0)


def _primary(family: Family, routes: tuple[Route, ...], addresses: tuple[Address, ...]) -> str | None:
    defaults = [
        route for route in routes if route.family == family and route.destination.endswith("/0") and route.usable
    ]
    if not defaults:
        return None
    route = min(defaults, key=lambda each: each.metric)
    if route.source:
        return route.source
    candidates = [each for each in addresses if each.family == family and each.scope == "global"]
    best = min(candidates, key=lambda each: (each.device != route.device, bool(each.flags & _UNFIT)), default=None)
    return best.address if best else None

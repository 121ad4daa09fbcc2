"""What a network namespace looks like from inside: its addresses, routes and bridges.

It only reads, and listens to no events: who hears of one (:class:`svcnat.kernel.events.HostEvents`) asks what was read
whether it is news. Bond, VLAN and other devices are of no interest here. Source: include/uapi/linux/rtnetlink.h,
if_addr.h, if_link.h, nexthop.h; rtnetlink(7).
"""

from __future__ import annotations

import contextlib
import socket
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network

from svcnat.errors import MissingError
from svcnat.kernel import netns, sysctl
from svcnat.kernel.netlink import ROUTE, Attributes, Connection, address, attribute, attributes, first_of
from svcnat.kernel.routes import PROTOCOL
from svcnat.ruleset.endpoints import Family
from svcnat.ruleset.plan import FAMILIES

_NEWLINK, _DELLINK, _GETLINK, _NEWADDR, _DELADDR, _GETADDR = 16, 17, 18, 20, 21, 22  # RTM_*
_NEWROUTE, _DELROUTE, _GETROUTE, _NEWNEXTHOP, _DELNEXTHOP = 24, 25, 26, 104, 105
_IFINFOMSG = struct.Struct("=BxHiII")  # family, type, index, flags, change
_IFADDRMSG = struct.Struct("=BBBBi")  # family, prefix length, flags, scope, index
_RTMSG = struct.Struct("=BBBBBBBBI")  # family, length of destination, of source, tos, table, origin, scope, type, flags
_NHMSG = struct.Struct("=BBBBI")  # family, scope, origin, reserved, flags
_NEXTHOP = struct.Struct("=HBBi")  # rtnexthop: length, flags, weight, device

_UP = 1  # IFF_UP
_IFLA_NAME, _IFLA_LINKINFO, _IFLA_EXT_MASK = 3, 18, 29
_INFO_KIND, _INFO_DATA = 1, 2
_SKIP_STATISTICS = 8  # RTEXT_FILTER_SKIP_STATS
_CALLS_IPTABLES: dict[Family, int] = {"ip": 36, "ip6": 37}  # IFLA_BR_NF_CALL_IPTABLES, _IP6TABLES
_CALL_SETTINGS: dict[Family, str] = {
    "ip": "net/bridge/bridge-nf-call-iptables",
    "ip6": "net/bridge/bridge-nf-call-ip6tables",
}
_IFA_ADDRESS, _IFA_LOCAL, _IFA_FLAGS = 1, 2, 8
_RTA_DESTINATION, _RTA_DEVICE, _RTA_PRIORITY, _RTA_SOURCE, _RTA_MULTIPATH, _RTA_NEXTHOP = 1, 4, 6, 7, 9, 30
_TABLE_MAIN, _UNICAST, _CLONED = 254, 1, 0x200
_NHA_ID = 1

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

    @property
    def is_reachable(self) -> bool:
        """True if others than this host and the neighbours on one link may know it."""
        return self.scope in ("global", "site")


@dataclass(frozen=True, slots=True)
class Route:
    """A route of the main table.

    ``destination`` is a CIDR, ``0.0.0.0/0`` and ``::/0`` for default routes. ``device`` is that of the first next
    hop, "" if there is none: ``usable`` is False for routes that refuse or drop. ``source`` is what the route says
    that the namespace's own packets should come from, or None. ``devices`` (by index) and ``nexthop`` (by number, 0 if
    it has none) are what takes the route along when it goes.
    """

    family: Family
    destination: str
    device: str
    source: str | None
    metric: int
    usable: bool
    devices: frozenset[int] = field(default=frozenset(), compare=False)
    nexthop: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True)
class Link:
    """A network device; ``calls``: the families whose netfilter a bridge calls by itself, None if it is no bridge."""

    name: str
    up: bool
    calls: frozenset[Family] | None


@dataclass(frozen=True, slots=True)
class Interest:
    """What somebody wants to know of a host besides addresses, default routes and bridges; None: everything.

    ``networks``: the routes that overlap with one of these. ``devices``: the links of these names.
    """

    networks: tuple[IPv4Network | IPv6Network, ...] | None = None
    devices: frozenset[str] | None = None
    _ranges: tuple[tuple[int, int, int], ...] = field(default=(), init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Take the ranges apart: their addresses' bits, the first address, and the prefix's length."""
        ranges = tuple((each.max_prefixlen, int(each.network_address), each.prefixlen) for each in self.networks or ())
        object.__setattr__(self, "_ranges", ranges)

    def has(self, route: memoryview) -> bool:
        """True of a route message that is of interest."""
        number, length, _, _, table, _, _, _, flags = _RTMSG.unpack_from(route)
        # The number of a table that does not fit there is not that of the main table.
        if table != _TABLE_MAIN or flags & _CLONED or number not in _FAMILIES:
            return False
        if not length or self.networks is None:
            return True
        if not self._ranges:
            return False
        raw = first_of(route, _RTMSG.size, _RTA_DESTINATION)
        destination, own = int.from_bytes(raw, "big"), 8 * len(raw)
        for bits, first, prefix in self._ranges:
            if bits == own and not (destination ^ first) >> bits - min(length, prefix):
                return True
        return False


@dataclass(frozen=True, slots=True)
class Survey:
    """What a look at a network namespace saw; ``links`` by index, ``settings``: whether bridges call netfilter.

    Addresses are in the kernel's order: the primary one of a device first. Of the routes it has those of
    ``interest``.
    """

    interest: Interest
    links: Mapping[int, Link]
    addresses: tuple[Address, ...]
    routes: tuple[Route, ...]
    settings: Mapping[Family, str]

    def primary_addresses(self) -> tuple[str | None, str | None]:
        """The addresses that the namespace's default routes use, IPv4 and IPv6; None without a default route.

        The source that the route of the lowest metric names; else its device's first global address, lasting ones
        before temporary and deprecated ones; else any device's, as the kernel chooses for a device without any.
        """
        return _primary("ip", self.routes, self.addresses), _primary("ip6", self.routes, self.addresses)

    def bridges(self) -> tuple[str, ...]:
        """The names of the Linux bridges."""
        return tuple(link.name for link in self.links.values() if link.calls is not None)

    def unseen_bridges(self, family: Family) -> tuple[str, ...]:
        """The names of the bridges whose forwarded traffic netfilter does not see: a reply there escapes translation.

        The setting is each network namespace's own since Linux 5.3, and is not there unless br_netfilter is loaded. A
        bridge can have netfilter called for itself alone (nf_call_iptables in ip-link(8)).
        """
        setting = self.settings[family]
        if setting == "1":
            return ()
        return tuple(
            link.name
            for link in self.links.values()
            if link.calls is not None and not (setting and family in link.calls)
        )

    def foresees(self, message: int, body: memoryview) -> bool:
        """True of an event of rtnetlink that tells what was seen already, or what is of no interest.

        Another look shows nothing new then. The kernel does not tell of every route that goes: those through a link
        that is set down, an address that is removed, or a next hop of its own go with it in silence (fib_flush).
        """
        if message in (_NEWROUTE, _DELROUTE):
            # Others are not to remove the routes that svcnat made.
            ours = message == _DELROUTE and body[5] == PROTOCOL
            return not ours and not self.interest.has(body)
        if message in (_NEWLINK, _DELLINK):
            return self._foresees_link(message, body)
        if message in (_NEWADDR, _DELADDR):
            return self._foresees_address(message, body)
        if message in (_NEWNEXTHOP, _DELNEXTHOP):
            number = _number(attributes(body[_NHMSG.size :]), _NHA_ID, 0)
            return all(number != route.nexthop for route in self.routes)
        return True

    def _foresees_link(self, message: int, body: memoryview) -> bool:
        if body[0] == socket.AF_BRIDGE:  # a bridge's settings for a port
            return True
        index, told = _link(body)
        known = self.links.get(index)
        if message == _NEWLINK and told == known:
            return True
        devices = self.interest.devices
        return not any(
            each.calls is not None or devices is None or each.name in devices for each in (told, known) if each
        ) and not self._leads_through(index)

    def _foresees_address(self, message: int, body: memoryview) -> bool:
        told = _address(body, self.links)
        if told is None:
            return _SCOPES.get(body[3]) not in ("global", "site")
        if message == _NEWADDR and told in self.addresses:
            return True
        return (
            not told.is_reachable
            and not self._leads_through(_IFADDRMSG.unpack_from(body)[4])
            and all(told.address != route.source for route in self.routes)
        )

    def _leads_through(self, device: int) -> bool:
        return any(device in route.devices for route in self.routes)


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
            self._connection = Connection(ROUTE, "network devices", strict=True)
        # What /proc/sys shows is the reading thread's: each look at it enters the namespace again.
        self._name_or_path = name_or_path

    def close(self) -> None:
        """Close the socket."""
        self._connection.close()

    def __enter__(self) -> Network:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def survey(self, interest: Interest = Interest()) -> Survey:
        """Look at everything that is of interest.

        Raises:
            StaleError: it changes at every look.

        """
        links = dict(map(_link, self._dump(_GETLINK, bytes(_IFINFOMSG.size) + _WITHOUT_STATISTICS)))
        addresses = (_address(body, links) for body in self._dump(_GETADDR, bytes(_IFADDRMSG.size)))
        # Only the main table's, since a host may have a million routes; and only those are unpacked that are wanted.
        asked = _RTMSG.pack(0, 0, 0, 0, _TABLE_MAIN, 0, 0, 0, 0)
        return Survey(
            interest,
            links,
            tuple(each for each in addresses if each),
            tuple(_route(body, links) for body in self._dump(_GETROUTE, asked, interest.has)),
            self._bridge_settings(),
        )

    def _bridge_settings(self) -> dict[Family, str]:
        found = dict.fromkeys(FAMILIES, "")
        with netns.entered(self._name_or_path):
            for family in FAMILIES:
                with contextlib.suppress(MissingError):
                    found[family] = sysctl.read(_CALL_SETTINGS[family])
        return found

    def _dump(self, message: int, body: bytes, wanted: Callable[[memoryview], bool] | None = None) -> list[memoryview]:
        return self._connection.dump_whole(message, body, wanted)


_WITHOUT_STATISTICS = attribute(_IFLA_EXT_MASK, struct.pack("=I", _SKIP_STATISTICS))


def _name(raw: memoryview) -> str:
    return bytes(raw).rstrip(b"\0").decode(errors="surrogateescape")


def _link(body: memoryview) -> tuple[int, Link]:
    """The index of a link, and what it is."""
    _, _, index, flags, _ = _IFINFOMSG.unpack_from(body)
    found = attributes(body[_IFINFOMSG.size :])
    return index, Link(_name(found[_IFLA_NAME]), bool(flags & _UP), _calls(found))


def _calls(link: Attributes) -> frozenset[Family] | None:
    info = attributes(link[_IFLA_LINKINFO]) if _IFLA_LINKINFO in link else {}
    if _INFO_KIND not in info or _name(info[_INFO_KIND]) != "bridge":
        return None
    data = attributes(info[_INFO_DATA]) if _INFO_DATA in info else {}
    return frozenset(family for family, kind in _CALLS_IPTABLES.items() if kind in data and data[kind][0])


def _number(found: Attributes, kind: int, default: int) -> int:
    return int(struct.unpack("=I", found[kind])[0]) if kind in found else default


def _address(body: memoryview, links: Mapping[int, Link]) -> Address | None:
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


def _route(body: memoryview, links: Mapping[int, Link]) -> Route:
    number, length, _, _, _, _, _, kind, _ = _RTMSG.unpack_from(body)
    family, found = _FAMILIES[number], attributes(body[_RTMSG.size :])
    destination = bytes(found.get(_RTA_DESTINATION, bytes(4 if family == "ip" else 16)))
    source = found.get(_RTA_SOURCE)
    devices = _devices(found)
    return Route(
        family,
        f"{address(destination)}/{length}",
        next((links[each].name for each in devices if each in links), ""),
        address(bytes(source)) if source else None,
        _number(found, _RTA_PRIORITY, 0),
        kind == _UNICAST,
        frozenset(devices),
        _number(found, _RTA_NEXTHOP, 0),
    )


def _devices(route: Attributes) -> list[int]:
    """The devices of all next hops, by index."""
    if _RTA_MULTIPATH not in route:
        return [_number(route, _RTA_DEVICE, 0)] if _RTA_DEVICE in route else []
    hops, devices = route[_RTA_MULTIPATH], []
    while len(hops) >= _NEXTHOP.size:
        length, _, _, device = _NEXTHOP.unpack_from(hops)
        devices.append(device)
        hops = hops[max(_NEXTHOP.size, (length + 3) & ~3) :]
    return devices


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

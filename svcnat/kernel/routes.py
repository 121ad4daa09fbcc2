"""The routes that svcnat makes, told from everybody else's by their protocol number.

All of them are in the table "local", which is looked up first, whatever policy rules there are, and which routing
daemons leave alone: ``ip route show table local proto 115``. What they are for is :mod:`svcnat.kernel.announce`'s and
:mod:`svcnat.kernel.localhost`'s subject. The routes of links are :mod:`svcnat.kernel.links`'. Source:
include/uapi/linux/rtnetlink.h, rtnetlink(7).
"""

from __future__ import annotations

import errno
import socket
import struct
from typing import NamedTuple

from svcnat.errors import MissingError
from svcnat.kernel.netlink import Connection, address, attribute, attributes

# The s of svcnat. Routing daemons and iproute2's rt_protos have others (8 to 18, 42, 80, 84, 99, 186 to 192), and the
# kernel gives numbers above 4 no meaning. Neighbour entries carry it, too (NDA_PROTOCOL, Linux 5.0).
PROTOCOL = 115

UNICAST, LOCAL = 1, 2  # RTN_*
CREATE, EXCLUSIVE = 0x400, 0x200  # NLM_F_CREATE, NLM_F_EXCL

_NEW, _DELETE, _GET = 24, 25, 26  # RTM_*ROUTE
_RTMSG = struct.Struct("=BBBBBBBBI")  # family, two lengths, tos, table, protocol, scope, type, flags
_DESTINATION, _DEVICE, _PRIORITY, _TABLE = 1, 4, 6, 15  # RTA_*
_TABLE_LOCAL, _SCOPE_LINK = 255, 253
_METRIC = 1024  # behind the kernel's own routes there, which have none


class Route(NamedTuple):
    """A route to one address: ``kind`` UNICAST or LOCAL, through the device of that index."""

    destination: str
    device: int
    kind: int


def settle(connection: Connection, family: int, wanted: set[Route]) -> dict[Route, int]:
    """Make svcnat's routes of a family (AF_INET, AF_INET6) be the wanted ones; those missing now, with their errno.

    A `connection` that is strict need not read all other routes for it.

    Raises:
        KernelError: they cannot be read.

    """
    have = _read(connection, family)
    stale, fresh = sorted(have - wanted), sorted(wanted - have)
    # Who else removed it meanwhile, or set its device down, did our work.
    connection.batch(_DELETE, [_request(family, route) for route in stale])
    # IPv6 refuses, when asked to be exclusive, a second device for the same address and metric; without that it still
    # replaces nothing. IPv4 would put our route before another program's.
    flags = CREATE if family == socket.AF_INET6 else CREATE | EXCLUSIVE
    results = connection.batch(_NEW, [_request(family, route) for route in fresh], flags=flags)
    return {route: number for route, number in zip(fresh, results, strict=True) if number not in (0, errno.EEXIST)}


def _read(connection: Connection, family: int) -> set[Route]:
    found: set[Route] = set()
    try:
        told = connection.dump_whole(_GET, _RTMSG.pack(family, 0, 0, 0, _TABLE_LOCAL, PROTOCOL, 0, 0, 0))
    except MissingError:
        return found  # a network namespace whose loopback was never up has no such table
    for body in told:
        of, _, _, _, table, protocol, _, kind, _ = _RTMSG.unpack_from(body)
        if (of, table, protocol) == (family, _TABLE_LOCAL, PROTOCOL):
            parts = attributes(body[_RTMSG.size :])
            device = int(struct.unpack("=I", parts[_DEVICE])[0])
            found.add(Route(address(bytes(parts[_DESTINATION])), device, kind))
    return found


def _request(family: int, route: Route) -> bytes:
    raw = socket.inet_pton(family, route.destination)
    # IPv6 routes have no scope.
    scope = _SCOPE_LINK if family == socket.AF_INET else 0
    return (
        _RTMSG.pack(family, 8 * len(raw), 0, 0, _TABLE_LOCAL, PROTOCOL, scope, route.kind, 0)
        + attribute(_DESTINATION, raw)
        + attribute(_DEVICE, struct.pack("=I", route.device))
        + attribute(_PRIORITY, struct.pack("=I", _METRIC))
        + attribute(_TABLE, struct.pack("=I", _TABLE_LOCAL))
    )

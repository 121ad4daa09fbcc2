"""The ports of bridges that lead to containers and virtual machines, and what a bridge may do between them.

It only reads. Source: include/uapi/linux/if_link.h (IFLA_BRPORT_*); bridge(8).
"""

from __future__ import annotations

import contextlib
import struct
from dataclasses import dataclass

from svcnat.kernel import netns
from svcnat.kernel.netlink import ROUTE, Attributes, Connection, attribute, attributes

_GETLINK = 18
_IFINFOMSG = struct.Struct("=BxHiII")
_NAME, _MASTER, _LINKINFO, _EXT_MASK = 3, 10, 18, 29  # IFLA_*
_KIND, _SLAVE_KIND, _SLAVE_DATA = 1, 4, 5  # IFLA_INFO_*
_MODE, _ISOLATED = 4, 33  # IFLA_BRPORT_*
_SKIP_STATISTICS = struct.pack("=I", 8)  # RTEXT_FILTER_SKIP_STATS
_GUESTS = frozenset({"veth", "tun"})  # what else is on a bridge leads to other machines


@dataclass(frozen=True, slots=True)
class Port:
    """A port of a bridge: may frames go back out by it (``hairpin``), is it kept from other ``isolated`` ones."""

    bridge: str
    name: str
    hairpin: bool
    isolated: bool


def read(name_or_path: str | None = None) -> tuple[Port, ...]:
    """Read the ports with a veth or a tap device in a network namespace (None: the current one).

    Raises:
        MissingError: no such namespace.
        PrivilegeError: entering it is not allowed.

    """
    with netns.entered(name_or_path):
        opened = Connection(ROUTE, "network devices")
    with contextlib.closing(opened) as connection:
        found = {}
        for body in connection.dump_whole(_GETLINK, bytes(_IFINFOMSG.size) + attribute(_EXT_MASK, _SKIP_STATISTICS)):
            found[_IFINFOMSG.unpack_from(body)[2]] = attributes(body[_IFINFOMSG.size :])
    ports = []
    for link in found.values():
        info = attributes(link[_LINKINFO]) if _LINKINFO in link else {}
        master = found.get(int(struct.unpack("=I", link[_MASTER])[0])) if _MASTER in link else None
        if master and _text(info, _SLAVE_KIND) == "bridge" and _text(info, _KIND) in _GUESTS:
            data = attributes(info[_SLAVE_DATA]) if _SLAVE_DATA in info else {}
            ports.append(Port(_text(master, _NAME), _text(link, _NAME), _flag(data, _MODE), _flag(data, _ISOLATED)))
    return tuple(ports)


def _text(found: Attributes, kind: int) -> str:
    return bytes(found[kind]).rstrip(b"\0").decode(errors="surrogateescape") if kind in found else ""


def _flag(found: Attributes, kind: int) -> bool:
    return kind in found and found[kind][0] != 0

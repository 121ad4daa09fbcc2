"""The flows that a network namespace's connection tracking knows: count, list, delete.

Only flows with ports, of tcp, udp and sctp. Which of them should go is not decided here
(:mod:`svcnat.agent.flows`). Source: include/uapi/linux/netfilter/nfnetlink_conntrack.h and
net/netfilter/nf_conntrack_netlink.c; filters of dumps need Linux 5.8, which is older than what the rules need.
"""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Iterable, Iterator
from typing import TypeVar

import msgspec

from svcnat.kernel import netns
from svcnat.kernel.netlink import NESTED, NETFILTER, Connection, address, attribute, attributes, nest
from svcnat.ruleset.endpoints import Family

# Message types of the conntrack subsystem (NFNL_SUBSYS_CTNETLINK << 8 | IPCTNL_MSG_CT_*).
GET, DELETE, GET_STATISTICS = (0x100 | n for n in (1, 2, 5))

_ORIGINAL, _ID, _ZONE, _FILTER = 1, 12, 18, 25  # CTA_*
_IP, _PROTO = 1, 2  # CTA_TUPLE_*
_IP_KINDS = {"ip": (1, 2), "ip6": (3, 4)}  # CTA_IP_V4_SRC, _DST; CTA_IP_V6_SRC, _DST
_PROTO_NUMBER, _PROTO_PORTS = 1, (2, 3)  # CTA_PROTO_NUM; CTA_PROTO_SRC_PORT, _DST_PORT
_ENTRIES = 1  # CTA_STATS_GLOBAL_ENTRIES

_AF = {"ip": socket.AF_INET, "ip6": socket.AF_INET6}
_FAMILIES: dict[int, Family] = {socket.AF_INET: "ip", socket.AF_INET6: "ip6"}
_PROTOCOLS = {6: "tcp", 17: "udp", 132: "sctp"}
_NUMBERS = {name: number for number, name in _PROTOCOLS.items()}
_NFGENMSG = struct.Struct("=BBH")  # nfgenmsg: family, version, resource id
_ATTRIBUTE = struct.Struct("=HH")

_T = TypeVar("_T")
_Pair = tuple[_T | None, _T | None]


class _Tuple:
    """Where the fields of a CTA_TUPLE_* are: the kernel always writes them in this order.

    Walking the attributes of a flow takes 10 us, and this one: there may be hundreds of thousands of flows.
    """

    def __init__(self, width: int) -> None:
        # Length, header of the addresses, source, destination, header of the protocol, number, two ports.
        self.layout = struct.Struct(f">H2xI4x{width}s4x{width}sI4xB3x4xH2x4xH2x")
        self.size = self.layout.size
        self.headers = tuple(
            int.from_bytes(_ATTRIBUTE.pack(length, kind | NESTED), "big")
            for length, kind in ((4 + 2 * (4 + width), _IP), (28, _PROTO))
        )


_TUPLES: dict[int, _Tuple] = {socket.AF_INET: _Tuple(4), socket.AF_INET6: _Tuple(16)}


class Flow(msgspec.Struct, frozen=True, gc=False):
    """One tracked flow: its first packet's addresses, and where its answers come from.

    ``reply_source`` is the endpoint that the flow was translated to, or ``destination`` if it never was. ``zone`` is
    that of its first direction. ``ident`` tells it from a later flow between the same addresses.
    """

    family: Family
    protocol: str
    source: str
    source_port: int
    destination: str
    destination_port: int
    reply_source: str
    reply_source_port: int
    zone: int
    ident: int


class Conntrack:
    """The flows of one network namespace.

    A socket is opened there and stays, so the methods work from any thread, one at a time.
    """

    def __init__(self, name_or_path: str | None = None) -> None:
        """Open the namespace by name or path; None is the current one.

        Raises:
            MissingError: no such namespace.
            PrivilegeError: entering it, or connection tracking there, is not allowed.
            KernelError: the kernel has no nf_conntrack_netlink.

        """
        with netns.entered(name_or_path):
            self._connection = Connection(NETFILTER, "connection tracking")
        try:
            self.count()  # the first question tells whether we may ask at all
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close the socket."""
        self._connection.close()

    def __enter__(self) -> Conntrack:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def count(self) -> int:
        """How many flows there are, of any protocol; one that is deleted counts until its last packet has left."""
        answer = self._connection.get(GET_STATISTICS, _NFGENMSG.pack(0, 0, 0))
        assert answer is not None
        return int.from_bytes(attributes(answer[_NFGENMSG.size :])[_ENTRIES], "big")

    def flows(
        self,
        family: Family | None = None,
        protocol: str | None = None,
        *,
        destination: str | None = None,
        port: int | None = None,
    ) -> Iterator[Flow]:
        """The flows whose first packet matches all that is given; 3 us each, and about 10 ms to find none in 64,000.

        Exhaust the iterator before asking anything else. A filter needs `family`; a port, `protocol`.
        """
        raw = socket.inet_pton(_AF[family], destination) if family and destination else None
        number = _NUMBERS[protocol] if protocol else None
        body = _NFGENMSG.pack(_AF[family] if family else 0, 0, 0)
        if family and protocol:
            body += _matching(family, protocol, raw, port)
        for answer in self._connection.dump(GET, body):
            shape = _TUPLES[answer[0]]
            fields = shape.layout.unpack_from(answer, 4)
            size, addresses, source, target, proto, found, source_port, target_port = fields
            # No ports, another protocol's ports, or what the kernel's filter let through: see _matching().
            if (addresses, proto) != shape.headers or found not in _PROTOCOLS or number not in (None, found):
                continue
            if raw not in (None, target) or port not in (None, target_port):
                continue
            reply = 4 + socket.ntohs(size)
            size, _, replier, _, _, _, replier_port, _ = shape.layout.unpack_from(answer, reply)
            zone, ident = _zone_and_id(answer, shape.size, reply, reply + socket.ntohs(size))
            yield Flow(
                _FAMILIES[answer[0]],
                _PROTOCOLS[found],
                address(source),
                source_port,
                address(target),
                target_port,
                address(replier),
                replier_port,
                zone,
                ident,
            )

    def delete(self, flows: Iterable[Flow]) -> int:
        """Delete exactly these flows; those that are gone already do no harm.

        Returns:
            How many there were.

        Raises:
            KernelError: the kernel refused.

        """
        results = self._connection.batch(DELETE, [_one(flow) for flow in flows])
        for number in set(results) - {0, errno.ENOENT}:
            raise self._connection.refusal(number)
        return results.count(0)


def _zone_and_id(answer: memoryview, plain: int, reply: int, position: int) -> tuple[int, int]:
    """The zone of the first direction, and CTA_ID; what follows the two tuples starts at `position`."""
    # A zone of this direction alone is the last thing in its tuple, before the reply's.
    zone = int.from_bytes(answer[reply - 4 : reply - 2], "big") if reply - 4 > plain else 0
    while True:
        length, kind = _ATTRIBUTE.unpack_from(answer, position)
        if kind == _ZONE:
            zone = int.from_bytes(answer[position + 4 : position + 6], "big")
        elif kind == _ID:
            return zone, int.from_bytes(answer[position + 4 : position + 8], "big")
        position += (length + 3) & ~3


def _one(flow: Flow) -> bytes:
    """The request for one flow: its tuple, its zone, and the id that no other flow has."""
    family = _AF[flow.family]
    addresses = socket.inet_pton(family, flow.source), socket.inet_pton(family, flow.destination)
    request = _NFGENMSG.pack(family, 0, 0)
    request += _tuple(_ORIGINAL, flow.family, flow.protocol, addresses, (flow.source_port, flow.destination_port))
    if flow.zone:
        request += attribute(_ZONE, flow.zone.to_bytes(2, "big"))
    return request + attribute(_ID, flow.ident.to_bytes(4, "big"))


def _matching(family: Family, protocol: str, destination: bytes | None, port: int | None) -> bytes:
    """The attributes that make a dump list only these flows.

    Less than asked for is filtered here, never more: the kernel compares ports of tcp and udp only, and of IPv6 it
    leaves out the address given and lists all others (ctnetlink_filter_match_tuple; still so in 6.18).
    """
    addresses = None, destination if family == "ip" else None
    ports = None, port
    return _tuple(_ORIGINAL, family, protocol, addresses, ports) + nest(_FILTER, _flags(1, addresses, ports))


def _tuple(kind: int, family: Family, protocol: str, addresses: _Pair[bytes], ports: _Pair[int]) -> bytes:
    """A CTA_TUPLE_* of the addresses and ports that are given, each (source, destination)."""
    return nest(
        kind,
        nest(_IP, *(attribute(_IP_KINDS[family][end], raw) for end, raw in enumerate(addresses) if raw is not None)),
        nest(
            _PROTO,
            attribute(_PROTO_NUMBER, bytes([_NUMBERS[protocol]])),
            *(
                attribute(_PROTO_PORTS[end], port.to_bytes(2, "big"))
                for end, port in enumerate(ports)
                if port is not None
            ),
        ),
    )


def _flags(kind: int, addresses: _Pair[bytes], ports: _Pair[int]) -> bytes:
    """A CTA_FILTER_*_FLAGS: which fields of the tuple count (CTA_FILTER_F_* in nf_internals.h)."""
    bits = 8  # the protocol
    for bit, given in zip((1, 2, 16, 32), (*addresses, *ports), strict=True):
        bits |= bit if given is not None else 0
    return attribute(kind, struct.pack("=I", bits))

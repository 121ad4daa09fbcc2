"""Tracked flows without packets: entries that are written into connection tracking by netlink."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterable

from svcnat.kernel import netns
from svcnat.kernel.conntrack import Flow
from svcnat.kernel.netlink import NETFILTER, Connection, attribute, nest

_NEW, _CREATE_EXCLUSIVELY = 0x100, 0x600
_NUMBERS = {"tcp": 6, "udp": 17, "sctp": 132}


def flow(
    source: str,
    destination: str,
    reply_source: str | None = None,
    protocol: str = "udp",
    *,
    zone: int = 0,
    ident: int = 0,
) -> Flow:
    """A flow from ADDRESS@PORT to ADDRESS@PORT, answered by ADDRESS@PORT (the destination, if it is not given)."""
    (one, one_port), (two, two_port), (three, three_port) = (
        each.rsplit("@", 1) for each in (source, destination, reply_source or destination)
    )
    return Flow(
        family="ip6" if ":" in one else "ip",
        protocol=protocol,
        source=one,
        source_port=int(one_port),
        destination=two,
        destination_port=int(two_port),
        reply_source=three,
        reply_source_port=int(three_port),
        zone=zone,
        ident=ident,
    )


def track(where: str, flows: Iterable[Flow]) -> None:
    """Make connection tracking of a namespace know these flows, for five minutes."""
    with netns.entered(where):
        connection = Connection(NETFILTER, "connection tracking")
    try:
        results = connection.batch(_NEW, [_entry(each) for each in flows], flags=_CREATE_EXCLUSIVELY)
    finally:
        connection.close()
    assert set(results) <= {0}, results


def _entry(made: Flow) -> bytes:
    client = made.source, made.source_port
    return (
        struct.pack("=BBH", socket.AF_INET6 if made.family == "ip6" else socket.AF_INET, 0, 0)
        + _tuple(1, made, client, (made.destination, made.destination_port))
        + _tuple(2, made, (made.reply_source, made.reply_source_port), client)
        + attribute(7, struct.pack("!I", 300))
        + attribute(18, struct.pack("!H", made.zone))
    )


def _tuple(kind: int, made: Flow, source: tuple[str, int], destination: tuple[str, int]) -> bytes:
    version, first = (socket.AF_INET6, 3) if made.family == "ip6" else (socket.AF_INET, 1)
    return nest(
        kind,
        nest(
            1,
            attribute(first, socket.inet_pton(version, source[0])),
            attribute(first + 1, socket.inet_pton(version, destination[0])),
        ),
        nest(
            2,
            attribute(1, bytes([_NUMBERS[made.protocol]])),
            attribute(2, struct.pack("!H", source[1])),
            attribute(3, struct.pack("!H", destination[1])),
        ),
    )

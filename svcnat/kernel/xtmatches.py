"""The matches of iptables that say something about every packet of a flow, as steps; others become Unknown.

iptables-nft keeps most matches as iptables-legacy has them. Source: include/uapi/linux/netfilter/xt_*.h.
"""

from __future__ import annotations

import struct
import sys
from collections.abc import Iterator

from svcnat.kernel.steps import Compare, Load, Span, States, Step, Unknown

# struct xt_conntrack_mtinfo3: eight addresses of 16 bytes, two lifetimes, protocol, four ports, then these.
_CONNTRACK = struct.Struct("=146xHHH")  # match_flags, invert_flags, state_mask
_BY_STATE = 1  # XT_CONNTRACK_STATE
_DNAT = 1 << 7  # XT_CONNTRACK_STATE_DNAT
_STATES = 0xF  # invalid, established, related, new: the numbers that nft has for them, too
_TCP = struct.Struct("=4HBBBB")  # struct xt_tcp: two ports and two more, option, flags' mask and values, inverted
_UDP = struct.Struct("=4HB")  # struct xt_udp
_MULTIPORT = struct.Struct("=BB15H15BB")  # struct xt_multiport_v1
_ADDRTYPE = struct.Struct("=HHI")  # struct xt_addrtype_info_v1: of source and destination, flags


def parse_match(name: str, revision: int, info: bytes) -> Iterator[Step]:
    """The steps that a match with its data stands for."""
    match name:
        case "comment":
            pass
        case "conntrack" if revision >= 2 and len(info) >= _CONNTRACK.size:
            flags, inverted, states = _CONNTRACK.unpack_from(info)
            yield _states(states, inverted=bool(inverted & _BY_STATE)) if flags == _BY_STATE else Unknown()
        case "state" if len(info) >= 4:
            yield _states(struct.unpack_from("=I", info)[0], inverted=False)
        case "tcp" if len(info) >= _TCP.size:
            *ports, option, mask, _, inverted = _TCP.unpack_from(info)
            yield from _ports(ports, inverted)
            if option or mask:
                yield Unknown()
        case "udp" if len(info) >= _UDP.size:
            *ports, inverted = _UDP.unpack_from(info)
            yield from _ports(ports, inverted)
        case "multiport" if revision == 1 and len(info) >= _MULTIPORT.size:
            yield from _multiport(info)
        case "addrtype" if revision == 1 and len(info) >= _ADDRTYPE.size:
            yield from _addrtype(info)
        case _:
            yield Unknown()


def _states(mask: int, *, inverted: bool) -> States:
    return States(mask & _STATES, translated=bool(mask & _DNAT), inverted=inverted)


def _ports(ports: list[int], inverted: int) -> Iterator[Step]:
    """Ranges of the source's and the destination's ports; a range of all ports asks nothing."""
    for offset, low, high in ((0, *ports[:2]), (2, *ports[2:])):
        if (low, high) != (0, 0xFFFF) or inverted & (1 << (offset // 2)):
            yield Load(4, 2, "transport", offset)
            yield Compare(4, (_span(low, high),), bool(inverted & (1 << (offset // 2))))


def _multiport(info: bytes) -> Iterator[Step]:
    kind, count, *rest = _MULTIPORT.unpack_from(info)
    ports, continued, inverted = rest[:15], rest[15:30], rest[30]
    spans: list[Span] = []
    place = 0
    while place < min(count, 15):
        high = ports[place + 1] if continued[place] and place < 14 else ports[place]
        spans.append(_span(ports[place], high))
        place += 2 if continued[place] else 1
    if kind > 1:  # source or destination, whichever it is
        yield Unknown()
        return
    yield Load(4, 2, "transport", 2 * kind)
    yield Compare(4, tuple(spans), bool(inverted))


def _addrtype(info: bytes) -> Iterator[Step]:
    source, destination, flags = _ADDRTYPE.unpack_from(info)
    if source or flags & ~2:  # 2: XT_ADDRTYPE_INVERT_DEST; others ask about the source, or about one device only
        yield Unknown()
        return
    kinds = tuple(number.to_bytes(4, sys.byteorder) for number in range(16) if destination & (1 << number))
    yield Load(4, 4, "daddr type")
    yield Compare(4, tuple((each, each) for each in kinds), bool(flags & 2))


def _span(low: int, high: int) -> Span:
    return low.to_bytes(2, "big"), high.to_bytes(2, "big")

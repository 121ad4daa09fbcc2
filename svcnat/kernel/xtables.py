"""The tables of iptables-legacy in a network namespace, which nftables does not show.

Asking for a table by name would make it, and hook it into every packet's way (since Linux 5.15, xt_find_table_lock):
only tables that the namespace has already are asked for, and nothing is ever changed. Source:
include/uapi/linux/netfilter_ipv4/ip_tables.h, netfilter_ipv6/ip6_tables.h, netfilter/x_tables.h.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice, pairwise
from pathlib import Path

from svcnat.errors import KernelError, PrivilegeError
from svcnat.kernel import netns
from svcnat.kernel.expressions import parse_target
from svcnat.kernel.foreign import Chain
from svcnat.kernel.steps import Compare, Load, Mask, Rule, Step, Unknown
from svcnat.kernel.xtmatches import parse_match

_PROC = Path("/proc/thread-self/net")
_INFO, _ENTRIES = 64, 65  # IPT_SO_GET_INFO, _ENTRIES; the same numbers for IPv6
_GETINFO = struct.Struct("=32sI5I5III")  # name, valid hooks, where each hook's chain begins and ends, entries, size
_GET_ENTRIES = struct.Struct("=32sI4x")  # name, size, and padding to eight bytes
_HOOKS = ("prerouting", "input", "forward", "output", "postrouting")
_TABLES = {"raw": (-300, "filter"), "mangle": (-150, "filter"), "nat": (-100, "nat"), "filter": (0, "filter")}
_NAT = ("prerouting", "output")
_HEAD = struct.Struct("=HH")  # where the target of an entry is, and where the next entry
_MODULE = struct.Struct("=H29sB")  # xt_entry_match, xt_entry_target: size, name, revision
_LONGEST = 30  # XT_FUNCTION_MAXNAMELEN: of the name in a chain's head
_MOST_RULES = 20_000  # of a table
_DROP, _ACCEPT, _RETURN = -1, -2, -5  # verdicts of standard targets; others are offsets of entries


@dataclass(frozen=True, slots=True)
class _Layout:
    """Where things are in one family's entries."""

    family: str
    socket_family: int
    level: int
    names: str
    address: int  # bytes of an address
    sender: int  # where the header has the sender's address, and behind it the receiver's
    flags: int
    goto: int  # IPT_F_GOTO, IP6T_F_GOTO
    head: int
    size: int


_LAYOUTS = (
    _Layout("ip", socket.AF_INET, socket.IPPROTO_IP, "ip_tables_names", 4, 12, 82, 2, 88, 112),
    _Layout("ip6", socket.AF_INET6, socket.IPPROTO_IPV6, "ip6_tables_names", 16, 8, 131, 4, 140, 168),
)


def read(name_or_path: str | None = None) -> tuple[Chain, ...]:
    """The chains at hooks of all tables in a network namespace (None: the current one); mostly none.

    Raises:
        MissingError: no such namespace.
        PrivilegeError: entering it, or asking there, is not allowed.
        KernelError: the kernel refused.

    """
    with netns.entered(name_or_path):
        return tuple(
            chain
            for layout in _LAYOUTS
            for table in _names(layout)
            if table in _TABLES
            for chain in _chains(layout, table)
        )


def _names(layout: _Layout) -> list[str]:
    try:
        return (_PROC / layout.names).read_text(encoding="utf-8", errors="replace").split()
    except FileNotFoundError:
        return []  # a kernel without iptables-legacy
    except PermissionError as error:
        raise PrivilegeError(f"iptables-legacy: needs root: {error.strerror}") from error


def _chains(layout: _Layout, table: str) -> Iterator[Chain]:
    name = table.encode()
    try:
        with socket.socket(layout.socket_family, socket.SOCK_RAW, socket.IPPROTO_RAW) as asking:
            asked = _ask(asking, layout, _INFO, _GETINFO.pack(name, *(0,) * 13))
            _, hooks, *places, _, size = _GETINFO.unpack(asked)
            answer = _ask(asking, layout, _ENTRIES, _GET_ENTRIES.pack(name, size) + bytes(size))
    except OSError as error:
        reason = f"iptables-legacy: {os.strerror(error.errno or 0)}"
        raise (PrivilegeError if error.errno in (errno.EPERM, errno.EACCES) else KernelError)(reason) from error
    entries = dict(islice(_entries(layout, answer[_GET_ENTRIES.size :]), _MOST_RULES + 1))
    if len(entries) > _MOST_RULES:
        entries = {}
    starts = _starts(entries)
    priority, kind = _TABLES[table]
    called = {chain: tuple(_run(entries, starts, start, None)) for chain, start in starts.items()}
    for number, hook in enumerate(_HOOKS):
        if not hooks & (1 << number) or (kind == "nat" and hook not in _NAT):
            continue
        found = list(_run(entries, starts, places[number], places[5 + number]))
        policy = found.pop().verdict if found else "accept"
        rules = tuple(found) if entries else None
        yield Chain(
            layout.family,
            table,
            hook.upper(),
            hook,
            priority,
            policy,
            rules,
            called,
            legacy=True,
            kind=kind,
            whole=bool(entries),
        )


def _ask(asking: socket.socket, layout: _Layout, option: int, request: bytes) -> bytes:
    """getsockopt(2) with something to say; Python's own only listens."""
    import ctypes

    buffer = ctypes.create_string_buffer(request, len(request))
    length = ctypes.c_uint(len(request))
    function = ctypes.CDLL(None, use_errno=True).getsockopt
    if function(asking.fileno(), layout.level, option, buffer, ctypes.byref(length)) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return buffer.raw


def _starts(entries: dict[int, Rule | str]) -> dict[str, int]:
    """Where each chain that others call has its first rule: behind its head."""
    found = {}
    for (_, head), (position, _) in pairwise(entries.items()):
        if isinstance(head, str):
            found[head] = position
    return found


def _run(entries: dict[int, Rule | str], starts: dict[str, int], start: int, end: int | None) -> Iterator[Rule]:
    """The rules from `start` up to the one at `end`, or to the head of the next chain; jumps by the chain's name."""
    names, number = {str(position): name for name, position in starts.items()}, 0
    for position, rule in entries.items():
        if position < start:
            continue
        if isinstance(rule, str):
            return
        number += 1
        yield replace(rule, target=names.get(rule.target, rule.target), handle=number)
        if position == end:
            return


def _entries(layout: _Layout, data: bytes) -> Iterator[tuple[int, Rule | str]]:
    """Every entry by its offset; of the head of a chain, its name."""
    position = 0
    while position + layout.size <= len(data):
        target, following = _HEAD.unpack_from(data, position + layout.head)
        if following < layout.size:
            return  # no entry: an endless run of them would follow
        yield position, _entry(layout, data[position : position + following], target)
        position += following


def _entry(layout: _Layout, entry: bytes, start: int) -> Rule | str:
    _, raw, _ = _MODULE.unpack_from(entry, start)
    name = raw.rstrip(b"\0").decode(errors="replace")
    if name == "ERROR":
        return entry[start + _MODULE.size :][:_LONGEST].partition(b"\0")[0].decode(errors="replace")
    steps = tuple(_steps(layout, entry, start))
    if name:
        return parse_target(name, entry[start + _MODULE.size :], steps)
    (verdict,) = struct.unpack_from("=i", entry, start + _MODULE.size)
    match verdict:
        case value if value == _DROP:
            return Rule("drop", steps)
        case value if value == _ACCEPT:
            return Rule("accept", steps)
        case value if value == _RETURN:
            return Rule("return", steps)
        case value if value >= 0:
            goes = entry[layout.flags] & layout.goto
            return Rule("goto" if goes else "jump", steps, str(value))
    return Rule("continue", steps)


def _steps(layout: _Layout, entry: bytes, end: int) -> Iterator[Step]:
    """What an entry asks of addresses, devices and protocol (struct ipt_ip, ip6t_ip6), and by its matches."""
    size, inverted = layout.address, entry[layout.flags + 1]
    for place, bit in ((0, 8), (1, 16)):  # IPT_INV_SRCIP, _DSTIP
        mask = entry[(place + 2) * size : (place + 3) * size]
        if any(mask):
            value = entry[place * size : (place + 1) * size]
            yield from _asked("network", layout.sender + place * size, value, mask, inverted=bool(inverted & bit))
    for place, (what, bit) in enumerate((("iifname", 1), ("oifname", 2))):  # IPT_INV_VIA_IN, _OUT
        start = 4 * size + 16 * place
        mask = entry[start + 32 : start + 48]
        if any(mask):
            yield from _asked(what, 0, entry[start : start + 16], mask, inverted=bool(inverted & bit))
    protocol = int.from_bytes(entry[4 * size + 64 : 4 * size + 66], sys.byteorder)
    if protocol:
        value = bytes([protocol & 0xFF])
        yield from _asked("l4proto", 0, value, b"\xff", inverted=bool(inverted & 64))  # XT_INV_PROTO
    if inverted & 32 or (layout.family == "ip" and entry[layout.flags] & 1):  # IPT_INV_FRAG, IPT_F_FRAG
        yield Unknown()
    position = layout.size
    while position + _MODULE.size <= end:
        length, raw, revision = _MODULE.unpack_from(entry, position)
        name = raw.rstrip(b"\0").decode(errors="replace")
        yield from parse_match(name, revision, entry[position + _MODULE.size : position + length])
        position += max(length, _MODULE.size)


def _asked(what: str, offset: int, value: bytes, mask: bytes, *, inverted: bool) -> Iterator[Step]:
    yield Load(4, len(value), what, offset)
    yield Mask(4, 4, mask, bytes(len(mask)))
    kept = bytes(one & other for one, other in zip(value, mask, strict=True))
    yield Compare(4, ((kept, kept),), inverted)

"""The filter table of iptables-legacy in a network namespace, which nftables does not show.

Asking for a table by name would make it, and hook it into every packet's way (since Linux 5.15, xt_find_table_lock):
only tables that the namespace has already are asked for, and nothing is ever changed. Source:
include/uapi/linux/netfilter_ipv4/ip_tables.h, netfilter_ipv6/ip6_tables.h, netfilter/x_tables.h.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

from svcnat.errors import KernelError, PrivilegeError
from svcnat.kernel import netns
from svcnat.kernel.foreign import Chain, Matches, Rule, asks_translated

_PROC = Path("/proc/thread-self/net")
_INFO, _ENTRIES = 64, 65  # IPT_SO_GET_INFO, _ENTRIES; the same numbers for IPv6
_GETINFO = struct.Struct("=32sI5I5III")  # name, valid hooks, where each hook's chain begins and ends, entries, size
_GET_ENTRIES = struct.Struct("=32sI4x")  # name, size, and padding to eight bytes
_HOOKS = {1: ("INPUT", "input"), 2: ("FORWARD", "forward")}
_HEAD = struct.Struct("=HH")  # where the target of an entry is, and where the next entry
_MODULE = struct.Struct("=H29sB")  # xt_entry_match, xt_entry_target: size, name, revision
_LONGEST = 30  # XT_FUNCTION_MAXNAMELEN: of the name in a chain's head
_DROP, _ACCEPT, _RETURN = -1, -2, -5  # verdicts of standard targets; others are offsets of entries


@dataclass(frozen=True, slots=True)
class _Layout:
    """Where things are in one family's entries."""

    family: str
    socket_family: int
    level: int
    names: str
    addresses: int  # bytes of struct ipt_ip or ip6t_ip6 that say what matches; 0 everywhere is everything
    flags: int
    goto: int  # IPT_F_GOTO, IP6T_F_GOTO
    head: int
    size: int


_LAYOUTS = (
    _Layout("ip", socket.AF_INET, socket.IPPROTO_IP, "ip_tables_names", 82, 82, 2, 88, 112),
    _Layout("ip6", socket.AF_INET6, socket.IPPROTO_IPV6, "ip6_tables_names", 131, 131, 4, 140, 168),
)


def read(name_or_path: str | None = None) -> tuple[Chain, ...]:
    """The chains INPUT and FORWARD of the filter tables in a network namespace (None: the current one); mostly none.

    Raises:
        MissingError: no such namespace.
        PrivilegeError: entering it, or asking there, is not allowed.
        KernelError: the kernel refused.

    """
    with netns.entered(name_or_path):
        return tuple(chain for layout in _LAYOUTS if "filter" in _names(layout) for chain in _chains(layout))


def _names(layout: _Layout) -> list[str]:
    try:
        return (_PROC / layout.names).read_text(encoding="utf-8", errors="replace").split()
    except FileNotFoundError:
        return []  # a kernel without iptables-legacy
    except PermissionError as error:
        raise PrivilegeError(f"iptables-legacy: needs root: {error.strerror}") from error


def _chains(layout: _Layout) -> Iterator[Chain]:
    try:
        with socket.socket(layout.socket_family, socket.SOCK_RAW, socket.IPPROTO_RAW) as asking:
            asked = _ask(asking, layout, _INFO, _GETINFO.pack(b"filter", *(0,) * 13))
            _, _, *places, _, size = _GETINFO.unpack(asked)
            answer = _ask(asking, layout, _ENTRIES, _GET_ENTRIES.pack(b"filter", size) + bytes(size))
    except OSError as error:
        reason = f"iptables-legacy: {os.strerror(error.errno or 0)}"
        raise (PrivilegeError if error.errno in (errno.EPERM, errno.EACCES) else KernelError)(reason) from error
    entries = dict(_entries(layout, answer[_GET_ENTRIES.size :]))
    starts = _starts(entries)
    for number, (name, hook) in _HOOKS.items():
        start, end = places[number], places[5 + number]
        *rules, policy = _run(entries, starts, start, end)
        called: dict[str, tuple[Rule, ...]] = {}
        ahead = [rule.target for rule in rules if rule.matches != "some"]
        while ahead:
            target = ahead.pop()
            if target in starts and target not in called:
                called[target] = tuple(_run(entries, starts, starts[target], None))
                ahead += [rule.target for rule in called[target] if rule.matches != "some"]
        yield Chain(layout.family, "filter", name, hook, 0, policy.verdict, tuple(rules), called, legacy=True)


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
    names = {str(position): name for name, position in starts.items()}
    for position, rule in entries.items():
        if position < start:
            continue
        if isinstance(rule, str):
            return
        yield replace(rule, target=names.get(rule.target, rule.target))
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
    matches = _matches(layout, entry, start)
    if name == "ERROR":
        return entry[start + _MODULE.size :][:_LONGEST].partition(b"\0")[0].decode(errors="replace")
    if name == "REJECT":
        return Rule(matches, "drop")
    if name:
        return Rule(matches, "continue")
    (verdict,) = struct.unpack_from("=i", entry, start + _MODULE.size)
    match verdict:
        case value if value == _DROP:
            return Rule(matches, "drop")
        case value if value == _ACCEPT:
            return Rule(matches, "accept")
        case value if value == _RETURN:
            return Rule(matches, "return")
        case value if value >= 0:
            goes = entry[layout.flags] & layout.goto
            return Rule(matches, "goto" if goes else "jump", str(value))
    return Rule(matches, "continue")


def _matches(layout: _Layout, entry: bytes, end: int) -> Matches:
    if any(entry[: layout.addresses]) or entry[layout.flags] & ~layout.goto:
        return "some"
    found: Matches = "all"
    position = layout.size
    while position + _MODULE.size <= end:
        size, raw, revision = _MODULE.unpack_from(entry, position)
        known = raw.rstrip(b"\0") == b"conntrack" and revision >= 2
        if not known or not asks_translated(entry[position + _MODULE.size : position + size]):
            return "some"
        found = "translated"
        position += size
    return found

"""A rule of nftables as steps that can be followed on paper.

It reads what the kernel says of a rule, and forgets what no packet's fate depends on (counters, logs). What it does not
know becomes :class:`~svcnat.kernel.steps.Unknown`. Steps are followed in :mod:`svcnat.agent.doctor.paper`. Source:
include/uapi/linux/netfilter/nf_tables.h.
"""

from __future__ import annotations

from collections.abc import Iterator

from svcnat.kernel.netlink import Attributes, attributes, walk
from svcnat.kernel.steps import (
    Compare,
    Constant,
    Load,
    Lookup,
    Mask,
    Rule,
    Span,
    Step,
    Unknown,
    Untrack,
    Verdict,
)
from svcnat.kernel.xtmatches import parse_match

_VERDICTS: dict[int, Verdict] = {0: "drop", 1: "accept", -3: "jump", -4: "goto", -5: "return"}  # NF_*, NFT_*
_LAST = b"\xff"
_META = {4: "iif", 5: "oif", 6: "iifname", 7: "oifname", 1: "protocol", 15: "nfproto", 16: "l4proto"}  # NFT_META_*
_CT = {0: "state", 1: "direction", 2: "status"}  # NFT_CT_*
_HEADERS = {1: "network", 2: "transport"}  # NFT_PAYLOAD_*
_SIZES = {"protocol": 2, "nfproto": 1, "l4proto": 1, "iifname": 16, "oifname": 16, "direction": 1}
_FIB_TYPE, _FIB_DESTINATION = 3, 2  # NFT_FIB_RESULT_ADDRTYPE, NFTA_FIB_F_DADDR
_SILENT = frozenset({"counter", "log", "last", "objref"})  # what lets every packet go on, and loads nothing
_TRANSLATES = frozenset({"nat", "redir", "tproxy"})


def parse_rule(found: Attributes) -> Rule:
    """Read a rule from its attributes (NFTA_RULE_*)."""
    handle = int.from_bytes(found[3], "big") if 3 in found else 0
    steps: list[Step] = []
    for _, expression in walk(found[4]) if 4 in found else ():
        parts = attributes(expression)
        kind, data = name_of(parts[1]), attributes(parts[2]) if 2 in parts else {}
        if kind in _TRANSLATES:
            return Rule("translate", tuple(steps), handle=handle)
        if kind == "reject":
            return Rule("drop", tuple(steps), handle=handle)
        if kind == "target":
            return parse_target(name_of(data[1]), bytes(data[3]), tuple(steps), handle)
        if kind == "immediate" and (verdict := attributes(data[2]).get(2)) is not None:
            decided, target = parse_verdict(attributes(verdict))
            return Rule(decided, tuple(steps), target, handle)
        if kind not in _SILENT:
            steps += _steps(kind, data)
    return Rule("continue", tuple(steps), handle=handle)


def parse_target(name: str, info: bytes, steps: tuple[Step, ...], handle: int = 0) -> Rule:
    """A rule of iptables that ends in a target which is no verdict."""
    if name in ("DNAT", "REDIRECT", "TPROXY"):
        return Rule("translate", steps, handle=handle)
    if name == "NOTRACK" or (name == "CT" and info and info[0] & 1):  # XT_CT_NOTRACK
        return Rule("continue", (*steps, Untrack()), handle=handle)
    return Rule("drop" if name == "REJECT" else "continue", steps, handle=handle)


def parse_verdict(found: Attributes) -> tuple[Verdict, str]:
    """A verdict and the chain that it names (NFTA_VERDICT_*)."""
    code = int.from_bytes(found[1], "big", signed=True)
    return _VERDICTS.get(code, "continue"), name_of(found[2]) if 2 in found else ""


def name_of(raw: memoryview) -> str:
    """A name as the kernel gives it, which another program may have made of anything."""
    return bytes(raw).rstrip(b"\0").decode(errors="replace")


def _steps(kind: str, data: Attributes) -> Iterator[Step]:
    match kind:
        case "notrack":
            yield Untrack()
        case "match":
            yield from parse_match(name_of(data[1]), int.from_bytes(data[2], "big"), bytes(data[3]))
        case "meta" | "ct" | "payload" | "fib" if 1 in data:
            yield _load(kind, data)
        case "immediate" if 1 in attributes(data[2]):
            yield Constant(_slot(data, 1), _value(data, 2))
        case "bitwise" if 4 in data and 5 in data and not _number(data, 6):
            yield Mask(_slot(data, 1), _slot(data, 2), _value(data, 4), _value(data, 5))
        case "cmp":
            yield Compare(_slot(data, 1), *_compared(_number(data, 2), _value(data, 3)))
        case "range":
            yield Compare(_slot(data, 1), ((_value(data, 3), _value(data, 4)),), _number(data, 2) == 1)
        case "lookup" if 3 not in data or _number(data, 3) == 0:  # else it is a map of values
            yield Lookup(_slot(data, 2), name_of(data[1]), bool(_number(data, 5) & 1), decides=3 in data)
        case _:
            yield Unknown()


def _load(kind: str, data: Attributes) -> Load | Unknown:
    slot, key = _slot(data, 1), _number(data, 2)
    if kind == "payload":
        what = _HEADERS.get(key, "")
        return Load(slot, _number(data, 4), what, _number(data, 3)) if what else Unknown()
    if kind == "fib":
        return Load(slot, 4, "daddr type") if (key, _number(data, 3)) == (_FIB_TYPE, _FIB_DESTINATION) else Unknown()
    what = (_META if kind == "meta" else _CT).get(key, "")
    return Load(slot, _SIZES.get(what, 4), what) if what else Unknown()


def _compared(operator: int, value: bytes) -> tuple[tuple[Span, ...], bool]:
    """The span that a comparison asks for (NFT_CMP_*), and whether it asks for the rest instead."""
    least, greatest = bytes(len(value)), _LAST * len(value)
    match operator:
        case 0 | 1:  # equal, unequal
            return ((value, value),), operator == 1
        case 2 | 5:  # less; greater or equal, which is not less
            return ((value, greatest),), operator == 2
        case _:  # less or equal; greater, which is not that
            return ((least, value),), operator == 4


def _slot(data: Attributes, kind: int) -> int:
    """The number of a register in units of 4 bytes; NFT_REG_1 to _4 are 16 bytes each."""
    register = _number(data, kind)
    return (register - 1) * 4 if register < 8 else register - 8


def _number(data: Attributes, kind: int) -> int:
    return int.from_bytes(data[kind], "big") if kind in data else 0


def _value(data: Attributes, kind: int) -> bytes:
    return bytes(attributes(data[kind])[1])
